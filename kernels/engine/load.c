/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the engine is, and how long a new request would wait. */
#include <errno.h>

#include "kernels/engine/engine_impl.h"

#define FREE_REFRESH_NS 1000000000ull
/* Weight of a new measurement in the running averages. */
#define AVERAGE_WEIGHT 0.1

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

/* Seconds until a request that has not begun more than it has will free its slot. */
static double seconds_left(const engine_t *e, const struct request *r)
{
    const double streams = e->active > 1 ? (double)e->active : 1.0;
    double per_token = e->decode_tps > 0.0 ? 1.0 / e->decode_tps : 0.0;
    per_token += (streams - 1.0) * e->batch_cost;
    double expected = (double)r->max_tokens * e->used_fraction - (double)r->new_count;
    if (expected < 1.0)
        expected = 1.0;
    const double prefill = (double)(r->given_count - r->done_count);
    /* Prompts share the backend with each other, so their cost counts for every stream. */
    return expected * per_token + (e->prefill_tps > 0.0 ? prefill / e->prefill_tps : 0.0);
}

/* When would the queue's last request have begun: list scheduling over the slots. */
static double predict_wait(engine_t *e)
{
    double free_at[e->info.slots];
    for (uint32_t s = 0; s < e->info.slots; s++)
        free_at[s] = 0.0;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state == PREFILL || e->requests[i].state == DECODE)
            free_at[e->requests[i].slot] = seconds_left(e, &e->requests[i]);
    for (size_t i = 0; i <= e->request_count; i++) {
        uint32_t first = 0;
        for (uint32_t s = 1; s < e->info.slots; s++)
            if (free_at[s] < free_at[first])
                first = s;
        if (i == e->request_count)
            return free_at[first];
        if (e->requests[i].state == QUEUED)
            free_at[first] += seconds_left(e, &e->requests[i]);
    }
    return 0.0;
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
