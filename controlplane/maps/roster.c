/* SPDX-License-Identifier: Apache-2.0 */
/* roster.c - see roster.h. */
#include "controlplane/maps/roster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/maps/members_impl.h"
#include "schemas/base/addr.h"

static void entry_put(struct members *members, struct member *member,
                      const struct roster_entry *entry)
{
    members->by_id[member->id] = INDEX_NONE;
    memcpy(member->name, entry->name, sizeof(member->name));
    memcpy(member->jurisdiction, entry->jurisdiction, sizeof(member->jurisdiction));
    member->id = entry->id;
    member->address = entry->address;
    member->client_address = entry->client_address;
    member->latitude_deg = entry->latitude_deg;
    member->longitude_deg = entry->longitude_deg;
    member->tier = entry->tier;
    member->tags = entry->tags;
    member->config_tags = entry->tags;
    member->barred = entry->barred;
    member->incarnation = entry->incarnation;
    members->by_id[entry->id] = (uint16_t)(member - members->all);
    members->version++;
}

int roster_create(struct members **out, const struct config *config, uint32_t capacity,
                  uint64_t now_ns)
{
    const struct config_member *self = &config->members[config->self];
    *out = NULL;
    if (capacity == 0 || capacity > CONFIG_MEMBERS_MAX || self->id >= WEFT_NODE_NONE) {
        return -EINVAL;
    }
    struct members *members = calloc(1, sizeof(*members) + capacity * sizeof(members->all[0]));
    if (members == NULL) {
        return -ENOMEM;
    }
    struct roster_entry entry = {
        .id = (uint16_t)self->id,
        .address = self->address,
        .client_address = self->client_address,
        .latitude_deg = self->latitude_deg,
        .longitude_deg = self->longitude_deg,
        .tier = self->tier,
        .tags = self->tags,
    };
    memcpy(entry.name, self->name, sizeof(entry.name));
    memcpy(entry.jurisdiction, self->jurisdiction, sizeof(entry.jurisdiction));
    memset(members->by_id, 0xff, sizeof(members->by_id));
    members->version = 1;
    members->roster = true;
    members->capacity = capacity;
    members->count = 1;
    members->all[0].id = entry.id;
    members->all[0].owner = ROSTER_NONE;
    members->all[0].alive = true;
    members->all[0].state = MEMBER_UP;
    members->all[0].changed_ns = now_ns;
    entry_put(members, &members->all[0], &entry);
    *out = members;
    return 0;
}

/* Another than `index` with that id or address; ROSTER_NONE: there is none. */
static uint32_t clash_find(const struct members *members, const struct roster_entry *entry,
                           uint32_t index)
{
    uint16_t same_id = members->by_id[entry->id];
    if (same_id != INDEX_NONE && same_id != index) {
        return same_id;
    }
    for (uint32_t i = 0; i < members->count; i++) {
        const struct member *other = &members->all[i];
        if (i != index && (addr_equal(&other->address, &entry->address) ||
                           (!IN6_IS_ADDR_UNSPECIFIED(&entry->client_address) &&
                            addr_equal(&other->client_address, &entry->client_address)))) {
            return i;
        }
    }
    return ROSTER_NONE;
}

int roster_add(struct members *members, const struct roster_entry *entry, uint32_t owner,
               uint32_t *clash, uint64_t now_ns)
{
    *clash = clash_find(members, entry, ROSTER_NONE);
    if (*clash != ROSTER_NONE) {
        return -EEXIST;
    }
    if (members->count == members->capacity) {
        return -ENOSPC;
    }
    uint32_t index = members->count++;
    struct member *member = &members->all[index];
    memset(member, 0, sizeof(*member));
    member->id = entry->id;
    member->owner = owner;
    member->changed_ns = now_ns;
    entry_put(members, member, entry);
    return (int)index;
}

int roster_update(struct members *members, uint32_t index, const struct roster_entry *entry,
                  uint32_t *clash)
{
    *clash = clash_find(members, entry, index);
    if (*clash != ROSTER_NONE) {
        return -EEXIST;
    }
    entry_put(members, &members->all[index], entry);
    return 0;
}

uint32_t roster_remove(struct members *members, uint32_t index)
{
    uint32_t last = --members->count;
    uint32_t moved = ROSTER_NONE;
    members->by_id[members->all[index].id] = INDEX_NONE;
    if (last != index) {
        members->all[index] = members->all[last];
        members->by_id[members->all[index].id] = (uint16_t)index;
        moved = members->all[index].owner;
    }
    members->version++;
    return moved;
}

void roster_set_state(struct members *members, uint32_t index, enum member_state state,
                      uint64_t now_ns)
{
    struct member *member = &members->all[index];
    if (member->state == state) {
        return;
    }
    member->state = state;
    member->alive = state == MEMBER_UP || state == MEMBER_SUSPECT;
    member->changed_ns = now_ns;
    members->version++;
}

void roster_set_facts(struct members *members, uint32_t index, const struct members_facts *facts,
                      uint64_t heard_ns)
{
    struct member *member = &members->all[index];
    members_put_facts(members, member, facts);
    member->heard_ns = heard_ns;
}

void roster_set_way(struct members *members, uint32_t index, const struct roster_way *way)
{
    struct member *member = &members->all[index];
    member->srtt_ns = way->srtt_ns;
    member->rttvar_ns = way->rttvar_ns;
    member->rtt_estimated = way->estimated;
    member->place_doubted = way->place_doubted;
    if (way->srtt_ns != 0) {
        members_tell_srtt(members, member);
    } else {
        member->srtt_told_ns = 0;
    }
}
