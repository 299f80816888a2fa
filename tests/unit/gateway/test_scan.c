/* SPDX-License-Identifier: Apache-2.0 */
/* test_scan.c - scan.h: depth and number of values of a JSON text that comes in pieces. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/scan.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static bool all(const char *text, size_t len)
{
    struct scan s = {.depth = 0};
    return scan_feed(&s, text, len);
}

START_TEST(depth)
{
    char text[2 * SCAN_DEPTH_MAX + 4];
    memset(text, '[', sizeof(text));
    ck_assert(all(text, SCAN_DEPTH_MAX));
    ck_assert(!all(text, SCAN_DEPTH_MAX + 1));
    /* Closed again is not deeper. */
    for (size_t i = 0; i < sizeof(text); i += 2) {
        memcpy(text + i, "{}", 2);
    }
    ck_assert(all(text, sizeof(text)));
}
END_TEST

START_TEST(values)
{
    size_t len = 2 * (size_t)SCAN_VALUES_MAX + 8;
    char *text = malloc(len);
    for (size_t i = 0; i < len; i += 2) {
        memcpy(text + i, "1,", 2);
    }
    ck_assert(all(text, 2 * (size_t)SCAN_VALUES_MAX));
    ck_assert(!all(text, len));
    free(text);
}
END_TEST

START_TEST(strings_do_not_count)
{
    static const char text[] = "{\"a\":\"[[[[,,,,\\\"[[[\\\\\",\"b\":[1,2]}";
    struct scan s = {.depth = 0};
    ck_assert(scan_feed(&s, text, sizeof(text) - 1));
    ck_assert_uint_eq(s.depth, 0);
    ck_assert(!s.in_string);
    ck_assert_uint_eq(s.values, 6); /* two openings, two colons, two commas */
}
END_TEST

/* However the text is cut, the same is found; held against a scan byte by byte. */
START_TEST(any_cut)
{
    static const char alphabet[] = "\"\\[]{},: a";
    struct rng rng = {(uint64_t)_i};
    for (int round = 0; round < 500; round++) {
        char text[64];
        struct scan bytes = {.depth = 0};
        struct scan cut = {.depth = 0};
        for (size_t i = 0; i < sizeof(text); i++) {
            text[i] = alphabet[rng_below(&rng, sizeof(alphabet) - 1)];
            scan_feed(&bytes, &text[i], 1);
        }
        for (size_t at = 0; at < sizeof(text);) {
            size_t step = 1 + rng_below(&rng, 20);
            step = step < sizeof(text) - at ? step : sizeof(text) - at;
            scan_feed(&cut, text + at, step);
            at += step;
        }
        ck_assert_uint_eq(bytes.depth, cut.depth);
        ck_assert_uint_eq(bytes.values, cut.values);
        ck_assert_int_eq(bytes.in_string, cut.in_string);
        ck_assert_int_eq(bytes.escaped, cut.escaped);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gateway_scan");
    TCase *tc = tcase_create("scan");
    tcase_add_test(tc, depth);
    tcase_add_test(tc, values);
    tcase_add_test(tc, strings_do_not_count);
    tcase_add_loop_test(tc, any_cut, 0, 4);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
