/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events.h - the event queue of a simulation in virtual time: a 4-ary heap. Events of the same
 * moment come out in the order in which they went in, so that a run is a function of its seed
 * alone. vnet.h builds the network on it. Threads: none of its own.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct event {
    uint64_t at_ns;
    uint64_t order; /* set by events_push() */
    uint32_t kind;  /* the user's, as are the two below */
    uint32_t node;
    uint64_t value;
};

struct events {
    struct event *heap;
    size_t count;
    size_t room;
    uint64_t pushed;
};

/* All zero is an empty queue. Frees what it holds, not *events. */
void events_deinit(struct events *events);

/* Returns 0 or -ENOMEM. */
int events_push(struct events *events, const struct event *event);

/* The earliest, NULL if there is none; valid until the next call. */
const struct event *events_peek(const struct events *events);

/* Takes the earliest one away; there must be one. */
struct event events_pop(struct events *events);
