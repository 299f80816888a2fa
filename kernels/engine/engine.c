/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler. Requests live in one array of slots + queue entries; a slot number of the backend
 * is lent to those that run. Everything is a scan over that array: it is short, and a step of a
 * model takes a thousand times longer. */
#include "kernels/engine/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#define QUEUE_PER_SLOT      4u
#define QUEUE_MAX           65536u
#define STEP_TARGET_US      50000u
#define AGING_US            2000000u
#define PREFILL_CHUNK_LEAST 8u
#define FREE_REFRESH_NS     1000000000ull
/* Weight of a new measurement in the running averages. */
#define AVERAGE_WEIGHT 0.1

enum state { FREE, QUEUED, PREFILL, DECODE };

struct request {
    enum state state;
    bool cancelled;
    bool in_batch; /* of the step that is running */
    bool end_to_end;
    uint32_t slot;
    uint32_t priority;
    uint64_t id;
    uint64_t order; /* of submission */
    uint64_t deadline_ns;
    uint64_t submitted_ns;
    uint64_t started_ns;
    uint64_t first_token_ns;
    uint64_t cancelled_ns;
    struct sampler_params sampling;
    uint32_t max_tokens;
    uint32_t prompt_count;
    uint32_t given_count; /* prompt and resumed tokens */
    uint32_t done_count;  /* of those, how many went through the backend */
    uint32_t new_count;   /* resumed ones included */
    uint32_t last_token;
    uint32_t *given; /* context entries of the engine's one allocation */
};

/* The step in hand: planned under the caller's lock, run without it. */
struct batch {
    size_t rows; /* 0 = none */
    size_t decoding;
    size_t owners;       /* rows that want logits */
    uint64_t forward_ns; /* length */
    uint64_t end_ns;     /* of sampling too */
    int rc;
};

struct engine {
    exec_t *exec;
    struct exec_info info;
    const tokenizer_t *tokenizer;
    struct engine_options options;
    struct request *requests;
    size_t request_count;
    uint32_t *given;
    bool *slot_taken;
    uint64_t order;
    uint32_t active;
    uint32_t queued;
    struct exec_row *rows;
    struct batch batch;
    struct exec_watch watch;
    struct request **row_owner; /* of rows that want logits, in their order */
    uint32_t *picked;           /* what was sampled for them */
    float *logits;
    struct sampler_candidate *scratch;
    double prefill_tps;
    double decode_tps;
    double batch_cost;    /* seconds that one more decoding stream adds to a step */
    double used_fraction; /* of max_tokens that answers really use */
    uint64_t free_read_ns;
    size_t free_bytes;
};

