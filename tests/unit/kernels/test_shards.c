/* SPDX-License-Identifier: Apache-2.0 */
/* Shards and stages as real processes (this program once more): they equal the whole model, in
 * ragged batches and with stops; a rank that dies or stands still is found out, and new ones serve
 * as well. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/engine/engine.h"
#include "kernels/shards/shards.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define CONTEXT     100u
#define BATCH       32u
#define SLOTS       3u
#define TOLERANCE   1e-4f /* of logits around 1, in float32 */
#define STEPS       24u
#define REAL_STEPS  (SANITIZED ? 3u : 32u)
#define PATIENCE_MS 120000u /* for a rank on a busy machine */
#define FROZEN_MS   3000u   /* for one that stands still; others may now and then seem to */

static char path[] = "/tmp/weft-test-shards-XXXXXX";
static uint8_t *data;
static struct model *model;

/* Three heads to a KV head and five blocks of the MLP, as uneven as SmolLM2's. */
static const struct tiny_shape uneven = {
    .seed = 11,
    .type = GGUF_TENSOR_Q4_1,
    .embedding_type = GGUF_TENSOR_Q8_0,
    .layers = 4,
    .heads = 9,
    .kv_heads = 3,
    .head_width = 32,
    .ffn_width = 160,
    .context = CONTEXT,
};

static void open_shape(const struct tiny_shape *shape)
{
    size_t size;
    char why[128];
    strcpy(path + sizeof(path) - 7, "XXXXXX");
    const int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    data = tiny_write(shape, &size);
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

static struct cpu_options options_of(bool exact)
{
    return (struct cpu_options){
        .exact = exact, .slots = SLOTS, .context = CONTEXT, .batch_max = BATCH};
}

static exec_t *whole(bool exact)
{
    exec_t *exec;
    const struct cpu_options options = options_of(exact);
    ck_assert_int_eq(cpu_create(&exec, model, &options), 0);
    return exec;
}

static exec_t *cut_for(uint32_t stages, uint32_t shards, bool exact, uint32_t timeout_ms)
{
    exec_t *exec;
    char why[256] = "";
    const struct shards_options options = {.model_path = path,
                                           .stages = stages,
                                           .shards = shards,
                                           .timeout_ms = timeout_ms,
                                           .cpu = options_of(exact)};
    ck_assert_msg(shards_create(&exec, model, &options, why, sizeof(why)) == 0, "%s", why);
    return exec;
}

static exec_t *cut(uint32_t stages, uint32_t shards, bool exact)
{
    return cut_for(stages, shards, exact, PATIENCE_MS);
}

static uint32_t best_of(const float *logits)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < model->vocab; i++)
        best = logits[i] > logits[best] ? i : best;
    return best;
}

/* The largest difference, of the largest logit. NaN is one, too. */
static void compare(const float *mine, const float *theirs, size_t count, float tolerance,
                    const char *what)
{
    float largest = 1.0f;
    for (size_t i = 0; i < count; i++)
        largest = fabsf(theirs[i]) > largest ? fabsf(theirs[i]) : largest;
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(fabsf(mine[i] - theirs[i]) <= tolerance * largest, "%s: %zu is %g, not %g",
                      what, i, (double)mine[i], (double)theirs[i]);
}

/* One step of all slots, some with a piece of a prompt and some with a token: how many rows. */
static size_t ragged(struct exec_row *rows, uint32_t *positions, const uint32_t *last,
                     uint64_t *rng)
{
    size_t count = 0;
    for (uint32_t s = 0; s < SLOTS; s++) {
        const uint32_t take = tiny_random(rng) % 3 ? 1 : 1 + (uint32_t)(tiny_random(rng) % 7);
        for (uint32_t i = 0; i < take; i++) {
            const uint32_t token = i ? (uint32_t)(tiny_random(rng) % 256) : last[s];
            rows[count++] =
                (struct exec_row){s, positions[s]++, token, i + 1 == take, i + 1 == take};
        }
    }
    return count;
}

