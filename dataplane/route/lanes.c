/* SPDX-License-Identifier: Apache-2.0 */
/* lanes.c - see lanes.h. */
#include "dataplane/route/lanes.h"

#include <string.h>

#include "dataplane/route/x86.h"

#if HAVE_X86

/* 2^52: added to a whole number below 2^32 it leaves that number in the low half of a double. */
#define MAGIC_BITS 0x43300000

/* Four words of each of eight nodes, word by word. */
struct words {
    __m256i w[4];
};

INLINE_256 __m256i two(const void *low, const void *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)),
                                   _mm_loadu_si128(high), 1);
}

/* Turns rows of four words into columns. Pairs four apart are read together, so that the columns
 * come out in order. */
INLINE_256 struct words columns(__m256i r04, __m256i r15, __m256i r26, __m256i r37)
{
    __m256i a = _mm256_unpacklo_epi32(r04, r15);
    __m256i b = _mm256_unpackhi_epi32(r04, r15);
    __m256i c = _mm256_unpacklo_epi32(r26, r37);
    __m256i d = _mm256_unpackhi_epi32(r26, r37);
    return (struct words){{_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c),
                           _mm256_unpacklo_epi64(b, d), _mm256_unpackhi_epi64(b, d)}};
}

/* `c`: of the model's candidates. */
INLINE_256 struct words costs_of(const struct route_cost *c, const uint32_t *at)
{
    return columns(two(&c[at[0]], &c[at[4]]), two(&c[at[1]], &c[at[5]]), two(&c[at[2]], &c[at[6]]),
                   two(&c[at[3]], &c[at[7]]));
}

INLINE_256 __m256i column(const uint32_t *words)
{
    return _mm256_load_si256((const __m256i *)words);
}

/* The same words, without the fourth. */
INLINE_256 struct words costs_of_row(const struct route_row *row)
{
    return (struct words){{column(row->rtt_us), column(row->prefill_ns), column(row->decode_ns)}};
}

#define LOAD_OF(i) (&loads[c[at[i]].id])
INLINE_256 struct words loads_of(const struct route_cost *c, const struct route_load *loads,
                                 const uint32_t *at)
{
    return columns(two(LOAD_OF(0), LOAD_OF(4)), two(LOAD_OF(1), LOAD_OF(5)),
                   two(LOAD_OF(2), LOAD_OF(6)), two(LOAD_OF(3), LOAD_OF(7)));
}

INLINE_256 struct words loads_of_ids(const struct route_load *loads, const uint16_t *ids)
{
    return columns(two(&loads[ids[0]], &loads[ids[4]]), two(&loads[ids[1]], &loads[ids[5]]),
                   two(&loads[ids[2]], &loads[ids[6]]), two(&loads[ids[3]], &loads[ids[7]]));
}

INLINE_256 uint32_t mask_of(__m256i v)
{
    return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(v));
}

INLINE_256 __m256i at_most(__m256i a, __m256i b)
{
    return _mm256_cmpeq_epi32(_mm256_min_epu32(a, b), a);
}

/* Half of the lanes, as route_work_us() with 2^52 added. All arguments have 2^52 added too. */
INLINE_256 __m256d predict_half(__m256i wait_a, __m256i wait_b, __m256i prefill, __m256i decode,
                                __m256d prompt, __m256d answer)
{
    const __m256d magic = _mm256_set1_pd(0x1p52);
    __m256d ns = _mm256_fmadd_pd(prompt, _mm256_sub_pd(_mm256_castsi256_pd(prefill), magic),
                                 _mm256_set1_pd(0.5));
    ns = _mm256_fmadd_pd(answer, _mm256_sub_pd(_mm256_castsi256_pd(decode), magic), ns);
    __m256d wait = _mm256_add_pd(_mm256_sub_pd(_mm256_castsi256_pd(wait_a), magic),
                                 _mm256_sub_pd(_mm256_castsi256_pd(wait_b), magic));
    __m256d us = _mm256_floor_pd(_mm256_fmadd_pd(ns, _mm256_set1_pd(0.001), wait));
    us = _mm256_min_pd(us, _mm256_set1_pd(ROUTE_PREDICT_MAX_US));
    return _mm256_add_pd(us, magic);
}

INLINE_256 __m256i predict(const struct words *cost, const struct words *load,
                           const struct route_query *query)
{
    const __m256i magic = _mm256_set1_epi32(MAGIC_BITS);
    struct route_work work = route_work_of(query);
    const __m256d prompt = _mm256_set1_pd((double)work.prompt);
    const __m256d answer = _mm256_set1_pd((double)work.answer);
    __m256d low = predict_half(_mm256_unpacklo_epi32(cost->w[0], magic),
                               _mm256_unpacklo_epi32(load->w[0], magic),
                               _mm256_unpacklo_epi32(cost->w[1], magic),
                               _mm256_unpacklo_epi32(cost->w[2], magic), prompt, answer);
    __m256d high = predict_half(_mm256_unpackhi_epi32(cost->w[0], magic),
                                _mm256_unpackhi_epi32(load->w[0], magic),
                                _mm256_unpackhi_epi32(cost->w[1], magic),
                                _mm256_unpackhi_epi32(cost->w[2], magic), prompt, answer);
    return _mm256_castps_si256(
        _mm256_shuffle_ps(_mm256_castpd_ps(low), _mm256_castpd_ps(high), 0x88));
}

