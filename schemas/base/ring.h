/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ring.h - bounded single-producer single-consumer ring of datagrams that may lie in memory shared
 * with a process one does not trust. Used by the worker port (schemas/port.h).
 *
 * Each side keeps its own index in a private ring_end and only publishes it; what it reads of the
 * other side's index is checked against the capacity, so a hostile peer can spoil the contents of
 * the ring but not make this side read or write outside it.
 *
 * Waking: a consumer that is about to sleep calls ring_sleep_begin(), and if that returns true
 * waits on its eventfd; a producer calls ring_must_wake() after pushing and, if true, writes to it.
 * The two sequentially consistent fences make it impossible for both to miss each other.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RING_SLOT_BYTES 1536u
#define RING_DATA_MAX   (RING_SLOT_BYTES - 4u)

struct ring_slot {
    uint32_t len;
    uint8_t data[RING_DATA_MAX];
};
_Static_assert(sizeof(struct ring_slot) == RING_SLOT_BYTES, "slot size");

/* The shared part: indexes run freely and wrap at 2^32. */
struct ring {
    _Alignas(64) _Atomic uint32_t head; /* written by the producer */
    _Alignas(64) _Atomic uint32_t tail; /* written by the consumer */
    _Atomic uint32_t asleep;            /* 1 while the consumer waits */
};

/* One side's private view. */
struct ring_end {
    struct ring *ring;
    struct ring_slot *slots;
    uint32_t mask;  /* slots - 1 */
    uint32_t index; /* own head or tail */
};

/* `slots` is `count` entries, a power of two. Begins at the indexes found, which must both be 0. */
static inline void ring_end_init(struct ring_end *end, struct ring *ring, struct ring_slot *slots,
                                 uint32_t count)
{
    end->ring = ring;
    end->slots = slots;
    end->mask = count - 1;
    end->index = 0;
}

/* Producer: the slot to fill next, or NULL if the ring is full (or the peer's index is nonsense).
 */
static inline struct ring_slot *ring_reserve(struct ring_end *end)
{
    uint32_t tail = atomic_load_explicit(&end->ring->tail, memory_order_acquire);
    if (end->index - tail > end->mask) {
        return NULL;
    }
    return &end->slots[end->index & end->mask];
}

/* Producer: publishes the slot last reserved. */
static inline void ring_commit(struct ring_end *end)
{
    end->index++;
    atomic_store_explicit(&end->ring->head, end->index, memory_order_release);
}

/* Producer, after one or more commits: must the consumer be woken? At most one true per sleep. */
static inline bool ring_must_wake(struct ring_end *end)
{
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&end->ring->asleep, memory_order_relaxed) != 0 &&
           atomic_exchange_explicit(&end->ring->asleep, 0, memory_order_relaxed) != 0;
}

/* Consumer: the oldest entry, or NULL if there is none (or the peer's index is nonsense). Its `len`
 * may change under the reader: copy it once and check it. */
static inline struct ring_slot *ring_peek(struct ring_end *end)
{
    uint32_t head = atomic_load_explicit(&end->ring->head, memory_order_acquire);
    uint32_t used = head - end->index;
    if (used == 0 || used > end->mask + 1) {
        return NULL;
    }
    return &end->slots[end->index & end->mask];
}

/* Consumer: gives the entry last peeked back. */
static inline void ring_release(struct ring_end *end)
{
    end->index++;
    atomic_store_explicit(&end->ring->tail, end->index, memory_order_release);
}

/* Consumer: announces sleep. True: wait on the eventfd now. False: something came, go on. */
static inline bool ring_sleep_begin(struct ring_end *end)
{
    atomic_store_explicit(&end->ring->asleep, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (ring_peek(end) != NULL) {
        atomic_store_explicit(&end->ring->asleep, 0, memory_order_relaxed);
        return false;
    }
    return true;
}

/* Consumer: awake again. */
static inline void ring_sleep_end(struct ring_end *end)
{
    atomic_store_explicit(&end->ring->asleep, 0, memory_order_relaxed);
}
