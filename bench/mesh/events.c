/* SPDX-License-Identifier: Apache-2.0 */
/* events.c - see events.h. */
#include "bench/mesh/events.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define CHILDREN   4u
#define ROOM_FIRST 256u

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

void events_deinit(struct events *events)
{
    free(events->heap);
    memset(events, 0, sizeof(*events));
}

int events_push(struct events *events, const struct event *event)
{
    if (events->count == events->room) {
        size_t room = events->room == 0 ? ROOM_FIRST : 2 * events->room;
        struct event *heap = realloc(events->heap, room * sizeof(*heap));
        if (heap == NULL) {
            return -ENOMEM;
        }
        events->heap = heap;
        events->room = room;
    }
    struct event added = *event;
    added.order = events->pushed++;
    size_t at = events->count++;
    while (at > 0 && earlier(&added, &events->heap[(at - 1) / CHILDREN])) {
        events->heap[at] = events->heap[(at - 1) / CHILDREN];
        at = (at - 1) / CHILDREN;
    }
    events->heap[at] = added;
    return 0;
}

const struct event *events_peek(const struct events *events)
{
    return events->count > 0 ? &events->heap[0] : NULL;
}

struct event events_pop(struct events *events)
{
    struct event first = events->heap[0];
    struct event last = events->heap[--events->count];
    size_t at = 0;
    for (;;) {
        size_t child = at * CHILDREN + 1;
        size_t end = child + CHILDREN < events->count ? child + CHILDREN : events->count;
        size_t best = child;
        if (child >= events->count) {
            break;
        }
        for (size_t i = child + 1; i < end; i++) {
            if (earlier(&events->heap[i], &events->heap[best])) {
                best = i;
            }
        }
        if (!earlier(&events->heap[best], &last)) {
            break;
        }
        events->heap[at] = events->heap[best];
        at = best;
    }
    if (events->count > 0) {
        events->heap[at] = last;
    }
    return first;
}
