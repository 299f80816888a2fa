/* SPDX-License-Identifier: Apache-2.0 */
/* Shards whose backend is the CUDA one, on the emulator: several processes (this program once more)
 * equal the whole model, in ragged batches and with stops; a rank that dies is found out, and new
 * ones serve as well. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "kernels/shards/shards.h"
#include "tests/unit/kernels/ranks.h"
#include "tests/unit/suite.h"

#define CONTEXT 48u
#define STEPS   3u
#define PROMPT  12u
#define FAST    3e-2f /* of the largest logit, as halves */

/* Three heads to a KV head, five blocks of the MLP: nothing that 2, 3 or 4 ranks divide evenly. */
static const struct tiny_shape uneven = {
    .seed = 21,
    .type = GGUF_TENSOR_Q4_1,
    .embedding_type = GGUF_TENSOR_Q8_0,
    .layers = 3,
    .heads = 9,
    .kv_heads = 3,
    .head_width = 32,
    .ffn_width = 160,
    .context = CONTEXT,
};

/* Biases, an output of its own, a head for each rank. */
static const struct tiny_shape biased = {
    .seed = 22,
    .type = GGUF_TENSOR_F16,
    .embedding_type = GGUF_TENSOR_F16,
    .layers = 2,
    .heads = 4,
    .kv_heads = 4,
    .head_width = 8,
    .ffn_width = 84,
    .context = CONTEXT,
    .untied = 1,
    .arch = "qwen2",
};

static exec_t *whole(void)
{
    exec_t *exec;
    char why[160];
    const struct cuda_options options = {
        .slots = RANKS_SLOTS, .context = CONTEXT, .batch_max = RANKS_BATCH};
    ck_assert_int_eq(cuda_create(&exec, ranks_model, &options, why, sizeof(why)), 0);
    return exec;
}

static exec_t *cut(uint32_t shards, bool fast)
{
    exec_t *exec;
    char why[256] = "";
    const struct shards_options options = {
        .model_path = ranks_path,
        .shards = shards,
        .timeout_ms = RANKS_PATIENCE_MS,
        .is_cuda = true,
        .fast = fast,
        .cpu = {.slots = RANKS_SLOTS, .context = CONTEXT, .batch_max = RANKS_BATCH}};
    ck_assert_msg(shards_create(&exec, ranks_model, &options, why, sizeof(why)) == 0, "%s", why);
    return exec;
}

static const struct {
    const struct tiny_shape *shape;
    uint32_t ranks;
} ways[] = {{&biased, 1}, {&uneven, 2}, {&biased, 3}, {&uneven, 3}, {&biased, 4}};

START_TEST(ranks_equal_the_whole)
{
    struct exec_info info;
    ranks_open(ways[_i].shape);
    exec_t *mine = cut(ways[_i].ranks, false);
    exec_t *theirs = whole();
    exec_info(mine, &info);
    ck_assert_str_eq(info.backend, "cuda");
    ck_assert_uint_eq(info.ranks, ways[_i].ranks);
    ranks_run_both(mine, theirs,
                   &(struct ranks_run){3 + (uint64_t)_i, STEPS, RANKS_TOLERANCE, false});
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
}
END_TEST

START_TEST(fast_ranks_are_close)
{
    ranks_open(&uneven);
    exec_t *mine = cut(3, true);
    exec_t *theirs = whole();
    ranks_run_both(mine, theirs, &(struct ranks_run){9, STEPS, FAST, false});
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
}
END_TEST

/* All ranks stop behind the same layer, and know that the slot's rows have not been. */
START_TEST(a_stop_is_everyones)
{
    struct exec_watch watch = {.stop = true};
    struct exec_row rows[RANKS_BATCH];
    float logits[512];
    ranks_open(&uneven);
    exec_t *mine = cut(2, false);
    exec_t *theirs = whole();
    const size_t count = ranks_fill(rows, 1, 12);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits, &watch), -ECANCELED);
    ck_assert_int_eq(exec_forward(mine, rows + 3, 2, logits, NULL), -EINVAL);
    ranks_expect_right(mine, theirs, PROMPT, false);
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
}
END_TEST

START_TEST(a_dead_rank_is_replaced)
{
    enum { RANKS = 2 }; /* beside this process */
    pid_t before[RANKS];
    pid_t after[RANKS];
    struct exec_row rows[RANKS_BATCH];
    float logits[512];
    ranks_open(&biased);
    exec_t *mine = cut(3, false);
    exec_t *theirs = whole();
    ranks_expect_right(mine, theirs, PROMPT, false);
    ck_assert_uint_eq(ranks_children(before, RANKS), RANKS);
    kill(before[0], SIGKILL);
    ck_assert_int_eq(exec_forward(mine, rows, ranks_fill(rows, 0, 9), logits, NULL), -ESTALE);
    ck_assert_uint_eq(ranks_children(after, RANKS), RANKS);
    ck_assert_int_ne(after[0], before[0]);
    ranks_expect_right(mine, theirs, PROMPT, false);
    exec_destroy(mine);
    exec_destroy(theirs);
    ck_assert_uint_eq(ranks_children(after, RANKS), 0);
    ranks_close();
}
END_TEST

START_TEST(stages_are_refused)
{
    char why[256] = "";
    exec_t *exec;
    ranks_open(&uneven);
    const struct shards_options options = {
        .model_path = ranks_path, .shards = 1, .stages = 2, .is_cuda = true};
    ck_assert_int_eq(shards_create(&exec, ranks_model, &options, why, sizeof(why)), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(why, "stages"));
    ranks_close();
}
END_TEST

int main(int argc, char **argv)
{
    if (shards_is_rank(argc, argv))
        return shards_rank_main();
    Suite *suite = suite_create("cuda_shards");
    TCase *tcase = tcase_create("shards");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, ranks_equal_the_whole, 0, sizeof(ways) / sizeof(ways[0]));
    tcase_add_test(tcase, fast_ranks_are_close);
    tcase_add_test(tcase, a_stop_is_everyones);
    tcase_add_test(tcase, a_dead_rank_is_replaced);
    tcase_add_test(tcase, stages_are_refused);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
