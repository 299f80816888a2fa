/* SPDX-License-Identifier: Apache-2.0 */
/* The fast kernels: packing against the definition in packed.h, every table against the portable
 * one bit by bit, and whole models over all types of weight: the same logits from every table,
 * batch and number of threads, and how far they are from float32. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed.h"
#include "reference.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define ROUNDS  12u
#define TOKENS  40u
#define CONTEXT 48u

static const uint32_t types[] = {
    GGUF_TENSOR_Q4_0, GGUF_TENSOR_Q4_1, GGUF_TENSOR_Q5_0, GGUF_TENSOR_Q5_1,
    GGUF_TENSOR_Q8_0, GGUF_TENSOR_Q4_K, GGUF_TENSOR_Q5_K, GGUF_TENSOR_Q6_K,
};
#define TYPES (sizeof(types) / sizeof(types[0]))

static float *random_floats(uint64_t *rng, size_t count)
{
    float *p = malloc(count * sizeof(*p));
    ck_assert_ptr_nonnull(p);
    for (size_t i = 0; i < count; i++)
        p[i] = tiny_random_float(rng) * (i % 37 == 5 ? 40.0f : 1.0f);
    return p;
}

/* Random bytes, but for halves, which are ordinary numbers. */
static struct model_tensor random_tensor(uint64_t *rng, uint32_t type, uint32_t rows, uint32_t cols)
{
    uint32_t elements;
    uint32_t bytes;
    ck_assert(gguf_tensor_block(type, &elements, &bytes));
    struct model_tensor t = {.type = type, .rows = rows, .cols = cols};
    t.row_bytes = (size_t)cols / elements * bytes;
    uint8_t *data = malloc(t.row_bytes * rows);
    ck_assert_ptr_nonnull(data);
    for (size_t i = 0; i < t.row_bytes * rows; i++)
        data[i] = (uint8_t)tiny_random(rng);
    for (size_t at = 0; at < t.row_bytes * rows; at += bytes) {
        const uint64_t r = tiny_random(rng);
        const uint16_t half = (uint16_t)((r & 0x8000) | (0x2400 + r % 0x1800));
        memcpy(data + at + (type == GGUF_TENSOR_Q6_K ? 208 : 0), &half, sizeof(half));
        if (type == GGUF_TENSOR_Q4_1 || type == GGUF_TENSOR_Q5_1 || type == GGUF_TENSOR_Q4_K ||
            type == GGUF_TENSOR_Q5_K)
            memcpy(data + at + 2, &half, sizeof(half));
    }
    t.data = data;
    return t;
}

/* Inputs of exactly their size each, so that a sanitizer sees what reads beyond. */
static uint8_t *quantise_all(const struct cpu_kernels *k, const float *x, size_t cols, size_t count)
{
    const size_t stride = packed_input_bytes(cols);
    uint8_t *inputs = aligned_alloc(64, stride * count);
    ck_assert_ptr_nonnull(inputs);
    memset(inputs, 0x55, stride * count);
    for (size_t c = 0; c < count; c++) {
        const size_t split = cols / 2 / PACKED_GROUP * PACKED_GROUP;
        k->quantise(x + c * cols, cols, split, cols, inputs + c * stride);
        k->quantise(x + c * cols, cols, 0, split, inputs + c * stride);
    }
    return inputs;
}

static uint8_t *pack(const struct model_tensor *w, struct packed *out)
{
    ck_assert(packed_measure(w, out));
    uint8_t *data = aligned_alloc(64, packed_bytes(out));
    ck_assert_ptr_nonnull(data);
    const uint32_t panels = packed_panels(out);
    packed_write(out, w, panels / 2, panels, data);
    packed_write(out, w, 0, panels / 2, data);
    out->data = data;
    return data;
}

