/* SPDX-License-Identifier: Apache-2.0 */
/* test_results.c - results.c: whoever reads calls and results by their order, as wire.def says it,
 * pairs them as the client did by ids. */
#include <check.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define CALLS 6u

static struct api_request r;
static struct api_error error;
static char body[16384];

static void add(const char *text)
{
    ck_assert_uint_lt(strlen(body) + strlen(text), sizeof(body));
    strcat(body, text);
}

/* The order in which `count` things come. */
static void shuffle(struct rng *rng, uint32_t *order, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = rng_below(rng, i + 1);
        order[i] = order[other];
        order[other] = i;
    }
}

/* Calls c0, c1, ... of answer `turn`, and the results of some of them, in any order. */
static void add_turn(struct rng *rng, bool chat, unsigned turn)
{
    char text[256];
    uint32_t order[CALLS];
    uint32_t count = 1 + rng_below(rng, CALLS);
    shuffle(rng, order, count);
    add(chat ? ",{\"role\":\"assistant\",\"tool_calls\":[" : "");
    for (uint32_t i = 0; i < count; i++) {
        snprintf(text, sizeof(text),
                 chat ? "%s{\"id\":\"c%u.%u\",\"type\":\"function\",\"function\":{\"name\":\"f\","
                        "\"arguments\":\"{}\"}}"
                      : ",%s{\"type\":\"function_call\",\"call_id\":\"c%u.%u\",\"name\":\"f\","
                        "\"arguments\":\"{}\"}",
                 chat && i > 0 ? "," : "", turn, i);
        add(text);
    }
    add(chat ? "]}" : "");
    for (uint32_t i = 0; i < count; i++) {
        const char *name = chat && rng_below(rng, 3) == 0 ? ",\"name\":\"n\"" : "";
        if (rng_below(rng, 5) == 0) {
            continue;
        }
        snprintf(text, sizeof(text),
                 chat
                     ? ",{\"role\":\"tool\",\"tool_call_id\":\"c%u.%u\",\"content\":\"c%u.%u%s\"%s}"
                     : ",{\"type\":\"function_call_output\",\"call_id\":\"c%u.%u\",\"output\":"
                       "\"c%u.%u%s%s\"}",
                 turn, order[i], turn, order[i], name[0] != '\0' ? "n" : "", name);
        add(text);
    }
    add(chat ? ",{\"role\":\"user\",\"content\":\"and?\"}"
             : ",{\"role\":\"user\",\"content\":\"\"}");
}

/* Reads what the mesh would get as a worker does: by order. Returns the number of results. */
static unsigned expect_paired(void)
{
    unsigned seen = 0;
    for (size_t i = 0; i < r.message_count; i++) {
        if (strcmp(r.messages[i].role, "calls") != 0) {
            continue;
        }
        json_t *root = json_loadb(r.messages[i].text, r.messages[i].len, 0, NULL);
        const json_t *list = json_object_get(root, "calls");
        for (size_t k = 0; k < json_array_size(list); k++) {
            const json_t *call = json_array_get(list, k);
            const json_t *result = json_object_get(call, "result");
            if (json_is_false(result)) {
                continue;
            }
            char want[64];
            snprintf(want, sizeof(want), "%s%s", json_string_value(json_object_get(call, "id")),
                     result != NULL ? json_string_value(result) : "");
            i++;
            seen++;
            ck_assert(i < r.message_count);
            ck_assert_str_eq(r.messages[i].role, "tool");
            ck_assert_str_eq(r.messages[i].text, want);
        }
        ck_assert(i + 1 == r.message_count || strcmp(r.messages[i + 1].role, "tool") != 0);
        json_decref(root);
    }
    return seen;
}

START_TEST(pairs_by_order_are_pairs_by_id)
{
    struct rng rng = {suite_seed(9)};
    unsigned seen = 0;
    for (int round = 0; round < 3000; round++) {
        bool chat = round % 2 == 0;
        strcpy(body, chat ? "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"q\"}"
                          : "{\"model\":\"m\",\"input\":[{\"role\":\"user\",\"content\":\"q\"}");
        unsigned turns = 1 + rng_below(&rng, 3);
        for (unsigned turn = 0; turn < turns; turn++) {
            add_turn(&rng, chat, turn);
        }
        add("]}");
        memset(&error, 0, sizeof(error));
        ck_assert_msg(api_read(&r, chat ? API_CHAT : API_RESPONSE, body, strlen(body), &error),
                      "%s: %s", body, error.message);
        seen += expect_paired();
        api_deinit(&r);
        memset(&r, 0, sizeof(r));
    }
    ck_assert_uint_gt(seen, 3000);
}
END_TEST