static void run_both(exec_t *mine, exec_t *theirs, float tolerance, bool same_tokens, uint64_t seed)
{
    static float logits[2][SLOTS * 512];
    static float states[2][SLOTS * 512];
    struct exec_row rows[BATCH];
    uint32_t positions[SLOTS] = {0};
    uint32_t last[SLOTS] = {5, 6, 7};
    uint64_t rng = seed;
    ck_assert(model->vocab <= 512 && model->width <= 512);
    for (uint32_t step = 0; step < (SANITIZED ? 6 : STEPS); step++) {
        const struct exec_out out[2] = {{logits[0], states[0]}, {logits[1], states[1]}};
        const size_t count = ragged(rows, positions, last, &rng);
        memset(logits, 0xff, sizeof(logits));
        memset(states, 0xff, sizeof(states));
        ck_assert_int_eq(exec_forward_to(mine, rows, count, &out[0], NULL), 0);
        ck_assert_int_eq(exec_forward_to(theirs, rows, count, &out[1], NULL), 0);
        compare(logits[0], logits[1], SLOTS * (size_t)model->vocab, tolerance, "logit");
        compare(states[0], states[1], SLOTS * (size_t)model->width, tolerance, "state");
        for (uint32_t s = 0; s < SLOTS; s++) {
            last[s] = best_of(logits[1] + (size_t)s * model->vocab);
            ck_assert(!same_tokens || best_of(logits[0] + (size_t)s * model->vocab) == last[s]);
        }
    }
}

/* {stages, shards} */
static const uint32_t ways[][2] = {{1, 2}, {1, 3}, {1, 4}, {2, 1}, {3, 1}, {2, 2}, {1, 5}};

