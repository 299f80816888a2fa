/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the engine is, and how long a new request would wait. */
#include <errno.h>

#include "kernels/engine/engine_impl.h"

#define FREE_REFRESH_NS 1000000000ull
/* Weight of a new measurement in the running averages. */
#define AVERAGE_WEIGHT 0.1
/* Predictions are exceeded now and then: by who comes later and goes before. */
#define MARGIN 1.2

/* ---- measuring ---- */

void load_average(double *value, double sample)
{
    *value = *value > 0.0 ? *value + AVERAGE_WEIGHT * (sample - *value) : sample;
}

/* Rows per second of the fastest step within the budget: other processes can only make a step
 * slower, and a mesh should compare machines, not their neighbours' luck. */
static double measure_steps(engine_t *e, uint32_t rows, uint64_t budget_ns, int *rc)
{
    const uint64_t begin = e->options.clock(e->options.clock_user);
    const uint32_t positions = e->info.context / rows * rows;
    uint64_t best_ns = UINT64_MAX;
    uint64_t last = begin;
    uint64_t done = 0;
    do {
        for (uint32_t i = 0; i < rows; i++)
            e->rows[i] =
                (struct exec_row){0, (uint32_t)(done % positions) + i,
                                  (uint32_t)((done + i) % e->info.vocab), i + 1 == rows, false};
        *rc = exec_forward(e->exec, e->rows, rows, e->logits, NULL);
        done += rows;
        const uint64_t now = e->options.clock(e->options.clock_user);
        if (now - last < best_ns)
            best_ns = now - last;
        last = now;
    } while (*rc == 0 && last - begin < budget_ns);
    return best_ns > 0 ? (double)rows * 1e9 / (double)best_ns : 1e9;
}

int engine_benchmark(engine_t *engine, uint64_t budget_us)
{
    uint32_t chunk = engine->info.batch_max;
    int rc = 0;
    if (!engine->options.clock)
        return -EINVAL;
    if (engine->active || engine->queued)
        return -EBUSY;
    if (chunk > engine->info.context)
        chunk = engine->info.context;
    /* The first step touches every page of the weights for the first time: not measured. */
    (void)measure_steps(engine, 1, 0, &rc);
    if (rc == 0)
        engine->decode_tps = measure_steps(engine, 1, budget_us * 500, &rc);
    if (rc == 0)
        engine->prefill_tps = measure_steps(engine, chunk, budget_us * 500, &rc);
    return rc;
}

/* Learns from real steps: pure ones only, whose cost has one cause. */
void load_learn(struct engine *e, size_t decode_rows, size_t prefill_rows, uint64_t step_ns)
{
    const double seconds = (double)step_ns * 1e-9;
    if (!e->options.clock || step_ns == 0)
        return;
    if (decode_rows == 0 && prefill_rows >= PREFILL_CHUNK_LEAST)
        load_average(&e->prefill_tps, (double)prefill_rows / seconds);
    else if (prefill_rows == 0 && decode_rows == 1)
        load_average(&e->decode_tps, 1.0 / seconds);
    else if (prefill_rows == 0 && e->decode_tps > 0.0 && seconds > 1.0 / e->decode_tps)
        load_average(&e->batch_cost, (seconds - 1.0 / e->decode_tps) / (double)(decode_rows - 1));
}

/* ---- load ---- */

/* Seconds of answer that are still to come, as far as can be told. */
static double answer_seconds(const struct engine *e, const struct request *r)
{
    const double streams = e->active > 1 ? (double)e->active : 1.0;
    double per_token = e->decode_tps > 0.0 ? 1.0 / e->decode_tps : 0.0;
    per_token += (streams - 1.0) * e->batch_cost;
    const double expected = (double)r->max_tokens * e->used_fraction - (double)r->new_count;
    return (expected > 1.0 ? expected : 1.0) * per_token;
}

/* The same of its prompt; one that waits may find some of it in the cache. */
static double prompt_seconds(const struct engine *e, const struct request *r)
{
    const uint32_t done =
        r->state == QUEUED ? cache_find(e, r->tokens, r->given_count) : r->done_count;
    return e->prefill_tps > 0.0 ? (double)(r->given_count - done) / e->prefill_tps : 0.0;
}

