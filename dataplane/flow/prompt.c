/* SPDX-License-Identifier: Apache-2.0 */
/* prompt.c - see prompt.h. */
#include "dataplane/flow/prompt.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <weft/client.h>

#include "schemas/base/crc32c.h"
#include "schemas/base/cursor.h"
#include "schemas/base/prefix.h"

#define PROMPT_EMBED ((unsigned)(WEFT_PROMPT_F_EMBED_MEAN | WEFT_PROMPT_F_EMBED_LAST))
#define PROMPT_FLAGS                                                                               \
    ((unsigned)(WEFT_PROMPT_F_NO_THINKING | WEFT_PROMPT_F_FORMATTED) | PROMPT_EMBED)
/* Stop strings come behind all fields that their writer knows, which are these at least. */
#define PROMPT_STOPS_LEAST  offsetof(struct weft_prompt, format_at)
#define PROMPT_FORMAT_LEAST offsetof(struct weft_prompt, trace_flags)
#define PROMPT_STATE_LEAST  sizeof(struct weft_prompt)

/* The header's fields, its format and its stop strings: behind them stands the tracestate. Below 64
 * KiB by their limits. */
static size_t prompt_state_at(const struct prompt_spec *spec)
{
    size_t at = sizeof(struct weft_prompt) + spec->format_len;
    for (size_t i = 0; i < spec->stop_count; i++) {
        at += sizeof(uint16_t) + spec->stops[i].len;
    }
    return at;
}

static size_t prompt_head_size(const struct prompt_spec *spec)
{
    return (prompt_state_at(spec) + spec->trace_state_len + 3) & ~(size_t)3;
}

size_t prompt_size(const struct prompt_spec *spec)
{
    size_t size = prompt_head_size(spec);
    if (spec->resume_count > (WEFT_MESSAGE_MAX - size) / 4) {
        return 0;
    }
    size += spec->resume_count * 4;
    if (spec->token_count != 0) {
        return spec->token_count > (WEFT_MESSAGE_MAX - size) / 4 ? 0 : size + spec->token_count * 4;
    }
    if (spec->part_count == 0) {
        return spec->text_len > WEFT_MESSAGE_MAX - size ? 0 : size + spec->text_len;
    }
    for (size_t i = 0; i < spec->part_count; i++) {
        size_t left = WEFT_MESSAGE_MAX - size;
        if (left < sizeof(struct weft_part) ||
            spec->parts[i].len > left - sizeof(struct weft_part)) {
            return 0;
        }
        size += sizeof(struct weft_part) + spec->parts[i].len;
    }
    return size;
}

static uint8_t *prompt_put(uint8_t *out, const void *data, size_t len)
{
    if (len != 0) {
        memcpy(out, data, len);
    }
    return out + len;
}

void prompt_seal(uint8_t *body, size_t len)
{
    uint32_t sum = 0;
    memcpy(body + offsetof(struct weft_prompt, sum), &sum, sizeof(sum));
    sum = crc32c(0, body, len);
    memcpy(body + offsetof(struct weft_prompt, sum), &sum, sizeof(sum));
}

static bool prompt_sealed(const struct weft_prompt *head, const uint8_t *body, size_t len)
{
    struct weft_prompt zero = *head;
    zero.sum = 0;
    uint32_t sum = crc32c(0, &zero, WEFT_PROMPT_LEAST);
    return crc32c(sum, body + WEFT_PROMPT_LEAST, len - WEFT_PROMPT_LEAST) == head->sum;
}

static uint8_t prompt_flags(const struct prompt_spec *spec)
{
    unsigned flags = spec->no_thinking ? WEFT_PROMPT_F_NO_THINKING : 0;
    flags |= spec->embed == WEFT_EMBED_MEAN ? WEFT_PROMPT_F_EMBED_MEAN : 0;
    flags |= spec->embed == WEFT_EMBED_LAST ? WEFT_PROMPT_F_EMBED_LAST : 0;
    flags |= spec->format != WEFT_FORMAT_NONE ? WEFT_PROMPT_F_FORMATTED : 0;
    return (uint8_t)flags;
}

