/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/engine/engine.c over the CPU backend and a small random model. Time is a number
 * that the tests move. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "kernels/cpu/cpu.h"
#include "kernels/engine/engine.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define MS           1000000ull
#define REQUESTS_MAX 64u
#define TOKENS_MAX   128u

struct seen {
    uint32_t tokens[TOKENS_MAX];
    size_t count;
    bool done;
    struct engine_event end;
    unsigned first_step;
    unsigned last_step;
};

static uint8_t *data;
static struct model *model;
static tokenizer_t *tokenizer;
static exec_t *backend;
static engine_t *engine;
static struct seen seen[REQUESTS_MAX];
static struct engine_event events[256];
static uint64_t now;
static unsigned steps;

/* A backend in front of the real one: counts rows, can be told to fail, takes its time, and cancels
 * requests while it computes, as another thread would. */
struct probe {
    struct exec base;
    exec_t *real;
    int fail;
    size_t most_rows;
    uint64_t cost_ns;
    uint64_t cancel; /* bit by id */
    bool stopped;    /* by the last of them */
};
static struct probe probe;

static int probe_forward(exec_t *self, const struct exec_row *rows, size_t count,
                         const struct exec_out *out, struct exec_watch *watch)
{
    (void)self;
    probe.most_rows = count > probe.most_rows ? count : probe.most_rows;
    now += probe.cost_ns * count;
    for (uint64_t id = 0; probe.cancel >> id; id++)
        if (probe.cancel >> id & 1)
            ck_assert_int_eq(engine_cancel(engine, id, now - 5 * MS), 0);
    probe.cancel = 0;
    probe.stopped = watch && watch->stop;
    return probe.fail ? probe.fail : exec_forward_to(probe.real, rows, count, out, watch);
}

static void probe_info(const exec_t *self, struct exec_info *out)
{
    (void)self;
    exec_info(probe.real, out);
}

static int probe_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count,
                       uint32_t used)
{
    (void)self;
    return exec_place(probe.real, slot, pages, count, used);
}

static void probe_destroy(exec_t *self)
{
    (void)self;
    exec_destroy(probe.real);
}

static const struct exec_ops probe_ops = {
    .forward = probe_forward, .place = probe_place, .info = probe_info, .destroy = probe_destroy};

static uint64_t test_clock(void *user)
{
    (void)user;
    return now;
}

static void start(uint32_t slots, uint32_t queue, uint32_t batch)
{
    const struct cpu_options options = {.slots = slots, .context = 100, .batch_max = batch};
    const struct engine_options engine_options = {.queue_max = queue, .clock = test_clock};
    engine_destroy(engine);
    if (backend)
        exec_destroy(backend);
    memset(seen, 0, sizeof(seen));
    steps = 0;
    now = 1000 * MS;
    ck_assert_int_eq(cpu_create(&probe.real, model, &options), 0);
    probe = (struct probe){.base = {&probe_ops}, .real = probe.real, .cost_ns = 1000};
    backend = &probe.base;
    ck_assert_int_eq(engine_create(&engine, backend, tokenizer, &engine_options), 0);
    ck_assert_uint_le(engine_events_max(engine), sizeof(events) / sizeof(events[0]));
}

static void setup(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    ck_assert_int_eq(tokenizer_create(&tokenizer, file, why, sizeof(why)), 0);
    start(3, 8, 16);
}

static void teardown(void)
{
    engine_destroy(engine);
    exec_destroy(backend);
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    free(data);
}

/* Prompt of `count` tokens that depends on the id alone. */
static struct engine_request request_of(uint64_t id, size_t count, uint32_t max_tokens)
{
    static uint32_t prompt[TOKENS_MAX];
    uint64_t rng = id + 1000;
    for (size_t i = 0; i < count; i++)
        prompt[i] = (uint32_t)(tiny_random(&rng) % 256);
    return (struct engine_request){
        .id = id, .tokens = prompt, .token_count = count, .max_tokens = max_tokens};
}

static int submit(uint64_t id, size_t count, uint32_t max_tokens)
{
    const struct engine_request request = request_of(id, count, max_tokens);
    return engine_submit(engine, &request, now);
}

