/* SPDX-License-Identifier: Apache-2.0 */
/* latency.c - see latency.h. */
#include "controlplane/maps/latency.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MEDIAN_OF     3u
#define MISFIT_WEIGHT 0.125f
#define TYPICAL_STEP  1.05 /* of the running median, up or down */
#define TYPICAL_MIN   0.02
#define NS_PER_S_F    1e9
#define P95_PARTS     20u /* one in so many is above */
/* Relative error of a coordinate's prediction that p95 allows for: twice the owners' mean error. */
#define COORD_P95 2.0

int latency_init(struct latency_map *map, uint32_t peers_max, const struct geo_point *place,
                 uint64_t seed)
{
    memset(map, 0, sizeof(*map));
    int rc = slots_init(&map->slots, peers_max, seed);
    if (rc != 0) {
        return rc;
    }
    map->peers = calloc(peers_max, sizeof(*map->peers));
    if (map->peers == NULL) {
        slots_deinit(&map->slots);
        return -ENOMEM;
    }
    vivaldi_init(&map->own, seed);
    map->typical_misfit = 1.0;
    if (place != NULL) {
        map->place = *place;
        map->has_place = true;
    }
    return 0;
}

void latency_deinit(struct latency_map *map)
{
    slots_deinit(&map->slots);
    free(map->peers);
    memset(map, 0, sizeof(*map));
}

const struct latency_peer *latency_peer(const struct latency_map *map, uint32_t node)
{
    uint32_t slot = slots_find(&map->slots, node);
    return slot == SLOTS_NONE ? NULL : &map->peers[slot];
}

void latency_forget(struct latency_map *map, uint32_t node)
{
    slots_drop(&map->slots, node);
}

static uint64_t floor_ns(const struct latency_map *map, const struct latency_claim *claim)
{
    bool both = map->has_place && claim->place != NULL;
    return both ? position_floor_ns(map->place, *claim->place) : 0;
}

/* ---- samples ---- */

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The newest `count` samples, sorted. Returns how many there are. */
static uint32_t newest_sorted(const struct latency_peer *peer, uint32_t count,
                              uint32_t out[LATENCY_SAMPLES])
{
    uint32_t there = peer->sample_count < count ? peer->sample_count : count;
    for (uint32_t i = 0; i < there; i++) {
        out[i] = peer->samples_us[(peer->sample_count - 1 - i) % LATENCY_SAMPLES];
    }
    qsort(out, there, sizeof(out[0]), by_value);
    return there;
}

static uint64_t p95_ns(const struct latency_peer *peer)
{
    uint32_t sorted[LATENCY_SAMPLES];
    uint32_t count = newest_sorted(peer, LATENCY_SAMPLES, sorted);
    return count == 0 ? 0 : sorted[count - 1 - count / P95_PARTS] * NS_PER_US;
}

static void peer_add(struct latency_peer *peer, uint64_t rtt_ns, uint64_t now_ns)
{
    if (peer->sample_count == 0) {
        peer->srtt_ns = rtt_ns;
        peer->rttvar_ns = rtt_ns / 2;
        peer->min_ns = rtt_ns;
    } else {
        uint64_t off = rtt_ns > peer->srtt_ns ? rtt_ns - peer->srtt_ns : peer->srtt_ns - rtt_ns;
        peer->rttvar_ns += off / 4 - peer->rttvar_ns / 4;
        peer->srtt_ns += rtt_ns / 8 - peer->srtt_ns / 8;
        peer->min_ns = rtt_ns < peer->min_ns ? rtt_ns : peer->min_ns;
    }
    peer->samples_us[peer->sample_count % LATENCY_SAMPLES] = (uint32_t)(rtt_ns / NS_PER_US);
    /* Stays in step with the ring. */
    peer->sample_count += peer->sample_count < UINT32_MAX ? 1 : 1 - LATENCY_SAMPLES;
    peer->heard_ns = now_ns;
}

static bool misfits(const struct latency_map *map, const struct latency_peer *peer)
{
    return peer->misfit_count >= LATENCY_MISFIT_SAMPLES &&
           (double)peer->misfit > LATENCY_MISFIT_MIN &&
           (double)peer->misfit > LATENCY_MISFIT_TIMES * map->typical_misfit;
}

/* How far off the peer's place is, for the peer and for all. */
static void misfit_note(struct latency_map *map, struct latency_peer *peer,
                        const struct vivaldi_coord *coord, double rtt)
{
    double base = rtt > LATENCY_MISFIT_BASE_S ? rtt : LATENCY_MISFIT_BASE_S;
    double misfit = fabs(vivaldi_rtt(&map->own.at, coord) - rtt) / base;
    misfit = misfit < LATENCY_MISFIT_MAX ? misfit : LATENCY_MISFIT_MAX;
    double typical = map->typical_misfit;
    typical = misfit > typical ? typical * TYPICAL_STEP : typical / TYPICAL_STEP;
    map->typical_misfit = fmin(fmax(typical, TYPICAL_MIN), LATENCY_MISFIT_MAX);
    peer->misfit += MISFIT_WEIGHT * ((float)misfit - peer->misfit);
    peer->misfit_count += peer->misfit_count < UINT32_MAX;
}