static uint8_t *prompt_put_head(const struct prompt_spec *spec, uint8_t kind, uint8_t *out)
{
    uint8_t *end = out + prompt_head_size(spec);
    struct weft_prompt head = {
        .kind = kind,
        .flags = prompt_flags(spec),
        .hdr_len = (uint16_t)(end - out),
        .max_tokens = spec->max_tokens,
        .seed = spec->seed,
        .temperature = spec->temperature,
        .top_p = spec->top_p,
        .min_p = spec->min_p,
        .top_k = spec->top_k,
        .parts = kind == WEFT_PROMPT_CHAT ? (uint32_t)spec->part_count : 0,
        .resume = (uint32_t)spec->resume_count,
        .repetition = spec->repetition,
        .presence = spec->presence,
        .frequency = spec->frequency,
        .logprobs = (uint16_t)spec->logprobs,
        .stops = (uint16_t)spec->stop_count,
        .stops_at = (uint16_t)(spec->stop_count != 0 ? sizeof(head) + spec->format_len : 0),
        .format = (uint16_t)spec->format,
        .format_at = spec->format_len != 0 ? sizeof(head) : 0,
        .format_len = (uint16_t)spec->format_len,
        .trace_high = spec->trace.high,
        .trace_low = spec->trace.low,
        .trace_span = spec->trace.span,
        .trace_flags = spec->trace.flags,
        .session_node = (uint16_t)spec->session_node,
        .trace_state_at = (uint16_t)(spec->trace_state_len != 0 ? prompt_state_at(spec) : 0),
        .trace_state_len = (uint16_t)spec->trace_state_len,
    };
    out = prompt_put(out, &head, sizeof(head));
    out = prompt_put(out, spec->format_text, spec->format_len);
    for (size_t i = 0; i < spec->stop_count; i++) {
        uint16_t len = (uint16_t)spec->stops[i].len;
        out = prompt_put(out, &len, sizeof(len));
        out = prompt_put(out, spec->stops[i].text, len);
    }
    out = prompt_put(out, spec->trace_state, spec->trace_state_len);
    memset(out, 0, (size_t)(end - out));
    return end;
}

void prompt_write(const struct prompt_spec *spec, uint8_t *out)
{
    uint8_t *body = out;
    uint8_t kind = WEFT_PROMPT_TEXT;
    if (spec->token_count != 0) {
        kind = WEFT_PROMPT_TOKENS;
    } else if (spec->part_count != 0) {
        kind = WEFT_PROMPT_CHAT;
    }
    out = prompt_put_head(spec, kind, out);
    out = prompt_put(out, spec->resume, spec->resume_count * 4);
    if (kind == WEFT_PROMPT_TOKENS) {
        out = prompt_put(out, spec->tokens, spec->token_count * 4);
    } else if (kind == WEFT_PROMPT_TEXT) {
        out = prompt_put(out, spec->text, spec->text_len);
    } else {
        for (size_t i = 0; i < spec->part_count; i++) {
            struct weft_part part = {spec->parts[i].role, (uint32_t)spec->parts[i].len};
            out = prompt_put(out, &part, sizeof(part));
            out = prompt_put(out, spec->parts[i].text, spec->parts[i].len);
        }
    }
    prompt_seal(body, (size_t)(out - body));
}

uint8_t *prompt_resumed(const uint8_t *body, uint32_t len, const uint32_t *tokens, uint32_t count,
                        uint32_t *out_len)
{
    struct weft_prompt head;
    uint64_t size = (uint64_t)len + count * UINT64_C(4);
    uint8_t *out = size <= WEFT_MESSAGE_MAX ? malloc(size) : NULL;
    if (out == NULL) {
        return NULL;
    }
    memcpy(&head, body, WEFT_PROMPT_LEAST);
    uint8_t *at = prompt_put(out, body, head.hdr_len);
    at = prompt_put(at, tokens, count * (size_t)4);
    prompt_put(at, body + head.hdr_len, len - head.hdr_len);
    head.resume = count;
    memcpy(out, &head, WEFT_PROMPT_LEAST);
    prompt_seal(out, size);
    *out_len = (uint32_t)size;
    return out;
}

