/* SPDX-License-Identifier: Apache-2.0 */
/*
 * geo.h - great-circle distance by unit vectors. The chord between two points on the unit sphere
 * grows with the angle, so "within r km" is one dot product against a threshold computed once.
 * Mean Earth radius 6,371.0088 km (IUGG).
 */
#pragma once

#define GEO_EARTH_RADIUS_KM 6371.0088
#define GEO_HALF_TURN_KM    20015u /* half of the circumference: no two points are further apart */

struct geo_point {
    double x, y, z; /* unit vector */
};

struct geo_point geo_point_at(double latitude_deg, double longitude_deg);

/* Squared chord (0..4) of two points, and of a distance in km. */
double geo_chord2(struct geo_point a, struct geo_point b);
double geo_chord2_of_km(double km);

double geo_distance_km(struct geo_point a, struct geo_point b);