static uint64_t us_between(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

static void *array_create(size_t count, size_t size)
{
    return calloc(count ? count : 1, size);
}

int engine_create(engine_t **out, exec_t *exec, const tokenizer_t *tokenizer,
                  const struct engine_options *options)
{
    *out = NULL;
    engine_t *e = calloc(1, sizeof(*e));
    if (!e)
        return -ENOMEM;
    e->exec = exec;
    e->tokenizer = tokenizer;
    if (options)
        e->options = *options;
    exec_info(exec, &e->info);
    if (e->options.queue_max == 0)
        e->options.queue_max = QUEUE_PER_SLOT * e->info.slots;
    if (e->options.step_target_us == 0)
        e->options.step_target_us = STEP_TARGET_US;
    if (e->options.aging_us == 0)
        e->options.aging_us = AGING_US;
    e->used_fraction = 1.0;
    if (e->info.batch_max <= e->info.slots || e->options.queue_max > QUEUE_MAX ||
        (tokenizer && tokenizer_vocab(tokenizer) != e->info.vocab)) {
        engine_destroy(e);
        return -EINVAL;
    }
    e->request_count = (size_t)e->info.slots + e->options.queue_max;
    e->requests = array_create(e->request_count, sizeof(*e->requests));
    e->given = array_create(e->request_count * e->info.context, sizeof(*e->given));
    e->slot_taken = array_create(e->info.slots, sizeof(*e->slot_taken));
    e->rows = array_create(e->info.batch_max, sizeof(*e->rows));
    e->row_owner = array_create(e->info.slots, sizeof(*e->row_owner));
    e->picked = array_create(e->info.slots, sizeof(*e->picked));
    e->logits = array_create((size_t)e->info.slots * e->info.vocab, sizeof(*e->logits));
    e->scratch = array_create(e->info.vocab, sizeof(*e->scratch));
    if (!e->requests || !e->given || !e->slot_taken || !e->rows || !e->row_owner || !e->picked ||
        !e->logits || !e->scratch) {
        engine_destroy(e);
        return -ENOMEM;
    }
    for (size_t i = 0; i < e->request_count; i++)
        e->requests[i].given = e->given + i * e->info.context;
    *out = e;
    return 0;
}

void engine_destroy(engine_t *engine)
{
    if (!engine)
        return;
    free(engine->requests);
    free(engine->given);
    free(engine->slot_taken);
    free(engine->rows);
    free(engine->row_owner);
    free(engine->picked);
    free(engine->logits);
    free(engine->scratch);
    free(engine);
}

/* ---- measuring ---- */

static void average(double *value, double sample)
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
            e->rows[i] = (struct exec_row){0, (uint32_t)(done % positions) + i,
                                           (uint32_t)((done + i) % e->info.vocab), i + 1 == rows};
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
static void learn(engine_t *e, size_t decode_rows, size_t prefill_rows, uint64_t step_ns)
{
    const double seconds = (double)step_ns * 1e-9;
    if (!e->options.clock || step_ns == 0)
        return;
    if (decode_rows == 0 && prefill_rows >= PREFILL_CHUNK_LEAST)
        average(&e->prefill_tps, (double)prefill_rows / seconds);
    else if (prefill_rows == 0 && decode_rows == 1)
        average(&e->decode_tps, 1.0 / seconds);
    else if (prefill_rows == 0 && e->decode_tps > 0.0 && seconds > 1.0 / e->decode_tps)
        average(&e->batch_cost, (seconds - 1.0 / e->decode_tps) / (double)(decode_rows - 1));
}

/* ---- requests in and out ---- */

static struct request *request_find(engine_t *e, uint64_t id)
{
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state != FREE && e->requests[i].id == id)
            return &e->requests[i];
    return NULL;
}

static uint32_t room(const engine_t *e)
{
    return (uint32_t)e->request_count - e->active - e->queued;
}

/* Everything about a request that does not depend on the moment. */
static int check_request(const engine_t *e, const struct engine_request *r)
{
    if (r->token_count == 0 || !r->tokens || r->max_tokens == 0 ||
        r->max_tokens < r->resume_count || r->priority > ENGINE_PRIORITY_MAX)
        return -EINVAL;
    if (r->token_count > e->info.context || r->max_tokens > e->info.context - r->token_count)
        return WEFT_E_TOO_LONG;
    for (size_t i = 0; i < r->token_count; i++)
        if (r->tokens[i] >= e->info.vocab)
            return -EINVAL;
    for (size_t i = 0; i < r->resume_count; i++)
        if (r->resume[i] >= e->info.vocab ||
            (e->tokenizer && tokenizer_is_stop(e->tokenizer, r->resume[i])))
            return -EINVAL;
    return 0;
}

int engine_submit(engine_t *engine, const struct engine_request *request, uint64_t now_ns)
{
    const int rc = check_request(engine, request);
    if (rc)
        return rc;
    if (request->deadline_ns && request->deadline_ns <= now_ns)
        return WEFT_E_BUDGET_EXPIRED;
    if (request_find(engine, request->id))
        return -EEXIST;
    if (room(engine) == 0)
        return WEFT_E_MESH_FULL;
    struct request *r = engine->requests;
    while (r->state != FREE)
        r++;
    uint32_t *given = r->given;
    *r = (struct request){
        .state = QUEUED,
        .end_to_end = request->deadline_is_end_to_end,
        .priority = request->priority,
        .id = request->id,
        .order = engine->order++,
        .deadline_ns = request->deadline_ns,
        .submitted_ns = now_ns,
        .sampling = request->sampling,
        .max_tokens = request->max_tokens,
        .prompt_count = (uint32_t)request->token_count,
        .given_count = (uint32_t)(request->token_count + request->resume_count),
        .new_count = (uint32_t)request->resume_count,
        .given = given,
    };
    memcpy(given, request->tokens, request->token_count * sizeof(*given));
    if (request->resume_count)
        memcpy(given + request->token_count, request->resume,
               request->resume_count * sizeof(*given));
    engine->queued++;
    return 0;
}

