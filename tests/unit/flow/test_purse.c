/* SPDX-License-Identifier: Apache-2.0 */
/* test_purse.c - stream.h's purses: many streams of one client, how much is asked again when what
 * they were asking is lost. See test_stream.c. */
#include "tests/unit/flow/stream_fixture.h"
#include "tests/unit/suite.h"

START_TEST(a_storm_of_failures_stays_small)
{
    enum { STREAMS = 10000 };
    struct stream_policy policy;
    stream_policy_init(&policy, 2);
    uint64_t attempts = 0;
    for (uint32_t i = 0; i < STREAMS; i++) {
        struct stream s;
        struct stream_order order;
        stream_init(&s, &policy, false, false, T0 + i);
        while (stream_next(&s, &order)) {
            ck_assert_int_eq(order.kind, STREAM_START);
            attempts++;
            weft_result_t lost = {.status = WEFT_E_STALLED};
            stream_over(&s, &policy, order.attempt, &lost, T0 + i);
        }
        ck_assert(s.ended);
        ck_assert_int_eq(s.result.status, WEFT_E_STALLED);
        stream_deinit(&s);
    }
    ck_assert_uint_le(attempts - STREAMS, 10 + STREAMS / 10);
    ck_assert_uint_ge(attempts - STREAMS, STREAMS / 10);
    ck_assert_uint_eq(policy.failovers, attempts - STREAMS);
}
END_TEST

/* All that a node was serving when it died goes on elsewhere, once; what comes later has to pay. */
START_TEST(a_death_is_paid_for_once)
{
    enum { STREAMS = 5000 };
    struct stream_policy policy;
    struct stream *all = calloc(STREAMS, sizeof(*all));
    struct stream_order order;
    const uint16_t alternates[2] = {4, 5};
    stream_policy_init(&policy, 1);
    for (uint32_t i = 0; i < STREAMS; i++) {
        stream_init(&all[i], &policy, false, false, T0 + i);
        ck_assert(stream_next(&all[i], &order));
        stream_accepted(&all[i], 0, 3, alternates);
    }
    policy.retry_purse = 2 * STREAM_PURSE;
    weft_result_t lost = {.status = WEFT_E_STALLED};
    for (uint32_t i = 0; i < STREAMS; i++) {
        stream_over(&all[i], &policy, 0, &lost, T0 + NS_PER_S + i * NS_PER_MS);
        ck_assert(stream_next(&all[i], &order));
        ck_assert_int_eq(order.kind, STREAM_START);
        ck_assert_uint_eq(order.target, 4);
        stream_accepted(&all[i], order.attempt, 4, alternates);
    }
    ck_assert_uint_eq(policy.retry_purse, STREAM_PURSE);
    struct stream late; /* begun behind it */
    policy.retry_purse = 0;
    stream_init(&late, &policy, false, false, T0 + 2 * NS_PER_S);
    ck_assert(stream_next(&late, &order));
    stream_accepted(&late, 0, 3, alternates);
    policy.retry_purse = 0;
    stream_over(&late, &policy, 0, &lost, T0 + 3 * NS_PER_S);
    ck_assert(late.ended);
    stream_deinit(&late);
    for (uint32_t i = 0; i < STREAMS; i++) { /* and a second death has to, of each */
        stream_over(&all[i], &policy, all[i].leader >= 0 ? (uint32_t)all[i].leader : 0, &lost,
                    T0 + 8 * NS_PER_S);
        ck_assert(all[i].ended);
        stream_deinit(&all[i]);
    }
    free(all);
}
END_TEST

/* The node that was asked dies before any worker has answered: whoever was on the way there goes
 * elsewhere, once. */
START_TEST(a_death_on_the_way_is_paid_for_once)
{
    enum { STREAMS = 100 };
    static const int how[] = {WEFT_E_UNREACHABLE, WEFT_E_STALLED};
    for (uint32_t h = 0; h < 2; h++) {
        struct stream_policy policy;
        struct stream all[STREAMS];
        struct stream_order order;
        weft_result_t lost = {.status = how[h]};
        stream_policy_init(&policy, 3);
        for (uint32_t i = 0; i < STREAMS; i++) {
            stream_init(&all[i], &policy, false, false, T0 + i);
            ck_assert(stream_next(&all[i], &order));
        }
        policy.retry_purse = STREAM_PURSE;
        for (uint32_t i = 0; i < STREAMS; i++) {
            stream_over(&all[i], &policy, 0, &lost, T0 + NS_PER_S + i);
            ck_assert(stream_next(&all[i], &order));
            ck_assert_uint_eq(order.path, 1);
        }
        ck_assert_uint_eq(policy.retry_purse, 0);
        ck_assert_uint_eq(policy.path, 1);       /* where the next ones begin */
        for (uint32_t i = 0; i < STREAMS; i++) { /* whoever is lost there, too, has to pay */
            stream_over(&all[i], &policy, order.attempt, &lost, T0 + 2 * NS_PER_S);
            ck_assert(all[i].ended);
            stream_deinit(&all[i]);
        }
    }
}
END_TEST

