/* SPDX-License-Identifier: Apache-2.0 */
/* test_trace.c - both formats of recorded arrivals, and what is wrong in them. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/trace.h"
#include "tests/unit/suite.h"

static struct trace trace;
static uint32_t line;

static int parse(const char *text)
{
    return trace_parse(&trace, text, strlen(text), &line);
}

START_TEST(csv_of_azure)
{
    ck_assert_int_eq(parse("TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
                           "2023-11-16 23:59:59.5000000,4808,10\r\n"
                           "2023-11-17 00:00:00.0000001,3180,8\n\n"
                           "2024-02-29 00:00:00,1,0"),
                     0);
    ck_assert_uint_eq(trace.count, 3);
    ck_assert_uint_eq(trace.entries[0].at_ns, 0);
    ck_assert_uint_eq(trace.entries[1].at_ns, 500000100);
    /* 13 days left of November, 31 of December, 31 of January, 28 of February, 0.5 s */
    ck_assert_uint_eq(trace.entries[2].at_ns,
                      (UINT64_C(13) + 31 + 31 + 28 + 1) * 86400000000000u + 500000000u);
    ck_assert_uint_eq(trace.entries[0].input_tokens, 4808);
    ck_assert_uint_eq(trace.entries[0].output_tokens, 10);
    ck_assert_uint_eq(trace.entries[2].output_tokens, 0);
    trace_deinit(&trace);
}
END_TEST

START_TEST(json_lines_of_mooncake_in_order_of_time)
{
    ck_assert_int_eq(parse("{\"timestamp\": 9000, \"input_length\": 600, \"output_length\": 5, "
                           "\"hash_ids\": [0, 7]}\n"
                           "{\"timestamp\": 3000, \"input_length\": 512, \"output_length\": 6, "
                           "\"hash_ids\": [0]}\n"
                           "{\"timestamp\": 3000, \"input_length\": 1, \"output_length\": 7}\n"),
                     0);
    ck_assert_uint_eq(trace.count, 3);
    ck_assert_uint_eq(trace.entries[0].input_tokens, 512);
    ck_assert_uint_eq(trace.entries[1].block_count, 0);
    ck_assert_uint_eq(trace.entries[2].at_ns, UINT64_C(6000000000));
    ck_assert_uint_eq(trace.entries[2].block_count, 2);
    ck_assert_uint_eq(trace.blocks[trace.entries[2].block + 1], 7);
    trace_deinit(&trace);
}
END_TEST

static const struct {
    const char *text;
    uint32_t line;
} bad[] = {
    {"", 1},
    {"A,B,C\n", 2},
    {"A,B,C\n2023-11-16 18:17:03,1\n", 2},
    {"A,B,C\n2023-11-16 18:17:03,1,2,3\n", 2},
    {"A,B,C\n2023-11-16 18:17:03,1,2\n2023-13-16 18:17:03,1,2\n", 3},
    {"A,B,C\n2023-11-16 18:17:03x,1,2\n", 2},
    {"A,B,C\n2023-11-16 18:17:03,-1,2\n", 2},
    {"A,B,C\n2023-11-16 18:17:03,99999999999,2\n", 2},
    {"A,B,C\n0000-00-00 00:00:00,1,2\n", 2},
    {"{}\n", 1},
    {"{\"timestamp\": -1, \"input_length\": 1, \"output_length\": 1}", 1},
    {"{\"timestamp\": 1.5, \"input_length\": 1, \"output_length\": 1}", 1},
    {"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1, \"hash_ids\": [-1]}", 1},
    {"{\"timestamp\": 1, \"input_length\": 1, \"output_length\": 1}\n{", 2},
};

START_TEST(what_is_wrong_is_named_by_its_line)
{
    ck_assert_int_eq(parse(bad[_i].text), -EINVAL);
    ck_assert_uint_eq(line, bad[_i].line);
    ck_assert_ptr_null(trace.entries);
}
END_TEST

START_TEST(a_file_that_is_not_there)
{
    ck_assert_int_eq(trace_load(&trace, "/nonexistent/trace.csv", &line), -ENOENT);
    ck_assert_int_eq(trace_load(&trace, "/", &line), -E2BIG);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_trace");
    TCase *t = tcase_create("trace");
    tcase_add_test(t, csv_of_azure);
    tcase_add_test(t, json_lines_of_mooncake_in_order_of_time);
    tcase_add_loop_test(t, what_is_wrong_is_named_by_its_line, 0, sizeof(bad) / sizeof(bad[0]));
    tcase_add_test(t, a_file_that_is_not_there);
    suite_add_tcase(s, t);
    return suite_main(s);
}
