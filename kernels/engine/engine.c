/* SPDX-License-Identifier: Apache-2.0 */
/* Life of an engine and of its requests. They live in one array of slots + queue entries; a slot
 * number of the backend is lent to those that run. Everything is a scan over that array: it is
 * short, and a step of a model takes a thousand times longer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "kernels/engine/engine_impl.h"

#define QUEUE_PER_SLOT 4u
#define STEP_TARGET_US 50000u
#define AGING_US       2000000u

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
    if (e->info.batch_max <= e->info.slots || e->options.queue_max > ENGINE_QUEUE_MAX ||
        (tokenizer && tokenizer_vocab(tokenizer) != e->info.vocab)) {
        engine_destroy(e);
        return -EINVAL;
    }
    e->request_count = (size_t)e->info.slots + e->options.queue_max;
    e->requests = array_create(e->request_count, sizeof(*e->requests));
    e->tokens = array_create(e->request_count * e->info.context, sizeof(*e->tokens));
    e->endings = array_create(e->request_count, sizeof(*e->endings));
    e->slot_taken = array_create(e->info.slots, sizeof(*e->slot_taken));
    e->tenants = array_create(e->request_count, sizeof(*e->tenants));
    e->rows = array_create(e->info.batch_max, sizeof(*e->rows));
    e->row_owner = array_create(e->info.slots, sizeof(*e->row_owner));
    e->picked = array_create(e->info.slots, sizeof(*e->picked));
    e->logits = array_create((size_t)e->info.slots * e->info.vocab, sizeof(*e->logits));
    e->scratch = array_create(e->info.vocab, sizeof(*e->scratch));
    e->seen = array_create(((size_t)e->info.vocab + 31) / 32, sizeof(*e->seen));
    e->raw = array_create(e->info.vocab, sizeof(*e->raw));
    e->table_stride = (e->info.context + EXEC_PAGE_TOKENS - 1) / EXEC_PAGE_TOKENS;
    e->tables = array_create((size_t)e->info.slots * e->table_stride, sizeof(*e->tables));
    if (e->info.pages && exec->ops->place && !e->options.no_cache &&
        page_pool_create(&e->pool, e->info.pages, e->options.seed)) {
        engine_destroy(e);
        return -ENOMEM;
    }
    if (e->info.width) {
        e->states = array_create((size_t)e->info.batch_max * e->info.width, sizeof(*e->states));
        e->pooled = array_create((size_t)e->info.slots * e->info.width, sizeof(*e->pooled));
    }
    if (e->options.vocab && grammar_masks_create(&e->masks, e->options.vocab)) {
        engine_destroy(e);
        return -ENOMEM;
    }
    if ((e->info.width && (!e->states || !e->pooled)) || !e->tables || !e->tenants ||
        !e->requests || !e->tokens || !e->endings || !e->seen || !e->raw || !e->slot_taken ||
        !e->rows || !e->row_owner || !e->picked || !e->logits || !e->scratch) {
        engine_destroy(e);
        return -ENOMEM;
    }
    for (size_t i = 0; i < e->request_count; i++) {
        e->requests[i].tokens = e->tokens + i * e->info.context;
        e->requests[i].ending = e->endings + i;
    }
    *out = e;
    return 0;
}

void engine_destroy(engine_t *engine)
{
    if (!engine)
        return;
    free(engine->requests);
    free(engine->tokens);
    free(engine->endings);
    free(engine->seen);
    free(engine->raw);
    grammar_masks_destroy(engine->masks);
    free(engine->states);
    free(engine->pooled);
    free(engine->slot_taken);
    page_pool_destroy(engine->pool);
    free(engine->tables);
    free(engine->tenants);
    free(engine->rows);
    free(engine->row_owner);
    free(engine->picked);
    free(engine->logits);
    free(engine->scratch);
    free(engine);
}

/* ---- requests in and out ---- */

static struct request *request_find(engine_t *e, uint64_t id)
{
    for (size_t i = 0; i < e->request_count; i++)
        if (e->requests[i].state != FREE && e->requests[i].id == id)
            return &e->requests[i];
    return NULL;
}

uint32_t engine_room(const engine_t *e)
{
    return (uint32_t)e->request_count - e->active - e->queued;
}

/* Everything about a request that does not depend on the moment. */
static int check_request(const engine_t *e, const struct engine_request *r)
{
    if (r->token_count == 0 || !r->tokens || r->max_tokens == 0 ||
        r->max_tokens < r->resume_count || r->priority > ENGINE_PRIORITY_MAX ||
        r->logprobs > ENGINE_LOGPROBS_MAX)
        return -EINVAL;
    if (r->grammar && (!e->masks || !e->tokenizer || r->embed))
        return -ENOTSUP;
    if (r->embed && (!e->states || !r->embedding || r->resume_count))
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
    if (engine_room(engine) == 0 || !turn_may_join(engine, request->tenant))
        return WEFT_E_MESH_FULL;
    struct request *r = engine->requests;
    while (r->state != FREE)
        r++;
    uint32_t *tokens = r->tokens;
    struct ending *ending = r->ending;
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
        .logprobs = request->logprobs,
        .embed = request->embed,
        .embedding = request->embedding,
        .tokens = tokens,
        .ending = ending,
    };
    memcpy(tokens, request->tokens, request->token_count * sizeof(*tokens));
    if (request->resume_count)
        memcpy(tokens + request->token_count, request->resume,
               request->resume_count * sizeof(*tokens));
    if (answer_begin(engine, r, request)) {
        r->state = FREE;
        return -EINVAL;
    }
    turn_join(engine, r, request->tenant);
    if (!load_admits(engine, r, now_ns)) {
        turn_leave(engine, r);
        r->state = FREE;
        return WEFT_E_BUDGET_INFEASIBLE;
    }
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

void request_finish(struct engine *e, struct request *r, enum engine_finish how, uint64_t now_ns,
                    struct engine_event *event)
{
    const uint64_t started = r->started_ns ? r->started_ns : now_ns;
    const uint64_t first = r->first_token_ns ? r->first_token_ns : now_ns;
    *event = (struct engine_event){
        .kind = ENGINE_DONE,
        .id = r->id,
        .finish = how,
        .prompt_tokens = r->prompt_count,
        .cached_tokens = r->cached_count < r->prompt_count ? r->cached_count : r->prompt_count,
        .new_tokens = r->new_count,
        .queue_us = us_between(r->submitted_ns, started),
        .prefill_us = us_between(started, first),
        .decode_us = us_between(first, now_ns),
        .stop_us = r->cancelled ? us_between(r->cancelled_ns, now_ns) : 0,
    };
    if (how == ENGINE_STOP || how == ENGINE_LENGTH)
        answer_last(r, event);
    if (r->state == QUEUED) {
        e->queued--;
    } else {
        cache_end(e, r);
        e->slot_taken[r->slot] = false;
        e->active--;
        if (how == ENGINE_STOP || how == ENGINE_LENGTH)
            load_average(&e->used_fraction, (double)r->new_count / (double)r->max_tokens);
    }
    turn_leave(e, r);
    r->state = FREE;
    r->in_batch = false;
}
