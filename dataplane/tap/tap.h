/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tap.h - an lcore's side of a live capture. Pure: frames and verdicts into a ring, never waiting.
 * dataplane/core.c calls tap_in() before any stage changes a frame and tap_out() when all is
 * decided; tap_hub.c says whether somebody captures.
 *
 * While nobody does, a burst costs one relaxed load. Otherwise each frame is shown as it came, with
 * its verdict, and once more as it leaves; what a full ring cannot take is counted and forgotten.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "dataplane/route/packet.h"
#include "dataplane/tap/tap_shm.h"

/* One capture; made and freed by tap_hub.c. What an lcore needs of it is here, not in the memory
 * that the reader may write to. */
struct tap_view {
    struct tap_shm *shm;
    uint32_t slots;
    uint32_t snaplen;
    size_t bytes; /* of the memory */
};

/* Of one lcore. */
struct tap {
    _Alignas(64) _Atomic uint32_t generation; /* control thread: raised after `wanted` changed */
    struct tap_view *_Atomic wanted;          /* control thread; NULL = nobody captures */
    _Alignas(64) _Atomic uint32_t seen;       /* lcore: it uses nothing older any more */
    _Atomic uint64_t lost;                    /* lcore: of all captures */
    /* The lcore's own: */
    uint32_t lcore;
    uint32_t current_generation;
    uint32_t kept;    /* frames of this burst in slots not yet given to the reader */
    uint32_t offered; /* frames of this burst that came in; more than kept: the ring is full */
    struct tap_view *current;
    struct ring_end end;
    uint64_t now_ns;
};

void tap_init(struct tap *tap, uint32_t lcore);

/* Slow paths of those below. */
void tap_switch(struct tap *tap);
void tap_take(struct tap *tap, const struct route_packet *packets, uint32_t count);
void tap_take_worker(struct tap *tap, const struct route_packet *packets, uint32_t count);
void tap_take_local(struct tap *tap, const struct route_packet *packets, uint32_t count);
void tap_give(struct tap *tap, const struct route_packet *packets, uint32_t count);

/* Once per turn of the loop, also for an empty burst (it is how a capture's end is noticed): keeps
 * the frames as they came from the port. Straight after nic_rx(). */
static inline void tap_in(struct tap *tap, const struct route_packet *packets, uint32_t count,
                          uint64_t now_ns)
{
    if (atomic_load_explicit(&tap->generation, memory_order_relaxed) != tap->current_generation) {
        tap_switch(tap);
    }
    if (tap->current != NULL) {
        tap->now_ns = now_ns;
        tap_take(tap, packets, count);
    }
}

/* The same for datagrams out of the worker's ring, which come behind those in the burst. Their
 * `weft_len` is known; headers they have none yet. */
static inline void tap_in_worker(struct tap *tap, const struct route_packet *packets,
                                 uint32_t count)
{
    if (tap->current != NULL) {
        tap_take_worker(tap, packets, count);
    }
}

/* The same for datagrams of local clients, behind those; they have headers. */
static inline void tap_in_local(struct tap *tap, const struct route_packet *packets, uint32_t count)
{
    if (tap->current != NULL) {
        tap_take_local(tap, packets, count);
    }
}

/* After the last stage, before the frames are given to the port: `packets` begins with those given
 * to tap_in(), tap_in_worker() and tap_in_local(), in their order; more may follow that came from
 * another lcore. */
static inline void tap_out(struct tap *tap, const struct route_packet *packets, uint32_t count)
{
    if (tap->current != NULL) {
        tap_give(tap, packets, count);
    }
}
