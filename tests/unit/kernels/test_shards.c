/* SPDX-License-Identifier: Apache-2.0 */
/* Shards and stages as real processes (this program once more): they equal the whole model, in
 * ragged batches and with stops; a rank that dies or stands still is found out, and new ones serve
 * as well. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/engine/engine.h"
#include "kernels/shards/shards.h"
#include "ranks.h"
#include "schemas/base/clock.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define CONTEXT    100u
#define STEPS      (SANITIZED ? 6u : 24u)
#define REAL_STEPS (SANITIZED ? 3u : 32u)
#define FROZEN_MS  3000u /* for one that stands still; others may now and then seem to */

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

static struct cpu_options options_of(bool exact)
{
    return (struct cpu_options){
        .exact = exact, .slots = RANKS_SLOTS, .context = CONTEXT, .batch_max = RANKS_BATCH};
}

static exec_t *whole(bool exact)
{
    exec_t *exec;
    const struct cpu_options options = options_of(exact);
    ck_assert_int_eq(cpu_create(&exec, ranks_model, &options), 0);
    return exec;
}

static exec_t *cut_for(uint32_t stages, uint32_t shards, bool exact, uint32_t timeout_ms)
{
    exec_t *exec;
    char why[256] = "";
    const struct shards_options options = {.model_path = ranks_path,
                                           .stages = stages,
                                           .shards = shards,
                                           .timeout_ms = timeout_ms,
                                           .cpu = options_of(exact)};
    ck_assert_msg(shards_create(&exec, ranks_model, &options, why, sizeof(why)) == 0, "%s", why);
    return exec;
}

static exec_t *cut(uint32_t stages, uint32_t shards, bool exact)
{
    return cut_for(stages, shards, exact, RANKS_PATIENCE_MS);
}

/* {stages, shards} */
#define STAGED 4u /* where the cuts without shards are */
static const uint32_t ways[][2] = {{1, 2}, {1, 3}, {1, 4}, {2, 2}, {2, 1}, {3, 1}, {1, 5}};

START_TEST(test_equals_whole)
{
    ranks_open(&uneven);
    exec_t *mine = cut(ways[_i][0], ways[_i][1], true);
    exec_t *theirs = whole(true);
    struct exec_info info;
    exec_info(mine, &info);
    ck_assert_uint_eq(info.ranks, ways[_i][0] * ways[_i][1]);
    ranks_run_both(mine, theirs,
                   &(struct ranks_run){3 + (uint64_t)_i, STEPS, RANKS_TOLERANCE, true});
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
}
END_TEST

/* Stages add nothing up: the whole one's bits, in either mode, and so they call it by its name. */
START_TEST(test_stages_are_the_whole)
{
    const uint32_t stages = ways[STAGED + (uint32_t)_i / 2][0];
    const bool exact = _i % 2;
    struct exec_info infos[2];
    ranks_open(&uneven);
    exec_t *mine = cut(stages, 1, exact);
    exec_t *theirs = whole(exact);
    exec_info(mine, &infos[0]);
    exec_info(theirs, &infos[1]);
    ck_assert(!infos[0].mode == !infos[1].mode);
    ck_assert(!infos[0].mode || strcmp(infos[0].mode, infos[1].mode) == 0);
    ck_assert_str_eq(infos[0].detail, infos[1].detail);
    ranks_run_both(mine, theirs, &(struct ranks_run){7 + (uint64_t)_i, STEPS, 0.0f, true});
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
}
END_TEST

/* The default model's own uneven heads, 9 over 3: the whole one's answer, token by token. */
START_TEST(test_real_model)
{
    char why[256] = "";
    const char *file = tiny_real_model();
    if (!file)
        return;
    ck_assert_msg(model_open(&ranks_model, file, why, sizeof(why)) == 0, "%s", why);
    float *logits = calloc(2, ranks_model->vocab * sizeof(*logits));
    const struct shards_options options = {.model_path = file,
                                           .shards = 2 + (uint32_t)_i,
                                           .timeout_ms = RANKS_PATIENCE_MS,
                                           .cpu = options_of(true)};
    exec_t *mine;
    exec_t *theirs = whole(true);
    struct exec_row rows[RANKS_BATCH];
    ck_assert_msg(shards_create(&mine, ranks_model, &options, why, sizeof(why)) == 0, "%s", why);
    size_t count = ranks_fill(rows, 0, 12);
    for (uint32_t step = 0; step < REAL_STEPS; step++) {
        const uint32_t position = rows[count - 1].position + 1;
        ck_assert_int_eq(exec_forward(mine, rows, count, logits, NULL), 0);
        ck_assert_int_eq(exec_forward(theirs, rows, count, logits + ranks_model->vocab, NULL), 0);
        ranks_compare("logit", logits, logits + ranks_model->vocab, ranks_model->vocab,
                      RANKS_TOLERANCE);
        const uint32_t best = ranks_best(logits + ranks_model->vocab);
        ck_assert_uint_eq(ranks_best(logits), best);
        rows[0] = (struct exec_row){0, position, best, true, false};
        count = 1;
    }
    free(logits);
    exec_destroy(theirs);
    exec_destroy(mine);
    model_destroy(ranks_model);
}
END_TEST

