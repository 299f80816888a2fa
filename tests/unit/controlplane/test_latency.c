/* SPDX-License-Identifier: Apache-2.0 */
/* test_latency.c - controlplane/maps/latency.c: what is measured against plain oracles, what is
 * estimated in its order, light as a judge, and liars among honest peers. */
#include "controlplane/maps/latency.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "tests/unit/controlplane/main_of.h"

#define START_NS (1000 * NS_PER_S)
#define NODES    60u

static const struct latency_claim silent = {NULL, NULL};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

START_TEST(smoothing_and_p95_like_an_oracle)
{
    struct rng rng = {1};
    struct latency_map map;
    ck_assert_int_eq(latency_init(&map, 4, NULL, 1), 0);
    double srtt = 0, rttvar = 0;
    uint64_t all[500];
    for (uint32_t i = 0; i < 500; i++) {
        uint64_t rtt_ns = (20000 + rng_below(&rng, 30000)) * NS_PER_US;
        all[i] = rtt_ns;
        double r = (double)rtt_ns;
        rttvar = i == 0 ? r / 2 : 0.75 * rttvar + 0.25 * fabs(srtt - r);
        srtt = i == 0 ? r : 0.875 * srtt + 0.125 * r;
        ck_assert_int_eq(latency_sample(&map, 9, &silent, rtt_ns, START_NS + i), LATENCY_TAKEN);
        struct latency_estimate e = latency_of(&map, 9, &silent, START_NS + i);
        ck_assert_int_eq(e.source, LATENCY_MEASURED);
        ck_assert_double_eq_tol((double)e.rtt_ns, srtt, 100.0);
        ck_assert_double_eq_tol((double)latency_rto_ns(&map, 9, &silent, START_NS + i),
                                srtt + 4 * rttvar, 1000.0);
        uint64_t window[LATENCY_SAMPLES];
        uint32_t count = i + 1 < LATENCY_SAMPLES ? i + 1 : LATENCY_SAMPLES;
        memcpy(window, all + i + 1 - count, count * sizeof(window[0]));
        qsort(window, count, sizeof(window[0]), by_value);
        uint64_t p95 = window[(count * 95 + 99) / 100 - 1];
        ck_assert_uint_eq(e.p95_ns, p95 < e.rtt_ns ? e.rtt_ns : p95);
    }
    latency_deinit(&map);
}
END_TEST

START_TEST(bounds)
{
    struct latency_map map;
    ck_assert_int_eq(latency_init(&map, 0, NULL, 1), -EINVAL);
    ck_assert_int_eq(latency_init(&map, 3, NULL, 1), 0);
    ck_assert_int_eq(latency_sample(&map, 1, &silent, 0, 1), LATENCY_OUT_OF_RANGE);
    ck_assert_int_eq(latency_sample(&map, 1, &silent, LATENCY_RTT_MAX_NS + 1, 1),
                     LATENCY_OUT_OF_RANGE);
    ck_assert_ptr_null(latency_peer(&map, 1));
    ck_assert_uint_eq(latency_rto_ns(&map, 1, &silent, 1), LATENCY_RTO_FIRST_NS);
    for (uint32_t i = 0; i < 100; i++) {
        latency_sample(&map, i, &silent, NS_PER_US, 1 + i);
        ck_assert_uint_le(map.slots.used, 3);
    }
    ck_assert_uint_eq(latency_rto_ns(&map, 99, &silent, 200), LATENCY_RTO_MIN_NS);
    ck_assert_int_eq(latency_of(&map, 1, &silent, 200).source, LATENCY_UNKNOWN);
    latency_forget(&map, 99);
    ck_assert_ptr_null(latency_peer(&map, 99));
    latency_deinit(&map);
}
END_TEST

START_TEST(faster_than_light_is_not_a_sample)
{
    struct geo_point london = geo_point_at(51.5, -0.13), dubai = geo_point_at(25.2, 55.27);
    struct latency_claim claim = {NULL, &dubai};
    struct latency_map map;
    ck_assert_int_eq(latency_init(&map, 3, &london, 1), 0);
    uint64_t floor_ns = position_floor_ns(london, dubai);
    ck_assert_int_eq(latency_sample(&map, 1, &claim, floor_ns - 1, START_NS),
                     LATENCY_FASTER_THAN_LIGHT);
    ck_assert_ptr_null(latency_peer(&map, 1));
    struct latency_estimate e = latency_of(&map, 1, &claim, START_NS);
    ck_assert_int_eq(e.source, LATENCY_DISTANCE);
    ck_assert_double_eq_tol((double)e.rtt_ns / 1e6, 2 * 5476 / 200.0 * 1.97 + 0.2, 0.3);
    ck_assert_uint_gt(e.p95_ns, e.rtt_ns);
    ck_assert_int_eq(latency_sample(&map, 1, &claim, floor_ns, START_NS), LATENCY_TAKEN);
    ck_assert_int_eq(latency_of(&map, 1, &claim, START_NS).source, LATENCY_MEASURED);
    /* A coordinate may say less than light allows; the answer never does. */
    struct vivaldi_coord near = vivaldi_origin();
    near.error = 0.1;
    map.own.at.error = 0.1;
    claim.coord = &near;
    e = latency_of(&map, 2, &claim, START_NS);
    ck_assert_int_eq(e.source, LATENCY_COORDINATE);
    ck_assert_uint_eq(e.rtt_ns, floor_ns);
    latency_deinit(&map);
}
END_TEST

