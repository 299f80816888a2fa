/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/cpu/kernels_*.c: every table against float64, for every type of weight and for
 * sizes that no tile divides; and the promise that a product does not depend on its neighbours. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/kernels.h"
#include "reference.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define COLUMNS_MAX 9u
#define ROUNDS      40u
#define PAGES_MAX   8u

static const uint32_t types[] = {
    GGUF_TENSOR_F32,  GGUF_TENSOR_F16,  GGUF_TENSOR_BF16, GGUF_TENSOR_Q4_0,
    GGUF_TENSOR_Q4_1, GGUF_TENSOR_Q5_0, GGUF_TENSOR_Q5_1, GGUF_TENSOR_Q8_0,
    GGUF_TENSOR_Q4_K, GGUF_TENSOR_Q5_K, GGUF_TENSOR_Q6_K,
};
#define TYPES (sizeof(types) / sizeof(types[0]))

#define TABLES 5

static const struct cpu_kernels *table_at(int which)
{
    const struct cpu_kernels *const tables[TABLES] = {&cpu_kernels_portable, cpu_kernels_avx2(),
                                                      &cpu_fast_portable, cpu_fast_avx2(),
                                                      cpu_fast_avx512()};
    return tables[which];
}

/* Allocations of exactly what the interface asks for, so that a sanitizer sees reads beyond. */
static float *random_floats(uint64_t *rng, size_t count)
{
    float *p = malloc(count * sizeof(*p));
    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < count; i++)
        p[i] = tiny_random_float(rng);
    return p;
}

static struct model_tensor random_tensor(uint64_t *rng, uint32_t type, uint32_t rows, uint32_t cols)
{
    uint32_t elements;
    uint32_t bytes;
    ck_assert(gguf_tensor_block(type, &elements, &bytes));
    cols = (cols + elements - 1) / elements * elements;
    struct model_tensor t = {.type = type, .rows = rows, .cols = cols};
    t.row_bytes = (size_t)cols / elements * bytes;
    uint8_t *data = malloc(t.row_bytes * rows);
    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < t.row_bytes * rows; i++)
        data[i] = (uint8_t)tiny_random(rng);
    for (size_t at = 0; at < t.row_bytes * rows; at += bytes) {
        /* Halves must be ordinary numbers: bits 0x2400..0x3bff, about 2^-6..1. */
        const uint16_t half = (uint16_t)(0x2400 + tiny_random(rng) % 0x1800);
        const uint16_t min = (uint16_t)(half ^ 0x8000u);
        const float value = tiny_random_float(rng);
        if (type == GGUF_TENSOR_F32)
            memcpy(data + at, &value, sizeof(value));
        else if (type == GGUF_TENSOR_BF16)
            memcpy(data + at, (const uint8_t *)&value + 2, 2);
        else
            memcpy(data + at + (type == GGUF_TENSOR_Q6_K ? 208 : 0), &half, sizeof(half));
        if (type == GGUF_TENSOR_Q4_1 || type == GGUF_TENSOR_Q5_1 || type == GGUF_TENSOR_Q4_K ||
            type == GGUF_TENSOR_Q5_K)
            memcpy(data + at + 2, &min, sizeof(min));
    }
    t.data = data;
    return t;
}

static void check_product(const struct cpu_kernels *k, const struct model_tensor *w, size_t count,
                          uint64_t *rng)
{
    const size_t y_stride = w->rows + 3;
    float *x = random_floats(rng, count * w->cols);
    float *y = random_floats(rng, count * y_stride);
    float *alone = random_floats(rng, y_stride);
    float *scratch = malloc(CPU_TILE_ROWS * w->cols * sizeof(*scratch));
    float *row = malloc(w->cols * sizeof(*row));
    const uint32_t split = (uint32_t)(tiny_random(rng) % (w->rows + 1)) / 4 * 4;
    k->matmul(w, 0, split, x, w->cols, count, y, y_stride, scratch);
    k->matmul(w, split, w->rows, x, w->cols, count, y, y_stride, scratch);
    for (size_t c = 0; c < count; c++) {
        /* The same column alone and unsplit: the same bits. */
        k->matmul(w, 0, w->rows, x + c * w->cols, w->cols, 1, alone, y_stride, scratch);
        ck_assert_mem_eq(alone, y + c * y_stride, w->rows * sizeof(*y));
    }
    for (uint32_t r = 0; r < w->rows; r++) {
        reference_expand(w->type, w->data + r * w->row_bytes, w->cols, row);
        for (size_t c = 0; c < count; c++) {
            double sum = 0;
            double size = 0;
            for (size_t i = 0; i < w->cols; i++) {
                const double term = (double)row[i] * (double)x[c * w->cols + i];
                sum += term;
                size += fabs(term);
            }
            ck_assert_double_eq_tol((double)y[c * y_stride + r], sum, size * 1e-6 + 1e-9);
        }
    }
    free(x);
    free(y);
    free(alone);
    free(scratch);
    free(row);
}