/* Integers are exact and each block is at one rank only, but the stream's bytes round where its
 * last bits differ. */
START_TEST(test_fast)
{
    ranks_open(&uneven);
    exec_t *mine = cut(1, 3, false);
    exec_t *theirs = whole(false);
    ranks_run_both(mine, theirs, &(struct ranks_run){9, STEPS, 0.05f, false});
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
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
    ranks_open(&shape);
    exec_t *mine = cut(1, 2 + (uint32_t)_i % 2, true);
    exec_t *theirs = whole(true);
    ranks_run_both(mine, theirs, &(struct ranks_run){5, STEPS, RANKS_TOLERANCE, true});
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
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
    ranks_open(&shape);
    const struct model_place places[] = {{0, 1, 2, 3}, {0, 1, 3, 3}, {1, 1, 0, 1},
                                         {0, 5, 0, 1}, {0, 0, 0, 1}, {0, 1, 0, 0}};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        ck_assert_int_eq(model_part(&part, ranks_model, &places[i], why, sizeof(why)), -EINVAL);
        ck_assert_ptr_null(part);
        ck_assert_ptr_nonnull(strstr(why, "cannot be cut"));
    }
    exec_t *exec;
    struct shards_options options = {
        .model_path = ranks_path, .shards = 3, .cpu = options_of(true)};
    ck_assert_int_eq(shards_create(&exec, ranks_model, &options, why, sizeof(why)), -EINVAL);
    options.shards = SHARDS_RANKS_MAX + 1;
    ck_assert_int_eq(shards_create(&exec, ranks_model, &options, why, sizeof(why)), -EINVAL);
    ranks_close();
}
END_TEST

/* ---- ranks that are lost -------------------------------------------------------------------- */

static void lose(uint32_t stages, uint32_t shards, int number)
{
    const bool is_frozen = number == SIGSTOP;
    pid_t before[SHARDS_RANKS_MAX];
    pid_t after[SHARDS_RANKS_MAX];
    float logits[512];
    struct exec_row rows[RANKS_BATCH];
    const size_t ranks = stages * shards - 1;
    ranks_open(&uneven);
    exec_t *mine = cut_for(stages, shards, true, is_frozen ? FROZEN_MS : RANKS_PATIENCE_MS);
    exec_t *theirs = whole(true);
    ranks_expect_right(mine, theirs, 20, is_frozen);
    ck_assert_uint_eq(ranks_children(before, SHARDS_RANKS_MAX), ranks);
    kill(before[ranks - 1], number);
    ck_assert_int_eq(exec_forward(mine, rows, ranks_fill(rows, 0, 9), logits, NULL), -ESTALE);
    ck_assert_uint_eq(ranks_children(after, SHARDS_RANKS_MAX), ranks);
    for (size_t i = 0; i < ranks; i++)
        for (size_t j = 0; j < ranks; j++)
            ck_assert_int_ne(before[i], after[j]); /* none of the old ones is left */
    ranks_expect_right(mine, theirs, 20, is_frozen);
    exec_destroy(mine);
    ck_assert_uint_eq(ranks_children(after, SHARDS_RANKS_MAX), 0);
    exec_destroy(theirs);
    ranks_close();
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
    struct exec_row rows[RANKS_BATCH];
    struct exec_watch watch = {.stop = true};
    const uint32_t pages[] = {5, 2};
    ranks_open(&uneven);
    exec_t *mine = cut(1, 2, true);
    exec_t *theirs = whole(true);
    ck_assert_uint_eq(ranks_children(pids, SHARDS_RANKS_MAX), 1);
    kill(pids[0], SIGKILL);
    const size_t count = ranks_fill(rows, 2, 20);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], NULL), -ESTALE);
    ck_assert_int_eq(exec_place(mine, 2, pages, 2, 0), 0);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], &watch), -ECANCELED);
    watch.stop = false;
    ck_assert_int_eq(exec_forward(mine, rows, count, logits[0], &watch), 0);
    ck_assert_int_eq(exec_forward(theirs, rows, count, logits[1], NULL), 0);
    ranks_compare("logit", logits[0], logits[1], ranks_model->vocab, RANKS_TOLERANCE);
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
}
END_TEST

