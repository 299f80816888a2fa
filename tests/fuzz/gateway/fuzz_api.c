/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes bodies and headers of HTTP requests: the first byte chooses the API, up to a zero byte
 * follow header lines, then the body. What is taken is answered with what follows another zero byte
 * as the model's text, or with the body's own bytes, cut anywhere; what comes out must be valid
 * JSON, whole or event by event, and the whole must not tell where the text was cut. */
#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/reply.h"
#include "dataplane/gateway/scan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good) {
        abort();
    }
}

/* "name: value" lines. */
static bool headers_take(struct api_request *r, char *lines, struct api_error *error)
{
    char *rest = NULL;
    for (char *line = strtok_r(lines, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        char *colon = strchr(line, ':');
        if (colon == NULL) {
            continue;
        }
        *colon = '\0';
        if (!api_header(r, line, colon + 1, error)) {
            return false;
        }
    }
    return true;
}

static void events_check(const struct buf *out)
{
    const char *at = out->data + out->at;
    const char *end = out->data + out->end;
    while (at < end) {
        const char *stop = memmem(at, (size_t)(end - at), "\n\n", 2);
        need(stop != NULL);
        const char *json = memmem(at, (size_t)(stop - at), "data: {", 7);
        if (json != NULL) {
            json_t *event = json_loadb(json + 6, (size_t)(stop - json - 6), JSON_ALLOW_NUL, NULL);
            need(event != NULL);
            json_decref(event);
        } else {
            need(at[0] == ':' || strncmp(at, "data: [DONE]", 12) == 0);
        }
        at = stop + 2;
    }
}

/* The whole answer; `piece`: bytes of each piece of text, 0: some at a time. */
static struct reply *answered(const struct api_request *r, const uint8_t *text, size_t len,
                              size_t piece)
{
    struct reply *reply = calloc(1, sizeof(*reply));
    const weft_result_t result = {
        .status = len % 3 == 0 ? WEFT_E_STALLED : 0, .finish = 1 + (int)(len % 2), .node = "n"};
    need(reply != NULL);
    need(reply_init(reply, r, "0123456789", 1));
    need(reply->count >= 1 && reply->count <= API_INPUTS_MAX);
    for (size_t at = 0, step; at < len && r->kind != API_EMBEDDING; at += step) {
        step = piece != 0 ? piece : 1 + at % 7;
        step = step < len - at ? step : len - at;
        const weft_logprob_t logprobs[2] = {
            {1, -0.5f, (const char *)text + at, step},
            {2, -INFINITY, (const char *)text, strnlen((const char *)text, at)}, /* a key there */
        };
        for (uint32_t i = 0; i < reply->count; i++) {
            reply_text(reply, i, (const char *)text + at, step, logprobs,
                       r->query.logprobs < 2 ? r->query.logprobs : 2);
        }
    }
    for (uint32_t i = 0; i < reply->count; i++) {
        const float vector[2] = {0.5f, -1e-9f};
        if (r->kind == API_EMBEDDING) {
            reply_vector(reply, i, vector, len % 3);
        }
        reply_done(reply, i, &result);
    }
    need(reply->head && reply->ended && !reply->out.failed);
    return reply;
}

/* However a text is cut, the whole answer is the same, and its calls. */
static void same_at_once(const struct api_request *r, const struct reply *reply,
                         const uint8_t *text, size_t len)
{
    struct reply *once = answered(r, text, len, len);
    need(buf_len(&once->out) == buf_len(&reply->out) &&
         memcmp(once->out.data + once->out.at, reply->out.data + reply->out.at,
                buf_len(&once->out)) == 0);
    reply_deinit(once);
    free(once);
}

static void answer(const struct api_request *r, const uint8_t *text, size_t len)
{
    struct reply *reply = answered(r, text, len, 0);
    bool begun = false; /* what may be a call is held back, and may fail before anything is told */
    for (uint32_t i = 0; i < reply->count; i++) {
        begun = begun || reply->choices[i].begun;
    }
    if (r->stream && (!reply->failed || begun)) {
        events_check(&reply->out);
    } else {
        json_t *json = json_loadb(reply->out.data, buf_len(&reply->out), JSON_ALLOW_NUL, NULL);
        need(json_is_object(json));
        json_decref(json);
        if (!r->stream && r->query.logprobs == 0 && len != 0) {
            same_at_once(r, reply, text, len);
        }
    }
    reply_deinit(reply);
    free(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct api_request r;
    struct api_error error = {.http_status = 0};
    struct scan scan = {.depth = 0};
    const uint8_t *zero = size > 1 ? memchr(data + 1, 0, size - 1) : NULL;
    if (zero == NULL) {
        return 0;
    }
    const uint8_t *body = zero + 1;
    const size_t left = (size_t)(data + size - body);
    const uint8_t *end = left != 0 ? memchr(body, 0, left) : NULL;
    const size_t len = end != NULL ? (size_t)(end - body) : left;
    memset(&r, 0, sizeof(r));
    char *lines = strdup((const char *)data + 1);
    need(lines != NULL);
    if (scan_feed(&scan, (const char *)body, len)) {
        bool good =
            api_read(&r, (enum api_kind)(data[0] % API_KINDS), (const char *)body, len, &error) &&
            headers_take(&r, lines, &error) && api_check(&r, &error);
        need(good == (error.http_status == 0));
        if (good) {
            need(r.kind != API_EMBEDDING || (!r.stream && r.query.embed != 0));
            need(r.query.model != NULL && r.query.tier_max <= WEFT_TIER_MAX);
            for (uint32_t i = 0; i < r.n * r.prompt_count; i++) {
                weft_query_t query = api_query(&r, i);
                need(query.text != NULL || query.message_count > 0);
            }
            answer(&r, end != NULL ? end + 1 : body, end != NULL ? left - len - 1 : len);
        }
        api_deinit(&r);
    }
    free(lines);
    return 0;
}