/* What packed.h promises, in double precision. */
static void check_definition(const struct model_tensor *w, const uint8_t *inputs, size_t count,
                             const float *y)
{
    float *row = malloc(w->cols * sizeof(*row));
    for (uint32_t r = 0; r < w->rows; r++) {
        reference_expand(w->type, w->data + r * w->row_bytes, w->cols, row);
        for (size_t c = 0; c < count; c++) {
            const struct packed_input x =
                packed_input_at(inputs + c * packed_input_bytes(w->cols), w->cols);
            double sum = 0;
            double size = 0;
            for (size_t i = 0; i < w->cols; i++) {
                const double term =
                    (double)row[i] * (double)x.bytes[i] * (double)x.scales[i / PACKED_GROUP];
                sum += term;
                size += fabs(term);
            }
            ck_assert_double_eq_tol((double)y[c * w->rows + r], sum, size * 2e-6 + 1e-9);
        }
    }
    free(row);
}

static void check_products(const struct model_tensor *w, size_t count, uint64_t *rng)
{
    const struct cpu_kernels *const tables[] = {&cpu_fast_portable, cpu_fast_avx2(),
                                                cpu_fast_avx512()};
    struct packed packed;
    uint8_t *data = pack(w, &packed);
    float *x = random_floats(rng, count * w->cols);
    float *first = random_floats(rng, count * w->rows);
    const size_t stride = packed_input_bytes(w->cols);
    for (size_t t = 0; t < 3; t++) {
        if (!tables[t])
            continue;
        uint8_t *inputs = quantise_all(tables[t], x, w->cols, count);
        float *y = random_floats(rng, count * w->rows);
        const uint32_t split = (uint32_t)(tiny_random(rng) % (packed_panels(&packed) + 1));
        tables[t]->packed(&packed, split, packed_panels(&packed), inputs, stride, count, y,
                          w->rows);
        tables[t]->packed(&packed, 0, split, inputs, stride, count, y, w->rows);
        if (t == 0) {
            check_definition(w, inputs, count, y);
            memcpy(first, y, count * w->rows * sizeof(*y));
        }
        ck_assert_msg(memcmp(first, y, count * w->rows * sizeof(*y)) == 0,
                      "%s of %u x %u, %zu columns: %s has other bits",
                      gguf_tensor_type_name(w->type), w->rows, w->cols, count, tables[t]->name);
        free(inputs);
        free(y);
    }
    free(data);
    free(x);
    free(first);
}

START_TEST(test_products)
{
    uint64_t rng = 50 + (uint64_t)_i;
    uint32_t elements;
    uint32_t bytes;
    ck_assert(gguf_tensor_block(types[_i], &elements, &bytes));
    for (unsigned n = 0; n < ROUNDS; n++) {
        const uint32_t rows = 1 + (uint32_t)(tiny_random(&rng) % 70);
        const uint32_t cols = elements * (1 + (uint32_t)(tiny_random(&rng) % (768 / elements)));
        struct model_tensor w = random_tensor(&rng, types[_i], rows, cols);
        check_products(&w, n == 0 ? 1 : 1 + tiny_random(&rng) % 19, &rng);
        free((void *)(uintptr_t)w.data);
    }
}
END_TEST

