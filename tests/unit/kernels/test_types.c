/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/cpu/expand.c and kernels/model/fixed.c against others' numbers: blocks that the
 * Python package `gguf` has expanded (golden_blocks.py), and the C library. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/kernels.h"
#include "kernels/model/fixed.h"
#include "kernels/model/gguf.h"
#include "reference.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define TYPE_MAX  64u
#define BLOCK_MAX 256u
#define TYPES     10u

static size_t unhex(const char *text, uint8_t *out, size_t capacity)
{
    size_t count = 0;
    for (; text[0] && text[1]; text += 2, count++) {
        unsigned byte;
        ck_assert(count < capacity && sscanf(text, "%2x", &byte) == 1);
        out[count] = (uint8_t)byte;
    }
    return count;
}

static uint32_t type_named(const char *name)
{
    for (uint32_t type = 0; type < TYPE_MAX; type++)
        if (strcmp(gguf_tensor_type_name(type), name) == 0)
            return type;
    ck_abort_msg("no type %s", name);
}

static void check_block(const char *name, const uint8_t *block, const float *wanted, size_t count)
{
    const uint32_t type = type_named(name);
    const struct cpu_kernels *fast = cpu_kernels_avx2();
    float got[3][BLOCK_MAX] = {0};
    expand_row(type, block, count, got[0]);
    reference_expand(type, block, count, got[1]);
    if (fast)
        fast->expand(type, block, count, got[2]);
    for (size_t way = 0; way < (fast ? 3 : 2); way++)
        for (size_t i = 0; i < count; i++)
            ck_assert_msg(fabsf(got[way][i] - wanted[i]) <= fabsf(wanted[i]) * 1e-6f + 1e-7f,
                          "%s, way %zu, weight %zu: %g, not %g", name, way, i, (double)got[way][i],
                          (double)wanted[i]);
}

START_TEST(test_golden)
{
    static char line[8192];
    unsigned seen = 0;
    FILE *file = fopen(WEFT_SOURCE_DIR "/tests/unit/kernels/golden_blocks.txt", "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file)) {
        uint8_t block[512];
        float values[BLOCK_MAX];
        char *save;
        const char *name = strtok_r(line, " \n", &save);
        if (!name || name[0] == '#')
            continue;
        const size_t bytes = unhex(strtok_r(NULL, " \n", &save), block, sizeof(block));
        const size_t count =
            unhex(strtok_r(NULL, " \n", &save), (uint8_t *)values, sizeof(values)) / sizeof(float);
        uint32_t elements;
        uint32_t block_bytes;
        ck_assert(gguf_tensor_block(type_named(name), &elements, &block_bytes));
        ck_assert_uint_eq(count / elements * block_bytes, bytes);
        check_block(name, block, values, count);
        seen++;
    }
    fclose(file);
    ck_assert_uint_eq(seen, TYPES);
}
END_TEST

START_TEST(test_fixed)
{
    uint64_t rng = 21;
    for (int n = 0; n < 100000; n++) {
        const double u = (double)tiny_random_float(&rng);
        const double scale = ldexp(1.0, n % 25);
        double sine;
        double cosine;
        fixed_sin_cos(u * scale, &sine, &cosine);
        ck_assert_double_eq_tol(sine, sin(u * scale), 1e-15 + scale * 1e-16);
        ck_assert_double_eq_tol(cosine, cos(u * scale), 1e-15 + scale * 1e-16);
        ck_assert_double_eq_tol(fixed_exp(u * 40) / exp(u * 40), 1.0, 1e-14);
        const double positive = ldexp(u + 1.5, n % 60 - 30);
        ck_assert_double_eq_tol(fixed_log(positive), log(positive), 1e-14);
        const float x = (float)(u - 1) * 43.0f;
        const double wanted = exp((double)x);
        ck_assert_double_eq_tol((double)fixed_exp_negative(x), wanted, wanted * 3e-7);
    }
    double nothing;
    double none;
    fixed_sin_cos(0x1p40, &nothing, &none);
    ck_assert(isnan(nothing) && isnan(none));
    ck_assert(fixed_exp_negative(-INFINITY) == 0.0f && fixed_exp_negative(0.0f) == 1.0f);
    ck_assert(isnan(fixed_exp_negative(NAN)));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("types");
    TCase *tcase = tcase_create("core");
    tcase_add_test(tcase, test_golden);
    tcase_add_test(tcase, test_fixed);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
