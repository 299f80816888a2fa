/* SPDX-License-Identifier: Apache-2.0 */
/* test_swim.c - the protocol among a few nodes. test_insiders.c has those who do not keep
 * to it. */
#include <check.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/items.h"
#include "controlplane/swim/seal.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"
#include "tests/unit/swim/nodes.h"

/* ---- life ---- */

START_TEST(join_by_one_seed)
{
    start_all(8);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_ALIVE), 7);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_SUSPECT), 0);
    }
    const struct swim_member *other = swim_at(shuttle.nodes[3], 1);
    ck_assert_uint_ne(other->srtt_ns, 0);
    shuttle_end(&shuttle);
}
END_TEST

/* While votes go round, what is being written and what is begun meanwhile must not share a place.
 */
static void expect_clean(void)
{
    for (uint32_t i = 0; i < SHUTTLE_NODES; i++) {
        if (shuttle.nodes[i] != NULL) {
            const struct swim_counters *counters = swim_counters(shuttle.nodes[i]);
            ck_assert_uint_eq(counters->malformed, 0);
            ck_assert_uint_eq(counters->unsealed, 0);
            ck_assert_uint_eq(counters->replayed, 0);
        }
    }
}

/* Nobody hears some datagram wrongly or twice because of the death of one after the other. */
START_TEST(votes_garble_nothing)
{
    for (uint32_t victim = 1; victim < 6; victim++) {
        start_all(8);
        swim_destroy(shuttle.nodes[victim]);
        shuttle.nodes[victim] = NULL;
        shuttle_run(&shuttle, 10 * NS_PER_S);
        for (uint32_t i = 0; i < 8; i++) {
            if (i != victim) {
                ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
            }
        }
        expect_clean();
        shuttle_end(&shuttle);
    }
}
END_TEST

START_TEST(the_dead_are_found_and_come_back_anew)
{
    struct swim_seed seed;
    start_all(5);
    uint64_t before = swim_self(shuttle.nodes[4])->record.incarnation;
    stop(4);
    shuttle_run(&shuttle, 6 * NS_PER_S);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(shuttle_view(&shuttle, i, 4), SWIM_DEAD);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
    }
    /* Started with the same incarnation: it learns that this one is over. */
    struct swim_options options = shuttle_options(4, &seed);
    options.entropy[0]++;
    shuttle_start(&shuttle, 4, &options);
    shuttle_run(&shuttle, 10 * NS_PER_S);
    ck_assert_uint_gt(swim_self(shuttle.nodes[4])->record.incarnation, before);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 5);
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(a_clock_set_back_is_no_obstacle)
{
    struct swim_seed seed;
    start_all(3);
    stop(2);
    struct swim_options options = shuttle_options(2, &seed);
    options.self.incarnation = 5; /* long ago */
    options.entropy[0]++;
    shuttle_start(&shuttle, 2, &options);
    shuttle_run(&shuttle, 15 * NS_PER_S);
    ck_assert_uint_gt(swim_self(shuttle.nodes[2])->record.incarnation, 1000);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 3);
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(leaving_is_not_dying)
{
    start_all(5);
    swim_leave(shuttle.nodes[2], shuttle.now_ns, &out);
    shuttle_carry(&shuttle, 2, &out);
    shuttle_run(&shuttle, NS_PER_S);
    stop(2);
    shuttle_run(&shuttle, 20 * NS_PER_S);
    for (uint32_t i = 0; i < 5; i++) {
        if (i != 2) {
            ck_assert_int_eq(shuttle_view(&shuttle, i, 2), SWIM_LEFT);
            ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_LEFT), 1);
            ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_SUSPECT), 0);
        }
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(facts_and_states_spread)
{
    start_all(4);
    struct swim_record facts = swim_self(shuttle.nodes[1])->record;
    facts.tier = 5;
    ck_assert_int_eq(swim_set_self(shuttle.nodes[1], &facts), 0);
    facts.tier = WEFT_TIER_MAX + 1;
    ck_assert_int_eq(swim_set_self(shuttle.nodes[1], &facts), -EINVAL);
    ck_assert_int_eq(swim_set_state(shuttle.nodes[1], "models", 6), 0);
    shuttle_run(&shuttle, 3 * NS_PER_S);
    for (uint32_t i = 0; i < 4; i++) {
        const struct swim_member *member =
            swim_find(shuttle.nodes[i], swim_self(shuttle.nodes[1])->uid);
        ck_assert_uint_eq(member->record.tier, 5);
        ck_assert_uint_eq(member->state_size, 6);
        ck_assert_mem_eq(swim_state_of(shuttle.nodes[i], member), "models", 6);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_STATE), i == 1 ? 0 : 1);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* One direction between two of eight is cut: the helpers know better, nobody dies. */
