/* SPDX-License-Identifier: Apache-2.0 */
/* test_trace.c - controlplane/cli/trace.c: why a node is chosen, where a request's time went, and
 * what becomes of accounts that do not fit the status. */
#include "controlplane/cli/trace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/controlplane/main_of.h"

struct at {
    const char *name;
    double longitude;
    uint32_t rtt_us, queue_us;
    bool estimated, lacks_model;
};

static json_t *status_of(const struct at *nodes, uint32_t count)
{
    json_t *members = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(
            members,
            json_pack("{s:s, s:i, s:i, s:[], s:b, s:[s], s:i, s:i, s:i, s:i, s:b, s:i, s:f, s:f, "
                      "s:i}",
                      "name", nodes[i].name, "id", (int)i + 1, "tier", 3, "tags", "alive", 1,
                      "models", nodes[i].lacks_model ? "other" : "m", "room", 4, "queue_us",
                      (int)nodes[i].queue_us, "prefill_tps", 1000, "rtt_us", (int)nodes[i].rtt_us,
                      "rtt_estimated", (int)nodes[i].estimated, "decode_tps", 100, "latitude_deg",
                      50.0, "longitude_deg", nodes[i].longitude, "heard_ms_ago", 10));
    }
    return json_pack("{s:s, s:i, s:{s:{s:i}}, s:o}", "node", nodes[0].name, "table_epoch", 7,
                     "stages", "residence", "p50_ns", 1900, "members", members);
}

