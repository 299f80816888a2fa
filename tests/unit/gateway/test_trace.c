/* SPDX-License-Identifier: Apache-2.0 */
/* test_trace.c - trace.h and otlp.h: spans whose selves sum up to the whole, each inside its
 * parent, whatever a worker tells; and their form as a collector reads it. */
#include <check.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>
#include <weft/wire.h>

#include "dataplane/gateway/otlp.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define BEGIN_NS UINT64_C(1790000000000000000)
#define ROUNDS   2000u

static uint64_t upto(struct rng *rng, uint64_t max)
{
    return max == 0 ? 0 : rng_next(rng) % (max + 1);
}

/* As the client makes them: what the worker tells plus the rest is the whole; `lies`: a worker that
 * tells anything. */
static weft_result_t result_draw(struct rng *rng, bool lies)
{
    weft_result_t r = {.status = 0, .finish = WEFT_FINISH_STOP, .node = "frankfurt"};
    r.net_us = upto(rng, 300000);
    r.queue_us = upto(rng, 100000);
    r.prefill_us = upto(rng, 500000);
    r.decode_us = upto(rng, 5000000);
    r.total_us = r.net_us + r.queue_us + r.prefill_us + r.decode_us;
    r.accepted_us = 1 + upto(rng, r.net_us);
    uint64_t first = r.queue_us + r.prefill_us + upto(rng, r.net_us);
    r.first_token_us = upto(rng, 9) == 0 ? 0 : first;
    r.failovers = (uint32_t)(upto(rng, 4) == 0);
    if (lies) {
        r.queue_us = upto(rng, 2 * r.total_us);
        r.prefill_us = upto(rng, 9) == 0 ? UINT64_MAX : upto(rng, r.total_us);
        r.decode_us = upto(rng, 2 * r.total_us);
        r.accepted_us = upto(rng, 2 * r.total_us);
        r.first_token_us = upto(rng, 2 * r.total_us);
    }
    return r;
}

static struct trace_record record_of(const weft_result_t *result, uint64_t span)
{
    return (struct trace_record){.is_answer = true,
                                 .parent = {7, 8, 9, TRACEPARENT_SAMPLED},
                                 .span = span,
                                 .begin_ns = BEGIN_NS,
                                 .operation = "chat",
                                 .model = "m\"odel",
                                 .result = *result};
}

static const struct trace_span *parent_of(const struct trace_span *spans, uint32_t count,
                                          uint64_t id)
{
    for (uint32_t i = 0; i < count; i++) {
        if (spans[i].id == id) {
            return &spans[i];
        }
    }
    return NULL;
}

/* A span without what is below it. */
static uint64_t self_ns(const struct trace_span *spans, uint32_t count, uint32_t at)
{
    uint64_t below = 0;
    for (uint32_t i = 0; i < count; i++) {
        below += spans[i].parent == spans[at].id ? spans[i].end_ns - spans[i].begin_ns : 0;
    }
    ck_assert(below <= spans[at].end_ns - spans[at].begin_ns);
    return spans[at].end_ns - spans[at].begin_ns - below;
}

static void check_spans(const weft_result_t *r, bool lies, uint64_t id)
{
    struct trace_record record = record_of(r, id);
    struct trace_span spans[TRACE_SPANS_MAX];
    uint32_t count = trace_spans(&record, spans);
    uint64_t sum = 0;
    ck_assert_uint_eq(count, 5);
    ck_assert(spans[0].parent == 9 && spans[0].begin_ns == BEGIN_NS);
    ck_assert_uint_eq(spans[0].end_ns - spans[0].begin_ns, r->total_us * 1000);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert(spans[i].id != 0 && spans[i].begin_ns <= spans[i].end_ns);
        ck_assert_ptr_eq(parent_of(spans, count, spans[i].id), &spans[i]); /* no two alike */
        const struct trace_span *parent = parent_of(spans, count, spans[i].parent);
        if (i != 0) {
            ck_assert_ptr_nonnull(parent);
            ck_assert(parent->begin_ns <= spans[i].begin_ns && spans[i].end_ns <= parent->end_ns);
        }
        sum += self_ns(spans, count, i);
    }
    ck_assert_uint_eq(sum, r->total_us * 1000);
    if (!lies) { /* what the worker told stands as it was told */
        ck_assert_uint_eq(self_ns(spans, count, 2), r->queue_us * 1000);
        ck_assert_uint_eq(spans[3].end_ns - spans[3].begin_ns, r->prefill_us * 1000);
        ck_assert_uint_eq(spans[4].end_ns - spans[4].begin_ns, r->decode_us * 1000);
        ck_assert_uint_eq(self_ns(spans, count, 0) + self_ns(spans, count, 1), r->net_us * 1000);
        ck_assert_uint_eq(self_ns(spans, count, 0),
                          r->accepted_us <= r->net_us ? r->accepted_us * 1000 : r->net_us * 1000);
    }
}

