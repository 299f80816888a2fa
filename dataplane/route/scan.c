/* SPDX-License-Identifier: Apache-2.0 */
/* scan.c - see scan.h. The versions of start and of the search stand side by side: read the plain
 * one first. */
#include "dataplane/route/scan.h"

#include <errno.h>
#include <stddef.h>

#include "dataplane/route/x86.h"
#include "schemas/base/torus.h"

/* "This lane may have more, but not in registers": smaller than any key. */
#define SCAN_UNKNOWN 0u

/* ---- plain C: what the others must equal ---- */

static uint32_t tier_cost(const struct scan_input *in, uint32_t tier)
{
    if (tier < in->tier_min || tier > in->tier_max) {
        return SCAN_TIER_BARRED;
    }
    return in->tier_cells * torus_tier_steps(tier, in->tier_min, in->tier_ring);
}

static uint32_t key_of(const struct scan_input *in, uint32_t i)
{
    if (i >= in->count || (in->need_tags & ~in->tags[i]) != 0) {
        return SCAN_NONE;
    }
    uint32_t distance = torus_ring_distance(in->places[i], in->place) +
                        torus_ring_distance(in->places[i] >> 16, in->place >> 16) +
                        tier_cost(in, in->tiers[i]);
    return distance >= SCAN_TIER_BARRED
               ? SCAN_NONE
               : (distance + 1) << SCAN_POSITION_BITS | scan_mixed(in->salt, i);
}

/* Keeps the SCAN_FIRST smallest, sorted. */
static void keep_first(struct scan *s, uint32_t key)
{
    if (key == SCAN_NONE || (s->first_count == SCAN_FIRST && key > s->first[SCAN_FIRST - 1])) {
        return;
    }
    uint32_t at = s->first_count < SCAN_FIRST ? s->first_count++ : SCAN_FIRST - 1;
    for (; at > 0 && s->first[at - 1] > key; at--) {
        s->first[at] = s->first[at - 1];
    }
    s->first[at] = key;
}

static void start_scalar(struct scan *s, const struct scan_input *in)
{
    for (uint32_t i = 0; i < s->blocks * SCAN_BLOCK; i++) {
        s->keys[i] = key_of(in, i);
        keep_first(s, s->keys[i]);
    }
    s->exhausted = s->first_count < SCAN_FIRST;
}

static uint32_t block_min_scalar(const uint32_t *keys)
{
    uint32_t min = SCAN_NONE;
    for (uint32_t i = 0; i < SCAN_BLOCK; i++) {
        min = keys[i] < min ? keys[i] : min;
    }
    return min;
}

#if HAVE_X86

/* ---- AVX2: 8 candidates at a time ---- */

