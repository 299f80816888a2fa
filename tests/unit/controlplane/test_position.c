/* SPDX-License-Identifier: Apache-2.0 */
/* test_position.c - controlplane/maps/position.c: the speed of light on known routes, and meshes
 * with liars in which the honest must never be blamed. */
#include "controlplane/maps/position.h"

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define NODES 40u

START_TEST(light_on_known_routes)
{
    struct geo_point london = geo_point_at(51.5, -0.13), dubai = geo_point_at(25.2, 55.27);
    double ms = (double)position_floor_ns(london, dubai) / (double)NS_PER_MS;
    ck_assert_double_eq_tol(ms, 0.98 * 2 * 5476 / 204.0, 0.1); /* 5,476 km */
    ck_assert_uint_eq(position_floor_ns(london, london), 0);
}
END_TEST

START_TEST(three_distinct_observers)
{
    struct position_map map;
    position_init(&map);
    for (uint32_t i = 0; i < 10; i++) {
        position_contradict(&map, 1, 9, 1 + i);
    }
    position_contradict(&map, 2, 9, 20);
    position_contradict(&map, 9, 2, 21); /* the same two again */
    ck_assert(!position_is_suspect(&map, 9));
    uint64_t version = map.version;
    position_contradict(&map, 3, 9, 30);
    ck_assert(position_is_suspect(&map, 9));
    ck_assert_uint_eq(map.version, version + 1);
    ck_assert(!position_is_suspect(&map, 1) && !position_is_suspect(&map, 2));
    position_tick(&map, 1 + POSITION_KEEP_NS); /* that of 1 was renewed at 10 */
    ck_assert(position_is_suspect(&map, 9));
    position_tick(&map, 10 + POSITION_KEEP_NS);
    ck_assert(!position_is_suspect(&map, 9));
}
END_TEST

START_TEST(a_new_claim_begins_anew)
{
    struct position_map map;
    position_init(&map);
    for (uint32_t i = 1; i <= 5; i++) {
        position_contradict(&map, i, 9, 1);
        position_contradict(&map, i, 8, 1);
    }
    ck_assert(position_is_suspect(&map, 9));
    position_moved(&map, 9);
    ck_assert(!position_is_suspect(&map, 9));
    ck_assert(position_is_suspect(&map, 8));
}
END_TEST

/* Liars claim a place far from where they are; whoever is close to where they really are sees it.
 * Round trips are twice the way of light, so that nothing else contradicts. */
START_TEST(liars_are_found_and_nobody_else)
{
    uint32_t caught = 0, visible = 0;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct rng rng = {seed};
        struct position_map map;
        struct geo_point real[NODES], claimed[NODES];
        uint32_t liars = 1 + rng_below(&rng, 6), opponents[NODES] = {0};
        position_init(&map);
        for (uint32_t i = 0; i < NODES; i++) {
            double lat = rng_unit(&rng) * 140 - 70, lon = rng_unit(&rng) * 360;
            real[i] = geo_point_at(lat, lon);
            claimed[i] = i < liars ? geo_point_at(-lat, lon + 180) : real[i];
        }
        for (uint32_t a = 0; a < NODES; a++) {
            for (uint32_t b = 0; b < NODES; b++) {
                uint64_t rtt_ns = 2 * position_floor_ns(real[a], real[b]) + NS_PER_MS;
                if (a != b && rtt_ns < position_floor_ns(claimed[a], claimed[b])) {
                    position_contradict(&map, a, b, 1 + a);
                    opponents[a] += a < liars && b >= liars;
                }
            }
        }
        for (uint32_t i = liars; i < NODES; i++) {
            ck_assert(!position_is_suspect(&map, i));
        }
        for (uint32_t i = 0; i < liars; i++) {
            visible += opponents[i] >= POSITION_OBSERVERS;
            caught += position_is_suspect(&map, i);
            ck_assert(opponents[i] < POSITION_OBSERVERS || position_is_suspect(&map, i));
        }
    }
    ck_assert_uint_gt(visible, 300);
    ck_assert_uint_ge(caught, visible);
}
END_TEST

/* It accuses everybody, thousands of times: found out, and what others saw of a real liar stays. */
START_TEST(an_accuser_of_all_is_found_out)
{
    struct position_map map;
    position_init(&map);
    for (uint32_t i = 1; i <= 3; i++) {
        position_contradict(&map, i, 500, 1);
    }
    for (uint32_t i = 0; i < 5000; i++) {
        position_contradict(&map, 1000, 2000 + i, 2 + i);
    }
    ck_assert(position_is_suspect(&map, 1000));
    ck_assert(position_is_suspect(&map, 500));
    ck_assert_uint_eq(map.suspect_count, 2);
}
END_TEST

START_TEST(memory_is_bounded)
{
    struct rng rng = {5};
    static struct position_map map;
    position_init(&map);
    for (uint32_t i = 1; i < 4000; i++) {
        position_contradict(&map, rng_below(&rng, 300), rng_below(&rng, 300), i);
        ck_assert_uint_le(map.suspect_count, POSITION_SUSPECTS_MAX);
    }
}
END_TEST

MAIN_OF("position", light_on_known_routes, three_distinct_observers, a_new_claim_begins_anew,
        liars_are_found_and_nobody_else, an_accuser_of_all_is_found_out, memory_is_bounded)
