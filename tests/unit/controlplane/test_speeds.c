/* SPDX-License-Identifier: Apache-2.0 */
/* test_speeds.c - maps/speeds.c: codes come back as good as they promise, stay while a figure only
 * jitters, and a stream more gets what was measured. */
#include "controlplane/maps/speeds.h"

#include <check.h>
#include <math.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define LARGEST 2200000u

START_TEST(codes_are_off_by_half_a_step)
{
    ck_assert_uint_eq(speeds_code(0, 0), 0);
    ck_assert_uint_eq(speeds_code(0, 77), 0);
    ck_assert_uint_eq(speeds_value(0), 0);
    for (uint32_t value = 1; value < LARGEST; value += 1 + value / 1000) {
        uint8_t code = speeds_code(value, 0);
        ck_assert_uint_ne(code, 0);
        ck_assert_double_le(fabs(speeds_value(code) - (double)value), 0.5 + 0.03 * value);
    }
    for (uint32_t power = 1; power < LARGEST; power *= 2) {
        ck_assert_uint_eq(speeds_value(speeds_code(power, 0)), power);
    }
    ck_assert_uint_eq(speeds_code(UINT32_MAX, 0), UINT8_MAX);
    ck_assert_uint_gt(speeds_value(UINT8_MAX), LARGEST);
}
END_TEST

/* Whatever was told before, what is told now is off by a step of 6 % at most. */
START_TEST(what_is_told_is_off_by_a_step)
{
    struct rng rng = {.state = 5};
    for (uint32_t round = 0; round < 200000; round++) {
        uint8_t told = (uint8_t)rng_below(&rng, 256);
        uint32_t value = 1 + rng_below(&rng, 1u << rng_below(&rng, 22));
        uint8_t code = speeds_code(value, told);
        ck_assert_double_le(fabs(speeds_value(code) - (double)value), 0.5 + 0.06 * value);
        ck_assert_uint_eq(speeds_code(value, code), code);
    }
}
END_TEST

/* A figure that moves by a few percent around any value is told once; one that moves away, anew. */
START_TEST(jitter_is_not_told)
{
    struct rng rng = {.state = 6};
    for (uint32_t round = 0; round < 2000; round++) {
        uint32_t value = 500 + rng_below(&rng, 1u << (7 + rng_below(&rng, 14)));
        uint8_t told = speeds_code(value, 0);
        for (uint32_t i = 0; i < 50; i++) {
            double part = 0.025 * (2 * rng_unit(&rng) - 1);
            ck_assert_uint_eq(speeds_code((uint32_t)(value * (1 + part)), told), told);
        }
        ck_assert_uint_gt(speeds_code((uint32_t)(value * 1.12), told), told);
        ck_assert_uint_lt(speeds_code((uint32_t)(value * 0.88), told), told);
    }
}
END_TEST

static uint32_t stream_of(uint8_t running, uint8_t slots, const uint32_t *decode)
{
    struct speeds speeds = {.slots = slots, .running = running};
    for (uint32_t i = 0; i < SPEEDS_BATCHES; i++) {
        speeds.decode[i] = speeds_code(decode[i], 0);
    }
    return speeds_stream(&speeds);
}

START_TEST(a_stream_more_gets_its_part)
{
    const uint32_t measured[] = {64, 128, 128, 256};
    const uint32_t some[] = {64, 0, 128, 0};
    const uint32_t one[] = {64, 0, 0, 0};
    const uint32_t slow[] = {1, 1, 1, 1};
    const uint32_t none[] = {0, 128, 128, 256};
    ck_assert_uint_eq(stream_of(0, 8, measured), 64);
    ck_assert_uint_eq(stream_of(1, 8, measured), 64);
    ck_assert_uint_eq(stream_of(3, 8, measured), 32);
    ck_assert_uint_eq(stream_of(5, 8, measured), 32); /* six: half way from 128 to 256 */
    ck_assert_uint_eq(stream_of(7, 8, measured), 32);
    ck_assert_uint_eq(stream_of(15, 16, measured), 16); /* no more together than eight */
    ck_assert_uint_eq(stream_of(200, 4, measured), 32); /* the others wait */
    ck_assert_uint_eq(stream_of(200, 0, measured), 64); /* not known how many */
    ck_assert_uint_eq(stream_of(254, 255, slow), 1);
    ck_assert_uint_eq(stream_of(255, 255, slow), 1);
    ck_assert_uint_eq(stream_of(1, 8, some), 43); /* a third of the way from 64 to 128 */
    ck_assert_uint_eq(stream_of(3, 8, one), 16);
    ck_assert_uint_eq(stream_of(3, 8, none), 0);
}
END_TEST

MAIN_OF("speeds", codes_are_off_by_half_a_step, what_is_told_is_off_by_a_step, jitter_is_not_told,
        a_stream_more_gets_its_part)
