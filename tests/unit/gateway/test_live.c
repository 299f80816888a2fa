/* SPDX-License-Identifier: Apache-2.0 */
/* test_live.c - live.h: events say what /metrics says, deltas add up to the whole, and everything
 * is bounded. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "dataplane/gateway/live.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static struct live live;
static struct figures figures;
static struct live_view view;
static struct buf out;

static void setup(void)
{
    memset(&live, 0, sizeof(live));
    memset(&figures, 0, sizeof(figures));
    memset(&view, 0, sizeof(view));
}

static void teardown(void)
{
    live_view_reset(&view);
    buf_deinit(&out);
}

static struct live_sources sources(json_t *status)
{
    return (struct live_sources){
        .live = &live, .figures = &figures, .status = status, .error = "gone", .unix_ms = 1000};
}

/* What `out` has, as the object of one event; `out` is empty then. */
static json_t *event_take(void)
{
    size_t len;
    char *text = buf_give(&out, &len);
    ck_assert(len > 8 && memcmp(text, "data: {", 7) == 0);
    ck_assert_str_eq(text + len - 2, "\n\n");
    ck_assert_ptr_eq(strchr(text, '\n'), text + len - 2);
    json_t *event = json_loadb(text + 6, len - 8, JSON_REJECT_DUPLICATES, NULL);
    ck_assert_msg(event != NULL, "no JSON: %s", text);
    free(text);
    return event;
}

static json_t *step(json_t *status, bool *changed)
{
    struct live_sources from = sources(status);
    bool any = live_view_step(&view, &from, &out);
    if (changed != NULL) {
        *changed = any;
    }
    return event_take();
}

static json_t *whole(json_t *status)
{
    struct live_sources from = sources(status);
    live_view_whole(&view, &from, &out);
    return event_take();
}

static void answer(const char *model, const weft_result_t *result)
{
    figures_answer(&figures, model, NULL, result);
    live_answer(&live, 1000, model, result);
}

static json_t *status_of(uint32_t members, uint32_t seed)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < members; i++) {
        char name[16];
        snprintf(name, sizeof(name), "n%u", i);
        json_array_append_new(list,
                              json_pack("{s:s, s:b, s:i, s:f, s:i, s:[s]}", "name", name, "alive",
                                        1, "room", (int)((i * 7 + seed) % 3), "rtt_us", 1.5 * i,
                                        "heard_ms_ago", (int)seed, "models", "m"));
    }
    return json_pack("{s:s, s:s, s:o, s:{s:i, s:{s:i}}}", "node", "n0", "version", "1", "members",
                     list, "counters", "received", (int)seed, "drops", "refused", 2);
}

/* The value in /metrics; -1 = there is none. */
static double metric_of(const json_t *status, const char *name)
{
    struct buf text = {.data = NULL};
    char start[256];
    figures_write(&figures, status, &text);
    live_write_metrics(&live, &text);
    buf_add(&text, "", 1);
    snprintf(start, sizeof(start), "\n%s ", name);
    const char *at = strstr(text.data, start);
    double value = at != NULL ? strtod(at + strlen(start), NULL) : -1;
    buf_deinit(&text);
    return value;
}

static double metric(const char *name)
{
    return metric_of(NULL, name);
}

static double at(const json_t *event, const char *a, const char *b, const char *c)
{
    const json_t *value = json_object_get(json_object_get(event, a), b);
    return json_number_value(c != NULL ? json_object_get(value, c) : value);
}

#define WORKER_LABELS "{model_name=\"m\",pid=\"7\"}"

START_TEST(workers_are_those_of_metrics)
{
    json_t *status = json_loads("{\"members\":[],\"workers\":[{\"model\":\"m\",\"pid\":7,"
                                "\"loaded\":1,\"slots\":8,\"running\":3,\"waiting\":2,"
                                "\"draining\":true,\"room\":5,\"queue_us\":2500,\"kv_pages\":200,"
                                "\"kv_pages_used\":50,\"memory_mib\":2,\"prefill_tps\":400,"
                                "\"prefix_queries\":96,\"prefix_hits\":48,\"decode_tps\":100}]}",
                                0, NULL);
    ck_assert_ptr_nonnull(status);
    json_t *event = step(status, NULL);
    const json_t *worker = json_array_get(json_object_get(event, "workers"), 0);
#define SAME_(key, name, kind, scale, text)                                                        \
    ck_assert_double_gt(json_number_value(json_object_get(worker, key)), 0);                       \
    ck_assert_double_eq_tol(json_number_value(json_object_get(worker, key)) * (scale),             \
                            metric_of(status, name WORKER_LABELS), 1e-9);
    FIGURES_WORKERS(SAME_)
#undef SAME_
    ck_assert_double_eq(json_number_value(json_object_get(worker, "kv_usage")), 0.25);
    ck_assert_double_eq(metric_of(status, "vllm:kv_cache_usage_perc" WORKER_LABELS), 0.25);
    json_decref(event);
    event = step(status, NULL); /* nothing new: not told again */
    ck_assert_ptr_null(json_object_get(event, "workers"));
    json_decref(event);
    event = whole(status);
    ck_assert_uint_eq(json_array_size(json_object_get(event, "workers")), 1);
    json_decref(event);
    json_decref(status);
}
END_TEST

