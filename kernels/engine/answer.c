/* SPDX-License-Identifier: Apache-2.0 */
/* Logits to tokens: log probabilities, penalties, sampling; tokens to events: bytes that can no
 * longer be part of a stop string, ends. All of it follows from the request and its tokens alone,
 * resumed ones included, so that an answer taken over goes on unchanged. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "kernels/engine/engine_impl.h"

static struct gguf_str token_bytes(const struct engine *e, uint32_t token)
{
    return e->tokenizer ? tokenizer_token_bytes(e->tokenizer, token) : (struct gguf_str){"", 0};
}

/* False: the grammar does not allow the token. */
static bool grammar_goes_on(const struct engine *e, struct ending *end, uint32_t token)
{
    if (!end->grammar)
        return true;
    const bool allowed = grammar_take(end->grammar, e->options.vocab, &end->place, token);
    end->ended = allowed && grammar_must_end(&end->place);
    return allowed;
}

int answer_begin(const struct engine *e, struct request *r, const struct engine_request *request)
{
    struct ending *end = r->ending;
    size_t used = 0;
    end->stops.count = 0;
    end->state = (struct stop_state){0};
    if (request->stop_count && !e->tokenizer)
        return -EINVAL;
    for (size_t i = 0; i < request->stop_count; i++) {
        const struct gguf_str stop = request->stops[i];
        if (stop_add(&end->stops, (struct gguf_str){end->bytes + used, stop.len}))
            return -EINVAL;
        memcpy(end->bytes + used, stop.data, stop.len);
        used += stop.len;
    }
    end->grammar = request->grammar;
    end->ended = false;
    if (end->grammar)
        grammar_begin(end->grammar, &end->place);
    for (size_t i = 0; i < request->resume_count; i++) {
        if (end->ended || !grammar_goes_on(e, end, request->resume[i]))
            return -EINVAL; /* nothing can have been given behind it, or not this */
        const struct gguf_str bytes = token_bytes(e, request->resume[i]);
        if (end->stops.count)
            (void)stop_feed(&end->stops, &end->state, bytes.data, bytes.len);
        end->ended = end->ended || end->state.ended;
    }
    return 0;
}

/* ---- logits to tokens ---- */

/* Of the model's own distribution; the picked token's comes first. */
static void find_logprobs(const struct engine *e, const struct request *r, const float *logits,
                          struct pick *pick)
{
    struct sampler_candidate best[ENGINE_LOGPROBS_MAX];
    const struct sampler_scale scale = sampler_scale_of(logits, e->info.vocab);
    const size_t found = sampler_likeliest(logits, e->info.vocab, best, r->logprobs - 1);
    pick->logprobs[0] = (struct engine_logprob){
        pick->token, (float)sampler_log_probability(&scale, logits[pick->token])};
    for (size_t i = 0; i < found; i++)
        pick->logprobs[i + 1] = (struct engine_logprob){
            best[i].id, (float)sampler_log_probability(&scale, best[i].weight)};
    pick->logprob_count = (uint32_t)found + 1;
}

static void penalise(const struct engine *e, const struct request *r, float *logits)
{
    const struct sampler_params *p = &r->sampling;
    const struct sampler_params repeated = {.repetition = p->repetition};
    const struct sampler_params written = {.presence = p->presence, .frequency = p->frequency};
    if (sampler_has_penalties(&repeated))
        sampler_penalise(&repeated, r->tokens, (size_t)r->prompt_count + r->new_count, logits,
                         e->info.vocab, e->seen);
    if (sampler_has_penalties(&written))
        sampler_penalise(&written, r->tokens + r->prompt_count, r->new_count, logits, e->info.vocab,
                         e->seen);
}

/* What the grammar does not allow becomes impossible. */
static void restrict_tokens(const struct engine *e, const struct request *r, float *logits)
{
    const struct ending *end = r->ending;
    const uint32_t *mask = grammar_mask(e->masks, end->grammar, r->order + 1, &end->place,
                                        r->max_tokens - r->new_count);
    for (size_t i = 0; i < e->info.vocab; i++)
        if (!(mask[i / 32] >> i % 32 & 1))
            logits[i] = -INFINITY;
}