static int prompt_sampling(const struct weft_prompt *head, weft_job_view_t *view)
{
    float temperature = head->temperature;
    float top_p = head->top_p;
    float min_p = head->min_p;
    /* Written so that a NaN fails each comparison. */
    if (!(temperature >= 0.0f && temperature <= PROMPT_TEMPERATURE_MAX) ||
        !(top_p > 0.0f && top_p <= 1.0f) || !(min_p >= 0.0f && min_p <= 1.0f) ||
        head->max_tokens == 0) {
        return WEFT_E_BAD_REQUEST;
    }
    view->max_tokens = head->max_tokens;
    view->temperature = temperature;
    view->top_p = top_p;
    view->min_p = min_p;
    view->top_k = head->top_k;
    view->seed = head->seed;
    return 0;
}

static bool prompt_penalty_is_fine(float value)
{
    return value >= -PROMPT_PENALTY_MAX && value <= PROMPT_PENALTY_MAX; /* a NaN is not */
}

/* A tracestate that is not as it should be is none: it is no reason to refuse a request. What is
 * taken goes on into headers as it is. */
static void prompt_trace_state(const struct weft_prompt *head, const uint8_t *body,
                               weft_job_view_t *view)
{
    const char *text = (const char *)body + head->trace_state_at;
    if (head->trace_state_len != 0 && head->trace_state_at >= PROMPT_STATE_LEAST &&
        head->trace_state_at + head->trace_state_len <= head->hdr_len &&
        tracestate_is_clean(text, head->trace_state_len)) {
        view->tracestate = text;
        view->tracestate_len = head->trace_state_len;
    }
}

static void prompt_trace(const struct weft_prompt *head, const uint8_t *body, weft_job_view_t *view)
{
    const struct trace_context trace = {head->trace_high, head->trace_low, head->trace_span,
                                        (uint8_t)(head->trace_flags & TRACEPARENT_SAMPLED)};
    if (traceparent_is_set(&trace)) {
        traceparent_write(&trace, view->traceparent);
        prompt_trace_state(head, body, view);
    }
}

static int prompt_controls(const struct weft_prompt *head, const uint8_t *body,
                           weft_job_view_t *view)
{
    float repetition = head->repetition;
    if (!(repetition >= 0.0f && repetition <= PROMPT_PENALTY_MAX) ||
        !prompt_penalty_is_fine(head->presence) || !prompt_penalty_is_fine(head->frequency) ||
        head->logprobs > WEFT_LOGPROBS_MAX || head->stops > WEFT_STOPS_MAX ||
        (head->flags & ~PROMPT_FLAGS) != 0 || (head->flags & PROMPT_EMBED) == PROMPT_EMBED ||
        ((head->flags & PROMPT_EMBED) != 0 && head->resume != 0)) {
        return WEFT_E_BAD_REQUEST;
    }
    view->embed = (head->flags & WEFT_PROMPT_F_EMBED_MEAN) != 0   ? WEFT_EMBED_MEAN
                  : (head->flags & WEFT_PROMPT_F_EMBED_LAST) != 0 ? WEFT_EMBED_LAST
                                                                  : WEFT_EMBED_NONE;
    view->repetition_penalty = repetition == 0.0f ? 1.0f : repetition;
    view->presence_penalty = head->presence;
    view->frequency_penalty = head->frequency;
    view->logprobs = head->logprobs;
    view->no_thinking = (head->flags & WEFT_PROMPT_F_NO_THINKING) != 0;
    view->session_node = head->session_node;
    prompt_trace(head, body, view);
    return 0;
}

