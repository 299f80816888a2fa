/* SPDX-License-Identifier: Apache-2.0 */
/* Who makes a prompt's products: a stand-in for cuBLASLt is called as the real one is to be, its
 * results are gemm.cu's but for the order of sums, and what is chosen has a name. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "tests/emu/emu.h"
#include "tests/emu/runtime.h"
#include "tests/unit/kernels/emu/fake_cublaslt.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define ROWS 12u /* more than the library takes, with the last one that goes the exact way */

struct scene {
    uint8_t *data;
    gguf_t *file;
    struct model *model;
    float *logits[2];
};

static void scene_init(struct scene *s, const struct tiny_shape *shape)
{
    size_t size;
    char why[128];
    s->data = tiny_write(shape, &size);
    ck_assert_int_eq(gguf_open_memory(&s->file, s->data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&s->model, s->file, why, sizeof(why)) == 0, "%s", why);
    for (int i = 0; i < 2; i++) {
        s->logits[i] = calloc(s->model->vocab, sizeof(float));
        ck_assert_ptr_nonnull(s->logits[i]);
    }
}

static void scene_deinit(struct scene *s)
{
    model_destroy(s->model);
    free(s->data);
    free(s->logits[0]);
    free(s->logits[1]);
    const char *fault = emu_fault();
    ck_assert_msg(!fault, "%s", fault);
    ck_assert_uint_eq(emu_allocated_bytes(), 0);
}

static void use_library(const char *path)
{
    ck_assert_int_eq(setenv("WEFT_CUBLASLT", path, 1), 0);
}

static int try_open(exec_t **out, const struct scene *s, enum cuda_gemm gemm)
{
    const struct cuda_options options = {
        .slots = 2, .context = 64, .batch_max = ROWS, .fast = true, .gemm = gemm};
    char why[200];
    return cuda_create(out, s->model, &options, why, sizeof(why));
}

static exec_t *open_exec(const struct scene *s, enum cuda_gemm gemm, struct exec_info *info)
{
    exec_t *exec;
    ck_assert_int_eq(try_open(&exec, s, gemm), 0);
    exec_info(exec, info);
    return exec;
}

/* A prompt of `count` tokens and its last one's logits. */
static void read_prompt(exec_t *exec, size_t count, float *logits)
{
    struct exec_row rows[ROWS];
    for (size_t i = 0; i < count; i++)
        rows[i] = (struct exec_row){0, (uint32_t)i, (uint32_t)i * 37 % 256, i + 1 == count, false};
    ck_assert_int_eq(exec_forward(exec, rows, count, logits, NULL), 0);
}

static uint32_t *word_of(const char *name)
{
    void *library = dlopen(FAKE_PATH, RTLD_NOW | RTLD_LOCAL);
    ck_assert_ptr_nonnull(library);
    uint32_t *at = dlsym(library, name);
    ck_assert_ptr_nonnull(at);
    return at;
}

static uint32_t counter(const char *name)
{
    return *word_of(name);
}

