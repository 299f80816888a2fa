/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling. With top-k or top-p only the best candidates are ordered, by taking them off a heap; a
 * full sort of the vocabulary is never needed. */
#include "kernels/model/sampler.h"

#include <math.h>

#include "kernels/model/fixed.h"
#include "kernels/model/philox.h"

static bool repeats(const struct sampler_params *params)
{
    return params->repetition > 0.0f && params->repetition != 1.0f;
}

bool sampler_has_penalties(const struct sampler_params *params)
{
    return repeats(params) || params->presence != 0.0f || params->frequency != 0.0f;
}

void sampler_penalise(const struct sampler_params *params, const uint32_t *history,
                      size_t history_count, float *logits, size_t count, uint32_t *seen)
{
    for (size_t i = 0; i < history_count; i++) {
        const uint32_t id = history[i];
        if (id >= count || seen[id / 32] >> (id % 32) & 1u)
            continue;
        seen[id / 32] |= 1u << (id % 32);
        if (repeats(params))
            logits[id] = logits[id] > 0.0f ? logits[id] / params->repetition
                                           : logits[id] * params->repetition;
        logits[id] -= params->presence;
    }
    for (size_t i = 0; i < history_count; i++) {
        const uint32_t id = history[i];
        if (id >= count)
            continue;
        seen[id / 32] = 0;
        logits[id] -= params->frequency;
    }
}

static uint32_t pick_greedy(const float *logits, size_t count)
{
    uint32_t best = UINT32_MAX;
    float best_logit = -INFINITY;
    for (size_t i = 0; i < count; i++) {
        if (logits[i] > best_logit) { /* never true of NaN */
            best_logit = logits[i];
            best = (uint32_t)i;
        }
    }
    return best;
}

struct sampler_scale sampler_scale_of(const float *logits, size_t count)
{
    const uint32_t best = pick_greedy(logits, count);
    struct sampler_scale scale = {-INFINITY, 0.0};
    double sum = 0.0;
    if (best == UINT32_MAX)
        return scale;
    scale.best = logits[best];
    for (size_t i = 0; i < count; i++)
        if (logits[i] > -INFINITY) /* at the maximum, which may be infinite, the difference is 0 */
            sum +=
                logits[i] < scale.best ? (double)fixed_exp_negative(logits[i] - scale.best) : 1.0;
    scale.log_sum = fixed_log(sum);
    return scale;
}

double sampler_log_probability(const struct sampler_scale *scale, float logit)
{
    if (!(logit > -INFINITY))
        return -INFINITY;
    const double below = logit < scale->best ? (double)logit - (double)scale->best : 0.0;
    return below - scale->log_sum;
}

static bool better(struct sampler_candidate a, struct sampler_candidate b)
{
    return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

static void sift_down(struct sampler_candidate *heap, size_t count, size_t i)
{
    const struct sampler_candidate moved = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= count)
            break;
        if (child + 1 < count && better(heap[child + 1], heap[child]))
            child++;
        if (!better(heap[child], moved))
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

size_t sampler_likeliest(const float *logits, size_t count, struct sampler_candidate *out,
                         size_t wanted)
{
    size_t kept = 0;
    for (size_t i = 0; wanted && i < count; i++) {
        const struct sampler_candidate next = {logits[i], (uint32_t)i};
        if (!(next.weight > -INFINITY) || (kept == wanted && !better(next, out[kept - 1])))
            continue;
        size_t at = kept < wanted ? kept++ : kept - 1;
        for (; at > 0 && better(next, out[at - 1]); at--)
            out[at] = out[at - 1];
        out[at] = next;
    }
    return kept;
}

/* Candidates with their weight: exp((logit - max) / temperature), the probability but for the
 * common factor. Impossible ones are left out. */
static size_t gather(const float *logits, size_t count, float max, float temperature,
                     struct sampler_candidate *out)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        /* At the maximum, which may be infinite, the difference counts as 0. */
        const float below = logits[i] < max ? (logits[i] - max) / temperature : 0.0f;
        if (logits[i] > -INFINITY)
            out[kept++] = (struct sampler_candidate){fixed_exp_negative(below), (uint32_t)i};
    }
    return kept;
}

/* Draws from `count` candidates in their order; stops at the first whose running sum exceeds the
 * draw. */
static uint32_t draw(const struct sampler_candidate *c, size_t count, float least, double uniform)
{
    double total = 0.0;
    double sum = 0.0;
    uint32_t last = c[0].id;
    for (size_t i = 0; i < count; i++)
        total += c[i].weight >= least ? (double)c[i].weight : 0.0;
    for (size_t i = 0; i < count; i++) {
        if (c[i].weight < least || c[i].weight <= 0.0f)
            continue;
        sum += (double)c[i].weight;
        last = c[i].id;
        if (sum > uniform * total)
            break;
    }
    return last;
}

/* Takes the best candidate off the heap to behind its end. Returns its weight. */
static double take_one(struct sampler_candidate *heap, size_t count)
{
    const struct sampler_candidate best = heap[0];
    heap[0] = heap[count - 1];
    if (count > 1)
        sift_down(heap, count - 1, 0);
    heap[count - 1] = best;
    return (double)best.weight;
}

/* Moves the best candidates to the end of the array, best last, until top-k or top-p is met.
 * Returns how many. Top-p counts within what top-k leaves. */
static size_t take_best(const struct sampler_params *params, struct sampler_candidate *heap,
                        size_t count)
{
    const bool nucleus = params->top_p > 0.0f && params->top_p < 1.0f;
    const bool limited = params->top_k && params->top_k < count;
    const size_t wanted = limited ? params->top_k : count;
    size_t taken = 0;
    double total = 0.0;
    double sum = 0.0;
    for (size_t i = 0; nucleus && !limited && i < count; i++)
        total += (double)heap[i].weight;
    for (size_t i = count / 2; i-- > 0;)
        sift_down(heap, count, i);
    if (!limited) {
        while (taken < wanted && sum < (double)params->top_p * total)
            sum += take_one(heap, count - taken++);
        return taken;
    }
    while (taken < wanted)
        total += take_one(heap, count - taken++);
    if (!nucleus)
        return taken;
    size_t kept = 0;
    while (kept < taken && sum < (double)params->top_p * total)
        sum += (double)heap[count - ++kept].weight;
    /* Only the best `kept` count: they are the last of the array. */
    return kept;
}

uint32_t sampler_pick(const struct sampler_params *params, uint64_t position, const float *logits,
                      size_t count, struct sampler_candidate *scratch)
{
    const uint32_t greedy = pick_greedy(logits, count);
    if (!(params->temperature > 0.0f) || !scratch || greedy == UINT32_MAX)
        return greedy;
    const float least = params->min_p > 0.0f && params->min_p <= 1.0f ? params->min_p : 0.0f;
    const double uniform = philox_uniform(params->seed, position);
    const size_t kept = gather(logits, count, logits[greedy], params->temperature, scratch);
    const bool nucleus = params->top_p > 0.0f && params->top_p < 1.0f;
    if (!nucleus && (params->top_k == 0 || params->top_k >= kept))
        return draw(scratch, kept, least, uniform);
    const size_t taken = take_best(params, scratch, kept);
    return draw(scratch + kept - taken, taken, least, uniform);
}