START_TEST(sources_in_their_order)
{
    struct geo_point here = geo_point_at(0, 0), there = geo_point_at(0, 1);
    struct vivaldi_coord coord = vivaldi_origin();
    struct latency_claim claim = {&coord, &there};
    struct latency_map map;
    ck_assert_int_eq(latency_init(&map, 3, &here, 1), 0);
    coord.error = 0.1;
    coord.place[0] = 0.05;
    /* Own coordinate is worth nothing yet. */
    ck_assert_int_eq(latency_of(&map, 1, &claim, START_NS).source, LATENCY_DISTANCE);
    map.own.at.error = 0.1;
    ck_assert_int_eq(latency_of(&map, 1, &claim, START_NS).source, LATENCY_COORDINATE);
    coord.error = 1.2;
    ck_assert_int_eq(latency_of(&map, 1, &claim, START_NS).source, LATENCY_DISTANCE);
    coord.error = 0.1;
    latency_sample(&map, 1, &claim, 50 * NS_PER_MS, START_NS);
    ck_assert_int_eq(latency_of(&map, 1, &claim, START_NS + 1).source, LATENCY_MEASURED);
    /* Long ago: the coordinate, if it has one; the old measurement rather than the map of the
     * world. */
    uint64_t later_ns = START_NS + LATENCY_FRESH_NS;
    ck_assert_int_eq(latency_of(&map, 1, &claim, later_ns).source, LATENCY_COORDINATE);
    claim.coord = NULL;
    struct latency_estimate e = latency_of(&map, 1, &claim, later_ns);
    ck_assert_int_eq(e.source, LATENCY_MEASURED);
    ck_assert_uint_eq(e.age_ns, LATENCY_FRESH_NS);
    latency_deinit(&map);
}
END_TEST

/* A mesh in a plane; the first `liars` publish places drawn anew each time, sure of themselves.
 * Returns the mean relative error of the honest about each other; *distrust counts verdicts. */
static double mesh_with_liars(uint64_t seed, uint32_t liars, uint32_t distrust[2])
{
    struct rng rng = {seed};
    static struct latency_map maps[NODES];
    double at[NODES][2];
    for (uint32_t i = 0; i < NODES; i++) {
        at[i][0] = rng_unit(&rng) * 0.2;
        at[i][1] = rng_unit(&rng) * 0.1;
        ck_assert_int_eq(latency_init(&maps[i], NODES, NULL, seed + i), 0);
    }
    for (uint32_t round = 0; round < 1500; round++) {
        for (uint32_t i = liars; i < NODES; i++) {
            uint32_t j = (i + 1 + rng_below(&rng, NODES - 1)) % NODES;
            struct vivaldi_coord said = maps[j].own.at;
            if (j < liars) {
                said = vivaldi_origin();
                said.error = 0.01;
                for (int d = 0; d < VIVALDI_DIMENSIONS; d++) {
                    said.place[d] = rng_unit(&rng) * 2.0 - 1.0;
                }
            }
            struct latency_claim claim = {&said, NULL};
            double rtt = 0.004 + hypot(at[i][0] - at[j][0], at[i][1] - at[j][1]);
            latency_sample(&maps[i], j, &claim, (uint64_t)(rtt * 1e9), START_NS + round);
        }
    }
    double sum = 0;
    uint32_t count = 0;
    for (uint32_t i = liars; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            distrust[j < liars] += latency_is_distrusted(&maps[i], j);
            if (j >= liars && i != j) {
                double rtt = 0.004 + hypot(at[i][0] - at[j][0], at[i][1] - at[j][1]);
                sum += fabs(vivaldi_rtt(&maps[i].own.at, &maps[j].own.at) - rtt) / rtt;
                count++;
            }
        }
    }
    for (uint32_t i = 0; i < NODES; i++) {
        latency_deinit(&maps[i]);
    }
    return sum / count;
}

START_TEST(liars_are_distrusted)
{
    uint32_t none[2] = {0}, some[2] = {0};
    double honest = mesh_with_liars(11, 0, none);
    double mixed = mesh_with_liars(11, 6, some);
    ck_assert_uint_eq(none[0], 0);
    ck_assert_uint_lt(some[0], 54 * 53 / 100); /* of the honest pairs */
    ck_assert_uint_gt(some[1], 54 * 6 * 8 / 10);
    ck_assert_double_lt(honest, 0.1);
    ck_assert_double_lt(mixed, honest + 0.1);
}
END_TEST

MAIN_OF("latency", smoothing_and_p95_like_an_oracle, bounds, faster_than_light_is_not_a_sample,
        sources_in_their_order, liars_are_distrusted)
