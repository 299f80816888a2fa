/* SPDX-License-Identifier: Apache-2.0 */
/* stress_moves.c - kernels/moves and kernels/runner.c: pages go to and fro between two engines,
 * with lines that end at any moment, while both answer prompts that have those pages and are
 * cancelled now and then. Whatever has come from where, an answer's tokens are always the same. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "kernels/cpu/cpu.h"
#include "kernels/moves/talk.h"
#include "kernels/runner.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/stress/stress.h"

#define CONTEXT  144u
#define PAGES    40u /* for two requests, and less than all prompts have */
#define PROMPTS  8u
#define PROMPT   120u
#define ANSWER   4u
#define OPEN_MAX 2u
#define GIVE_NS  (5 * NS_PER_S)

struct job {
    uint64_t id; /* 0 = none */
    uint32_t prompt;
    uint32_t got;
    bool cancelled;
};

struct side {
    exec_t *exec;
    engine_t *engine;
    runner_t *runner;
    struct pull_kind kind;
    struct job jobs[OPEN_MAX];
    uint32_t answers;
};

static struct side sides[2];
static struct model *model;
static uint32_t prompts[PROMPTS][PROMPT];
static uint32_t expected[PROMPTS][ANSWER];
static const uint8_t key[LINE_KEY_BYTES] = {7};
static uint64_t end_ns;

static void side_open(struct side *s)
{
    const struct cpu_options cpu = {
        .slots = OPEN_MAX, .context = CONTEXT, .batch_max = 32, .pages = PAGES, .exact = true};
    const struct engine_options options = {.queue_max = OPEN_MAX};
    memset(s, 0, sizeof(*s));
    ck_assert_int_eq(cpu_create(&s->exec, model, &cpu), 0);
    ck_assert_int_eq(engine_create(&s->engine, s->exec, NULL, &options), 0);
    ck_assert_int_eq(runner_create(&s->runner, s->engine), 0);
    s->kind = (struct pull_kind){.arithmetic = 1,
                                 .page_tokens = EXEC_PAGE_TOKENS,
                                 .page_bytes = engine_page_bytes(s->engine),
                                 .vocab = TINY_VOCAB};
}

static void side_close(struct side *s)
{
    runner_destroy(s->runner);
    engine_destroy(s->engine);
    exec_destroy(s->exec);
}

/* ---- answers ---- */

static void submit(struct side *s, struct job *job, uint32_t prompt)
{
    static uint64_t next_id;
    *job = (struct job){.id = ++next_id, .prompt = prompt};
    const struct engine_request request = {.id = job->id,
                                           .tokens = prompts[prompt],
                                           .token_count = PROMPT,
                                           .sampling = {.top_p = 1.0f},
                                           .max_tokens = ANSWER};
    ck_assert_int_eq(runner_submit(s->runner, &request), 0);
}

static struct job *job_of(struct side *s, uint64_t id)
{
    uint32_t i = 0;
    while (i < OPEN_MAX && s->jobs[i].id != id)
        i++;
    ck_assert_uint_lt(i, OPEN_MAX);
    return &s->jobs[i];
}

static void take(struct side *s)
{
    struct engine_event events[8];
    const size_t count = runner_take(s->runner, events, 8);
    for (size_t i = 0; i < count; i++) {
        struct job *job = job_of(s, events[i].id);
        if (events[i].kind == ENGINE_TOKEN) {
            ck_assert_uint_lt(job->got, ANSWER);
            ck_assert_uint_eq(events[i].token, expected[job->prompt][job->got]);
            job->got++;
            continue;
        }
        ck_assert(events[i].finish == ENGINE_LENGTH ||
                  (job->cancelled && events[i].finish == ENGINE_CANCELLED));
        s->answers += events[i].finish == ENGINE_LENGTH;
        job->id = 0;
    }
}

/* What an engine answers that has computed everything. */
static void expect(uint64_t seed)
{
    for (uint32_t p = 0; p < PROMPTS; p++) {
        for (uint32_t i = 0; i < PROMPT; i++)
            prompts[p][i] = p > 0 && i < p * EXEC_PAGE_TOKENS / 2
                                ? prompts[0][i]
                                : (uint32_t)(tiny_random(&seed) % 256);
        struct side alone;
        struct engine_event event = {.kind = ENGINE_TOKEN};
        uint32_t got = 0;
        side_open(&alone);
        submit(&alone, &alone.jobs[0], p);
        while (event.kind != ENGINE_DONE) {
            struct pollfd fd = {.fd = runner_fd(alone.runner), .events = POLLIN};
            ck_assert_int_eq(poll(&fd, 1, STRESS_LOST_MS), 1);
            while (runner_take(alone.runner, &event, 1) == 1 && event.kind == ENGINE_TOKEN)
                expected[p][got++] = event.token;
        }
        ck_assert_uint_eq(got, ANSWER);
        side_close(&alone);
    }
}

