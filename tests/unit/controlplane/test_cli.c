/* SPDX-License-Identifier: Apache-2.0 */
/* test_cli.c - controlplane/cli: the account of a request in words and JSON, and option values. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/report.h"
#include "tests/unit/suite.h"

static weft_result_t served(void)
{
    weft_result_t result;
    memset(&result, 0, sizeof(result));
    strcpy(result.node, "frankfurt");
    strcpy(result.backend, "cpu");
    result.finish = WEFT_FINISH_STOP;
    result.tier = 3;
    result.prompt_tokens = 31;
    result.new_tokens = 48;
    result.total_us = 811900;
    result.first_token_us = 97000;
    result.net_us = 420;
    result.queue_us = 12;
    result.prefill_us = 96100;
    result.decode_us = 715000;
    return result;
}

static const char *sentence(const weft_result_t *result)
{
    static char out[512];
    report_sentence(result, out, sizeof(out));
    return out;
}

START_TEST(served_in_words)
{
    weft_result_t result = served();
    ck_assert_str_eq(sentence(&result),
                     "served by frankfurt (tier 3, cpu) in 812 ms: net 0.4, queue 0.0, "
                     "prefill 96, decode 715; 48 tokens, 67 tok/s");
    result.new_tokens = 1;
    result.decode_us = 0;
    result.net_us = 123456;
    ck_assert_str_eq(sentence(&result),
                     "served by frankfurt (tier 3, cpu) in 812 ms: net 123.5, queue 0.0, "
                     "prefill 96, decode 0.0; 1 token");
}
END_TEST

START_TEST(refused_in_words)
{
    weft_result_t result = {.status = WEFT_E_BUDGET_INFEASIBLE,
                            .constraint = WEFT_C_BUDGET,
                            .constraint_best = 183400,
                            .retry_after_ms = 20};
    ck_assert_str_eq(sentence(&result),
                     "refused: No capable node can answer within the time budget. Binding "
                     "constraint: no such node can finish in the time left; best possible: 183 ms. "
                     "Try again in 20 ms.");
    result = (weft_result_t){
        .status = WEFT_E_NO_CAPABLE_NODE, .constraint = WEFT_C_VRAM, .constraint_best = 128};
    ck_assert_ptr_nonnull(strstr(sentence(&result), "best possible: 8192 MiB."));
    ck_assert_ptr_nonnull(strstr(sentence(&result), "Asking again will not help"));
    result.constraint = WEFT_C_TIER;
    result.constraint_best = 3;
    ck_assert_ptr_nonnull(strstr(sentence(&result), "best possible: tier 3."));
    result.constraint = WEFT_C_RADIUS;
    result.constraint_best = 410;
    ck_assert_ptr_nonnull(strstr(sentence(&result), "best possible: 410 km."));
    result.constraint = WEFT_C_TAGS;
    ck_assert_ptr_null(strstr(sentence(&result), "best possible"));
    result.constraint = 999;
    ck_assert_ptr_nonnull(strstr(sentence(&result), "refused: "));
}
END_TEST

START_TEST(incomplete_in_words)
{
    weft_result_t result = {.status = WEFT_E_WORKER_LOST, .new_tokens = 5};
    ck_assert_str_eq(sentence(&result), "incomplete: The worker stopped while answering; the text "
                                        "is incomplete. 5 tokens came.");
    result = (weft_result_t){.status = WEFT_E_UNREACHABLE};
    ck_assert_str_eq(sentence(&result), "failed: The node did not answer at all.");
    result = (weft_result_t){.status = WEFT_E_CANCELLED, .new_tokens = 1};
    ck_assert_str_eq(sentence(&result), "interrupted: The request was cancelled. 1 token came.");
    ck_assert(!report_is_refusal(WEFT_E_WORKER_LOST));
    ck_assert(!report_is_refusal(WEFT_E_BUDGET_EXPIRED));
    ck_assert(!report_is_refusal(0));
    ck_assert(report_is_refusal(WEFT_E_MESH_FULL));
}
END_TEST

/* Names from the mesh must not steer a terminal; a short buffer must not be overrun. */
START_TEST(hostile_names_and_room)
{
    weft_result_t result = served();
    strcpy(result.node, "a\x1b[31mb\n");
    ck_assert_ptr_nonnull(strstr(sentence(&result), "served by a?[31mb? (tier"));
    for (size_t size = 1; size < 200; size++) {
        char *out = malloc(size);
        ck_assert_ptr_nonnull(out);
        report_sentence(&result, out, size);
        ck_assert_uint_lt(strlen(out), size);
        result.status = WEFT_E_BUDGET_INFEASIBLE;
        result.constraint = WEFT_C_BUDGET;
        report_sentence(&result, out, size);
        ck_assert_uint_lt(strlen(out), size);
        result.status = 0;
        free(out);
    }
}
END_TEST

