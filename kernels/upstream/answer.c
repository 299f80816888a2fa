/* SPDX-License-Identifier: Apache-2.0 */
/* answer.c - see answer.h. */
#include "kernels/upstream/answer.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

void answer_init(struct answer *answer, char *buffer, size_t capacity)
{
    memset(answer, 0, sizeof(*answer));
    answer->buffer = buffer;
    answer->capacity = capacity;
}

void answer_head(struct answer *answer, int http_status, const char *content_type)
{
    static const char stream[] = "text/event-stream";
    answer->http_status = http_status;
    answer->kind = ANSWER_WHOLE;
    if (http_status != 200) {
        answer->kind = ANSWER_ERROR;
    } else if (content_type && strncasecmp(content_type, stream, sizeof(stream) - 1) == 0) {
        answer->kind = ANSWER_STREAM;
        sse_init(&answer->sse, answer->buffer, answer->capacity);
    }
}

/* ---- calls of tools ---- */

struct out {
    answer_text_fn text;
    void *user;
};

static int say(const struct out *out, const char *text)
{
    return out->text(text, strlen(text), out->user);
}

static int call_close(struct answer *answer, const struct out *out)
{
    if (!answer->calling)
        return 0;
    answer->calling = false;
    const int rc = answer->has_arguments ? 0 : say(out, "{}");
    return rc ? rc : say(out, "}\n</tool_call>");
}

static int call_open(struct answer *answer, const struct delta_call *call, const struct out *out)
{
    int rc = call_close(answer, out);
    if (rc == 0 && !call->name)
        rc = -EBADMSG;
    if (rc == 0)
        rc = say(out, "\n<tool_call>\n{\"name\": \"");
    if (rc == 0)
        rc = say(out, call->name);
    if (rc == 0 && call->id) {
        rc = say(out, "\", \"id\": \"");
        rc = rc ? rc : say(out, call->id);
    }
    if (rc == 0)
        rc = say(out, "\", \"arguments\": ");
    answer->calling = rc == 0;
    answer->has_arguments = false;
    answer->call_index = call->index;
    return rc;
}

/* In JSON `<` stands in strings only, where \u003c is the same: no arguments look like an end. */
static int arguments_say(const char *text, size_t len, const struct out *out)
{
    int rc = 0;
    while (rc == 0 && len) {
        const char *mark = memchr(text, '<', len);
        const size_t part = mark ? (size_t)(mark - text) : len;
        if (part)
            rc = out->text(text, part, out->user);
        if (rc == 0 && mark)
            rc = say(out, "\\u003c");
        const size_t step = part + (mark ? 1 : 0);
        text += step;
        len -= step;
    }
    return rc;
}

static int take_calls(struct answer *answer, const struct delta *delta, const struct out *out)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < delta->call_count; i++) {
        const struct delta_call *call = &delta->calls[i];
        if (!answer->calling || call->index != answer->call_index)
            rc = call_open(answer, call, out);
        if (rc == 0 && call->arguments_len) {
            answer->has_arguments = true;
            rc = arguments_say(call->arguments, call->arguments_len, out);
        }
    }
    if (rc == 0 && delta->finish == DELTA_STOP)
        rc = call_close(answer, out);
    return rc;
}

/* What one event, or a whole answer, says. */
static int take(struct answer *answer, const struct delta *delta, answer_text_fn text, void *user)
{
    int rc = 0;
    if (delta->error) {
        answer->error = answer->done = true;
        answer->too_long = delta->too_long;
        memcpy(answer->message, delta->message, sizeof(answer->message));
        return 0;
    }
    const struct out out = {text, user};
    if (delta->text_len && answer->finish == DELTA_GOES_ON) {
        rc = call_close(answer, &out);
        rc = rc ? rc : text(delta->text, delta->text_len, user);
    }
    if (rc == 0 && answer->finish == DELTA_GOES_ON)
        rc = take_calls(answer, delta, &out);
    answer->spoiled |= rc == -EBADMSG;
    if (delta->finish != DELTA_GOES_ON && answer->finish == DELTA_GOES_ON)
        answer->finish = delta->finish;
    if (delta->has_usage) {
        answer->has_usage = true;
        answer->prompt_tokens = delta->prompt_tokens;
        answer->completion_tokens = delta->completion_tokens;
        answer->cached_tokens = delta->cached_tokens;
    }
    answer->done |= delta->done;
    return rc;
}

