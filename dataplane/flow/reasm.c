/* SPDX-License-Identifier: Apache-2.0 */
/* reasm.c - see reasm.h. The list of ranges is short and sorted, so insertion is a walk, from
 * its end, where most bytes arrive. */
#include "dataplane/flow/reasm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REASM_CAPACITY_MIN 256u
#define REASM_RANGES_MIN   16u

void reasm_init(struct reasm *r)
{
    memset(r, 0, sizeof(*r));
    r->total = REASM_TOTAL_UNKNOWN;
}

void reasm_deinit(struct reasm *r)
{
    free(r->data);
    free(r->ranges);
    r->data = NULL;
    r->ranges = NULL;
    r->capacity = r->range_count = r->range_capacity = 0;
}

int reasm_set_total(struct reasm *r, uint32_t total)
{
    if (r->total == total) {
        return 0;
    }
    if (r->total != REASM_TOTAL_UNKNOWN || total < reasm_furthest(r)) {
        return -EPROTO;
    }
    r->total = total;
    return 0;
}

/* Doubling keeps the copying linear; what was not received is never more than one window. */
static int reasm_reserve(struct reasm *r, uint32_t need)
{
    if (need <= r->capacity) {
        return 0;
    }
    uint32_t capacity = r->capacity != 0 ? r->capacity : REASM_CAPACITY_MIN;
    while (capacity < need) {
        if (capacity > UINT32_MAX / 2) {
            return -ENOMEM;
        }
        capacity *= 2;
    }
    uint8_t *data = realloc(r->data, capacity);
    if (data == NULL) {
        return -ENOMEM;
    }
    r->data = data;
    r->capacity = capacity;
    return 0;
}

/* Room for one range more. */
static int reasm_reserve_range(struct reasm *r)
{
    if (r->range_count < r->range_capacity) {
        return 0;
    }
    if (r->range_count == REASM_RANGES_MAX) {
        return -ENOBUFS;
    }
    uint32_t capacity = r->range_capacity != 0 ? 2 * r->range_capacity : REASM_RANGES_MIN;
    struct reasm_range *ranges = realloc(r->ranges, capacity * sizeof(*ranges));
    if (ranges == NULL) {
        return -ENOMEM;
    }
    r->ranges = ranges;
    r->range_capacity = capacity;
    return 0;
}

/* Copies the part of [begin, end) of the datagram at `offset`. */
static uint32_t reasm_copy(struct reasm *r, uint32_t offset, const uint8_t *data, uint32_t begin,
                           uint32_t end)
{
    if (begin >= end) {
        return 0;
    }
    memcpy(r->data + (begin - r->base), data + (begin - offset), end - begin);
    return end - begin;
}

static void reasm_ranges_replace(struct reasm *r, uint32_t first, uint32_t last,
                                 struct reasm_range with)
{
    /* [first, last) become one range; first == last inserts. */
    memmove(&r->ranges[first + 1], &r->ranges[last],
            (r->range_count - last) * sizeof(r->ranges[0]));
    r->ranges[first] = with;
    r->range_count = r->range_count - (last - first) + 1;
}

/* What lies at the front of the list and touches cum becomes part of the gap-free bytes. */
static void reasm_advance(struct reasm *r)
{
    if (r->range_count == 0 || r->ranges[0].begin > r->cum) {
        return;
    }
    r->cum = r->ranges[0].end;
    r->range_count--;
    memmove(&r->ranges[0], &r->ranges[1], r->range_count * sizeof(r->ranges[0]));
}

int reasm_insert(struct reasm *r, uint32_t offset, const void *data, uint32_t len, uint32_t window)
{
    uint64_t end64 = (uint64_t)offset + len;
    if (end64 > (uint64_t)r->cum + window) {
        return -ERANGE;
    }
    if (end64 > r->total) {
        return -EPROTO;
    }
    uint32_t end = (uint32_t)end64;
    uint32_t begin = offset > r->cum ? offset : r->cum;
    if (begin >= end) {
        return 0;
    }
    uint32_t last = r->range_count; /* [first, last) touch it */
    while (last > 0 && r->ranges[last - 1].begin > end) {
        last--;
    }
    uint32_t first = last;
    while (first > 0 && r->ranges[first - 1].end >= begin) {
        first--;
    }
    int rc = first == last && begin != r->cum ? reasm_reserve_range(r) : 0;
    rc = rc == 0 ? reasm_reserve(r, end - r->base) : rc;
    if (rc != 0) {
        return rc;
    }
    uint32_t fresh = 0;
    uint32_t at = begin;
    struct reasm_range merged = {begin, end};
    for (uint32_t i = first; i < last; i++) {
        struct reasm_range have = r->ranges[i];
        fresh += reasm_copy(r, offset, data, at, have.begin);
        at = have.end > at ? have.end : at;
        merged.begin = have.begin < merged.begin ? have.begin : merged.begin;
        merged.end = have.end > merged.end ? have.end : merged.end;
    }
    fresh += reasm_copy(r, offset, data, at, end);
    r->received += fresh;
    if (merged.begin == r->cum && first == last) {
        r->cum = merged.end; /* in order: the usual case touches no list */
    } else {
        reasm_ranges_replace(r, first, last, merged);
        reasm_advance(r);
    }
    return (int)fresh;
}

void reasm_consume(struct reasm *r, uint32_t upto)
{
    if (upto <= r->base || upto > r->cum) {
        return;
    }
    uint32_t keep = reasm_furthest(r) - upto;
    if (keep != 0) {
        memmove(r->data, r->data + (upto - r->base), keep);
    }
    r->base = upto;
}
