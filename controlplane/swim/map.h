/* SPDX-License-Identifier: Apache-2.0 */
/*
 * map.h - 64-bit keys to slots, in memory the caller gives: open addressing, linear probing,
 * deletion by moving back (Knuth 6.4 R), so that it never degrades. Keys are never 0 and random
 * enough (hashes, drawn numbers) to be used as they are.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SWIM_SLOT_NONE UINT32_MAX

struct swim_map_cell {
    uint64_t key; /* 0 = empty */
    uint32_t slot;
};

struct swim_map {
    struct swim_map_cell *cells;
    uint32_t mask; /* cells - 1; at least twice the keys */
};

static inline uint32_t swim_map_get(const struct swim_map *map, uint64_t key)
{
    uint32_t at = (uint32_t)key & map->mask;
    while (map->cells[at].key != 0) {
        if (map->cells[at].key == key) {
            return map->cells[at].slot;
        }
        at = (at + 1) & map->mask;
    }
    return SWIM_SLOT_NONE;
}

/* The key must not be there yet. */
static inline void swim_map_add(struct swim_map *map, uint64_t key, uint32_t slot)
{
    uint32_t at = (uint32_t)key & map->mask;
    while (map->cells[at].key != 0) {
        at = (at + 1) & map->mask;
    }
    map->cells[at].key = key;
    map->cells[at].slot = slot;
}

static inline void swim_map_remove(struct swim_map *map, uint64_t key)
{
    uint32_t hole = (uint32_t)key & map->mask;
    while (map->cells[hole].key != key) {
        if (map->cells[hole].key == 0) {
            return;
        }
        hole = (hole + 1) & map->mask;
    }
    for (uint32_t at = (hole + 1) & map->mask; map->cells[at].key != 0; at = (at + 1) & map->mask) {
        uint32_t home = (uint32_t)map->cells[at].key & map->mask;
        if (((at - home) & map->mask) >= ((at - hole) & map->mask)) {
            map->cells[hole] = map->cells[at];
            hole = at;
        }
    }
    map->cells[hole].key = 0;
}
