/* SPDX-License-Identifier: Apache-2.0 */
/* nearest.c - see nearest.h. Read the AVX-512 version first: one vector holds both groups. */
#include "dataplane/route/nearest.h"

#include "dataplane/route/x86.h"

#if HAVE_X86

/* Does the query look at tags or a range of tiers? Else a candidate's base says all of it. */
static inline bool is_plain(const struct scan_input *in)
{
    return in->need_tags == 0 && in->tier_min == 0 && in->tier_max == SCAN_TIERS - 1;
}

/* ---- sorting networks (Batcher's bitonic sort) ---- */

/* One step: each lane is compared with its partner; the greater goes where `high` has a bit. */
#define STEP_256(v, partner, high)                                                                 \
    _mm256_blend_epi32(_mm256_min_epu32(v, partner), _mm256_max_epu32(v, partner), high)
#define SWAP_1(v) _mm256_shuffle_epi32(v, 0xb1)
#define SWAP_2(v) _mm256_shuffle_epi32(v, 0x4e)
#define SWAP_4(v) _mm256_permute4x64_epi64(v, 0x4e)

/* The second half of a sort: rising, of eight that rise and then fall. */
INLINE_256 __m256i merge_8(__m256i v)
{
    v = STEP_256(v, SWAP_4(v), 0xf0);
    v = STEP_256(v, SWAP_2(v), 0xcc);
    return STEP_256(v, SWAP_1(v), 0xaa);
}

INLINE_256 __m256i begin_8(__m256i v)
{
    v = STEP_256(v, SWAP_1(v), 0x66);
    v = STEP_256(v, SWAP_2(v), 0x3c);
    return STEP_256(v, SWAP_1(v), 0x5a);
}

INLINE_256 __m256i sort_8(__m256i v)
{
    return merge_8(begin_8(v));
}

/* The eight least of two times eight that rise; rising. */
INLINE_256 __m256i merge_two(__m256i a, __m256i b)
{
    const __m256i turned = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    return merge_8(_mm256_min_epu32(a, _mm256_permutevar8x32_epi32(b, turned)));
}

/* ---- what both versions share ---- */

INLINE_256 uint32_t mask_of(__m256i v)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(v));
}

static inline uint32_t bound_of(uint32_t a, uint32_t b)
{
    uint32_t bound = a > b ? a : b;
    return bound < SCAN_NONE ? bound : SCAN_NONE - 1;
}

/* Where the keys of the i-th search are kept; scan->keys if no other search can keep its own. */
static inline uint32_t *slot_of(struct scan *scan, const struct nearest *n, uint32_t i)
{
    return n->in.count <= NEAREST_SLOT ? scan->lent + (size_t)i * NEAREST_SLOT : scan->keys;
}
/* Has it keys in a slot of its own, to be searched after all others' have been worked out? */
static inline bool is_waiting(const struct nearest *n)
{
    return n->in.count > 16 && n->in.count <= NEAREST_SLOT;
}
_Static_assert(NEAREST_BURST *NEAREST_SLOT <= SCAN_CANDIDATES_MAX, "all slots have their place");

/* Positions behind keys in order; keys that are none become SCAN_NONE. */
INLINE_256 void put_256(__m256i keys, struct nearest *out)
{
    const __m256i none = _mm256_set1_epi32((int)SCAN_NONE);
    const __m256i bits = _mm256_set1_epi32(SCAN_CANDIDATES_MAX - 1);
    keys = _mm256_min_epu32(keys, none);
    __m256i at = _mm256_sub_epi32(keys, _mm256_set1_epi32((int)out->in.salt));
    /* The low 14 bits of a product come from the factors' low 14 bits. */
    at = _mm256_and_si256(_mm256_mullo_epi16(at, _mm256_set1_epi32((int)SCAN_UNMIX)), bits);
    at = _mm256_andnot_si256(_mm256_cmpeq_epi32(keys, none), at);
    _mm256_storeu_si256((__m256i *)out->keys, keys);
    _mm256_storeu_si256((__m256i *)out->positions, at);
}

TARGET_256 static void resalt_256(const uint32_t *keys, uint32_t salt, struct nearest *out)
{
    const __m256i bits = _mm256_set1_epi32(SCAN_CANDIDATES_MAX - 1);
    __m256i k = _mm256_loadu_si256((const __m256i *)keys);
    __m256i mixed = _mm256_add_epi32(k, _mm256_set1_epi32((int)salt));
    __m256i none = _mm256_cmpeq_epi32(k, _mm256_set1_epi32((int)SCAN_NONE));
    __m256i salted = _mm256_or_si256(_mm256_andnot_si256(bits, k), _mm256_and_si256(mixed, bits));
    out->in.salt = salt;
    put_256(sort_8(_mm256_blendv_epi8(salted, k, none)), out);
}

