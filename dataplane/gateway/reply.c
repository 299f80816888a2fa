/* SPDX-License-Identifier: Apache-2.0 */
/* reply.c - see reply.h. */
#include "dataplane/gateway/reply.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

static const struct {
    const struct reply_format *format;
    const char *id_prefix;
} kinds[] = {
    [API_CHAT] = {&reply_chat, "chatcmpl-"},
    [API_COMPLETION] = {&reply_completion, "cmpl-"},
    [API_RESPONSE] = {&reply_response, "resp_"},
    [API_EMBEDDING] = {&reply_embedding, "embd-"},
};

static void prefix_make(struct reply *r)
{
    struct buf text = {.data = NULL};
    buf_add_format(&text, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%llu,\"model\":", r->id,
                   r->request->stream ? r->format->chunk_object : r->format->object,
                   (unsigned long long)r->created_s);
    buf_add_quoted(&text, r->request->query.model);
    r->prefix_len = buf_take(&text, r->prefix, sizeof(r->prefix));
    r->out.failed = r->out.failed || text.failed || buf_len(&text) != 0;
    buf_deinit(&text);
}

bool reply_init(struct reply *r, const struct api_request *request, const char *id,
                uint64_t created_s)
{
    memset(r, 0, sizeof(*r));
    r->format = kinds[request->kind].format;
    r->request = request;
    r->count = request->n * request->prompt_count;
    r->created_s = created_s;
    snprintf(r->id, sizeof(r->id), "%s%s", kinds[request->kind].id_prefix, id);
    r->choices = calloc(r->count, sizeof(*r->choices));
    if (r->choices == NULL) {
        r->count = 0;
        return false;
    }
    prefix_make(r);
    return true;
}

static void choices_deinit(struct reply *r)
{
    for (uint32_t i = 0; i < r->count; i++) {
        buf_deinit(&r->choices[i].text);
        reply_logprobs_deinit(&r->choices[i].logprobs);
        calls_deinit(&r->choices[i].calls);
    }
}

void reply_restart(struct reply *r)
{
    choices_deinit(r);
    memset(r->choices, 0, r->count * sizeof(*r->choices));
    r->done = 0;
    prefix_make(r);
}

void reply_deinit(struct reply *r)
{
    buf_deinit(&r->out);
    choices_deinit(r);
    free(r->choices);
    r->choices = NULL;
    r->count = 0;
}

struct reply_usage reply_usage(const struct reply *r)
{
    struct reply_usage sum = {0, 0, 0};
    for (uint32_t i = 0; i < r->count; i++) {
        const weft_result_t *result = &r->choices[i].result;
        sum.prompt_tokens += i % r->request->n == 0 ? result->prompt_tokens : 0;
        sum.cached_tokens += i % r->request->n == 0 ? result->cached_tokens : 0;
        sum.new_tokens += result->new_tokens;
    }
    return sum;
}

const weft_result_t *reply_account(const struct reply *r)
{
    const weft_result_t *last = &r->choices[0].result;
    for (uint32_t i = 1; i < r->count; i++) {
        last = r->choices[i].result.total_us > last->total_us ? &r->choices[i].result : last;
    }
    return last;
}

/* Microseconds as milliseconds with one digit behind the point, in two whole numbers: the C
 * library's way with floats takes seven times as long, and each answer has ten of these. */
#define TENTHS(us) ((us) + 50) / 1000, ((us) + 50) / 100 % 10

void reply_served(const weft_result_t *result, char *out, size_t size)
{
    char names[2][32];
    const char *from[2] = {result->node, result->backend};
    /* Names come from the mesh, and this goes into a header. */
    for (int n = 0; n < 2; n++) {
        size_t i = 0;
        for (; i + 1 < sizeof(names[n]) && from[n][i] != '\0'; i++) {
            names[n][i] = from[n][i] > ' ' && from[n][i] <= '~' ? from[n][i] : '?';
        }
        names[n][i] = '\0';
    }
    snprintf(out, size,
             "served by %s (tier %u, %s) in %" PRIu64 ".%" PRIu64 " ms: net %" PRIu64 ".%" PRIu64
             ", queue %" PRIu64 ".%" PRIu64 ", prefill %" PRIu64 ".%" PRIu64 ", decode %" PRIu64
             ".%" PRIu64 "; %u tokens",
             names[0], result->tier, names[1], TENTHS(result->total_us), TENTHS(result->net_us),
             TENTHS(result->queue_us), TENTHS(result->prefill_us), TENTHS(result->decode_us),
             result->new_tokens);
}

