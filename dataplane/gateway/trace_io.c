/* SPDX-License-Identifier: Apache-2.0 */
/* trace_io.c - see trace_io.h. */
#include "dataplane/gateway/trace_io.h"

#include <stdio.h>
#include <string.h>

#include "dataplane/gateway/gateway.h"
#include "dataplane/gateway/otlp_io.h"
#include "dataplane/gateway/trace.h"
#include "schemas/base/clock.h"

static uint64_t id_draw(struct gateway *g)
{
    uint64_t id;
    do {
        id = rng_next(&g->rng);
    } while (id == 0);
    return id;
}

/* One trace in so many, by its id: other gateways decide alike. */
static bool chosen(const struct gateway *g, const struct trace_context *trace)
{
    return g->otlp != NULL && (double)(trace->low >> 11) * 0x1.0p-53 < g->options.otlp_ratio;
}

static void state_line(void *user, const char *value, size_t len)
{
    tracestate_add(user, value, len);
}

void trace_io_begin(struct exchange *x)
{
    struct gateway *g = x->gateway;
    struct exchange_trace *t = &x->trace;
    t->span = id_draw(g);
    if (!traceparent_parse(server_header(x, "traceparent"), &t->parent)) {
        t->parent.high = id_draw(g);
        t->parent.low = id_draw(g);
        t->parent.flags = chosen(g, &t->parent) ? TRACEPARENT_SAMPLED : 0;
        return;
    }
    struct tracestate state = {.count = 0};
    server_headers(x, "tracestate", state_line, &state);
    (void)tracestate_write(&state, t->state);
}

void trace_io_text(const struct exchange *x, char out[static TRACEPARENT_BYTES])
{
    struct trace_context own = x->trace.parent;
    own.span = x->trace.span;
    traceparent_write(&own, out);
}

static bool sampled(const struct exchange *x)
{
    return (x->trace.parent.flags & TRACEPARENT_SAMPLED) != 0;
}

void trace_io_submit(struct exchange *x, struct call *call, struct trace_told *told,
                     weft_query_t *query)
{
    struct trace_context worker = x->trace.parent;
    call->asked_ns = clock_now_ns();
    call->span = id_draw(x->gateway);
    if (worker.span == 0 && !sampled(x)) {
        return;
    }
    worker.span = trace_span_id(call->span, TRACE_WORKER);
    traceparent_write(&worker, told->parent);
    told->more = query->more != NULL ? *query->more : (weft_query_more_t){0};
    told->more.tracestate = x->trace.state;
    query->traceparent = told->parent;
    query->more = &told->more;
}

static uint64_t unix_ns(uint64_t at_ns)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
    return now_ns - (clock_now_ns() - at_ns);
}

const char *trace_io_operation(const struct exchange *x)
{
    static const char *const operations[API_KINDS] = {
        [API_CHAT] = "chat",
        [API_COMPLETION] = "text_completion",
        [API_RESPONSE] = "chat",
        [API_EMBEDDING] = "embeddings",
    };
    return x->components != NULL ? "components" : operations[x->request.kind];
}

/* What both kinds of records have in common. */
static struct trace_record record_of(const struct exchange *x, const char *operation,
                                     const char *model)
{
    struct trace_record record = {
        .parent = x->trace.parent, .span = x->trace.span, .operation = operation};
    snprintf(record.model, sizeof(record.model), "%s", model != NULL ? model : "");
    memcpy(record.state, x->trace.state, sizeof(record.state));
    return record;
}

void trace_io_answer(const struct call *call, const char *operation, const char *model,
                     const weft_result_t *result)
{
    const struct exchange *x = call->exchange;
    if (x->gateway->otlp == NULL || !sampled(x) || call->index >= TRACE_CALLS_MAX) {
        return;
    }
    struct trace_record record = record_of(x, operation, model);
    record.is_answer = true;
    record.parent.span = x->trace.span;
    record.span = call->span;
    record.begin_ns = unix_ns(call->asked_ns);
    record.end_ns = record.begin_ns + result->total_us * NS_PER_US;
    record.result = *result;
    otlp_io_push(x->gateway->otlp, &record);
}

/* Did it get as far as asking the mesh, or was it to? */
static bool is_told(const struct exchange *x)
{
    return x->inference || x->components != NULL || x->realtime != NULL;
}

void trace_io_end(const struct exchange *x)
{
    if (x->gateway->otlp == NULL || !sampled(x) || !is_told(x)) {
        return;
    }
    const char *model = x->realtime != NULL ? realtime_model(x->realtime) : x->request.query.model;
    struct trace_record record = record_of(x, trace_io_operation(x), model);
    const struct api_error *error = x->inference ? &x->reply.error : &x->error;
    record.begin_ns = unix_ns(x->began_ns);
    record.end_ns = unix_ns(clock_now_ns());
    record.method = x->route->method;
    record.path = x->route->path;
    record.http_status = x->status;
    record.answers = x->inference          ? x->reply.count
                     : x->realtime != NULL ? realtime_turns(x->realtime)
                                           : x->next;
    record.error = error->http_status != 0 ? error->code : NULL;
    snprintf(record.id, sizeof(record.id), "%s", x->id);
    otlp_io_push(x->gateway->otlp, &record);
}

void trace_io_count(struct gateway *g)
{
    if (g->otlp != NULL) {
        g->figures.spans_sent = otlp_io_sent(g->otlp);
        g->figures.spans_dropped = otlp_io_dropped(g->otlp);
    }
}