/* ---- AVX2 ---- */

struct query_256 {
    __m256i place, salt, need, costs;
};

INLINE_256 struct query_256 query_256(const struct scan_input *in)
{
    return (struct query_256){
        .place = _mm256_set1_epi32((int)in->place),
        .salt = _mm256_set1_epi32((int)in->salt),
        .need = _mm256_set1_epi32((int)in->need_tags),
        .costs = tier_costs_256(in),
    };
}

/* Keys of eight candidates from position `i`. */
INLINE_256 __m256i keys_256(const struct scan_input *in, const uint32_t *bases,
                            const struct query_256 *q, uint32_t i, bool plain)
{
    const __m256i bits = _mm256_set1_epi32(SCAN_CANDIDATES_MAX - 1);
    const __m256i none = _mm256_set1_epi32((int)SCAN_NONE);
    __m256i p = _mm256_loadu_si256((const __m256i *)(in->places + i));
    __m256i base = _mm256_loadu_si256((const __m256i *)(bases + i));
    __m256i mixed = _mm256_and_si256(_mm256_add_epi32(base, q->salt), bits);
    /* -|dx| and -|dy|, as |-32768| has no place in 16 bits; summed and shifted at once. */
    __m256i d = _mm256_min_epi16(_mm256_sub_epi16(p, q->place), _mm256_sub_epi16(q->place, p));
    d = _mm256_madd_epi16(d, _mm256_set1_epi16(-(1 << SCAN_POSITION_BITS)));
    if (plain) {
        return _mm256_or_si256(_mm256_andnot_si256(bits, _mm256_add_epi32(d, base)), mixed);
    }
    __m256i tier = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(in->tiers + i)));
    __m256i cost = _mm256_permutevar8x32_epi32(q->costs, tier);
    __m256i tags = _mm256_loadu_si256((const __m256i *)(in->tags + i));
    __m256i key = _mm256_add_epi32(d, _mm256_slli_epi32(cost, SCAN_POSITION_BITS));
    __m256i good = _mm256_cmpeq_epi32(_mm256_and_si256(tags, q->need), q->need);
    __m256i bad = _mm256_or_si256(_mm256_cmpgt_epi32(cost, _mm256_set1_epi32(SCAN_TIER_BARRED)),
                                  _mm256_cmpgt_epi32(_mm256_setzero_si256(), base));
    return _mm256_blendv_epi8(none, _mm256_or_si256(key, mixed), _mm256_andnot_si256(bad, good));
}

/* All keys, and the least of each lane. */
INLINE_256 void fill_256(struct nearest *n, uint32_t *keys, bool plain)
{
    const struct scan_input *in = &n->in;
    struct query_256 q = query_256(in);
    __m256i least[2] = {_mm256_set1_epi32(-1), _mm256_set1_epi32(-1)};
    const uint32_t count = in->count;
    for (uint32_t i = 0; i < count; i += 16) {
        for (uint32_t half = 0; half < 2; half++) {
            __m256i k = keys_256(in, n->bases, &q, i + 8 * half, plain);
            _mm256_store_si256((__m256i *)(keys + i + 8 * half), k);
            least[half] = _mm256_min_epu32(least[half], k);
        }
    }
    _mm256_storeu_si256((__m256i *)n->least, least[0]);
    _mm256_storeu_si256((__m256i *)(n->least + 8), least[1]);
}

INLINE_256 void bound_256(struct nearest *n)
{
    __m256i a = sort_8(_mm256_loadu_si256((const __m256i *)n->least));
    __m256i b = sort_8(_mm256_loadu_si256((const __m256i *)(n->least + 8)));
    n->bound = bound_of((uint32_t)_mm256_extract_epi32(a, 3), (uint32_t)_mm256_extract_epi32(b, 3));
}

INLINE_256 void collect_256(struct nearest *n, const uint32_t *keys)
{
    const __m256i bound = _mm256_set1_epi32((int)n->bound);
    uint32_t used = 0;
    for (uint32_t i = 0; i < n->in.count && used <= NEAREST_FOUND_MAX; i += 8) {
        __m256i k = _mm256_load_si256((const __m256i *)(keys + i));
        uint32_t under = mask_of(_mm256_cmpeq_epi32(_mm256_min_epu32(k, bound), k));
        for (; under != 0; under &= under - 1) {
            n->found[used++] = keys[i + (uint32_t)__builtin_ctz(under)];
        }
    }
    n->count = used;
    n->ok = used <= NEAREST_FOUND_MAX;
}