static void step(void)
{
    const int count = engine_step(engine, now, events, sizeof(events) / sizeof(events[0]));
    ck_assert_int_ge(count, 0);
    steps++;
    for (int i = 0; i < count; i++) {
        struct seen *s = &seen[events[i].id];
        ck_assert(!s->done);
        if (events[i].kind == ENGINE_TOKEN) {
            if (s->count == 0)
                s->first_step = steps;
            s->tokens[s->count++] = events[i].token;
        } else {
            s->done = true;
            s->end = events[i];
            s->last_step = steps;
            ck_assert_uint_eq(s->end.new_tokens, s->count);
        }
    }
}

static void run(void)
{
    while (engine_busy(engine))
        step();
}

/* Same tokens alone and among others, whatever is sampled and however prompts are cut. */
START_TEST(test_batched_is_alone)
{
    struct seen alone[6];
    for (uint64_t id = 0; id < 6; id++) {
        start(1, 1, 40);
        struct engine_request r = request_of(id, 3 + 7 * id, 30);
        r.sampling = (struct sampler_params){.temperature = id % 2 ? 1.0f : 0.0f, .seed = id};
        ck_assert_int_eq(engine_submit(engine, &r, now), 0);
        run();
        alone[id] = seen[id];
        ck_assert(alone[id].done && alone[id].count > 0);
    }
    for (uint32_t batch = 5; batch < 30; batch += 11) {
        start(4, 8, batch);
        for (uint64_t id = 0; id < 6; id++) {
            struct engine_request r = request_of(id, 3 + 7 * id, 30);
            r.sampling = (struct sampler_params){.temperature = id % 2 ? 1.0f : 0.0f, .seed = id};
            ck_assert_int_eq(engine_submit(engine, &r, now), 0);
            step();
        }
        run();
        ck_assert_uint_le(probe.most_rows, batch);
        for (uint64_t id = 0; id < 6; id++) {
            ck_assert_uint_eq(seen[id].count, alone[id].count);
            ck_assert_int_eq(seen[id].end.finish, alone[id].end.finish);
            ck_assert_mem_eq(seen[id].tokens, alone[id].tokens, alone[id].count * sizeof(uint32_t));
        }
    }
}
END_TEST

START_TEST(test_account)
{
    ck_assert_int_eq(submit(1, 20, 5), 0);
    now += 3 * MS;
    run();
    ck_assert_int_eq(seen[1].end.finish, ENGINE_LENGTH);
    ck_assert_uint_eq(seen[1].end.prompt_tokens, 20);
    ck_assert_uint_eq(seen[1].end.new_tokens, 5);
    ck_assert_uint_eq(seen[1].end.queue_us, 3000);
    ck_assert_uint_eq(seen[1].end.prefill_us, 20); /* the probe's microsecond a row */
    ck_assert_uint_eq(seen[1].end.decode_us, 4);
    ck_assert_int_eq(engine_step(engine, now, events, 256), 0);
}
END_TEST

/* A penalty large enough forbids what has been there: prompt and answer, or the answer alone. */
START_TEST(test_penalties)
{
    start(2, 2, 40);
    struct engine_request r = request_of(1, 5, 40);
    r.sampling = (struct sampler_params){.presence = 1000.0f};
    ck_assert_int_eq(engine_submit(engine, &r, now), 0);
    run();
    ck_assert_uint_gt(seen[1].count, 5);
    for (size_t i = 0; i < seen[1].count; i++)
        for (size_t j = 0; j < i; j++)
            ck_assert_uint_ne(seen[1].tokens[i], seen[1].tokens[j]);
    /* Greedy's first token, put into the prompt: presence does not mind, repetition does. */
    uint32_t prompt[6];
    struct engine_request plain = request_of(2, 5, 1);
    memcpy(prompt, plain.tokens, 5 * sizeof(prompt[0]));
    ck_assert_int_eq(engine_submit(engine, &plain, now), 0);
    run();
    const uint32_t likely = seen[2].tokens[0];
    prompt[0] = likely;
    for (uint64_t id = 3; id < 6; id++) {
        plain.id = id;
        plain.tokens = prompt;
        plain.sampling.presence = id == 4 ? 1000.0f : 0.0f;
        plain.sampling.repetition = id == 5 ? 1e6f : 0.0f;
        ck_assert_int_eq(engine_submit(engine, &plain, now), 0);
        run();
    }
    ck_assert_uint_eq(seen[4].tokens[0], seen[3].tokens[0]);
    for (size_t i = 0; i < 5; i++)
        ck_assert_uint_ne(seen[5].tokens[0], prompt[i]);
}
END_TEST

