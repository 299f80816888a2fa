/* SPDX-License-Identifier: Apache-2.0 */
/* See two_engines.h. */
#include "two_engines.h"

#include <check.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "kernels/cpu/cpu.h"
#include "schemas/base/clock.h"

static uint8_t *data;
static struct model *model;

struct bench here;
struct bench there;
const uint8_t line_key[LINE_KEY_BYTES] = {1, 2, 3};

void bench_open(struct bench *b, uint32_t pages)
{
    const struct cpu_options cpu = {
        .slots = 2, .context = CONTEXT, .batch_max = 32, .pages = pages, .exact = true};
    const struct engine_options options = {.queue_max = 2};
    ck_assert_int_eq(cpu_create(&b->exec, model, &cpu), 0);
    ck_assert_int_eq(engine_create(&b->engine, b->exec, NULL, &options), 0);
    ck_assert_int_eq(runner_create(&b->runner, b->engine), 0);
    b->kind = (struct pull_kind){.arithmetic = 77,
                                 .page_tokens = EXEC_PAGE_TOKENS,
                                 .page_bytes = engine_page_bytes(b->engine),
                                 .vocab = TINY_VOCAB};
}

void bench_close(struct bench *b)
{
    runner_destroy(b->runner);
    engine_destroy(b->engine);
    exec_destroy(b->exec);
}

void engines_open(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    struct tiny_shape shape = tiny_default;
    shape.context = CONTEXT;
    data = tiny_write(&shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    bench_open(&here, 2 * CONTEXT / EXEC_PAGE_TOKENS);
    bench_open(&there, 2 * CONTEXT / EXEC_PAGE_TOKENS);
}

void engines_close(void)
{
    bench_close(&here);
    bench_close(&there);
    model_destroy(model);
    free(data);
}

void random_prompt(uint64_t seed, uint32_t *tokens, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        tokens[i] = (uint32_t)(tiny_random(&seed) % 256);
}

/* A greedy answer; returns how many tokens of the prompt needed no work. */
uint32_t answer(struct bench *b, const uint32_t *tokens, uint32_t count, uint32_t *out)
{
    struct engine_event events[8];
    const struct engine_request request = {.id = 1,
                                           .tokens = tokens,
                                           .token_count = count,
                                           .sampling = {.top_p = 1.0f},
                                           .max_tokens = ANSWER};
    uint32_t got = 0;
    ck_assert_int_eq(runner_submit(b->runner, &request), 0);
    for (;;) {
        struct pollfd fd = {.fd = runner_fd(b->runner), .events = POLLIN};
        ck_assert_int_eq(poll(&fd, 1, WAIT_MS), 1);
        const size_t n = runner_take(b->runner, events, 8);
        for (size_t i = 0; i < n; i++) {
            if (events[i].kind == ENGINE_TOKEN) {
                out[got++] = events[i].token;
                continue;
            }
            ck_assert_int_eq(events[i].finish, ENGINE_LENGTH);
            ck_assert_uint_eq(got, ANSWER);
            return events[i].cached_tokens;
        }
    }
}

uint32_t pages_held(struct bench *b)
{
    struct engine_load load;
    runner_load(b->runner, &load);
    return load.pages_used;
}

/* All that can be had of a prompt: fetching always pays. */
struct talk_wish wish_of(const uint32_t *tokens, uint32_t count, _Atomic uint32_t *progress)
{
    static const struct pull_rates rates = {.bytes_per_second = 1e12};
    return (struct talk_wish){.tokens = tokens,
                              .count = count,
                              .prefill_per_second = 1.0,
                              .rates = &rates,
                              .deadline_ns = clock_now_ns() + WAIT_MS * NS_PER_MS,
                              .progress = progress};
}

void *giver_main(void *arg)
{
    struct giver *g = arg;
    const uint64_t patience_ms = g->patience_ms ? g->patience_ms : WAIT_MS;
    ck_assert_int_eq(line_init(&g->line, g->fd, -1, g->key, false), 0);
    g->rc = talk_give(there.runner, &g->kind, &g->line, clock_now_ns() + patience_ms * NS_PER_MS,
                      &g->account);
    line_deinit(&g->line);
    shutdown(g->fd, SHUT_RDWR);
    return NULL;
}
