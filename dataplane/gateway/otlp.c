/* SPDX-License-Identifier: Apache-2.0 */
/* otlp.c - see otlp.h. */
#include "dataplane/gateway/otlp.h"

#include <inttypes.h>
#include <stdio.h>
#include <weft/status.h>
#include <weft/wire.h>

/* opentelemetry-proto, trace.proto: Span.SpanKind and Status.StatusCode. */
#define KIND_INTERNAL 1
#define KIND_SERVER   2
#define KIND_CLIENT   3
#define STATUS_ERROR  2

/* ---- attributes ---- */

static void key_add(struct buf *out, const char *key)
{
    if (out->data[out->end - 1] != '[') {
        buf_add_text(out, ",");
    }
    buf_add_format(out, "{\"key\":\"%s\",\"value\":{", key);
}

static void text_add(struct buf *out, const char *key, const char *value)
{
    if (value != NULL && value[0] != '\0' && !out->failed) {
        key_add(out, key);
        buf_add_text(out, "\"stringValue\":");
        buf_add_quoted(out, value);
        buf_add_text(out, "}}");
    }
}

static void number_add(struct buf *out, const char *key, uint64_t value)
{
    if (!out->failed) {
        key_add(out, key);
        buf_add_format(out, "\"intValue\":\"%" PRIu64 "\"}}", value);
    }
}

static void request_attributes(struct buf *out, const struct trace_record *r)
{
    text_add(out, "http.request.method", r->method);
    text_add(out, "http.route", r->path);
    number_add(out, "http.response.status_code", (uint64_t)r->http_status);
    text_add(out, "gen_ai.operation.name", r->operation);
    text_add(out, "gen_ai.request.model", r->model);
    text_add(out, "error.type", r->error);
    text_add(out, "weft.request.id", r->id);
    number_add(out, "weft.answers", r->answers);
}

static void router_attributes(struct buf *out, const struct trace_record *record)
{
    const weft_result_t *r = &record->result;
    text_add(out, "gen_ai.operation.name", record->operation);
    text_add(out, "gen_ai.provider.name", "weft");
    text_add(out, "gen_ai.request.model", record->model);
    number_add(out, "gen_ai.usage.input_tokens", r->prompt_tokens);
    number_add(out, "gen_ai.usage.output_tokens", r->new_tokens);
    if (!out->failed) {
        key_add(out, "gen_ai.response.finish_reasons");
        buf_add_format(out, "\"arrayValue\":{\"values\":[{\"stringValue\":\"%s\"}]}}}",
                       weft_finish_name((unsigned)r->finish));
    }
    number_add(out, "weft.first_token_us", r->first_token_us);
    number_add(out, "weft.failovers", r->failovers);
    if (r->mixed != 0) { /* it went on with other weights, or another way of computing */
        number_add(out, "weft.mixed_arithmetic", r->mixed);
    }
    number_add(out, "weft.resends", r->resends);
    if (r->hedged) {
        number_add(out, "weft.hedged", 1);
    }
    if (r->status != 0) {
        text_add(out, "error.type", weft_status_name(r->status));
    }
}

static void part_attributes(struct buf *out, const struct trace_record *record,
                            enum trace_part part)
{
    const weft_result_t *r = &record->result;
    switch (part) {
    case TRACE_GATEWAY:
        request_attributes(out, record);
        break;
    case TRACE_ROUTER:
        router_attributes(out, record);
        break;
    case TRACE_NODE:
        text_add(out, "weft.node", r->node);
        number_add(out, "weft.tier", r->tier);
        break;
    case TRACE_WORKER:
        text_add(out, "weft.node", r->node);
        text_add(out, "weft.backend", r->backend);
        number_add(out, "weft.queue_us", r->queue_us);
        number_add(out, "weft.cached_tokens", r->cached_tokens);
        break;
    case TRACE_PREFILL:
        number_add(out, "weft.tokens",
                   r->prompt_tokens > r->cached_tokens ? r->prompt_tokens - r->cached_tokens : 0);
        break;
    case TRACE_DECODE:
        number_add(out, "weft.tokens", r->new_tokens);
        break;
    }
}

/* ---- spans ---- */

static void name_add(struct buf *out, const struct trace_record *record, enum trace_part part)
{
    static const char *const names[] = {
        [TRACE_NODE] = "node",
        [TRACE_WORKER] = "worker",
        [TRACE_PREFILL] = "device prefill",
        [TRACE_DECODE] = "device decode",
    };
    char name[160];
    if (part == TRACE_GATEWAY) {
        snprintf(name, sizeof(name), "%s %s", record->method, record->path);
    } else if (part == TRACE_ROUTER) {
        snprintf(name, sizeof(name), "%s %s", record->operation, record->model);
    } else {
        snprintf(name, sizeof(name), "%s", names[part]);
    }
    buf_add_text(out, ",\"name\":");
    buf_add_quoted(out, name);
}

static void status_add(struct buf *out, const struct trace_record *record, enum trace_part part)
{
    bool answer_failed = part == TRACE_ROUTER && record->result.status != 0;
    /* By the conventions a server's span is an error only where the server is to blame. */
    bool request_failed = part == TRACE_GATEWAY && record->http_status >= 500;
    if (answer_failed || request_failed) {
        buf_add_format(out, ",\"status\":{\"code\":%d,\"message\":", STATUS_ERROR);
        buf_add_quoted(out, answer_failed           ? weft_status_text(record->result.status)
                            : record->error != NULL ? record->error
                                                    : "");
        buf_add_text(out, "}");
    }
}

static void span_add(struct buf *out, const struct trace_record *record,
                     const struct trace_span *span)
{
    int kind = span->part == TRACE_GATEWAY  ? KIND_SERVER
               : span->part == TRACE_ROUTER ? KIND_CLIENT
                                            : KIND_INTERNAL;
    buf_add_format(out, "{\"traceId\":\"%016" PRIx64 "%016" PRIx64 "\",\"spanId\":\"%016" PRIx64,
                   record->parent.high, record->parent.low, span->id);
    if (span->parent != 0) {
        buf_add_format(out, "\",\"parentSpanId\":\"%016" PRIx64, span->parent);
    }
    buf_add_text(out, "\"");
    if (record->state[0] != '\0') {
        buf_add_text(out, ",\"traceState\":");
        buf_add_quoted(out, record->state);
    }
    name_add(out, record, span->part);
    buf_add_format(out,
                   ",\"kind\":%d,\"startTimeUnixNano\":\"%" PRIu64
                   "\",\"endTimeUnixNano\":\"%" PRIu64 "\",\"attributes\":[",
                   kind, span->begin_ns, span->end_ns);
    part_attributes(out, record, span->part);
    buf_add_text(out, "]");
    status_add(out, record, span->part);
    buf_add_text(out, "}");
}

uint32_t otlp_write(const struct trace_record *records, uint32_t count, const char *instance,
                    struct buf *out)
{
    uint32_t written = 0;
    buf_add_text(out, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[");
    text_add(out, "service.name", "weft-gateway");
    text_add(out, "service.instance.id", instance);
    buf_add_text(out, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"weft\"},\"spans\":[");
    for (uint32_t i = 0; i < count; i++) {
        struct trace_span spans[TRACE_SPANS_MAX];
        uint32_t parts = trace_spans(&records[i], spans);
        for (uint32_t k = 0; k < parts; k++) {
            buf_add_text(out, written++ != 0 ? "," : "");
            span_add(out, &records[i], &spans[k]);
        }
    }
    buf_add_text(out, "]}]}]}");
    return written;
}