START_TEST(what_a_silent_node_was_asked_is_asked_elsewhere)
{
    enum { STREAMS = 50 };
    struct stream_policy policy;
    struct stream all[STREAMS];
    struct stream_order order;
    stream_policy_init(&policy, 2);
    for (uint32_t i = 0; i < STREAMS; i++) {
        stream_init(&all[i], &policy, false, false, T0 + i);
        ck_assert(stream_next(&all[i], &order));
    }
    policy.retry_purse = STREAM_PURSE;
    for (uint32_t i = 0; i < STREAMS; i++) {
        stream_tick(&all[i], &policy, T0 + i + STREAM_PATH_MS * MS);
        ck_assert(stream_next(&all[i], &order));
        ck_assert_uint_eq(order.path, 1);
        stream_deinit(&all[i]);
    }
    ck_assert_uint_eq(policy.retry_purse, 0);
}
END_TEST

/* A node that stops says so: its clients ask the next one at once, for nothing, and so do their
 * later requests. Once all have said so there is an end to it. */
START_TEST(what_nobody_took_costs_nothing)
{
    struct fixture f;
    struct stream later;
    fixture_open(&f, 3, false, false);
    f.policy.retry_purse = 0;
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert(stream_next(&f.s, &f.order));
        ck_assert_uint_eq(f.order.path, i);
        ck_assert_uint_eq(f.policy.path, i);
        refuse(&f, f.order.attempt, WEFT_E_DRAINING, 0, T0 + i * MS);
    }
    expect_none(&f);
    ck_assert_uint_eq(f.policy.retry_purse, 0);
    ck_assert_uint_eq(f.policy.failovers, 0);
    f.policy.path = 2;
    stream_init(&later, &f.policy, false, false, T0 + 10 * MS);
    ck_assert(stream_next(&later, &f.order));
    ck_assert_uint_eq(f.order.path, 2);
    stream_deinit(&later);
    expect_end(&f, WEFT_E_DRAINING, WEFT_FINISH_REFUSED, 0);
}
END_TEST

/* A worker that drains is avoided, the node that was asked is not; there is an end to it, too. */
START_TEST(whoever_drains_is_avoided)
{
    struct fixture f;
    fixture_open(&f, 2, false, false);
    f.policy.retry_purse = 0;
    const uint16_t none[2] = {WEFT_NODE_NONE, WEFT_NODE_NONE};
    for (uint32_t i = 0; i <= STREAM_TURNED_MAX; i++) {
        ck_assert(stream_next(&f.s, &f.order));
        ck_assert_uint_eq(f.order.path, 0);
        ck_assert_uint_eq(f.order.avoid_count, i < WEFT_AVOID_MAX ? i : WEFT_AVOID_MAX);
        stream_accepted(&f.s, f.order.attempt, (uint16_t)(10 + i), none);
        refuse(&f, f.order.attempt, WEFT_E_DRAINING, 0, T0 + i * MS);
    }
    expect_none(&f);
    expect_end(&f, WEFT_E_DRAINING, WEFT_FINISH_REFUSED, 0);
}
END_TEST

START_TEST(nodes_that_do_not_answer_cost_retries_too)
{
    enum { STREAMS = 10000 };
    struct stream_policy policy;
    stream_policy_init(&policy, 2);
    uint64_t attempts = 0;
    for (uint32_t i = 0; i < STREAMS; i++) {
        struct stream s;
        struct stream_order order;
        uint64_t at_ns = T0 + i * NS_PER_S; /* each begun behind what the last has lost */
        stream_init(&s, &policy, false, false, at_ns);
        stream_tick(&s, &policy, at_ns + STREAM_PATH_MS * MS);
        while (stream_next(&s, &order)) {
            attempts++;
        }
        weft_result_t lost = {.status = WEFT_E_UNREACHABLE};
        stream_over(&s, &policy, 0, &lost, at_ns + 700 * MS);
        stream_over(&s, &policy, 1, &lost, at_ns + 700 * MS);
        while (stream_next(&s, &order)) {
            attempts++;
        }
        stream_deinit(&s);
    }
    ck_assert_uint_le(attempts - STREAMS, 10 + STREAMS / 10);
}
END_TEST

START_TEST(hedges_stay_below_five_in_a_hundred)
{
    enum { STREAMS = 10000 };
    struct stream_policy policy;
    stream_policy_init(&policy, 1);
    uint32_t hedges = 0;
    uint16_t alternates[2] = {4, 5};
    for (uint32_t i = 0; i < STREAMS; i++) {
        struct stream s;
        struct stream_order order;
        stream_init(&s, &policy, true, false, T0);
        ck_assert(stream_next(&s, &order));
        stream_accepted(&s, 0, 3, alternates);
        stream_tick(&s, &policy, T0 + 100 * NS_PER_S); /* every one is slow */
        while (stream_next(&s, &order)) {
            hedges++;
        }
        ck_assert(stream_token(&s, &policy, 0, 1, T0 + 50 * MS + i % 20 * MS));
        stream_deinit(&s);
    }
    ck_assert_uint_le(hedges, STREAMS / 20);
    ck_assert_uint_ge(hedges, STREAMS / 20 - 5);
    ck_assert_uint_eq(policy.hedges, hedges);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/purse");
    TCase *t = tcase_create("purse");
    tcase_add_test(t, a_storm_of_failures_stays_small);
    tcase_add_test(t, a_death_is_paid_for_once);
    tcase_add_test(t, a_death_on_the_way_is_paid_for_once);
    tcase_add_test(t, what_a_silent_node_was_asked_is_asked_elsewhere);
    tcase_add_test(t, what_nobody_took_costs_nothing);
    tcase_add_test(t, whoever_drains_is_avoided);
    tcase_add_test(t, nodes_that_do_not_answer_cost_retries_too);
    tcase_add_test(t, hedges_stay_below_five_in_a_hundred);
    suite_add_tcase(s, t);
    return suite_main(s);
}
