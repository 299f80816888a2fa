/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's greedy output equals a plain float32 implementation's, token by token, over small
 * random models of every type of weight. test_greedy_model.c does the same with a real one. */
#include <check.h>
#include <stdlib.h>

#include "greedy.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define PROMPTS 3u
#define NEW     40u

static void compare(const struct tiny_shape *shape, const struct cpu_options *options)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct model *model;
    uint32_t tokens[PROMPTS][48];
    uint32_t *prompts[PROMPTS];
    size_t counts[PROMPTS] = {1, 19, 47};
    uint64_t rng = shape->seed + 100;
    uint8_t *data = tiny_write(shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_msg(model_create(&model, file, why, sizeof(why)) == 0, "%s", why);
    for (size_t p = 0; p < PROMPTS; p++) {
        prompts[p] = tokens[p];
        for (size_t i = 0; i < counts[p]; i++)
            tokens[p][i] = (uint32_t)(tiny_random(&rng) % TINY_VOCAB);
    }
    (void)greedy_compare(model, NULL, options, prompts, counts, PROMPTS, NEW);
    model_destroy(model);
    free(data);
}

START_TEST(test_types)
{
    static const uint32_t types[] = {GGUF_TENSOR_F32,  GGUF_TENSOR_F16,  GGUF_TENSOR_BF16,
                                     GGUF_TENSOR_Q4_0, GGUF_TENSOR_Q4_1, GGUF_TENSOR_Q5_0,
                                     GGUF_TENSOR_Q5_1, GGUF_TENSOR_Q8_0};
    const struct cpu_options options = {.exact = true,
                                        .slots = PROMPTS,
                                        .context = 128,
                                        .batch_max = 16,
                                        .force_portable = _i % 2 == 1};
    struct tiny_shape shape = tiny_default;
    shape.type = types[_i / 2];
    shape.seed = 40 + (uint64_t)_i;
    shape.untied = _i % 2;
    compare(&shape, &options);
}
END_TEST

START_TEST(test_super_blocks)
{
    static const uint32_t types[] = {GGUF_TENSOR_Q4_K, GGUF_TENSOR_Q5_K, GGUF_TENSOR_Q6_K};
    const struct cpu_options options = {
        .exact = true, .slots = PROMPTS, .context = 128, .batch_max = 16};
    const struct tiny_shape shape = {.seed = 2,
                                     .type = types[_i],
                                     .embedding_type = types[_i],
                                     .layers = 1,
                                     .heads = 8,
                                     .kv_heads = 8,
                                     .head_width = 32,
                                     .ffn_width = 256,
                                     .context = 128};
    compare(&shape, &options);
}
END_TEST

/* Widths that neither blocks nor lanes divide, and threads. */
START_TEST(test_odd_widths)
{
    const struct cpu_options options = {
        .exact = true, .slots = 2, .context = 90, .batch_max = 7, .threads = 1 + (uint32_t)_i};
    const struct tiny_shape shape = {.seed = 3,
                                     .type = GGUF_TENSOR_F16,
                                     .embedding_type = GGUF_TENSOR_F32,
                                     .layers = 3,
                                     .heads = 6,
                                     .kv_heads = 3,
                                     .head_width = 10,
                                     .ffn_width = 83,
                                     .context = 100};
    compare(&shape, &options);
}
END_TEST

/* What families have of their own, and each way of stretching positions. */
START_TEST(test_families)
{
    static const struct tiny_shape kinds[] = {
        {.arch = "llama", .rope_factors = 1},
        {.arch = "qwen2"},
        {.arch = "qwen3", .width = 64},
        {.arch = "qwen3", .scaling = "yarn"},
        {.arch = "qwen2", .scaling = "linear"},
        {.arch = "llama", .scaling = "yarn", .rope_factors = 1},
    };
    const struct cpu_options options = {
        .exact = true, .slots = PROMPTS, .context = 128, .batch_max = 16};
    struct tiny_shape shape = tiny_default;
    shape.seed = 90 + (uint64_t)_i;
    shape.arch = kinds[_i].arch;
    shape.scaling = kinds[_i].scaling;
    shape.rope_factors = kinds[_i].rope_factors;
    shape.width = kinds[_i].width;
    shape.context = 8192; /* far enough for pairs of every speed */
    compare(&shape, &options);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("greedy");
    TCase *tcase = tcase_create("core");
    tcase_add_loop_test(tcase, test_types, 0, 16);
    tcase_add_loop_test(tcase, test_super_blocks, 0, 3);
    tcase_add_loop_test(tcase, test_odd_widths, 0, 3);
    tcase_add_loop_test(tcase, test_families, 0, 6);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
