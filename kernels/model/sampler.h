/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampler.h - logits to a token. Used by kernels/engine.
 *
 * Order: penalties (sampler_penalise(), on the caller's copy of the logits), temperature, softmax,
 * top-k, top-p, min-p, draw. The random number of a position is philox_uniform(seed, position), not
 * from a state that runs along: a stream that is resumed elsewhere from its tokens draws the same
 * numbers.
 *
 * Among equals the lower id ranks first. NaN counts as impossible. Exponentials are those of
 * fixed.h: another machine draws the same token.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sampler_params {
    float temperature; /* 0 (or less, or NaN) = greedy */
    float top_p;       /* outside (0, 1) = off */
    float min_p;       /* outside (0, 1] = off */
    uint32_t top_k;    /* 0 = off */
    uint64_t seed;
    float repetition; /* divides logits above 0 of tokens that have occurred, multiplies those
                         below; not above 0, or 1 = off */
    float presence;   /* taken off the logits of tokens that have occurred */
    float frequency;  /* the same for each time */
};

/* Scratch that sampler_pick() needs for each logit. */
struct sampler_candidate {
    float weight;
    uint32_t id;
};

/* Does sampler_penalise() change anything? */
bool sampler_has_penalties(const struct sampler_params *params);

/* Applies the penalties for `history`, every token of the sequence that is to count: first
 * repetition, then presence and frequency. `seen` is scratch of (count + 31) / 32 words, all zero
 * before and after. Ids beyond `count` are left out. */
void sampler_penalise(const struct sampler_params *params, const uint32_t *history,
                      size_t history_count, float *logits, size_t count, uint32_t *seen);

/* What turns logits, as they are, into probabilities. */
struct sampler_scale {
    float best;     /* the highest logit; -INFINITY if nothing is possible */
    double log_sum; /* logarithm of the sum of exp(logit - best) */
};
struct sampler_scale sampler_scale_of(const float *logits, size_t count);

/* The natural logarithm of the probability of a token with this logit; -INFINITY if impossible. */
double sampler_log_probability(const struct sampler_scale *scale, float logit);

/* The `wanted` likeliest tokens, best first, weight = logit. Returns how many there are. */
size_t sampler_likeliest(const float *logits, size_t count, struct sampler_candidate *out,
                         size_t wanted);

/* The next token. `position` is the one the token will have in its sequence. `scratch` has `count`
 * entries; may be NULL for greedy. Returns the id, or UINT32_MAX if no logit is a number above
 * minus infinity. */
uint32_t sampler_pick(const struct sampler_params *params, uint64_t position, const float *logits,
                      size_t count, struct sampler_candidate *scratch);