START_TEST(sums)
{
    struct rng rng = {(uint64_t)_i};
    for (uint32_t i = 0; i < ROUNDS; i++) {
        bool lies = (i & 1) != 0;
        weft_result_t r = result_draw(&rng, lies);
        check_spans(&r, lies, rng_next(&rng) | 1);
    }
}
END_TEST

/* The first token of an undisturbed answer is where it was heard. */
START_TEST(first_token)
{
    const weft_result_t r = {.node = "n",
                             .total_us = 1000,
                             .accepted_us = 100,
                             .first_token_us = 400,
                             .queue_us = 50,
                             .prefill_us = 200,
                             .decode_us = 500,
                             .net_us = 250};
    struct trace_record record = record_of(&r, 5);
    struct trace_span spans[TRACE_SPANS_MAX];
    ck_assert_uint_eq(trace_spans(&record, spans), 5);
    ck_assert_uint_eq(spans[3].end_ns, BEGIN_NS + 400000);
    ck_assert_uint_eq(spans[2].begin_ns, BEGIN_NS + 150000);
    record.result.failovers = 1; /* it came from somebody else */
    trace_spans(&record, spans);
    ck_assert_uint_eq(spans[4].end_ns, BEGIN_NS + 1000000);
}
END_TEST

START_TEST(nobody_served)
{
    const weft_result_t r = {
        .status = WEFT_E_MESH_FULL, .finish = WEFT_FINISH_REFUSED, .total_us = 700};
    struct trace_record record = record_of(&r, 5);
    struct trace_span spans[TRACE_SPANS_MAX];
    ck_assert_uint_eq(trace_spans(&record, spans), 1);
    ck_assert_uint_eq(spans[0].end_ns - spans[0].begin_ns, 700000);
    const struct trace_record request = {.span = 4, .begin_ns = 1, .end_ns = 3};
    ck_assert_uint_eq(trace_spans(&request, spans), 1);
    ck_assert(spans[0].id == 4 && spans[0].parent == 0 && spans[0].end_ns == 3);
}
END_TEST

static const char *attribute(const json_t *span, const char *key, const char *kind)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(span, "attributes"), i, one)
    {
        if (strcmp(json_string_value(json_object_get(one, "key")), key) == 0) {
            return json_string_value(json_object_get(json_object_get(one, "value"), kind));
        }
    }
    return NULL;
}

START_TEST(form)
{
    struct rng rng = {3};
    weft_result_t r = result_draw(&rng, false);
    struct trace_record records[2] = {record_of(&r, UINT64_C(0xab)),
                                      {.parent = {7, 8, 0, TRACEPARENT_SAMPLED},
                                       .span = 9,
                                       .begin_ns = BEGIN_NS,
                                       .end_ns = BEGIN_NS + 5,
                                       .operation = "chat",
                                       .method = "POST",
                                       .path = "/v1/chat/completions",
                                       .http_status = 503,
                                       .error = "mesh_full",
                                       .id = "req"}};
    struct buf out = {.data = NULL};
    ck_assert_uint_eq(otlp_write(records, 2, "1", &out), 6);
    json_t *root = json_loadb(out.data, buf_len(&out), 0, NULL);
    const json_t *first = json_array_get(json_object_get(root, "resourceSpans"), 0);
    const json_t *scope = json_array_get(json_object_get(first, "scopeSpans"), 0);
    const json_t *spans = json_object_get(scope, "spans");
    ck_assert_uint_eq(json_array_size(spans), 6);
#define TEXT(span, key) json_string_value(json_object_get(json_array_get(spans, span), key))
    ck_assert_str_eq(TEXT(0, "traceId"), "00000000000000070000000000000008");
    ck_assert_str_eq(TEXT(0, "spanId"), "00000000000000ab");
    ck_assert_str_eq(TEXT(0, "parentSpanId"), "0000000000000009");
    ck_assert_str_eq(TEXT(0, "name"), "chat m\"odel");
    ck_assert_str_eq(TEXT(0, "startTimeUnixNano"), "1790000000000000000");
    ck_assert_str_eq(TEXT(1, "parentSpanId"), TEXT(0, "spanId"));
    ck_assert_str_eq(attribute(json_array_get(spans, 1), "weft.node", "stringValue"), "frankfurt");
    ck_assert_str_eq(TEXT(5, "name"), "POST /v1/chat/completions");
    ck_assert_ptr_null(TEXT(5, "parentSpanId"));
    const json_t *last = json_array_get(spans, 5);
    ck_assert_str_eq(attribute(last, "http.response.status_code", "intValue"), "503");
    ck_assert_int_eq(json_integer_value(json_object_get(json_object_get(last, "status"), "code")),
                     2);
    json_decref(root);
    buf_deinit(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *tcase = tcase_create("spans");
    tcase_add_loop_test(tcase, sums, 1, 6);
    tcase_add_test(tcase, first_token);
    tcase_add_test(tcase, nobody_served);
    tcase_add_test(tcase, form);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