static int prompt_format(const struct weft_prompt *head, const uint8_t *body, weft_job_view_t *view)
{
    bool flagged = (head->flags & WEFT_PROMPT_F_FORMATTED) != 0;
    if (flagged != (head->format != WEFT_FORMAT_NONE)) {
        return WEFT_E_BAD_REQUEST;
    }
    if (!flagged) {
        return 0; /* in a shorter header stop strings stand where its text would be told of */
    }
    if (head->format > WEFT_FORMAT_CALL || head->format_len > WEFT_FORMAT_MAX ||
        view->embed != WEFT_EMBED_NONE) {
        return WEFT_E_BAD_REQUEST;
    }
    if (head->format_len != 0 && (head->format_at < PROMPT_FORMAT_LEAST ||
                                  head->format_at + head->format_len > head->hdr_len)) {
        return WEFT_E_BAD_REQUEST;
    }
    view->format = head->format;
    view->format_text = (const char *)body + (head->format_len != 0 ? head->format_at : 0);
    view->format_len = head->format_len;
    return 0;
}

/* The first entries of `list` are theirs. */
static int prompt_stops(const struct weft_prompt *head, const uint8_t *body, weft_job_view_t *view,
                        weft_job_part_t *list)
{
    if (head->stops == 0) {
        return 0;
    }
    if (head->stops_at < PROMPT_STOPS_LEAST || head->stops_at > head->hdr_len) {
        return WEFT_E_BAD_REQUEST;
    }
    struct cursor c;
    cursor_init_const(&c, body + head->stops_at, (size_t)(head->hdr_len - head->stops_at));
    for (uint32_t i = 0; i < head->stops; i++) {
        list[i].len = cursor_read_u16(&c);
        list[i].text = cursor_take(&c, list[i].len);
        if (c.failed || list[i].len == 0 || list[i].len > WEFT_STOP_BYTES_MAX) {
            return WEFT_E_BAD_REQUEST;
        }
    }
    view->stops = list;
    view->stop_count = head->stops;
    return 0;
}

static int prompt_chat(struct cursor *c, uint32_t count, weft_job_view_t *view,
                       weft_job_part_t *list)
{
    for (uint32_t i = 0; i < count; i++) {
        struct weft_part part;
        cursor_read(c, &part, sizeof(part));
        list[i].role = part.role;
        list[i].len = part.len;
        list[i].text = cursor_take(c, part.len);
        if (c->failed || part.role < WEFT_ROLE_SYSTEM || part.role > WEFT_ROLE_TOOLS) {
            return WEFT_E_BAD_REQUEST;
        }
    }
    view->parts = list;
    view->part_count = count;
    return cursor_left(c) == 0 ? 0 : WEFT_E_BAD_REQUEST;
}

static int prompt_text(struct cursor *c, weft_job_view_t *view, weft_job_part_t *list)
{
    list->len = cursor_left(c);
    list->text = (const char *)c->at;
    view->parts = list;
    view->part_count = 1;
    return 0;
}

static int prompt_tokens(struct cursor *c, weft_job_view_t *view)
{
    size_t left = cursor_left(c);
    if (left == 0 || left % 4 != 0) {
        return WEFT_E_BAD_REQUEST;
    }
    view->tokens = (const uint32_t *)(const void *)c->at;
    view->token_count = left / 4;
    return 0;
}

/* How many entries the prompt of this kind takes, or a status. */
static int prompt_parts(const struct weft_prompt *head, size_t left)
{
    switch (head->kind) {
    case WEFT_PROMPT_TEXT:
        return head->parts == 0 ? 1 : WEFT_E_BAD_REQUEST;
    case WEFT_PROMPT_CHAT:
        if (head->parts == 0 || head->parts > PROMPT_PARTS_MAX ||
            head->parts > left / sizeof(struct weft_part)) {
            return WEFT_E_BAD_REQUEST;
        }
        return (int)head->parts;
    case WEFT_PROMPT_TOKENS:
        return head->parts == 0 ? 0 : WEFT_E_BAD_REQUEST;
    default:
        return WEFT_E_BAD_REQUEST;
    }
}

