/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/runner.c: the small model behind a backend that can be held in the middle of a
 * forward, so that what happens meanwhile does not depend on time. */
#include <check.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <weft/status.h>

#include "kernels/cpu/cpu.h"
#include "kernels/runner.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define SLOTS    3u
#define QUEUE    4u
#define ANSWER   50u
#define PROMPT   20u
#define OPEN_MAX (SLOTS + QUEUE)
#define WAIT_MS  20000 /* bounds a hang, measures nothing */
#define REQUESTS 60u

/* Holds each forward while `held`: says `entered`, then counts its progress until it is stopped or
 * `leave` is posted. */
struct gate {
    struct exec base;
    exec_t *real;
    _Atomic bool held;
    sem_t entered;
    sem_t leave;
};

struct seen {
    uint32_t tokens[ANSWER];
    size_t count;
    bool done;
    struct engine_event end;
};

static uint8_t *data;
static struct model *model;
static tokenizer_t *tokenizer;
static struct gate gate;
static engine_t *engine;
static runner_t *runner;
static struct seen seen[REQUESTS];

static int gate_forward(exec_t *self, const struct exec_row *rows, size_t count,
                        const struct exec_out *out, struct exec_watch *watch)
{
    (void)self;
    if (gate.held) {
        sem_post(&gate.entered);
        while (!watch->stop && sem_trywait(&gate.leave) != 0) {
            watch->progress++;
            sched_yield();
        }
    }
    return exec_forward_to(gate.real, rows, count, out, watch);
}

static void gate_info(const exec_t *self, struct exec_info *out)
{
    (void)self;
    exec_info(gate.real, out);
}

static int gate_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count,
                      uint32_t used)
{
    (void)self;
    return exec_place(gate.real, slot, pages, count, used);
}

static void gate_destroy(exec_t *self)
{
    (void)self;
    exec_destroy(gate.real);
}

static const struct exec_ops gate_ops = {
    .forward = gate_forward, .place = gate_place, .info = gate_info, .destroy = gate_destroy};

static void setup(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    const struct cpu_options options = {.slots = SLOTS, .context = 100, .batch_max = 16};
    const struct engine_options engine_options = {.queue_max = QUEUE};
    data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    ck_assert_int_eq(tokenizer_create(&tokenizer, file, why, sizeof(why)), 0);
    memset(seen, 0, sizeof(seen));
    gate = (struct gate){.base = {&gate_ops}};
    sem_init(&gate.entered, 0, 0);
    sem_init(&gate.leave, 0, 0);
    ck_assert_int_eq(cpu_create(&gate.real, model, &options), 0);
    ck_assert_int_eq(engine_create(&engine, &gate.base, tokenizer, &engine_options), 0);
    ck_assert_int_eq(runner_create(&runner, engine), 0);
}

static void teardown(void)
{
    runner_destroy(runner);
    engine_destroy(engine);
    exec_destroy(&gate.base);
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    free(data);
    sem_destroy(&gate.entered);
    sem_destroy(&gate.leave);
}

static int submit(uint64_t id, uint32_t max_tokens)
{
    uint32_t prompt[PROMPT];
    uint64_t rng = id + 1;
    for (size_t i = 0; i < PROMPT; i++)
        prompt[i] = (uint32_t)(tiny_random(&rng) % 256);
    const struct engine_request request = {
        .id = id,
        .tokens = prompt,
        .token_count = PROMPT,
        .max_tokens = max_tokens,
        .sampling = {.temperature = id % 2 ? 1.0f : 0.0f, .seed = id},
    };
    return runner_submit(runner, &request);
}

/* Takes what there is, `capacity` at a time. Returns how many requests ended. */
static unsigned take(size_t capacity)
{
    struct engine_event events[64];
    unsigned ended = 0;
    const size_t count = runner_take(runner, events, capacity);
    for (size_t i = 0; i < count; i++) {
        struct seen *s = &seen[events[i].id];
        ck_assert(!s->done);
        if (events[i].kind == ENGINE_TOKEN) {
            s->tokens[s->count++] = events[i].token;
            continue;
        }
        s->done = true;
        s->end = events[i];
        ended++;
    }
    return ended;
}

