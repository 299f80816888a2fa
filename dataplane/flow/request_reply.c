/* SPDX-License-Identifier: Apache-2.0 */
/* request_reply.c - the frames of a reply: texts with their log probabilities, and the end; see
 * request.h. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/request_impl.h"

/* The frame `skip` bytes behind what has been handed out; false if it is not all here. */
static bool request_frame(const struct request *r, uint32_t skip, struct weft_frame *frame,
                          const uint8_t **data)
{
    uint32_t have = r->reply.cum - r->parsed;
    if (have < skip || have - skip < sizeof(*frame)) {
        return false;
    }
    const uint8_t *at = r->reply.data + (r->parsed - r->reply.base) + skip;
    memcpy(frame, at, sizeof(*frame));
    *data = at + sizeof(*frame);
    return have - skip - sizeof(*frame) >= frame->len;
}

static uint32_t request_frame_size(const struct weft_frame *frame)
{
    return (uint32_t)sizeof(*frame) + frame->len;
}

static void request_done_frame(struct request *r, const uint8_t *data, uint32_t len,
                               uint64_t now_ns)
{
    struct weft_done done = {0};
    if (len < WEFT_DONE_LEAST || reasm_set_total(&r->reply, r->parsed) != 0) {
        request_abandon(r, WEFT_E_CORRUPT, now_ns);
        return;
    }
    memcpy(&done, data, len < sizeof(done) ? len : sizeof(done));
    if (done.status == 0 && !r->ended && r->state == REQUEST_ACCEPTED &&
        done.new_tokens != r->resumed + r->result.new_tokens) {
        request_abandon(r, WEFT_E_CORRUPT, now_ns); /* not what the worker says it has sent */
        return;
    }
    if (!r->ended) {
        weft_result_t *res = &r->result;
        res->finish = done.finish;
        res->tier = done.tier;
        res->prompt_tokens = done.prompt_tokens;
        res->new_tokens = done.status == 0 ? done.new_tokens : res->new_tokens;
        res->queue_us = done.queue_us;
        res->prefill_us = done.prefill_us;
        res->decode_us = done.decode_us;
        res->cached_tokens = done.cached_tokens;
        memcpy(res->node, done.node_name, sizeof(res->node) - 1);
        memcpy(res->backend, done.backend, sizeof(res->backend) - 1);
    }
    request_close(r, -(int)done.status);
    r->ack_ns = now_ns; /* the final one */
}

bool request_logprob(struct request_text *text, weft_logprob_t *out)
{
    struct weft_logprob_entry entry;
    if (text->logprobs_len < sizeof(entry)) {
        return false;
    }
    memcpy(&entry, text->logprobs, sizeof(entry));
    if (entry.len > text->logprobs_len - sizeof(entry)) {
        return false;
    }
    *out = (weft_logprob_t){entry.token, entry.logprob,
                            (const char *)text->logprobs + sizeof(entry), entry.len};
    text->logprobs += sizeof(entry) + entry.len;
    text->logprobs_len -= (uint32_t)sizeof(entry) + entry.len;
    return true;
}

/* Rows that fill the frame, the first that of the token. */
static bool request_logprobs_fit(const struct weft_frame *frame, const uint8_t *data)
{
    struct request_text rows = {.logprobs = data, .logprobs_len = frame->len};
    weft_logprob_t row;
    uint32_t count = 0;
    while (request_logprob(&rows, &row)) {
        if (count++ == 0 && row.token != frame->token) {
            return false;
        }
    }
    return rows.logprobs_len == 0 && count != 0 && count <= WEFT_LOGPROBS_MAX;
}

enum request_take { REQUEST_TAKEN, REQUEST_WAIT, REQUEST_GARBLED };

/* Log probabilities with the text they belong to, as one. Moves `frame` and `data` on to that. */
static enum request_take request_take_logprobs(const struct request *r, struct weft_frame *frame,
                                               const uint8_t **data, uint32_t *size,
                                               struct request_text *text)
{
    struct weft_frame next;
    const uint8_t *next_data;
    if (!request_frame(r, *size, &next, &next_data)) {
        return REQUEST_WAIT;
    }
    if (next.kind != WEFT_FRAME_TEXT || (next.flags & WEFT_FRAME_F_CONTINUED) != 0 ||
        next.token != frame->token || !request_logprobs_fit(frame, *data)) {
        return REQUEST_GARBLED;
    }
    text->logprobs = *data;
    text->logprobs_len = frame->len;
    *size += request_frame_size(&next);
    *frame = next;
    *data = next_data;
    return REQUEST_TAKEN;
}