START_TEST(numbers_are_those_of_metrics)
{
    for (uint32_t i = 1; i <= 100; i++) {
        const weft_result_t result = {.node = "n1",
                                      .prompt_tokens = 10,
                                      .cached_tokens = 4,
                                      .new_tokens = 11,
                                      .first_token_us = i * 1000,
                                      .total_us = i * 1000 + 100000};
        answer("m", &result);
    }
    const weft_result_t refused = {.status = WEFT_E_MESH_FULL, .finish = WEFT_FINISH_REFUSED};
    answer("m", &refused);
    figures_status(&figures, 200);
    figures.running = 3;
    json_decref(step(NULL, NULL));
    json_t *event = whole(NULL);
    const json_t *model = json_array_get(json_object_get(event, "models"), 0);
#define SAME_(field, name, ...)                                                                    \
    ck_assert_double_eq(json_number_value(json_object_get(model, #field)),                         \
                        metric(name "{model_name=\"m\"}"));
    FIGURES_MODEL_COUNTERS(SAME_)
#undef SAME_
#define SAME_(field, name, ...)                                                                    \
    ck_assert_double_eq(at(event, "gateway", #field, NULL), metric(name));
    FIGURES_GAUGES(SAME_)
    FIGURES_TOTALS(SAME_)
#undef SAME_
    const json_t *served = json_object_get(event, "served");
    ck_assert_uint_eq(json_array_size(served), 2); /* and nobody */
#define SAME_(field, name, ...)                                                                    \
    ck_assert_double_eq(json_number_value(json_object_get(json_array_get(served, 0), #field)),     \
                        metric(name "{node=\"n1\"}"));
    LIVE_NODE_COUNTERS(SAME_)
#undef SAME_
    ck_assert_double_eq(at(event, "gateway", "responses", "200"), 1);
    ck_assert_double_eq(at(event, "gateway", "running", NULL), 3);
    /* Of 1 to 100 ms: exact, and the same in both. */
    const char *first = "weft_gateway_recent_first_token_seconds{quantile=\"0.9\"}";
    ck_assert_double_eq_tol(at(event, "recent", "first_token", "0.9"), 0.09, 1e-9);
    ck_assert_double_eq(at(event, "recent", "first_token", "0.9"), metric(first));
    ck_assert_double_eq_tol(at(event, "recent", "per_token", "0.5"), 0.01, 1e-9);
    ck_assert_double_eq_tol(at(event, "recent", "duration", "0.99"), 0.199, 1e-9);
    json_decref(event);
}
END_TEST

/* An event into what a page knows: {members: {}, served: {}, and the last of each section}. */
static void page_apply(json_t *page, const json_t *event)
{
    static const char *const sections[] = {"mesh",   "gateway",  "models",
                                           "recent", "counters", "drops"};
    size_t i;
    json_t *one;
    if (json_is_true(json_object_get(event, "full"))) {
        json_object_clear(page);
    }
    if (json_object_get(page, "members") == NULL) {
        json_object_set_new(page, "members", json_object());
        json_object_set_new(page, "served", json_object());
    }
    for (i = 0; i < sizeof(sections) / sizeof(sections[0]); i++) {
        json_t *section = json_object_get(event, sections[i]);
        if (section != NULL) {
            json_object_set(page, sections[i], section);
        }
    }
    json_array_foreach(json_object_get(event, "members"), i, one)
    {
        json_object_set(json_object_get(page, "members"),
                        json_string_value(json_object_get(one, "name")), one);
    }
    json_array_foreach(json_object_get(event, "gone"), i, one)
    {
        json_object_del(json_object_get(page, "members"), json_string_value(one));
    }
    json_array_foreach(json_object_get(event, "served"), i, one)
    {
        json_object_set(json_object_get(page, "served"),
                        json_string_value(json_object_get(one, "node")), one);
    }
}

START_TEST(deltas_add_up)
{
    struct rng rng;
    json_t *page = json_object();
    json_t *status = NULL;
    rng.state = (uint64_t)_i + 1;
    for (uint32_t turn = 0; turn < 60; turn++) {
        char node[16];
        snprintf(node, sizeof(node), "n%u", (unsigned)(rng_next(&rng) % 5));
        weft_result_t result = {.new_tokens = (uint32_t)(rng_next(&rng) % 50), .total_us = 1000};
        snprintf(result.node, sizeof(result.node), "%s", node);
        if (rng_next(&rng) % 2 == 0) {
            answer(node, &result);
        }
        if (rng_next(&rng) % 3 == 0) {
            json_decref(status);
            status = rng_next(&rng) % 5 == 0
                         ? NULL
                         : status_of((uint32_t)(rng_next(&rng) % 20), (uint32_t)rng_next(&rng) % 9);
        }
        json_t *event = step(status, NULL);
        page_apply(page, event);
        json_decref(event);
        event = whole(status);
        json_t *other = json_object();
        page_apply(other, event);
        ck_assert_msg(json_equal(page, other), "turn %u", turn);
        json_decref(other);
        json_decref(event);
    }
    json_decref(status);
    json_decref(page);
}
END_TEST

START_TEST(nothing_new_is_told_twice)
{
    bool changed;
    json_t *status = status_of(3, 1);
    json_t *event = step(status, &changed);
    ck_assert(changed);
    ck_assert_uint_eq(json_array_size(json_object_get(event, "members")), 3);
    ck_assert_ptr_null(
        json_object_get(json_array_get(json_object_get(event, "members"), 0), "heard_ms_ago"));
    json_decref(event);
    event = step(status, &changed);
    ck_assert(!changed);
    ck_assert_uint_eq(json_object_size(event), 4); /* seq, at_ms, full, age_ms */
    json_decref(event);
    const weft_result_t result = {.node = "n1"};
    answer("m", &result);
    event = step(status, &changed);
    ck_assert(changed);
    ck_assert_uint_eq(json_array_size(json_object_get(event, "log")), 1);
    ck_assert_ptr_null(json_object_get(event, "members"));
    json_decref(event);
    event = step(status, &changed);
    ck_assert_ptr_null(json_object_get(event, "log"));
    json_decref(event);
    /* Silent: those last heard of stay, and the reason is told. */
    event = step(NULL, &changed);
    ck_assert(changed && json_object_get(event, "gone") == NULL);
    ck_assert(json_is_null(json_object_get(event, "age_ms")));
    const json_t *mesh = json_object_get(event, "mesh");
    ck_assert_str_eq(json_string_value(json_object_get(mesh, "error")), "gone");
    json_decref(event);
    json_decref(status);
}
END_TEST

START_TEST(everything_is_bounded)
{
    for (uint32_t i = 0; i < 2 * LIVE_LINES_MAX; i++) {
        weft_result_t result = {.total_us = 1 + i};
        snprintf(result.node, sizeof(result.node), "node-%u\"", i);
        answer("m\n", &result);
    }
    ck_assert_uint_eq(live.node_count, LIVE_NODES_MAX);
    ck_assert_str_eq(live.nodes[LIVE_NODES_MAX - 1].name, "other");
    ck_assert_uint_eq(live.nodes[LIVE_NODES_MAX - 1].answers,
                      2 * LIVE_LINES_MAX - (LIVE_NODES_MAX - 1));
    json_t *event = step(NULL, NULL);
    const json_t *log = json_object_get(event, "log");
    ck_assert_uint_eq(json_array_size(log), LIVE_LOG_MAX);
    ck_assert_int_eq(
        json_integer_value(json_object_get(json_array_get(log, LIVE_LOG_MAX - 1), "n")),
        2 * LIVE_LINES_MAX);
    ck_assert_double_eq(at(event, "recent", "duration", "count"), LIVE_LINES_MAX);
    json_decref(event);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway/live");
    TCase *tc = tcase_create("live");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, workers_are_those_of_metrics);
    tcase_add_test(tc, numbers_are_those_of_metrics);
    tcase_add_loop_test(tc, deltas_add_up, 0, 20);
    tcase_add_test(tc, nothing_new_is_told_twice);
    tcase_add_test(tc, everything_is_bounded);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