static void wait_readable(void)
{
    struct pollfd pfd = {.fd = runner_fd(runner), .events = POLLIN};
    ck_assert_int_eq(poll(&pfd, 1, WAIT_MS), 1);
}

static void wait_done(uint64_t id)
{
    while (!seen[id].done) {
        wait_readable();
        (void)take(64);
    }
}

static void hold(void)
{
    gate.held = true;
}

static void let_go(void)
{
    gate.held = false;
    sem_post(&gate.leave);
}

static uint32_t steps_now(void)
{
    struct engine_load load;
    runner_load(runner, &load);
    return load.steps;
}

/* Everything is answered while a step is held; the steps that the load shows go on. */
START_TEST(test_answers_while_it_computes)
{
    struct engine_load load;
    hold();
    ck_assert_int_eq(submit(0, 5), 0);
    sem_wait(&gate.entered);
    const uint32_t before = steps_now();
    ck_assert_uint_ne(before, 0);
    while (steps_now() == before)
        continue;
    for (uint64_t id = 1; id < OPEN_MAX; id++)
        ck_assert_int_eq(submit(id, 5), 0);
    ck_assert_int_eq(submit(OPEN_MAX, 5), WEFT_E_MESH_FULL);
    runner_load(runner, &load);
    ck_assert_uint_eq(load.room, 0);
    ck_assert_uint_eq(load.active, 1);
    ck_assert_int_eq(runner_cancel(runner, 2), 0);
    ck_assert_int_eq(runner_cancel(runner, REQUESTS), -ENOENT);
    ck_assert(!runner_is_idle(runner));
    let_go();
    for (uint64_t id = 0; id < OPEN_MAX; id++) {
        wait_done(id);
        ck_assert_int_eq(seen[id].end.finish, id == 2 ? ENGINE_CANCELLED : ENGINE_LENGTH);
        ck_assert_uint_eq(seen[id].count, id == 2 ? 0 : 5);
    }
    ck_assert(runner_is_idle(runner));
}
END_TEST

/* Cancelling all of a batch stops the forward itself: nobody else lets it go here. */
START_TEST(test_cancel_stops_the_forward)
{
    hold();
    ck_assert_int_eq(submit(0, 5), 0);
    sem_wait(&gate.entered);
    ck_assert_int_eq(runner_cancel(runner, 0), 0);
    wait_done(0);
    ck_assert_int_eq(seen[0].end.finish, ENGINE_CANCELLED);
    ck_assert_uint_eq(seen[0].count, 0);
    ck_assert(runner_is_idle(runner));
    gate.held = false;
    ck_assert_int_eq(submit(1, 5), 0);
    wait_done(1);
    ck_assert_int_eq(seen[1].end.finish, ENGINE_LENGTH);
}
END_TEST

/* With a neighbour who still wants its token, the step goes on, and the neighbour gets it. */
START_TEST(test_cancel_spares_others)
{
    ck_assert_int_eq(submit(1, ANSWER), 0);
    while (seen[1].count < 3) {
        wait_readable();
        (void)take(64);
    }
    ck_assert_int_eq(submit(0, ANSWER), 0);
    while (seen[0].count < 1) {
        wait_readable();
        (void)take(64);
    }
    hold();
    sem_wait(&gate.entered);
    ck_assert_int_eq(runner_cancel(runner, 0), 0);
    let_go();
    wait_done(0);
    wait_done(1);
    ck_assert_int_eq(seen[0].end.finish, ENGINE_CANCELLED);
    ck_assert_int_ne(seen[1].end.finish, ENGINE_CANCELLED);
    ck_assert_int_ne(seen[1].end.finish, ENGINE_ERROR);
}
END_TEST

