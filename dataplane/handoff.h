/* SPDX-License-Identifier: Apache-2.0 */
/*
 * handoff.h - packets from one lcore to another: single producer, single consumer, by value (the
 * buffer changes owner with its entry). The ports belong to one lcore; the others hand it what is
 * for the local worker and for local clients. Used by core.c only.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/route/packet.h"

#define HANDOFF_SLOTS 512u /* a power of two */

struct handoff {
    _Alignas(64) _Atomic uint32_t head; /* written by the producer */
    _Alignas(64) _Atomic uint32_t tail; /* written by the consumer */
    _Alignas(64) struct route_packet slots[HANDOFF_SLOTS];
};

/* Producer. False: full. */
static inline bool handoff_push(struct handoff *h, const struct route_packet *packet)
{
    uint32_t head = atomic_load_explicit(&h->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&h->tail, memory_order_acquire) == HANDOFF_SLOTS) {
        return false;
    }
    h->slots[head & (HANDOFF_SLOTS - 1)] = *packet;
    atomic_store_explicit(&h->head, head + 1, memory_order_release);
    return true;
}

/* Consumer: up to `max` packets. Returns how many. */
static inline uint32_t handoff_pop(struct handoff *h, struct route_packet *packets, uint32_t max)
{
    uint32_t tail = atomic_load_explicit(&h->tail, memory_order_relaxed);
    uint32_t there = atomic_load_explicit(&h->head, memory_order_acquire) - tail;
    uint32_t count = there < max ? there : max;
    for (uint32_t i = 0; i < count; i++) {
        packets[i] = h->slots[(tail + i) & (HANDOFF_SLOTS - 1)];
    }
    atomic_store_explicit(&h->tail, tail + count, memory_order_release);
    return count;
}
