/* SPDX-License-Identifier: Apache-2.0 */
/*
 * members_impl.h - what the two ways to fill the members table share: members.c (beacons) and
 * roster.c (gossip). Nobody else includes it.
 */
#pragma once

#include "controlplane/maps/members.h"

#define INDEX_NONE UINT16_MAX

struct members {
    uint64_t version;
    uint64_t incarnation;
    uint32_t count;
    uint32_t capacity; /* of a roster */
    uint32_t self;
    uint16_t port; /* control port of every member */
    bool roster;
    struct members_counters counters;
    uint16_t by_id[WEFT_NODE_NONE + 1]; /* id -> index */
    struct member all[];
};
WEFT_ASSERT(CONFIG_MEMBERS_MAX < INDEX_NONE, "an index fits by_id");

/* Takes over facts, cleaned; the version rises if they are others. */
void members_put_facts(struct members *members, struct member *member,
                       const struct members_facts *facts);

/* srtt_ns was set: the version rises if it has moved much since it last did. */
void members_tell_srtt(struct members *members, struct member *member);