/* Log probabilities are the model's own, whatever is done to the logits afterwards. */
START_TEST(test_logprobs)
{
    start(2, 2, 40);
    struct engine_request r = request_of(1, 5, 6);
    r.logprobs = ENGINE_LOGPROBS_MAX;
    r.sampling = (struct sampler_params){.temperature = 2.0f, .seed = 3, .presence = 5.0f};
    ck_assert_int_eq(engine_submit(engine, &r, now), 0);
    unsigned surprises = 0;
    unsigned count = 0;
    while (engine_busy(engine)) {
        const int n = engine_step(engine, now, events, sizeof(events) / sizeof(events[0]));
        for (int i = 0; i < n && events[i].kind == ENGINE_TOKEN; i++) {
            const struct engine_event *e = &events[i];
            double sum = 0.0;
            ck_assert_uint_eq(e->logprob_count, ENGINE_LOGPROBS_MAX);
            ck_assert_uint_eq(e->logprobs[0].token, e->token);
            for (uint32_t j = 1; j < e->logprob_count; j++) {
                ck_assert(j == 1 || e->logprobs[j].logprob <= e->logprobs[j - 1].logprob);
                ck_assert(e->logprobs[j].token != e->token ||
                          e->logprobs[j].logprob == e->logprobs[0].logprob);
                sum += exp((double)e->logprobs[j].logprob);
            }
            ck_assert(sum > 0.05 && sum <= 1.0 + 1e-6);
            surprises += e->logprobs[1].token != e->token;
            count++;
        }
    }
    ck_assert(count > 0 && surprises > 0);
}
END_TEST

static void embed(uint64_t id, enum engine_embed how, size_t count, float *out)
{
    struct engine_request r = request_of(id, count, 1);
    r.embed = how;
    r.embedding = out;
    ck_assert_int_eq(engine_submit(engine, &r, now), 0);
}

/* What the backend gives for the whole prompt at once, pooled the plain way. */
static void embed_plainly(uint64_t id, enum engine_embed how, size_t count, float *out)
{
    const uint32_t width = model->width;
    const struct engine_request r = request_of(id, count, 1);
    struct exec_row rows[40];
    float *states = calloc(count * width, sizeof(*states));
    for (size_t i = 0; i < count; i++)
        rows[i] = (struct exec_row){0, (uint32_t)i, r.tokens[i], false, true};
    const struct exec_out to = {.states = states};
    ck_assert_int_eq(exec_forward_to(backend, rows, count, &to, NULL), 0);
    double square = 0.0;
    for (uint32_t j = 0; j < width; j++) {
        double sum = 0.0;
        for (size_t i = how == ENGINE_EMBED_LAST ? count - 1 : 0; i < count; i++)
            sum += (double)states[i * width + j];
        out[j] = (float)sum;
        square += sum * sum;
    }
    for (uint32_t j = 0; j < width; j++)
        out[j] = (float)((double)out[j] / sqrt(square));
    free(states);
}

/* However the prompt is cut, and beside answers. */
START_TEST(test_embeddings)
{
    enum { WIDTH_MAX = 512 };
    float got[4][WIDTH_MAX];
    float wanted[WIDTH_MAX];
    ck_assert_uint_le(model->width, WIDTH_MAX);
    for (uint32_t batch = 5; batch < 60; batch += 9) {
        start(3, 8, batch);
        ck_assert_int_eq(submit(9, 20, 12), 0);
        step();
        memset(got, 0xff, sizeof(got));
        for (uint64_t id = 0; id < 4; id++)
            embed(id, id % 2 ? ENGINE_EMBED_LAST : ENGINE_EMBED_MEAN, 1 + 11 * id, got[id]);
        run();
        ck_assert_uint_eq(seen[9].count, 12);
        start(1, 1, 40);
        for (uint64_t id = 0; id < 4; id++) {
            embed_plainly(id, id % 2 ? ENGINE_EMBED_LAST : ENGINE_EMBED_MEAN, 1 + 11 * id, wanted);
            double far = 0.0;
            for (uint32_t j = 0; j < model->width; j++)
                far = fmax(far, fabs((double)got[id][j] - (double)wanted[j]));
            ck_assert_msg(far < 1e-6, "batch %u, prompt %u: %g off", batch, (unsigned)id, far);
        }
    }
    start(3, 8, 16);
    struct engine_request r = request_of(1, 5, 1);
    r.embed = ENGINE_EMBED_MEAN;
    ck_assert_int_eq(engine_submit(engine, &r, now), -EINVAL); /* nowhere to put it */
    r.embedding = wanted;
    r.resume = r.tokens;
    r.resume_count = 1;
    ck_assert_int_eq(engine_submit(engine, &r, now), -EINVAL);
}
END_TEST

