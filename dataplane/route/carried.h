/* SPDX-License-Identifier: Apache-2.0 */
/*
 * carried.h - are answers on their way to clients through this core? Its node waits for them before
 * it stops. stages.c notes each datagram of an answer, the control thread asks.
 *
 * A place says when an answer was last seen of the requests that fall into it; the end of one
 * clears it, and another one there shows itself with its next datagram. A worker that has nothing
 * to send yet is asked for a sign of life by its client at least once a second (flow/request.h), so
 * that one not seen for CARRIED_LIFE_NS has gone another way, or its client waits for its own
 * reader.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#define CARRIED_PLACES  1024u /* a power of two */
#define CARRIED_SHIFT   20u   /* units of 2^20 ns */
#define CARRIED_LIFE_NS UINT64_C(1500000000)

/* Zero-filled: none. One writer, any reader. */
struct carried {
    _Atomic uint32_t seen[CARRIED_PLACES]; /* when, from 1 on; 0 = none, or it has ended */
};

static inline uint32_t carried_time(uint64_t now_ns)
{
    return (uint32_t)(now_ns >> CARRIED_SHIFT) + 1;
}

/* A datagram of an answer, or the end of one. */
static inline void carried_note(struct carried *carried, const struct weft_rsp_hdr *h,
                                uint64_t now_ns)
{
    bool ends = (h->flags & WEFT_F_LAST) != 0 || h->type == WEFT_T_REJECT;
    _Atomic uint32_t *place = &carried->seen[(h->conn_id ^ h->req_seq) & (CARRIED_PLACES - 1)];
    atomic_store_explicit(place, ends ? 0 : carried_time(now_ns), memory_order_relaxed);
}

/* Any thread. */
static inline bool carried_any(const struct carried *carried, uint64_t now_ns)
{
    for (uint32_t i = 0; i < CARRIED_PLACES; i++) {
        uint32_t at = atomic_load_explicit(&carried->seen[i], memory_order_relaxed);
        if (at != 0 && carried_time(now_ns) - at <= CARRIED_LIFE_NS >> CARRIED_SHIFT) {
            return true;
        }
    }
    return false;
}