/* Seconds until a request that has not begun more than it has will free its slot. */
static double seconds_left(const struct engine *e, const struct request *r)
{
    return answer_seconds(e, r) + prompt_seconds(e, r);
}

/* Seconds until each slot is free. */
static void slots_free_at(const struct engine *e, double *free_at)
{
    for (uint32_t s = 0; s < e->info.slots; s++)
        free_at[s] = 0.0;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state == PREFILL || e->requests[i].state == DECODE)
            free_at[e->requests[i].slot] = seconds_left(e, &e->requests[i]);
}

static uint32_t first_free(const struct engine *e, const double *free_at)
{
    uint32_t first = 0;
    for (uint32_t s = 1; s < e->info.slots; s++)
        if (free_at[s] < free_at[first])
            first = s;
    return first;
}

/* ---- deadlines ---- */

static bool is_predictable(const struct engine *e, const struct request *r)
{
    return r->deadline_ns && e->prefill_tps > 0.0 && e->decode_tps > 0.0;
}

/* Are so many seconds before it gets a slot too many? */
static bool fits(const struct engine *e, const struct request *r, double wait, uint64_t now_ns)
{
    double seconds = wait + prompt_seconds(e, r);
    if (r->end_to_end)
        seconds += answer_seconds(e, r);
    return (double)us_between(now_ns, r->deadline_ns) * 1e-6 >= MARGIN * seconds;
}

bool load_in_time(const struct engine *e, const struct request *r, uint64_t now_ns)
{
    return !is_predictable(e, r) || fits(e, r, 0.0, now_ns);
}

/* Answers run beside each other, each in its slot; every prompt before this one's takes its time
 * from all of them. */
bool load_admits(const struct engine *e, const struct request *r, uint64_t now_ns)
{
    if (!is_predictable(e, r))
        return true;
    double free_at[e->info.slots];
    double prompts = 0.0;
    for (uint32_t s = 0; s < e->info.slots; s++)
        free_at[s] = 0.0;
    for (size_t i = 0; i < e->request_count; i++) {
        const struct request *other = &e->requests[i];
        if (other->state != PREFILL && other->state != DECODE)
            continue;
        free_at[other->slot] = answer_seconds(e, other);
        prompts += prompt_seconds(e, other);
    }
    for (size_t i = 0; i < e->request_count; i++) {
        const struct request *other = &e->requests[i];
        if (other == r || other->state != QUEUED || !turn_goes_before(e, other, r, now_ns))
            continue;
        free_at[first_free(e, free_at)] += answer_seconds(e, other);
        prompts += prompt_seconds(e, other);
    }
    return fits(e, r, free_at[first_free(e, free_at)] + prompts, now_ns);
}

/* When would the queue's last request have begun: list scheduling over the slots. */
static double predict_wait(engine_t *e)
{
    double free_at[e->info.slots];
    slots_free_at(e, free_at);
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state == QUEUED)
            free_at[first_free(e, free_at)] += seconds_left(e, &e->requests[i]);
    return free_at[first_free(e, free_at)];
}

void engine_load(engine_t *engine, uint64_t now_ns, struct engine_load *out)
{
    if (engine->free_read_ns == 0 || now_ns - engine->free_read_ns > FREE_REFRESH_NS) {
        struct exec_info now;
        exec_info(engine->exec, &now);
        engine->free_bytes = now.free_bytes;
        engine->free_read_ns = now_ns ? now_ns : 1;
    }
    const uint32_t steps = atomic_load_explicit(&engine->watch.progress, memory_order_relaxed);
    const double wait = predict_wait(engine) * 1e6;
    *out = (struct engine_load){
        .room = engine_room(engine),
        .queue_us = wait < 1e15 ? (uint64_t)wait : UINT64_MAX,
        .free_mib = (uint32_t)(engine->free_bytes >> 20),
        .active = engine->active,
        .queued = engine->queued,
        .steps = steps ? steps : 1,
        .prefill_tps = engine->prefill_tps,
        .decode_tps = engine->decode_tps,
    };
}
