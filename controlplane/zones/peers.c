/* SPDX-License-Identifier: Apache-2.0 */
/* peers.c - see peers.h. */
#include "controlplane/zones/peers.h"

#include <weft/wire.h>

#include "schemas/base/geo.h"
#include "schemas/base/torus.h"

/* Light in fibre there and back, times the median stretch of real routes, and the last mile. */
#define GUESS_US_PER_KM (2.0 * 1000.0 / 204.0 * 2.0)
#define GUESS_LOCAL_US  2000u
#define GUESS_ABSTRACT  100000u /* nothing is known of the places' meaning */
#define SILENCE_GAIN    16u
/* 0.61 km there and back in fibre, times the median stretch of real routes. */
#define WAY_US_PER_CELL 12u
#define WORK_GUESS_US   400000u

static struct zone_peer *slot_of(struct zone_peers *peers, uint32_t node)
{
    return &peers->slots[(uint32_t)(node * UINT32_C(2654435769)) >> 25];
}
_Static_assert(ZONE_PEERS == 1u << (32 - 25), "the slot is the upper bits of a product");

static const struct zone_peer *find(const struct zone_peers *peers, uint32_t node)
{
    const struct zone_peer *slot = &peers->slots[(uint32_t)(node * UINT32_C(2654435769)) >> 25];
    return slot->node == node ? slot : NULL;
}

static struct zone_peer *claim(struct zone_peers *peers, uint32_t node)
{
    struct zone_peer *slot = slot_of(peers, node);
    if (slot->node != node) {
        *slot = (struct zone_peer){.node = node};
    }
    return slot;
}

/* RFC 6298: of samples above 0; 0 is none yet. */
static void smooth(uint32_t *mean_us, uint32_t *var_us, uint32_t sample_us)
{
    sample_us = sample_us == 0 ? 1 : sample_us;
    if (*mean_us == 0) {
        *mean_us = sample_us;
        *var_us = sample_us / 2;
        return;
    }
    uint32_t off_us = sample_us > *mean_us ? sample_us - *mean_us : *mean_us - sample_us;
    *var_us = (uint32_t)(((uint64_t)3 * *var_us + off_us) / 4);
    *mean_us = (uint32_t)(((uint64_t)7 * *mean_us + sample_us) / 8);
}

static uint32_t bounded_us(uint64_t wait_us)
{
    return wait_us < ZONE_RTO_MIN_US   ? ZONE_RTO_MIN_US
           : wait_us < ZONE_RTO_MAX_US ? (uint32_t)wait_us
                                       : ZONE_RTO_MAX_US;
}

void zone_peers_heard(struct zone_peers *peers, uint32_t node, uint32_t rtt_us)
{
    struct zone_peer *p = claim(peers, node);
    smooth(&p->srtt_us, &p->rttvar_us, rtt_us);
    p->fails = 0;
    peers->silence_permille -= peers->silence_permille / SILENCE_GAIN;
}

void zone_peers_silent(struct zone_peers *peers, uint32_t node)
{
    struct zone_peer *p = claim(peers, node);
    p->fails += p->fails < UINT32_MAX;
    peers->silence_permille += (1000u - peers->silence_permille) / SILENCE_GAIN;
}

uint32_t zone_peers_fails(const struct zone_peers *peers, uint32_t node)
{
    const struct zone_peer *p = find(peers, node);
    return p != NULL ? p->fails : 0;
}

uint32_t zone_peers_rtt_us(const struct zone_peers *peers, const struct zone_contact *contact)
{
    const struct zone_peer *p = find(peers, contact->node);
    if (p != NULL && p->srtt_us != 0) {
        return p->srtt_us;
    }
    if (peers->abstract) {
        return GUESS_ABSTRACT;
    }
    uint16_t x;
    uint16_t y;
    zone_area_place(contact->area, &x, &y);
    struct geo_point a = geo_point_at(weft_cell_latitude(y), weft_cell_longitude(x));
    struct geo_point b = geo_point_at(weft_cell_latitude(peers->y), weft_cell_longitude(peers->x));
    return GUESS_LOCAL_US + (uint32_t)(geo_distance_km(a, b) * GUESS_US_PER_KM);
}

bool zone_peers_measured(const struct zone_peers *peers, uint32_t node)
{
    const struct zone_peer *p = find(peers, node);
    return p != NULL && p->srtt_us != 0;
}

uint32_t zone_peers_rto_us(const struct zone_peers *peers, const struct zone_contact *contact)
{
    const struct zone_peer *p = find(peers, contact->node);
    bool measured = p != NULL && p->srtt_us != 0;
    uint64_t rtt_us = zone_peers_rtt_us(peers, contact);
    /* RFC 6298 takes half of the first sample as its variation; so does a guess. */
    return bounded_us(rtt_us + 4 * (measured ? (uint64_t)p->rttvar_us : rtt_us / 2));
}

uint32_t zone_peers_late_us(const struct zone_peers *peers, const struct zone_contact *contact)
{
    const struct zone_peer *p = find(peers, contact->node);
    uint64_t rtt_us = zone_peers_rtt_us(peers, contact);
    bool measured = p != NULL && p->srtt_us != 0;
    return bounded_us(rtt_us + (measured ? p->rttvar_us : rtt_us / 2));
}

uint64_t zone_peers_way_us(uint32_t area, uint16_t x, uint16_t y)
{
    uint16_t at_x;
    uint16_t at_y;
    zone_area_place(area, &at_x, &at_y);
    return WAY_US_PER_CELL *
           (torus_ring_distance(at_x, x) + (uint64_t)torus_ring_distance(at_y, y));
}

void zone_peers_worked(struct zone_peers *peers, uint32_t took_us)
{
    smooth(&peers->work_us, &peers->work_var_us, took_us);
}

uint64_t zone_peers_patience_us(const struct zone_peers *peers)
{
    if (peers->work_us == 0) {
        return WORK_GUESS_US;
    }
    return WORK_GUESS_US / 4 + peers->work_us + 4 * (uint64_t)peers->work_var_us;
}