static void assert_text(const char *text, size_t len, const char *expected)
{
    weft_result_t result = served();
    json_t *json = report_json(&result, text, len);
    ck_assert_ptr_nonnull(json);
    ck_assert_str_eq(json_string_value(json_object_get(json, "text")), expected);
    char *dump = json_dumps(json, JSON_COMPACT);
    json_t *again = json_loads(dump, 0, NULL); /* jansson refuses invalid UTF-8 */
    ck_assert_ptr_nonnull(again);
    json_decref(again);
    json_decref(json);
    free(dump);
}

#define BAD "\xef\xbf\xbd"

START_TEST(text_is_made_valid)
{
    assert_text("", 0, "");
    assert_text("h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x98\x80", 15,
                "h\xc3\xa9llo \xe2\x82\xac "
                "\xf0\x9f\x98\x80");
    assert_text("a\xff"
                "b",
                3, "a" BAD "b");
    assert_text("\xe2\x82", 2, BAD BAD);                 /* cut off */
    assert_text("\xc0\x80", 2, BAD BAD);                 /* overlong */
    assert_text("\xe0\x80\x80", 3, BAD BAD BAD);         /* overlong */
    assert_text("\xed\xa0\x80", 3, BAD BAD BAD);         /* surrogate */
    assert_text("\xf4\x90\x80\x80", 4, BAD BAD BAD BAD); /* beyond U+10FFFF */
    assert_text("\xf8\x88\x80\x80\x80", 5, BAD BAD BAD BAD BAD);
}
END_TEST

START_TEST(json_fields)
{
    weft_result_t result = served();
    json_t *json = report_json(&result, "hi", 2);
    ck_assert_str_eq(json_string_value(json_object_get(json, "status")), "ok");
    ck_assert_str_eq(json_string_value(json_object_get(json, "node")), "frankfurt");
    ck_assert_str_eq(json_string_value(json_object_get(json, "finish")), "stop");
    ck_assert_int_eq(json_integer_value(json_object_get(json, "tokens")), 48);
    ck_assert_double_eq_tol(json_real_value(json_object_get(json, "net_ms")), 0.42, 1e-9);
    ck_assert_double_eq_tol(json_real_value(json_object_get(json, "first_token_ms")), 97, 1e-9);
    ck_assert(json_is_null(json_object_get(json, "constraint")));
    ck_assert(json_is_null(json_object_get(json, "best")));
    json_decref(json);
    result = (weft_result_t){.status = WEFT_E_NO_CAPABLE_NODE,
                             .constraint = WEFT_C_VRAM,
                             .constraint_best = 2,
                             .retry_after_ms = 7};
    json = report_json(&result, NULL, 0);
    ck_assert_str_eq(json_string_value(json_object_get(json, "status")), "no_capable_node");
    ck_assert_str_eq(json_string_value(json_object_get(json, "constraint")), "vram");
    ck_assert_str_eq(json_string_value(json_object_get(json, "best_unit")), "MiB");
    ck_assert_double_eq_tol(json_real_value(json_object_get(json, "best")), 128, 1e-9);
    ck_assert_int_eq(json_integer_value(json_object_get(json, "retry_after_ms")), 7);
    ck_assert(json_is_null(json_object_get(json, "finish")));
    json_decref(json);
}
END_TEST

START_TEST(option_values)
{
    uint64_t number = 0;
    double real = 0;
    uint32_t low = 9;
    uint32_t high = 9;
    ck_assert(cli_number("42", 0, 100, &number) && number == 42);
    ck_assert(cli_number("18446744073709551615", 0, UINT64_MAX, &number));
    ck_assert(!cli_number("18446744073709551616", 0, UINT64_MAX, &number));
    ck_assert(!cli_number("-1", 0, UINT64_MAX, &number));
    ck_assert(!cli_number("", 0, 100, &number));
    ck_assert(!cli_number(" 1", 0, 100, &number));
    ck_assert(!cli_number("1x", 0, 100, &number));
    ck_assert(!cli_number("101", 0, 100, &number));
    ck_assert(cli_real("-3.5", -10, 10, &real) && real == -3.5);
    ck_assert(!cli_real("nan", -10, 10, &real));
    ck_assert(!cli_real("", -10, 10, &real));
    ck_assert(!cli_real("11", -10, 10, &real));
    ck_assert(cli_range("2-5", 7, &low, &high) && low == 2 && high == 5);
    ck_assert(cli_range("3", 7, &low, &high) && low == 3 && high == 3);
    ck_assert(!cli_range("5-2", 7, &low, &high));
    ck_assert(!cli_range("2-", 7, &low, &high));
    ck_assert(!cli_range("-2", 7, &low, &high));
    ck_assert(!cli_range("2-9", 7, &low, &high));
    ck_assert(!cli_range("2-5-6", 7, &low, &high));
    ck_assert(!cli_range("00000000000000000000002", 7, &low, &high));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cli");
    TCase *tcase = tcase_create("cli");
    tcase_add_test(tcase, served_in_words);
    tcase_add_test(tcase, refused_in_words);
    tcase_add_test(tcase, incomplete_in_words);
    tcase_add_test(tcase, hostile_names_and_room);
    tcase_add_test(tcase, text_is_made_valid);
    tcase_add_test(tcase, json_fields);
    tcase_add_test(tcase, option_values);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