START_TEST(test_equals_whole)
{
    open_shape(&uneven);
    exec_t *mine = cut(ways[_i][0], ways[_i][1], true);
    exec_t *theirs = whole(true);
    struct exec_info info;
    exec_info(mine, &info);
    ck_assert_uint_eq(info.ranks, ways[_i][0] * ways[_i][1]);
    run_both(mine, theirs, TOLERANCE, true, 3 + (uint64_t)_i);
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

/* The default model's own uneven heads, 9 over 3: the whole one's answer, token by token. */
START_TEST(test_real_model)
{
    char why[256] = "";
    const char *file = tiny_real_model();
    if (!file)
        return;
    ck_assert_msg(model_open(&model, file, why, sizeof(why)) == 0, "%s", why);
    float *logits = calloc(2, model->vocab * sizeof(*logits));
    const struct shards_options options = {.model_path = file,
                                           .shards = 2 + (uint32_t)_i,
                                           .timeout_ms = PATIENCE_MS,
                                           .cpu = options_of(true)};
    exec_t *mine;
    exec_t *theirs = whole(true);
    struct exec_row rows[BATCH];
    ck_assert_msg(shards_create(&mine, model, &options, why, sizeof(why)) == 0, "%s", why);
    size_t count = fill(rows, 0, 12);
    for (uint32_t step = 0; step < REAL_STEPS; step++) {
        const uint32_t position = rows[count - 1].position + 1;
        ck_assert_int_eq(exec_forward(mine, rows, count, logits, NULL), 0);
        ck_assert_int_eq(exec_forward(theirs, rows, count, logits + model->vocab, NULL), 0);
        compare(logits, logits + model->vocab, model->vocab, TOLERANCE, "logit");
        const uint32_t best = best_of(logits + model->vocab);
        ck_assert_uint_eq(best_of(logits), best);
        rows[0] = (struct exec_row){0, position, best, true, false};
        count = 1;
    }
    free(logits);
    exec_destroy(theirs);
    exec_destroy(mine);
    model_destroy(model);
}
END_TEST

/* Integers are exact and each block is at one rank only, but the stream's bytes round where its
 * last bits differ. */
START_TEST(test_fast)
{
    open_shape(&uneven);
    exec_t *mine = cut(1, 3, false);
    exec_t *theirs = whole(false);
    run_both(mine, theirs, 0.05f, false, 9);
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

/* Biases, norms of heads, an output of its own, blocks of 256, widths that nothing divides. */
START_TEST(test_kinds)
{
    static const struct tiny_shape kinds[] = {
        {.arch = "qwen2",
         .type = GGUF_TENSOR_F16,
         .heads = 5,
         .kv_heads = 5,
         .head_width = 10,
         .ffn_width = 83},
        {.arch = "qwen3",
         .type = GGUF_TENSOR_Q8_0,
         .heads = 6,
         .kv_heads = 2,
         .head_width = 16,
         .ffn_width = 96,
         .width = 64,
         .untied = 1},
        {.arch = "llama",
         .type = GGUF_TENSOR_Q4_K,
         .heads = 16,
         .kv_heads = 4,
         .head_width = 32,
         .ffn_width = 768,
         .untied = 1},
        {.arch = "llama",
         .type = GGUF_TENSOR_F32,
         .heads = 3,
         .kv_heads = 1,
         .head_width = 8,
         .ffn_width = 20},
    };
    struct tiny_shape shape = kinds[_i];
    shape.seed = 70 + (uint64_t)_i;
    shape.embedding_type = GGUF_TENSOR_F16;
    shape.layers = 2;
    shape.context = CONTEXT;
    open_shape(&shape);
    exec_t *mine = cut(1, 2 + (uint32_t)_i % 2, true);
    exec_t *theirs = whole(true);
    run_both(mine, theirs, TOLERANCE, true, 5);
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

/* What cannot be cut is refused with a sentence: here blocks of 256 columns for three ranks. */
START_TEST(test_refused)
{
    struct tiny_shape shape = uneven;
    struct model *part;
    char why[256] = "";
    shape.type = GGUF_TENSOR_Q4_K;
    shape.heads = shape.kv_heads = 8;
    shape.ffn_width = 512;
    open_shape(&shape);
    const struct model_place places[] = {{0, 1, 2, 3}, {0, 1, 3, 3}, {1, 1, 0, 1},
                                         {0, 5, 0, 1}, {0, 0, 0, 1}, {0, 1, 0, 0}};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        ck_assert_int_eq(model_part(&part, model, &places[i], why, sizeof(why)), -EINVAL);
        ck_assert_ptr_null(part);
        ck_assert_ptr_nonnull(strstr(why, "cannot be cut"));
    }
    exec_t *exec;
    struct shards_options options = {.model_path = path, .shards = 3, .cpu = options_of(true)};
    ck_assert_int_eq(shards_create(&exec, model, &options, why, sizeof(why)), -EINVAL);
    options.shards = SHARDS_RANKS_MAX + 1;
    ck_assert_int_eq(shards_create(&exec, model, &options, why, sizeof(why)), -EINVAL);
    close_shape();
}
END_TEST

/* ---- ranks that are lost -------------------------------------------------------------------- */

/* This process's children, at most `max`; returns how many. */
static size_t children(pid_t *out, size_t max)
{
    char name[64];
    size_t count = 0;
    snprintf(name, sizeof(name), "/proc/self/task/%d/children", (int)getpid());
    FILE *file = fopen(name, "re");
    ck_assert_ptr_nonnull(file);
    while (count < max && fscanf(file, "%d", &out[count]) == 1)
        count++;
    fclose(file);
    return count;
}

static void expect_right(exec_t *mine, exec_t *theirs, bool may_seem_lost)
{
    static float logits[2][512];
    struct exec_row rows[BATCH];
    const size_t count = fill(rows, 1, 20);
    int rc = exec_forward(mine, rows, count, logits[0], NULL);
    while (rc == -ESTALE && may_seem_lost)
        rc = exec_forward(mine, rows, count, logits[0], NULL);
    ck_assert_int_eq(rc, 0);
    ck_assert_int_eq(exec_forward(theirs, rows, count, logits[1], NULL), 0);
    compare(logits[0], logits[1], model->vocab, TOLERANCE, "logit");
}

static void lose(uint32_t stages, uint32_t shards, int number)
{
    const bool is_frozen = number == SIGSTOP;
    pid_t before[SHARDS_RANKS_MAX];
    pid_t after[SHARDS_RANKS_MAX];
    float logits[512];
    struct exec_row rows[BATCH];
    const size_t ranks = stages * shards - 1;
    open_shape(&uneven);
    exec_t *mine = cut_for(stages, shards, true, is_frozen ? FROZEN_MS : PATIENCE_MS);
    exec_t *theirs = whole(true);
    expect_right(mine, theirs, is_frozen);
    ck_assert_uint_eq(children(before, SHARDS_RANKS_MAX), ranks);
    kill(before[ranks - 1], number);
    ck_assert_int_eq(exec_forward(mine, rows, fill(rows, 0, 9), logits, NULL), -ESTALE);
    ck_assert_uint_eq(children(after, SHARDS_RANKS_MAX), ranks);
    for (size_t i = 0; i < ranks; i++)
        for (size_t j = 0; j < ranks; j++)
            ck_assert_int_ne(before[i], after[j]); /* none of the old ones is left */
    expect_right(mine, theirs, is_frozen);
    exec_destroy(mine);
    ck_assert_uint_eq(children(after, SHARDS_RANKS_MAX), 0);
    exec_destroy(theirs);
    close_shape();
}

START_TEST(test_dead_rank)
{
    lose(1, 3, SIGKILL);
    lose(2, 2, SIGKILL);
}
END_TEST

START_TEST(test_frozen_rank)
{
    lose(1, 2, SIGSTOP);
}
END_TEST

/* While new ranks are on their way a stop is obeyed, and pages that were placed hold. */
START_TEST(test_placed_meanwhile)
{
    pid_t pids[SHARDS_RANKS_MAX];
    static float logits[2][512];
    struct exec_row rows[BATCH];
    struct exec_watch watch = {.stop = true};
    const uint32_t pages[] = {5, 2};
    open_shape(&uneven);
    exec_t *mine = cut(1, 2, true);
    exec_t *theirs = whole(true);
    ck_assert_uint_eq(children(pids, SHARDS_RANKS_MAX), 1);
    kill(pids[0], SIGKILL);
    const size_t count = fill(rows, 2, 20);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], NULL), -ESTALE);
    ck_assert_int_eq(exec_place(mine, 2, pages, 2, 0), 0);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], &watch), -ECANCELED);
    watch.stop = false;
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], &watch), 0);
    ck_assert_int_eq(exec_forward(theirs, rows, count, logits[1], NULL), 0);
    compare(logits[0], logits[1], model->vocab, TOLERANCE, "logit");
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

