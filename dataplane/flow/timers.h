/* SPDX-License-Identifier: Apache-2.0 */
/*
 * timers.h - a binary heap of deadlines whose nodes lie in their owners' structs: O(log n) to set,
 * O(1) to see the next. Used by serve.c and dataplane/client.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TIMER_NEVER UINT64_MAX

struct timer {
    uint64_t due_ns;
    uint32_t slot; /* place in the heap + 1; 0 = not set */
};

struct timers {
    struct timer **heap;
    uint32_t count;
    uint32_t capacity;
};

/* Room for `capacity` timers. Returns 0 or -ENOMEM. */
int timers_init(struct timers *t, uint32_t capacity);
void timers_deinit(struct timers *t);

/* (Re)sets a zero-filled or known timer; TIMER_NEVER clears it. At most `capacity` may be set. */
void timers_set(struct timers *t, struct timer *timer, uint64_t due_ns);

/* The timer due first, or NULL. */
static inline struct timer *timers_first(const struct timers *t)
{
    return t->count == 0 ? NULL : t->heap[0];
}

static inline uint64_t timers_due_ns(const struct timers *t)
{
    return t->count == 0 ? TIMER_NEVER : t->heap[0]->due_ns;
}