/* A full queue stops the engine, loses nothing, and keeps the order. */
START_TEST(test_slow_taker)
{
    uint64_t submitted = 0;
    unsigned ended = 0;
    while (ended < REQUESTS) {
        while (submitted < REQUESTS && submit(submitted, ANSWER) == 0)
            submitted++;
        wait_readable();
        ended += take(3);
    }
    /* What was given equals an undisturbed run: a token lost or moved would show. */
    struct seen before[REQUESTS];
    memcpy(before, seen, sizeof(seen));
    memset(seen, 0, sizeof(seen));
    for (uint64_t id = 0; id < REQUESTS; id++) {
        ck_assert_int_eq(submit(id, ANSWER), 0);
        wait_done(id);
        ck_assert_uint_eq(seen[id].count, before[id].count);
        ck_assert_mem_eq(seen[id].tokens, before[id].tokens, seen[id].count * sizeof(uint32_t));
    }
}
END_TEST

START_TEST(test_destroy_while_it_computes)
{
    hold();
    for (uint64_t id = 0; id < OPEN_MAX; id++)
        ck_assert_int_eq(submit(id, 5), 0);
    sem_wait(&gate.entered);
    /* teardown destroys the runner */
}
END_TEST

START_TEST(test_destroy_with_a_full_queue)
{
    for (uint64_t id = 0; id < OPEN_MAX; id++)
        ck_assert_int_eq(submit(id, ANSWER), 0);
    wait_readable();
}
END_TEST

/* As when the node goes: all are cancelled, and soon nothing is open. */
START_TEST(test_cancel_all)
{
    for (unsigned round = 0; round < 30; round++) {
        for (uint64_t id = 0; id < OPEN_MAX; id++)
            ck_assert_int_eq(submit(id, ANSWER), 0);
        for (unsigned i = 0; i < round % 5; i++) {
            wait_readable();
            (void)take(64);
        }
        runner_cancel_all(runner);
        while (!runner_is_idle(runner)) {
            wait_readable();
            (void)take(64);
        }
        for (uint64_t id = 0; id < OPEN_MAX; id++)
            ck_assert(seen[id].done);
        memset(seen, 0, sizeof(seen));
    }
}
END_TEST

/* False: the runner's thread waits for room instead, or is slow to come. */
static bool step_began(void)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += 1;
    return sem_timedwait(&gate.entered, &end) == 0;
}

/* The ends of requests that found the queue full are still to come: an empty queue says nothing of
 * them. From round to round there is less room. */
START_TEST(test_idle_is_after_the_last_event)
{
    for (unsigned steps = 8; steps < 20; steps++) {
        hold();
        for (uint64_t id = 0; id < OPEN_MAX; id++)
            ck_assert_int_eq(submit(id, ANSWER), 0);
        for (unsigned i = 0; i < steps && step_began(); i++)
            sem_post(&gate.leave);
        (void)step_began();
        runner_cancel_all(runner);
        gate.held = false;
        usleep(10000); /* nearly always they have ended by then */
        while (!runner_is_idle(runner))
            (void)take(64);
        for (uint64_t id = 0; id < OPEN_MAX; id++)
            ck_assert(seen[id].done);
        memset(seen, 0, sizeof(seen));
        while (sem_trywait(&gate.entered) == 0 || sem_trywait(&gate.leave) == 0)
            continue;
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("runner");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_answers_while_it_computes);
    tcase_add_test(tcase, test_cancel_stops_the_forward);
    tcase_add_test(tcase, test_cancel_spares_others);
    tcase_add_test(tcase, test_slow_taker);
    tcase_add_test(tcase, test_destroy_while_it_computes);
    tcase_add_test(tcase, test_destroy_with_a_full_queue);
    tcase_add_test(tcase, test_cancel_all);
    tcase_add_test(tcase, test_idle_is_after_the_last_event);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
