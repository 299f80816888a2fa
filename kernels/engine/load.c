/* SPDX-License-Identifier: Apache-2.0 */
/* How fast the engine is, and how long a new request would wait. */
#include <errno.h>
#include <string.h>

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

/* `rows` of a prompt, or the next token of as many streams; the positions begin anew at the end. */
struct load_shape {
    uint32_t rows;
    uint32_t slots;
    uint32_t positions; /* of a slot */
};

static void fill_rows(struct engine *e, const struct load_shape *shape, uint64_t done)
{
    const uint32_t each = shape->rows / shape->slots;
    for (uint32_t i = 0; i < shape->rows; i++)
        e->rows[i] = (struct exec_row){
            i / each, (uint32_t)(done / shape->slots % shape->positions) + i % each,
            (uint32_t)((done + i) % e->info.vocab), i % each + 1 == each, false};
}

/* Rows per second of the fastest step within the budget: other processes can only make a step
 * slower, and a mesh should compare machines, not their neighbours' luck. */
static double measure_steps(engine_t *e, struct load_shape shape, uint64_t budget_ns, int *rc)
{
    const uint64_t begin = e->options.clock(e->options.clock_user);
    uint64_t best_ns = UINT64_MAX;
    uint64_t last = begin;
    uint64_t done = 0;
    shape.positions = shape.positions / (shape.rows / shape.slots) * (shape.rows / shape.slots);
    do {
        fill_rows(e, &shape, done);
        *rc = exec_forward(e->exec, e->rows, shape.rows, e->logits, NULL);
        done += shape.rows;
        const uint64_t now = e->options.clock(e->options.clock_user);
        if (now - last < best_ns)
            best_ns = now - last;
        last = now;
    } while (*rc == 0 && last - begin < budget_ns);
    return best_ns > 0 ? (double)shape.rows * 1e9 / (double)best_ns : 1e9;
}

/* Several streams at the beginning of their contexts. The engine places slots anew when it lends
 * them. */
static int measure_batches(engine_t *e, uint64_t budget_us)
{
    int rc = 0;
    for (uint32_t i = 1; rc == 0 && i < ENGINE_BATCHES && 1u << i <= e->info.slots; i++) {
        const struct load_shape shape = {1u << i, 1u << i,
                                         e->info.context < EXEC_PAGE_TOKENS ? e->info.context
                                                                            : EXEC_PAGE_TOKENS};
        if (e->pool ? e->info.pages < shape.slots
                    : e->info.pages && e->info.pages / shape.slots < e->table_stride)
            break;
        for (uint32_t slot = 0; e->pool && rc == 0 && slot < shape.slots; slot++)
            rc = exec_place(e->exec, slot, &slot, 1, 0);
        if (rc == 0)
            e->batch_tps[i] = measure_steps(e, shape, budget_us * 500 / (ENGINE_BATCHES - 1), &rc);
    }
    return rc;
}

int engine_benchmark(engine_t *engine, uint64_t budget_us)
{
    const uint32_t context = engine->info.context;
    uint32_t chunk = engine->info.batch_max;
    int rc = 0;
    if (!engine->options.clock)
        return -EINVAL;
    if (engine->active || engine->queued)
        return -EBUSY;
    if (chunk > context)
        chunk = context;
    const struct load_shape one = {1, 1, context};
    const struct load_shape prompt = {chunk, 1, context};
    /* The first step touches every page of the weights for the first time: not measured. */
    (void)measure_steps(engine, one, 0, &rc);
    if (rc == 0)
        engine->decode_tps = measure_steps(engine, one, budget_us * 500, &rc);
    if (rc == 0)
        engine->prefill_tps = measure_steps(engine, prompt, budget_us * 500, &rc);
    return rc ? rc : measure_batches(engine, budget_us);
}

void engine_set_speeds(engine_t *engine, const struct engine_speeds *speeds)
{
    engine->prefill_tps = speeds->prefill;
    engine->decode_tps = speeds->decode[0];
    for (size_t i = 1; i < ENGINE_BATCHES; i++)
        engine->batch_tps[i] = speeds->decode[i];
    if (speeds->used_fraction > 0.0)
        engine->used_fraction = speeds->used_fraction;
}

/* Learns from real steps: pure ones only, whose cost has one cause. */
void load_learn(struct engine *e, size_t decode_rows, size_t prefill_rows, uint64_t step_ns)
{
    const double seconds = (double)step_ns * 1e-9;
    if (!e->options.clock || step_ns == 0)
        return;
    for (uint32_t i = 1; prefill_rows == 0 && i < ENGINE_BATCHES; i++)
        if (decode_rows == 1u << i)
            load_average(&e->batch_tps[i], (double)decode_rows / seconds);
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

/* When would the queue's last request have begun, and when would all be over: list scheduling over
 * the slots, in seconds. */
static void predict(engine_t *e, double *wait, double *drain)
{
    double free_at[e->info.slots];
    slots_free_at(e, free_at);
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state == QUEUED)
            free_at[first_free(e, free_at)] += seconds_left(e, &e->requests[i]);
    *wait = 1e18;
    *drain = 0.0;
    for (uint32_t s = 0; s < e->info.slots; s++) {
        *wait = free_at[s] < *wait ? free_at[s] : *wait;
        *drain = free_at[s] > *drain ? free_at[s] : *drain;
    }
}

static uint64_t us_of(double seconds)
{
    return seconds < 1e9 ? (uint64_t)(seconds * 1e6) : UINT64_MAX;
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
    const struct page_pool_stats cache =
        engine->pool ? page_pool_stats(engine->pool) : (struct page_pool_stats){0};
    double wait;
    double drain;
    predict(engine, &wait, &drain);
    *out = (struct engine_load){
        .room = engine_room(engine),
        .queue_us = us_of(wait),
        .drain_us = us_of(drain),
        .free_mib = (uint32_t)(engine->free_bytes >> 20),
        .active = engine->active,
        .queued = engine->queued,
        .steps = steps ? steps : 1,
        .pages = cache.pages,
        .pages_used = cache.held,
        .looked_tokens = engine->looked_tokens,
        .found_tokens = engine->found_tokens,
        .prefill_tps = engine->prefill_tps,
        .decode_tps = engine->decode_tps,
        .speeds = {.prefill = engine->prefill_tps, .used_fraction = engine->used_fraction},
    };
    memcpy(out->speeds.decode, engine->batch_tps, sizeof(engine->batch_tps));
    out->speeds.decode[0] = engine->decode_tps;
}
