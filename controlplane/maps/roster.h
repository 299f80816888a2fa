/* SPDX-License-Identifier: Apache-2.0 */
/*
 * roster.h - the members table (members.h) where no file lists the members: they come, change and
 * go as gossip says (controlplane/gossip). Ids and addresses stay unique among the entries, as a
 * routing table needs them.
 *
 * Threads, time: as members.h. An index is good until the next roster_remove().
 */
#pragma once

#include "controlplane/maps/members.h"

#define ROSTER_NONE UINT32_MAX

/* What a member's own signed record says of it. */
struct roster_entry {
    char name[WEFT_NAME_MAX];
    uint16_t id;
    struct in6_addr address;
    struct in6_addr client_address; /* all zero = none */
    double latitude_deg;
    double longitude_deg;
    uint32_t tier;
    uint32_t tags;
    char jurisdiction[3];
    bool barred; /* the policy lets no request go there */
    uint64_t incarnation;
};

/* A table with room for `capacity` members (at most CONFIG_MEMBERS_MAX) that holds this node alone,
 * as the configuration says, at index 0. Returns 0, -EINVAL or -ENOMEM. */
int roster_create(struct members **members, const struct config *config, uint32_t capacity,
                  uint64_t now_ns);

/* A new member, down until roster_set_state(). Returns its index, or -ENOSPC, or -EEXIST: id or
 * address are another's, whose index is in *clash. */
int roster_add(struct members *members, const struct roster_entry *entry, uint32_t owner,
               uint32_t *clash, uint64_t now_ns);

/* The member at `index` says something else of itself now. Returns 0, or -EEXIST as above, and then
 * it is as it was. */
int roster_update(struct members *members, uint32_t index, const struct roster_entry *entry,
                  uint32_t *clash);

/* Not this node. The last one takes its place. Returns the owner of that one, whose index is
 * `index` now; ROSTER_NONE: nobody has moved. */
uint32_t roster_remove(struct members *members, uint32_t index);

void roster_set_state(struct members *members, uint32_t index, enum member_state state,
                      uint64_t now_ns);

/* Its load and models, told at `heard_ns`. */
void roster_set_facts(struct members *members, uint32_t index, const struct members_facts *facts,
                      uint64_t heard_ns);

struct roster_way {
    uint64_t srtt_ns; /* 0 = not known */
    uint64_t rttvar_ns;
    bool estimated;
    bool place_doubted;
};
void roster_set_way(struct members *members, uint32_t index, const struct roster_way *way);