START_TEST(test_refusals)
{
    struct engine_request r = request_of(1, 10, 5);
    ck_assert_int_eq(submit(1, 0, 5), -EINVAL);
    ck_assert_int_eq(submit(1, 5, 0), -EINVAL);
    ck_assert_int_eq(submit(1, 96, 5), WEFT_E_TOO_LONG);
    ck_assert_int_eq(submit(1, 10, UINT32_MAX), WEFT_E_TOO_LONG);
    ck_assert_int_eq(submit(1, 95, 5), 0);
    ck_assert_int_eq(submit(1, 10, 5), -EEXIST);
    const uint32_t outside = TINY_VOCAB;
    r.id = 2;
    r.tokens = &outside;
    r.token_count = 1;
    ck_assert_int_eq(engine_submit(engine, &r, now), -EINVAL);
    r = request_of(2, 10, 5);
    r.deadline_ns = now;
    ck_assert_int_eq(engine_submit(engine, &r, now), WEFT_E_BUDGET_EXPIRED);
    run();
    ck_assert_uint_eq(seen[1].count, 5); /* the context is full to the last position */
}
END_TEST

START_TEST(test_queue_bound)
{
    struct engine_load load;
    for (uint64_t id = 0; id < 11; id++) {
        engine_load(engine, now, &load);
        ck_assert_uint_eq(load.room, 11 - id);
        ck_assert_int_eq(submit(id, 5, 3), 0);
    }
    engine_load(engine, now, &load);
    ck_assert_uint_eq(load.room, 0);
    ck_assert_int_eq(submit(11, 5, 3), WEFT_E_MESH_FULL);
    run();
    ck_assert_int_eq(submit(11, 5, 3), 0);
    run();
    for (uint64_t id = 0; id < 12; id++)
        ck_assert(seen[id].done);
}
END_TEST

START_TEST(test_cancel)
{
    for (uint64_t id = 0; id < 6; id++)
        ck_assert_int_eq(submit(id, 40, 50), 0);
    step(); /* 0 is in the middle of its prompt, 3..5 wait */
    ck_assert_int_eq(engine_cancel(engine, 0, now), 0);
    ck_assert_int_eq(engine_cancel(engine, 4, now), 0);
    ck_assert_int_eq(engine_cancel(engine, 9, now), -ENOENT);
    step();
    ck_assert(seen[0].done && seen[0].end.finish == ENGINE_CANCELLED && seen[0].count == 0);
    ck_assert(seen[4].done && seen[4].end.finish == ENGINE_CANCELLED);
    while (seen[1].count < 5)
        step();
    ck_assert_int_eq(engine_cancel(engine, 1, now), 0);
    step();
    ck_assert(seen[1].done && seen[1].end.finish == ENGINE_CANCELLED && seen[1].count == 5);
    engine_cancel_all(engine, now);
    step();
    ck_assert(!engine_busy(engine));
    ck_assert(seen[2].done && seen[3].done && seen[5].done);
}
END_TEST

/* In the middle of a step: it is stopped if nobody wants it any more, and only then. */
START_TEST(test_cancel_in_the_middle)
{
    for (uint64_t id = 0; id < 3; id++)
        ck_assert_int_eq(submit(id, 10, 50), 0);
    while (seen[2].count < 2)
        step();
    const size_t before = seen[1].count;
    probe.cancel = 1u << 0 | 1u << 2;
    step();
    ck_assert(!probe.stopped);
    ck_assert_int_eq(seen[0].end.finish, ENGINE_CANCELLED); /* in that very step */
    ck_assert_uint_eq(seen[0].end.stop_us, 5000);
    ck_assert(seen[2].done && !seen[1].done);
    ck_assert_uint_eq(seen[1].count, before + 1);
    ck_assert_int_eq(submit(3, 40, 5), 0);
    probe.cancel = 1u << 1 | 1u << 3;
    step();
    ck_assert(probe.stopped);
    ck_assert(seen[1].done && seen[1].end.finish == ENGINE_CANCELLED);
    ck_assert(seen[3].done && seen[3].end.finish == ENGINE_CANCELLED);
    ck_assert(!engine_busy(engine));
    ck_assert_int_eq(submit(4, 10, 5), 0); /* the stop is over with its batch */
    run();
    ck_assert_int_eq(seen[4].end.finish, ENGINE_LENGTH);
}
END_TEST

