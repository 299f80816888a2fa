/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prompt.h - the body of a request: struct weft_prompt and what follows it. Written by clients
 * (dataplane/client), checked and taken apart by workers (serve.c). UTF-8 is the runtime's concern.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/wire.h>
#include <weft/worker.h>

#include "schemas/base/traceparent.h"
#include "schemas/base/tracestate.h"

#define PROMPT_PARTS_MAX       16384u
#define PROMPT_TEMPERATURE_MAX 100.0f
#define PROMPT_PENALTY_MAX     100.0f

/* What to write; nothing is kept. The kind follows from what is set: tokens, parts, else text. */
struct prompt_spec {
    const weft_job_part_t *parts; /* chat messages with roles */
    size_t part_count;
    const char *text;
    size_t text_len;
    const uint32_t *tokens;
    size_t token_count;
    const uint32_t *resume; /* already given by an earlier attempt */
    size_t resume_count;
    uint32_t max_tokens;
    float temperature;
    float top_p; /* 1 = off */
    float min_p;
    uint32_t top_k;
    uint64_t seed;
    float repetition; /* 0 or 1 = off */
    float presence;
    float frequency;
    uint32_t logprobs;            /* WEFT_LOGPROBS_MAX at most */
    const weft_job_part_t *stops; /* WEFT_STOPS_MAX at most, 1 to WEFT_STOP_BYTES_MAX bytes each */
    size_t stop_count;
    bool no_thinking;
    uint32_t embed;  /* enum weft_embed */
    uint32_t format; /* enum weft_format */
    const char *format_text;
    size_t format_len;          /* WEFT_FORMAT_MAX at most */
    struct trace_context trace; /* zero = none */
    uint32_t session_node;      /* 1 + id of the node that served the session last; 0 = unknown */
    const char *trace_state;    /* as tracestate_write() writes it; only with a trace */
    size_t trace_state_len;
};

/* The same body, made for going on behind the `count` tokens: heap, or NULL (-ENOMEM, too long).
 * `body` must come from prompt_write() with nothing to resume. */
uint8_t *prompt_resumed(const uint8_t *body, uint32_t len, const uint32_t *tokens, uint32_t count,
                        uint32_t *out_len);

/* Bytes of the body, or 0 if it would exceed WEFT_MESSAGE_MAX. */
size_t prompt_size(const struct prompt_spec *spec);

/* Puts the right sum into a whole body of at least a header. */
void prompt_seal(uint8_t *body, size_t len);

/* Writes prompt_size() bytes. */
void prompt_write(const struct prompt_spec *spec, uint8_t *out);

/* How the prompt of a whole body begins (schemas/base/prefix.h), 0 if it is too short for that or
 * is to be embedded: what tokens an earlier attempt gave does not count. `body` comes from
 * prompt_write(), or prompt_parse() has found nothing wrong with it. */
uint64_t prompt_prefix(uint32_t model, const uint8_t *body, size_t len);

/*
 * Checks a whole body and fills `view` (prompt and sampling fields only), whose texts and tokens
 * point into `body`. `body` must be aligned to 4. `*parts` becomes a heap array the view refers to
 * (maybe NULL), the caller's to free. Returns 0, WEFT_E_BAD_REQUEST, WEFT_E_CORRUPT
 * (its sum is wrong) or -ENOMEM.
 */
int prompt_parse(const uint8_t *body, size_t len, weft_job_view_t *view, weft_job_part_t **parts);