/* What lies behind the header, which has been checked. */
static int prompt_body(const struct weft_prompt *head, const uint8_t *body, size_t len,
                       weft_job_view_t *view, weft_job_part_t **parts)
{
    struct cursor c;
    cursor_init_const(&c, body + head->hdr_len, len - head->hdr_len);
    view->resume = (const uint32_t *)cursor_take(&c, (size_t)head->resume * 4);
    view->resume_count = head->resume;
    int count = prompt_parts(head, cursor_left(&c));
    if (count < 0) {
        return count;
    }
    weft_job_part_t *list = NULL;
    if (count != 0 || head->stops != 0) {
        list = calloc((size_t)count + head->stops, sizeof(*list));
        if (list == NULL) {
            return -ENOMEM;
        }
    }
    int rc = prompt_stops(head, body, view, list);
    if (rc == 0 && head->kind == WEFT_PROMPT_TOKENS) {
        rc = prompt_tokens(&c, view);
    } else if (rc == 0 && head->kind == WEFT_PROMPT_TEXT) {
        rc = prompt_text(&c, view, list + head->stops);
    } else if (rc == 0) {
        rc = prompt_chat(&c, (uint32_t)count, view, list + head->stops);
    }
    if (rc != 0) {
        free(list);
        return rc;
    }
    *parts = list;
    return 0;
}

/* Fields end where a text begins. */
static void prompt_fields_end(struct weft_prompt *head, size_t at, size_t *len)
{
    if (at < *len) {
        memset((uint8_t *)head + at, 0, *len - at);
        *len = at;
    }
}

/* The fields that are there, the others zero: they end with the header or where the first text
 * begins, of which a field tells that is always there. */
static void prompt_fields(const uint8_t *body, struct weft_prompt *head)
{
    size_t len = head->hdr_len < sizeof(*head) ? head->hdr_len : sizeof(*head);
    memcpy(head, body, len);
    if (head->stops != 0 && head->stops_at >= PROMPT_STOPS_LEAST) {
        prompt_fields_end(head, head->stops_at, &len);
    }
    if ((head->flags & WEFT_PROMPT_F_FORMATTED) != 0 && head->format_len != 0 &&
        head->format_at >= PROMPT_FORMAT_LEAST) {
        prompt_fields_end(head, head->format_at, &len);
    }
}

int prompt_parse(const uint8_t *body, size_t len, weft_job_view_t *view, weft_job_part_t **parts)
{
    struct weft_prompt head = {0};
    memset(view, 0, sizeof(*view));
    *parts = NULL;
    if (len < WEFT_PROMPT_LEAST || len > WEFT_MESSAGE_MAX) {
        return WEFT_E_BAD_REQUEST;
    }
    memcpy(&head, body, WEFT_PROMPT_LEAST);
    if (!prompt_sealed(&head, body, len)) {
        return WEFT_E_CORRUPT;
    }
    if (head.hdr_len < WEFT_PROMPT_LEAST || head.hdr_len > len || head.hdr_len % 4 != 0) {
        return WEFT_E_BAD_REQUEST;
    }
    prompt_fields(body, &head);
    int rc = prompt_sampling(&head, view);
    rc = rc == 0 ? prompt_controls(&head, body, view) : rc;
    rc = rc == 0 ? prompt_format(&head, body, view) : rc;
    if (rc != 0) {
        return rc;
    }
    if (head.resume > (len - head.hdr_len) / 4 || head.resume > head.max_tokens) {
        return WEFT_E_BAD_REQUEST;
    }
    return prompt_body(&head, body, len, view, parts);
}

uint64_t prompt_prefix(uint32_t model, const uint8_t *body, size_t len)
{
    struct weft_prompt head = {0};
    memcpy(&head, body, WEFT_PROMPT_LEAST);
    size_t at = head.hdr_len + (size_t)head.resume * 4;
    return (head.flags & PROMPT_EMBED) != 0 ? 0 : prefix_of(model, body + at, len - at);
}
