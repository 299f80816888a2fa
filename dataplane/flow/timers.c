/* SPDX-License-Identifier: Apache-2.0 */
/* timers.c - see timers.h. */
#include "dataplane/flow/timers.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

int timers_init(struct timers *t, uint32_t capacity)
{
    t->heap = calloc(capacity, sizeof(struct timer *));
    t->count = 0;
    t->capacity = t->heap != NULL ? capacity : 0;
    return t->heap != NULL ? 0 : -ENOMEM;
}

void timers_deinit(struct timers *t)
{
    free(t->heap);
    t->heap = NULL;
    t->count = 0;
}

static void timers_place(struct timers *t, struct timer *timer, uint32_t index)
{
    t->heap[index] = timer;
    timer->slot = index + 1;
}

static void timers_up(struct timers *t, struct timer *timer, uint32_t index)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (t->heap[parent]->due_ns <= timer->due_ns) {
            break;
        }
        timers_place(t, t->heap[parent], index);
        index = parent;
    }
    timers_place(t, timer, index);
}

static void timers_down(struct timers *t, struct timer *timer, uint32_t index)
{
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child >= t->count) {
            break;
        }
        if (child + 1 < t->count && t->heap[child + 1]->due_ns < t->heap[child]->due_ns) {
            child++;
        }
        if (timer->due_ns <= t->heap[child]->due_ns) {
            break;
        }
        timers_place(t, t->heap[child], index);
        index = child;
    }
    timers_place(t, timer, index);
}

static void timers_remove(struct timers *t, struct timer *timer)
{
    uint32_t index = timer->slot - 1;
    struct timer *moved = t->heap[--t->count];
    timer->slot = 0;
    if (moved == timer) {
        return;
    }
    if (index > 0 && t->heap[(index - 1) / 2]->due_ns > moved->due_ns) {
        timers_up(t, moved, index);
    } else {
        timers_down(t, moved, index);
    }
}

void timers_set(struct timers *t, struct timer *timer, uint64_t due_ns)
{
    if (timer->slot != 0) {
        if (timer->due_ns == due_ns) {
            return;
        }
        timers_remove(t, timer);
    }
    timer->due_ns = due_ns;
    if (due_ns == TIMER_NEVER) {
        return;
    }
    assert(t->count < t->capacity);
    timers_up(t, timer, t->count++);
}
