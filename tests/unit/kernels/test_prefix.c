/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts that share a beginning: what is reused changes nothing, in any bit, of any answer. Over
 * the CPU backend and a small random model; answers are compared with those of an engine without a
 * cache that serves one at a time. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/engine/engine.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define P        EXEC_PAGE_TOKENS
#define CONTEXT  112u
#define ANSWER   16u
#define REQUESTS 400u

struct answer {
    uint32_t tokens[ANSWER];
    float logprobs[ANSWER];
    uint32_t count;
    bool done;
    struct engine_event end;
};

struct bench {
    struct exec base;
    exec_t *real;
    engine_t *engine;
    struct engine_event *events;
    uint64_t now;
    uint64_t rows; /* computed, in all */
};

static uint8_t *data;
static struct model *model;
static struct answer answers[REQUESTS];

static int counting_forward(exec_t *self, const struct exec_row *rows, size_t count,
                            const struct exec_out *out, struct exec_watch *watch)
{
    struct bench *b = (struct bench *)self;
    b->rows += count;
    return exec_forward_to(b->real, rows, count, out, watch);
}

static int counting_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count,
                          uint32_t used)
{
    return exec_place(((struct bench *)self)->real, slot, pages, count, used);
}

static int counting_out(exec_t *self, uint32_t page, void *out)
{
    return exec_page_out(((struct bench *)self)->real, page, out);
}

static int counting_in(exec_t *self, uint32_t page, const void *in)
{
    return exec_page_in(((struct bench *)self)->real, page, in);
}

static void counting_info(const exec_t *self, struct exec_info *out)
{
    exec_info(((const struct bench *)self)->real, out);
}

static void counting_destroy(exec_t *self)
{
    (void)self;
}

static const struct exec_ops counting = {.forward = counting_forward,
                                         .place = counting_place,
                                         .page_out = counting_out,
                                         .page_in = counting_in,
                                         .info = counting_info,
                                         .destroy = counting_destroy};

static void bench_open(struct bench *b, uint32_t slots, uint32_t pages, bool no_cache)
{
    const struct cpu_options cpu = {
        .slots = slots, .context = CONTEXT, .batch_max = 24, .pages = pages};
    const struct engine_options options = {.queue_max = 16, .no_cache = no_cache, .seed = 5};
    *b = (struct bench){.base = {&counting}, .now = 1};
    ck_assert_int_eq(cpu_create(&b->real, model, &cpu), 0);
    ck_assert_int_eq(engine_create(&b->engine, &b->base, NULL, &options), 0);
    b->events = calloc(engine_events_max(b->engine), sizeof(*b->events));
    ck_assert_ptr_nonnull(b->events);
}

static void bench_close(struct bench *b)
{
    engine_destroy(b->engine);
    exec_destroy(b->real);
    free(b->events);
}

static void step(struct bench *b)
{
    const int count =
        engine_step(b->engine, b->now += 1000, b->events, engine_events_max(b->engine));
    ck_assert_int_ge(count, 0);
    for (int i = 0; i < count; i++) {
        const struct engine_event *e = &b->events[i];
        struct answer *a = &answers[e->id];
        if (e->kind == ENGINE_DONE) {
            a->done = true;
            a->end = *e;
            continue;
        }
        ck_assert_uint_lt(a->count, ANSWER);
        a->logprobs[a->count] = e->logprobs[0].logprob;
        a->tokens[a->count++] = e->token;
    }
}

static void setup(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    memset(answers, 0, sizeof(answers));
}

static void teardown(void)
{
    model_destroy(model);
    free(data);
}

/* Few beginnings, which go on with the same pages, then something of its own or nothing. */
static size_t random_prompt(uint64_t *rng, uint32_t *tokens)
{
    const uint64_t kind = tiny_random(rng) % 3;
    size_t count = tiny_random(rng) % (5 * P);
    for (size_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)((i * 31 + (i < 2 * P ? kind * 7 : 0)) % 256);
    const size_t own = tiny_random(rng) % 9;
    for (size_t i = 0; i < own || count == 0; i++)
        tokens[count++] = (uint32_t)(tiny_random(rng) % 256);
    return count;
}

struct asked {
    uint32_t tokens[CONTEXT];
    struct engine_request request;
};

static void ask(struct asked *a, uint64_t id, uint64_t *rng)
{
    const size_t count = random_prompt(rng, a->tokens);
    const size_t resumed = tiny_random(rng) % 4 ? 0 : 1 + tiny_random(rng) % 3;
    for (size_t i = 0; i < resumed; i++)
        a->tokens[count + i] = (uint32_t)(tiny_random(rng) % 256);
    a->request = (struct engine_request){
        .id = id,
        .tokens = a->tokens,
        .token_count = count,
        .resume = a->tokens + count,
        .resume_count = resumed,
        .sampling = {.temperature = id % 2 ? 1.0f : 0.0f, .seed = id},
        .logprobs = 1,
        .max_tokens = 4 + (uint32_t)(tiny_random(rng) % (ANSWER - 4)),
    };
}