START_TEST(helpers_know_better)
{
    start_all(8);
    shuttle.cut[0][1] = true;
    shuttle_run(&shuttle, 120 * NS_PER_S);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 0);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* Node 0 hears nothing for five seconds and votes against one after the other; nobody agrees, and
 * in that time its own vote is not enough for a verdict either. */
START_TEST(one_observer_alone_is_no_verdict)
{
    start_all(8);
    for (uint32_t i = 1; i < 8; i++) {
        shuttle.cut[i][0] = true;
    }
    shuttle_run(&shuttle, 5 * NS_PER_S);
    ck_assert_uint_ge(swim_counters(shuttle.nodes[0])->votes_cast, 2);
    ck_assert_uint_ge(shuttle_events(&shuttle, 0, SWIM_EVENT_SUSPECT), 2);
    ck_assert_uint_eq(shuttle_events(&shuttle, 0, SWIM_EVENT_DEAD), 0);
    for (uint32_t i = 1; i < 8; i++) {
        /* Of node 0 itself all know that it hears nothing. */
        ck_assert_int_eq(shuttle_view(&shuttle, i, 0), SWIM_DEAD);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
    }
    memset(shuttle.cut, 0, sizeof(shuttle.cut));
    shuttle_run(&shuttle, 20 * NS_PER_S);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 8);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* Nobody hears node `lost` for four seconds. By then all know, and it has votes of its own that
 * nobody else has heard. Back again it asks whom it suspects, and holds nobody dead. */
START_TEST(who_is_back_asks_first)
{
    uint32_t lost = (uint32_t)_i;
    start_all(8);
    for (uint32_t i = 0; i < 8; i++) {
        shuttle.cut[lost][i] = true;
        shuttle.cut[i][lost] = true;
    }
    shuttle_run(&shuttle, 4 * NS_PER_S);
    ck_assert_uint_ge(shuttle_events(&shuttle, lost, SWIM_EVENT_SUSPECT), 1);
    ck_assert_uint_eq(shuttle_events(&shuttle, lost, SWIM_EVENT_DEAD), 0);
    memset(shuttle.cut, 0, sizeof(shuttle.cut));
    shuttle_run(&shuttle, 20 * NS_PER_S);
    ck_assert_uint_eq(shuttle_events(&shuttle, lost, SWIM_EVENT_DEAD), 0);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_le(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 8);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* A node that was stopped for half a minute finds old news and no answers: it blames itself. */
START_TEST(a_pause_is_nobodys_death)
{
    start_all(6);
    struct swim *paused = shuttle.nodes[3];
    shuttle.nodes[3] = NULL;
    shuttle_run(&shuttle, 30 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 3), SWIM_DEAD);
    shuttle.nodes[3] = paused;
    shuttle_run(&shuttle, 15 * NS_PER_S);
    ck_assert_uint_eq(shuttle_events(&shuttle, 3, SWIM_EVENT_DEAD), 0);
    ck_assert_uint_eq(swim_counters(paused)->pauses, 1);
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 6);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* By the seed, or, if that is gone for good, by remembering each other. */
START_TEST(halves_find_each_other)
{
    bool seedless = _i == 1;
    uint32_t half = seedless ? 2 : 3;
    start_all(6);
    if (seedless) {
        stop(0);
        shuttle_run(&shuttle, 10 * NS_PER_S);
    }
    for (uint32_t i = 0; i < 6; i++) {
        for (uint32_t j = 0; j < 6; j++) {
            shuttle.cut[i][j] = (i < 3) != (j < 3);
        }
    }
    shuttle_run(&shuttle, 300 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[1]), half);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[5]), 3);
    memset(shuttle.cut, 0, sizeof(shuttle.cut));
    shuttle_run(&shuttle, 30 * NS_PER_S);
    for (uint32_t i = seedless ? 1 : 0; i < 6; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), half + 3);
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(keys_rotate_under_way)
{
    uint8_t old[32], fresh[32];
    struct swim_seed seed;
    start_all(5);
    memset(old, 0x77, sizeof(old));
    memset(fresh, 0x78, sizeof(fresh));
    for (uint32_t step = 0; step < 3; step++) {
        for (uint32_t i = 0; i < 5; i++) {
            int rc = step == 0   ? swim_key_install(shuttle.nodes[i], fresh)
                     : step == 1 ? swim_key_use(shuttle.nodes[i], fresh)
                                 : swim_key_remove(shuttle.nodes[i], old);
            ck_assert_int_eq(rc, 0);
            shuttle_run(&shuttle, 2 * NS_PER_S); /* some have, some have not */
        }
    }
    shuttle_run(&shuttle, 10 * NS_PER_S);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_SUSPECT), 0);
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 5);
    }
    struct swim_options options = shuttle_options(6, &seed);
    shuttle_start(&shuttle, 6, &options); /* with the old key */
    shuttle_run(&shuttle, 5 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[6]), 1);
    shuttle_end(&shuttle);
}
END_TEST

