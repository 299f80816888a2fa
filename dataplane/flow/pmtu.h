/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pmtu.h - how large a datagram the path carries, found out with the data itself: DPLPMTUD (RFC
 * 8899) for requests (request.c, one per connection) and replies (serve.c, one per request).
 *
 * One datagram at a time is watched: a probe, larger than what is known to pass, or one of the
 * current size. A probe that arrives raises the size; PMTU_TRIES lost ones end the search.
 *
 * A path that has become narrower (section 4.3, black hole) shows in two ways. Repeats go out with
 * WEFT_DATAGRAM_SAFE bytes at most; if they pass, and yet PMTU_TRIES watched datagrams of a larger
 * size are lost in a row, the size falls to that. If they do not pass, the same bytes are asked for
 * again and again; from the PMTU_TRIES-th time on they go out in the smallest datagrams, and if
 * those pass, the size falls to that. A path that carries nothing teaches nothing.
 *
 * The caller sizes fresh datagrams by pmtu_next(), repeats by pmtu_again(), tells of each one by
 * pmtu_sent(), and of what became of them by pmtu_arrived() and pmtu_lost().
 * Threads: none; all times are of one monotonic clock given by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#include "schemas/base/clock.h"

#define PMTU_SMALLEST     548u             /* IPv4: what every host takes, less IP and UDP */
#define PMTU_TUNNEL       1400u            /* what most tunnels leave */
#define PMTU_TRIES        3u               /* of one size; losses that make a black hole */
#define PMTU_RAISE_NS     (600 * NS_PER_S) /* RFC 8899's PMTU_RAISE_TIMER */
#define PMTU_LOW_RAISE_NS (10 * NS_PER_S)  /* ... below WEFT_DATAGRAM_SAFE, which is rare */
#define PMTU_FORGOTTEN_NS (5 * NS_PER_S)   /* a watched one of which nothing more is heard */

/* Sizes are bytes of UDP payload. Zero-filled is no valid state. */
struct pmtu {
    uint8_t level;   /* known to pass; index of the sizes */
    uint8_t ceiling; /* highest one worth a probe */
    uint8_t tries;   /* probes of the level above lost */
    uint8_t losses;  /* watched datagrams of this level lost in a row */
    uint8_t watched; /* level of the watched datagram + 1; 0 = none */
    uint32_t seq;    /* its message ... */
    uint32_t begin;  /* ... and bytes */
    uint32_t end;
    uint64_t sent_ns;
    uint32_t stuck_seq;   /* a message that does not get on ... */
    uint32_t stuck_begin; /* ... from here ... */
    uint32_t stuck;       /* ... after so many repeats; 0 = it does */
    uint64_t stuck_ns;    /* the latest one */
    uint64_t raise_ns;    /* when the ceiling goes; 0 = it is the last level */
};

void pmtu_init(struct pmtu *p);

/* What passes, as far as is known. */
uint32_t pmtu_size(const struct pmtu *p);
/* Size for fresh data of which, headers included, `ready` bytes could go in one datagram: a
 * probe's if it is time for one and there is enough to fill it. */
uint32_t pmtu_next(struct pmtu *p, uint32_t ready, uint64_t now_ns);
/* Size for what may have been lost for its size. */
uint32_t pmtu_again(const struct pmtu *p);

/* A datagram of `size` with bytes [begin, end) of message `seq` goes out. */
void pmtu_sent(struct pmtu *p, uint32_t seq, uint32_t begin, uint32_t end, uint32_t size,
               uint64_t now_ns);
/* All bytes of the message before `cum` have arrived. */
void pmtu_arrived(struct pmtu *p, uint32_t seq, uint32_t cum, uint64_t now_ns);
/* These have not, or not yet, and are about to go again. */
void pmtu_lost(struct pmtu *p, uint32_t seq, uint32_t begin, uint32_t end, uint64_t now_ns);
