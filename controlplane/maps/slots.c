/* SPDX-License-Identifier: Apache-2.0 */
/* slots.c - see slots.h. */
#include "controlplane/maps/slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"

int slots_init(struct slots *s, uint32_t capacity, uint64_t seed)
{
    memset(s, 0, sizeof(*s));
    if (capacity == 0 || capacity > SLOTS_MAX) {
        return -EINVAL;
    }
    uint32_t cells = 4;
    while (cells < 2 * capacity) {
        cells *= 2;
    }
    s->keys = calloc(capacity, sizeof(*s->keys));
    s->newer = calloc(capacity, sizeof(*s->newer));
    s->older = calloc(capacity, sizeof(*s->older));
    s->cells = malloc(cells * sizeof(*s->cells));
    if (s->keys == NULL || s->newer == NULL || s->older == NULL || s->cells == NULL) {
        slots_deinit(s);
        return -ENOMEM;
    }
    memset(s->cells, 0xff, cells * sizeof(*s->cells));
    for (uint32_t i = 0; i < capacity; i++) {
        s->older[i] = i + 1 < capacity ? i + 1 : SLOTS_NONE;
    }
    s->capacity = capacity;
    s->cell_mask = cells - 1;
    s->newest = SLOTS_NONE;
    s->oldest = SLOTS_NONE;
    s->seed = seed;
    return 0;
}

void slots_deinit(struct slots *s)
{
    free(s->keys);
    free(s->newer);
    free(s->older);
    free(s->cells);
    memset(s, 0, sizeof(*s));
}

static uint32_t home_of(const struct slots *s, uint64_t key)
{
    struct rng mix = {.state = key ^ s->seed};
    return (uint32_t)rng_next(&mix) & s->cell_mask;
}

/* The cell that holds the key's entry, or the empty one where it would go. */
static uint32_t cell_of(const struct slots *s, uint64_t key)
{
    uint32_t cell = home_of(s, key);
    while (s->cells[cell] != SLOTS_NONE && s->keys[s->cells[cell]] != key) {
        cell = (cell + 1) & s->cell_mask;
    }
    return cell;
}

uint32_t slots_find(const struct slots *s, uint64_t key)
{
    return s->cells[cell_of(s, key)];
}

static void unlink_slot(struct slots *s, uint32_t slot)
{
    uint32_t newer = s->newer[slot], older = s->older[slot];
    *(newer == SLOTS_NONE ? &s->newest : &s->older[newer]) = older;
    *(older == SLOTS_NONE ? &s->oldest : &s->newer[older]) = newer;
}

static void link_newest(struct slots *s, uint32_t slot)
{
    s->newer[slot] = SLOTS_NONE;
    s->older[slot] = s->newest;
    *(s->newest == SLOTS_NONE ? &s->oldest : &s->newer[s->newest]) = slot;
    s->newest = slot;
}

void slots_touch(struct slots *s, uint32_t slot)
{
    if (s->newest != slot) {
        unlink_slot(s, slot);
        link_newest(s, slot);
    }
}

/* Empties a cell and moves those behind it back, so that every entry stays within an unbroken run
 * from its home. */
static void cell_empty(struct slots *s, uint32_t cell)
{
    uint32_t hole = cell;
    for (uint32_t at = (cell + 1) & s->cell_mask; s->cells[at] != SLOTS_NONE;
         at = (at + 1) & s->cell_mask) {
        uint32_t home = home_of(s, s->keys[s->cells[at]]);
        if (((at - home) & s->cell_mask) >= ((at - hole) & s->cell_mask)) {
            s->cells[hole] = s->cells[at];
            hole = at;
        }
    }
    s->cells[hole] = SLOTS_NONE;
}

void slots_drop_at(struct slots *s, uint32_t slot)
{
    cell_empty(s, cell_of(s, s->keys[slot]));
    unlink_slot(s, slot);
    s->older[slot] = s->unused;
    s->unused = slot;
    s->used--;
}

bool slots_drop(struct slots *s, uint64_t key)
{
    uint32_t slot = slots_find(s, key);
    if (slot == SLOTS_NONE) {
        return false;
    }
    slots_drop_at(s, slot);
    return true;
}

uint32_t slots_take(struct slots *s, uint64_t key, bool *fresh)
{
    uint32_t slot = slots_find(s, key);
    *fresh = slot == SLOTS_NONE;
    if (!*fresh) {
        slots_touch(s, slot);
        return slot;
    }
    if (s->used == s->capacity) {
        slots_drop_at(s, s->oldest);
    }
    slot = s->unused;
    s->unused = s->older[slot];
    s->keys[slot] = key;
    s->cells[cell_of(s, key)] = slot;
    link_newest(s, slot);
    s->used++;
    return slot;
}