static void check_alone(struct bench *alone, const struct asked *a)
{
    const struct answer got = answers[a->request.id];
    struct answer *again = &answers[a->request.id];
    *again = (struct answer){0};
    ck_assert_int_eq(engine_submit(alone->engine, &a->request, alone->now), 0);
    while (!again->done)
        step(alone);
    ck_assert_uint_eq(again->end.cached_tokens, 0);
    if (got.end.finish == ENGINE_CANCELLED) {
        ck_assert_uint_le(got.count, again->count);
    } else {
        ck_assert_int_eq(got.end.finish, again->end.finish);
        ck_assert_uint_eq(got.count, again->count);
        ck_assert_uint_eq(got.end.new_tokens, again->end.new_tokens);
    }
    ck_assert_mem_eq(got.tokens, again->tokens, got.count * sizeof(got.tokens[0]));
    ck_assert_mem_eq(got.logprobs, again->logprobs, got.count * sizeof(got.logprobs[0]));
    *again = got;
}

/* With room for all, and with so little that pages are evicted and requests wait for them. */
START_TEST(test_reuse_changes_nothing)
{
    struct bench b;
    struct bench alone;
    struct asked *asked = calloc(REQUESTS, sizeof(*asked));
    uint64_t rng = (uint64_t)_i + 7;
    uint64_t cached = 0;
    uint64_t given = 0;
    ck_assert_ptr_nonnull(asked);
    bench_open(&b, 5, _i ? CONTEXT / P + 3 : 0, false);
    bench_open(&alone, 1, 0, true);
    for (uint64_t id = 0; id < REQUESTS; id++) {
        ask(&asked[id], id, &rng);
        ck_assert_int_eq(engine_submit(b.engine, &asked[id].request, b.now), 0);
        if (tiny_random(&rng) % 9 == 0)
            ck_assert_int_eq(engine_cancel(b.engine, id, b.now), 0);
        do {
            step(&b);
            struct engine_load load;
            engine_load(b.engine, b.now, &load);
            if (load.room > 4)
                break;
        } while (true);
    }
    while (engine_busy(b.engine))
        step(&b);
    for (uint64_t id = 0; id < REQUESTS; id++) {
        ck_assert(answers[id].done);
        cached += answers[id].end.cached_tokens;
        given += answers[id].end.prompt_tokens;
        ck_assert_uint_le(answers[id].end.cached_tokens, answers[id].end.prompt_tokens);
        check_alone(&alone, &asked[id]);
    }
    ck_assert_uint_gt(cached, given / (_i ? 10 : 3)); /* or there was nothing to test */
    ck_assert_uint_lt(b.rows, alone.rows);
    bench_close(&b);
    bench_close(&alone);
    free(asked);
}
END_TEST

static struct engine_load load_of(const struct bench *b)
{
    struct engine_load load;
    engine_load(b->engine, b->now, &load);
    return load;
}

/* What is reported is what was saved; a conversation goes on where it was. */
START_TEST(test_conversation)
{
    struct bench b;
    uint32_t tokens[CONTEXT];
    bench_open(&b, 2, 0, false);
    for (uint32_t i = 0; i < CONTEXT; i++)
        tokens[i] = i * 5 % 250;
    struct engine_request r = {.tokens = tokens, .token_count = 3 * P, .max_tokens = 10};
    ck_assert_int_eq(engine_submit(b.engine, &r, b.now), 0);
    step(&b);
    ck_assert_uint_eq(load_of(&b).pages, 2 * CONTEXT / P);
    ck_assert_uint_eq(load_of(&b).pages_used, 4); /* its prompt's and its answer's */
    while (engine_busy(b.engine))
        step(&b);
    ck_assert_uint_eq(load_of(&b).pages_used, 0); /* what is kept is nobody's */
    ck_assert_uint_eq(load_of(&b).looked_tokens, 3 * P);
    ck_assert_uint_eq(answers[0].end.cached_tokens, 0);
    b.rows = 0;
    r.id = 1; /* the same: all but the page with the last token */
    r.max_tokens = 1;
    ck_assert_int_eq(engine_submit(b.engine, &r, b.now), 0);
    while (engine_busy(b.engine))
        step(&b);
    ck_assert_uint_eq(answers[1].end.cached_tokens, 2 * P);
    ck_assert_uint_eq(load_of(&b).looked_tokens, 6 * P);
    ck_assert_uint_eq(load_of(&b).found_tokens, 2 * P);
    ck_assert_uint_eq(b.rows, P);
    b.rows = 0;
    memcpy(tokens + 3 * P, answers[0].tokens, 8 * sizeof(tokens[0]));
    r.id = 2; /* the answer became part of the next prompt */
    r.token_count = 3 * P + 8 + 10;
    ck_assert_int_eq(engine_submit(b.engine, &r, b.now), 0);
    while (engine_busy(b.engine))
        step(&b);
    ck_assert_uint_eq(answers[2].end.cached_tokens, 3 * P);
    ck_assert_uint_eq(b.rows, 18);
    tokens[0]++;
    r.id = 3; /* another beginning: nothing is the same */
    ck_assert_int_eq(engine_submit(b.engine, &r, b.now), 0);
    while (engine_busy(b.engine))
        step(&b);
    ck_assert_uint_eq(answers[3].end.cached_tokens, 0);
    bench_close(&b);
}
END_TEST