static void coordinate_move(struct latency_map *map, struct latency_peer *peer,
                            const struct vivaldi_coord *coord)
{
    uint32_t sorted[LATENCY_SAMPLES];
    uint32_t count = newest_sorted(peer, MEDIAN_OF, sorted);
    double rtt = (double)(sorted[count / 2] * NS_PER_US) / NS_PER_S_F;
    rtt = rtt > 0.0 ? rtt : 1e-6;
    misfit_note(map, peer, coord, rtt);
    if (misfits(map, peer)) {
        map->counters.distrusted++;
        return;
    }
    vivaldi_update(&map->own, coord, rtt);
}

enum latency_verdict latency_sample(struct latency_map *map, uint32_t node,
                                    const struct latency_claim *claim, uint64_t rtt_ns,
                                    uint64_t now_ns)
{
    if (rtt_ns == 0 || rtt_ns > LATENCY_RTT_MAX_NS) {
        map->counters.out_of_range++;
        return LATENCY_OUT_OF_RANGE;
    }
    if (rtt_ns < floor_ns(map, claim)) {
        map->counters.faster_than_light++;
        return LATENCY_FASTER_THAN_LIGHT;
    }
    bool fresh;
    uint32_t slot = slots_take(&map->slots, node, &fresh);
    struct latency_peer *peer = &map->peers[slot];
    if (fresh) {
        memset(peer, 0, sizeof(*peer));
    }
    peer_add(peer, rtt_ns, now_ns);
    map->counters.taken++;
    if (claim->coord != NULL && vivaldi_valid(claim->coord)) {
        coordinate_move(map, peer, claim->coord);
    }
    return LATENCY_TAKEN;
}

/* ---- answers ---- */

bool latency_is_distrusted(const struct latency_map *map, uint32_t node)
{
    const struct latency_peer *peer = latency_peer(map, node);
    return peer != NULL && misfits(map, peer);
}

static uint64_t ns_of(double seconds)
{
    double ns = seconds * NS_PER_S_F;
    return ns >= (double)LATENCY_RTT_MAX_NS ? LATENCY_RTT_MAX_NS : ns <= 1.0 ? 1 : (uint64_t)ns;
}

static bool estimate_by_coord(const struct latency_map *map, const struct vivaldi_coord *coord,
                              struct latency_estimate *out)
{
    const struct vivaldi_coord *own = &map->own.at;
    if (coord == NULL || !vivaldi_valid(coord) || coord->error >= LATENCY_ERROR_USABLE ||
        own->error >= LATENCY_ERROR_USABLE) {
        return false;
    }
    double rtt = vivaldi_rtt(own, coord);
    out->source = LATENCY_COORDINATE;
    out->rtt_ns = ns_of(rtt);
    out->p95_ns = ns_of(rtt * (1.0 + COORD_P95 * (own->error + coord->error) / 2.0));
    return true;
}

struct latency_estimate latency_of(const struct latency_map *map, uint32_t node,
                                   const struct latency_claim *claim, uint64_t now_ns)
{
    struct latency_estimate out = {.source = LATENCY_UNKNOWN};
    const struct latency_peer *peer = latency_peer(map, node);
    uint64_t age_ns = peer != NULL && now_ns > peer->heard_ns ? now_ns - peer->heard_ns : 0;
    uint64_t least_ns = floor_ns(map, claim);
    bool coord_ok = peer == NULL || !misfits(map, peer);
    if (peer != NULL && age_ns < LATENCY_FRESH_NS) {
        out = (struct latency_estimate){LATENCY_MEASURED, peer->srtt_ns, p95_ns(peer), age_ns};
    } else if (coord_ok && estimate_by_coord(map, claim->coord, &out)) {
        /* done */
    } else if (peer != NULL) {
        out = (struct latency_estimate){LATENCY_MEASURED, peer->srtt_ns, p95_ns(peer), age_ns};
    } else if (map->has_place && claim->place != NULL) {
        double straight = 2.0 * geo_distance_km(map->place, *claim->place) / LATENCY_KM_PER_MS;
        double ns = straight * (double)NS_PER_MS;
        out.source = LATENCY_DISTANCE;
        out.rtt_ns = (uint64_t)(ns * LATENCY_STRETCH_P50) + LATENCY_LOCAL_NS;
        out.p95_ns = (uint64_t)(ns * LATENCY_STRETCH_P95) + LATENCY_LOCAL_NS;
    } else {
        return out;
    }
    out.rtt_ns = out.rtt_ns < least_ns ? least_ns : out.rtt_ns;
    out.p95_ns = out.p95_ns < out.rtt_ns ? out.rtt_ns : out.p95_ns;
    return out;
}

uint64_t latency_rto_ns(const struct latency_map *map, uint32_t node,
                        const struct latency_claim *claim, uint64_t now_ns)
{
    const struct latency_peer *peer = latency_peer(map, node);
    uint64_t rto_ns;
    if (peer != NULL) {
        rto_ns = peer->srtt_ns + 4 * peer->rttvar_ns;
    } else {
        struct latency_estimate guess = latency_of(map, node, claim, now_ns);
        rto_ns = guess.source == LATENCY_UNKNOWN ? LATENCY_RTO_FIRST_NS : 2 * guess.p95_ns;
    }
    return rto_ns < LATENCY_RTO_MIN_NS ? LATENCY_RTO_MIN_NS : rto_ns;
}