TARGET_256 static uint32_t min_of_8(__m256i v)
{
    __m128i m = _mm_min_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    m = _mm_min_epu32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_min_epu32(m, _mm_shuffle_epi32(m, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(m);
}

/* Takes the smallest keys out of the lanes' two minima. */
TARGET_256 static void take_first_256(struct scan *s, __m256i min1, __m256i min2)
{
    while (s->first_count < SCAN_FIRST) {
        uint32_t key = min_of_8(min1);
        if (key == SCAN_UNKNOWN || key == SCAN_NONE) {
            s->exhausted = key == SCAN_NONE;
            return;
        }
        __m256i taken = _mm256_cmpeq_epi32(min1, _mm256_set1_epi32((int)key));
        min1 = _mm256_blendv_epi8(min1, min2, taken);
        min2 = _mm256_andnot_si256(taken, min2); /* SCAN_UNKNOWN */
        s->first[s->first_count++] = key;
    }
}

TARGET_256 static void start_avx2(struct scan *s, const struct scan_input *in)
{
    const __m256i place = _mm256_set1_epi32((int)in->place);
    const __m256i need = _mm256_set1_epi32((int)in->need_tags);
    const __m256i costs = tier_costs_256(in);
    const __m256i none = _mm256_set1_epi32((int)SCAN_NONE);
    const __m256i barred = _mm256_set1_epi32((int)SCAN_TIER_BARRED);
    const __m256i last = _mm256_set1_epi32((int)in->count - 1);
    const __m256i low = _mm256_set1_epi32(0xffff);
    const __m256i bits = _mm256_set1_epi32(SCAN_CANDIDATES_MAX - 1);
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i mixed = _mm256_add_epi32(_mm256_mullo_epi32(index, _mm256_set1_epi32(SCAN_MIX)),
                                     _mm256_set1_epi32((int)in->salt));
    __m256i min1 = none;
    __m256i min2 = none;
    for (uint32_t i = 0; i < in->count; i += 8) {
        __m256i p = _mm256_loadu_si256((const __m256i *)(in->places + i));
        __m256i tags = _mm256_loadu_si256((const __m256i *)(in->tags + i));
        __m256i tier = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in->tiers + i)));
        /* |dx| and |dy| at once: 16-bit lanes wrap as the rings do. */
        __m256i d = _mm256_abs_epi16(_mm256_sub_epi16(p, place));
        d = _mm256_add_epi32(_mm256_and_si256(d, low), _mm256_srli_epi32(d, 16));
        d = _mm256_add_epi32(d, _mm256_permutevar8x32_epi32(costs, tier));
        __m256i bad =
            _mm256_or_si256(_mm256_cmpgt_epi32(d, barred), _mm256_cmpgt_epi32(index, last));
        __m256i has = _mm256_cmpeq_epi32(_mm256_and_si256(tags, need), need);
        __m256i key = _mm256_or_si256(_mm256_slli_epi32(d, SCAN_POSITION_BITS),
                                      _mm256_and_si256(mixed, bits));
        key = _mm256_blendv_epi8(none, key, _mm256_andnot_si256(bad, has));
        _mm256_store_si256((__m256i *)(s->keys + i), key);
        min2 = _mm256_min_epu32(min2, _mm256_max_epu32(min1, key));
        min1 = _mm256_min_epu32(min1, key);
        index = _mm256_add_epi32(index, _mm256_set1_epi32(8));
        mixed = _mm256_add_epi32(mixed, _mm256_set1_epi32(8 * SCAN_MIX));
    }
    for (uint32_t i = (in->count + 7) / 8 * 8; i < s->blocks * SCAN_BLOCK; i += 8) {
        _mm256_store_si256((__m256i *)(s->keys + i), none);
    }
    take_first_256(s, min1, min2);
}

TARGET_256 static uint32_t block_min_avx2(const uint32_t *keys)
{
    const __m256i *k = (const __m256i *)keys;
    __m256i a = _mm256_min_epu32(_mm256_load_si256(k), _mm256_load_si256(k + 1));
    __m256i b = _mm256_min_epu32(_mm256_load_si256(k + 2), _mm256_load_si256(k + 3));
    return min_of_8(_mm256_min_epu32(a, b));
}

/* ---- AVX-512: 16 candidates at a time ---- */

TARGET_512 static uint32_t min_of_16(__m512i v)
{
    return min_of_8(_mm256_min_epu32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)));
}

TARGET_512 static void take_first_512(struct scan *s, __m512i min1, __m512i min2)
{
    while (s->first_count < SCAN_FIRST) {
        uint32_t key = min_of_16(min1);
        if (key == SCAN_UNKNOWN || key == SCAN_NONE) {
            s->exhausted = key == SCAN_NONE;
            return;
        }
        __mmask16 taken = _mm512_cmpeq_epi32_mask(min1, _mm512_set1_epi32((int)key));
        min1 = _mm512_mask_mov_epi32(min1, taken, min2);
        min2 = _mm512_mask_mov_epi32(min2, taken, _mm512_setzero_si512()); /* SCAN_UNKNOWN */
        s->first[s->first_count++] = key;
    }
}