/* A stop leaves all ranks where they were, the gap rule included. */
START_TEST(test_stop)
{
    struct exec_watch watch = {.stop = true};
    struct exec_row rows[BATCH];
    float logits[512];
    open_shape(&uneven);
    exec_t *mine = cut(_i ? 2 : 1, 2, true);
    exec_t *theirs = whole(true);
    const size_t count = fill(rows, 1, 20);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits, &watch), -ECANCELED);
    ck_assert_int_eq(exec_forward(mine, rows + 3, 2, logits, NULL), -EINVAL);
    expect_right(mine, theirs, false);
    exec_destroy(theirs);
    exec_destroy(mine);
    close_shape();
}
END_TEST

static bool is_gone(pid_t pid)
{
    char name[64];
    char state = 'Z';
    snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
    FILE *file = fopen(name, "re");
    if (!file)
        return true;
    if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = 'Z';
    fclose(file);
    return state == 'Z';
}

/* The first rank's death is everyone's end. */
START_TEST(test_first_rank_dies)
{
    int fds[2];
    pid_t ranks[2];
    open_shape(&uneven);
    ck_assert_int_eq(pipe(fds), 0);
    const pid_t first = fork();
    ck_assert_int_ge(first, 0);
    if (first == 0) {
        (void)cut(1, 3, true);
        if (children(ranks, 2) == 2 && write(fds[1], ranks, sizeof(ranks)) == sizeof(ranks))
            raise(SIGKILL);
        _exit(1);
    }
    ck_assert_int_eq(read(fds[0], ranks, sizeof(ranks)), sizeof(ranks));
    ck_assert_int_eq(waitpid(first, NULL, 0), first);
    while (!is_gone(ranks[0]) || !is_gone(ranks[1])) /* the test's own limit bounds it */
        usleep(1000);
    close(fds[0]);
    close(fds[1]);
    close_shape();
}
END_TEST