START_TEST(test_products)
{
    const struct cpu_kernels *k = table_at(_i);
    uint64_t rng = 5;
    if (!k)
        return;
    for (size_t t = 0; t < TYPES; t++) {
        for (unsigned n = 0; n < ROUNDS; n++) {
            const uint32_t rows = 1 + (uint32_t)(tiny_random(&rng) % 23);
            const uint32_t cols = 1 + (uint32_t)(tiny_random(&rng) % 700);
            struct model_tensor w = random_tensor(&rng, types[t], rows, cols);
            check_product(k, &w, 1 + tiny_random(&rng) % COLUMNS_MAX, &rng);
            free((void *)(uintptr_t)w.data);
        }
    }
}
END_TEST

START_TEST(test_expand)
{
    const struct cpu_kernels *k = table_at(_i);
    uint64_t rng = 6;
    if (!k)
        return;
    for (size_t t = 0; t < TYPES; t++) {
        struct model_tensor w = random_tensor(&rng, types[t], 1, 1031);
        float *got = malloc(w.cols * sizeof(*got));
        float *wanted = malloc(w.cols * sizeof(*wanted));
        k->expand(w.type, w.data, w.cols, got);
        reference_expand(w.type, w.data, w.cols, wanted);
        for (size_t i = 0; i < w.cols; i++)
            ck_assert_float_eq_tol(got[i], wanted[i], fabsf(wanted[i]) * 1e-6f + 1e-6f);
        free(got);
        free(wanted);
        free((void *)(uintptr_t)w.data);
    }
}
END_TEST

START_TEST(test_half)
{
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const uint8_t bytes[2] = {(uint8_t)bits, (uint8_t)(bits >> 8)};
        const float got = cpu_half_to_float((uint16_t)bits);
        float wanted;
        reference_expand(GGUF_TENSOR_F16, bytes, 1, &wanted);
        if (isnan(wanted))
            ck_assert(isnan(got));
        else
            ck_assert_mem_eq(&got, &wanted, sizeof(got));
    }
}
END_TEST

START_TEST(test_norm_and_gate)
{
    const struct cpu_kernels *k = table_at(_i);
    uint64_t rng = 8;
    if (!k)
        return;
    for (size_t n = 1; n < 70; n++) {
        float *x = random_floats(&rng, n);
        float *w = random_floats(&rng, n);
        float *out = random_floats(&rng, n);
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += (double)x[i] * (double)x[i];
        k->rms_norm(x, w, n, 1e-5f, out);
        for (size_t i = 0; i < n; i++)
            ck_assert_double_eq_tol(
                (double)out[i], (double)x[i] * (double)w[i] / sqrt(sum / (double)n + 1e-5), 2e-6);
        for (size_t i = 0; i < n; i++)
            out[i] = x[i] *= i % 5 ? 10.0f : 300.0f; /* far into both tails of exp */
        k->swiglu(out, w, n);
        for (size_t i = 0; i < n; i++) {
            const double wanted = (double)x[i] / (1.0 + exp(-(double)x[i])) * (double)w[i];
            ck_assert_double_eq_tol((double)out[i], wanted, fabs(wanted) * 2e-6 + 1e-30);
        }
        free(x);
        free(w);
        free(out);
    }
}
END_TEST

/* The same rows in pages that lie in any order, with other things between them: the same bits. */
static void check_scattered(const struct cpu_kernels *k, const float *q,
                            const struct cpu_rows *keys, const struct cpu_rows *values,
                            size_t count, size_t width, float scale, const float *wanted,
                            uint64_t *rng)
{
    const size_t stride = CPU_PAGE_ROWS * width + 24;
    const size_t used = (count + CPU_PAGE_ROWS - 1) / CPU_PAGE_ROWS;
    float *far_keys = random_floats(rng, PAGES_MAX * stride);
    float *far_values = random_floats(rng, PAGES_MAX * stride);
    float *scores = malloc((count + 7) / 8 * 8 * sizeof(*scores));
    float *out = malloc(width * sizeof(*out));
    uint32_t pages[PAGES_MAX];
    for (uint32_t i = 0; i < PAGES_MAX; i++)
        pages[i] = i;
    for (uint32_t i = PAGES_MAX - 1; i > 0; i--) {
        const uint32_t j = (uint32_t)(tiny_random(rng) % (i + 1));
        const uint32_t swapped = pages[i];
        pages[i] = pages[j];
        pages[j] = swapped;
    }
    for (size_t i = 0; i < used; i++) {
        const size_t rows = i + 1 < used ? CPU_PAGE_ROWS : count - i * CPU_PAGE_ROWS;
        const size_t bytes = rows * width * sizeof(float);
        memcpy(far_keys + pages[i] * stride, keys->base + i * keys->stride, bytes);
        memcpy(far_values + pages[i] * stride, values->base + i * values->stride, bytes);
    }
    const struct cpu_rows key_rows = {far_keys, pages, stride};
    const struct cpu_rows value_rows = {far_values, pages, stride};
    k->attend(q, &key_rows, &value_rows, count, width, scale, scores, out);
    ck_assert_mem_eq(out, wanted, width * sizeof(*out));
    free(far_keys);
    free(far_values);
    free(scores);
    free(out);
}