/* The three parts of a step keep their order. */
START_TEST(test_parts_of_a_step)
{
    ck_assert_int_eq(submit(0, 5, 5), 0);
    ck_assert_int_eq(engine_settle(engine, events, 256), 0);
    ck_assert_int_eq(engine_plan(engine, now, events, 1), -ENOBUFS);
    ck_assert_int_eq(engine_plan(engine, now, events, 256), 0);
    ck_assert_int_eq(engine_plan(engine, now, events, 256), -EBUSY);
    engine_run(engine, now);
    ck_assert_int_eq(engine_settle(engine, events, 1), -ENOBUFS);
    ck_assert_int_eq(engine_settle(engine, events, 256), 1);
    ck_assert_int_eq(events[0].kind, ENGINE_TOKEN);
    ck_assert_int_eq(engine_settle(engine, events, 256), 0);
}
END_TEST

START_TEST(test_deadline)
{
    struct engine_request r = request_of(0, 30, 20);
    r.deadline_ns = now + 10 * MS; /* of the first token: met, then of no more interest */
    ck_assert_int_eq(engine_submit(engine, &r, now), 0);
    r = request_of(1, 30, 20);
    r.deadline_ns = now + 10 * MS;
    r.deadline_is_end_to_end = true;
    ck_assert_int_eq(engine_submit(engine, &r, now), 0);
    while (seen[0].count < 3 || seen[1].count < 3)
        step();
    r = request_of(2, 30, 20);
    r.deadline_ns = now + 10 * MS;
    ck_assert_int_eq(engine_submit(engine, &r, now), 0);
    now += 11 * MS;
    run();
    ck_assert_int_eq(seen[0].end.finish, ENGINE_LENGTH);
    ck_assert_int_eq(seen[1].end.finish, ENGINE_DEADLINE);
    ck_assert_uint_lt(seen[1].count, 20);
    ck_assert_int_eq(seen[2].end.finish, ENGINE_DEADLINE);
    ck_assert_uint_eq(seen[2].count, 0);
}
END_TEST

/* Priority first, then the earlier deadline, then first come. */
START_TEST(test_order)
{
    static const struct {
        uint32_t priority;
        uint64_t deadline_ms;
    } wanted[] = {{3, 0}, {3, 900}, {3, 800}, {9, 0}, {3, 0}};
    static const uint64_t order[] = {3, 2, 1, 0, 4};
    start(1, 8, 16);
    ck_assert_int_eq(submit(10, 5, 5), 0);
    step();
    for (uint64_t id = 0; id < 5; id++) {
        struct engine_request r = request_of(id, 5, 4);
        r.priority = wanted[id].priority;
        r.deadline_ns = wanted[id].deadline_ms ? now + wanted[id].deadline_ms * MS : 0;
        ck_assert_int_eq(engine_submit(engine, &r, now), 0);
    }
    run();
    for (size_t i = 1; i < 5; i++)
        ck_assert_uint_lt(seen[order[i - 1]].last_step, seen[order[i]].last_step);
}
END_TEST

/* A request of the lowest priority gets its turn although more urgent ones keep coming. */
START_TEST(test_no_starvation)
{
    uint64_t id = 1;
    start(1, 4, 16);
    ck_assert_int_eq(submit(0, 5, 3), 0);
    for (unsigned n = 0; n < 5000 && !seen[0].done; n++) {
        struct engine_load load;
        engine_load(engine, now, &load);
        if (load.queued < 3) {
            id = id % (REQUESTS_MAX - 1) + 1;
            memset(&seen[id], 0, sizeof(seen[id]));
            struct engine_request r = request_of(id, 5, 3);
            r.priority = ENGINE_PRIORITY_MAX;
            ck_assert_int_eq(engine_submit(engine, &r, now), 0);
        }
        step();
        now += 100 * MS;
    }
    ck_assert(seen[0].done);
    ck_assert_int_eq(seen[0].end.finish, ENGINE_LENGTH);
}
END_TEST

