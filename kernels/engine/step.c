/* SPDX-License-Identifier: Apache-2.0 */
/* What is computed next, and what came of it. */
#include <errno.h>
#include <string.h>

#include "kernels/engine/engine_impl.h"

/* Too late already, or certain to be. */
static bool is_late(const struct engine *e, const struct request *r, uint64_t now_ns)
{
    if (r->state == QUEUED && !load_in_time(e, r, now_ns))
        return true;
    return r->deadline_ns && now_ns >= r->deadline_ns && (r->end_to_end || r->first_token_ns == 0);
}

/* Requests that need no step: cancelled ones, and those whose tokens have all been given by an
 * earlier attempt, which only lost its account. */
static size_t drop_ended(engine_t *e, uint64_t now_ns, struct engine_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < e->request_count; i++) {
        struct request *r = &e->requests[i];
        if (r->state != FREE && r->cancelled)
            request_finish(e, r, ENGINE_CANCELLED, now_ns, &events[count++]);
        else if (r->state == QUEUED && r->ending->ended)
            request_finish(e, r, ENGINE_STOP, now_ns, &events[count++]);
        else if (r->state == QUEUED && r->new_count == r->max_tokens)
            request_finish(e, r, ENGINE_LENGTH, now_ns, &events[count++]);
    }
    return count;
}

static size_t drop_late(engine_t *e, uint64_t now_ns, struct engine_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state != FREE && is_late(e, &e->requests[i], now_ns))
            request_finish(e, &e->requests[i], ENGINE_DEADLINE, now_ns, &events[count++]);
    return count;
}

/* ---- choosing ---- */

static void fill_slots(engine_t *e, uint64_t now_ns)
{
    for (uint32_t slot = 0; slot < e->info.slots && e->queued; slot++) {
        if (e->slot_taken[slot])
            continue;
        struct request *r = turn_next(e, now_ns);
        r->slot = slot;
        if (cache_begin(e, r))
            break; /* memory comes back as others end; nobody passes it meanwhile */
        turn_begin(r, now_ns);
        r->state = PREFILL;
        r->started_ns = now_ns;
        if (r->embed)
            memset(e->pooled + (size_t)slot * e->info.width, 0, e->info.width * sizeof(*e->pooled));
        e->slot_taken[slot] = true;
        e->queued--;
        e->active++;
    }
}

/* Given tokens that a step may carry besides `decoding` streams: all there is room for if none of
 * them waits, else as many as fit the target. */
static size_t prefill_budget(const engine_t *e, size_t decoding)
{
    const size_t most = e->info.batch_max - decoding;
    if (decoding == 0 || e->prefill_tps <= 0.0)
        return most;
    const double fit = e->prefill_tps * (double)e->options.step_target_us * 1e-6;
    if (fit >= (double)most)
        return most;
    return fit > PREFILL_CHUNK_LEAST    ? (size_t)fit
           : most < PREFILL_CHUNK_LEAST ? most
                                        : PREFILL_CHUNK_LEAST;
}

static void add_decoding(engine_t *e, struct batch *b)
{
    for (size_t i = 0; i < e->request_count; i++) {
        struct request *r = &e->requests[i];
        if (r->state != DECODE)
            continue;
        r->in_batch = true;
        /* The last token sampled has not been through the backend yet. */
        const uint32_t last = r->prompt_count + r->new_count - 1;
        e->rows[b->rows++] = (struct exec_row){r->slot, last, r->tokens[last], true, false};
        e->row_owner[b->owners++] = r;
        b->decoding++;
    }
}

static void add_prefill(engine_t *e, struct batch *b, bool *visited, uint64_t now_ns)
{
    size_t budget = prefill_budget(e, b->decoding);
    struct request *r;
    while (budget && (r = turn_next_prompt(e, visited, now_ns)) != NULL) {
        const size_t left = r->given_count - r->done_count;
        const size_t take = left < budget ? left : budget;
        visited[r->slot] = true;
        r->in_batch = true;
        for (size_t i = 0; i < take; i++) {
            const uint32_t position = r->done_count++;
            const bool last = r->done_count == r->given_count;
            const bool state = r->embed == ENGINE_EMBED_MEAN || (r->embed && last);
            e->rows[b->rows++] =
                (struct exec_row){r->slot, position, r->tokens[position], last && !r->embed, state};
            b->states += state;
            if (last)
                e->row_owner[b->owners++] = r;
        }
        budget -= take;
    }
}

