/* SPDX-License-Identifier: Apache-2.0 */
/* Shards whose backend is the CUDA one, on the emulator: several processes (this program once more)
 * equal the whole model, in ragged batches and with stops; a rank that dies is found out, and new
 * ones serve as well. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cuda/cuda.h"
#include "kernels/shards/shards.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/suite.h"

#define CONTEXT     48u
#define BATCH       24u
#define SLOTS       3u
#define STEPS       3u
#define TOLERANCE   1e-4f /* of the largest logit, in float32 */
#define FAST        3e-2f /* the same, as halves */
#define PATIENCE_MS 120000u

static char path[] = "/tmp/weft-test-cuda-shards-XXXXXX";
static struct model *model;

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

static void open_shape(const struct tiny_shape *shape)
{
    size_t size;
    char why[128];
    strcpy(path + sizeof(path) - 7, "XXXXXX");
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    uint8_t *data = tiny_write(shape, &size);
    ck_assert_int_eq(write(fd, data, size), (ssize_t)size);
    close(fd);
    free(data);
    ck_assert_msg(model_open(&model, path, why, sizeof(why)) == 0, "%s", why);
}

static void close_shape(void)
{
    model_destroy(model);
    unlink(path);
}

static exec_t *whole(void)
{
    exec_t *exec;
    char why[160];
    const struct cuda_options options = {.slots = SLOTS, .context = CONTEXT, .batch_max = BATCH};
    ck_assert_int_eq(cuda_create(&exec, model, &options, why, sizeof(why)), 0);
    return exec;
}

static exec_t *cut(uint32_t shards, bool fast)
{
    exec_t *exec;
    char why[256] = "";
    const struct shards_options options = {
        .model_path = path,
        .shards = shards,
        .timeout_ms = PATIENCE_MS,
        .is_cuda = true,
        .fast = fast,
        .cpu = {.slots = SLOTS, .context = CONTEXT, .batch_max = BATCH}};
    ck_assert_msg(shards_create(&exec, model, &options, why, sizeof(why)) == 0, "%s", why);
    return exec;
}

static void compare(const char *what, const float *mine, const float *theirs, size_t count,
                    float tolerance)
{
    float largest = 1.0f;
    for (size_t i = 0; i < count; i++)
        largest = fmaxf(largest, fabsf(theirs[i]));
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabsf(mine[i] - theirs[i]) <= tolerance * largest, "%s %zu is %g, not %g",
                      what, i, (double)mine[i], (double)theirs[i]);
}

/* A step of all slots: pieces of prompts, now and then nothing but tokens. */
static size_t ragged(struct exec_row *rows, uint32_t *positions, uint32_t step, uint64_t *rng)
{
    size_t count = 0;
    for (uint32_t s = 0; s < SLOTS; s++) {
        const uint32_t take = step % 3 == 2 ? 1 : 1 + (uint32_t)(tiny_random(rng) % 7);
        for (uint32_t i = 0; i < take; i++) {
            const uint32_t token = (uint32_t)(tiny_random(rng) % 256);
            rows[count++] =
                (struct exec_row){s, positions[s]++, token, i + 1 == take, i + 1 == take && s == 1};
        }
    }
    return count;
}

static void run_both(exec_t *mine, exec_t *theirs, float tolerance, uint64_t seed)
{
    static float logits[2][SLOTS * 512];
    static float states[2][SLOTS * 512];
    struct exec_row rows[BATCH];
    uint32_t positions[SLOTS] = {0};
    uint64_t rng = seed;
    ck_assert(model->vocab <= 512 && model->width <= 512);
    for (uint32_t step = 0; step < STEPS; step++) {
        const struct exec_out out[2] = {{logits[0], states[0]}, {logits[1], states[1]}};
        const size_t count = ragged(rows, positions, step, &rng);
        memset(logits, 0xff, sizeof(logits));
        memset(states, 0xff, sizeof(states));
        ck_assert_int_eq(exec_forward_to(mine, rows, count, &out[0], NULL), 0);
        ck_assert_int_eq(exec_forward_to(theirs, rows, count, &out[1], NULL), 0);
        compare("logit", logits[0], logits[1], SLOTS * (size_t)model->vocab, tolerance);
        compare("state", states[0], states[1], model->width, tolerance);
    }
}

