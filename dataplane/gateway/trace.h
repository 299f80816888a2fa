/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - what is known of a request becomes spans. Pure; otlp.h writes them, trace_io.h has
 * when.
 *
 *   gateway  POST /v1/chat/completions          self: reading, checking, sending
 *   └ router   asked .. the end of the answer   self: until the worker that served has accepted
 *     └ node     accepted .. the end            self: all the rest that was not the worker
 *       └ worker   queue, prompt, answer        self: waiting for its first step
 *         ├ device prefill
 *         └ device decode
 *
 * No two machines' clocks are compared. What happened elsewhere is shown when it was heard of here:
 * durations are those that the worker tells, and its part ends no later than its answer. Selves sum
 * up to the router's span exactly, and so to the whole. A request of several answers has a router
 * for each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "schemas/base/traceparent.h"
#include "schemas/base/tracestate.h"

#define TRACE_SPANS_MAX 5u  /* of one record */
#define TRACE_CALLS_MAX 16u /* answers of one request that are told of; there may be 2,048 */
#define TRACE_MODEL_MAX 64u

enum trace_part {
    TRACE_GATEWAY,
    TRACE_ROUTER,
    TRACE_NODE,
    TRACE_WORKER,
    TRACE_PREFILL,
    TRACE_DECODE
};

/* A request that is over, or one answer of it. */
struct trace_record {
    bool is_answer;
    struct trace_context parent; /* of its first span; span 0 = none */
    uint64_t span;               /* id of its first span */
    char state[TRACESTATE_BYTES];
    uint64_t begin_ns;     /* Unix time */
    uint64_t end_ns;       /* an answer's is begin and result.total_us */
    const char *operation; /* "chat", ...; static */
    char model[TRACE_MODEL_MAX];
    /* of a request */
    const char *method;
    const char *path;  /* static */
    const char *error; /* code; NULL = none; static */
    int http_status;
    uint32_t answers;
    char id[32];
    /* of an answer */
    weft_result_t result;
};

struct trace_span {
    enum trace_part part;
    uint64_t id;
    uint64_t parent;   /* 0 = none */
    uint64_t begin_ns; /* Unix time */
    uint64_t end_ns;
};

/* How long each part of an answer took by itself; the sum is result->total_us. */
struct trace_selves {
    uint64_t route_us, net_us, queue_us, prefill_us, decode_us;
};
struct trace_selves trace_selves(const weft_result_t *result);

/* The spans of a record, each behind its parent. Returns how many. */
uint32_t trace_spans(const struct trace_record *record, struct trace_span out[TRACE_SPANS_MAX]);

/* The id of a part's span below a router's. */
uint64_t trace_span_id(uint64_t router, enum trace_part part);
