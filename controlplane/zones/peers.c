/* SPDX-License-Identifier: Apache-2.0 */
/* peers.c - see peers.h. */
#include "controlplane/zones/peers.h"

#include <weft/wire.h>

#include "schemas/base/geo.h"

/* Light in fibre there and back, times the median stretch of real routes, and the last mile. */
#define GUESS_US_PER_KM (2.0 * 1000.0 / 204.0 * 2.0)
#define GUESS_LOCAL_US  2000u
#define GUESS_ABSTRACT  100000u /* nothing is known of the places' meaning */
#define SILENCE_GAIN    16u

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

void zone_peers_heard(struct zone_peers *peers, uint32_t node, uint32_t rtt_us)
{
    struct zone_peer *p = claim(peers, node);
    rtt_us = rtt_us == 0 ? 1 : rtt_us;
    if (p->srtt_us == 0) {
        p->srtt_us = rtt_us;
        p->rttvar_us = rtt_us / 2;
    } else {
        uint32_t off = rtt_us > p->srtt_us ? rtt_us - p->srtt_us : p->srtt_us - rtt_us;
        p->rttvar_us = (uint32_t)(((uint64_t)3 * p->rttvar_us + off) / 4);
        p->srtt_us = (uint32_t)(((uint64_t)7 * p->srtt_us + rtt_us) / 8);
    }
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
    uint64_t rto_us = rtt_us + 4 * (measured ? (uint64_t)p->rttvar_us : rtt_us / 2);
    rto_us = rto_us < ZONE_RTO_MIN_US ? ZONE_RTO_MIN_US : rto_us;
    return rto_us < ZONE_RTO_MAX_US ? (uint32_t)rto_us : ZONE_RTO_MAX_US;
}