static const struct {
    const struct tiny_shape *shape;
    uint32_t ranks;
} ways[] = {{&biased, 1}, {&uneven, 2}, {&biased, 3}, {&uneven, 3}, {&biased, 4}};

START_TEST(ranks_equal_the_whole)
{
    struct exec_info info;
    open_shape(ways[_i].shape);
    exec_t *mine = cut(ways[_i].ranks, false);
    exec_t *theirs = whole();
    exec_info(mine, &info);
    ck_assert_str_eq(info.backend, "cuda");
    ck_assert_uint_eq(info.ranks, ways[_i].ranks);
    run_both(mine, theirs, TOLERANCE, 3 + (uint64_t)_i);
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

START_TEST(fast_ranks_are_close)
{
    open_shape(&uneven);
    exec_t *mine = cut(3, true);
    exec_t *theirs = whole();
    run_both(mine, theirs, FAST, 9);
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

static size_t fill(struct exec_row *rows, uint32_t slot, uint32_t count)
{
    for (uint32_t p = 0; p < count; p++)
        rows[p] = (struct exec_row){slot, p, p * 7 % 256, p + 1 == count, false};
    return count;
}

static void expect_right(exec_t *mine, exec_t *theirs)
{
    static float logits[2][512];
    struct exec_row rows[BATCH];
    const size_t count = fill(rows, 1, 12);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], NULL), 0);
    ck_assert_int_eq(exec_forward(theirs, rows, count, logits[1], NULL), 0);
    compare("logit", logits[0], logits[1], model->vocab, TOLERANCE);
}

/* All ranks stop behind the same layer, and know that the slot's rows have not been. */
START_TEST(a_stop_is_everyones)
{
    struct exec_watch watch = {.stop = true};
    struct exec_row rows[BATCH];
    float logits[512];
    open_shape(&uneven);
    exec_t *mine = cut(2, false);
    exec_t *theirs = whole();
    const size_t count = fill(rows, 1, 12);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits, &watch), -ECANCELED);
    ck_assert_int_eq(exec_forward(mine, rows + 3, 2, logits, NULL), -EINVAL);
    expect_right(mine, theirs);
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

static pid_t first_child(void)
{
    char name[64];
    pid_t child = 0;
    snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(name, "re");
    ck_assert_ptr_nonnull(file);
    if (fscanf(file, "%d", &child) != 1)
        child = 0;
    fclose(file);
    return child;
}

START_TEST(a_dead_rank_is_replaced)
{
    struct exec_row rows[BATCH];
    float logits[512];
    open_shape(&biased);
    exec_t *mine = cut(3, false);
    exec_t *theirs = whole();
    expect_right(mine, theirs);
    const pid_t child = first_child();
    ck_assert_int_gt(child, 0);
    kill(child, SIGKILL);
    ck_assert_int_eq(exec_forward(mine, rows, fill(rows, 0, 9), logits, NULL), -ESTALE);
    ck_assert_int_ne(first_child(), child);
    expect_right(mine, theirs);
    exec_destroy(mine);
    exec_destroy(theirs);
    ck_assert_int_eq(first_child(), 0);
    close_shape();
}
END_TEST

START_TEST(stages_are_refused)
{
    char why[256] = "";
    exec_t *exec;
    open_shape(&uneven);
    const struct shards_options options = {
        .model_path = path, .shards = 1, .stages = 2, .is_cuda = true};
    ck_assert_int_eq(shards_create(&exec, model, &options, why, sizeof(why)), -ENOTSUP);
    ck_assert_ptr_nonnull(strstr(why, "stages"));
    close_shape();
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