static void sample(const struct engine *e, const struct request *r, float *logits,
                   struct pick *pick)
{
    const size_t vocab = e->info.vocab;
    const float *raw = logits;
    if (r->logprobs && (r->ending->grammar || sampler_has_penalties(&r->sampling))) {
        memcpy(e->raw, logits, vocab * sizeof(*logits));
        raw = e->raw;
    }
    if (sampler_has_penalties(&r->sampling))
        penalise(e, r, logits);
    if (r->ending->grammar)
        restrict_tokens(e, r, logits);
    pick->token = sampler_pick(&r->sampling, (uint64_t)r->prompt_count + r->new_count, logits,
                               vocab, e->scratch);
    pick->logprob_count = 0;
    if (r->logprobs && pick->token != UINT32_MAX)
        find_logprobs(e, r, raw, pick);
}

/* Rows of embeddings have no logits. */
void answer_sample(struct engine *e, const struct batch *b)
{
    float *logits = e->logits;
    for (size_t i = 0; i < b->owners; i++) {
        if (e->row_owner[i]->embed)
            continue;
        sample(e, e->row_owner[i], logits, &e->picked[i]);
        logits += e->info.vocab;
    }
}

/* ---- states to embeddings ---- */

/* Sums go row by row in the order of positions, however the prompt is cut. */
void answer_pool(struct engine *e, const struct batch *b)
{
    const float *state = e->states;
    const size_t width = e->info.width;
    for (size_t i = 0; b->states && i < b->rows; i++) {
        const struct exec_row *row = &e->rows[i];
        double *sum = e->pooled + row->slot * width;
        if (!row->want_state)
            continue;
        for (size_t j = 0; j < width; j++)
            sum[j] += (double)state[j];
        state += width;
    }
}

/* The sum is as good as the mean: only the direction counts. */
static void give_embedding(const struct engine *e, const struct request *r)
{
    const double *sum = e->pooled + (size_t)r->slot * e->info.width;
    double square = 0.0;
    for (size_t j = 0; j < e->info.width; j++)
        square += sum[j] * sum[j];
    const double scale = square > 0.0 ? 1.0 / sqrt(square) : 0.0;
    for (size_t j = 0; j < e->info.width; j++)
        r->embedding[j] = (float)(sum[j] * scale);
}

/* ---- tokens to events ---- */

/* The token's bytes into the event, as far as they are certain now: what was held first. */
static void let_out(struct request *r, struct gguf_str bytes, struct engine_event *event)
{
    struct ending *end = r->ending;
    event->bytes = bytes.data;
    event->byte_count = bytes.len;
    if (end->stops.count == 0)
        return;
    const size_t held = end->state.held_len;
    memcpy(event->held, end->state.held, held);
    const size_t certain = stop_feed(&end->stops, &end->state, bytes.data, bytes.len);
    event->held_count = certain < held ? certain : held;
    event->byte_count = certain - event->held_count;
}

void answer_last(struct request *r, struct engine_event *event)
{
    struct stop_state *state = &r->ending->state;
    event->held_count = state->held_len;
    memcpy(event->held, state->held, state->held_len);
}

size_t answer_take(struct engine *e, struct request *r, const struct pick *pick, uint64_t now_ns,
                   struct engine_event *events)
{
    if (r->first_token_ns == 0)
        r->first_token_ns = now_ns;
    if (r->embed) {
        give_embedding(e, r);
        request_finish(e, r, ENGINE_STOP, now_ns, events);
        return 1;
    }
    if (pick->token == UINT32_MAX) {
        request_finish(e, r, ENGINE_ERROR, now_ns, events);
        return 1;
    }
    if (e->tokenizer && tokenizer_is_stop(e->tokenizer, pick->token)) {
        request_finish(e, r, ENGINE_STOP, now_ns, events);
        return 1;
    }
    r->state = DECODE;
    r->tokens[r->prompt_count + r->new_count++] = pick->token;
    turn_token(r);
    events[0] = (struct engine_event){
        .kind = ENGINE_TOKEN,
        .id = r->id,
        .token = pick->token,
        .logprob_count = pick->logprob_count,
    };
    memcpy(events[0].logprobs, pick->logprobs, pick->logprob_count * sizeof(pick->logprobs[0]));
    (void)grammar_goes_on(e, r->ending, pick->token);
    let_out(r, token_bytes(e, pick->token), &events[0]);
    r->ending->ended = r->ending->ended || r->ending->state.ended;
    if (!r->ending->ended && r->new_count < r->max_tokens)
        return 1;
    request_finish(e, r, r->ending->ended ? ENGINE_STOP : ENGINE_LENGTH, now_ns, &events[1]);
    return 2;
}
