/* SPDX-License-Identifier: Apache-2.0 */
/* test_zoning.c - controlplane/gossip: zoning.c and letters.c in whole meshes in virtual time.
 * Zones tile the torus, searches equal what every node says of itself, the dead are not found, two
 * meshes become one; letters count once, from whom they are, and only in this session. */
#include "controlplane/gossip/zoning.h"

#include "tests/unit/controlplane/gossip_mesh.h"

static void mesh_begin(uint32_t zone_members)
{
    zoned = true;
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i].config.zone_members = zone_members;
        nodes[i].self.longitude_deg = -150.0 + 70.0 * i;
    }
}

static void mesh_start(uint32_t i)
{
    struct members_facts facts = facts_of((uint16_t)(i + 1));
    start(i);
    gossip_set_local(nodes[i].gossip, &facts);
}

/* Zones tile the torus and everybody has joined one. Returns how many there are. */
static uint32_t expect_tiled(void)
{
    uint64_t at = 0;
    uint32_t zones = 0;
    while (at != ZONE_KEY_END) {
        uint64_t next = 0;
        for (uint32_t i = 0; i < NODES; i++) {
            if (nodes[i].gossip == NULL) {
                continue;
            }
            const struct zone *zone = zoning_zone(nodes[i].zoning);
            ck_assert_msg(zone->joined, "n%u is in no zone", i);
            ck_assert(zone_range_has(zone->claim, zone->key));
            if (zone->claim.lo == at) {
                ck_assert(next == 0 || next == zone->claim.hi);
                next = zone->claim.hi;
            }
        }
        ck_assert_msg(next != 0, "nobody has %llx", (unsigned long long)at);
        at = next;
        zones++;
    }
    return zones;
}

/* A search from each node for everything, and one by tier: those who live, each once. */
static void expect_found(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (nodes[i].gossip == NULL) {
            continue;
        }
        for (uint8_t tier = 0; tier <= NODES; tier++) {
            struct zone_query query = {.k = 8, .tier_max = 7, .model = weft_model_id(MODEL)};
            query.tier_min = tier == NODES ? 0 : tier;
            query.tier_max = tier == NODES ? 7 : tier;
            search_ticket = 0;
            ck_assert_int_eq(zoning_search(nodes[i].zoning, &query, 7 + i, now_ns), 0);
            run(2 * NS_PER_S);
            ck_assert_uint_eq(search_ticket, 7 + i);
            uint32_t expected = 0;
            for (uint32_t j = 0; j < NODES; j++) {
                bool wanted = nodes[j].gossip != NULL && (tier == NODES || tier == j);
                bool found = false;
                for (uint32_t f = 0; f < search_result.top.count; f++) {
                    found = found || search_result.top.all[f].node == 10 + j;
                }
                ck_assert_msg(found == wanted, "n%u asked for tier %u: n%u is %s", i, tier, j,
                              found ? "found" : "missing");
                expected += wanted;
            }
            ck_assert_uint_eq(search_result.top.count, expected);
            ck_assert(search_result.complete);
        }
    }
}

START_TEST(one_zone_or_many)
{
    static const uint32_t sizes[] = {96, 2};
    for (uint32_t s = 0; s < 2; s++) {
        mesh_begin(sizes[s]);
        for (uint32_t i = 0; i < NODES; i++) {
            mesh_start(i);
        }
        run(40 * NS_PER_S);
        uint32_t zones = expect_tiled();
        ck_assert_msg(sizes[s] == 2 ? zones >= 3 : zones == 1, "%u zones", zones);
        expect_found();
        for (uint32_t i = 0; i < NODES; i++) {
            const struct letter_counters *counters = &nodes[i].letters.counters;
            ck_assert_uint_eq(counters->letters_unsealed + counters->letters_replayed, 0);
            ck_assert_uint_eq(zoning_zone(nodes[i].zoning)->counters.malformed, 0);
        }
        end();
    }
}
END_TEST

/* The dead are out of answers as soon as the membership knows; their zone is taken over. */
START_TEST(the_dead_are_not_found)
{
    mesh_begin(2);
    for (uint32_t i = 0; i < NODES; i++) {
        mesh_start(i);
    }
    run(40 * NS_PER_S);
    crash(2);
    run(60 * NS_PER_S);
    (void)expect_tiled();
    expect_found();
    mesh_start(2);
    run(20 * NS_PER_S);
    (void)expect_tiled();
    expect_found();
    end();
}
END_TEST

/* Two meshes, each with zones of its own, find each other. */
START_TEST(two_meshes_become_one)
{
    mesh_begin(2);
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            cut[i][j] = (i < 2) != (j < 2);
        }
        if (i >= 2) { /* any of its own side is a seed */
            nodes[i].config.seed_count = 2;
            nodes[i].config.seeds[1] = (struct config_seed){nodes[2].self.address, DATA_PORT + 1};
        }
        mesh_start(i);
    }
    run(30 * NS_PER_S);
    ck_assert(zoning_zone(nodes[0].zoning)->joined && zoning_zone(nodes[4].zoning)->joined);
    memset(cut, 0, sizeof(cut));
    run(120 * NS_PER_S);
    (void)expect_tiled();
    expect_found();
    end();
}
END_TEST

