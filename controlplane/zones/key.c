/* SPDX-License-Identifier: Apache-2.0 */
/* key.c - see key.h. */
#include "controlplane/zones/key.h"

#define HASH_BITS 16u

/* Half the torus in x is 32,768 cells, four tiers are 6,552, two 3,276, one 1,638. */
enum axis { X, Y, Z };
static const struct cut {
    uint8_t axis;
    uint8_t bit;
} cuts[ZONE_KEY_BITS - HASH_BITS] = {
    {X, 15}, {Y, 15}, {X, 14}, {Y, 14}, {X, 13}, {Y, 13}, {Z, 2}, {X, 12}, {Y, 12},
    {Z, 1},  {X, 11}, {Y, 11}, {Z, 0},  {X, 10}, {Y, 10}, {X, 9}, {Y, 9},  {X, 8},
    {Y, 8},  {X, 7},  {Y, 7},  {X, 6},  {Y, 6},  {X, 5},  {Y, 5}, {X, 4},  {Y, 4},
    {X, 3},  {Y, 3},  {X, 2},  {Y, 2},  {X, 1},  {Y, 1},  {X, 0}, {Y, 0},
};

uint64_t zone_key(uint16_t x, uint16_t y, uint8_t tier, uint32_t node)
{
    const uint32_t at[] = {[X] = x, [Y] = y, [Z] = tier};
    uint64_t key = 0;
    for (uint32_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        key = key << 1 | (at[cuts[i].axis] >> cuts[i].bit & 1u);
    }
    /* Fibonacci hashing: ids given out in a row are spread. */
    return key << HASH_BITS | (uint32_t)(node * UINT32_C(2654435769)) >> (32 - HASH_BITS);
}

void zone_area_place(uint32_t area, uint16_t *x, uint16_t *y)
{
    uint32_t at[] = {[X] = 0, [Y] = 0, [Z] = 0};
    uint32_t least[] = {[X] = 1u << 16, [Y] = 1u << 16, [Z] = 0};
    for (uint32_t i = 0; i < ZONE_AREA_BITS; i++) {
        uint32_t bit = area >> (ZONE_AREA_BITS - 1 - i) & 1u;
        at[cuts[i].axis] |= bit << cuts[i].bit;
        least[cuts[i].axis] = 1u << cuts[i].bit;
    }
    *x = (uint16_t)(at[X] + least[X] / 2);
    *y = (uint16_t)(at[Y] + least[Y] / 2);
}

bool zone_area_in(uint32_t area, struct zone_range range)
{
    uint32_t shift = ZONE_KEY_BITS - ZONE_AREA_BITS;
    struct zone_range all = {(uint64_t)area << shift, ((uint64_t)area + 1) << shift};
    return zone_range_overlap(all, range);
}

uint32_t zone_area_gap(uint32_t area, struct zone_range range)
{
    uint32_t first = zone_area(range.lo);
    uint32_t last = zone_area(range.hi - 1);
    return area < first ? first - area : area > last ? area - last : 0;
}

uint64_t zone_key_cut(const uint64_t *keys, uint32_t count)
{
    uint32_t first = (count + 2) / 3;
    uint32_t last = count - first;
    uint64_t best = 0;
    uint32_t best_off = 0;
    first = first == 0 ? 1 : first;
    for (uint32_t i = first; i <= last || (i == first && i < count); i++) {
        uint64_t differ = keys[i] ^ keys[i - 1];
        uint32_t off = i > count / 2 ? i - count / 2 : count / 2 - i;
        if (differ == 0) {
            continue;
        }
        uint64_t top = UINT64_C(1) << (63 - __builtin_clzll(differ));
        uint64_t cut = keys[i] & ~(top - 1); /* the coarsest cut between the two */
        uint64_t weight = cut & -cut;
        uint64_t best_weight = best & -best;
        if (weight > best_weight || (weight == best_weight && off < best_off)) {
            best = cut;
            best_off = off;
        }
    }
    for (uint32_t i = 1; best == 0 && i < count; i++) { /* nothing balanced: any cut at all */
        best = keys[i] != keys[i - 1] ? keys[i] : 0;
    }
    return best;
}