/* Brings the loads of these lanes up to date. */
__attribute__((noinline)) static void refresh(const struct route_table *table,
                                              struct route_load *loads, const uint16_t *nodes)
{
    for (uint32_t i = 0; i < NEAREST_COUNT; i++) {
        (void)route_load_now(table, nodes[i], loads);
    }
}

/* Needs `cost` and fresh loads; the rest of judging a look. */
INLINE_256 void judge_loads(struct route_look *look, const struct words *cost,
                            const struct words *load)
{
    const struct route_query *query = &look->query;
    const __m256i zero = _mm256_setzero_si256();
    __m256i keys = _mm256_loadu_si256((const __m256i *)look->nearest.keys);
    __m256i predicted_us = predict(cost, load, query);
    /* At least one place and enough memory: two comparisons of 16 bits at once. */
    __m256i need = _mm256_set1_epi32((int)(1u | (uint32_t)query->vram_64mib << 16));
    __m256i has = _mm256_cmpeq_epi32(_mm256_subs_epu16(need, load->w[1]), zero);
    __m256i in_time = at_most(predicted_us, _mm256_set1_epi32((int)query->budget_us));
    /* Room for all of a burst, or for none. */
    __m256i room = _mm256_and_si256(load->w[1], _mm256_set1_epi32(0xffff));
    __m256i plenty =
        _mm256_or_si256(_mm256_cmpgt_epi32(room, _mm256_set1_epi32((int)ROUTE_LOOKS_MAX)),
                        _mm256_cmpeq_epi32(room, zero));
    uint32_t there = mask_of(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)SCAN_NONE), keys));
    look->there = (uint8_t)there;
    look->pass = (uint8_t)(there & mask_of(_mm256_and_si256(has, in_time)));
    look->tight = (there & ~mask_of(plenty)) != 0;
    _mm256_storeu_si256((__m256i *)look->predicted_us, predicted_us);
}

INLINE_256 bool are_fresh(const struct route_table *table, const struct words *load)
{
    const __m256i generation = _mm256_set1_epi32((int)table->generation);
    return mask_of(_mm256_cmpeq_epi32(load->w[3], generation)) == 0xff;
}

INLINE_256 void judge(struct route_look *look, const struct route_table *table,
                      struct route_load *loads)
{
    const struct route_cost *c = table->costs + look->model->first;
    const uint32_t *at = look->nearest.positions; /* not of a row */
    struct words cost, load;
    if (look->row != NULL) {
        cost = costs_of_row(look->row);
        load = loads_of_ids(loads, look->row->ids);
    } else {
        cost = costs_of(c, at);
        load = loads_of(c, loads, at);
    }
    if (__builtin_expect(!are_fresh(table, &load), 0)) {
        refresh(table, loads, look->nodes);
        load = look->row != NULL ? loads_of_ids(loads, look->row->ids) : loads_of(c, loads, at);
    }
    judge_loads(look, &cost, &load);
}

TARGET_256 static void judge_all(const struct route_table *table, struct route_load *loads,
                                 struct route_look *looks, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (looks[i].near) {
            judge(&looks[i], table, loads);
        }
    }
}

void lanes_judge(const struct route_table *table, struct route_load *loads,
                 struct route_look *looks, uint32_t count)
{
    if (scan_isa() != SCAN_SCALAR) {
        judge_all(table, loads, looks, count);
    }
}

/* Smallest word of eight, in each lane. */
INLINE_256 __m256i least_of(__m256i v)
{
    v = _mm256_min_epu32(v, _mm256_permute4x64_epi64(v, 0x4e));
    v = _mm256_min_epu32(v, _mm256_shuffle_epi32(v, 0x4e));
    return _mm256_min_epu32(v, _mm256_shuffle_epi32(v, 0xb1));
}

/* route_limit_us() in each lane; what would not fit 32 bits is above all predictions anyway. */
INLINE_256 __m256i limit_of(__m256i best_us)
{
    const uint32_t fits = (UINT32_MAX - ROUTE_SHORT_US - ROUTE_SLACK_US) / 5 * 4;
    __m256i best = _mm256_min_epu32(best_us, _mm256_set1_epi32((int)fits));
    __m256i share = _mm256_srli_epi32(best, 1);
    share = _mm256_min_epu32(share, _mm256_set1_epi32((int)ROUTE_SHORT_US));
    share = _mm256_max_epu32(share, _mm256_srli_epi32(best, 2));
    share = _mm256_add_epi32(share, _mm256_set1_epi32((int)ROUTE_SLACK_US));
    return _mm256_add_epi32(best, share);
}
_Static_assert(ROUTE_SHORT_DEN == 2 && ROUTE_LONG_DEN == 4, "limit_of() adds a half or a quarter");
_Static_assert((UINT32_MAX - ROUTE_SHORT_US - ROUTE_SLACK_US) / 5u * 5u >= ROUTE_PREDICT_MAX_US,
               "limit_of() saturates above all predictions");

