/* SPDX-License-Identifier: Apache-2.0 */
/*
 * latency.h - how far away is a node, in time: what was measured for the few that one talks to, the
 * coordinates (vivaldi.h) for the rest, the great circle for those that have none, and which of
 * these it was. Also the judge of samples: too fast for light in fibre (position.h), or of a peer
 * whose coordinate does not fit what is measured to it.
 *
 * Smoothing as RFC 6298 (SRTT 1/8, RTTVAR 1/4); p95 is exact over the last LATENCY_SAMPLES samples.
 * Own coordinate: moved by the median of the last three samples of a peer, never by a peer whose
 * coordinate is distrusted: its smoothed misfit, |predicted - measured| / max(measured,
 * LATENCY_MISFIT_BASE_S), exceeds LATENCY_MISFIT_MIN and LATENCY_MISFIT_TIMES the typical one over
 * all peers (a running median, which a minority of liars cannot move far).
 * Great circle: 2 d / (200 km/ms) times 1.97, the median over 213 cities (p90 3.39, used as p95).
 *
 * Sans-I/O. Memory: fixed at creation, about 200 bytes a peer; the peer used longest ago makes
 * room. Threads: one at a time. Time: any monotonic clock.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/maps/position.h"
#include "controlplane/maps/slots.h"
#include "controlplane/maps/vivaldi.h"

#define LATENCY_SAMPLES        32u
#define LATENCY_RTT_MAX_NS     (10 * NS_PER_S)
#define LATENCY_FRESH_NS       (60 * NS_PER_S) /* then the coordinates know better */
#define LATENCY_RTO_MIN_NS     (20 * NS_PER_MS)
#define LATENCY_RTO_FIRST_NS   (500 * NS_PER_MS)
#define LATENCY_MISFIT_SAMPLES 8u
#define LATENCY_MISFIT_MIN     2.0
#define LATENCY_MISFIT_TIMES   4.0
#define LATENCY_MISFIT_MAX     10.0
#define LATENCY_MISFIT_BASE_S  0.02 /* near peers may be off by their own distance */
#define LATENCY_STRETCH_P50    1.97
#define LATENCY_STRETCH_P95    3.39
#define LATENCY_KM_PER_MS      200.0
#define LATENCY_LOCAL_NS       (200 * NS_PER_US) /* added to the great circle: the last mile */
/* A coordinate is worth something when both its owner and this node think so. */
#define LATENCY_ERROR_USABLE 0.8

enum latency_source { LATENCY_UNKNOWN, LATENCY_MEASURED, LATENCY_COORDINATE, LATENCY_DISTANCE };

enum latency_verdict {
    LATENCY_TAKEN,
    LATENCY_OUT_OF_RANGE,     /* 0 or above LATENCY_RTT_MAX_NS */
    LATENCY_FASTER_THAN_LIGHT /* not taken: a claimed place is false */
};

/* What a node says of itself; NULL: it says nothing. */
struct latency_claim {
    const struct vivaldi_coord *coord;
    const struct geo_point *place;
};

struct latency_peer {
    uint64_t srtt_ns;
    uint64_t rttvar_ns;
    uint64_t min_ns;
    uint64_t heard_ns;
    uint32_t samples_us[LATENCY_SAMPLES]; /* ring */
    uint32_t sample_count;                /* all ever, stops at UINT32_MAX */
    float misfit;
    uint32_t misfit_count;
};

struct latency_estimate {
    enum latency_source source;
    uint64_t rtt_ns;
    uint64_t p95_ns;
    uint64_t age_ns; /* of the newest sample; 0 unless measured */
};

struct latency_counters {
    uint64_t taken;
    uint64_t out_of_range;
    uint64_t faster_than_light;
    uint64_t distrusted; /* taken for the peer, but not for the own coordinate */
};

struct latency_map {
    struct slots slots;
    struct latency_peer *peers;
    struct vivaldi own;
    double typical_misfit;
    struct geo_point place;
    bool has_place;
    struct latency_counters counters;
};

/* `place` is this node's own, NULL if it has none (abstract geometry): then light is not asked.
 * Returns 0, -EINVAL or -ENOMEM. */
int latency_init(struct latency_map *map, uint32_t peers_max, const struct geo_point *place,
                 uint64_t seed);
void latency_deinit(struct latency_map *map);

/* One measured round trip. */
enum latency_verdict latency_sample(struct latency_map *map, uint32_t node,
                                    const struct latency_claim *claim, uint64_t rtt_ns,
                                    uint64_t now_ns);

/* The best there is to say of a node. Never faster than light if both places are known. */
struct latency_estimate latency_of(const struct latency_map *map, uint32_t node,
                                   const struct latency_claim *claim, uint64_t now_ns);

/* How long to wait for an answer: SRTT + 4 RTTVAR, at least LATENCY_RTO_MIN_NS; from the estimate
 * if nothing was measured, LATENCY_RTO_FIRST_NS if nothing is known. */
uint64_t latency_rto_ns(const struct latency_map *map, uint32_t node,
                        const struct latency_claim *claim, uint64_t now_ns);

/* Does the peer's coordinate contradict what is measured to it? */
bool latency_is_distrusted(const struct latency_map *map, uint32_t node);

/* NULL if nothing was measured. */
const struct latency_peer *latency_peer(const struct latency_map *map, uint32_t node);

/* The node is gone, or begins anew. */
void latency_forget(struct latency_map *map, uint32_t node);