/* Every weight and every input at the ends of its range: what narrow sums would overflow at. */
START_TEST(test_extremes)
{
    uint64_t rng = 3;
    struct model_tensor w = random_tensor(&rng, types[_i], 33, 512);
    uint8_t *data = (uint8_t *)(uintptr_t)w.data;
    uint32_t elements;
    uint32_t bytes;
    ck_assert(gguf_tensor_block(w.type, &elements, &bytes));
    const size_t head = w.type == GGUF_TENSOR_Q4_K || w.type == GGUF_TENSOR_Q5_K   ? 4
                        : w.type == GGUF_TENSOR_Q4_1 || w.type == GGUF_TENSOR_Q5_1 ? 4
                        : w.type == GGUF_TENSOR_Q6_K                               ? 0
                                                                                   : 2;
    const size_t end = w.type == GGUF_TENSOR_Q6_K ? 208 : bytes;
    for (int fill = 0; fill < 3; fill++) {
        static const uint8_t fills[] = {0xff, 0x00, 0x80};
        for (size_t at = 0; at < w.row_bytes * w.rows; at += bytes)
            memset(data + at + head, fills[fill], end - head);
        for (int sign = -1; sign <= 1; sign += 2) {
            float x[512];
            for (size_t i = 0; i < 512; i++)
                x[i] = (float)sign * (i % 2 && fill == 2 ? -3.0f : 3.0f);
            struct packed packed;
            uint8_t *panels = pack(&w, &packed);
            float y[3][33];
            const struct cpu_kernels *const tables[] = {&cpu_fast_portable, cpu_fast_avx2(),
                                                        cpu_fast_avx512()};
            for (size_t t = 0; t < 3 && tables[t]; t++) {
                uint8_t *inputs = quantise_all(tables[t], x, 512, 1);
                tables[t]->packed(&packed, 0, packed_panels(&packed), inputs, 0, 1, y[t], 33);
                if (t == 0)
                    check_definition(&w, inputs, 1, y[0]);
                ck_assert_mem_eq(y[0], y[t], sizeof(y[0]));
                free(inputs);
            }
            free(panels);
        }
    }
    free(data);
}
END_TEST

START_TEST(test_quantise)
{
    const struct cpu_kernels *const tables[] = {&cpu_fast_portable, cpu_fast_avx2(),
                                                cpu_fast_avx512()};
    const size_t cols = 8 * PACKED_GROUP;
    uint64_t rng = 4;
    float *x = random_floats(&rng, cols);
    memset(x, 0, PACKED_GROUP * sizeof(*x));
    x[40] = NAN;
    x[70] = -INFINITY;
    for (size_t i = 96; i < 128; i++)
        x[i] *= 1e-38f;
    x[130] = 1e31f;
    uint8_t *first = quantise_all(tables[0], x, cols, 1);
    const struct packed_input in = packed_input_at(first, cols);
    for (size_t i = 0; i < cols; i++) {
        const float scale = in.scales[i / PACKED_GROUP];
        const size_t group = i / PACKED_GROUP;
        if (group == 1 || group == 2 || group == 4)
            ck_assert(isnan(scale) && isnan(in.sums[group]) && in.bytes[i] == 0);
        else
            ck_assert(fabsf(x[i] - (float)in.bytes[i] * scale) <= scale * 0.5001f + 1e-30f);
    }
    for (size_t t = 1; t < 3 && tables[t]; t++) {
        uint8_t *other = quantise_all(tables[t], x, cols, 1);
        ck_assert_mem_eq(first, other, cols + cols / PACKED_GROUP * 4);
        ck_assert_mem_eq(in.totals, packed_input_at(other, cols).totals, cols / PACKED_GROUP * 8);
        free(other);
    }
    free(first);
    free(x);
}
END_TEST

/* The rest of a layer, for lengths that the lanes do not divide. */
START_TEST(test_same_bits)
{
    const struct cpu_kernels *k = _i ? cpu_fast_avx512() : cpu_fast_avx2();
    const struct cpu_kernels *p = &cpu_fast_portable;
    uint64_t rng = 6;
    for (size_t n = 1; k && n < 100; n++) {
        float *a = random_floats(&rng, n * n);
        float *b = random_floats(&rng, n * n);
        float *w = random_floats(&rng, n);
        float *out[2] = {random_floats(&rng, n), random_floats(&rng, n)};
        float *scores = random_floats(&rng, n + 16);
        p->rms_norm(a, w, n, 1e-5f, out[0]);
        k->rms_norm(a, w, n, 1e-5f, out[1]);
        ck_assert_mem_eq(out[0], out[1], n * sizeof(float));
        for (size_t i = 0; i < n; i++)
            out[0][i] = out[1][i] = a[i] * 5;
        p->swiglu(out[0], w, n);
        k->swiglu(out[1], w, n);
        ck_assert_mem_eq(out[0], out[1], n * sizeof(float));
        static const uint32_t pages[] = {0, 1, 2, 3, 4, 5, 6};
        const struct cpu_rows keys = {a, pages, CPU_PAGE_ROWS * n};
        const struct cpu_rows values = {b, pages, CPU_PAGE_ROWS * n};
        p->attend(w, &keys, &values, n, n, 0.3f, scores, out[0]);
        k->attend(w, &keys, &values, n, n, 0.3f, scores, out[1]);
        ck_assert_mem_eq(out[0], out[1], n * sizeof(float));
        free(a);
        free(b);
        free(w);
        free(out[0]);
        free(out[1]);
        free(scores);
    }
}
END_TEST

