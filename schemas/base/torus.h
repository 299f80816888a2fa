/* SPDX-License-Identifier: Apache-2.0 */
/*
 * torus.h - the metric by which both planes rank nodes: |dx| + |dy| + TORUS_TIER_CELLS * |dz| in
 * cells. x and y are 16-bit rings (on Earth y uses half of its ring, so that its wrap is no short
 * cut between the poles). Tiers lie on a line, in an abstract mesh on a ring of TORUS_TIERS.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TORUS_TIERS      8u
#define TORUS_TIER_CELLS 1638u /* 1,000 km at 0.6108 km a cell */
#define TORUS_DIAMETER   (32768u + 32768u + (TORUS_TIERS - 1) * TORUS_TIER_CELLS)

/* |int16(a - b)|: the shorter way around a ring of 65,536; the farthest point is 32,768 away. */
static inline uint32_t torus_ring_distance(uint32_t a, uint32_t b)
{
    uint32_t d = (a - b) & 0xffffu;
    return d > 32768u ? 65536u - d : d;
}

static inline uint32_t torus_tier_steps(uint32_t a, uint32_t b, bool ring)
{
    uint32_t d = a > b ? a - b : b - a;
    return ring && TORUS_TIERS - d < d ? TORUS_TIERS - d : d;
}
