/* SPDX-License-Identifier: Apache-2.0 */
/*
 * box.h - what members of a zone occupy: a box of cells and tiers, and lower bounds of the distance
 * from a point to anything in it. The bounds make branch and bound exact, so they may be too low
 * but never too high. Boxes do not wrap (zones never cross the seam: the first cuts go there), but
 * distances to them do.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct zone_box {
    uint16_t x_lo, x_hi, y_lo, y_hi; /* cells, inclusive */
    uint8_t z_lo, z_hi;              /* tiers, inclusive; z_lo > z_hi: empty */
};

#define ZONE_BOX_EMPTY ((struct zone_box){0xffff, 0, 0xffff, 0, 0xff, 0})

static inline bool zone_box_is_empty(const struct zone_box *box)
{
    return box->z_lo > box->z_hi;
}

void zone_box_add(struct zone_box *box, uint16_t x, uint16_t y, uint8_t tier);
void zone_box_unite(struct zone_box *box, const struct zone_box *other);

/* At most the torus distance (schemas/base/torus.h) from (x, y, tier_min) to any point of the box
 * whose tier is from tier_min to tier_max; UINT32_MAX if no tier of it is. */
uint32_t zone_box_distance(const struct zone_box *box, uint16_t x, uint16_t y, uint8_t tier_min,
                           uint8_t tier_max, bool abstract);

/* At most the great-circle distance in km from (x, y) to the centre of any cell of the box. */
double zone_box_km(const struct zone_box *box, uint16_t x, uint16_t y);
