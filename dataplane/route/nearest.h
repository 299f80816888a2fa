/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nearest.h - the eight nearest of a model's candidates, in order, without a branch for any of
 * them: what most choices are made among (lanes.h). Keys and their order are those of scan.h, which
 * answers what is not answered here.
 *
 * Candidates are split into the lanes of a vector and each lane's least key is kept. The lanes are
 * two groups of eight; sorted, the fourth least of each is known, and the greater of the two is a
 * bound under which at least eight keys lie. A second pass collects what is under it (ten or eleven
 * of them, if keys are spread evenly), and a sorting network puts those into order.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/route/scan.h"

#define NEAREST_COUNT 8u

#define NEAREST_FOUND_MAX 32u
#define NEAREST_BURST     32u  /* searches at once */
#define NEAREST_SLOT      512u /* candidates of a search whose keys are kept beside others' */

/* One search. Vectors are written behind what `found` counts. */
struct nearest {
    struct scan_input in;              /* the caller's */
    const uint32_t *bases;             /* the caller's: nearest_base() of each candidate */
    bool ok;                           /* out; false: this order of candidates wants a scan */
    uint32_t keys[NEAREST_COUNT];      /* out: rising; SCAN_NONE: there are no others */
    uint32_t positions[NEAREST_COUNT]; /* out; 0 where there is none */
    uint32_t bound;
    uint32_t count;
    uint32_t least[2 * NEAREST_COUNT];
    uint32_t found[NEAREST_FOUND_MAX + 16];
};

/* What a search needs of a candidate at the position `i`, worked out when a table is
 * built: the key it has at distance 0 from a query that asks for tier 0, with no salt. `tier_cost`
 * is the distance of the candidate's tier from tier 0. Entries up to the next multiple of SCAN_PAD
 * must be NEAREST_PAD. */
#define NEAREST_PAD 0x80000000u
static inline uint32_t nearest_base(uint32_t i, uint32_t tier_cost)
{
    return (tier_cost + 1) << SCAN_POSITION_BITS | scan_mixed(0, i);
}

/* Up to NEAREST_BURST searches, step by step, so that their waits overlap. Neither this nor
 * nearest_resalt() on a CPU whose scan_isa() is SCAN_SCALAR. `scan` lends its memory. */
void nearest_find(struct nearest *const searches[], uint32_t count, struct scan *scan);

/* Puts up to eight keys without salt (SCAN_NONE behind them) into the order of the salt. */
void nearest_resalt(const uint32_t keys[NEAREST_COUNT], uint32_t salt, struct nearest *out);
