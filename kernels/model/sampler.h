/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sampler.h - logits to a token. Used by kernels/engine.
 *
 * Order: temperature, softmax, top-k, top-p, min-p, draw. The random number of a position comes
 * from a counter-based generator keyed by (seed, position), not from a state that runs along: a
 * stream that is resumed elsewhere from its tokens draws the same numbers.
 *
 * Among equals the lower id ranks first. NaN counts as impossible.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sampler_params {
    float temperature; /* 0 (or less, or NaN) = greedy */
    float top_p;       /* outside (0, 1) = off */
    float min_p;       /* outside (0, 1] = off */
    uint32_t top_k;    /* 0 = off */
    uint64_t seed;
};

/* Scratch that sampler_pick() needs for each logit. */
struct sampler_candidate {
    float weight;
    uint32_t id;
};

/* The next token. `position` is the one the token will have in its sequence. `scratch` has `count`
 * entries; may be NULL for greedy. Returns the id, or UINT32_MAX if no logit is a number above
 * minus infinity. */
uint32_t sampler_pick(const struct sampler_params *params, uint64_t position, const float *logits,
                      size_t count, struct sampler_candidate *scratch);

/* Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11). */
void sampler_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Uniform in [0, 1) with 53 bits. */
double sampler_uniform(uint64_t seed, uint64_t position);
