/* SPDX-License-Identifier: Apache-2.0 */
/* trace.c - see trace.h. */
#include "dataplane/gateway/trace.h"

#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

/* Takes as much of what is left as there is: a worker's account never exceeds the whole. */
static uint64_t take(uint64_t *left, uint64_t wanted)
{
    uint64_t taken = wanted < *left ? wanted : *left;
    *left -= taken;
    return taken;
}

struct trace_selves trace_selves(const weft_result_t *result)
{
    struct trace_selves s;
    uint64_t left = result->total_us;
    s.decode_us = take(&left, result->decode_us);
    s.prefill_us = take(&left, result->prefill_us);
    s.queue_us = take(&left, result->queue_us);
    s.route_us = take(&left, result->accepted_us != 0 ? result->accepted_us : left);
    s.net_us = left;
    return s;
}

uint64_t trace_span_id(uint64_t router, enum trace_part part)
{
    struct rng rng = {router + (uint64_t)part};
    return part == TRACE_ROUTER ? router : rng_next(&rng) | 1; /* never 0 */
}

/* When the worker began, in us from the router's begin: so that the first token comes where it was
 * heard, if it was this worker's; else, so that the end is the answer's. */
static uint64_t worker_begin_us(const weft_result_t *r, const struct trace_selves *s)
{
    uint64_t latest = s->route_us + s->net_us;
    uint64_t before = s->queue_us + s->prefill_us;
    if (r->failovers != 0 || r->first_token_us <= before) {
        return latest;
    }
    uint64_t begin = r->first_token_us - before;
    return begin < s->route_us ? s->route_us : begin > latest ? latest : begin;
}

static uint32_t answer_spans(const struct trace_record *record, struct trace_span *out)
{
    const weft_result_t *r = &record->result;
    struct trace_selves s = trace_selves(r);
    uint64_t prefill_at = worker_begin_us(r, &s) + s.queue_us;
    uint64_t decode_at = prefill_at + s.prefill_us;
    const struct {
        enum trace_part part, parent;
        uint64_t begin_us, end_us;
    } parts[] = {
        {TRACE_ROUTER, TRACE_GATEWAY, 0, r->total_us},
        {TRACE_NODE, TRACE_ROUTER, s.route_us, r->total_us},
        {TRACE_WORKER, TRACE_NODE, prefill_at - s.queue_us, decode_at + s.decode_us},
        {TRACE_PREFILL, TRACE_WORKER, prefill_at, decode_at},
        {TRACE_DECODE, TRACE_WORKER, decode_at, decode_at + s.decode_us},
    };
    uint32_t count = r->accepted_us != 0 || r->node[0] != '\0' ? TRACE_SPANS_MAX : 1;
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (struct trace_span){
            .part = parts[i].part,
            .id = trace_span_id(record->span, parts[i].part),
            .parent = i == 0 ? record->parent.span : trace_span_id(record->span, parts[i].parent),
            .begin_ns = record->begin_ns + parts[i].begin_us * NS_PER_US,
            .end_ns = record->begin_ns + parts[i].end_us * NS_PER_US,
        };
    }
    return count;
}

uint32_t trace_spans(const struct trace_record *record, struct trace_span out[TRACE_SPANS_MAX])
{
    if (record->is_answer) {
        return answer_spans(record, out);
    }
    out[0] = (struct trace_span){
        .part = TRACE_GATEWAY,
        .id = record->span,
        .parent = record->parent.span,
        .begin_ns = record->begin_ns,
        .end_ns = record->end_ns,
    };
    return 1;
}
