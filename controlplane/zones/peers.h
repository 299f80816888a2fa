/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.h - round-trip times of the nodes that one node asks, and how long to wait for each: SRTT +
 * 4 RTTVAR (RFC 6298), floor and ceiling here. Of a node not asked before the time is guessed from
 * its place. A direct-mapped cache: a forgotten peer costs a guess, never memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/zones/summary.h"

#define ZONE_PEERS      128u /* a power of two */
#define ZONE_RTO_MIN_US 20000u
#define ZONE_RTO_MAX_US 1000000u

struct zone_peer {
    uint32_t node;
    uint32_t srtt_us; /* 0: the slot is empty, or only silence is known */
    uint32_t rttvar_us;
    uint32_t fails; /* silences in a row */
};

struct zone_peers {
    uint16_t x, y; /* of this node */
    bool abstract;
    uint32_t silence_permille; /* smoothed share of questions that got no answer in time */
    uint32_t work_us;          /* what searches took that others did for this node; 0: none did */
    uint32_t work_var_us;
    struct zone_peer slots[ZONE_PEERS];
};

/* Zero-fill, then set x, y and abstract. */
void zone_peers_heard(struct zone_peers *peers, uint32_t node, uint32_t rtt_us);
void zone_peers_silent(struct zone_peers *peers, uint32_t node);

uint32_t zone_peers_fails(const struct zone_peers *peers, uint32_t node);
bool zone_peers_measured(const struct zone_peers *peers, uint32_t node);
/* Measured or guessed. */
uint32_t zone_peers_rtt_us(const struct zone_peers *peers, const struct zone_contact *contact);
uint32_t zone_peers_rto_us(const struct zone_peers *peers, const struct zone_contact *contact);
/* Most answers are there by then: what costs only a second question need not wait longer. */
uint32_t zone_peers_late_us(const struct zone_peers *peers, const struct zone_contact *contact);
/* A guess of the time there and back from a contact to the cell (x, y). */
uint64_t zone_peers_way_us(uint32_t area, uint16_t x, uint16_t y);

/* Another node has taken so long for a search. */
void zone_peers_worked(struct zone_peers *peers, uint32_t took_us);
/* How long such work is waited for: mean + 4 deviations, as above. */
uint64_t zone_peers_patience_us(const struct zone_peers *peers);
