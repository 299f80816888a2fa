/* SPDX-License-Identifier: Apache-2.0 */
/* classes.c - see classes.h. */
#include "dataplane/route/classes.h"

#include <string.h>

/* Masks that are looked at; more, and those first met count. */
#define WORK_MAX 64u

struct work {
    uint32_t masks[WORK_MAX];
    uint32_t count;
    bool full; /* there are more */
};

static bool add(struct work *w, uint32_t mask)
{
    if (mask == 0) {
        return false;
    }
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->masks[i] == mask) {
            return false;
        }
    }
    if (w->count == WORK_MAX) {
        w->full = true;
        return false;
    }
    w->masks[w->count++] = mask;
    return true;
}

/* All intersections. What is added is intersected with everything in its turn. */
static void close_under_intersection(struct work *w)
{
    for (uint32_t i = 1; i < w->count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            (void)add(w, w->masks[i] & w->masks[k]);
        }
    }
}

static uint32_t members_of(uint32_t mask, const uint32_t *masks, uint32_t count)
{
    uint32_t members = 0;
    for (uint32_t i = 0; i < count; i++) {
        members += (masks[i] & mask) == mask;
    }
    return members;
}

/* Puts those with the most members first. */
static void rank(struct work *w, const uint32_t *masks, uint32_t count)
{
    uint32_t members[WORK_MAX];
    for (uint32_t i = 0; i < w->count; i++) {
        uint32_t mask = w->masks[i];
        uint32_t has = members_of(mask, masks, count);
        uint32_t at = i;
        for (; at > 0 && members[at - 1] < has; at--) {
            members[at] = members[at - 1];
            w->masks[at] = w->masks[at - 1];
        }
        members[at] = has;
        w->masks[at] = mask;
    }
}

void route_classes_find(struct route_classes *classes, const uint32_t *masks, uint32_t count)
{
    struct work w = {.count = 0};
    for (uint32_t i = 0; i < count; i++) {
        (void)add(&w, masks[i]);
    }
    close_under_intersection(&w);
    memset(classes, 0, sizeof(*classes));
    classes->count = 1;
    classes->cut = w.full || w.count >= ROUTE_CLASSES_MAX;
    if (classes->cut) {
        rank(&w, masks, count);
    }
    for (uint32_t i = 0; i < w.count && classes->count < ROUTE_CLASSES_MAX; i++) {
        uint32_t at = classes->count++;
        int tags = __builtin_popcount(w.masks[i]);
        for (; at > 1 && __builtin_popcount(classes->masks[at - 1]) > tags; at--) {
            classes->masks[at] = classes->masks[at - 1];
        }
        classes->masks[at] = w.masks[i];
    }
}