/* ---- pages ---- */

struct giver {
    struct side *side;
    int fd;
    int stop_fd;
    int rc;
};

static bool is_fine(int rc)
{
    return rc == 0 || rc == -ENODATA || rc == -ETIMEDOUT || rc == -EPIPE || rc == -ENOSPC ||
           rc == -ECANCELED || rc == -ESTALE; /* pages have given way meanwhile */
}

static void *give_main(void *arg)
{
    struct giver *g = arg;
    struct talk_account account;
    struct line line;
    g->rc = line_init(&line, g->fd, g->stop_fd, key, false);
    if (g->rc == 0)
        g->rc =
            talk_give(g->side->runner, &g->side->kind, &line, clock_now_ns() + GIVE_NS, &account);
    line_deinit(&line);
    shutdown(g->fd, SHUT_RDWR);
    return NULL;
}

/* One pull; the line ends after a moment, or is stopped at once, or holds. */
static int pull(struct side *to, struct side *from, struct rng *rng, _Atomic uint32_t *pages)
{
    static const struct pull_rates rates = {.bytes_per_second = 1e12}; /* it always pays */
    const bool hurried = rng_below(rng, 4) == 0;
    const struct talk_wish wish = {
        .tokens = prompts[rng_below(rng, PROMPTS)],
        .count = PROMPT,
        .prefill_per_second = 1.0,
        .rates = &rates,
        .deadline_ns = clock_now_ns() + (hurried ? rng_below(rng, 3000) * NS_PER_US : GIVE_NS),
        .progress = pages,
    };
    struct talk_account account;
    struct line line;
    pthread_t thread;
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
        return -errno;
    struct giver giver = {.side = from, .fd = fds[1], .stop_fd = eventfd(0, 0)};
    int rc = -pthread_create(&thread, NULL, give_main, &giver);
    if (rc == 0) {
        rc = line_init(&line, fds[0], -1, key, true);
        if (rng_below(rng, 8) == 0)
            stress_wake(giver.stop_fd);
        if (rc == 0)
            rc = talk_take(to->runner, &to->kind, &line, &wish, &account);
        line_deinit(&line);
        shutdown(fds[0], SHUT_RDWR);
        pthread_join(thread, NULL);
        rc = is_fine(rc) ? giver.rc : rc;
    }
    close(fds[0]);
    close(fds[1]);
    close(giver.stop_fd);
    return rc;
}

static _Atomic uint32_t pulling; /* threads */

/* For as long as asked, and until a page has moved. */
static void *pull_main(void *arg)
{
    static _Atomic uint32_t pages;
    struct rng rng = {.state = 11 + (uintptr_t)arg};
    bool fine = true;
    while (fine && (clock_now_ns() < end_ns || pages == 0)) {
        const uint32_t to = rng_below(&rng, 2);
        fine = is_fine(pull(&sides[to], &sides[1 - to], &rng, &pages));
    }
    pulling--;
    return fine ? NULL : "a pull has failed as it must not";
}

/* ---- all of it ---- */

static void turn(struct side *s, struct rng *rng, bool more)
{
    for (uint32_t i = 0; i < OPEN_MAX; i++) {
        struct job *job = &s->jobs[i];
        if (job->id == 0 && more)
            submit(s, job, rng_below(rng, PROMPTS));
        if (job->id != 0 && rng_below(rng, 50) == 0) {
            job->cancelled = true;
            (void)runner_cancel(s->runner, job->id);
        }
    }
    struct pollfd fd = {.fd = runner_fd(s->runner), .events = POLLIN};
    (void)poll(&fd, 1, 1);
    take(s);
}

START_TEST(pages_move_while_both_answer)
{
    pthread_t threads[2];
    struct rng rng = {.state = suite_seed(5)};
    struct tiny_shape shape = tiny_default;
    size_t size;
    char why[128];
    gguf_t *file;
    shape.context = CONTEXT;
    uint8_t *data = tiny_write(&shape, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    expect(3);
    side_open(&sides[0]);
    side_open(&sides[1]);
    end_ns = stress_end_ns();
    pulling = 2;
    for (uintptr_t i = 0; i < 2; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, pull_main, (void *)i), 0);
    while (pulling > 0 || sides[0].answers == 0 || sides[1].answers == 0)
        for (uint32_t i = 0; i < 2; i++) /* a runner whose events nobody takes stands still */
            turn(&sides[i], &rng, true);
    stress_join(threads[0]);
    stress_join(threads[1]);
    for (uint32_t i = 0; i < 2; i++) {
        while (!runner_is_idle(sides[i].runner))
            turn(&sides[i], &rng, false);
        side_close(&sides[i]);
    }
    model_destroy(model);
    free(data);
}
END_TEST

int main(void)
{
    return stress_main("stress_moves", pages_move_while_both_answer);
}
