/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of tests/emu: correct kernels compute what a device would, wrong ones are found out. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emu/emu.h"
#include "tests/emu/runtime.h"
#include "tests/unit/kernels/emu/faulty.h"
#include "tests/unit/suite.h"

#define WORDS (FAULTY_BLOCKS * FAULTY_THREADS + 1)

static uint32_t *device_words(void)
{
    uint32_t *out = emu_alloc(WORDS * sizeof(*out));
    ck_assert_ptr_nonnull(out);
    return out;
}

/* What correct_kernel() must give, by hand. */
static uint32_t expected(unsigned block, unsigned i)
{
    const unsigned lane = i % 32;
    const unsigned from = i / 32 * 32 + ((lane ^ 5) + 1) % 32;
    uint32_t votes = 0;
    for (unsigned l = 0; l < 32; l += 3)
        votes |= UINT32_C(1) << l;
    return (FAULTY_THREADS - 1 - from) * 3 + block + votes + 10;
}

START_TEST(correct_kernel_is_right_in_every_order)
{
    uint32_t *out = device_words();
    for (uint64_t seed = 0; seed < 20; seed++) {
        emu_set_order(seed);
        memset(out, 0, WORDS * sizeof(*out));
        ck_assert_int_eq(faulty_run(FAULTY_NOTHING, out), 0);
        ck_assert_ptr_null(emu_fault());
        for (unsigned b = 0; b < FAULTY_BLOCKS; b++)
            for (unsigned i = 0; i < FAULTY_THREADS; i++)
                ck_assert_uint_eq(out[b * FAULTY_THREADS + i], expected(b, i));
        ck_assert_uint_eq(out[WORDS - 1], FAULTY_BLOCKS * FAULTY_THREADS);
    }
    emu_set_order(0);
    emu_free(out);
}
END_TEST

static void expect_fault(enum faulty which, const char *text)
{
    uint32_t *out = device_words();
    for (uint64_t seed = 0; seed < 4; seed++) {
        emu_set_order(seed);
        memset(out, 0, WORDS * sizeof(*out));
        ck_assert_int_ne(faulty_run(which, out), 0);
        const char *fault = emu_fault();
        ck_assert_ptr_nonnull(fault);
        ck_assert_msg(strstr(fault, text) != NULL, "'%s' does not speak of '%s'", fault, text);
    }
    /* The emulator is as good as new afterwards. */
    emu_set_order(0);
    memset(out, 0, WORDS * sizeof(*out));
    ck_assert_int_eq(faulty_run(FAULTY_NOTHING, out), 0);
    ck_assert_uint_eq(out[5], expected(0, 5));
    emu_free(out);
}

START_TEST(threads_that_do_not_meet_are_found)
{
    expect_fault(FAULTY_BARRIER_SKIP, "do not meet");
    expect_fault(FAULTY_BARRIER_OTHER, "while others wait at");
    expect_fault(FAULTY_SHUFFLE_LANES, "do not meet");
}
END_TEST

START_TEST(impossible_sizes_are_found)
{
    expect_fault(FAULTY_SHARED_TOO_BIG, "more than a block has");
    expect_fault(FAULTY_BLOCK_TOO_BIG, "cannot be launched");
}
END_TEST

START_TEST(races_are_found)
{
    if (!emu_race_is_watched)
        return; /* built with a sanitizer: then bounds are watched instead */
    expect_fault(FAULTY_SHARED_RACE, "race");
    expect_fault(FAULTY_WARP_RACE, "race");
    expect_fault(FAULTY_DEVICE_RACE, "race");
}
END_TEST

#if defined(__SANITIZE_ADDRESS__)
START_TEST(shared_memory_has_bounds)
{
    uint32_t *out = device_words();
    (void)faulty_run(FAULTY_SHARED_BEYOND, out);
}
END_TEST
#endif

START_TEST(memory_begins_as_no_numbers)
{
    float *memory = emu_alloc(16 * sizeof(*memory));
    ck_assert_ptr_nonnull(memory);
    ck_assert_uint_eq((uintptr_t)memory % 256, 0);
    for (int i = 0; i < 16; i++)
        ck_assert(isnan(memory[i]));
    const size_t allocated = emu_allocated_bytes();
    emu_free(memory);
    ck_assert_uint_eq(emu_allocated_bytes(), allocated - 16 * sizeof(*memory));
}
END_TEST

START_TEST(halves_round_to_nearest_even)
{
    static const struct {
        float from;
        float to;
    } golden[] = {
        {0.0f, 0.0f},
        {1.0f, 1.0f},
        {-2.5f, -2.5f},
        {1.0f + 0x1p-11f, 1.0f}, /* half way: to even */
        {1.0f + 0x1.8p-10f, 1.0f + 0x1p-9f},
        {1.0f + 0x1.002p-11f, 1.0f + 0x1p-10f},
        {65504.0f, 65504.0f},
        {65519.0f, 65504.0f},
        {65520.0f, INFINITY},
        {0x1p-24f, 0x1p-24f},
        {0x1p-25f, 0.0f},
        {0x1.8p-25f, 0x1p-24f},
        {-0x1.8p-24f, -0x1p-23f},
        {0x1p-14f - 0x1p-26f, 0x1p-14f},
        {-INFINITY, -INFINITY},
    };
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        ck_assert_float_eq(faulty_half(golden[i].from), golden[i].to);
    ck_assert(isnan(faulty_half(NAN)));
    for (uint32_t bits = 0; bits < 0x7c00; bits += 3) { /* every half survives */
        const float value = bits < 0x400
                                ? (float)bits * 0x1p-24f
                                : ldexpf((float)((bits & 0x3ff) | 0x400), (int)(bits >> 10) - 25);
        ck_assert_float_eq(faulty_half(value), value);
    }
}
END_TEST

START_TEST(graphs_run_what_was_captured_with_the_memory_of_now)
{
    ck_assert_uint_eq(faulty_graph(0), 0);
    ck_assert_uint_eq(faulty_graph(6), 42);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("emu");
    TCase *tcase = tcase_create("emu");
    tcase_add_test(tcase, correct_kernel_is_right_in_every_order);
    tcase_add_test(tcase, threads_that_do_not_meet_are_found);
    tcase_add_test(tcase, impossible_sizes_are_found);
    tcase_add_test(tcase, races_are_found);
#if defined(__SANITIZE_ADDRESS__)
    tcase_add_exit_test(tcase, shared_memory_has_bounds, 1);
#endif
    tcase_add_test(tcase, memory_begins_as_no_numbers);
    tcase_add_test(tcase, halves_round_to_nearest_even);
    tcase_add_test(tcase, graphs_run_what_was_captured_with_the_memory_of_now);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