static const struct tiny_shape shapes[] = {
    {1, GGUF_TENSOR_Q4_1, GGUF_TENSOR_Q8_0, 2, 6, 2, 16, 160, 128, 0, NULL, NULL, 0, 0, TINY_CHATML,
     NULL},
    {2, GGUF_TENSOR_Q8_0, GGUF_TENSOR_F16, 2, 4, 4, 8, 96, 128, 1, "qwen2", NULL, 0, 0, TINY_CHATML,
     NULL}, /* biases */
    {3, GGUF_TENSOR_F16, GGUF_TENSOR_F32, 2, 6, 3, 12, 84, 128, 0, "qwen3", NULL, 0, 48,
     TINY_CHATML, NULL},
    {5, GGUF_TENSOR_BF16, GGUF_TENSOR_BF16, 1, 3, 3, 20, 52, 128, 0, NULL, NULL, 1, 0, TINY_CHATML,
     NULL},
    {4, GGUF_TENSOR_Q4_0, GGUF_TENSOR_Q4_0, 1, 9, 1, 32, 64, 128, 0, NULL, NULL, 0, 0, TINY_CHATML,
     NULL},
    {6, GGUF_TENSOR_Q4_K, GGUF_TENSOR_Q6_K, 1, 8, 2, 32, 256, 128, 0, NULL, "linear", 0, 0,
     TINY_CHATML, NULL},
    {7, GGUF_TENSOR_Q6_K, GGUF_TENSOR_Q4_K, 1, 4, 2, 64, 256, 128, 0, "qwen3", NULL, 0, 0,
     TINY_CHATML, NULL},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

/* The library's sums are gemm.cu's but for their order; a shape that it refuses goes to gemm.cu. */
START_TEST(the_library_makes_the_same_products)
{
    struct scene s;
    struct exec_info own_info;
    struct exec_info info;
    use_library(FAKE_PATH);
    scene_init(&s, &shapes[_i]);
    exec_t *own = open_exec(&s, CUDA_GEMM_OWN, &own_info);
    exec_t *library = open_exec(&s, CUDA_GEMM_CUBLASLT, &info);
    ck_assert_ptr_nonnull(strstr(info.detail, "cuBLASLt 130199"));
    ck_assert_ptr_null(strstr(own_info.detail, "cuBLASLt"));
    for (size_t count = ROWS - 3; count <= ROWS; count += 3) {
        const uint32_t before = counter("fake_cublaslt_products");
        read_prompt(own, count, s.logits[0]);
        read_prompt(library, count, s.logits[1]);
        const uint32_t made = counter("fake_cublaslt_products") - before;
        const uint32_t biased = shapes[_i].seed == 2 ? 3 : 0;
        ck_assert_uint_eq(made,
                          count - 1 > FAKE_COLUMNS_MOST ? 0 : (7 - biased) * s.model->layer_count);
        for (size_t i = 0; i < s.model->vocab; i++)
            ck_assert_msg(
                fabsf(s.logits[0][i] - s.logits[1][i]) <= 2e-2f * (1.0f + fabsf(s.logits[0][i])),
                "logit %zu is %g, not %g", i, (double)s.logits[1][i], (double)s.logits[0][i]);
    }
    exec_destroy(own);
    exec_destroy(library);
    ck_assert_uint_eq(counter("fake_cublaslt_open"), 0);
    scene_deinit(&s);
}
END_TEST

/* Whichever is faster here, by name, and it computes. */
START_TEST(auto_measures)
{
    struct scene s;
    struct exec_info info;
    use_library(FAKE_PATH);
    scene_init(&s, &shapes[_i]);
    exec_t *exec = open_exec(&s, CUDA_GEMM_AUTO, &info);
    read_prompt(exec, ROWS - 3, s.logits[0]);
    ck_assert_ptr_nonnull(strstr(info.detail, ", fast"));
    exec_destroy(exec);
    ck_assert_uint_eq(counter("fake_cublaslt_open"), 0);
    scene_deinit(&s);
}
END_TEST

/* A quantised matrix is expanded for the library, which short pieces do not pay back: each shape is
 * measured with fewer and fewer columns. */
static const struct {
    uint32_t fast_from;
    const char *of_all; /* '-' never, 'a' + log2 of the columns */
} speeds[] = {{1, "ffff"}, {100, "hhhh"}, {1000, NULL}};

static const struct tiny_shape little = {
    1,   GGUF_TENSOR_Q8_0, GGUF_TENSOR_Q8_0, 1, 2, 1, 16, 64, 128, 0, NULL, NULL, 0, 0, TINY_CHATML,
    NULL};

START_TEST(auto_measures_how_many_columns)
{
    struct scene s;
    struct exec_info info;
    exec_t *exec;
    char why[200];
    const struct cuda_options options = {
        .slots = 1, .context = 128, .batch_max = 128, .fast = true, .gemm = CUDA_GEMM_AUTO};
    use_library(FAKE_PATH);
    scene_init(&s, &little);
    *word_of("fake_cublaslt_fast_from") = speeds[_i].fast_from;
    ck_assert_int_eq(cuda_create(&exec, s.model, &options, why, sizeof(why)), 0);
    exec_info(exec, &info);
    const char *chosen = strstr(info.detail, "(");
    ck_assert_int_eq(chosen != NULL, speeds[_i].of_all != NULL);
    if (chosen) /* q and o, k and v, gate and up, down */
        ck_assert_msg(!strncmp(chosen + 1, speeds[_i].of_all, 4), "%s", info.detail);
    const uint32_t before = counter("fake_cublaslt_products");
    for (uint32_t count = 9; count <= 12; count += 3) /* below all of them */
        read_prompt(exec, count, s.logits[0]);
    ck_assert_uint_eq(counter("fake_cublaslt_products"), before);
    exec_destroy(exec);
    scene_deinit(&s);
}
END_TEST

/* Where the library cannot be had, for whatever reason, gemm.cu multiplies. */
START_TEST(auto_does_without)
{
    struct scene s;
    struct exec_info info;
    use_library(FAKE_PATH);
    scene_init(&s, &shapes[0]);
    uint32_t without = 0;
    for (uint32_t nth = 1; nth < 20; nth++) { /* the last two: its workspace, expanded weights */
        exec_t *exec;
        emu_fail_nth(EMU_CALL_ALLOC, nth);
        const int rc = try_open(&exec, &s, CUDA_GEMM_AUTO);
        const bool has_failed = emu_has_failed(EMU_CALL_ALLOC);
        emu_fail_nth(EMU_CALL_ALLOC, 0);
        if (rc == 0 && has_failed) {
            without++;
            exec_info(exec, &info);
            ck_assert_ptr_null(strstr(info.detail, "cuBLASLt"));
            read_prompt(exec, 9, s.logits[0]);
        }
        exec_destroy(exec);
        ck_assert_uint_eq(counter("fake_cublaslt_open"), 0);
        if (!has_failed)
            break;
    }
    ck_assert_uint_eq(without, 2);
    scene_deinit(&s);
}
END_TEST

START_TEST(without_the_library)
{
    struct scene s;
    struct exec_info info;
    exec_t *exec;
    use_library("/nowhere/libcublasLt.so");
    scene_init(&s, &shapes[0]);
    ck_assert_int_eq(try_open(&exec, &s, CUDA_GEMM_CUBLASLT), -ENOTSUP);
    ck_assert_ptr_null(exec);
    exec = open_exec(&s, CUDA_GEMM_AUTO, &info);
    ck_assert_ptr_null(strstr(info.detail, "cuBLASLt"));
    exec_destroy(exec);
    scene_deinit(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_gemm");
    TCase *tcase = tcase_create("choice");
    tcase_add_loop_test(tcase, the_library_makes_the_same_products, 0, SHAPES);
    tcase_add_loop_test(tcase, auto_measures, 0, SHAPES);
    tcase_add_loop_test(tcase, auto_measures_how_many_columns, 0, 3);
    tcase_add_test(tcase, auto_does_without);
    tcase_add_test(tcase, without_the_library);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
