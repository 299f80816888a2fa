/* SPDX-License-Identifier: Apache-2.0 */
/* test_top.c - the view and the text of `weft top`: rates, sums, nodes that fail or start again,
 * answers that are not as they should be. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/cli/top.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"

static const char *const sockets[] = {"/run/a.sock", "/run/b.sock"};
static struct top *top;

static void setup(void)
{
    top = top_create(sockets, 2);
    ck_assert_ptr_nonnull(top);
}

static void teardown(void)
{
    top_destroy(top);
}

static json_t *status(const char *node, int received, int chosen, int refused, double busy_s)
{
    return json_pack(
        "{s:s, s:f, s:{s:i, s:i, s:{s:i, s:i}}, s:[{s:i, s:f}], s:[{s:s, s:i, s:i}], s:i, "
        "s:[{s:s, s:b, s:i, s:f, s:i, s:i, s:s, s:[s]}, {s:s, s:b, s:i, s:n}]}",
        "node", node, "uptime_s", 130.0, "counters", "received", received, "chosen", chosen,
        "drops", "refused", refused, "not_ours", 3, "lcores", "received", received, "busy_ns",
        busy_s * 1e9, "workers", "model", "tiny", "room", 7, "queue_us", 1500, "mbufs_in_use", 2,
        "members", "name", "a", "alive", 1, "tier", 3, "rtt_us", 410.0, "room", 7, "queue_us", 1500,
        "backend", "cpu", "models", "tiny", "name", "b", "alive", 0, "tier", 1, "rtt_us");
}

static json_t *at(json_t *json, const char *path)
{
    char copy[128];
    char *rest = NULL;
    strcpy(copy, path);
    for (char *key = strtok_r(copy, ".", &rest); key != NULL; key = strtok_r(NULL, ".", &rest)) {
        json = key[0] >= '0' && key[0] <= '9' ? json_array_get(json, (size_t)atoi(key))
                                              : json_object_get(json, key);
    }
    return json;
}

static double number(json_t *json, const char *path)
{
    ck_assert_msg(json_is_number(at(json, path)), "%s is no number", path);
    return json_number_value(at(json, path));
}

static char *text_of(json_t *view, unsigned width, unsigned height)
{
    char *text = NULL;
    size_t size;
    struct top_format format = {.width = width, .height = height, .end = "|"};
    FILE *out = open_memstream(&text, &size);
    top_print(view, &format, out);
    fclose(out);
    return text;
}

START_TEST(rates_and_sums)
{
    top_feed(top, 0, status("a", 100, 10, 0, 1.0), 0, NS_PER_S);
    top_feed(top, 1, status("b", 0, 0, 0, 0.0), 0, NS_PER_S);
    json_t *view = top_view(top);
    ck_assert(json_is_null(at(view, "nodes.0.rates.received"))); /* nothing to compare with */
    ck_assert(json_is_null(at(view, "nodes.0.drops_per_s")));
    ck_assert(json_is_null(at(view, "nodes.0.lcores.0.idle")));
    json_decref(view);
    top_feed(top, 0, status("a", 1100, 30, 8, 1.5), 0, 3 * NS_PER_S);
    top_feed(top, 1, status("b", 50, 0, 2, 0.0), 0, 2 * NS_PER_S);
    view = top_view(top);
    ck_assert_double_eq_tol(number(view, "nodes.0.rates.received"), 500, 1e-9);
    ck_assert_double_eq_tol(number(view, "nodes.0.rates.chosen"), 10, 1e-9);
    ck_assert_double_eq_tol(number(view, "nodes.0.drops.refused"), 4, 1e-9);
    ck_assert_ptr_null(at(view, "nodes.0.drops.not_ours")); /* did not rise */
    ck_assert_double_eq_tol(number(view, "nodes.0.lcores.0.idle"), 0.75, 1e-9);
    ck_assert_double_eq_tol(number(view, "nodes.0.lcores.0.received_per_s"), 500, 1e-9);
    ck_assert_double_eq_tol(number(view, "nodes.1.rates.received"), 50, 1e-9);
    ck_assert_double_eq_tol(number(view, "sum.rates.received"), 550, 1e-9);
    ck_assert_double_eq_tol(number(view, "sum.drops.refused"), 6, 1e-9);
    ck_assert_double_eq_tol(number(view, "sum.drops_per_s"), 6, 1e-9);
    ck_assert_double_eq_tol(number(view, "sum.room"), 14, 1e-9);
    ck_assert_double_eq_tol(number(view, "nodes.0.members_up"), 1, 1e-9);
    json_decref(view);
}
END_TEST

