/* SPDX-License-Identifier: Apache-2.0 */
/* test_vivaldi.c - controlplane/maps/vivaldi.c: places that can be embedded are found, the wire
 * keeps them, and nothing that a peer says brings a node out of bounds. */
#include "controlplane/maps/vivaldi.h"

#include <math.h>
#include <string.h>

#include "tests/unit/controlplane/main_of.h"

#define NODES 48u

/* Round trips of points in a plane with heights, in seconds: what Vivaldi can represent. */
static void plane(double rtt[NODES][NODES], struct rng *rng)
{
    double at[NODES][3];
    for (uint32_t i = 0; i < NODES; i++) {
        at[i][0] = rng_unit(rng) * 0.2;
        at[i][1] = rng_unit(rng) * 0.1;
        at[i][2] = 0.001 + rng_unit(rng) * 0.01;
    }
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            rtt[i][j] = hypot(at[i][0] - at[j][0], at[i][1] - at[j][1]) + at[i][2] + at[j][2];
        }
    }
}

static void settle(struct vivaldi *nodes, double rtt[NODES][NODES], struct rng *rng,
                   uint32_t rounds)
{
    for (uint32_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < NODES; i++) {
            uint32_t j = (i + 1 + rng_below(rng, NODES - 1)) % NODES;
            struct vivaldi_coord peer = nodes[j].at;
            ck_assert(vivaldi_update(&nodes[i], &peer, rtt[i][j]));
        }
    }
}

static double mean_error(const struct vivaldi *nodes, double rtt[NODES][NODES])
{
    double sum = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            sum +=
                i == j ? 0 : fabs(vivaldi_rtt(&nodes[i].at, &nodes[j].at) - rtt[i][j]) / rtt[i][j];
        }
    }
    return sum / (NODES * (NODES - 1));
}

START_TEST(a_plane_is_found)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct rng rng = {seed};
        static double rtt[NODES][NODES];
        struct vivaldi nodes[NODES];
        plane(rtt, &rng);
        for (uint32_t i = 0; i < NODES; i++) {
            vivaldi_init(&nodes[i], seed * 1000 + i);
        }
        settle(nodes, rtt, &rng, 400);
        ck_assert_double_lt(mean_error(nodes, rtt), 0.06);
        for (uint32_t i = 0; i < NODES; i++) {
            ck_assert_double_lt(nodes[i].at.error, 0.2);
        }
    }
}
END_TEST

START_TEST(nothing_said_brings_it_out_of_bounds)
{
    struct rng rng = {7};
    struct vivaldi v;
    vivaldi_init(&v, 7);
    for (uint32_t i = 0; i < 20000; i++) {
        struct vivaldi_coord peer;
        uint64_t bits[sizeof(peer) / sizeof(uint64_t)];
        for (size_t k = 0; k < sizeof(bits) / sizeof(bits[0]); k++) {
            /* Any bits, or numbers at the bounds. */
            double value = (rng_unit(&rng) - 0.5) * 2.0 * VIVALDI_LIMIT_S;
            bits[k] = rng_next(&rng);
            if (i % 4 != 0) {
                memcpy(&bits[k], &value, sizeof(value));
            }
        }
        memcpy(&peer, bits, sizeof(peer));
        if (i % 4 > 1) {
            peer.height = fabs(peer.height) + VIVALDI_HEIGHT_MIN_S;
            peer.error = rng_unit(&rng) * VIVALDI_ERROR_MAX;
        }
        struct vivaldi_coord before = v.at;
        bool taken = vivaldi_update(&v, &peer, rng_unit(&rng) * 11.0);
        ck_assert(taken || memcmp(&before, &v.at, sizeof(before)) == 0);
        ck_assert(vivaldi_valid(&v.at));
        double moved = 0;
        for (int d = 0; d < VIVALDI_DIMENSIONS; d++) {
            moved += (v.at.place[d] - before.place[d]) * (v.at.place[d] - before.place[d]);
        }
        ck_assert_double_le(sqrt(moved), VIVALDI_STEP_MAX_S * 1.1);
    }
}
END_TEST

START_TEST(refused)
{
    struct vivaldi v;
    vivaldi_init(&v, 1);
    struct vivaldi_coord good = vivaldi_origin();
    ck_assert(!vivaldi_update(&v, &good, 0.0));
    ck_assert(!vivaldi_update(&v, &good, -0.1));
    ck_assert(!vivaldi_update(&v, &good, NAN));
    ck_assert(!vivaldi_update(&v, &good, VIVALDI_LIMIT_S * 1.01));
    struct vivaldi_coord bad = good;
    bad.place[3] = NAN;
    ck_assert(!vivaldi_update(&v, &bad, 0.1));
    bad = good;
    bad.height = 0.0;
    ck_assert(!vivaldi_valid(&bad));
    bad = good;
    bad.error = 1.6;
    ck_assert(!vivaldi_valid(&bad));
    ck_assert(vivaldi_update(&v, &good, 0.1));
}
END_TEST

START_TEST(wire_keeps_it)
{
    struct rng rng = {3};
    for (uint32_t i = 0; i < 2000; i++) {
        struct vivaldi_coord in = vivaldi_origin(), out;
        for (int d = 0; d < VIVALDI_DIMENSIONS; d++) {
            in.place[d] = (rng_unit(&rng) - 0.5) * 2.0 * VIVALDI_LIMIT_S;
        }
        in.height += rng_unit(&rng) * (VIVALDI_LIMIT_S - 1e-4);
        in.adjustment = rng_unit(&rng) - 0.5;
        in.error = rng_unit(&rng) * VIVALDI_ERROR_MAX;
        uint8_t bytes[VIVALDI_WIRE_BYTES];
        vivaldi_write(&in, bytes);
        ck_assert(vivaldi_read(&out, bytes, sizeof(bytes)));
        for (int d = 0; d < VIVALDI_DIMENSIONS; d++) {
            ck_assert_double_eq_tol(in.place[d], out.place[d], 0.6e-6);
        }
        ck_assert_double_eq_tol(in.height, out.height, 0.6e-6);
        ck_assert_double_eq_tol(in.adjustment, out.adjustment, 0.6e-6);
        ck_assert_double_eq_tol(in.error, out.error, 0.6e-3);
        ck_assert(!vivaldi_read(&out, bytes, sizeof(bytes) - 1));
        bytes[VIVALDI_WIRE_BYTES - 1] = 1;
        ck_assert(!vivaldi_read(&out, bytes, sizeof(bytes)));
    }
}
END_TEST

MAIN_OF("vivaldi", a_plane_is_found, nothing_said_brings_it_out_of_bounds, refused, wire_keeps_it)
