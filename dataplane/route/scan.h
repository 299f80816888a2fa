/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - the vector part of a choice: one key for every candidate of a model, then the keys in
 * rising order, as many as are asked for. A key is distance << 14 | position, so that the order of
 * keys is the order of distances with ties broken by position (which rises with the node id).
 * Candidates that fail tags or tier get no key. Used by choose.c; three versions (plain C, AVX2,
 * AVX-512) give the same keys, the best one is taken when the program starts.
 */
#pragma once

#include <stdint.h>

#define SCAN_CANDIDATES_MAX 16384u /* 14 bits of position; a distance has 17 */
#define SCAN_POSITION_BITS  14u
#define SCAN_PAD            16u /* candidate arrays are readable up to a multiple of this */
#define SCAN_BLOCK          32u
#define SCAN_NONE           0x7fffffffu
/* Cost of a tier out of range: larger than any distance. */
#define SCAN_TIER_BARRED (1u << 18)

/* One model's candidates and one query. */
struct scan_input {
    const uint32_t *places; /* x in the low half, y in the high half */
    const uint32_t *tags;
    const uint8_t *tiers; /* 0..7 */
    uint32_t count;       /* up to SCAN_CANDIDATES_MAX */
    uint32_t place;
    uint32_t need_tags;
    uint32_t tier_cost[8]; /* cells to each tier, or SCAN_TIER_BARRED */
};

/* Scratch of one choice; only the part that is used is touched. */
struct scan {
    uint32_t blocks;
    _Alignas(64) uint32_t mins[SCAN_CANDIDATES_MAX / SCAN_BLOCK];
    _Alignas(64) uint32_t keys[SCAN_CANDIDATES_MAX];
};

/* Computes all keys. */
void scan_fill(struct scan *scan, const struct scan_input *input);

/* Takes the smallest key left out, SCAN_NONE if there is none. */
uint32_t scan_pop(struct scan *scan);

static inline uint32_t scan_position(uint32_t key)
{
    return key & (SCAN_CANDIDATES_MAX - 1);
}

static inline uint32_t scan_distance(uint32_t key)
{
    return key >> SCAN_POSITION_BITS;
}

/* ---- instruction sets ---- */

enum scan_isa { SCAN_SCALAR, SCAN_AVX2, SCAN_AVX512, SCAN_ISAS };

const char *scan_isa_name(enum scan_isa isa);

/* The one in use. */
enum scan_isa scan_isa(void);

/* Takes another one, for tests and benches. Returns 0 or -ENOTSUP if this CPU has it not. Not while
 * other threads choose. */
int scan_isa_use(enum scan_isa isa);
