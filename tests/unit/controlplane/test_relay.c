/* SPDX-License-Identifier: Apache-2.0 */
/* test_relay.c - controlplane/maps/relay.c: a relay only where it pays, against brute force; no
 * flapping; nothing old or absurd is learnt. */
#include "controlplane/maps/relay.h"

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define WAYS 12u

static struct relay_leg leg(uint64_t rtt_ms, uint64_t p95_ms)
{
    return (struct relay_leg){rtt_ms * NS_PER_MS, p95_ms * NS_PER_MS, 0};
}

static uint64_t gain_needed(uint64_t direct_ns)
{
    return direct_ns / 10 > 5 * NS_PER_MS ? direct_ns / 10 : 5 * NS_PER_MS;
}

START_TEST(pays_or_is_not_taken)
{
    struct rng rng = {1};
    uint32_t taken = 0;
    for (uint32_t i = 0; i < 50000; i++) {
        struct relay_leg direct = leg(1 + rng_below(&rng, 400), 0);
        direct.p95_ns = direct.rtt_ns + rng_below(&rng, 100) * NS_PER_MS;
        struct relay_way ways[WAYS];
        uint32_t count = rng_below(&rng, WAYS + 1), best = RELAY_NONE;
        uint64_t best_ns = UINT64_MAX;
        for (uint32_t w = 0; w < count; w++) {
            uint64_t one = 1 + rng_below(&rng, 200), two = 1 + rng_below(&rng, 200);
            ways[w] = (struct relay_way){100 + w, leg(one, one + rng_below(&rng, 50)),
                                         leg(two, two + rng_below(&rng, 50))};
            uint64_t rtt = ways[w].first.rtt_ns + ways[w].second.rtt_ns + RELAY_HOP_NS;
            uint64_t p95 = ways[w].first.p95_ns + ways[w].second.p95_ns + RELAY_HOP_NS;
            if (rtt + gain_needed(direct.rtt_ns) <= direct.rtt_ns &&
                p95 + gain_needed(direct.p95_ns) <= direct.p95_ns && rtt < best_ns) {
                best = 100 + w;
                best_ns = rtt;
            }
        }
        ck_assert_uint_eq(relay_choose(&direct, ways, count, RELAY_NONE), best);
        taken += best != RELAY_NONE;
    }
    ck_assert_uint_gt(taken, 1000);
}
END_TEST

START_TEST(no_flapping)
{
    struct relay_leg direct = leg(200, 220);
    struct relay_way ways[2] = {{1, leg(50, 55), leg(50, 55)}, {2, leg(50, 55), leg(49, 54)}};
    ck_assert_uint_eq(relay_choose(&direct, ways, 2, RELAY_NONE), 2);
    ck_assert_uint_eq(relay_choose(&direct, ways, 2, 1), 1); /* one better, but not clearly */
    ways[1].second = leg(40, 44);
    ck_assert_uint_eq(relay_choose(&direct, ways, 2, 1), 2);
    /* The one in use still saves something, a new one would not do. */
    ways[0].first = leg(135, 140);
    ck_assert_uint_eq(relay_choose(&direct, ways, 1, 1), 1);
    ck_assert_uint_eq(relay_choose(&direct, ways, 1, RELAY_NONE), RELAY_NONE);
    ways[0].first = leg(145, 150);
    ck_assert_uint_eq(relay_choose(&direct, ways, 1, 1), RELAY_NONE);
}
END_TEST

/* Small noise on every leg: at most one change in a long time. */
START_TEST(noise_moves_nothing)
{
    struct rng rng = {3};
    uint32_t current = RELAY_NONE, changes = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        struct relay_leg direct = leg(200, 230);
        struct relay_way ways[4];
        for (uint32_t w = 0; w < 4; w++) {
            ways[w] = (struct relay_way){w, leg(60 + rng_below(&rng, 3), 70), leg(60, 70)};
        }
        uint32_t next = relay_choose(&direct, ways, 4, current);
        changes += next != current;
        current = next;
    }
    ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(no_direct_way)
{
    struct relay_way ways[2] = {{1, leg(500, 900), leg(500, 900)},
                                {2, leg(300, 900), leg(300, 900)}};
    ck_assert_uint_eq(relay_choose(NULL, ways, 2, RELAY_NONE), 2);
    ck_assert_uint_eq(relay_choose(NULL, ways, 0, 1), RELAY_NONE);
}
END_TEST

START_TEST(what_is_learnt)
{
    struct relay_map map;
    uint64_t now_ns = 1000 * NS_PER_S, ms = NS_PER_MS;
    ck_assert_int_eq(relay_init(&map, 4, 1), 0);
    ck_assert(relay_learn(&map, 1, 2, 30 * ms, 40 * ms, NS_PER_S, now_ns));
    ck_assert_ptr_null(relay_leg(&map, 2, 1, now_ns)); /* one direction */
    ck_assert_uint_eq(relay_leg(&map, 1, 2, now_ns)->rtt_ns, 30 * ms);
    ck_assert(!relay_learn(&map, 1, 2, 99 * ms, 99 * ms, 2 * NS_PER_S, now_ns)); /* older */
    ck_assert_uint_eq(relay_leg(&map, 1, 2, now_ns)->rtt_ns, 30 * ms);
    ck_assert(!relay_learn(&map, 1, 1, ms, ms, 0, now_ns));
    ck_assert(!relay_learn(&map, 1, 3, 0, ms, 0, now_ns));
    ck_assert(!relay_learn(&map, 1, 3, 100 * ms, ms, 0, now_ns));
    ck_assert(!relay_learn(&map, 1, 3, ms, RELAY_RTT_MAX_NS + 1, 0, now_ns));
    ck_assert(!relay_learn(&map, 1, 3, ms, ms, RELAY_FRESH_NS + 1, now_ns));
    ck_assert_ptr_null(relay_leg(&map, 1, 3, now_ns));
    ck_assert_ptr_null(relay_leg(&map, 1, 2, now_ns + RELAY_FRESH_NS));
    for (uint32_t i = 10; i < 200; i++) {
        relay_learn(&map, i, 2, ms, ms, 0, now_ns);
        ck_assert_uint_le(map.slots.used, 4);
    }
    relay_deinit(&map);
}
END_TEST

MAIN_OF("relay", pays_or_is_not_taken, no_flapping, noise_moves_nothing, no_direct_way,
        what_is_learnt)
