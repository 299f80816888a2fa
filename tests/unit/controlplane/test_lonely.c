/* SPDX-License-Identifier: Apache-2.0 */
/* test_lonely.c - lonely.h: who meets nobody is told so, soon and then rarely. */
#include <check.h>

#include "controlplane/gossip/lonely.h"
#include "tests/unit/controlplane/main_of.h"

#define START_NS (1000 * NS_PER_S)

static struct lonely l;

/* How often it speaks in `seconds`, looked at twice a second. */
static unsigned words(uint64_t from_s, uint64_t seconds)
{
    unsigned count = 0;
    for (uint64_t half = from_s * 2; half < (from_s + seconds) * 2; half++) {
        count += lonely_silence(&l, true, START_NS + half * (NS_PER_S / 2)) != 0;
    }
    return count;
}

START_TEST(silence_is_told_soon_and_then_rarely)
{
    lonely_init(&l, true, START_NS);
    ck_assert_uint_eq(words(0, 5), 0);
    ck_assert_uint_eq(lonely_silence(&l, true, START_NS + 7 * NS_PER_S), 7 * NS_PER_S);
    ck_assert_uint_eq(words(8, 50), 0);
    ck_assert_uint_eq(words(58, 30), 1);
    /* A day: at most one word in ten minutes, and some. */
    const unsigned day = words(100, 86400);
    ck_assert_uint_le(day, 86400 / 600 + 5);
    ck_assert_uint_ge(day, 86400 / 600 - 5);
}
END_TEST

START_TEST(who_met_somebody_is_quiet)
{
    lonely_init(&l, true, START_NS);
    ck_assert_uint_eq(lonely_silence(&l, false, START_NS + 2 * NS_PER_S), 0);
    ck_assert_uint_eq(words(3, 3600), 0); /* all have gone: no matter of seeds */
    lonely_init(&l, false, START_NS);     /* the first node of a mesh */
    ck_assert_uint_eq(words(0, 3600), 0);
}
END_TEST

START_TEST(foreign_datagrams_are_told_once_a_minute)
{
    unsigned count = 0;
    lonely_init(&l, true, START_NS);
    for (uint64_t ms = 0; ms < 600000; ms++) {
        count += lonely_foreign(&l, START_NS + ms * NS_PER_MS);
    }
    ck_assert_uint_eq(count, 10);
}
END_TEST

MAIN_OF("lonely", silence_is_told_soon_and_then_rarely, who_met_somebody_is_quiet,
        foreign_datagrams_are_told_once_a_minute)