/* A long prompt does not stop the streams that are running: one token for each of them a step. */
START_TEST(test_decoding_goes_on)
{
    start(3, 4, 8);
    ck_assert_int_eq(submit(0, 4, 60), 0);
    ck_assert_int_eq(submit(1, 4, 60), 0);
    while (seen[0].count < 2 || seen[1].count < 2)
        step();
    ck_assert_int_eq(submit(2, 90, 5), 0);
    while (seen[2].count == 0) {
        const size_t before0 = seen[0].count;
        const size_t before1 = seen[1].count;
        step();
        ck_assert(seen[0].count == before0 + 1 || seen[0].done);
        ck_assert(seen[1].count == before1 + 1 || seen[1].done);
    }
    run();
}
END_TEST

START_TEST(test_backend_fails)
{
    for (uint64_t id = 0; id < 5; id++)
        ck_assert_int_eq(submit(id, 5, 20), 0);
    step();
    probe.fail = -EIO;
    step();
    for (uint64_t id = 0; id < 3; id++)
        ck_assert_int_eq(seen[id].end.finish, ENGINE_ERROR);
    probe.fail = 0;
    run();
    ck_assert_int_eq(seen[3].end.finish, ENGINE_LENGTH);
    ck_assert_int_eq(seen[4].end.finish, ENGINE_LENGTH);
}
END_TEST

START_TEST(test_benchmark_and_load)
{
    struct engine_load load;
    probe.cost_ns = MS; /* a millisecond a row */
    ck_assert_int_eq(engine_benchmark(engine, 100000), 0);
    engine_load(engine, now, &load);
    ck_assert_double_eq_tol(load.decode_tps, 1000.0, 1.0);
    ck_assert_double_eq_tol(load.prefill_tps, 1000.0, 1.0);
    ck_assert_uint_eq(load.queue_us, 0);
    for (uint64_t id = 0; id < 3; id++)
        ck_assert_int_eq(submit(id, 10, 20), 0);
    engine_load(engine, now,
                &load); /* three slots, three waiting: the next waits for one of them */
    ck_assert_uint_ge(load.queue_us, 30000);
    ck_assert_int_eq(engine_benchmark(engine, 1), -EBUSY);
    run();
    engine_load(engine, now, &load);
    ck_assert_uint_eq(load.queue_us, 0);
    ck_assert_uint_eq(load.active + load.queued, 0);
}
END_TEST

START_TEST(test_backend_rules)
{
    float logits[TINY_VOCAB];
    const struct exec_row gap = {0, 1, 5, true, false};
    const struct exec_row bad_slot = {3, 0, 5, true, false};
    const struct exec_row bad_token = {0, 0, TINY_VOCAB, true, false};
    const struct exec_row apart[] = {
        {0, 0, 1, false, false}, {1, 0, 1, false, false}, {0, 1, 1, false, false}};
    const struct exec_row sound[] = {
        {0, 0, 1, false, false}, {0, 1, 2, false, false}, {1, 0, 1, false, false}};
    const struct exec_row back = {0, 1, 9, true, false};
    ck_assert_int_eq(exec_forward(backend, &gap, 1, logits, NULL), -EINVAL);
    ck_assert_int_eq(exec_forward(backend, &bad_slot, 1, logits, NULL), -EINVAL);
    ck_assert_int_eq(exec_forward(backend, &bad_token, 1, logits, NULL), -EINVAL);
    ck_assert_int_eq(exec_forward(backend, apart, 3, logits, NULL), -EINVAL);
    ck_assert_int_eq(exec_forward(backend, sound, 0, logits, NULL), -EINVAL);
    ck_assert_int_eq(exec_forward(backend, sound, 3, NULL, NULL), 0);
    ck_assert_int_eq(exec_forward(backend, &back, 1, logits, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("engine");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_batched_is_alone);
    tcase_add_test(tcase, test_account);
    tcase_add_test(tcase, test_penalties);
    tcase_add_test(tcase, test_logprobs);
    tcase_add_test(tcase, test_embeddings);
    tcase_add_test(tcase, test_refusals);
    tcase_add_test(tcase, test_queue_bound);
    tcase_add_test(tcase, test_cancel);
    tcase_add_test(tcase, test_cancel_in_the_middle);
    tcase_add_test(tcase, test_parts_of_a_step);
    tcase_add_test(tcase, test_deadline);
    tcase_add_test(tcase, test_order);
    tcase_add_test(tcase, test_no_starvation);
    tcase_add_test(tcase, test_decoding_goes_on);
    tcase_add_test(tcase, test_backend_fails);
    tcase_add_test(tcase, test_benchmark_and_load);
    tcase_add_test(tcase, test_backend_rules);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
