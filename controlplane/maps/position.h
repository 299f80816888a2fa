/* SPDX-License-Identifier: Apache-2.0 */
/*
 * position.h - is a node where it says it is? Light in fibre covers 204 km a millisecond
 * (c / 1.468); a round trip faster than that shows that of two claimed positions one is false.
 * Which one shows in who else contradicts it: a node is suspect when POSITION_OBSERVERS distinct
 * others do that are not more contradicted themselves.
 *
 * Rule: of all contradictions (observer, subject) take the node with most distinct opponents; if
 * they are POSITION_OBSERVERS or more it is suspect and its contradictions are set aside; again,
 * until nobody has so many. A node that accuses everybody is thereby found out itself. What it
 * can't stand is POSITION_OBSERVERS or more nodes that agree on a lie against one honest node and
 * are contradicted by nobody.
 *
 * Nobody is cut off for being suspect: its position no longer counts for distance, radius and
 * jurisdiction, which is for the caller to do.
 *
 * Sans-I/O. Memory: POSITION_EDGES contradictions, fixed; one observer holds at most
 * POSITION_PER_OBSERVER, so that it cannot push out those of others. Threads: plain data, one
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schemas/base/clock.h"
#include "schemas/base/geo.h"

#define POSITION_FIBRE_KM_PER_MS 204.0
#define POSITION_TOLERANCE       0.98 /* of the bound: clocks and roundings */
#define POSITION_OBSERVERS       3u
#define POSITION_EDGES           512u
#define POSITION_PER_OBSERVER    16u
#define POSITION_SUSPECTS_MAX    (2u * POSITION_EDGES / POSITION_OBSERVERS)
#define POSITION_KEEP_NS         (600 * NS_PER_S)

struct position_edge {
    uint32_t observer;
    uint32_t subject;
    uint64_t seen_ns; /* 0 = unused */
};

struct position_map {
    struct position_edge edges[POSITION_EDGES];
    uint32_t suspects[POSITION_SUSPECTS_MAX];
    uint32_t suspect_count;
    uint64_t version; /* rises when `suspects` changes */
};

/* The shortest round trip that is possible between two places, with the tolerance. */
uint64_t position_floor_ns(struct geo_point a, struct geo_point b);

void position_init(struct position_map *map);

/* `observer` has measured a round trip to `subject` below position_floor_ns(). `now_ns` is not 0.
 * A repetition renews it. */
void position_contradict(struct position_map *map, uint32_t observer, uint32_t subject,
                         uint64_t now_ns);

/* The node claims another position now: nothing said of the old one counts. */
void position_moved(struct position_map *map, uint32_t node);

/* Forgets contradictions older than POSITION_KEEP_NS; call it every few seconds. */
void position_tick(struct position_map *map, uint64_t now_ns);

bool position_is_suspect(const struct position_map *map, uint32_t node);
