/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hist.h - log-linear histogram of unsigned 64-bit values: exact below 64, then 32 buckets per
 * power of two, so that a quantile is at most 3.2 % too high. Fixed size, no allocation, one
 * writer; another thread may read at the same time and sees each count whole. Same idea as
 * HdrHistogram (hdrhistogram.org), without its configurable precision.
 */
#pragma once

#include <stdint.h>

#define HIST_SUB_BITS 5u
#define HIST_BUCKETS  ((64u - HIST_SUB_BITS + 1u) << HIST_SUB_BITS)

struct hist {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[HIST_BUCKETS];
};

static inline uint32_t hist_bucket(uint64_t value)
{
    if (value < (2u << HIST_SUB_BITS)) {
        return (uint32_t)value;
    }
    uint32_t shift = 63u - (uint32_t)__builtin_clzll(value) - HIST_SUB_BITS;
    return (shift << HIST_SUB_BITS) + (uint32_t)(value >> shift);
}

/* Largest value that falls into a bucket. */
static inline uint64_t hist_bucket_top(uint32_t bucket)
{
    if (bucket < (2u << HIST_SUB_BITS)) {
        return bucket;
    }
    uint32_t shift = (bucket >> HIST_SUB_BITS) - 1;
    uint64_t low = (uint64_t)(bucket - (shift << HIST_SUB_BITS)) << shift;
    return low + ((UINT64_C(1) << shift) - 1);
}

static inline void hist_add(struct hist *h, uint64_t value)
{
    uint64_t *bucket = &h->buckets[hist_bucket(value)];
    __atomic_store_n(&h->count, h->count + 1, __ATOMIC_RELAXED);
    __atomic_store_n(bucket, *bucket + 1, __ATOMIC_RELAXED);
    if (value > h->max) {
        __atomic_store_n(&h->max, value, __ATOMIC_RELAXED);
    }
}

/* The value that a fraction `q` (0..1) of all values does not exceed; 0 if there are none. */
static inline uint64_t hist_quantile(const struct hist *h, double q)
{
    uint64_t max = __atomic_load_n(&h->max, __ATOMIC_RELAXED);
    uint64_t need = (uint64_t)(q * (double)__atomic_load_n(&h->count, __ATOMIC_RELAXED) + 0.5);
    uint64_t seen = 0;
    need = need == 0 ? 1 : need;
    for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
        seen += __atomic_load_n(&h->buckets[i], __ATOMIC_RELAXED);
        if (seen >= need) {
            uint64_t top = hist_bucket_top(i);
            return top < max ? top : max;
        }
    }
    return max;
}
