/* SPDX-License-Identifier: Apache-2.0 */
/* peers.c - see peers.h. */
#include "controlplane/gossip/peers.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/addr.h"
#include "schemas/base/geo.h"
#include "schemas/base/log.h"

#define UDEG           1e6
#define PLACE_SAME_DEG (1.5 / UDEG)

int peers_init(struct peers *peers, struct swim *swim, const struct config *config,
               struct gossip_counters *counters, uint64_t seed, uint64_t now_ns)
{
    const struct config_member *self = &config->members[config->self];
    peers->config = config;
    peers->swim = swim;
    peers->counters = counters;
    peers->has_place = config->geometry == CONFIG_GEOMETRY_GEO;
    peers->place = geo_point_at(self->latitude_deg, self->longitude_deg);
    position_init(&peers->positions);
    int rc = roster_create(&peers->members, config, GOSSIP_MEMBERS_MAX, now_ns);
    if (rc == 0) {
        rc = latency_init(&peers->latency, GOSSIP_MEMBERS_MAX,
                          peers->has_place ? &peers->place : NULL, seed);
    }
    if (rc == 0) {
        peers->all = calloc(GOSSIP_MEMBERS_MAX, sizeof(*peers->all));
        rc = peers->all == NULL ? -ENOMEM : 0;
    }
    for (uint32_t i = 0; rc == 0 && i < GOSSIP_MEMBERS_MAX; i++) {
        peers->all[i].index = ROSTER_NONE;
    }
    return rc;
}

void peers_deinit(struct peers *peers)
{
    if (peers->latency.peers != NULL) {
        latency_deinit(&peers->latency);
    }
    members_destroy(peers->members);
    free(peers->all);
}

/* ---- records ---- */

static struct roster_entry entry_of(const struct peers *peers, const struct swim_record *record)
{
    struct roster_entry entry = {
        .id = record->id,
        .address = record->address,
        .client_address = record->client_address,
        .latitude_deg = record->latitude_udeg / UDEG,
        .longitude_deg = record->longitude_udeg / UDEG,
        .tier = record->tier,
        .tags = record->tags,
        .incarnation = record->incarnation,
    };
    memcpy(entry.name, record->name, sizeof(entry.name));
    memcpy(entry.jurisdiction, record->jurisdiction, sizeof(entry.jurisdiction));
    entry.barred = !decree_judge(peers->decree, record->id, record->public_key, &entry.tags,
                                 entry.jurisdiction);
    return entry;
}

static void peer_remove(struct peers *peers, struct peer *peer)
{
    if (peer->index == ROSTER_NONE) {
        return;
    }
    uint32_t moved = roster_remove(peers->members, peer->index);
    if (moved != ROSTER_NONE) {
        peers->all[moved].index = peer->index;
    }
    peer->index = ROSTER_NONE;
    peer->state_version = 0; /* to be taken over again should it come back */
}

/* Can the packet path reach it? Says once why not. */
static bool peer_is_fit(struct peers *peers, struct peer *peer, const struct swim_record *record)
{
    const struct config *config = peers->config;
    bool port = record->data_port == config->data_port;
    bool family =
        addr_is_v4(&record->address) == addr_is_v4(&config->members[config->self].address);
    if (!peer->in_the_way_told && (!port || !family)) {
        peer->in_the_way_told = true;
        peers->counters->port_foreign += port ? 0 : 1;
        peers->counters->family_foreign += family ? 0 : 1;
    }
    return port && family;
}

/* Somebody else has the id or the address. Whoever lives goes before whoever does not. True: that
 * one has made room. */
static bool clash_settle(struct peers *peers, struct peer *peer, uint32_t clash, bool live)
{
    const struct member *other = members_at(peers->members, clash);
    if (clash != members_self(peers->members) && !other->alive && live) {
        peer_remove(peers, &peers->all[other->owner]);
        return true;
    }
    if (!peer->in_the_way_told && live) {
        peer->in_the_way_told = true;
        peers->counters->address_clashes++;
    }
    return false;
}

/* What was said of its old place does not count for a new one. */
static void place_follow(struct peers *peers, uint32_t index, const struct roster_entry *entry)
{
    const struct member *was = members_at(peers->members, index);
    if (fabs(was->latitude_deg - entry->latitude_deg) > PLACE_SAME_DEG ||
        fabs(was->longitude_deg - entry->longitude_deg) > PLACE_SAME_DEG) {
        position_moved(&peers->positions, entry->id);
    }
}