/* ---- pages outside ---- */

#define TURN   40u
#define ANSWER 10u

struct taken {
    uint8_t *data;
    size_t size;
};

static int take(void *user, const void *from, size_t size)
{
    struct taken *t = user;
    t->data = realloc(t->data, t->size + size);
    ck_assert_ptr_nonnull(t->data);
    memcpy(t->data + t->size, from, size);
    t->size += size;
    return 0;
}

static engine_t *engine_on(exec_t *exec)
{
    engine_t *engine;
    const struct engine_options options = {.queue_max = 1};
    ck_assert_int_eq(engine_create(&engine, exec, NULL, &options), 0);
    return engine;
}

/* A greedy answer behind `count` tokens, put behind them; returns how many needed no work. */
static uint32_t answer(engine_t *engine, uint32_t *tokens, uint32_t count)
{
    struct engine_event events[16];
    const struct engine_request request = {.id = 1,
                                           .tokens = tokens,
                                           .token_count = count,
                                           .sampling = {.top_p = 1.0f},
                                           .max_tokens = ANSWER};
    ck_assert_uint_le(engine_events_max(engine), 16);
    ck_assert_int_eq(engine_submit(engine, &request, 1), 0);
    for (uint32_t got = 0;;) {
        const int n = engine_step(engine, 1, events, 16);
        ck_assert_int_ge(n, 0);
        for (int i = 0; i < n; i++) {
            if (events[i].kind == ENGINE_TOKEN) {
                tokens[count + got++] = events[i].token;
                continue;
            }
            ck_assert_int_eq(events[i].finish, ENGINE_LENGTH);
            return events[i].cached_tokens;
        }
    }
}

/* The second turn of a talk whose first one was at ranks that are gone, or at nobody's. */
static void second_turn(exec_t *exec, const struct taken *moved, const uint32_t *talk,
                        uint32_t *out)
{
    uint32_t tokens[CONTEXT];
    engine_t *engine = engine_on(exec);
    memcpy(tokens, talk, 2 * TURN * sizeof(*talk));
    if (moved)
        ck_assert_int_eq(engine_import(engine, 7, moved->data, moved->size),
                         (TURN + ANSWER - 1) / EXEC_PAGE_TOKENS);
    const uint32_t cached = answer(engine, tokens, 2 * TURN);
    ck_assert_uint_eq(cached,
                      moved ? (TURN + ANSWER - 1) / EXEC_PAGE_TOKENS * EXEC_PAGE_TOKENS : 0);
    memcpy(out, tokens + 2 * TURN, ANSWER * sizeof(*out));
    engine_destroy(engine);
    exec_destroy(exec);
}

/* Pages go from ranks to other ranks cut in the same way, or in another, or not at all: the answer
 * is that of who has computed everything. */