/* A stop leaves all ranks where they were, the gap rule included. */
START_TEST(test_stop)
{
    struct exec_watch watch = {.stop = true};
    struct exec_row rows[RANKS_BATCH];
    float logits[512];
    ranks_open(&uneven);
    exec_t *mine = cut(_i ? 2 : 1, 2, true);
    exec_t *theirs = whole(true);
    const size_t count = ranks_fill(rows, 1, 20);
    ck_assert_int_eq(exec_forward(mine, rows, count, logits, &watch), -ECANCELED);
    ck_assert_int_eq(exec_forward(mine, rows + 3, 2, logits, NULL), -EINVAL);
    ranks_expect_right(mine, theirs, 20, false);
    exec_destroy(theirs);
    exec_destroy(mine);
    ranks_close();
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
    ranks_open(&uneven);
    ck_assert_int_eq(pipe(fds), 0);
    const pid_t first = fork();
    ck_assert_int_ge(first, 0);
    if (first == 0) {
        (void)cut(1, 3, true);
        if (ranks_children(ranks, 2) == 2 && write(fds[1], ranks, sizeof(ranks)) == sizeof(ranks))
            raise(SIGKILL);
        _exit(1);
    }
    ck_assert_int_eq(read(fds[0], ranks, sizeof(ranks)), sizeof(ranks));
    ck_assert_int_eq(waitpid(first, NULL, 0), first);
    while (!is_gone(ranks[0]) || !is_gone(ranks[1])) /* the test's own limit bounds it */
        usleep(1000);
    close(fds[0]);
    close(fds[1]);
    ranks_close();
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

/* A greedy answer behind `count` tokens; how it ended, and how many of them needed no work. */
static int try_answer(engine_t *engine, const uint32_t *tokens, uint32_t count, uint32_t *out,
                      uint32_t *cached)
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
                out[got++] = events[i].token;
                continue;
            }
            *cached = events[i].cached_tokens;
            return (int)events[i].finish;
        }
    }
}

/* The answer is put behind the tokens; returns how many needed no work. */
static uint32_t answer(engine_t *engine, uint32_t *tokens, uint32_t count)
{
    uint32_t cached;
    ck_assert_int_eq(try_answer(engine, tokens, count, tokens + count, &cached), ENGINE_LENGTH);
    return cached;
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
    ranks_open(&uneven);
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
    ranks_close();
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
    ranks_open(&uneven);
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
    ranks_close();
}
END_TEST

/* A rank that is gone gives no pages; what was held is lost, and then all goes on. */
START_TEST(test_pages_of_a_dead_rank)
{
    uint32_t talk[CONTEXT];
    struct taken moved = {.size = 0};
    pid_t pids[8];
    uint64_t rng = 77;
    ranks_open(&uneven);
    for (uint32_t i = 0; i < CONTEXT; i++)
        talk[i] = (uint32_t)(tiny_random(&rng) % 256);
    exec_t *exec = cut(1, 2, true);
    engine_t *engine = engine_on(exec);
    (void)answer(engine, talk, TURN);
    ck_assert_uint_ge(ranks_children(pids, 8), 1);
    ck_assert_int_eq(kill(pids[0], SIGKILL), 0);
    ck_assert_int_lt(engine_export(engine, 7, take, &moved), 0);
    struct exec_row row = {.slot = 0, .want_logits = false};
    ck_assert_int_eq(exec_forward(exec, &row, 1, NULL, NULL), -ESTALE);
    engine_destroy(engine);
    exec_t *theirs = whole(true);
    ranks_expect_right(exec, theirs, 20, false);
    exec_destroy(theirs);
    exec_destroy(exec);
    free(moved.data);
    ranks_close();
}
END_TEST