static bool search_completes(uint32_t node)
{
    struct zone_query query = {.k = 8, .tier_max = 7, .model = weft_model_id(MODEL)};
    search_ticket = 0;
    ck_assert_int_eq(zoning_search(nodes[node].zoning, &query, 7, now_ns), 0);
    run(2 * NS_PER_S);
    ck_assert_uint_eq(search_ticket, 7);
    return search_result.complete;
}

/* While nodes are upgraded: who speaks another version of zones cannot be asked, and answers say
 * that somebody was not. */
START_TEST(other_versions_are_not_passed_over)
{
    uint8_t sealed[SWIM_DATAGRAM_MAX];
    uint8_t body[6] = {ZONE_STATE, ZONE_MSG_VERSION + 1, 10}; /* of n0 */
    struct letter letter;
    mesh_begin(96);
    for (uint32_t i = 0; i < 3; i++) {
        mesh_start(i);
    }
    run(20 * NS_PER_S);
    ck_assert(search_completes(1));
    size_t size =
        letter_seal(&nodes[0].letters, seen(0, 1)->owner, LETTER_ZONE, body, sizeof(body), sealed);
    ck_assert(letter_open(&nodes[1].letters, sealed, size, now_ns, &letter));
    zoning_input(nodes[1].zoning, &letter, now_ns);
    ck_assert(!search_completes(1));
    ck_assert(search_completes(2));
    ck_assert_uint_eq(zoning_zone(nodes[1].zoning)->counters.malformed, 0);
    run(ZONING_FOREIGN_NS);
    ck_assert(search_completes(1));
    end();
}
END_TEST

START_TEST(letters_count_once)
{
    uint8_t sealed[SWIM_DATAGRAM_MAX];
    uint8_t text[LETTER_MAX] = "hello";
    struct letter letter;
    mesh_begin(96);
    for (uint32_t i = 0; i < 3; i++) {
        mesh_start(i);
    }
    run(10 * NS_PER_S);
    const struct member *to = seen(0, 1);
    struct letters *there = &nodes[1].letters;
    size_t size = letter_seal(&nodes[0].letters, to->owner, LETTER_POLICY, text, 5, sealed);
    ck_assert_uint_eq(size, 5 + 1 + SWIM_SEAL_BYTES);
    ck_assert(letter_is(sealed, size));
    ck_assert(!letter_open(&nodes[2].letters, sealed, size, now_ns, &letter)); /* not for him */
    for (size_t at = 0; at < size; at++) {
        sealed[at] ^= 1;
        ck_assert_msg(!letter_open(there, sealed, size, now_ns, &letter), "byte %zu", at);
        sealed[at] ^= 1;
    }
    for (size_t less = 0; less < size; less++) {
        ck_assert(!letter_open(there, sealed, less, now_ns, &letter));
    }
    ck_assert(letter_open(there, sealed, size, now_ns, &letter));
    ck_assert_uint_eq(letter.slot, seen(1, 0)->owner);
    ck_assert_uint_eq(letter.topic, LETTER_POLICY);
    ck_assert_uint_eq(letter.size, 5);
    ck_assert_mem_eq(letter.body, "hello", 5);
    ck_assert(!letter_open(there, sealed, size, now_ns, &letter)); /* again */
    size = letter_seal(&nodes[0].letters, to->owner, LETTER_ZONE, text, LETTER_MAX, sealed);
    ck_assert_uint_eq(size, SWIM_DATAGRAM_MAX);
    ck_assert_uint_eq(
        letter_seal(&nodes[0].letters, to->owner, LETTER_ZONE, text, LETTER_MAX + 1, sealed), 0);
    ck_assert_uint_eq(letter_seal(&nodes[0].letters, 0, LETTER_ZONE, text, 5, sealed), 0);
    ck_assert_uint_eq(letter_seal(&nodes[0].letters, 77, LETTER_ZONE, text, 5, sealed), 0);
    /* What was sealed for a start of the other is worth nothing in the next. */
    size = letter_seal(&nodes[0].letters, to->owner, LETTER_ZONE, text, 5, sealed);
    crash(1);
    now_ns += NS_PER_S;
    mesh_start(1);
    run(10 * NS_PER_S);
    ck_assert(!letter_open(&nodes[1].letters, sealed, size, now_ns, &letter));
    size = letter_seal(&nodes[0].letters, seen(0, 1)->owner, LETTER_ZONE, text, 5, sealed);
    ck_assert(letter_open(&nodes[1].letters, sealed, size, now_ns, &letter));
    end();
}
END_TEST

MAIN_OF("zoning", one_zone_or_many, the_dead_are_not_found, two_meshes_become_one,
        other_versions_are_not_passed_over, letters_count_once)
