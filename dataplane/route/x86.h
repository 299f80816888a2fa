/* SPDX-License-Identifier: Apache-2.0 */
/*
 * x86.h - what the vector versions of scan.c, nearest.c and lanes.c share: targets of functions,
 * which are compiled for their own instruction set whatever the rest is compiled for, and the
 * distances of tiers. Private to this folder.
 */
#pragma once

#include "dataplane/route/scan.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define HAVE_X86 1

#define TARGET_256 __attribute__((target("avx2,fma,popcnt,bmi,bmi2")))
#define TARGET_512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma,popcnt,bmi,bmi2")))
#define INLINE_256 TARGET_256 static inline __attribute__((always_inline))
#define INLINE_512 TARGET_512 static inline __attribute__((always_inline))

/* Distance + 1 to each tier, in the lane of its number. */
INLINE_256 __m256i tier_costs_256(const struct scan_input *in)
{
    const __m256i tier = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low = _mm256_set1_epi32((int)in->tier_min);
    const __m256i high = _mm256_set1_epi32((int)in->tier_max);
    __m256i d = _mm256_abs_epi32(_mm256_sub_epi32(tier, low));
    if (in->tier_ring) {
        d = _mm256_min_epu32(d, _mm256_sub_epi32(_mm256_set1_epi32((int)SCAN_TIERS), d));
    }
    /* Both factors fit 16 bits: madd is the cheap multiplication. */
    d = _mm256_madd_epi16(d, _mm256_set1_epi32((int)in->tier_cells));
    __m256i out = _mm256_or_si256(_mm256_cmpgt_epi32(low, tier), _mm256_cmpgt_epi32(tier, high));
    d = _mm256_add_epi32(d, _mm256_set1_epi32(1));
    return _mm256_or_si256(d, _mm256_and_si256(out, _mm256_set1_epi32((int)SCAN_TIER_BARRED)));
}

#else
#define HAVE_X86 0
#endif