static int take_json(struct answer *answer, const char *data, size_t len, answer_text_fn text,
                     void *user)
{
    struct delta delta;
    int rc = delta_parse(&delta, data, len);
    answer->spoiled |= rc != 0;
    if (rc == 0)
        rc = take(answer, &delta, text, user);
    delta_deinit(&delta);
    return rc;
}

static int take_events(struct answer *answer, const char *data, size_t len, answer_text_fn text,
                       void *user)
{
    struct sse_event event;
    int rc;
    while ((rc = sse_next(&answer->sse, &data, &len, &event)) == 1) {
        if (answer->done)
            continue;
        rc = take_json(answer, event.data, event.len, text, user);
        if (rc)
            return rc;
    }
    answer->spoiled |= rc != 0;
    return rc;
}

/* Bodies that are read when they are whole; of errors the beginning will do. */
static int keep(struct answer *answer, const char *data, size_t len)
{
    const bool is_error = answer->kind == ANSWER_ERROR;
    const size_t most =
        is_error && answer->capacity > ANSWER_ERROR_READ ? ANSWER_ERROR_READ : answer->capacity;
    size_t part = most - answer->length;
    if (len > part && !is_error) {
        answer->spoiled = true;
        return -EMSGSIZE;
    }
    part = len < part ? len : part;
    memcpy(answer->buffer + answer->length, data, part);
    answer->length += part;
    return 0;
}

int answer_data(struct answer *answer, const char *data, size_t len, answer_text_fn text,
                void *user)
{
    answer->total += len;
    if (answer->total > ANSWER_TOTAL_MAX) {
        answer->spoiled = true;
        return -EMSGSIZE;
    }
    if (answer->kind == ANSWER_STREAM)
        return take_events(answer, data, len, text, user);
    return answer->kind == ANSWER_HEAD ? -EBADMSG : keep(answer, data, len);
}

static enum answer_verdict refused(struct answer *answer)
{
    struct delta delta;
    delta_parse_error(&delta, answer->buffer, answer->length);
    memcpy(answer->message, delta.message, sizeof(answer->message));
    const bool too_long = delta.too_long || answer->http_status == 413;
    delta_deinit(&delta);
    switch (answer->http_status) {
    case 429:
    case 503:
    case 529:
        return ANSWER_BUSY;
    case 400:
    case 413:
    case 422:
        return too_long ? ANSWER_TOO_LONG : ANSWER_BAD_REQUEST;
    default:
        return answer->http_status >= 500 ? ANSWER_FAILED : ANSWER_DENIED;
    }
}

enum answer_verdict answer_end(struct answer *answer, bool whole, answer_text_fn text, void *user)
{
    if (answer->kind == ANSWER_ERROR)
        return refused(answer);
    if (answer->kind == ANSWER_WHOLE && whole && !answer->spoiled)
        (void)take_json(answer, answer->buffer, answer->length, text, user);
    if (answer->error)
        return answer->too_long ? ANSWER_TOO_LONG : ANSWER_FAILED;
    switch (answer->finish) {
    case DELTA_STOP:
    case DELTA_LENGTH:
        return ANSWER_COMPLETE;
    case DELTA_FILTERED:
        return ANSWER_FILTERED;
    case DELTA_BROKEN:
        return ANSWER_FAILED;
    case DELTA_GOES_ON:
        break;
    }
    return ANSWER_CUT;
}

const char *answer_verdict_name(enum answer_verdict verdict)
{
    static const char *const names[] = {
        [ANSWER_COMPLETE] = "complete", [ANSWER_CUT] = "cut",
        [ANSWER_FAILED] = "failed",     [ANSWER_BUSY] = "busy",
        [ANSWER_DENIED] = "denied",     [ANSWER_BAD_REQUEST] = "bad_request",
        [ANSWER_TOO_LONG] = "too_long", [ANSWER_FILTERED] = "filtered",
    };
    return names[verdict];
}
