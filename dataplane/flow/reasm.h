/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reasm.h - puts a message together from byte ranges in any order. Used for requests by serve.c and
 * for replies by request.c, which takes finished bytes off the front while more arrive.
 *
 * Memory follows what has been received: the buffer holds [base, furthest byte received), a byte
 * further than `window` past the gap-free part is refused, and the message's own claim of its
 * length allocates nothing. So does the list of ranges: an even stream needs none. Where ranges
 * overlap, the first received wins.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REASM_RANGES_MAX    1024u /* what a window of 8 MiB loses at 15 % */
#define REASM_TOTAL_UNKNOWN UINT32_MAX

struct reasm_range {
    uint32_t begin;
    uint32_t end; /* one past the last byte */
};

struct reasm {
    uint8_t *data;     /* byte `base` of the message; heap, owned */
    uint32_t capacity; /* bytes allocated */
    uint32_t base;     /* bytes before it were consumed */
    uint32_t cum;      /* all bytes before it were received */
    uint32_t total;    /* of the message, REASM_TOTAL_UNKNOWN until set */
    uint32_t received; /* bytes, each once */
    uint32_t range_count;
    uint32_t range_capacity;
    struct reasm_range *ranges; /* beyond cum; sorted, apart from each other; heap, owned */
};

void reasm_init(struct reasm *r);
void reasm_deinit(struct reasm *r);

/* Declares the length. Returns 0, or -EPROTO if it contradicts what is known. */
int reasm_set_total(struct reasm *r, uint32_t total);

/* Takes the bytes [offset, offset + len). Returns how many were new (0 = duplicate), -ERANGE beyond
 * cum + window, -EPROTO beyond the total, -ENOBUFS with too many gaps, -ENOMEM. Nothing changes on
 * an error. */
int reasm_insert(struct reasm *r, uint32_t offset, const void *data, uint32_t len, uint32_t window);

/* Drops the bytes before `upto` (base..cum) from the buffer. */
void reasm_consume(struct reasm *r, uint32_t upto);

static inline bool reasm_complete(const struct reasm *r)
{
    return r->cum == r->total;
}

/* The first gap that is known to be one, as later bytes are here. False if there is none. */
static inline bool reasm_gap(const struct reasm *r, struct reasm_range *gap)
{
    if (r->range_count == 0) {
        return false;
    }
    gap->begin = r->cum;
    gap->end = r->ranges[0].begin;
    return true;
}

/* Bytes received behind the first gap. */
static inline uint32_t reasm_beyond(const struct reasm *r)
{
    return r->received - r->cum;
}

/* One past the furthest byte received. */
static inline uint32_t reasm_furthest(const struct reasm *r)
{
    return r->range_count == 0 ? r->cum : r->ranges[r->range_count - 1].end;
}