/* 1..1, 1..2 and 2..2: neighbours understand each other, the far ends do not. */
START_TEST(adjacent_versions_work_together)
{
    struct swim_seed seed;
    static const uint8_t speaks[][2] = {{1, 2}, {1, 1}, {2, 2}};
    for (uint32_t i = 0; i < 3; i++) {
        struct swim_options options = shuttle_options(i, &seed);
        options.speaks_min = speaks[i][0];
        options.speaks_max = speaks[i][1];
        shuttle_start(&shuttle, i, &options);
    }
    shuttle_run(&shuttle, 3 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&shuttle, 1, 0), SWIM_ALIVE);
    ck_assert_int_eq(shuttle_view(&shuttle, 2, 0), SWIM_ALIVE);
    ck_assert_uint_ge(swim_find(shuttle.nodes[1], swim_self(shuttle.nodes[0])->uid)->acked_ns, 1);
    ck_assert_uint_ge(swim_find(shuttle.nodes[2], swim_self(shuttle.nodes[0])->uid)->acked_ns, 1);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(memory_is_what_was_said)
{
    struct swim_seed seed;
    for (uint32_t i = 0; i < 5; i++) {
        struct swim_options options = shuttle_options(i, &seed);
        options.members_max = 3;
        ck_assert_uint_gt(swim_memory_bytes(&options), 3 * sizeof(struct swim_member));
        shuttle_start(&shuttle, i, &options);
    }
    shuttle_run(&shuttle, 20 * NS_PER_S);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_le(swim_slots(shuttle.nodes[i]), 3);
    }
    ck_assert_uint_gt(swim_counters(shuttle.nodes[0])->records_refused, 0);
    shuttle_end(&shuttle);
}
END_TEST

/* Everybody's state is large and new all the time; deaths are found as fast as ever. */
START_TEST(state_does_not_crowd_out_liveness)
{
    uint8_t state[SWIM_STATE_MAX];
    start_all(8);
    stop(7);
    for (uint32_t round = 0; round < 40; round++) {
        for (uint32_t i = 0; i < 7; i++) {
            memset(state, (int)(round + i), sizeof(state));
            ck_assert_int_eq(swim_set_state(shuttle.nodes[i], state, sizeof(state)), 0);
        }
        shuttle_run(&shuttle, 100 * NS_PER_MS);
    }
    for (uint32_t i = 0; i < 7; i++) {
        ck_assert_int_eq(shuttle_view(&shuttle, i, 7), SWIM_DEAD);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
    }
    ck_assert_uint_le(shuttle.longest, SWIM_DATAGRAM_MAX);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(noise_does_nothing)
{
    uint8_t data[SWIM_DATAGRAM_MAX + 60];
    start_all(3);
    uint64_t sum = swim_sum(shuttle.nodes[0]);
    for (uint32_t i = 0; i < 20000; i++) {
        size_t size = randombytes_uniform(sizeof(data));
        uint8_t seed[randombytes_SEEDBYTES] = {(uint8_t)i, (uint8_t)(i >> 8)};
        randombytes_buf_deterministic(data, size, seed);
        if (i % 2 == 0 && shuttle.last[1][0].len > 0) {
            size = shuttle.last[1][0].len;
            memcpy(data, shuttle.last[1][0].data, size);
            data[i / 2 % size] ^= (uint8_t)(1 + i % 255);
        }
        give(0, data, size);
        ck_assert_uint_eq(out.datagram_count, 0);
        ck_assert_uint_eq(out.event_count, 0);
    }
    ck_assert_uint_eq(swim_sum(shuttle.nodes[0]), sum);
    shuttle_end(&shuttle);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim");
    TCase *cases = tcase_create("swim");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, join_by_one_seed);
    tcase_add_test(cases, votes_garble_nothing);
    tcase_add_test(cases, the_dead_are_found_and_come_back_anew);
    tcase_add_test(cases, a_clock_set_back_is_no_obstacle);
    tcase_add_test(cases, leaving_is_not_dying);
    tcase_add_test(cases, facts_and_states_spread);
    tcase_add_test(cases, helpers_know_better);
    tcase_add_test(cases, one_observer_alone_is_no_verdict);
    tcase_add_loop_test(cases, who_is_back_asks_first, 0, 8);
    tcase_add_test(cases, a_pause_is_nobodys_death);
    tcase_add_loop_test(cases, halves_find_each_other, 0, 2);
    tcase_add_test(cases, keys_rotate_under_way);
    tcase_add_test(cases, adjacent_versions_work_together);
    tcase_add_test(cases, memory_is_what_was_said);
    tcase_add_test(cases, state_does_not_crowd_out_liveness);
    tcase_add_test(cases, noise_does_nothing);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