static json_t *account_of(const struct at *nodes, uint32_t count, const weft_result_t *result)
{
    struct query query;
    char why[QUERY_WHY_MAX];
    query_init(&query);
    strcpy(query.model, "m");
    json_t *status = status_of(nodes, count);
    json_t *answer = query_answer(&query, status, why);
    ck_assert_ptr_nonnull(answer);
    json_t *account = trace_account(status, answer, result, result != NULL ? "10.0.0.1" : NULL);
    json_decref(answer);
    json_decref(status);
    return account;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static double number_of(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void expect_choice(const struct at *nodes, uint32_t count, const char *chosen,
                          const char *why)
{
    json_t *account = account_of(nodes, count, NULL);
    ck_assert_str_eq(text_of(account, "would_choose"), chosen);
    ck_assert_msg(strstr(text_of(account, "why"), why) != NULL, "%s", text_of(account, "why"));
    ck_assert(json_is_null(json_object_get(account, "request")));
    json_decref(account);
}

START_TEST(why_it_is_chosen)
{
    static const struct at near_wins[] = {
        {"a", 0, 0, 0, 0, 1}, {"b", 1, 9000, 0, 0, 0}, {"c", 9, 4000, 0, 0, 0}};
    static const struct at far_wins[] = {
        {"a", 0, 0, 0, 0, 1}, {"b", 1, 9000, 400000, 0, 0}, {"c", 9, 50000, 0, 0, 0}};
    static const struct at best_is_near[] = {
        {"a", 0, 0, 0, 0, 1}, {"b", 1, 2000, 0, 0, 0}, {"c", 9, 4000, 0, 0, 0}};
    static const struct at middle_wins[] = {{"a", 0, 0, 0, 0, 1},
                                            {"b", 1, 9000, 900000, 0, 0},
                                            {"c", 9, 60000, 0, 0, 0},
                                            {"d", 20, 55000, 0, 0, 0}};
    expect_choice(near_wins, 3, "b", "the nearest; c is predicted to be 5.0 ms sooner");
    expect_choice(far_wins, 3, "c", "sooner than the nearest, b");
    expect_choice(best_is_near, 3, "b", "nobody near is predicted to be sooner");
    expect_choice(middle_wins, 4, "c", "about as soon as the soonest, d");
    expect_choice(near_wins, 2, "b", "the only one");
    expect_choice(near_wins, 1, "", "nobody can take it; what binds: model");
}
END_TEST

static weft_result_t served_by(const char *node)
{
    weft_result_t r;
    memset(&r, 0, sizeof(r));
    strcpy(r.node, node);
    r.finish = WEFT_FINISH_LENGTH;
    r.new_tokens = 1;
    r.queue_us = 300;
    r.prefill_us = 4000;
    r.decode_us = 700;
    r.net_us = 12000;
    r.total_us = 17000;
    r.first_token_us = 16900;
    r.accepted_us = 11000;
    return r;
}

/* The parts sum up to the whole, whatever the probes say. */
START_TEST(time_adds_up)
{
    static const uint32_t ways_us[] = {0, 9000, 12000, 90000};
    for (size_t i = 0; i < sizeof(ways_us) / sizeof(ways_us[0]); i++) {
        const struct at nodes[] = {{"a", 0, 0, 0, 0, 1}, {"b", 1, ways_us[i], 0, i == 1, 0}};
        weft_result_t result = served_by("b");
        json_t *account = account_of(nodes, 2, &result);
        const json_t *request = json_object_get(account, "request");
        const json_t *hops = json_object_get(request, "hops");
        double sum = 0;
        for (size_t h = 0; h < json_array_size(hops); h++) {
            ck_assert(number_of(json_array_get(hops, h), "ms") >= 0);
            sum += number_of(json_array_get(hops, h), "ms");
        }
        ck_assert_uint_eq(json_array_size(hops), 5);
        ck_assert(fabs(sum - 17.0) < 1e-6);
        ck_assert(json_is_true(json_object_get(request, "as_expected")));
        ck_assert(fabs(number_of(request, "accepted_ms") - 11) < 1e-6);
        const char *what = text_of(json_array_get(hops, 1), "what");
        ck_assert_int_eq(strstr(what, "estimated") != NULL, i == 1);
        json_decref(account);
    }
}
END_TEST

START_TEST(at_the_ingress_itself)
{
    static const struct at nodes[] = {{"a", 0, 0, 0, 0, 0}, {"b", 1, 9000, 0, 0, 0}};
    weft_result_t result = served_by("a");
    json_t *account = account_of(nodes, 2, &result);
    const json_t *request = json_object_get(account, "request");
    ck_assert_uint_eq(json_array_size(json_object_get(request, "hops")), 4);
    ck_assert(json_is_true(json_object_get(request, "as_expected")));
    json_decref(account);
}
END_TEST

START_TEST(served_by_another)
{
    static const struct at nodes[] = {{"a", 0, 0, 0, 0, 1},
                                      {"b", 1, 9000, 0, 0, 0},
                                      {"b2", 1, 9000, 0, 0, 0},
                                      {"far", 90, 9000, 0, 0, 0}};
    static const struct {
        const char *by, *why;
    } cases[] = {{"b2", "near-equal"}, {"far", "counts what it has sent"}, {"new", "has changed"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        weft_result_t result = served_by(cases[i].by);
        json_t *account = account_of(nodes, 4, &result);
        const json_t *request = json_object_get(account, "request");
        const char *chosen = text_of(account, "would_choose");
        if (strcmp(chosen, cases[i].by) != 0) { /* of b and b2 either may be drawn */
            ck_assert(json_is_false(json_object_get(request, "as_expected")));
            ck_assert_ptr_nonnull(strstr(text_of(request, "other_why"), cases[i].why));
        }
        json_decref(account);
    }
}
END_TEST

static char *printed(const json_t *account)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    trace_print(out, account);
    fclose(out);
    return text;
}

START_TEST(in_words)
{
    static const struct at nodes[] = {{"a", 0, 0, 0, 0, 1}, {"b", 1, 9000, 0, 0, 0}};
    weft_result_t result = served_by("b");
    json_t *account = account_of(nodes, 2, &result);
    char *text = printed(account);
    ck_assert_ptr_nonnull(strstr(text,
                                 "ingress   a (id 1, tier 3) by 10.0.0.1; table 7; its packet "
                                 "path takes 1.9 us a burst\n"));
    ck_assert_ptr_nonnull(strstr(text, "not  a "));
    ck_assert_ptr_nonnull(strstr(text, "chosen    b: the only one that can take it\n"));
    ck_assert_ptr_nonnull(strstr(text, "served    b, as expected\n"));
    ck_assert_ptr_nonnull(strstr(text, "first token after 16.9 ms, predicted "));
    free(text);
    json_decref(account);
    result = (weft_result_t){.status = WEFT_E_MESH_FULL, .finish = WEFT_FINISH_REFUSED};
    account = account_of(nodes, 2, &result);
    text = printed(account);
    ck_assert_ptr_nonnull(strstr(text, "refused   "));
    free(text);
    json_decref(account);
}
END_TEST

START_TEST(the_request_says_what_the_query_says)
{
    struct query query;
    weft_query_t request;
    struct trace_words words;
    query_init(&query);
    strcpy(query.model, "m");
    trace_request(&query, &words, &request);
    ck_assert_ptr_null(request.tags);
    ck_assert_uint_eq(request.max_tokens, 1);
    ck_assert_uint_eq(request.budget_ms, 0);
    ck_assert(request.once && !request.has_position);
    ck_assert_ptr_null(request.more->jurisdiction);
    query.tags = weft_tag_mask("gdpr") | weft_tag_mask("eu");
    query.budget_us = 1500;
    query.land_count = 1;
    strcpy(query.lands[0], "DE");
    query.end_to_end = true;
    query.has_near = true;
    query.near_latitude_deg = 50;
    trace_request(&query, &words, &request);
    ck_assert_uint_eq(strlen(request.tags), strlen("eu,gdpr"));
    ck_assert_uint_eq(request.budget_ms, 2);
    ck_assert(request.end_to_end && request.has_position);
    ck_assert_str_eq(request.more->jurisdiction, "DE");
    query.tags = UINT32_MAX; /* all there are find room */
    trace_request(&query, &words, &request);
    ck_assert_uint_lt(strlen(request.tags), TRACE_TAGS_MAX - 1);
}
END_TEST

MAIN_OF("trace", why_it_is_chosen, time_adds_up, at_the_ingress_itself, served_by_another, in_words,
        the_request_says_what_the_query_says)
