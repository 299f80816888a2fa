/* SPDX-License-Identifier: Apache-2.0 */
/* pmtu.c - see pmtu.h. */
#include "dataplane/flow/pmtu.h"

static const uint16_t sizes[] = {PMTU_SMALLEST, WEFT_DATAGRAM_SAFE, PMTU_TUNNEL, WEFT_DATAGRAM_MAX};
#define LEVEL_BASE 1u
#define LEVEL_LAST ((uint8_t)(sizeof(sizes) / sizeof(sizes[0]) - 1))

void pmtu_init(struct pmtu *p)
{
    *p = (struct pmtu){.level = LEVEL_BASE, .ceiling = LEVEL_LAST};
}

uint32_t pmtu_size(const struct pmtu *p)
{
    return sizes[p->level];
}

uint32_t pmtu_next(struct pmtu *p, uint32_t ready, uint64_t now_ns)
{
    if (p->watched != 0 && now_ns - p->sent_ns >= PMTU_FORGOTTEN_NS) {
        p->watched = 0;
    }
    if (p->raise_ns != 0 && now_ns >= p->raise_ns) {
        p->ceiling = LEVEL_LAST;
        p->raise_ns = 0;
    }
    /* Not while the current size is in doubt itself. */
    bool probe =
        p->watched == 0 && p->losses == 0 && p->level < p->ceiling && ready >= sizes[p->level + 1];
    return sizes[p->level + probe];
}

uint32_t pmtu_again(const struct pmtu *p)
{
    if (p->level < LEVEL_BASE || p->stuck >= PMTU_TRIES) {
        return PMTU_SMALLEST;
    }
    return WEFT_DATAGRAM_SAFE;
}

void pmtu_sent(struct pmtu *p, uint32_t seq, uint32_t begin, uint32_t end, uint32_t size,
               uint64_t now_ns)
{
    if (p->watched != 0 || size < sizes[p->level]) {
        return;
    }
    p->watched = (uint8_t)(p->level + 1 + (size > sizes[p->level]));
    p->seq = seq;
    p->begin = begin;
    p->end = end;
    p->sent_ns = now_ns;
}

/* No further up from here for a good while. */
static void pmtu_stop(struct pmtu *p, uint8_t level, uint64_t now_ns)
{
    p->level = p->ceiling = level;
    p->raise_ns = now_ns + (level < LEVEL_BASE ? PMTU_LOW_RAISE_NS : PMTU_RAISE_NS);
    p->tries = 0;
    p->losses = 0;
    p->watched = 0;
}

void pmtu_arrived(struct pmtu *p, uint32_t seq, uint32_t cum, uint64_t now_ns)
{
    if (p->stuck != 0 && p->stuck_seq == seq && cum > p->stuck_begin) {
        if (p->stuck >= PMTU_TRIES && p->level >= LEVEL_BASE) {
            pmtu_stop(p, 0, now_ns);
        }
        p->stuck = 0;
    }
    if (p->watched == 0 || p->seq != seq || cum < p->end) {
        return;
    }
    if (p->watched - 1 > p->level) {
        p->level++;
        p->tries = 0;
    }
    p->losses = 0;
    p->watched = 0;
}

/* Counts how often nothing has come of a repeat: of one message at a time, and of its first gap. */
static void pmtu_repeat(struct pmtu *p, uint32_t seq, uint32_t begin, uint64_t now_ns)
{
    bool same = p->stuck_seq == seq;
    bool known = p->stuck != 0 && now_ns - p->stuck_ns < PMTU_FORGOTTEN_NS;
    if (known && (!same || begin > p->stuck_begin)) {
        return;
    }
    p->stuck = known && begin == p->stuck_begin ? p->stuck + 1 : 1;
    p->stuck_seq = seq;
    p->stuck_begin = begin;
    p->stuck_ns = now_ns;
}

void pmtu_lost(struct pmtu *p, uint32_t seq, uint32_t begin, uint32_t end, uint64_t now_ns)
{
    pmtu_repeat(p, seq, begin, now_ns);
    if (p->watched == 0 || p->seq != seq || end <= p->begin || begin >= p->end) {
        return;
    }
    bool probe = p->watched - 1 > p->level;
    p->watched = 0;
    if (probe && ++p->tries == PMTU_TRIES) {
        pmtu_stop(p, p->level, now_ns);
    } else if (!probe && p->level > LEVEL_BASE && ++p->losses == PMTU_TRIES) {
        pmtu_stop(p, LEVEL_BASE, now_ns);
    }
}