TARGET_512 static void start_avx512(struct scan *s, const struct scan_input *in)
{
    const __m512i place = _mm512_set1_epi32((int)in->place);
    const __m512i need = _mm512_set1_epi32((int)in->need_tags);
    const __m512i costs = _mm512_castsi256_si512(tier_costs_256(in));
    const __m512i none = _mm512_set1_epi32((int)SCAN_NONE);
    const __m512i barred = _mm512_set1_epi32((int)SCAN_TIER_BARRED);
    const __m512i low = _mm512_set1_epi32(0xffff);
    const __m512i bits = _mm512_set1_epi32(SCAN_CANDIDATES_MAX - 1);
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i mixed = _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(SCAN_MIX)),
                                     _mm512_set1_epi32((int)in->salt));
    __m512i min1 = none;
    __m512i min2 = none;
    for (uint32_t i = 0; i < in->count; i += 16) {
        uint32_t left = in->count - i;
        __mmask16 there = (__mmask16)(left >= 16 ? 0xffffu : (1u << left) - 1);
        __m512i p = _mm512_loadu_si512(in->places + i);
        __m512i tags = _mm512_loadu_si512(in->tags + i);
        __m512i tier = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(in->tiers + i)));
        __m512i d = _mm512_abs_epi16(_mm512_sub_epi16(p, place));
        d = _mm512_add_epi32(_mm512_and_si512(d, low), _mm512_srli_epi32(d, 16));
        d = _mm512_add_epi32(d, _mm512_permutexvar_epi32(tier, costs));
        __mmask16 good = _mm512_mask_cmple_epu32_mask(there, d, barred);
        good = _mm512_mask_cmpeq_epi32_mask(good, _mm512_and_si512(tags, need), need);
        __m512i key = _mm512_mask_or_epi32(none, good, _mm512_slli_epi32(d, SCAN_POSITION_BITS),
                                           _mm512_and_si512(mixed, bits));
        _mm512_store_si512(s->keys + i, key);
        min2 = _mm512_min_epu32(min2, _mm512_max_epu32(min1, key));
        min1 = _mm512_min_epu32(min1, key);
        mixed = _mm512_add_epi32(mixed, _mm512_set1_epi32(16 * SCAN_MIX));
    }
    for (uint32_t i = (in->count + 15) / 16 * 16; i < s->blocks * SCAN_BLOCK; i += 16) {
        _mm512_store_si512(s->keys + i, none);
    }
    take_first_512(s, min1, min2);
}

TARGET_512 static uint32_t block_min_avx512(const uint32_t *keys)
{
    return min_of_16(_mm512_min_epu32(_mm512_load_si512(keys), _mm512_load_si512(keys + 16)));
}

#endif

/* ---- dispatch ---- */

static const struct version {
    const char *name;
    void (*start)(struct scan *s, const struct scan_input *in);
    uint32_t (*block_min)(const uint32_t *keys);
} versions[SCAN_ISAS] = {
    [SCAN_SCALAR] = {"plain C", start_scalar, block_min_scalar},
#if HAVE_X86
    [SCAN_AVX2] = {"AVX2", start_avx2, block_min_avx2},
    [SCAN_AVX512] = {"AVX-512", start_avx512, block_min_avx512},
#endif
};

static enum scan_isa current = SCAN_SCALAR;

static bool supported(enum scan_isa isa)
{
#if HAVE_X86
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
    if (isa == SCAN_AVX2) {
        return avx2;
    }
    if (isa == SCAN_AVX512) {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl");
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
    return isa < SCAN_ISAS && versions[isa].name != NULL ? versions[isa].name : "?";
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

void scan_start(struct scan *s, const struct scan_input *in)
{
    s->salt = in->salt;
    s->count = in->count;
    s->blocks = (in->count + SCAN_BLOCK - 1) / SCAN_BLOCK;
    s->first_count = 0;
    s->exhausted = false;
    s->searching = false;
    versions[current].start(s, in);
    s->exhausted = s->exhausted || s->first_count == in->count;
}

static void search_begin(struct scan *s)
{
    for (uint32_t i = 0; i < s->first_count; i++) {
        s->keys[scan_position(s->salt, s->first[i])] = SCAN_NONE;
    }
    for (uint32_t b = 0; b < s->blocks; b++) {
        s->mins[b] = versions[current].block_min(s->keys + b * SCAN_BLOCK);
    }
    s->searching = true;
}

uint32_t scan_next(struct scan *s)
{
    if (s->exhausted) {
        return SCAN_NONE;
    }
    if (!s->searching) {
        search_begin(s);
    }
    uint32_t key = SCAN_NONE;
    for (uint32_t b = 0; b < s->blocks; b++) {
        key = s->mins[b] < key ? s->mins[b] : key;
    }
    if (key != SCAN_NONE) {
        uint32_t position = scan_position(s->salt, key);
        uint32_t block = position / SCAN_BLOCK;
        s->keys[position] = SCAN_NONE;
        s->mins[block] = versions[current].block_min(s->keys + block * SCAN_BLOCK);
    }
    return key;
}