static void cancel(struct request *r, uint64_t now_ns)
{
    if (r->cancelled)
        return;
    r->cancelled = true;
    r->cancelled_ns = now_ns;
}

/* A batch that nobody wants any more is not worth finishing. */
static void stop_if_unwanted(engine_t *e)
{
    if (e->batch.rows == 0)
        return;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].in_batch && !e->requests[i].cancelled)
            return;
    atomic_store_explicit(&e->watch.stop, true, memory_order_relaxed);
}

int engine_cancel(engine_t *engine, uint64_t id, uint64_t now_ns)
{
    struct request *r = request_find(engine, id);
    if (!r)
        return -ENOENT;
    cancel(r, now_ns);
    stop_if_unwanted(engine);
    return 0;
}

void engine_cancel_all(engine_t *engine, uint64_t now_ns)
{
    for (size_t i = 0; i < engine->request_count; i++)
        if (engine->requests[i].state != FREE)
            cancel(&engine->requests[i], now_ns);
    stop_if_unwanted(engine);
}

bool engine_busy(const engine_t *engine)
{
    return engine->active || engine->queued;
}

size_t engine_events_max(const engine_t *engine)
{
    return engine->request_count + engine->info.slots;
}

static void finish(engine_t *e, struct request *r, enum engine_finish how, uint64_t now_ns,
                   struct engine_event *event)
{
    const uint64_t started = r->started_ns ? r->started_ns : now_ns;
    const uint64_t first = r->first_token_ns ? r->first_token_ns : now_ns;
    *event = (struct engine_event){
        .kind = ENGINE_DONE,
        .id = r->id,
        .finish = how,
        .prompt_tokens = r->prompt_count,
        .new_tokens = r->new_count,
        .queue_us = us_between(r->submitted_ns, started),
        .prefill_us = us_between(started, first),
        .decode_us = us_between(first, now_ns),
        .stop_us = r->cancelled ? us_between(r->cancelled_ns, now_ns) : 0,
    };
    if (r->state == QUEUED) {
        e->queued--;
    } else {
        e->slot_taken[r->slot] = false;
        e->active--;
        if (how == ENGINE_STOP || how == ENGINE_LENGTH)
            average(&e->used_fraction, (double)r->new_count / (double)r->max_tokens);
    }
    r->state = FREE;
    r->in_batch = false;
}

static bool is_late(const struct request *r, uint64_t now_ns)
{
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
            finish(e, r, ENGINE_CANCELLED, now_ns, &events[count++]);
        else if (r->state == QUEUED && r->new_count == r->max_tokens)
            finish(e, r, ENGINE_LENGTH, now_ns, &events[count++]);
    }
    return count;
}

static size_t drop_late(engine_t *e, uint64_t now_ns, struct engine_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state != FREE && is_late(&e->requests[i], now_ns))
            finish(e, &e->requests[i], ENGINE_DEADLINE, now_ns, &events[count++]);
    return count;
}

/* ---- choosing ---- */

static uint64_t level(const engine_t *e, const struct request *r, uint64_t now_ns)
{
    return r->priority + us_between(r->submitted_ns, now_ns) / e->options.aging_us;
}

static bool goes_before(const engine_t *e, const struct request *a, const struct request *b,
                        uint64_t now_ns)
{
    const uint64_t la = level(e, a, now_ns);
    const uint64_t lb = level(e, b, now_ns);
    const uint64_t da = a->deadline_ns ? a->deadline_ns : UINT64_MAX;
    const uint64_t db = b->deadline_ns ? b->deadline_ns : UINT64_MAX;
    if (la != lb)
        return la > lb;
    return da != db ? da < db : a->order < b->order;
}

/* The first request in order that is in `state` and has not been `visited` this step. */
static struct request *next_in(engine_t *e, enum state state, const bool *visited, uint64_t now_ns)
{
    struct request *best = NULL;
    for (size_t i = 0; i < e->request_count; i++) {
        struct request *r = &e->requests[i];
        if (r->state != state || (visited && visited[r->slot]))
            continue;
        if (!best || goes_before(e, r, best, now_ns))
            best = r;
    }
    return best;
}

