/* SPDX-License-Identifier: Apache-2.0 */
/* test_tracestate.c - tracestate.h: what is a list of members, and what is let go of. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "schemas/base/tracestate.h"
#include "tests/unit/suite.h"

static char out[TRACESTATE_BYTES];

static const char *carried(const char *line)
{
    struct tracestate state = {.count = 0};
    tracestate_add(&state, line, strlen(line));
    ck_assert_uint_eq(tracestate_write(&state, out), strlen(out));
    ck_assert(out[0] == '\0' || tracestate_is_clean(out, strlen(out)));
    return out;
}

START_TEST(lists)
{
    ck_assert_str_eq(carried("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
                     "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    ck_assert_str_eq(carried(" a=1 ,\tb=2 3 , ,, c@d=~!"), "a=1,b=2 3,c@d=~!");
    ck_assert_str_eq(carried("1a-_*/@b=x"), "1a-_*/@b=x");
    ck_assert_str_eq(carried(""), "");
    ck_assert_str_eq(carried(",  ,"), "");
    static const char *const bad[] = {
        "a",      "a=",         "=1",     "A=1",  "a=1,B=2",     "a=1=2", "a=1,a=2",
        "a=\x7f", "a=\xc3\xa9", "a=1\tb", "a =1", "a=1\r\nb: c", "_a=1",  "a=b;c,d",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(carried(bad[i])[0] == '\0', "%s", bad[i]);
        ck_assert(!tracestate_is_clean(bad[i], strlen(bad[i])));
    }
    ck_assert(!tracestate_is_clean("a=1, b=2", 8)); /* not as it is written here */
    struct tracestate lines = {.count = 0};
    tracestate_add(&lines, "a=1", 3);
    tracestate_add(&lines, "b=2,c=3", 7);
    ck_assert_uint_eq(tracestate_write(&lines, out), 11);
    ck_assert_str_eq(out, "a=1,b=2,c=3");
    tracestate_add(&lines, "b=4", 3);
    ck_assert_uint_eq(tracestate_write(&lines, out), 0);
}
END_TEST

START_TEST(thirty_two_members)
{
    char line[256];
    size_t used = 0;
    for (int i = 0; i < 33; i++) {
        used += (size_t)snprintf(line + used, sizeof(line) - used, "%sk%d=v", i > 0 ? "," : "", i);
        ck_assert_str_eq(carried(line), i < 32 ? line : "");
    }
}
END_TEST

/* What stays of too long a list, by brute force: the large ones go first, from the end, then any.
 */
static void expect_kept(char members[][600], uint32_t count)
{
    char line[32 * 600] = "", want[32 * 600];
    bool gone[32] = {false};
    for (uint32_t i = 0; i < count; i++) {
        strcat(strcat(line, i > 0 ? "," : ""), members[i]);
    }
    for (int pass = 0; pass < 3; pass++) {
        for (uint32_t i = count; i-- > 0 || pass == 2;) {
            want[0] = '\0';
            for (uint32_t k = 0; k < count; k++) {
                if (!gone[k]) {
                    strcat(strcat(want, want[0] != '\0' ? "," : ""), members[k]);
                }
            }
            if (pass == 2 || strlen(want) <= TRACESTATE_MAX) {
                break;
            }
            gone[i] = gone[i] || pass == 1 || strlen(members[i]) > 128;
        }
    }
    ck_assert_str_eq(carried(line), want);
}

START_TEST(whole_members_go)
{
    static char members[32][600];
    struct rng rng = {suite_seed(5)};
    bool cut = false;
    for (int round = 0; round < 1000; round++) {
        uint32_t count = 1 + rng_below(&rng, 32);
        for (uint32_t i = 0; i < count; i++) {
            uint32_t most = rng_below(&rng, 4) == 0 ? 256 : rng_below(&rng, 2) == 0 ? 40 : 125;
            uint32_t len = 1 + rng_below(&rng, most);
            int key = snprintf(members[i], sizeof(members[i]), "k%u=", i);
            memset(members[i] + key, 'a' + (int)rng_below(&rng, 26), len);
            members[i][(uint32_t)key + len] = '\0';
        }
        expect_kept(members, count);
        cut = cut || strlen(out) > 500;
    }
    ck_assert(cut);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tracestate");
    TCase *tcase = tcase_create("tracestate");
    tcase_add_test(tcase, lists);
    tcase_add_test(tcase, thirty_two_members);
    tcase_add_test(tcase, whole_members_go);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