/* The next text, with what belongs to it; `size` bytes of frames. */
static enum request_take request_take_text(struct request *r, struct weft_frame frame,
                                           const uint8_t *data, uint32_t *size,
                                           struct request_text *text)
{
    *text = (struct request_text){0};
    if (frame.kind == WEFT_FRAME_LOGPROBS) {
        enum request_take took = request_take_logprobs(r, &frame, &data, size, text);
        if (took != REQUEST_TAKEN) {
            return took;
        }
    }
    if (frame.kind != WEFT_FRAME_TEXT) {
        return REQUEST_GARBLED; /* who knows what it takes the place of */
    }
    bool continued = (frame.flags & WEFT_FRAME_F_CONTINUED) != 0;
    if (continued && (r->resumed + r->result.new_tokens == 0 || frame.token != r->last_token)) {
        return REQUEST_GARBLED;
    }
    if ((frame.flags & WEFT_FRAME_F_TAIL) != 0) {
        /* Only with the account: whoever goes on behind the tokens gives it again. */
        struct weft_frame next;
        const uint8_t *next_data;
        if (!request_frame(r, *size, &next, &next_data)) {
            return REQUEST_WAIT;
        }
        if (next.kind != WEFT_FRAME_DONE) {
            return REQUEST_GARBLED;
        }
    }
    text->token = frame.token;
    text->continued = continued;
    text->partial = frame.len == UINT16_MAX;
    text->data = (const char *)data;
    text->len = frame.len;
    return REQUEST_TAKEN;
}

static void request_count(struct request *r, const struct request_text *text, uint64_t now_ns)
{
    r->last_token = text->token;
    r->result.new_tokens += !text->continued;
    if (r->result.first_token_us == 0) {
        uint64_t us = (now_ns - r->start_ns) / NS_PER_US;
        r->result.first_token_us = us != 0 ? us : 1;
    }
}

/* Takes the whole vector; false if it is none, or the second. */
static bool request_embedding(struct request *r, const uint8_t *data, uint32_t len)
{
    if (r->embedding != NULL || len == 0 || len % sizeof(float) != 0) {
        return false;
    }
    r->embedding = malloc(len);
    if (r->embedding == NULL) {
        return false;
    }
    memcpy(r->embedding, data, len);
    r->embedding_count = len / (uint32_t)sizeof(float);
    return true;
}

bool request_event(struct request *r, struct request_text *text, uint64_t now_ns)
{
    while (r->state != REQUEST_CLOSED && !(r->held && r->state == REQUEST_ACCEPTED)) {
        struct weft_frame frame;
        const uint8_t *data;
        if (!request_frame(r, 0, &frame, &data)) {
            break;
        }
        uint32_t size = request_frame_size(&frame);
        if (frame.kind == WEFT_FRAME_DONE) {
            r->parsed += size;
            request_done_frame(r, data, frame.len, now_ns);
            continue;
        }
        if (r->state != REQUEST_ACCEPTED) {
            r->parsed += size; /* nobody wants it */
            continue;
        }
        if (frame.kind == WEFT_FRAME_EMBEDDING && request_embedding(r, data, frame.len)) {
            r->parsed += size;
            continue;
        }
        enum request_take took = request_take_text(r, frame, data, &size, text);
        if (took == REQUEST_WAIT) {
            break;
        }
        r->parsed += size;
        if (took == REQUEST_TAKEN) {
            request_count(r, text, now_ns);
            return true;
        }
        request_abandon(r, WEFT_E_CORRUPT, now_ns);
    }
    if (r->state != REQUEST_CLOSED && reasm_complete(&r->reply) && !r->held) {
        request_abandon(r, WEFT_E_CORRUPT, now_ns); /* the end without a DONE frame */
        request_close(r, WEFT_E_CORRUPT);
        r->ack_ns = now_ns;
    }
    reasm_consume(&r->reply, r->parsed);
    return false;
}
