/* SPDX-License-Identifier: Apache-2.0 */
/* See resume.h. */
#include "resume.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "tiny_model.h"

#define ANSWER_MAX       128u
#define TEXT_MAX         4096u
#define ENGINES          3u
#define NEIGHBOUR_PROMPT 23u
#define OWN              1000u /* id of the stream that is looked at */

struct answer {
    uint32_t tokens[ANSWER_MAX];
    size_t count;
    struct engine_logprob best[ANSWER_MAX]; /* last of each token's */
    float logprobs[ANSWER_MAX];
    char text[TEXT_MAX];
    size_t text_len;
    size_t text_at[ANSWER_MAX + 1]; /* its length before each token */
    bool done;
    struct engine_event end;
};

struct bench {
    struct grammar_vocab *vocabulary;
    exec_t *exec;
    engine_t *engine;
    struct engine_event *events;
    uint32_t vocab;
    uint64_t now;
    struct answer answer;
};

static void bench_open(struct bench *b, const struct model *model, const tokenizer_t *tokenizer,
                       uint32_t context, size_t index)
{
    static const struct cpu_options shapes[ENGINES] = {
        {.threads = 1, .slots = 1, .batch_max = 64},
        {.threads = 2, .slots = 4, .batch_max = 7},
        {.threads = 1, .slots = 3, .batch_max = 19},
    };
    struct cpu_options options = shapes[index];
    options.context = context;
    *b = (struct bench){.now = 1, .vocab = model->vocab};
    ck_assert_int_eq(cpu_create(&b->exec, model, &options), 0);
    if (tokenizer)
        ck_assert_int_eq(grammar_vocab_create(&b->vocabulary, tokenizer), 0);
    const struct engine_options engine = {.vocab = b->vocabulary};
    ck_assert_int_eq(engine_create(&b->engine, b->exec, tokenizer, &engine), 0);
    b->events = calloc(engine_events_max(b->engine), sizeof(*b->events));
    ck_assert_ptr_nonnull(b->events);
}

static void bench_close(struct bench *b)
{
    free(b->events);
    engine_destroy(b->engine);
    grammar_vocab_destroy(b->vocabulary);
    exec_destroy(b->exec);
}

static void bench_step(struct bench *b)
{
    const int count =
        engine_step(b->engine, b->now += 1000, b->events, engine_events_max(b->engine));
    ck_assert_int_ge(count, 0);
    for (int i = 0; i < count; i++) {
        const struct engine_event *event = &b->events[i];
        struct answer *a = &b->answer;
        if (event->id != OWN)
            continue;
        ck_assert(a->count < ANSWER_MAX &&
                  a->text_len + event->held_count + event->byte_count <= TEXT_MAX);
        a->text_at[a->count] = a->text_len;
        memcpy(a->text + a->text_len, event->held, event->held_count);
        a->text_len += event->held_count;
        if (event->kind == ENGINE_DONE) {
            a->done = true;
            a->end = *event;
            continue;
        }
        if (event->logprob_count) {
            ck_assert_uint_eq(event->logprobs[0].token, event->token);
            a->logprobs[a->count] = event->logprobs[0].logprob;
            a->best[a->count] = event->logprobs[event->logprob_count - 1];
        }
        a->tokens[a->count++] = event->token;
        memcpy(a->text + a->text_len, event->bytes, event->byte_count);
        a->text_len += event->byte_count;
    }
}

/* Another stream; some are greedy, some sampled, some resumed themselves. */
static void add_neighbour(struct bench *b, uint64_t id)
{
    uint32_t tokens[NEIGHBOUR_PROMPT];
    uint64_t rng = id * 77 + 5;
    for (size_t i = 0; i < NEIGHBOUR_PROMPT; i++)
        tokens[i] = (uint32_t)(tiny_random(&rng) % 256) % b->vocab;
    const struct engine_request request = {
        .id = id,
        .tokens = tokens,
        .token_count = NEIGHBOUR_PROMPT - id % 3,
        .resume = tokens,
        .resume_count = id % 3,
        .sampling = {.temperature = id % 2 ? 1.0f : 0.0f, .seed = id},
        .max_tokens = 4 + (uint32_t)(id % 9),
    };
    ck_assert_int_eq(engine_submit(b->engine, &request, b->now), 0);
}