static void fill_slots(engine_t *e, uint64_t now_ns)
{
    for (uint32_t slot = 0; slot < e->info.slots && e->queued; slot++) {
        if (e->slot_taken[slot])
            continue;
        struct request *r = next_in(e, QUEUED, NULL, now_ns);
        r->state = PREFILL;
        r->slot = slot;
        r->started_ns = now_ns;
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
        e->rows[b->rows++] =
            (struct exec_row){r->slot, r->prompt_count + r->new_count - 1, r->last_token, true};
        e->row_owner[b->owners++] = r;
        b->decoding++;
    }
}

static void add_prefill(engine_t *e, struct batch *b, bool *visited, uint64_t now_ns)
{
    size_t budget = prefill_budget(e, b->decoding);
    struct request *r;
    while (budget && (r = next_in(e, PREFILL, visited, now_ns)) != NULL) {
        const size_t left = r->given_count - r->done_count;
        const size_t take = left < budget ? left : budget;
        visited[r->slot] = true;
        r->in_batch = true;
        for (size_t i = 0; i < take; i++) {
            const uint32_t position = r->done_count++;
            const bool last = r->done_count == r->given_count;
            e->rows[b->rows++] = (struct exec_row){r->slot, position, r->given[position], last};
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
    b->rc = exec_forward(e->exec, e->rows, b->rows, e->logits, &e->watch);
    b->forward_ns = clock_read(e, now_ns) - begin_ns;
    for (size_t i = 0; b->rc == 0 && i < b->owners; i++) {
        const struct request *r = e->row_owner[i];
        e->picked[i] = sampler_pick(&r->sampling, (uint64_t)r->prompt_count + r->new_count,
                                    e->logits + i * e->info.vocab, e->info.vocab, e->scratch);
    }
    b->end_ns = clock_read(e, now_ns);
    atomic_fetch_add_explicit(&e->watch.progress, 1, memory_order_relaxed);
}

/* One request's new token; writes one or two events. */
static size_t take_token(engine_t *e, struct request *r, uint32_t token, uint64_t now_ns,
                         struct engine_event *events)
{
    if (r->first_token_ns == 0)
        r->first_token_ns = now_ns;
    if (token == UINT32_MAX) {
        finish(e, r, ENGINE_ERROR, now_ns, events);
        return 1;
    }
    if (e->tokenizer && tokenizer_is_stop(e->tokenizer, token)) {
        finish(e, r, ENGINE_STOP, now_ns, events);
        return 1;
    }
    r->state = DECODE;
    r->last_token = token;
    r->new_count++;
    struct gguf_str bytes = {"", 0};
    if (e->tokenizer)
        bytes = tokenizer_token_bytes(e->tokenizer, token);
    events[0] = (struct engine_event){
        .kind = ENGINE_TOKEN,
        .id = r->id,
        .token = token,
        .bytes = bytes.data,
        .byte_count = bytes.len,
    };
    if (r->new_count < r->max_tokens)
        return 1;
    finish(e, r, ENGINE_LENGTH, now_ns, &events[1]);
    return 2;
}

static size_t fail_batch(engine_t *e, const struct batch *b, uint64_t now_ns,
                         struct engine_event *events)
{
    size_t count = 0;
    for (size_t i = 0; i < b->rows; i++) {
        for (size_t j = 0; j < e->request_count; j++) {
            struct request *r = &e->requests[j];
            if ((r->state == PREFILL || r->state == DECODE) && r->slot == e->rows[i].slot)
                finish(e, r, ENGINE_ERROR, now_ns, &events[count++]);
        }
    }
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
    for (size_t i = 0; i < e->request_count; i++)
        e->requests[i].in_batch = false;
    if (b.rc == 0)
        learn(e, b.decoding, b.rows - b.decoding, b.forward_ns);
    size_t count = 0;
    for (size_t i = 0; b.rc == 0 && i < b.owners; i++)
        if (!e->row_owner[i]->cancelled)
            count += take_token(e, e->row_owner[i], e->picked[i], b.end_ns, events + count);
    count += drop_ended(e, b.end_ns, events + count);
    /* Of a batch that was stopped nobody is left now. */
    if (b.rc)
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
        .room = room(engine),
        .queue_us = wait < 1e15 ? (uint64_t)wait : UINT64_MAX,
        .free_mib = (uint32_t)(engine->free_bytes >> 20),
        .active = engine->active,
        .queued = engine->queued,
        .steps = steps ? steps : 1,
        .prefill_tps = engine->prefill_tps,
        .decode_tps = engine->decode_tps,
    };
}