/* Lanes no further than ROUTE_NEAR_CELLS behind lane `first`. */
INLINE_256 uint32_t near_lanes(const struct route_look *look, uint32_t first)
{
    uint32_t last = (look->nearest.keys[first] | (SCAN_CANDIDATES_MAX - 1)) +
                    (ROUTE_NEAR_CELLS << SCAN_POSITION_BITS);
    __m256i keys = _mm256_loadu_si256((const __m256i *)look->nearest.keys);
    return mask_of(at_most(keys, _mm256_set1_epi32((int)last)));
}

/* The lane of the n-th bit. */
INLINE_256 uint32_t nth(uint32_t mask, uint32_t n)
{
    return (uint32_t)__builtin_ctz(_pdep_u32(1u << n, mask));
}

/* Of the lanes in `equals` two are drawn; the better one. As choose.c's draw(). */
INLINE_256 uint32_t draw(const struct route_look *look, const struct route_table *table,
                         const struct route_load *loads, uint32_t equals)
{
    uint32_t lot = look->query.lot;
    uint32_t used = (uint32_t)__builtin_popcount(equals);
    uint32_t a = (lot & 0xffffu) * used >> 16;
    uint32_t b = (lot >> 16) * (used - 1) >> 16;
    uint32_t one = nth(equals, a);
    uint32_t two = nth(equals, b >= a ? b + 1 : b);
    if (look->predicted_us[two] != look->predicted_us[one]) {
        return look->predicted_us[two] < look->predicted_us[one] ? two : one;
    }
    return loads[table->nodes[look->nodes[two]].id].assigned <
                   loads[table->nodes[look->nodes[one]].id].assigned
               ? two
               : one;
}

/* Eight have been taken, or all there are; or the nearest and its near-equals are good enough
 * against the best that could be (choose.c's collection_add()). */
INLINE_256 bool is_enough(const struct route_look *look)
{
    if (look->pass == 0xff || look->there != 0xff || look->model->count == NEAREST_COUNT) {
        return look->pass != 0;
    }
    if (__builtin_popcount(look->pass) <= (int)ROUTE_ALTERNATES) {
        return false;
    }
    uint32_t near = look->pass & near_lanes(look, (uint32_t)__builtin_ctz(look->pass));
    uint64_t bound = route_bound_us(&look->query, look->model);
    __m256i limit = _mm256_set1_epi32((int)(bound < UINT32_MAX ? bound : UINT32_MAX));
    __m256i predicted_us = _mm256_loadu_si256((const __m256i *)look->predicted_us);
    return near != look->pass && (near & ~mask_of(at_most(predicted_us, limit))) == 0;
}

TARGET_256 static bool pick(struct route_look *look, const struct route_table *table,
                            struct route_load *loads, struct route_choice *choice)
{
    if (__builtin_expect(look->tight, 0)) {
        judge(look, table, loads); /* what others of this burst were given counts */
    }
    if (__builtin_expect(!is_enough(look), 0)) {
        return false;
    }
    uint32_t pass = look->pass;
    const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i predicted_us = _mm256_loadu_si256((const __m256i *)look->predicted_us);
    __m256i fails = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)pass), bits),
                                       _mm256_setzero_si256());
    __m256i best_us = least_of(_mm256_or_si256(predicted_us, fails));
    uint32_t good = pass & mask_of(at_most(predicted_us, limit_of(best_us)));
    uint32_t chosen = (uint32_t)__builtin_ctz(good);
    uint32_t equals = good & near_lanes(look, chosen);
    if ((equals & (equals - 1)) != 0) {
        chosen = draw(look, table, loads, equals);
    }
    choice->node = look->nodes[chosen];
    choice->predicted_us = look->predicted_us[chosen];
    uint32_t others = pass & ~(1u << chosen);
    for (uint32_t i = 0; i < ROUTE_ALTERNATES && others != 0; i++, others &= others - 1) {
        choice->alternates[i] = look->nodes[__builtin_ctz(others)];
    }
    choice->constraint = WEFT_C_NONE;
    return true;
}

bool lanes_pick(struct route_look *look, const struct route_table *table, struct route_load *loads,
                struct route_choice *choice)
{
    return pick(look, table, loads, choice);
}

#else
void lanes_judge(const struct route_table *table, struct route_load *loads,
                 struct route_look *looks, uint32_t count)
{
    (void)table, (void)loads, (void)looks, (void)count;
}

bool lanes_pick(struct route_look *look, const struct route_table *table, struct route_load *loads,
                struct route_choice *choice)
{
    (void)look, (void)table, (void)loads, (void)choice;
    return false;
}
#endif
