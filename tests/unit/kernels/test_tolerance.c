/* SPDX-License-Identifier: Apache-2.0 */
/* How far the logits may be from a plain float32 implementation's, for each type of weight and each
 * way of computing: the table of kernels/README.md. Models are normal numbers, quantised; they and
 * the tokens are other ones at each run, whose seed is printed. WEFT_SEED repeats one. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "apart.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/kernels.h"
#include "quantise.h"
#include "reference.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define TOKENS  32u
#define COLUMNS 5u

static uint64_t seed;

#define EXACT_KL 1e-9

/* What the logits may be apart by, whatever the seed; several times what is usual. Their standard
 * deviation is about 3. */
static const struct tolerance {
    uint32_t type;
    double exact_abs; /* float32 kernels, against the same weights in float32 */
    double fast_abs;  /* integer kernels, against the same */
    double fast_kl;   /* mean over a text, nats */
    double weight_kl; /* what the type itself costs: against the numbers it was made of */
} tolerances[] = {
    {GGUF_TENSOR_F32, 1e-4, 1e-4, 1e-9, 1e-12}, {GGUF_TENSOR_F16, 1e-4, 1e-4, 1e-9, 1e-4},
    {GGUF_TENSOR_BF16, 1e-4, 1e-4, 1e-9, 1e-3}, {GGUF_TENSOR_Q8_0, 1e-4, 1.0, 0.006, 0.01},
    {GGUF_TENSOR_Q4_0, 1e-4, 1.0, 0.006, 1.5},  {GGUF_TENSOR_Q4_1, 1e-4, 1.0, 0.006, 1.5},
    {GGUF_TENSOR_Q4_K, 1e-4, 1.0, 0.006, 1.5},  {GGUF_TENSOR_Q6_K, 1e-4, 1.0, 0.006, 0.1},
};
#define TYPES (sizeof(tolerances) / sizeof(tolerances[0]))

/* Each way of computing that a processor may offer; NULL: it does not. */
#define PATHS 5u
static const struct path {
    const char *name;
    const char *wish; /* WEFT_CPU */
    bool exact;
} paths[PATHS] = {
    {"exact scalar", "portable", true}, {"exact AVX2", "avx2", true},
    {"fast scalar", "portable", false}, {"fast AVX2", "avx2", false},
    {"fast AVX-512 VNNI", "", false},
};

static const struct cpu_kernels *table_of(size_t path)
{
    const struct cpu_kernels *const tables[PATHS] = {&cpu_kernels_portable, cpu_kernels_avx2(),
                                                     &cpu_fast_portable, cpu_fast_avx2(),
                                                     cpu_fast_avx512()};
    return tables[path];
}

static void *need(void *memory)
{
    ck_assert_ptr_nonnull(memory);
    return memory;
}

/* What a result that was never written would look like. */
static float *poisoned(size_t count)
{
    float *p = need(malloc(count * sizeof(*p)));
    for (size_t i = 0; i < count; i++)
        p[i] = NAN;
    return p;
}

static float *random_row(uint64_t *rng, size_t count)
{
    float *p = poisoned(count);
    for (size_t i = 0; i < count; i++)
        p[i] = tiny_random_float(rng) + tiny_random_float(rng) + tiny_random_float(rng);
    return p;
}

/* ---- products ---- */

static struct model_tensor quantised(uint64_t *rng, uint32_t type, uint32_t rows, uint32_t cols)
{
    uint32_t elements;
    uint32_t bytes;
    ck_assert(gguf_tensor_block(type, &elements, &bytes));
    struct model_tensor w = {.type = type, .rows = rows, .cols = cols};
    w.row_bytes = (size_t)cols / elements * bytes;
    uint8_t *data = need(malloc(w.row_bytes * rows));
    for (uint32_t r = 0; r < rows; r++) {
        float *row = random_row(rng, cols);
        quantise_row(type, row, cols, data + r * w.row_bytes);
        free(row);
    }
    w.data = data;
    return w;
}

/* As the backend would: packed where the table has that and the type allows it. */
static bool multiply(const struct cpu_kernels *k, const struct model_tensor *w, const float *x,
                     size_t count, float *y)
{
    struct packed packed;
    if (!k->packed || !packed_measure(w, &packed)) {
        float *scratch = need(malloc(CPU_TILE_ROWS * w->cols * sizeof(*scratch)));
        k->matmul(w, 0, w->rows, x, w->cols, count, y, w->rows, scratch);
        free(scratch);
        return false;
    }
    const size_t stride = packed_input_bytes(w->cols);
    uint8_t *data = need(aligned_alloc(64, packed_bytes(&packed)));
    uint8_t *inputs = need(aligned_alloc(64, stride * count));
    packed_write(&packed, w, 0, packed_panels(&packed), data);
    packed.data = data;
    for (size_t c = 0; c < count; c++)
        k->quantise(x + c * w->cols, w->cols, 0, w->cols, inputs + c * stride);
    k->packed(&packed, 0, packed_panels(&packed), inputs, stride, count, y, w->rows);
    free(data);
    free(inputs);
    return true;
}

