/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - what one node knows outside its zone: summaries whose ranges tile all other paths, fine
 * near the node and coarse far from it. An entry at rank r (r nodes lie in nearer entries) stands
 * for at most max(one zone, r / ZONE_VIEW_GRAIN) nodes, so entries at rank r have density 1/r: the
 * rank-harmonic law of Kumar, Liben-Nowell and Tomkins (navigating low-dimensional and hierarchical
 * populations), and O(log n) entries whatever the geography. Faces shared with many small zones are
 * summed up in the same way: that bounds the tail of a zone's neighbours.
 *
 * Sans-I/O; memory is the caller's and fixed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/zones/summary.h"

#define ZONE_VIEW_MAX   96u
#define ZONE_VIEW_GRAIN 4u

struct zone_entry {
    struct zone_summary is; /* age_ms is that at `heard_ns` */
    uint64_t heard_ns;
    uint64_t pulled_ns; /* when it was last asked for */
    uint8_t fails;      /* questions in a row without an answer */
    bool retry;         /* the last was not answered: somebody else is to be asked soon */
    bool single;        /* an answer has shown that it cannot be divided */
};

struct zone_view {
    uint32_t count;
    struct zone_entry all[ZONE_VIEW_MAX]; /* rising by range, not overlapping */
};

/* Puts `pieces` (rising, inside `range`) in the place of whatever was known of `range`. Entries
 * that reach beyond keep the rest of their range. If there is no room, neighbours become one. */
void zone_view_replace(struct zone_view *view, struct zone_range range,
                       const struct zone_summary *pieces, uint32_t count, uint64_t now_ns,
                       uint16_t x, uint16_t y);

/* At least 1 and up to `room` summaries that together cover `range`, contacts nearest to (x, y);
 * what nothing is known of becomes zone_summary_unknown(). `own`, if not NULL, takes part. With a
 * query, pieces that cannot hold a match within `farthest` are left out (then there may be none)
 * and *excluded_age_ms is the age of the oldest evidence by which. Ages are as of now. */
uint32_t zone_view_pieces(const struct zone_view *view, const struct zone_summary *own,
                          struct zone_range range, const struct zone_query *query,
                          uint32_t farthest, struct zone_summary *out, uint32_t room, uint16_t x,
                          uint16_t y, uint64_t now_ns, uint32_t *excluded_age_ms);

/* Joins neighbours in `pieces`, the smallest first, until there are at most `room`, but never two
 * that lie on both sides of `barrier` (then one more may stay): what has been answered for must not
 * come back as part of a piece, or searches would go round in circles. */
uint32_t zone_pieces_fit(struct zone_summary *pieces, uint32_t count, uint32_t room,
                         struct zone_range barrier, uint16_t x, uint16_t y);

/* Makes entries coarser where the rule allows it; `limits[i]` becomes the number of nodes that
 * entry i may stand for. */
void zone_view_shape(struct zone_view *view, uint32_t own_live, uint32_t zone_max, uint16_t x,
                     uint16_t y, uint8_t tier, bool abstract, uint32_t limits[ZONE_VIEW_MAX]);

/* The entry that has the path, or NULL. */
const struct zone_entry *zone_view_find(const struct zone_view *view, uint64_t key);

/* Age of an entry's evidence now, at most ZONE_AGE_MAX_MS. */
uint32_t zone_entry_age_ms(const struct zone_entry *entry, uint64_t now_ns);