/* Eight of those found from `at`. */
INLINE_256 __m256i load_found(const struct nearest *n, uint32_t at)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i left = _mm256_set1_epi32((int)n->count - (int)at);
    __m256i keys = _mm256_loadu_si256((const __m256i *)(n->found + at));
    return _mm256_blendv_epi8(_mm256_set1_epi32((int)SCAN_NONE), keys,
                              _mm256_cmpgt_epi32(left, lanes));
}

INLINE_256 void begin_256(struct nearest *n, uint32_t *keys, const struct scan *scan, bool plain)
{
    if (n->in.count <= 16) { /* two vectors need no bound */
        struct query_256 q = query_256(&n->in);
        __m256i low = keys_256(&n->in, n->bases, &q, 0, plain);
        __m256i high = keys_256(&n->in, n->bases, &q, 8, plain);
        _mm256_storeu_si256((__m256i *)n->found, low);
        _mm256_storeu_si256((__m256i *)(n->found + 8), high);
        n->count = n->in.count;
        return;
    }
    fill_256(n, keys, plain);
    if (keys == scan->keys) {
        bound_256(n);
        collect_256(n, keys);
    }
}

TARGET_256 static void find_avx2(struct nearest *const s[], uint32_t count, struct scan *scan)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *keys = slot_of(scan, s[i], i);
        s[i]->ok = true;
        if (is_plain(&s[i]->in)) {
            begin_256(s[i], keys, scan, true);
        } else {
            begin_256(s[i], keys, scan, false);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_waiting(s[i])) {
            bound_256(s[i]);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_waiting(s[i])) {
            collect_256(s[i], slot_of(scan, s[i], i));
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!s[i]->ok) {
            continue;
        }
        __m256i keys = sort_8(load_found(s[i], 0));
        for (uint32_t at = 8; at < s[i]->count; at += 8) {
            keys = merge_two(keys, sort_8(load_found(s[i], at)));
        }
        put_256(keys, s[i]);
    }
}

/* ---- AVX-512 ---- */

INLINE_512 __m512i step_512(__m512i v, __m512i partner, __mmask16 high)
{
    return _mm512_mask_max_epu32(_mm512_min_epu32(v, partner), high, v, partner);
}

/* The lower eight lanes rising, the upper eight falling. */
INLINE_512 __m512i sort_halves(__m512i v)
{
    v = step_512(v, _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0xb1), 0x6666);
    v = step_512(v, _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0x4e), 0x3c3c);
    v = step_512(v, _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0xb1), 0x5a5a);
    v = step_512(v, _mm512_permutex_epi64(v, 0x4e), 0x0ff0);
    v = step_512(v, _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0x4e), 0x33cc);
    return step_512(v, _mm512_shuffle_epi32(v, (_MM_PERM_ENUM)0xb1), 0x55aa);
}

INLINE_512 __m256i lowest_8(__m512i v)
{
    v = sort_halves(v);
    return merge_8(_mm256_min_epu32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)));
}

struct query_512 {
    __m512i place, salt, need, costs;
};

INLINE_512 struct query_512 query_512(const struct scan_input *in)
{
    return (struct query_512){
        .place = _mm512_set1_epi32((int)in->place),
        .salt = _mm512_set1_epi32((int)in->salt),
        .need = _mm512_set1_epi32((int)in->need_tags),
        .costs = _mm512_castsi256_si512(tier_costs_256(in)),
    };
}

INLINE_512 __m512i keys_512(const struct scan_input *in, const uint32_t *bases,
                            const struct query_512 *q, uint32_t i, bool plain)
{
    const __m512i bits = _mm512_set1_epi32(SCAN_CANDIDATES_MAX - 1);
    const __m512i none = _mm512_set1_epi32((int)SCAN_NONE);
    __m512i p = _mm512_loadu_si512(in->places + i);
    __m512i base = _mm512_loadu_si512(bases + i);
    __m512i mixed = _mm512_add_epi32(base, q->salt);
    __m512i d = _mm512_min_epi16(_mm512_sub_epi16(p, q->place), _mm512_sub_epi16(q->place, p));
    d = _mm512_madd_epi16(d, _mm512_set1_epi16(-(1 << SCAN_POSITION_BITS)));
    if (plain) { /* 0xca: where `bits` is set `mixed`, else the sum */
        return _mm512_ternarylogic_epi32(bits, mixed, _mm512_add_epi32(d, base), 0xca);
    }
    __m512i tier = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(in->tiers + i)));
    __m512i cost = _mm512_permutexvar_epi32(tier, q->costs);
    __m512i tags = _mm512_loadu_si512(in->tags + i);
    __m512i key = _mm512_add_epi32(d, _mm512_slli_epi32(cost, SCAN_POSITION_BITS));
    __mmask16 good = _mm512_cmple_epu32_mask(cost, _mm512_set1_epi32(SCAN_TIER_BARRED));
    good = _mm512_mask_cmpeq_epi32_mask(good, _mm512_and_si512(tags, q->need), q->need);
    good = _mm512_mask_cmpge_epi32_mask(good, base, _mm512_setzero_si512());
    key = _mm512_ternarylogic_epi32(bits, mixed, key, 0xca);
    return _mm512_mask_mov_epi32(none, good, key);
}

