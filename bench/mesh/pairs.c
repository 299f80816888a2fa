/* SPDX-License-Identifier: Apache-2.0 */
/* pairs.c - see pairs.h. */
#include "bench/mesh/pairs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"

#define SLOT_EMPTY   UINT64_MAX /* no node has the number 2^32 - 1 */
#define SLOT_REMOVED (UINT64_MAX - 1)
#define ROOM_FIRST   64u

void pairs_deinit(struct pairs *pairs)
{
    free(pairs->slots);
    memset(pairs, 0, sizeof(*pairs));
}

static size_t slot_first(const struct pairs *pairs, uint64_t key)
{
    struct rng rng = {.state = key};
    return (size_t)rng_next(&rng) & (pairs->room - 1);
}

/* The pair's slot, or NULL. */
static uint64_t *slot_find(const struct pairs *pairs, uint64_t key)
{
    if (pairs->count == 0) {
        return NULL;
    }
    size_t at = slot_first(pairs, key);
    while (pairs->slots[at] != SLOT_EMPTY) {
        if (pairs->slots[at] == key) {
            return &pairs->slots[at];
        }
        at = (at + 1) & (pairs->room - 1);
    }
    return NULL;
}

bool pairs_has(const struct pairs *pairs, uint32_t a, uint32_t b)
{
    return slot_find(pairs, (uint64_t)a << 32 | b) != NULL;
}

static void slot_fill(struct pairs *pairs, uint64_t key)
{
    size_t at = slot_first(pairs, key);
    while (pairs->slots[at] != SLOT_EMPTY) {
        at = (at + 1) & (pairs->room - 1);
    }
    pairs->slots[at] = key;
    pairs->used++;
    pairs->count++;
}

/* Room for one more, and removed ones away. */
static int pairs_rebuild(struct pairs *pairs)
{
    struct pairs fresh = {.room = ROOM_FIRST};
    while (fresh.room < 4 * (pairs->count + 1)) {
        fresh.room *= 2;
    }
    fresh.slots = malloc(fresh.room * sizeof(*fresh.slots));
    if (fresh.slots == NULL) {
        return -ENOMEM;
    }
    memset(fresh.slots, 0xff, fresh.room * sizeof(*fresh.slots));
    for (size_t i = 0; i < pairs->room; i++) {
        if (pairs->slots[i] < SLOT_REMOVED) {
            slot_fill(&fresh, pairs->slots[i]);
        }
    }
    free(pairs->slots);
    *pairs = fresh;
    return 0;
}

int pairs_add(struct pairs *pairs, uint32_t a, uint32_t b)
{
    if (pairs_has(pairs, a, b)) {
        return 0;
    }
    if (2 * (pairs->used + 1) > pairs->room) {
        int rc = pairs_rebuild(pairs);
        if (rc < 0) {
            return rc;
        }
    }
    slot_fill(pairs, (uint64_t)a << 32 | b);
    return 0;
}

void pairs_remove(struct pairs *pairs, uint32_t a, uint32_t b)
{
    uint64_t *slot = slot_find(pairs, (uint64_t)a << 32 | b);
    if (slot != NULL) {
        *slot = SLOT_REMOVED;
        pairs->count--;
    }
}