/* The most that 8 bits for each 32 activations can do to a sum, and the rounding of float32. */
static double error_bound(const float *row, const float *x, size_t cols, bool is_packed)
{
    double bound = 1e-9;
    for (size_t g = 0; g < cols; g += PACKED_GROUP) {
        const size_t end = g + PACKED_GROUP < cols ? g + PACKED_GROUP : cols;
        double most = 0;
        for (size_t i = g; i < end; i++)
            most = fmax(most, fabs((double)x[i]));
        for (size_t i = g; i < end; i++)
            bound += fabs((double)row[i]) *
                     (fabs((double)x[i]) * 2e-6 + (is_packed ? most / 127.0 * 0.5001 : 0.0));
    }
    return bound;
}

static void check_product(size_t path, const struct model_tensor *w, size_t count, const float *x)
{
    float *y = poisoned(count * w->rows);
    float *row = poisoned(w->cols);
    const bool is_packed = multiply(table_of(path), w, x, count, y);
    for (uint32_t r = 0; r < w->rows; r++) {
        reference_expand(w->type, w->data + r * w->row_bytes, w->cols, row);
        for (size_t c = 0; c < count; c++) {
            const float *column = x + c * w->cols;
            const double got = (double)y[c * w->rows + r];
            double sum = 0;
            for (size_t i = 0; i < w->cols; i++)
                sum += (double)row[i] * (double)column[i];
            /* Not a number is not below anything. */
            ck_assert_msg(fabs(got - sum) <= error_bound(row, column, w->cols, is_packed),
                          "seed %llu: %s, %s, row %u, column %zu of %zu: %g, not %g",
                          (unsigned long long)seed, paths[path].name,
                          gguf_tensor_type_name(w->type), r, c, count, got, sum);
        }
    }
    free(y);
    free(row);
}

/* Every type on every path: one column (a mat-vec) and several. */
START_TEST(test_products)
{
    uint64_t rng = seed + (uint64_t)_i;
    for (size_t n = 0; n < 3; n++) {
        const uint32_t rows = 1 + (uint32_t)(tiny_random(&rng) % 40);
        const uint32_t cols = 256 * (1 + (uint32_t)(tiny_random(&rng) % 3));
        struct model_tensor w = quantised(&rng, tolerances[_i].type, rows, cols);
        float *x = random_row(&rng, (size_t)COLUMNS * cols);
        for (size_t path = 0; path < PATHS; path++) {
            if (!table_of(path))
                continue;
            check_product(path, &w, 1, x);
            check_product(path, &w, COLUMNS, x);
        }
        free(x);
        free((void *)(uintptr_t)w.data);
    }
}
END_TEST

/* What was written is what was meant: half a step away at most, in a block's own steps. */
START_TEST(test_quantise)
{
    static const double steps[] = {0,       0x1p-11,  0x1p-8,   1 / 127.0,
                                   1 / 8.0, 1 / 15.0, 1 / 15.0, 1 / 32.0};
    const uint32_t type = tolerances[_i].type;
    uint64_t rng = seed ^ (uint64_t)_i;
    float *x = random_row(&rng, 1024);
    float *back = poisoned(1024);
    uint8_t data[4096];
    memset(x + 256, 0, 256 * sizeof(*x)); /* a block of nothing */
    quantise_row(type, x, 1024, data);
    reference_expand(type, data, 1024, back);
    for (size_t i = 0; i < 1024; i++) {
        double most = 0;
        for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++)
            most = fmax(most, fabs((double)x[j]));
        /* Runs' own scales are rounded, too, and the largest of one sign may miss a step. */
        const double allowed = most * steps[_i] * 2.5 + 1e-7;
        ck_assert_double_eq_tol((double)back[i], (double)x[i], allowed);
    }
    free(x);
    free(back);
}
END_TEST

/* ---- logits ---- */

static struct model *open_tiny(uint32_t type, uint8_t **data)
{
    const struct tiny_shape shape = {.seed = seed,
                                     .type = type,
                                     .embedding_type = type,
                                     .layers = 3,
                                     .heads = 4,
                                     .kv_heads = 2,
                                     .head_width = 64,
                                     .ffn_width = 512,
                                     .context = 64,
                                     .quantise = quantise_row};
    size_t size;
    char why[128];
    gguf_t *file;
    struct model *model;
    *data = tiny_write(&shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, *data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&model, file, why, sizeof(why)) == 0, "%s", why);
    return model;
}