/* ---- events ---- */

static void begin(struct reply *r, uint32_t choice)
{
    r->head = true;
    if (!r->choices[choice].begun) {
        r->choices[choice].begun = true;
        r->format->begin(r, choice);
    }
}

static void text_take(struct reply *r, uint32_t choice, const char *text, size_t len)
{
    struct reply_choice *c = &r->choices[choice];
    if (!r->request->stream) {
        buf_add_held(&c->text, &c->hold, text, len);
        return;
    }
    begin(r, choice);
    r->format->text(r, choice, text, len);
}

/* `len` bytes of what was held are text; calls that are new are told. */
static void calls_move(struct reply *r, uint32_t choice, size_t len)
{
    struct reply_choice *c = &r->choices[choice];
    if (len != 0) {
        text_take(r, choice, c->calls.held.data + c->calls.held.at, len);
        calls_drop(&c->calls, len);
    }
    r->out.failed = r->out.failed || c->calls.held.failed;
    for (; r->request->stream && c->told < calls_count(&c->calls); c->told++) {
        begin(r, choice);
        r->format->call(r, choice, c->told);
    }
}

void reply_text(struct reply *r, uint32_t choice, const char *text, size_t len,
                const weft_logprob_t *logprobs, size_t count)
{
    struct reply_choice *c = &r->choices[choice];
    if (r->ended || c->done) {
        return;
    }
    if (count > 0 && r->request->logprobs) {
        reply_logprobs_keep(r, choice, logprobs, count);
    }
    if (!r->request->tools) {
        text_take(r, choice, text, len);
        return;
    }
    /* What is behind that text may be a call, and no further piece need come. */
    size_t ready = calls_feed(&c->calls, r->request, text, len);
    calls_move(r, choice, ready);
    while (ready != 0) {
        ready = calls_feed(&c->calls, r->request, "", 0);
        calls_move(r, choice, ready);
    }
}

static void stream_finish(struct reply *r, uint32_t choice)
{
    begin(r, choice);
    r->format->finish(r, choice);
    if (r->done < r->count) {
        return;
    }
    r->format->end(r);
    r->ended = true;
}

void reply_done(struct reply *r, uint32_t choice, const weft_result_t *result)
{
    struct reply_choice *c = &r->choices[choice];
    if (r->ended || c->done) {
        return;
    }
    c->done = true;
    c->result = *result;
    c->finish = result->finish == WEFT_FINISH_LENGTH ? "length" : "stop";
    r->done++;
    if (result->status == 0 && r->request->tools) {
        calls_move(r, choice, calls_end(&c->calls, r->request));
        c->finish = calls_count(&c->calls) != 0 ? "tool_calls" : c->finish;
    }
    if (result->status != 0) {
        struct api_error error;
        error_of_result(&error, result);
        reply_fail(r, &error);
    } else if (r->request->stream) {
        stream_finish(r, choice);
    } else {
        buf_add_rest(&c->text, &c->hold);
        if (r->done == r->count) {
            r->head = r->ended = true;
            r->format->whole(r);
        }
    }
}

void reply_fail(struct reply *r, const struct api_error *error)
{
    if (r->ended) {
        return;
    }
    bool streaming = r->head;
    r->failed = r->head = r->ended = true;
    r->error = *error;
    if (streaming) {
        buf_add_text(&r->out, r->request->kind == API_RESPONSE ? "event: error\ndata: " : "data: ");
    }
    error_write(error, &r->out);
    if (streaming) {
        buf_add_text(&r->out, "\n\n");
    }
}
