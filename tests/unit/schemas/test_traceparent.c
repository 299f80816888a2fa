/* SPDX-License-Identifier: Apache-2.0 */
/* test_traceparent.c - traceparent.h: what is a traceparent and what is none. */
#include <check.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "schemas/base/traceparent.h"
#include "tests/unit/suite.h"

#define GOOD "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

START_TEST(read_and_written)
{
    struct trace_context t;
    char text[TRACEPARENT_BYTES];
    ck_assert(traceparent_parse(GOOD, &t));
    ck_assert(t.high == UINT64_C(0x0af7651916cd43dd) && t.low == UINT64_C(0x8448eb211c80319c));
    ck_assert(t.span == UINT64_C(0xb7ad6b7169203331) && t.flags == TRACEPARENT_SAMPLED);
    traceparent_write(&t, text);
    ck_assert_str_eq(text, GOOD);
    struct rng rng = {1};
    for (int i = 0; i < 1000; i++) {
        const struct trace_context made = {rng_next(&rng), rng_next(&rng), rng_next(&rng) | 1,
                                           (uint8_t)(i & 1)};
        traceparent_write(&made, text);
        ck_assert(traceparent_parse(text, &t));
        ck_assert(t.high == made.high && t.low == made.low && t.span == made.span &&
                  t.flags == made.flags);
    }
}
END_TEST

START_TEST(versions_and_flags)
{
    struct trace_context t;
    ck_assert(traceparent_parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", &t));
    ck_assert_uint_eq(t.flags, 0);
    /* Bits that are not known yet; versions to come, with more behind. */
    ck_assert(traceparent_parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fe", &t));
    ck_assert_uint_eq(t.flags, 0);
    ck_assert(traceparent_parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", &t));
    ck_assert(
        traceparent_parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what", &t));
    ck_assert(
        !traceparent_parse("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what", &t));
}
END_TEST

START_TEST(none)
{
    static const char *const bad[] = {
        "",
        "00",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01x",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        (" " GOOD),
    };
    struct trace_context t;
    ck_assert(!traceparent_parse(NULL, &t));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memset(&t, 0xff, sizeof(t));
        ck_assert_msg(!traceparent_parse(bad[i], &t), "%s", bad[i]);
        ck_assert(!traceparent_is_set(&t));
    }
    char *heap = strdup(GOOD); /* any cut, with a sanitizer behind its end */
    for (size_t len = strlen(heap); len-- > 0;) {
        heap[len] = '\0';
        char *cut = strdup(heap);
        ck_assert(!traceparent_parse(cut, &t));
        free(cut);
    }
    free(heap);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("trace");
    TCase *tcase = tcase_create("traceparent");
    tcase_add_test(tcase, read_and_written);
    tcase_add_test(tcase, versions_and_flags);
    tcase_add_test(tcase, none);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