static float *reference_logits(const struct model *model, const uint32_t *tokens)
{
    float *out = poisoned((size_t)TOKENS * model->vocab);
    struct reference *r = reference_create(model, TOKENS);
    for (size_t i = 0; i < TOKENS; i++)
        memcpy(out + i * model->vocab, reference_forward(r, tokens[i]),
               model->vocab * sizeof(*out));
    reference_destroy(r);
    return out;
}

static float *path_logits(const struct model *model, size_t path, const uint32_t *tokens)
{
    const struct cpu_options options = {.batch_max = TOKENS, .exact = paths[path].exact};
    struct exec_row rows[TOKENS];
    struct exec_info info;
    exec_t *exec;
    float *out = poisoned((size_t)TOKENS * model->vocab);
    setenv("WEFT_CPU", paths[path].wish, 1);
    ck_assert_int_eq(cpu_create(&exec, model, &options), 0);
    unsetenv("WEFT_CPU");
    exec_info(exec, &info);
    ck_assert_str_eq(info.detail, table_of(path)->name);
    for (uint32_t i = 0; i < TOKENS; i++)
        rows[i] = (struct exec_row){.position = i, .token = tokens[i], .want_logits = true};
    ck_assert_int_eq(exec_forward(exec, rows, TOKENS, out, NULL), 0);
    exec_destroy(exec);
    return out;
}

static struct apart compare(const float *wanted, const float *got, size_t vocab)
{
    struct apart a = {0};
    for (size_t i = 0; i < TOKENS; i++)
        apart_add(&a, wanted + i * vocab, got + i * vocab, vocab);
    return a;
}

static void print_apart(const char *type, const char *what, const struct apart *a)
{
    printf("| %-4s | %-17s | %8.2g | %8.2g | %8.2g | %3zu of %zu |\n", type, what, a->max_abs,
           apart_kl(a), a->kl_max, a->same, a->positions);
}

static void check_apart(const struct tolerance *t, size_t path, const struct apart *a)
{
    const char *type = gguf_tensor_type_name(t->type);
    const double most = paths[path].exact ? t->exact_abs : t->fast_abs;
    print_apart(type, paths[path].name, a);
    ck_assert_msg(a->max_abs <= most, "seed %llu: %s, %s: logits are %g apart, %g is allowed",
                  (unsigned long long)seed, type, paths[path].name, a->max_abs, most);
    ck_assert_msg(apart_kl(a) <= (paths[path].exact ? EXACT_KL : t->fast_kl),
                  "seed %llu: %s, %s: divergence %g", (unsigned long long)seed, type,
                  paths[path].name, apart_kl(a));
}

START_TEST(test_logits)
{
    const struct tolerance *t = &tolerances[_i];
    uint64_t rng = seed + 77;
    uint32_t tokens[TOKENS];
    uint8_t *data;
    uint8_t *whole_data;
    struct model *model = open_tiny(t->type, &data);
    struct model *whole = open_tiny(GGUF_TENSOR_F32, &whole_data);
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] = (uint32_t)(tiny_random(&rng) % TINY_VOCAB);
    float *wanted = reference_logits(model, tokens);
    float *numbers = reference_logits(whole, tokens);
    const struct apart cost = compare(numbers, wanted, model->vocab);
    print_apart(gguf_tensor_type_name(t->type), "the type itself", &cost);
    ck_assert_msg(apart_kl(&cost) <= t->weight_kl, "seed %llu: divergence %g from what it was",
                  (unsigned long long)seed, apart_kl(&cost));
    ck_assert(apart_spread(&cost) > 1.0 && apart_spread(&cost) < 9.0);
    for (size_t path = 0; path < PATHS; path++) {
        if (!table_of(path))
            continue;
        float *got = path_logits(model, path, tokens);
        const struct apart a = compare(wanted, got, model->vocab);
        check_apart(t, path, &a);
        free(got);
    }
    free(wanted);
    free(numbers);
    model_destroy(model);
    model_destroy(whole);
    free(data);
    free(whole_data);
}
END_TEST

static void choose_seed(void)
{
    const char *given = getenv("WEFT_SEED");
    if (given)
        seed = strtoull(given, NULL, 10);
    else if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        abort();
    printf("WEFT_SEED=%llu\n", (unsigned long long)seed);
    printf("| type | computed | max abs | mean KL | max KL | same token |\n");
    (void)fflush(stdout); /* each test is a process of its own */
}

int main(void)
{
    choose_seed();
    Suite *suite = suite_create("tolerance");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 200); /* a busy machine, a sanitizer */
    tcase_add_loop_test(tcase, test_quantise, 0, TYPES);
    tcase_add_loop_test(tcase, test_products, 0, TYPES);
    tcase_add_loop_test(tcase, test_logits, 0, TYPES);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