/* ---- taken elsewhere ---- */

struct bytes {
    uint8_t *data;
    size_t size;
};

static int collect(void *user, const void *from, size_t size)
{
    struct bytes *b = user;
    b->data = realloc(b->data, b->size + size);
    ck_assert_ptr_nonnull(b->data);
    memcpy(b->data + b->size, from, size);
    b->size += size;
    return 0;
}

static void run_one(struct bench *b, const struct asked *a)
{
    answers[a->request.id] = (struct answer){0};
    ck_assert_int_eq(engine_submit(b->engine, &a->request, b->now), 0);
    while (!answers[a->request.id].done)
        step(b);
}

/* Sessions go on in another engine: the same answers, bit for bit, without their prefill. */
START_TEST(test_moved)
{
    struct bench from;
    struct bench to;
    struct bench alone;
    struct bytes moved = {0};
    static struct asked asked[40];
    uint64_t rng = 99;
    uint64_t cached = 0;
    bench_open(&from, 3, 0, false);
    bench_open(&to, 3, _i ? CONTEXT / P + 3 : 0, false); /* with room for all, and for little */
    bench_open(&alone, 1, 0, true);
    ck_assert_int_eq(engine_export(alone.engine, 7, collect, &moved), -ENOTSUP);
    for (uint64_t id = 0; id < 40; id++) {
        ask(&asked[id], id, &rng);
        run_one(&from, &asked[id]);
    }
    const int pages = engine_export(from.engine, 7, collect, &moved);
    ck_assert_int_gt(pages, 4);
    const int taken = engine_import(to.engine, 7, moved.data, moved.size);
    ck_assert_int_gt(taken, 4);
    ck_assert(_i ? taken < pages : taken == pages);
    const uint64_t rows = to.rows;
    for (uint64_t id = 0; id < 40; id++) {
        run_one(&to, &asked[id]);
        cached += answers[id].end.cached_tokens;
        if (id == 0)
            ck_assert_uint_lt(to.rows - rows, asked[0].request.token_count + ANSWER);
        check_alone(&alone, &asked[id]);
    }
    ck_assert_uint_gt(cached, 10 * P);
    free(moved.data);
    bench_close(&from);
    bench_close(&to);
    bench_close(&alone);
}
END_TEST

/* Any damage, any other model: refused, and nothing has come in. */
START_TEST(test_damaged)
{
    struct bench from;
    struct bench to;
    struct bytes moved = {0};
    struct bytes nothing = {0};
    static struct asked asked;
    uint64_t rng = 5;
    bench_open(&from, 1, 0, false);
    bench_open(&to, 1, 0, false);
    for (uint64_t id = 0; id < 8; id++) {
        ask(&asked, id, &rng);
        run_one(&from, &asked);
    }
    ck_assert_int_gt(engine_export(from.engine, 7, collect, &moved), 1);
    ck_assert_int_eq(engine_import(to.engine, 8, moved.data, moved.size), -ESTALE);
    for (int i = 0; i < 300; i++) {
        const size_t at = (size_t)(tiny_random(&rng) % (i < 100 ? 48 : moved.size));
        const uint8_t bit = (uint8_t)(1u << tiny_random(&rng) % 8);
        moved.data[at] ^= bit;
        ck_assert_int_lt(engine_import(to.engine, 7, moved.data, moved.size), 0);
        moved.data[at] ^= bit;
        const size_t cut = (size_t)(tiny_random(&rng) % moved.size);
        ck_assert_int_lt(engine_import(to.engine, 7, moved.data, cut), 0);
    }
    ck_assert_int_eq(engine_export(to.engine, 7, collect, &nothing), 0);
    ck_assert_int_gt(engine_import(to.engine, 7, moved.data, moved.size), 0);
    free(moved.data);
    free(nothing.data);
    bench_close(&from);
    bench_close(&to);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefix");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_reuse_changes_nothing, 0, 2);
    tcase_add_test(tcase, test_conversation);
    tcase_add_loop_test(tcase, test_moved, 0, 2);
    tcase_add_test(tcase, test_damaged);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
