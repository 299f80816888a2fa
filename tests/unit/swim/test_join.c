/* SPDX-License-Identifier: Apache-2.0 */
/* test_join.c - swim_join(): a node that nobody was configured with is called and remembered. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "schemas/base/clock.h"
#include "tests/unit/suite.h"
#include "tests/unit/swim/shuttle.h"

/* Two nodes, each of which knows no other. */
static void strangers_start(struct shuttle *s)
{
    memset(s, 0, sizeof(*s));
    s->now_ns = NS_PER_S;
    for (uint32_t i = 0; i < 2; i++) {
        struct swim_seed none = {.port = 0};
        struct swim_options options = shuttle_options(i, &none);
        options.seed_count = 0;
        shuttle_start(s, i, &options);
    }
    shuttle_run(s, 5 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(s->nodes[0]), 1);
}

START_TEST(a_stranger_is_called)
{
    static struct shuttle s;
    static struct swim_out out;
    strangers_start(&s);
    const struct swim_seed other = {.address = shuttle_address(1), .port = 7401};
    ck_assert_int_eq(swim_join(s.nodes[0], &other, &out), 0);
    ck_assert_uint_eq(out.datagram_count, 1);
    shuttle_carry(&s, 0, &out);
    shuttle_run(&s, 5 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&s, 0, 1), SWIM_ALIVE);
    ck_assert_int_eq(shuttle_view(&s, 1, 0), SWIM_ALIVE);
    ck_assert_int_eq(swim_join(s.nodes[0], &other, &out), -EALREADY);
    ck_assert_uint_eq(out.datagram_count, 0);
    shuttle_end(&s);
}
END_TEST

/* The call was lost: it is called again without having been named again. */
START_TEST(it_is_remembered)
{
    static struct shuttle s;
    static struct swim_out out;
    strangers_start(&s);
    const struct swim_seed other = {.address = shuttle_address(1), .port = 7401};
    ck_assert_int_eq(swim_join(s.nodes[0], &other, &out), 0);
    shuttle_run(&s, 10 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&s, 0, 1), SWIM_ALIVE);
    shuttle_end(&s);
}
END_TEST

/* More than there is room for: each is called; those of the configuration stay. */
START_TEST(room_is_bounded)
{
    static struct shuttle s;
    static struct swim_out out;
    strangers_start(&s);
    for (uint32_t i = 0; i < 3 * SWIM_SEEDS_MAX; i++) {
        const struct swim_seed other = {.address = shuttle_address(100 + i), .port = 7401};
        ck_assert_int_eq(swim_join(s.nodes[0], &other, &out), 0);
        ck_assert_uint_eq(out.datagram_count, 1);
    }
    struct swim_seed seeds[SWIM_SEEDS_MAX];
    for (uint32_t i = 0; i < SWIM_SEEDS_MAX; i++) {
        seeds[i] = (struct swim_seed){.address = shuttle_address(50 + i), .port = 7401};
    }
    struct swim_options options = shuttle_options(2, seeds);
    options.seed_count = SWIM_SEEDS_MAX;
    shuttle_start(&s, 2, &options);
    const struct swim_seed other = {.address = shuttle_address(1), .port = 7401};
    ck_assert_int_eq(swim_join(s.nodes[2], &other, &out), -ENOSPC);
    shuttle_end(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim_join");
    TCase *tc = tcase_create("join");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_stranger_is_called);
    tcase_add_test(tc, it_is_remembered);
    tcase_add_test(tc, room_is_bounded);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
