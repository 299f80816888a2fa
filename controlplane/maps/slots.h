/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slots.h - which entry of a fixed table belongs to a key, and which entry was used longest ago:
 * the bounded memory of all maps here. A map keeps an array of its own and finds the place in it by
 * slots_take(). Hashing is seeded, so that nobody outside can choose keys that collide.
 *
 * Linear probing over twice as many cells as entries, deletion by moving back (Knuth, TAOCP 3,
 * 6.4 R); order of use by a doubly linked list. 24 bytes an entry, taken at slots_init().
 *
 * Threads: none of its own; one thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SLOTS_NONE UINT32_MAX
#define SLOTS_MAX  (1u << 24)

struct slots {
    uint32_t capacity;
    uint32_t used;
    uint32_t cell_mask;
    uint32_t newest; /* SLOTS_NONE when empty */
    uint32_t oldest;
    uint32_t unused; /* head of the list of entries without a key, linked by `older` */
    uint64_t seed;
    uint64_t *keys; /* of each entry; meaningless while it is unused */
    uint32_t *newer;
    uint32_t *older;
    uint32_t *cells; /* entry or SLOTS_NONE */
};

/* Room for `capacity` entries (1..SLOTS_MAX). Returns 0, -EINVAL or -ENOMEM. */
int slots_init(struct slots *s, uint32_t capacity, uint64_t seed);
void slots_deinit(struct slots *s);

/* The entry of a key, or SLOTS_NONE. Does not count as use. */
uint32_t slots_find(const struct slots *s, uint64_t key);

/* The entry of a key, now the newest. *fresh: it had none, and what lies in the entry is a former
 * key's; if the table was full, that of the key used longest ago. */
uint32_t slots_take(struct slots *s, uint64_t key, bool *fresh);

/* The entry becomes the newest. */
void slots_touch(struct slots *s, uint32_t slot);

/* Forgets a key. False: it was not there. */
bool slots_drop(struct slots *s, uint64_t key);

/* Forgets the key of an entry that is in use. */
void slots_drop_at(struct slots *s, uint32_t slot);
