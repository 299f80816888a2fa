/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.h - carries what swim knows of each member over to the members table: its record, its life,
 * its state, the way to it. Only for gossip.c.
 *
 * peers_refresh() looks at all slots of swim and takes over what is not yet in the table; so
 * nothing depends on having seen every event, and a member that was in the way of another is
 * replaced as soon as it is gone.
 */
#pragma once

#include "controlplane/gossip/decree.h"
#include "controlplane/gossip/gossip.h"
#include "controlplane/maps/latency.h"
#include "controlplane/maps/position.h"
#include "controlplane/maps/state.h"

#define PEERS_ASKED_AT_ONCE 8u
#define PEERS_ASK_AGAIN_NS  (500 * NS_PER_MS) /* while the way is not measured */

/* One slot of swim. */
struct peer {
    uint64_t uid;         /* 0 = none taken over */
    uint64_t incarnation; /* of the record taken over */
    uint32_t record_version;
    uint32_t state_version; /* taken over, of that incarnation; 0 = none */
    uint32_t rtt_count;
    uint32_t index;    /* in the members table; ROSTER_NONE: not there */
    uint64_t asked_ns; /* out of turn, since it came; 0 = not yet */
    bool in_the_way_told;
    bool has_coord;
    bool contradicted; /* by light: it is not where it says it is, or this node is not */
    struct vivaldi_coord coord;
};

struct peers {
    const struct config *config;
    struct swim *swim;
    struct members *members;
    struct latency_map latency;
    struct position_map positions; /* by id: own contradictions, and those that others tell */
    struct state_doubts doubts;    /* to be told: own contradictions */
    bool self_doubted;
    struct gossip_counters *counters;
    const struct decree *decree; /* NULL: what members say of themselves is believed */
    uint32_t decree_changes;     /* carried over */
    struct geo_point place;
    bool has_place;
    struct peer *all; /* GOSSIP_MEMBERS_MAX, by swim's slot */
};

/* Keeps all pointers. Returns 0, -EINVAL or -ENOMEM. */
int peers_init(struct peers *peers, struct swim *swim, const struct config *config,
               struct gossip_counters *counters, uint64_t seed, uint64_t now_ns);
void peers_deinit(struct peers *peers);

/* This node's own entry follows its own record and the policy. */
void peers_self_refresh(struct peers *peers);

/* Brings the table, and what is to be told of places, up to date; asks a few of those who are new
 * (adds to `out`). True: there is more to do. */
bool peers_refresh(struct peers *peers, uint64_t now_ns, struct swim_out *out);
