/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace_io.h - which trace a request belongs to, and what is told of it when: `traceparent`
 * and `tracestate` come in with the request, goes on to the worker and out with the response;
 * records go to otlp_io.h if the trace is sampled. Inside of the gateway; the loop's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "schemas/base/traceparent.h"
#include "schemas/base/tracestate.h"

struct gateway;
struct exchange;
struct call;

/* In an exchange. */
struct exchange_trace {
    struct trace_context parent; /* span 0: this is the trace's beginning */
    uint64_t span;               /* the exchange's own */
    char state[TRACESTATE_BYTES];
};

/* What a query refers to until it is submitted. */
struct trace_told {
    char parent[TRACEPARENT_BYTES];
    weft_query_more_t more;
};

/* A request begins: reads its header, or begins a trace. */
void trace_io_begin(struct exchange *x);
/* What the client is told. */
void trace_io_text(const struct exchange *x, char out[static TRACEPARENT_BYTES]);
/* An answer is about to be asked for: what the worker is told of the trace goes into the query, if
 * anybody asked for it. */
void trace_io_submit(struct exchange *x, struct call *call, struct trace_told *told,
                     weft_query_t *query);
/* The answer is over. `operation` is static, as trace.h has it. */
void trace_io_answer(const struct call *call, const char *operation, const char *model,
                     const weft_result_t *result);
/* What an exchange's answers are: "chat", ... */
const char *trace_io_operation(const struct exchange *x);
/* The request is. */
void trace_io_end(const struct exchange *x);
/* Brings the figures up to date. */
void trace_io_count(struct gateway *g);
