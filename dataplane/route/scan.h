/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - the vector part of a choice: one key for every candidate of a model, then the keys in
 * rising order, as many as are asked for. A key is (distance + 1) << 14 | mixed position, so that
 * the order of keys is the order of distances. Ties, as among the machines of one site, are broken
 * by the mixed position: positions times a constant near 2^14 over the golden ratio, plus a salt
 * that each request brings. Over all salts each of n equals comes first about as often, whatever n
 * is (the gaps between n such numbers differ by a factor of 2.6 at most: the three-distance
 * theorem). Candidates that fail tags or tier get no key. Used by choose.c; three versions (plain
 * C, AVX2, AVX-512) give the same keys, the best one is taken when the program starts.
 *
 * Most choices need three candidates: the one chosen and two alternates. Those come out of
 * registers (two minima per lane are kept while the keys are computed); only who asks for more pays
 * for a search in memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SCAN_CANDIDATES_MAX 16384u /* 14 bits of position; a distance has 17 */
#define SCAN_POSITION_BITS  14u
#define SCAN_PAD            16u /* candidate arrays are readable up to a multiple of this */
#define SCAN_BLOCK          32u
#define SCAN_NONE           0x7fffffffu
/* Cost of a tier out of range: larger than any distance. */
#define SCAN_TIER_BARRED (1u << 18)
#define SCAN_TIERS       8u
#define SCAN_FIRST       3u
#define SCAN_MIX         10125u
#define SCAN_UNMIX       13125u /* SCAN_MIX * SCAN_UNMIX is 1 modulo 2^14 */
_Static_assert((SCAN_MIX * SCAN_UNMIX) % SCAN_CANDIDATES_MAX == 1, "mixing can be undone");

/* One model's candidates and one query. */
struct scan_input {
    const uint32_t *places; /* x in the low half, y in the high half */
    const uint32_t *tags;
    const uint8_t *tiers; /* below SCAN_TIERS */
    uint32_t count;       /* up to SCAN_CANDIDATES_MAX */
    uint32_t place;
    uint32_t need_tags;
    uint32_t tier_min, tier_max;
    uint32_t tier_cells; /* distance of one tier; at most 2^13 */
    bool tier_ring;      /* tiers lie on a ring of SCAN_TIERS */
    uint32_t salt;       /* of this request: the order of equals */
};

/* Scratch of one choice; only the part that is used is touched. */
struct scan {
    uint32_t salt;
    uint32_t count;
    uint32_t blocks;
    uint32_t first_count;
    uint32_t first[SCAN_FIRST];
    bool exhausted; /* the first keys are all there are */
    bool searching; /* `mins` are made and the first keys taken out */
    _Alignas(64) uint32_t mins[SCAN_CANDIDATES_MAX / SCAN_BLOCK];
    _Alignas(64) uint32_t keys[SCAN_CANDIDATES_MAX];
    _Alignas(64) uint32_t lent[SCAN_CANDIDATES_MAX]; /* to nearest.c */
};

/* Computes all keys and finds the first ones: scan->first[0..first_count), rising. There may be
 * more even if they are fewer than SCAN_FIRST. */
void scan_start(struct scan *scan, const struct scan_input *input);

/* The next key after those given so far, SCAN_NONE at the end. */
uint32_t scan_next(struct scan *scan);

static inline uint32_t scan_mixed(uint32_t salt, uint32_t position)
{
    return (position * SCAN_MIX + salt) & (SCAN_CANDIDATES_MAX - 1);
}

static inline uint32_t scan_position(uint32_t salt, uint32_t key)
{
    return ((key - salt) * SCAN_UNMIX) & (SCAN_CANDIDATES_MAX - 1);
}

static inline uint32_t scan_distance(uint32_t key)
{
    return (key >> SCAN_POSITION_BITS) - 1;
}

/* ---- instruction sets ---- */

enum scan_isa { SCAN_SCALAR, SCAN_AVX2, SCAN_AVX512, SCAN_ISAS };

const char *scan_isa_name(enum scan_isa isa);

/* The one in use. */
enum scan_isa scan_isa(void);

/* Takes another one, for tests and benches. Returns 0 or -ENOTSUP if this CPU has it not. Not while
 * other threads choose. */
int scan_isa_use(enum scan_isa isa);