static void record_carry(struct peers *peers, struct peer *peer, const struct swim_member *member,
                         uint64_t now_ns)
{
    const struct swim_record *record = &member->record;
    struct roster_entry entry = entry_of(peers, record);
    uint32_t slot = (uint32_t)(peer - peers->all);
    bool live = member->status <= SWIM_SUSPECT;
    uint32_t clash = ROSTER_NONE;
    int rc = -EEXIST;
    if (!peer_is_fit(peers, peer, record)) {
        peer_remove(peers, peer);
        return;
    }
    for (int tries = 0; tries < 3 && rc == -EEXIST; tries++) {
        if (peer->index != ROSTER_NONE) {
            place_follow(peers, peer->index, &entry);
            rc = roster_update(peers->members, peer->index, &entry, &clash);
        } else {
            rc = roster_add(peers->members, &entry, slot, &clash, now_ns);
            peer->index = rc >= 0 ? (uint32_t)rc : ROSTER_NONE;
        }
        if (rc == -EEXIST && !clash_settle(peers, peer, clash, live)) {
            break;
        }
    }
    if (rc < 0) {
        /* What it was before is not what it is now. */
        peer_remove(peers, peer);
        peers->counters->table_full += rc == -ENOSPC ? 1 : 0;
        return;
    }
    if (peer->incarnation != record->incarnation) {
        peer->state_version = 0;
    }
    peer->in_the_way_told = false;
    peer->incarnation = record->incarnation;
    peer->record_version = record->version;
}

/* ---- states ---- */

static void state_carry(struct peers *peers, struct peer *peer, const struct swim_member *member,
                        uint64_t now_ns)
{
    struct members_facts facts;
    struct vivaldi_coord coord;
    struct state_doubts doubts;
    peer->state_version = member->state_version;
    if (!state_read(&facts, &coord, &doubts, swim_state_of(peers->swim, member),
                    member->state_size)) {
        peers->counters->states_malformed++;
        return;
    }
    peer->coord = coord;
    peer->has_coord = true;
    roster_set_facts(peers->members, peer->index, &facts, now_ns);
    for (uint32_t i = 0; i < doubts.count; i++) {
        position_contradict(&peers->positions, member->record.id, doubts.ids[i], now_ns);
    }
}

/* ---- ways ---- */

/* What was measured lately is the best there is; else coordinates; else the great circle. Light
 * only judges: a measured way stays what was measured even if the place claimed for it cannot be.
 * A place is doubted by who contradicts it himself, and by all once enough others do (position.h).
 */
static void way_carry(struct peers *peers, struct peer *peer, const struct swim_member *member,
                      uint64_t now_ns)
{
    uint32_t slot = (uint32_t)(peer - peers->all);
    struct geo_point place =
        geo_point_at(member->record.latitude_udeg / UDEG, member->record.longitude_udeg / UDEG);
    struct latency_claim claim = {.coord = peer->has_coord ? &peer->coord : NULL};
    struct roster_way way = {.estimated = true};
    peer->contradicted = false;
    if (member->rtt_count != peer->rtt_count) {
        peer->rtt_count = member->rtt_count;
        (void)latency_sample(&peers->latency, slot, &claim, member->rtt_ns, now_ns);
    }
    if (member->srtt_ns != 0 && now_ns < member->acked_ns + LATENCY_FRESH_NS) {
        way.srtt_ns = member->srtt_ns;
        way.rttvar_ns = member->rttvar_ns;
        way.estimated = false;
        peer->contradicted =
            peers->has_place && member->srtt_ns < position_floor_ns(peers->place, place);
    } else {
        claim.place = peers->has_place ? &place : NULL;
        struct latency_estimate estimate = latency_of(&peers->latency, slot, &claim, now_ns);
        way.srtt_ns = estimate.rtt_ns;
        way.rttvar_ns = estimate.rtt_ns / 4;
    }
    way.place_doubted = (peer->contradicted && !peers->self_doubted) ||
                        position_is_suspect(&peers->positions, member->record.id);
    roster_set_way(peers->members, peer->index, &way);
}

/* ---- places ---- */

/* Own contradictions, for oneself and to be told. */
static void doubts_collect(struct peers *peers, uint64_t now_ns)
{
    uint16_t self = swim_self(peers->swim)->record.id;
    memset(&peers->doubts, 0, sizeof(peers->doubts));
    for (uint32_t slot = 1; slot < swim_slots(peers->swim); slot++) {
        const struct peer *peer = &peers->all[slot];
        if (peer->index == ROSTER_NONE || !peer->contradicted ||
            peers->doubts.count == STATE_DOUBTS) {
            continue;
        }
        uint16_t id = members_at(peers->members, peer->index)->id;
        peers->doubts.ids[peers->doubts.count++] = id;
        position_contradict(&peers->positions, self, id, now_ns);
    }
}