/* ---- stepping ---- */

int engine_plan(engine_t *engine, uint64_t now_ns, struct engine_event *events, size_t capacity)
{
    engine_t *e = engine;
    if (capacity < engine_events_max(e))
        return -ENOBUFS;
    if (e->batch.rows)
        return -EBUSY;
    size_t count = drop_ended(e, now_ns, events);
    count += drop_late(e, now_ns, events + count);
    fill_slots(e, now_ns);
    e->batch = (struct batch){0};
    add_decoding(e, &e->batch);
    bool visited[e->info.slots];
    memset(visited, 0, sizeof(visited));
    add_prefill(e, &e->batch, visited, now_ns);
    atomic_store_explicit(&e->watch.stop, false, memory_order_relaxed);
    return (int)count;
}

static uint64_t clock_read(const engine_t *e, uint64_t now_ns)
{
    return e->options.clock ? e->options.clock(e->options.clock_user) : now_ns;
}

/* Touches only the batch, and of its requests what no other function changes meanwhile. */
void engine_run(engine_t *engine, uint64_t now_ns)
{
    engine_t *e = engine;
    struct batch *b = &e->batch;
    if (b->rows == 0)
        return;
    const uint64_t begin_ns = clock_read(e, now_ns);
    const struct exec_out out = {.logits = e->logits, .states = e->states};
    b->rc = exec_forward_to(e->exec, e->rows, b->rows, &out, &e->watch);
    b->forward_ns = clock_read(e, now_ns) - begin_ns;
    if (b->rc == 0) {
        answer_pool(e, b);
        answer_sample(e, b);
    }
    b->end_ns = clock_read(e, now_ns);
    atomic_fetch_add_explicit(&e->watch.progress, 1, memory_order_relaxed);
}

static size_t fail_batch(engine_t *e, const struct batch *b, uint64_t now_ns,
                         struct engine_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < b->rows; i++) {
        for (size_t j = 0; j < e->request_count; j++) {
            struct request *r = &e->requests[j];
            if ((r->state == PREFILL || r->state == DECODE) && r->slot == e->rows[i].slot)
                request_finish(e, r, ENGINE_ERROR, now_ns, &events[count++]);
        }
    }
    return count;
}

/* The backend has lost what every slot held. */
static size_t fail_all(engine_t *e, uint64_t now_ns, struct engine_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state == PREFILL || e->requests[i].state == DECODE)
            request_finish(e, &e->requests[i], ENGINE_ERROR, now_ns, &events[count++]);
    if (e->pool)
        page_pool_forget(e->pool);
    return count;
}

int engine_settle(engine_t *engine, struct engine_event *events, size_t capacity)
{
    engine_t *e = engine;
    const struct batch b = e->batch;
    if (capacity < engine_events_max(e))
        return -ENOBUFS;
    if (b.rows == 0)
        return 0;
    e->batch = (struct batch){0};
    for (size_t i = 0; i < e->request_count; i++) {
        if (b.rc == 0 && e->requests[i].in_batch)
            cache_advance(e, &e->requests[i]);
        e->requests[i].in_batch = false;
    }
    if (b.rc == 0)
        load_learn(e, b.decoding, b.rows - b.decoding, b.forward_ns);
    size_t count = 0;
    for (size_t i = 0; b.rc == 0 && i < b.owners; i++)
        if (!e->row_owner[i]->cancelled)
            count += answer_take(e, e->row_owner[i], &e->picked[i], b.end_ns, events + count);
    count += drop_ended(e, b.end_ns, events + count);
    /* Of a batch that was stopped nobody is left now. */
    if (b.rc == -ESTALE)
        count += fail_all(e, b.end_ns, events + count);
    else if (b.rc)
        count += fail_batch(e, &b, b.end_ns, events + count);
    return (int)count;
}

int engine_step(engine_t *engine, uint64_t now_ns, struct engine_event *events, size_t capacity)
{
    const int planned = engine_plan(engine, now_ns, events, capacity);
    if (planned < 0)
        return planned;
    engine_run(engine, now_ns);
    /* No request ends twice and none can have come in between: the room is enough for both. */
    const int settled = engine_settle(engine, events + planned, engine_events_max(engine));
    return settled < 0 ? settled : planned + settled;
}
