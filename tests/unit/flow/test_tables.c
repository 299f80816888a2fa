/* SPDX-License-Identifier: Apache-2.0 */
/* test_tables.c - timers.h, table.h, done_set.h, rtt.h and window.h against plain models. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/done_set.h"
#include "dataplane/flow/rtt.h"
#include "dataplane/flow/table.h"
#include "dataplane/flow/timers.h"
#include "dataplane/flow/window.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define NODES 500u

START_TEST(timers_match_a_scan)
{
    struct timers t;
    struct timer nodes[NODES];
    struct rng rng = {1};
    memset(nodes, 0, sizeof(nodes));
    ck_assert_int_eq(timers_init(&t, NODES), 0);
    for (uint32_t step = 0; step < 20000; step++) {
        uint64_t due = rng_below(&rng, 4) == 0 ? TIMER_NEVER : rng_below(&rng, 1000);
        timers_set(&t, &nodes[rng_below(&rng, NODES)], due);
        uint64_t least = TIMER_NEVER;
        uint32_t count = 0;
        for (uint32_t i = 0; i < NODES; i++) {
            count += nodes[i].slot != 0;
            if (nodes[i].slot != 0 && nodes[i].due_ns < least) {
                least = nodes[i].due_ns;
            }
        }
        ck_assert_uint_eq(t.count, count);
        ck_assert_uint_eq(timers_due_ns(&t), least);
    }
    timers_deinit(&t);
}
END_TEST

START_TEST(table_finds_what_it_holds)
{
    struct table t;
    struct table_node nodes[NODES];
    bool in[NODES] = {false};
    struct rng rng = {2};
    ck_assert_int_eq(table_init(&t, 64, 99), 0);
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i] = (struct table_node){.conn_id = i % 7, .req_seq = i};
    }
    for (uint32_t step = 0; step < 20000; step++) {
        uint32_t i = rng_below(&rng, NODES);
        ck_assert_ptr_eq(table_find(&t, i % 7, i), in[i] ? &nodes[i] : NULL);
        if (in[i]) {
            table_remove(&t, &nodes[i]);
        } else {
            table_add(&t, &nodes[i]);
        }
        in[i] = !in[i];
    }
    table_deinit(&t);
}
END_TEST

START_TEST(done_set_forgets_the_oldest_only)
{
    struct done_set s;
    ck_assert_int_eq(done_set_init(&s, 3), 0);
    uint32_t total = 3 * DONE_SET_MAX + 5;
    for (uint32_t i = 0; i < total; i++) {
        ck_assert_ptr_null(done_set_find(&s, 5, i));
        done_set_add(&s, 5, i, (uint16_t)i, 2);
    }
    for (uint32_t i = 0; i < total; i++) {
        const struct done_entry *e = done_set_find(&s, 5, i);
        ck_assert_int_eq(e != NULL, i >= total - DONE_SET_MAX);
        ck_assert(e == NULL || e->status == (uint16_t)i);
        ck_assert_ptr_null(done_set_find(&s, 6, i));
    }
    done_set_deinit(&s);
}
END_TEST

START_TEST(rto_stays_in_its_bounds)
{
    struct rtt r = {0};
    ck_assert_uint_eq(rtt_rto_ns(&r, 0), RTT_RTO_INITIAL_NS);
    for (int i = 0; i < 50; i++) {
        rtt_sample(&r, NS_PER_MS);
    }
    ck_assert_uint_eq(rtt_rto_ns(&r, 0), RTT_RTO_FLOOR_NS);
    ck_assert_uint_eq(rtt_rto_ns(&r, 1), 2 * RTT_RTO_FLOOR_NS);
    ck_assert_uint_eq(rtt_rto_ns(&r, 1000), RTT_RTO_CAP_NS);
    rtt_sample(&r, UINT64_MAX);
    ck_assert_uint_eq(rtt_rto_ns(&r, 0), RTT_RTO_CAP_NS);
    struct rtt one = {0};
    rtt_sample(&one, 40 * NS_PER_MS); /* first sample: SRTT = R, RTTVAR = R/2 */
    ck_assert_uint_eq(rtt_rto_ns(&one, 0), 120 * NS_PER_MS);
}
END_TEST

START_TEST(window_stays_in_its_bounds)
{
    struct window w;
    window_init(&w);
    window_shrink(&w);
    ck_assert_uint_eq(w.bytes, WINDOW_MIN_BYTES);
    for (int i = 0; i < 20; i++) {
        window_grow(&w);
    }
    ck_assert_uint_eq(w.bytes, WINDOW_MAX_BYTES);
    window_shrink(&w);
    ck_assert_uint_eq(w.bytes, WINDOW_MAX_BYTES / 2);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/tables");
    TCase *t = tcase_create("tables");
    tcase_add_test(t, timers_match_a_scan);
    tcase_add_test(t, table_finds_what_it_holds);
    tcase_add_test(t, done_set_forgets_the_oldest_only);
    tcase_add_test(t, rto_stays_in_its_bounds);
    tcase_add_test(t, window_stays_in_its_bounds);
    suite_add_tcase(s, t);
    return suite_main(s);
}