/* Runs the case in one engine, behind the first `cut` tokens of `whole`. */
static void run(struct bench *b, const struct resume_case *c, const struct answer *whole,
                size_t cut, size_t neighbours)
{
    b->answer = (struct answer){0};
    for (size_t i = 0; i < neighbours / 2; i++)
        add_neighbour(b, i);
    if (neighbours)
        bench_step(b);
    const struct engine_request request = {
        .id = OWN,
        .tokens = c->prompt,
        .token_count = c->prompt_count,
        .resume = cut ? whole->tokens : NULL,
        .resume_count = cut,
        .sampling = c->sampling,
        .max_tokens = c->max_tokens,
        .stops = c->stops,
        .stop_count = c->stop_count,
        .logprobs = c->logprobs,
        .grammar = c->grammar,
        .priority = ENGINE_PRIORITY_MAX,
    };
    ck_assert_int_eq(engine_submit(b->engine, &request, b->now), 0);
    for (size_t i = neighbours / 2; i < neighbours; i++)
        add_neighbour(b, i);
    while (!b->answer.done)
        bench_step(b);
    engine_cancel_all(b->engine, b->now);
    bench_step(b);
    ck_assert(!engine_busy(b->engine));
}

static void compare(const struct answer *whole, const struct answer *rest, size_t cut,
                    const char *how)
{
    const size_t cut_bytes = whole->text_at[cut];
    ck_assert_msg(
        rest->count == whole->count - cut &&
            memcmp(rest->tokens, whole->tokens + cut, rest->count * sizeof(rest->tokens[0])) == 0,
        "cut %zu of %zu, %s: other tokens", cut, whole->count, how);
    ck_assert_msg(rest->text_len == whole->text_len - cut_bytes &&
                      memcmp(rest->text, whole->text + cut_bytes, rest->text_len) == 0,
                  "cut %zu of %zu, %s: another text", cut, whole->count, how);
    ck_assert_mem_eq(rest->logprobs, whole->logprobs + cut, rest->count * sizeof(float));
    for (size_t i = 0; i < rest->count; i++)
        ck_assert(rest->best[i].token == whole->best[cut + i].token &&
                  rest->best[i].logprob == whole->best[cut + i].logprob);
    ck_assert_int_eq(rest->end.finish, whole->end.finish);
    ck_assert_uint_eq(rest->end.prompt_tokens, whole->end.prompt_tokens);
    ck_assert_uint_eq(rest->end.new_tokens, whole->end.new_tokens);
}

size_t resume_check(const struct model *model, const tokenizer_t *tokenizer, uint32_t context,
                    const struct resume_case *c, struct resume_text *text)
{
    static const char *const names[ENGINES] = {"alone", "small batches", "beside others"};
    struct bench *benches = calloc(ENGINES, sizeof(*benches));
    struct answer *whole = malloc(sizeof(*whole));
    ck_assert(benches && whole && c->max_tokens <= ANSWER_MAX);
    for (size_t i = 0; i < ENGINES; i++)
        bench_open(&benches[i], model, tokenizer, context, i);
    run(&benches[0], c, NULL, 0, 0);
    *whole = benches[0].answer;
    ck_assert_uint_eq(whole->end.prompt_tokens, c->prompt_count);
    ck_assert_uint_eq(whole->end.new_tokens, whole->count);
    /* The last cut is behind all tokens: only the end and its account are missing. */
    for (size_t cut = 0; cut <= whole->count; cut++) {
        const size_t i = cut % ENGINES;
        run(&benches[i], c, whole, cut, i * 3);
        compare(whole, &benches[i].answer, cut, names[i]);
    }
    const size_t count = whole->count;
    if (text) {
        ck_assert_uint_le(whole->text_len, sizeof(text->bytes));
        memcpy(text->bytes, whole->text, whole->text_len);
        text->len = whole->text_len;
        text->finish = whole->end.finish;
    }
    for (size_t i = 0; i < ENGINES; i++)
        bench_close(&benches[i]);
    free(benches);
    free(whole);
    return count;
}