/* This node's own place, as the others find it. */
static void self_judge(struct peers *peers)
{
    uint16_t self = swim_self(peers->swim)->record.id;
    bool doubted = position_is_suspect(&peers->positions, self);
    if (doubted == peers->self_doubted) {
        return;
    }
    peers->self_doubted = doubted;
    roster_set_way(peers->members, members_self(peers->members),
                   &(struct roster_way){.place_doubted = doubted});
    if (doubted) {
        LOG_WARN("this node is not where it says it is: answers come sooner than light could "
                 "hint=\"check latitude and longitude in its file\"");
    }
}

/* ---- all of it ---- */

static enum member_state state_of(enum swim_status status)
{
    static const enum member_state states[] = {
        [SWIM_ALIVE] = MEMBER_UP,
        [SWIM_SUSPECT] = MEMBER_SUSPECT,
        [SWIM_DEAD] = MEMBER_DOWN,
        [SWIM_LEFT] = MEMBER_LEFT,
    };
    return states[status];
}

static void peer_refresh(struct peers *peers, uint32_t slot, uint64_t now_ns)
{
    struct peer *peer = &peers->all[slot];
    const struct swim_member *member = swim_at(peers->swim, slot);
    uint64_t uid = member != NULL ? member->uid : 0;
    if (peer->uid != uid) {
        peer_remove(peers, peer);
        latency_forget(&peers->latency, slot);
        *peer = (struct peer){.uid = uid, .index = ROSTER_NONE};
    }
    if (member == NULL) {
        return;
    }
    bool live = member->status <= SWIM_SUSPECT;
    if (peer->index == ROSTER_NONE ? live
                                   : peer->incarnation != member->record.incarnation ||
                                         peer->record_version != member->record.version) {
        record_carry(peers, peer, member, now_ns);
    }
    if (peer->index == ROSTER_NONE) {
        return;
    }
    if (!live) {
        peer->asked_ns = 0; /* measured anew when it comes back */
    }
    roster_set_state(peers->members, peer->index, state_of(member->status), now_ns);
    if (member->state_version != 0 && member->state_version != peer->state_version) {
        state_carry(peers, peer, member, now_ns);
    }
    if (live) {
        way_carry(peers, peer, member, now_ns);
    }
}

/* Is there another policy than the one by which the table was made? */
static bool peers_judged_anew(const struct peers *peers)
{
    return peers->decree != NULL && peers->decree->changes != peers->decree_changes;
}

void peers_self_refresh(struct peers *peers)
{
    const struct swim_record *record = &swim_self(peers->swim)->record;
    uint32_t index = members_self(peers->members);
    const struct member *self = members_at(peers->members, index);
    struct roster_entry entry = entry_of(peers, record);
    uint32_t clash;
    if (self->id == record->id && self->incarnation == record->incarnation &&
        !peers_judged_anew(peers)) {
        return;
    }
    if (roster_update(peers->members, index, &entry, &clash) == -EEXIST) {
        peer_remove(peers, &peers->all[members_at(peers->members, clash)->owner]);
        (void)roster_update(peers->members, index, &entry, &clash);
    }
}

/* New, or asked in vain: the first question to a stranger is answered, but measures nothing. */
static bool peer_to_ask(const struct peers *peers, uint32_t slot, uint64_t now_ns)
{
    const struct peer *peer = &peers->all[slot];
    const struct swim_member *member = swim_at(peers->swim, slot);
    return member->status == SWIM_ALIVE &&
           (peer->asked_ns == 0 ||
            (member->srtt_ns == 0 && now_ns >= peer->asked_ns + PEERS_ASK_AGAIN_NS));
}

bool peers_refresh(struct peers *peers, uint64_t now_ns, struct swim_out *out)
{
    uint32_t slots = swim_slots(peers->swim);
    uint32_t asked = 0;
    bool more = false;
    bool anew = peers_judged_anew(peers);
    peers_self_refresh(peers);
    for (uint32_t slot = 1; slot < slots; slot++) {
        struct peer *peer = &peers->all[slot];
        peer->incarnation = anew ? 0 : peer->incarnation; /* its record is carried over again */
        peer_refresh(peers, slot, now_ns);
        if (peer->index == ROSTER_NONE || !peer_to_ask(peers, slot, now_ns)) {
            continue;
        }
        /* The kernel learns its link address, and this node how far it is. */
        if (asked < PEERS_ASKED_AT_ONCE) {
            asked++;
            peer->asked_ns = now_ns;
            swim_ask(peers->swim, peer->uid, now_ns, out);
        } else {
            more = true;
        }
    }
    position_tick(&peers->positions, now_ns);
    doubts_collect(peers, now_ns);
    self_judge(peers);
    peers->decree_changes = peers->decree != NULL ? peers->decree->changes : 0;
    return more;
}
