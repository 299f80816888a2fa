/* SPDX-License-Identifier: Apache-2.0 */
/*
 * key.h - the k-d path of a node: which half of the torus it lies in at each of 51 cuts. Cuts go
 * through the middle of what is left, always across the longest side (x, y, then tiers as soon as
 * half of them are longer than a side), so that the path is the same whoever computes it. The last
 * 16 bits are a hash of the node's id: they tell machines of one site and tier apart, which no
 * place could.
 *
 * A zone is an interval [lo, hi) of paths. With every path belonging to one zone the torus is
 * tiled without holes, a zone can always be joined with the one before or after it, and it can be
 * cut anywhere; zone_key_cut() prefers the coarsest k-d cut among balanced ones, so that zones stay
 * few boxes (the "shortest separator" of Bayer and Unterauer's prefix B-trees, 1977).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define ZONE_KEY_BITS 51u
#define ZONE_KEY_END  (UINT64_C(1) << ZONE_KEY_BITS) /* one past the last path */

struct zone_range {
    uint64_t lo, hi; /* lo <= path < hi <= ZONE_KEY_END */
};

#define ZONE_RANGE_ALL ((struct zone_range){0, ZONE_KEY_END})

uint64_t zone_key(uint16_t x, uint16_t y, uint8_t tier, uint32_t node);

/* Where to cut `keys` (rising, at least 2): each part gets at least a third of them. Returns the
 * first path of the upper part; 0 if all keys are equal. */
uint64_t zone_key_cut(const uint64_t *keys, uint32_t count);

/* The first ZONE_AREA_BITS of a path: enough to say where a node is to within 40 km, and mostly
 * whether it is in a range. */
#define ZONE_AREA_BITS 24u

static inline uint32_t zone_area(uint64_t key)
{
    return (uint32_t)(key >> (ZONE_KEY_BITS - ZONE_AREA_BITS));
}
/* Middle of an area. */
void zone_area_place(uint32_t area, uint16_t *x, uint16_t *y);
/* Could a node of the area be in the range? */
bool zone_area_in(uint32_t area, struct zone_range range);
/* How many areas lie between; 0: it could be in it. */
uint32_t zone_area_gap(uint32_t area, struct zone_range range);

static inline bool zone_range_valid(struct zone_range r)
{
    return r.lo < r.hi && r.hi <= ZONE_KEY_END;
}

static inline bool zone_range_equal(struct zone_range a, struct zone_range b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static inline bool zone_range_has(struct zone_range r, uint64_t key)
{
    return key >= r.lo && key < r.hi;
}

static inline bool zone_range_inside(struct zone_range inner, struct zone_range outer)
{
    return inner.lo >= outer.lo && inner.hi <= outer.hi;
}

static inline bool zone_range_overlap(struct zone_range a, struct zone_range b)
{
    return a.lo < b.hi && b.lo < a.hi;
}

/* What both have; not valid if that is nothing. */
static inline struct zone_range zone_range_common(struct zone_range a, struct zone_range b)
{
    return (struct zone_range){a.lo > b.lo ? a.lo : b.lo, a.hi < b.hi ? a.hi : b.hi};
}
