/* SPDX-License-Identifier: Apache-2.0 */
/* box.c - see box.h. */
#include "controlplane/zones/box.h"

#include <math.h>
#include <weft/wire.h>

#include "schemas/base/geo.h"
#include "schemas/base/torus.h"

#define RADIANS(deg) ((deg) * (M_PI / 180.0))
#define ROUNDING_KM  0.001 /* more than all rounding of doubles here */

void zone_box_add(struct zone_box *box, uint16_t x, uint16_t y, uint8_t tier)
{
    struct zone_box one = {x, x, y, y, tier, tier};
    zone_box_unite(box, &one);
}

void zone_box_unite(struct zone_box *box, const struct zone_box *other)
{
    if (zone_box_is_empty(other)) {
        return;
    }
    box->x_lo = other->x_lo < box->x_lo ? other->x_lo : box->x_lo;
    box->x_hi = other->x_hi > box->x_hi ? other->x_hi : box->x_hi;
    box->y_lo = other->y_lo < box->y_lo ? other->y_lo : box->y_lo;
    box->y_hi = other->y_hi > box->y_hi ? other->y_hi : box->y_hi;
    box->z_lo = other->z_lo < box->z_lo ? other->z_lo : box->z_lo;
    box->z_hi = other->z_hi > box->z_hi ? other->z_hi : box->z_hi;
}

/* From a point of the ring to the nearest of an interval: inside, or one of its ends. */
static uint32_t ring_bound(uint16_t at, uint16_t lo, uint16_t hi)
{
    if (at >= lo && at <= hi) {
        return 0;
    }
    uint32_t to_lo = torus_ring_distance(at, lo);
    uint32_t to_hi = torus_ring_distance(at, hi);
    return to_lo < to_hi ? to_lo : to_hi;
}

uint32_t zone_box_distance(const struct zone_box *box, uint16_t x, uint16_t y, uint8_t tier_min,
                           uint8_t tier_max, bool abstract)
{
    uint32_t steps = UINT32_MAX;
    for (uint32_t tier = tier_min; tier <= tier_max && tier < TORUS_TIERS; tier++) {
        if (tier >= box->z_lo && tier <= box->z_hi) {
            uint32_t s = torus_tier_steps(tier, tier_min, abstract);
            steps = s < steps ? s : steps;
        }
    }
    if (steps == UINT32_MAX) {
        return UINT32_MAX;
    }
    return ring_bound(x, box->x_lo, box->x_hi) + ring_bound(y, box->y_lo, box->y_hi) +
           steps * TORUS_TIER_CELLS;
}

/* Cosine of the angle from a point at latitude `lat` to the nearest of the latitudes a..b on a
 * meridian `dlon` away. On the meridian it is A cos(latitude - peak). */
static double meridian_cos(double lat, double dlon, double a, double b)
{
    double s = sin(lat);
    double c = cos(lat) * cos(dlon);
    double peak = atan2(s, c);
    if (peak >= a && peak <= b) {
        return hypot(s, c);
    }
    double at_a = s * sin(a) + c * cos(a);
    double at_b = s * sin(b) + c * cos(b);
    return at_a > at_b ? at_a : at_b;
}

double zone_box_km(const struct zone_box *box, uint16_t x, uint16_t y)
{
    double lat = RADIANS(weft_cell_latitude(y));
    double a = RADIANS(weft_cell_latitude(box->y_lo));
    double b = RADIANS(weft_cell_latitude(box->y_hi));
    double angle = 0;
    if (x >= box->x_lo && x <= box->x_hi) {
        angle = lat < a ? a - lat : lat > b ? lat - b : 0;
    } else {
        double lon = RADIANS(weft_cell_longitude(x));
        double c1 = meridian_cos(lat, RADIANS(weft_cell_longitude(box->x_lo)) - lon, a, b);
        double c2 = meridian_cos(lat, RADIANS(weft_cell_longitude(box->x_hi)) - lon, a, b);
        double c = c1 > c2 ? c1 : c2;
        /* acos loses half the digits near 1; an error of 4e-16 in the cosine is taken off. */
        c += 4e-16;
        angle = c >= 1.0 ? 0 : acos(c);
    }
    double km = angle * GEO_EARTH_RADIUS_KM - ROUNDING_KM;
    return km > 0 ? km : 0;
}