/* ---- whole models ---- */

static struct model *open_tiny(const struct tiny_shape *shape, uint8_t **data)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct model *model;
    *data = tiny_write(shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, *data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&model, file, why, sizeof(why)) == 0, "%s", why);
    return model;
}

static float *logits_of(const struct model *model, struct cpu_options options, const char *table,
                        const uint32_t *tokens)
{
    float *logits = malloc((size_t)TOKENS * model->vocab * sizeof(*logits));
    exec_t *exec;
    options.context = CONTEXT;
    if (table)
        setenv("WEFT_CPU", table, 1);
    ck_assert_int_eq(cpu_create(&exec, model, &options), 0);
    unsetenv("WEFT_CPU");
    for (uint32_t at = 0; at < TOKENS;) {
        struct exec_row rows[TOKENS];
        uint32_t count = 0;
        for (; count < options.batch_max && at + count < TOKENS; count++)
            rows[count] = (struct exec_row){
                .position = at + count, .token = tokens[at + count], .want_logits = true};
        ck_assert_int_eq(exec_forward(exec, rows, count, logits + (size_t)at * model->vocab, NULL),
                         0);
        at += count;
    }
    exec_destroy(exec);
    return logits;
}

/* Root mean square of the difference, of that of the logits. */
static double distance(const float *a, const float *b, size_t count)
{
    double difference = 0;
    double size = 0;
    for (size_t i = 0; i < count; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / size);
}

static double check_model(const struct tiny_shape *shape)
{
    static const char *const tables[] = {"portable", "avx2", "avx512"};
    uint8_t *data;
    struct model *model = open_tiny(shape, &data);
    uint64_t rng = shape->seed;
    uint32_t tokens[TOKENS];
    const size_t bytes = (size_t)TOKENS * model->vocab * sizeof(float);
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] = (uint32_t)(tiny_random(&rng) % TINY_VOCAB);
    float *exact =
        logits_of(model, (struct cpu_options){.batch_max = 7, .exact = true}, NULL, tokens);
    float *first = logits_of(model, (struct cpu_options){.batch_max = TOKENS}, NULL, tokens);
    for (uint32_t i = 0; i < 9; i++) {
        const struct cpu_options options = {.batch_max = i < 3 ? 1 : 3 + i * 2,
                                            .threads = 1 + i % 4};
        float *other = logits_of(model, options, tables[i % 3], tokens);
        ck_assert_msg(memcmp(first, other, bytes) == 0, "%s, batch %u, %u threads: other bits",
                      tables[i % 3], options.batch_max, options.threads);
        free(other);
    }
    const double far = distance(exact, first, (size_t)TOKENS * model->vocab);
    free(exact);
    free(first);
    model_destroy(model);
    free(data);
    return far;
}

/* What fast arithmetic may differ from float32 by in these models, whose weights are random, so
 * that nothing damps an error: about twice what is seen. The spread of Q6_K's random scales (127 :
 * 1) makes it the worst. README.md of kernels/cpu has the figures of a real model. */
#define TOLERANCE      0.05
#define TOLERANCE_Q6_K 0.10

