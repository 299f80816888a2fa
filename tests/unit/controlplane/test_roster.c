/* SPDX-License-Identifier: Apache-2.0 */
/* test_roster.c - maps/roster.c against a plain list: members come, change and go in any order; ids
 * and addresses stay unique and every index stays right. */
#include "controlplane/maps/roster.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "schemas/base/addr.h"
#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define CAPACITY 12u
#define OWNERS   24u
#define IDS      30u /* few: they clash often */
#define NOW_NS   (5 * NS_PER_S)

static struct config config;
static struct config_member self;

static struct members *begin(void)
{
    struct members *members;
    self = (struct config_member){.name = "self", .id = 3, .tier = 4};
    self.address = addr_of_v4(htonl(0x0a000003));
    config = (struct config){.members = &self, .member_count = 1, .data_port = 7400};
    ck_assert_int_eq(roster_create(&members, &config, CAPACITY, NOW_NS), 0);
    return members;
}

static struct roster_entry entry_make(uint32_t id, uint32_t host, uint32_t tier)
{
    struct roster_entry entry = {.id = (uint16_t)id, .tier = tier};
    entry.address = addr_of_v4(htonl(0x0a000000 + host));
    snprintf(entry.name, sizeof(entry.name), "n%u", id);
    return entry;
}

START_TEST(begins_with_itself)
{
    struct members *members = begin();
    ck_assert_uint_eq(members_count(members), 1);
    ck_assert_uint_eq(members_self(members), 0);
    ck_assert_int_eq(member_state_of(members, members_at(members, 0)), MEMBER_UP);
    ck_assert_str_eq(members_find(members, 3)->name, "self");
    members_destroy(members);
    ck_assert_int_eq(roster_create(&members, &config, 0, NOW_NS), -EINVAL);
    self.id = WEFT_NODE_NONE;
    ck_assert_int_eq(roster_create(&members, &config, CAPACITY, NOW_NS), -EINVAL);
}
END_TEST

START_TEST(versions_rise_for_what_matters)
{
    struct members *members = begin();
    struct roster_entry entry = entry_make(7, 7, 1);
    struct members_facts facts = {.room = 2, .backend = "cpu"};
    struct roster_way way = {.srtt_ns = 10 * NS_PER_MS};
    uint32_t clash;
    uint64_t version = members_version(members);
    ck_assert_int_eq(roster_add(members, &entry, 1, &clash, NOW_NS), 1);
    ck_assert_uint_gt(members_version(members), version);
    version = members_version(members);
    roster_set_state(members, 1, MEMBER_DOWN, NOW_NS); /* as it is */
    ck_assert_uint_eq(members_version(members), version);
    roster_set_state(members, 1, MEMBER_SUSPECT, NOW_NS);
    ck_assert_uint_gt(members_version(members), version);
    ck_assert(members_at(members, 1)->alive);
    version = members_version(members);
    roster_set_facts(members, 1, &facts, NOW_NS);
    ck_assert_uint_gt(members_version(members), version);
    version = members_version(members);
    roster_set_facts(members, 1, &facts, 2 * NOW_NS); /* the same again */
    ck_assert_uint_eq(members_version(members), version);
    ck_assert_uint_eq(members_at(members, 1)->heard_ns, 2 * NOW_NS);
    roster_set_way(members, 1, &way);
    ck_assert_uint_gt(members_version(members), version);
    version = members_version(members);
    way.srtt_ns += 100;
    roster_set_way(members, 1, &way);
    ck_assert_uint_eq(members_version(members), version);
    members_destroy(members);
}
END_TEST

struct kept {
    bool there;
    struct roster_entry entry;
};

static void expect_same(const struct members *members, const struct kept *kept,
                        const uint32_t *index)
{
    uint32_t count = 1;
    for (uint32_t owner = 0; owner < OWNERS; owner++) {
        if (!kept[owner].there) {
            continue;
        }
        const struct member *member = members_at(members, index[owner]);
        count++;
        ck_assert_uint_eq(member->owner, owner);
        ck_assert_uint_eq(member->id, kept[owner].entry.id);
        ck_assert_uint_eq(member->tier, kept[owner].entry.tier);
        ck_assert(addr_equal(&member->address, &kept[owner].entry.address));
        ck_assert_ptr_eq(members_find(members, member->id), member);
    }
    ck_assert_uint_eq(members_count(members), count);
    ck_assert_uint_eq(members_at(members, 0)->id, 3);
    uint32_t found = 0;
    for (uint32_t id = 0; id < IDS; id++) {
        found += members_find(members, (uint16_t)id) != NULL ? 1 : 0;
    }
    ck_assert_uint_eq(found, count);
}

/* Whom the entry would stand beside with the same id or address. */
static bool clashes(const struct kept *kept, uint32_t owner, const struct roster_entry *entry)
{
    bool clash = entry->id == 3 || addr_equal(&entry->address, &self.address);
    for (uint32_t i = 0; i < OWNERS; i++) {
        clash |=
            i != owner && kept[i].there &&
            (kept[i].entry.id == entry->id || addr_equal(&kept[i].entry.address, &entry->address));
    }
    return clash;
}

START_TEST(as_a_plain_list)
{
    struct rng rng = {.state = 11};
    struct members *members = begin();
    struct kept kept[OWNERS] = {0};
    uint32_t index[OWNERS];
    uint32_t clash, refused = 0, full = 0;
    for (uint32_t step = 0; step < 5000; step++) {
        uint32_t owner = rng_below(&rng, OWNERS);
        struct roster_entry entry =
            entry_make(rng_below(&rng, IDS), rng_below(&rng, IDS), rng_below(&rng, 8));
        bool expected = clashes(kept, owner, &entry);
        if (kept[owner].there && rng_below(&rng, 2) == 0) {
            uint32_t moved = roster_remove(members, index[owner]);
            if (moved != ROSTER_NONE) {
                index[moved] = index[owner];
            }
            kept[owner].there = false;
        } else if (kept[owner].there) {
            int rc = roster_update(members, index[owner], &entry, &clash);
            ck_assert_int_eq(rc, expected ? -EEXIST : 0);
            kept[owner].entry = rc == 0 ? entry : kept[owner].entry;
        } else {
            int rc = roster_add(members, &entry, owner, &clash, NOW_NS);
            ck_assert(expected == (rc == -EEXIST));
            ck_assert(rc != -ENOSPC || members_count(members) == CAPACITY);
            refused += rc == -EEXIST ? 1 : 0;
            full += rc == -ENOSPC ? 1 : 0;
            if (rc >= 0) {
                index[owner] = (uint32_t)rc;
                kept[owner] = (struct kept){.there = true, .entry = entry};
            }
        }
        expect_same(members, kept, index);
    }
    ck_assert_uint_gt(refused, 500);
    ck_assert_uint_gt(full, 10);
    members_destroy(members);
}
END_TEST

MAIN_OF("roster", begins_with_itself, versions_rise_for_what_matters, as_a_plain_list)