INLINE_512 void fill_512(struct nearest *n, uint32_t *keys, bool plain)
{
    const struct scan_input *in = &n->in;
    struct query_512 q = query_512(in);
    __m512i least = _mm512_set1_epi32(-1);
    const uint32_t count = in->count;
    for (uint32_t i = 0; i < count; i += 16) {
        __m512i k = keys_512(in, n->bases, &q, i, plain);
        _mm512_store_si512(keys + i, k);
        least = _mm512_min_epu32(least, k);
    }
    _mm512_storeu_si512(n->least, least);
}

INLINE_512 void bound_512(struct nearest *n)
{
    __m512i v = sort_halves(_mm512_loadu_si512(n->least));
    __m256i high = _mm512_extracti64x4_epi64(v, 1); /* falling */
    n->bound = bound_of((uint32_t)_mm256_extract_epi32(_mm512_castsi512_si256(v), 3),
                        (uint32_t)_mm256_extract_epi32(high, 4));
}

INLINE_512 void collect_512(struct nearest *n, const uint32_t *keys)
{
    const __m512i bound = _mm512_set1_epi32((int)n->bound);
    const uint32_t count = n->in.count;
    uint32_t used = 0;
    for (uint32_t i = 0; i < count && used <= NEAREST_FOUND_MAX; i += 16) {
        __m512i k = _mm512_load_si512(keys + i);
        __mmask16 under = _mm512_cmple_epu32_mask(k, bound);
        _mm512_storeu_si512(n->found + used, _mm512_maskz_compress_epi32(under, k));
        used += (uint32_t)__builtin_popcount(under);
    }
    n->count = used;
    n->ok = used <= NEAREST_FOUND_MAX;
}

INLINE_512 __m512i load_found_512(const struct nearest *n, uint32_t at)
{
    uint32_t left = n->count - at;
    __mmask16 there = (__mmask16)(left < 16 ? (1u << left) - 1 : 0xffffu);
    return _mm512_mask_loadu_epi32(_mm512_set1_epi32((int)SCAN_NONE), there, n->found + at);
}

INLINE_512 void begin_512(struct nearest *n, uint32_t *keys, const struct scan *scan, bool plain)
{
    if (n->in.count <= 16) { /* one vector needs no bound */
        struct query_512 q = query_512(&n->in);
        _mm512_storeu_si512(n->found, keys_512(&n->in, n->bases, &q, 0, plain));
        n->count = n->in.count;
        return;
    }
    fill_512(n, keys, plain);
    if (keys == scan->keys) {
        bound_512(n);
        collect_512(n, keys);
    }
}

INLINE_512 __m256i sort_512(const struct nearest *n)
{
    if (n->count <= 8) {
        return sort_8(load_found(n, 0));
    }
    __m256i keys = lowest_8(load_found_512(n, 0));
    if (__builtin_expect(n->count > 16, 0)) {
        keys = merge_two(keys, lowest_8(load_found_512(n, 16)));
    }
    return keys;
}

TARGET_512 static void find_avx512(struct nearest *const s[], uint32_t count, struct scan *scan)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *keys = slot_of(scan, s[i], i);
        s[i]->ok = true;
        if (is_plain(&s[i]->in)) {
            begin_512(s[i], keys, scan, true);
        } else {
            begin_512(s[i], keys, scan, false);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_waiting(s[i])) {
            bound_512(s[i]);
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_waiting(s[i])) {
            collect_512(s[i], slot_of(scan, s[i], i));
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (s[i]->ok) {
            put_256(sort_512(s[i]), s[i]);
        }
    }
}

void nearest_find(struct nearest *const searches[], uint32_t count, struct scan *scan)
{
    if (scan_isa() == SCAN_AVX512) {
        find_avx512(searches, count, scan);
    } else {
        find_avx2(searches, count, scan);
    }
}

void nearest_resalt(const uint32_t keys[NEAREST_COUNT], uint32_t salt, struct nearest *out)
{
    resalt_256(keys, salt, out);
}

#else
void nearest_find(struct nearest *const searches[], uint32_t count, struct scan *scan)
{
    (void)searches, (void)count, (void)scan;
}

void nearest_resalt(const uint32_t keys[NEAREST_COUNT], uint32_t salt, struct nearest *out)
{
    (void)keys, (void)salt, (void)out;
}
#endif