START_TEST(test_models)
{
    struct tiny_shape shape = {.seed = 60 + (uint64_t)_i,
                               .type = types[_i],
                               .embedding_type = types[_i],
                               .layers = 2,
                               .heads = 8,
                               .kv_heads = 4,
                               .head_width = 32,
                               .ffn_width = 512,
                               .context = 128};
    const double far = check_model(&shape);
    printf("%s: logits differ by %.4f of their size\n", gguf_tensor_type_name(types[_i]), far);
    ck_assert_double_lt(far, types[_i] == GGUF_TENSOR_Q6_K ? TOLERANCE_Q6_K : TOLERANCE);
    ck_assert_double_gt(far, 0);
}
END_TEST

/* Types that are not packed, widths that cannot be, and what families have of their own. */
START_TEST(test_other_models)
{
    static const struct {
        const char *arch;
        uint32_t type;
        uint32_t width;
        uint32_t head_width;
        uint32_t ffn_width;
        const char *scaling;
    } kinds[] = {
        {"llama", GGUF_TENSOR_F16, 0, 10, 83, NULL},
        {"llama", GGUF_TENSOR_F32, 0, 16, 160, NULL},
        {"qwen2", GGUF_TENSOR_BF16, 0, 16, 96, NULL},
        {"qwen3", GGUF_TENSOR_Q8_0, 64, 16, 160, NULL},
        {"qwen3", GGUF_TENSOR_Q4_0, 0, 16, 96, "yarn"},
    };
    struct tiny_shape shape = tiny_default;
    shape.seed = 80 + (uint64_t)_i;
    shape.type = kinds[_i].type;
    shape.embedding_type = shape.type;
    shape.arch = kinds[_i].arch;
    shape.width = kinds[_i].width;
    shape.head_width = kinds[_i].head_width;
    shape.ffn_width = kinds[_i].ffn_width;
    shape.scaling = kinds[_i].scaling;
    ck_assert_double_lt(check_model(&shape), TOLERANCE);
}
END_TEST

/* Every number of 16 bits, in all tables; the last ones do not fill a vector. */
START_TEST(test_expand)
{
    static const uint32_t kinds[] = {GGUF_TENSOR_F16, GGUF_TENSOR_BF16};
    enum { COUNT = 0x10000 + 7 };
    const struct cpu_kernels *const tables[] = {&cpu_fast_portable, cpu_fast_avx2(),
                                                cpu_fast_avx512()};
    uint16_t *halves = malloc(COUNT * sizeof(*halves));
    float *wanted = malloc(COUNT * sizeof(*wanted));
    float *got = malloc(COUNT * sizeof(*got));
    for (uint32_t i = 0; i < COUNT; i++)
        halves[i] = (uint16_t)i;
    reference_expand(kinds[_i], (const uint8_t *)halves, COUNT, wanted);
    for (size_t t = 0; t < 3 && tables[t]; t++) {
        tables[t]->expand(kinds[_i], (const uint8_t *)halves, COUNT, got);
        for (uint32_t i = 0; i < COUNT; i++)
            ck_assert_msg(isnan(wanted[i]) ? isnan(got[i]) != 0
                                           : memcmp(&got[i], &wanted[i], sizeof(*got)) == 0,
                          "%s: %04x", tables[t]->name, halves[i]);
    }
    free(halves);
    free(wanted);
    free(got);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fast");
    TCase *tcase = tcase_create("core");
    tcase_add_loop_test(tcase, test_products, 0, TYPES);
    tcase_add_loop_test(tcase, test_extremes, 0, TYPES);
    tcase_add_test(tcase, test_quantise);
    tcase_add_loop_test(tcase, test_expand, 0, 2);
    tcase_add_loop_test(tcase, test_same_bits, 0, 2);
    tcase_add_loop_test(tcase, test_models, 0, TYPES);
    tcase_add_loop_test(tcase, test_other_models, 0, 5);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