static void check_attention(const struct cpu_kernels *k, size_t count, size_t width, uint64_t *rng)
{
    float *q = random_floats(rng, width);
    float *keys = random_floats(rng, count * width);
    float *values = random_floats(rng, count * width);
    float *scores = malloc((count + 7) / 8 * 8 * sizeof(*scores));
    float *out = malloc(width * sizeof(*out));
    double *p = malloc(count * sizeof(*p));
    double sum = 0;
    const float scale = 4.0f;
    uint32_t pages[PAGES_MAX];
    ck_assert_uint_le(count, PAGES_MAX * CPU_PAGE_ROWS);
    for (uint32_t i = 0; i < PAGES_MAX; i++)
        pages[i] = i;
    const struct cpu_rows key_rows = {keys, pages, CPU_PAGE_ROWS * width};
    const struct cpu_rows value_rows = {values, pages, CPU_PAGE_ROWS * width};
    k->attend(q, &key_rows, &value_rows, count, width, scale, scores, out);
    check_scattered(k, q, &key_rows, &value_rows, count, width, scale, out, rng);
    for (size_t j = 0; j < count; j++) {
        p[j] = 0;
        for (size_t i = 0; i < width; i++)
            p[j] += (double)q[i] * (double)keys[j * width + i] * (double)scale;
        sum += p[j] = exp(p[j]);
    }
    for (size_t i = 0; i < width; i++) {
        double wanted = 0;
        for (size_t j = 0; j < count; j++)
            wanted += p[j] / sum * (double)values[j * width + i];
        ck_assert_double_eq_tol((double)out[i], wanted, 2e-5);
    }
    free(q);
    free(keys);
    free(values);
    free(scores);
    free(out);
    free(p);
}

START_TEST(test_attention)
{
    static const size_t widths[] = {2, 8, 10, 64, 80, 128, 131};
    const struct cpu_kernels *k = table_at(_i);
    uint64_t rng = 9;
    if (!k)
        return;
    for (size_t w = 0; w < sizeof(widths) / sizeof(widths[0]); w++)
        for (size_t count = 1; count < 60; count += 1 + count / 8)
            check_attention(k, count, widths[w], &rng);
}
END_TEST

START_TEST(test_select)
{
    unsetenv("WEFT_CPU");
    ck_assert_ptr_eq(cpu_kernels_select(1, 1), &cpu_kernels_portable);
    ck_assert_ptr_eq(cpu_kernels_select(1, 0), &cpu_fast_portable);
    if (cpu_kernels_avx2())
        ck_assert_ptr_eq(cpu_kernels_select(0, 1), cpu_kernels_avx2());
    if (cpu_fast_avx512())
        ck_assert_ptr_eq(cpu_kernels_select(0, 0), cpu_fast_avx512());
    setenv("WEFT_CPU", "portable", 1);
    ck_assert_ptr_eq(cpu_kernels_select(0, 0), &cpu_fast_portable);
    setenv("WEFT_CPU", "exact,portable", 1);
    ck_assert_ptr_eq(cpu_kernels_select(0, 0), &cpu_kernels_portable);
    setenv("WEFT_CPU", "avx2", 1);
    if (cpu_fast_avx2())
        ck_assert_ptr_eq(cpu_kernels_select(0, 0), cpu_fast_avx2());
    unsetenv("WEFT_CPU");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu_kernels");
    TCase *tcase = tcase_create("core");
    tcase_add_loop_test(tcase, test_products, 0, TABLES);
    tcase_add_loop_test(tcase, test_expand, 0, TABLES);
    tcase_add_test(tcase, test_half);
    tcase_add_loop_test(tcase, test_norm_and_gate, 0, TABLES);
    tcase_add_loop_test(tcase, test_attention, 0, TABLES);
    tcase_add_test(tcase, test_select);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