#define HEAD                                                                                       \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\","        \
    "\"function\":{\"name\":\"f\",\"arguments\":\"{}\"},\"result\":\"mine\"},{\"id\":\"%s\","      \
    "\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}"
#define RESULT(id, text) ",{\"role\":\"tool\",\"tool_call_id\":" id ",\"content\":\"" text "\"}"

/* Where ids do not say it (strangers, twice the same, none) the order is the client's. */
START_TEST(else_the_order_stays)
{
    static const char *const bad[][2] = {
        {"b", RESULT("\"b\"", "1") RESULT("\"c\"", "2")},
        {"b", RESULT("\"b\"", "1") RESULT("\"b\"", "2")},
        {"b", RESULT("\"b\"", "1") RESULT("5", "2")},
        {"a", RESULT("\"a\"", "1") RESULT("\"a\"", "2")},
        {"b", RESULT("\"\"", "1") RESULT("\"a\"", "2")},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(body, sizeof(body), HEAD "%s]}", bad[i][0], bad[i][1]);
        ck_assert_msg(api_read(&r, API_CHAT, body, strlen(body), &error), "%s", error.message);
        ck_assert_uint_eq(r.message_count, 3);
        ck_assert_str_eq(r.messages[1].text, "1");
        ck_assert_str_eq(r.messages[2].text, "2");
        ck_assert_ptr_null(strstr(r.messages[0].text, "result"));
        api_deinit(&r);
        memset(&r, 0, sizeof(r));
    }
}
END_TEST

/* What is no call at all is the client's mistake, and is told as such. */
START_TEST(no_calls_are_refused)
{
    static const char *const bad[] = {"5", "null", "\"f\"", "[]", "{}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(&error, 0, sizeof(error));
        snprintf(body, sizeof(body),
                 "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[%s]}]}",
                 bad[i]);
        ck_assert(!api_read(&r, API_CHAT, body, strlen(body), &error));
        ck_assert_int_eq(error.http_status, 400);
        api_deinit(&r);
        memset(&r, 0, sizeof(r));
    }
}
END_TEST

/* Of more calls than are put in order all stay as they are, but for what only results.c notes. */
START_TEST(many_calls_stay_as_they_are)
{
    static char text[65536];
    for (int chat = 0; chat < 2; chat++) {
        size_t len =
            (size_t)snprintf(text, sizeof(text),
                             chat ? "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\","
                                    "\"tool_calls\":["
                                  : "{\"model\":\"m\",\"input\":[");
        for (int i = 0; i < 300; i++) {
            len += (size_t)snprintf(
                text + len, sizeof(text) - len,
                chat ? "%s{\"id\":\"c%d\",\"result\":[],\"function\":{\"name\":\"f\","
                       "\"arguments\":\"{}\"}}"
                     : "%s{\"type\":\"function_call\",\"call_id\":\"c%d\",\"result\":[],"
                       "\"name\":\"f\",\"arguments\":\"{}\"}",
                i > 0 ? "," : "", i);
        }
        snprintf(text + len, sizeof(text) - len,
                 chat ? "]},{\"role\":\"tool\",\"tool_call_id\":\"c299\",\"content\":\"x\"}]}"
                      : ",{\"type\":\"function_call_output\",\"call_id\":\"c299\",\"output\":"
                        "\"x\"}]}");
        ck_assert_msg(api_read(&r, chat ? API_CHAT : API_RESPONSE, text, strlen(text), &error),
                      "%s", error.message);
        ck_assert_uint_eq(r.message_count, 2);
        ck_assert_ptr_null(strstr(r.messages[0].text, "result"));
        api_deinit(&r);
        memset(&r, 0, sizeof(r));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("results");
    TCase *tcase = tcase_create("results");
    tcase_add_test(tcase, pairs_by_order_are_pairs_by_id);
    tcase_add_test(tcase, else_the_order_stays);
    tcase_add_test(tcase, no_calls_are_refused);
    tcase_add_test(tcase, many_calls_stay_as_they_are);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