START_TEST(started_again_and_gone)
{
    top_feed(top, 0, status("a", 1000, 0, 0, 9.0), 0, NS_PER_S);
    top_feed(top, 0, status("a", 40, 0, 0, 0.1), 0, 2 * NS_PER_S);
    json_t *view = top_view(top);
    ck_assert_double_eq_tol(number(view, "nodes.0.rates.received"), 40, 1e-9);
    json_decref(view);
    top_feed(top, 0, NULL, -ECONNREFUSED, 3 * NS_PER_S);
    view = top_view(top);
    ck_assert_str_eq(json_string_value(at(view, "nodes.0.error")), strerror(ECONNREFUSED));
    ck_assert_double_eq_tol(number(view, "sum.answering"), 0, 1e-9);
    json_decref(view);
    /* Back: no rate over the time it was away. */
    top_feed(top, 0, status("a", 50, 0, 0, 0.2), 0, 4 * NS_PER_S);
    view = top_view(top);
    ck_assert(json_is_null(at(view, "nodes.0.rates.received")));
    json_decref(view);
}
END_TEST

START_TEST(text_fits)
{
    top_feed(top, 0, status("a", 0, 0, 0, 0), 0, NS_PER_S);
    top_feed(top, 1, NULL, -ENOENT, NS_PER_S);
    top_feed(top, 0, status("a", 2500000, 12500, 8, 0), 0, 2 * NS_PER_S);
    top_feed(top, 1, NULL, -ENOENT, 2 * NS_PER_S);
    json_t *view = top_view(top);
    char *text = text_of(view, 0, 0);
    static const char *const parts[] = {
        "2.50M", "12.5k", "No such file", "refused", "tiny", "members seen from a",
        "0.41",  "self",  "down",         "100"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        ck_assert_msg(strstr(text, parts[i]) != NULL, "no %s in:\n%s", parts[i], text);
    }
    free(text);
    for (unsigned width = 1; width < 200; width += 13) {
        unsigned lines = 0;
        text = text_of(view, width, 5);
        for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            ck_assert_uint_le(strlen(line), width + 1); /* and the end mark */
            lines++;
        }
        ck_assert_uint_eq(lines, 5);
        free(text);
    }
    json_decref(view);
}
END_TEST

/* Whatever a node says, it cannot speak to the terminal or bring the program down. */
START_TEST(odd_answers)
{
    static const char *const answers[] = {
        "{}",
        "{\"node\":7,\"counters\":[],\"members\":{\"a\":1},\"lcores\":{},\"worker\":[]}",
        "{\"node\":\"\\u001b[2J\",\"counters\":{\"received\":\"x\",\"drops\":{\"a\":\"b\"}},"
        "\"members\":[1,null,{\"name\":[],\"models\":[7]}],\"lcores\":[1,{\"busy_ns\":1e300}]}",
        "{\"uptime_s\":-1e308,\"counters\":{\"received\":-5,\"chosen\":1e308},"
        "\"members\":[{\"name\":\"\\u0007\\n\",\"rtt_us\":1e308,\"models\":[\"\\u001b]0;x\"]}]}",
    };
    for (size_t i = 0; i < 4 * 4; i++) {
        top_feed(top, 0, json_loads(answers[i / 4], 0, NULL), 0, i * NS_PER_S);
        top_feed(top, 0, json_loads(answers[i % 4], 0, NULL), 0, i * NS_PER_S + 1);
        json_t *view = top_view(top);
        ck_assert_ptr_nonnull(view);
        char *text = text_of(view, 0, 0);
        for (char *c = text; *c != '\0'; c++) {
            ck_assert(*c == '\n' || (*c >= ' ' && *c <= '~'));
        }
        free(text);
        json_decref(view);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("top");
    TCase *tc = tcase_create("top");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, rates_and_sums);
    tcase_add_test(tc, started_again_and_gone);
    tcase_add_test(tc, text_fits);
    tcase_add_test(tc, odd_answers);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
