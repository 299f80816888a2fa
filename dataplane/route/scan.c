/* SPDX-License-Identifier: Apache-2.0 */
/* scan.c - see scan.h. The three versions of fill and pop stand side by side: read the plain one.
 */
#include "dataplane/route/scan.h"

#include <errno.h>
#include <stdbool.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif

/* ---- plain C: what the others must equal ---- */

static uint32_t ring_distance(uint32_t a, uint32_t b)
{
    uint32_t d = (a - b) & 0xffffu;
    return d > 32768u ? 65536u - d : d;
}

static void fill_scalar(struct scan *s, const struct scan_input *in)
{
    s->blocks = (in->count + SCAN_BLOCK - 1) / SCAN_BLOCK;
    for (uint32_t b = 0; b < s->blocks; b++) {
        uint32_t min = SCAN_NONE;
        for (uint32_t i = b * SCAN_BLOCK; i < (b + 1) * SCAN_BLOCK; i++) {
            uint32_t key = SCAN_NONE;
            if (i < in->count && (in->need_tags & ~in->tags[i]) == 0) {
                uint32_t distance = ring_distance(in->places[i], in->place) +
                                    ring_distance(in->places[i] >> 16, in->place >> 16) +
                                    in->tier_cost[in->tiers[i] & 7];
                key = distance >= SCAN_TIER_BARRED ? SCAN_NONE : distance << SCAN_POSITION_BITS | i;
            }
            s->keys[i] = key;
            min = key < min ? key : min;
        }
        s->mins[b] = min;
    }
}

static uint32_t pop_scalar(struct scan *s)
{
    uint32_t key = SCAN_NONE;
    for (uint32_t b = 0; b < s->blocks; b++) {
        key = s->mins[b] < key ? s->mins[b] : key;
    }
    if (key == SCAN_NONE) {
        return key;
    }
    uint32_t block = scan_position(key) / SCAN_BLOCK;
    uint32_t min = SCAN_NONE;
    s->keys[scan_position(key)] = SCAN_NONE;
    for (uint32_t i = block * SCAN_BLOCK; i < (block + 1) * SCAN_BLOCK; i++) {
        min = s->keys[i] < min ? s->keys[i] : min;
    }
    s->mins[block] = min;
    return key;
}

#if HAVE_X86

/* ---- AVX2: 8 candidates at a time ---- */

__attribute__((target("avx2"))) static uint32_t min_of_8(__m256i v)
{
    __m128i m = _mm_min_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_min_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_min_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

__attribute__((target("avx2"))) static void fill_avx2(struct scan *s, const struct scan_input *in)
{
    const __m256i place = _mm256_set1_epi32((int)in->place);
    const __m256i need = _mm256_set1_epi32((int)in->need_tags);
    const __m256i costs = _mm256_loadu_si256((const __m256i *)in->tier_cost);
    const __m256i none = _mm256_set1_epi32((int)SCAN_NONE);
    const __m256i barred = _mm256_set1_epi32((int)SCAN_TIER_BARRED - 1);
    const __m256i last = _mm256_set1_epi32((int)in->count - 1);
    const __m256i low = _mm256_set1_epi32(0xffff);
    const __m256i step = _mm256_set1_epi32(8);
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    s->blocks = (in->count + SCAN_BLOCK - 1) / SCAN_BLOCK;
    for (uint32_t b = 0; b < s->blocks; b++) {
        __m256i min = none;
        for (uint32_t i = b * SCAN_BLOCK; i < (b + 1) * SCAN_BLOCK; i += 8) {
            __m256i key = none;
            if (i < in->count) {
                __m256i p = _mm256_loadu_si256((const __m256i *)(in->places + i));
                __m256i tags = _mm256_loadu_si256((const __m256i *)(in->tags + i));
                __m256i tier =
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in->tiers + i)));
                /* |dx| and |dy| at once: 16-bit lanes wrap as the rings do. */
                __m256i d = _mm256_abs_epi16(_mm256_sub_epi16(p, place));
                d = _mm256_add_epi32(_mm256_and_si256(d, low), _mm256_srli_epi32(d, 16));
                d = _mm256_add_epi32(d, _mm256_permutevar8x32_epi32(costs, tier));
                __m256i bad =
                    _mm256_or_si256(_mm256_cmpgt_epi32(d, barred), _mm256_cmpgt_epi32(index, last));
                __m256i has = _mm256_cmpeq_epi32(_mm256_and_si256(tags, need), need);
                key = _mm256_or_si256(_mm256_slli_epi32(d, SCAN_POSITION_BITS), index);
                key = _mm256_blendv_epi8(none, key, _mm256_andnot_si256(bad, has));
            }
            _mm256_store_si256((__m256i *)(s->keys + i), key);
            min = _mm256_min_epu32(min, key);
            index = _mm256_add_epi32(index, step);
        }
        s->mins[b] = min_of_8(min);
    }
}

__attribute__((target("avx2"))) static uint32_t pop_avx2(struct scan *s)
{
    uint32_t key = SCAN_NONE;
    for (uint32_t b = 0; b < s->blocks; b++) {
        key = s->mins[b] < key ? s->mins[b] : key;
    }
    if (key == SCAN_NONE) {
        return key;
    }
    uint32_t block = scan_position(key) / SCAN_BLOCK;
    const __m256i *keys = (const __m256i *)(s->keys + block * SCAN_BLOCK);
    const __m256i none = _mm256_set1_epi32((int)SCAN_NONE);
    const __m256i taken = _mm256_set1_epi32((int)key);
    __m256i min = none;
    /* Compared, not stored and loaded again: a fresh scalar store would stall the wide loads. */
    for (uint32_t i = 0; i < SCAN_BLOCK / 8; i++) {
        __m256i k = _mm256_load_si256(keys + i);
        __m256i gone = _mm256_cmpeq_epi32(k, taken);
        k = _mm256_or_si256(_mm256_andnot_si256(gone, k), _mm256_and_si256(gone, none));
        _mm256_store_si256((__m256i *)(s->keys + block * SCAN_BLOCK) + i, k);
        min = _mm256_min_epu32(min, k);
    }
    s->mins[block] = min_of_8(min);
    return key;
}

