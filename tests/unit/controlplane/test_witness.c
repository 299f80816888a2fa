/* SPDX-License-Identifier: Apache-2.0 */
/* test_witness.c - controlplane/maps/witness.c: the wire keeps what is told, and what is told ends
 * in the maps under the sender's own name. */
#include "controlplane/maps/witness.h"

#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define NOW_NS (1000 * NS_PER_S)

static struct witness witness_draw(struct rng *rng)
{
    struct witness w = {.leg_count = rng_below(rng, WITNESS_LEGS_MAX + 1),
                        .subject_count = rng_below(rng, WITNESS_SUBJECTS_MAX + 1)};
    for (uint32_t i = 0; i < w.leg_count; i++) {
        w.legs[i] = (struct witness_leg){(uint32_t)rng_next(rng), rng_below(rng, 9000) * NS_PER_US,
                                         rng_below(rng, 9000) * NS_PER_US,
                                         rng_below(rng, 60000) * NS_PER_MS};
    }
    for (uint32_t i = 0; i < w.subject_count; i++) {
        w.subjects[i] = (uint32_t)rng_next(rng);
    }
    return w;
}

START_TEST(wire_keeps_it)
{
    struct rng rng = {1};
    for (uint32_t i = 0; i < 5000; i++) {
        struct witness in = witness_draw(&rng), out;
        uint8_t bytes[WITNESS_WIRE_MAX], again[WITNESS_WIRE_MAX];
        size_t size = witness_write(&in, bytes);
        ck_assert_uint_le(size, WITNESS_WIRE_MAX);
        ck_assert(witness_read(&out, bytes, size));
        ck_assert_mem_eq(&in, &out, sizeof(in));
        ck_assert(!witness_read(&out, bytes, size - 1));
        bytes[rng_below(&rng, (uint32_t)size)] ^= (uint8_t)(1 + rng_below(&rng, 255));
        if (witness_read(&out, bytes, size)) {
            ck_assert_uint_eq(witness_write(&out, again), size);
            ck_assert_mem_eq(bytes, again, size);
        }
    }
}
END_TEST

START_TEST(long_times_stop_at_the_largest)
{
    struct witness in = {.leg_count = 1}, out;
    in.legs[0] = (struct witness_leg){1, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    uint8_t bytes[WITNESS_WIRE_MAX];
    ck_assert(witness_read(&out, bytes, witness_write(&in, bytes)));
    ck_assert_uint_eq(out.legs[0].rtt_ns, UINT32_MAX * NS_PER_US);
    ck_assert_uint_eq(out.legs[0].age_ns, UINT16_MAX * NS_PER_MS);
}
END_TEST

/* Three witnesses contradict 9; each tells a leg. One repeats itself and speaks of itself. */
START_TEST(under_the_senders_name)
{
    struct relay_map relays;
    static struct position_map positions;
    ck_assert_int_eq(relay_init(&relays, 16, 1), 0);
    position_init(&positions);
    for (uint32_t observer = 1; observer <= 3; observer++) {
        struct witness w = {.leg_count = 2, .subject_count = 2};
        w.legs[0] =
            (struct witness_leg){9, observer * NS_PER_MS, 2 * observer * NS_PER_MS, NS_PER_S};
        w.legs[1] = (struct witness_leg){observer, NS_PER_MS, NS_PER_MS, 0};
        w.subjects[0] = 9;
        w.subjects[1] = observer;
        for (uint32_t times = 0; times < 5; times++) {
            ck_assert_int_eq(position_is_suspect(&positions, 9), observer == 3 && times > 0);
            witness_apply(&w, observer, &relays, &positions, 50 * NS_PER_MS, NOW_NS);
        }
        const struct relay_leg *leg = relay_leg(&relays, observer, 9, NOW_NS);
        ck_assert_uint_eq(leg->rtt_ns, observer * NS_PER_MS);
        ck_assert_uint_eq(leg->measured_ns, NOW_NS - NS_PER_S - 50 * NS_PER_MS);
        ck_assert_ptr_null(relay_leg(&relays, observer, observer, NOW_NS));
        ck_assert_ptr_null(relay_leg(&relays, 9, observer, NOW_NS));
    }
    ck_assert(position_is_suspect(&positions, 9));
    ck_assert_uint_eq(positions.suspect_count, 1);
    relay_deinit(&relays);
}
END_TEST

MAIN_OF("witness", wire_keeps_it, long_times_stop_at_the_largest, under_the_senders_name)