/* Pages that are held while a rank is lost: neither given away nor found, and none goes behind. */
START_TEST(test_held_pages_of_a_dead_rank)
{
    enum { PAGES = TURN / EXEC_PAGE_TOKENS };
    uint32_t talk[CONTEXT];
    uint32_t expected[CONTEXT];
    uint32_t held[PAGES + 1];
    uint32_t got[ANSWER];
    uint32_t cached;
    pid_t pids[8];
    uint64_t rng = 78;
    ranks_open(&uneven);
    for (uint32_t i = 0; i < CONTEXT; i++)
        talk[i] = (uint32_t)(tiny_random(&rng) % 256);
    exec_t *exec = cut(1, 2, true);
    engine_t *engine = engine_on(exec);
    uint8_t *page = malloc(engine_page_bytes(engine));
    (void)answer(engine, talk, TURN);
    memcpy(expected, talk, sizeof(talk));
    ck_assert_uint_eq(engine_chain_hold(engine, talk, TURN, held), PAGES);
    ck_assert_int_eq(engine_chain_read(engine, held[0], page), 0);
    ck_assert_uint_ge(ranks_children(pids, 8), 1);
    ck_assert_int_eq(kill(pids[0], SIGKILL), 0);
    ck_assert_int_eq(try_answer(engine, talk, TURN / 2, got, &cached), ENGINE_ERROR);
    ck_assert_int_eq(try_answer(engine, talk, TURN / 2, got, &cached), ENGINE_LENGTH);
    ck_assert_uint_eq(cached, 0);
    ck_assert_int_eq(engine_chain_read(engine, held[0], page), -ESTALE);
    ck_assert_int_eq(engine_chain_put(engine, talk, PAGES, held, page), -ESTALE);
    engine_chain_drop(engine, held, PAGES);
    (void)answer(engine, talk, TURN);
    ck_assert_mem_eq(talk, expected, sizeof(talk));
    free(page);
    engine_destroy(engine);
    exec_destroy(exec);
    ranks_close();
}
END_TEST

/* A rank that stands still is waited for much shorter with pages than with a forward: nothing can
 * be asked of the engine meanwhile. From then on pages are refused at once. */
START_TEST(test_pages_of_a_frozen_rank)
{
    enum { PAGES = TURN / EXEC_PAGE_TOKENS, MOST = 64 }; /* more than lie in a socket */
    uint32_t talk[CONTEXT];
    uint32_t held[PAGES];
    uint32_t got[ANSWER];
    uint32_t cached;
    pid_t pids[8];
    int rc = 0;
    uint64_t rng = 79;
    ranks_open(&uneven);
    for (uint32_t i = 0; i < CONTEXT; i++)
        talk[i] = (uint32_t)(tiny_random(&rng) % 256);
    exec_t *exec = cut_for(1, 2, true, 10 * FROZEN_MS);
    engine_t *engine = engine_on(exec);
    uint8_t *page = malloc(engine_page_bytes(engine));
    (void)answer(engine, talk, TURN);
    ck_assert_uint_eq(engine_chain_hold(engine, talk, TURN, held), PAGES);
    ck_assert_int_eq(engine_chain_read(engine, held[0], page), 0);
    engine_chain_drop(engine, held, PAGES);
    ck_assert_uint_eq(ranks_children(pids, 8), 1);
    kill(pids[0], SIGSTOP);
    const uint64_t begin_ns = clock_now_ns();
    for (uint32_t i = 0; rc == 0 && i < MOST; i++) {
        for (uint32_t j = 0; j < EXEC_PAGE_TOKENS; j++)
            talk[j] = (uint32_t)(tiny_random(&rng) % 256);
        if (_i)
            rc = engine_chain_put(engine, talk, 0, held, page);
        else
            rc = engine_chain_read(engine, held[0], page);
        if (_i && rc == 0)
            engine_chain_drop(engine, held, 1);
    }
    ck_assert_int_eq(rc, -ETIMEDOUT);
    ck_assert_int_eq(engine_chain_put(engine, talk, 0, held, page), -EAGAIN);
    ck_assert_uint_lt(clock_now_ns() - begin_ns, 3 * FROZEN_MS * NS_PER_MS);
    ck_assert_int_eq(try_answer(engine, talk, TURN, got, &cached), ENGINE_ERROR);
    ck_assert_int_eq(try_answer(engine, talk, TURN, got, &cached), ENGINE_LENGTH);
    ck_assert_uint_eq(cached, 0);
    free(page);
    engine_destroy(engine);
    exec_destroy(exec);
    ranks_close();
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
    tcase_add_loop_test(tcase, test_stages_are_the_whole, 0, 4);
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
    tcase_add_test(tcase, test_held_pages_of_a_dead_rank);
    tcase_add_loop_test(tcase, test_pages_of_a_frozen_rank, 0, 2);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