/* ---- AVX-512: 16 candidates at a time ---- */

#define TARGET_512 __attribute__((target("avx512f,avx512bw,avx2")))

TARGET_512 static void fill_avx512(struct scan *s, const struct scan_input *in)
{
    const __m512i place = _mm512_set1_epi32((int)in->place);
    const __m512i need = _mm512_set1_epi32((int)in->need_tags);
    const __m512i costs =
        _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)in->tier_cost));
    const __m512i none = _mm512_set1_epi32((int)SCAN_NONE);
    const __m512i barred = _mm512_set1_epi32((int)SCAN_TIER_BARRED);
    const __m512i low = _mm512_set1_epi32(0xffff);
    const __m512i step = _mm512_set1_epi32(16);
    __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    s->blocks = (in->count + SCAN_BLOCK - 1) / SCAN_BLOCK;
    for (uint32_t b = 0; b < s->blocks; b++) {
        __m512i min = none;
        for (uint32_t i = b * SCAN_BLOCK; i < (b + 1) * SCAN_BLOCK; i += 16) {
            __m512i key = none;
            if (i < in->count) {
                uint32_t left = in->count - i;
                __mmask16 there = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1);
                __m512i p = _mm512_maskz_loadu_epi32(there, in->places + i);
                __m512i tags = _mm512_maskz_loadu_epi32(there, in->tags + i);
                __m512i tier =
                    _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(in->tiers + i)));
                __m512i d = _mm512_abs_epi16(_mm512_sub_epi16(p, place));
                d = _mm512_add_epi32(_mm512_and_si512(d, low), _mm512_srli_epi32(d, 16));
                d = _mm512_add_epi32(d, _mm512_permutexvar_epi32(tier, costs));
                __mmask16 good = _mm512_mask_cmplt_epu32_mask(there, d, barred);
                good = _mm512_mask_cmpeq_epi32_mask(good, _mm512_and_si512(tags, need), need);
                key = _mm512_mask_or_epi32(none, good, _mm512_slli_epi32(d, SCAN_POSITION_BITS),
                                           index);
            }
            _mm512_store_si512(s->keys + i, key);
            min = _mm512_min_epu32(min, key);
            index = _mm512_add_epi32(index, step);
        }
        s->mins[b] = _mm512_reduce_min_epu32(min);
    }
}

TARGET_512 static uint32_t pop_avx512(struct scan *s)
{
    uint32_t key = SCAN_NONE;
    for (uint32_t b = 0; b < s->blocks; b++) {
        key = s->mins[b] < key ? s->mins[b] : key;
    }
    if (key == SCAN_NONE) {
        return key;
    }
    uint32_t *keys = s->keys + scan_position(key) / SCAN_BLOCK * SCAN_BLOCK;
    const __m512i none = _mm512_set1_epi32((int)SCAN_NONE);
    const __m512i taken = _mm512_set1_epi32((int)key);
    __m512i a = _mm512_load_si512(keys);
    __m512i b = _mm512_load_si512(keys + 16);
    a = _mm512_mask_mov_epi32(a, _mm512_cmpeq_epi32_mask(a, taken), none);
    b = _mm512_mask_mov_epi32(b, _mm512_cmpeq_epi32_mask(b, taken), none);
    _mm512_store_si512(keys, a);
    _mm512_store_si512(keys + 16, b);
    s->mins[scan_position(key) / SCAN_BLOCK] = _mm512_reduce_min_epu32(_mm512_min_epu32(a, b));
    return key;
}

#endif

/* ---- dispatch ---- */

static const struct version {
    const char *name;
    void (*fill)(struct scan *s, const struct scan_input *in);
    uint32_t (*pop)(struct scan *s);
} versions[SCAN_ISAS] = {
    [SCAN_SCALAR] = {"plain C", fill_scalar, pop_scalar},
#if HAVE_X86
    [SCAN_AVX2] = {"AVX2", fill_avx2, pop_avx2},
    [SCAN_AVX512] = {"AVX-512", fill_avx512, pop_avx512},
#endif
};

static enum scan_isa current = SCAN_SCALAR;

static bool supported(enum scan_isa isa)
{
#if HAVE_X86
    __builtin_cpu_init();
    if (isa == SCAN_AVX2) {
        return __builtin_cpu_supports("avx2");
    }
    if (isa == SCAN_AVX512) {
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx2");
    }
#endif
    return isa == SCAN_SCALAR;
}

/* Before main(), so that no path has to ask whether it has been done. */
__attribute__((constructor)) static void scan_choose_isa(void)
{
    for (enum scan_isa isa = SCAN_ISAS; isa-- > SCAN_SCALAR;) {
        if (supported(isa)) {
            current = isa;
            return;
        }
    }
}

const char *scan_isa_name(enum scan_isa isa)
{
    return isa < SCAN_ISAS && versions[isa].name != 0 ? versions[isa].name : "?";
}

enum scan_isa scan_isa(void)
{
    return current;
}

int scan_isa_use(enum scan_isa isa)
{
    if (isa >= SCAN_ISAS || !supported(isa)) {
        return -ENOTSUP;
    }
    current = isa;
    return 0;
}

void scan_fill(struct scan *scan, const struct scan_input *input)
{
    versions[current].fill(scan, input);
}

uint32_t scan_pop(struct scan *scan)
{
    return versions[current].pop(scan);
}