START_TEST(test_pages_move)
{
    const uint32_t stages = ways[_i][0];
    const uint32_t shards = ways[_i][1];
    uint32_t talk[CONTEXT];
    uint32_t expected[ANSWER];
    uint32_t got[ANSWER];
    struct taken moved = {.size = 0};
    uint64_t rng = suite_seed((uint64_t)_i + 3);
    open_shape(&uneven);
    for (uint32_t i = 0; i < CONTEXT; i++)
        talk[i] = (uint32_t)(tiny_random(&rng) % 256);
    exec_t *exec = cut(stages, shards, true);
    engine_t *engine = engine_on(exec);
    (void)answer(engine, talk, TURN);
    ck_assert_int_eq(engine_export(engine, 7, take, &moved),
                     (TURN + ANSWER - 1) / EXEC_PAGE_TOKENS);
    engine_destroy(engine);
    exec_destroy(exec);
    second_turn(cut(stages, shards, true), NULL, talk, expected);
    second_turn(cut(stages, shards, true), &moved, talk, got);
    ck_assert_mem_eq(got, expected, sizeof(expected));
    second_turn(whole(true), NULL, talk, expected);
    second_turn(whole(true), &moved, talk, got);
    ck_assert_mem_eq(got, expected, sizeof(expected));
    free(moved.data);
    close_shape();
}
END_TEST

/* Those that compute otherwise say so: keep.c and the mesh tell them apart by it. */
START_TEST(test_ranks_have_names)
{
    static const struct {
        uint32_t shards;
        bool exact;
    } kinds[] = {{2, true}, {3, true}, {2, false}};
    char names[3][96];
    open_shape(&uneven);
    for (size_t i = 0; i < 3; i++) {
        struct exec_info info;
        exec_t *exec = cut(1, kinds[i].shards, kinds[i].exact);
        exec_info(exec, &info);
        ck_assert_ptr_null(info.mode);
        (void)snprintf(names[i], sizeof(names[i]), "%s", info.detail);
        for (size_t j = 0; j < i; j++)
            ck_assert_str_ne(names[i], names[j]);
        exec_destroy(exec);
    }
    close_shape();
}
END_TEST

/* A rank that is gone gives no pages; what was held is lost, and then all goes on. */
START_TEST(test_pages_of_a_dead_rank)
{
    uint32_t talk[CONTEXT];
    struct taken moved = {.size = 0};
    pid_t pids[8];
    uint64_t rng = 77;
    open_shape(&uneven);
    for (uint32_t i = 0; i < CONTEXT; i++)
        talk[i] = (uint32_t)(tiny_random(&rng) % 256);
    exec_t *exec = cut(1, 2, true);
    engine_t *engine = engine_on(exec);
    (void)answer(engine, talk, TURN);
    ck_assert_uint_ge(children(pids, 8), 1);
    ck_assert_int_eq(kill(pids[0], SIGKILL), 0);
    ck_assert_int_lt(engine_export(engine, 7, take, &moved), 0);
    struct exec_row row = {.slot = 0, .want_logits = false};
    ck_assert_int_eq(exec_forward(exec, &row, 1, NULL, NULL), -ESTALE);
    engine_destroy(engine);
    exec_t *theirs = whole(true);
    expect_right(exec, theirs, false);
    exec_destroy(theirs);
    exec_destroy(exec);
    free(moved.data);
    close_shape();
}
END_TEST

int main(int argc, char **argv)
{
    if (shards_is_rank(argc, argv))
        return shards_rank_main();
    Suite *suite = suite_create("shards");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 500);
    tcase_add_loop_test(tcase, test_equals_whole, 0, sizeof(ways) / sizeof(ways[0]));
    tcase_add_loop_test(tcase, test_real_model, 0, SANITIZED ? 1 : 3);
    tcase_add_test(tcase, test_fast);
    tcase_add_loop_test(tcase, test_kinds, 0, 4);
    tcase_add_test(tcase, test_refused);
    tcase_add_test(tcase, test_dead_rank);
    tcase_add_test(tcase, test_frozen_rank);
    tcase_add_test(tcase, test_placed_meanwhile);
    tcase_add_loop_test(tcase, test_stop, 0, 2);
    tcase_add_test(tcase, test_first_rank_dies);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("pages");
    tcase_set_timeout(tcase, 500);
    tcase_add_loop_test(tcase, test_pages_move, 0, 6);
    tcase_add_test(tcase, test_ranks_have_names);
    tcase_add_test(tcase, test_pages_of_a_dead_rank);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
