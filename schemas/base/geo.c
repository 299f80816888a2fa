/* SPDX-License-Identifier: Apache-2.0 */
/* geo.c - see geo.h. */
#include "schemas/base/geo.h"

#include <math.h>

#define RADIANS_PER_DEGREE (M_PI / 180.0)

struct geo_point geo_point_at(double latitude_deg, double longitude_deg)
{
    double lat = latitude_deg * RADIANS_PER_DEGREE;
    double lon = longitude_deg * RADIANS_PER_DEGREE;
    return (struct geo_point){cos(lat) * cos(lon), cos(lat) * sin(lon), sin(lat)};
}

double geo_chord2(struct geo_point a, struct geo_point b)
{
    double dx = a.x - b.x;
    double dy = a.y - b.y;
    double dz = a.z - b.z;
    return dx * dx + dy * dy + dz * dz;
}

double geo_chord2_of_km(double km)
{
    double angle = km / GEO_EARTH_RADIUS_KM;
    if (angle >= M_PI) {
        return INFINITY;
    }
    double half_chord = sin(angle / 2.0);
    return 4.0 * half_chord * half_chord;
}

double geo_distance_km(struct geo_point a, struct geo_point b)
{
    double half_chord = sqrt(geo_chord2(a, b)) / 2.0;
    return 2.0 * GEO_EARTH_RADIUS_KM * asin(half_chord < 1.0 ? half_chord : 1.0);
}
