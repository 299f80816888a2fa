/* SPDX-License-Identifier: Apache-2.0 */
/* test_gossip.c - controlplane/gossip: whole meshes of gossip objects in virtual time. They find
 * each other by one seed and tell each other what a router must know; ids that clash, addresses
 * used twice, keys that do not fit. */
#include "controlplane/gossip/gossip.h"

#include <errno.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/gossip_mesh.h"

/* ---- cases ---- */

START_TEST(joins_by_one_seed)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        struct members_facts facts = facts_of((uint16_t)(i + 1));
        start(i);
        gossip_set_local(nodes[i].gossip, &facts);
    }
    run(5 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        ck_assert_uint_eq(members_count(gossip_members(nodes[i].gossip)), NODES);
        for (uint32_t j = 0; j < NODES; j++) {
            expect_state(i, j, MEMBER_UP);
            const struct member *member = seen(i, j);
            ck_assert_uint_eq(member->id, 10 + j);
            ck_assert_uint_eq(member->tier, j % 8);
            ck_assert_uint_eq(member->tags, j);
            ck_assert(addr_equal(&member->address, &nodes[j].self.address));
            ck_assert_double_eq_tol(member->longitude_deg, 8.0 + 0.1 * j, 1e-5);
            ck_assert_uint_eq(member->facts.room, j + 1);
            ck_assert_uint_eq(member->facts.model_count, 1);
            ck_assert_str_eq(member->facts.models[0].name, MODEL);
            ck_assert_ptr_eq(members_find(gossip_members(nodes[i].gossip), member->id), member);
            if (i != j) {
                ck_assert_uint_eq(member->srtt_ns, 2 * DELAY_NS);
                ck_assert(!member->rtt_estimated);
                ck_assert(!member->place_doubted);
            }
        }
    }
    end();
}
END_TEST

START_TEST(the_dead_go_and_come_back)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    crash(2);
    run(6 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        if (i != 2) {
            expect_state(i, 2, MEMBER_DOWN);
            expect_state(i, (i + 1) % NODES == 2 ? 3 : (i + 1) % NODES, MEMBER_UP);
        }
    }
    start(2);
    run(3 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        expect_state(i, 2, MEMBER_UP);
        expect_state(2, i, MEMBER_UP);
    }
    end();
}
END_TEST

/* Who is missed need not wait for its turn: it is a suspect before anybody's next round. */
START_TEST(whoever_is_missed_is_asked)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    gossip_ask(nodes[0].gossip, 10 + 1, now_ns, &out); /* it answers */
    carry(0);
    gossip_ask(nodes[0].gossip, 10, now_ns, &out); /* itself: nobody is asked */
    ck_assert_uint_eq(out.datagram_count, 0);
    gossip_ask(nodes[0].gossip, 999, now_ns, &out);
    ck_assert_uint_eq(out.datagram_count, 0);
    crash(2);
    gossip_ask(nodes[0].gossip, 10 + 2, now_ns, &out);
    ck_assert_uint_ne(out.datagram_count, 0);
    carry(0);
    run(NS_PER_S / 5);
    expect_state(0, 2, MEMBER_SUSPECT);
    expect_state(0, 1, MEMBER_UP);
    end();
}
END_TEST

START_TEST(whoever_leaves_is_gone_at_once)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    gossip_leave(nodes[1].gossip, now_ns, &out);
    carry(1);
    run(NS_PER_S / 2);
    for (uint32_t i = 0; i < NODES; i++) {
        if (i != 1) {
            expect_state(i, 1, MEMBER_LEFT);
        }
    }
    end();
}
END_TEST

START_TEST(a_partition_heals)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            cut[i][j] = (i < 2) != (j < 2);
        }
    }
    run(30 * NS_PER_S);
    expect_state(0, 4, MEMBER_DOWN);
    expect_state(3, 1, MEMBER_DOWN);
    expect_state(3, 4, MEMBER_UP);
    memset(cut, 0, sizeof(cut));
    run(60 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            expect_state(i, j, MEMBER_UP);
        }
    }
    end();
}
END_TEST

START_TEST(a_wrong_key_keeps_out)
{
    begin();
    memset(nodes[2].options.mesh_keys[0], 0x56, SWIM_KEY_BYTES);
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(20 * NS_PER_S);
    ck_assert_uint_eq(members_count(gossip_members(nodes[0].gossip)), NODES - 1);
    ck_assert_uint_eq(members_count(gossip_members(nodes[2].gossip)), 1);
    ck_assert_ptr_null(seen(0, 2));
    ck_assert_uint_gt(swim_counters(gossip_swim(nodes[0].gossip))->unsealed, 0);
    end();
}
END_TEST

/* The steps of changing a key, one node after the other. */
START_TEST(keys_change_node_by_node)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    for (uint32_t step = 1; step <= 3; step++) {
        for (uint32_t i = 0; i < NODES; i++) {
            uint8_t(*keys)[SWIM_KEY_BYTES] = nodes[i].options.mesh_keys;
            memset(keys[step == 1 ? 1 : 0], 0x66, SWIM_KEY_BYTES);
            memset(keys[step == 1 ? 0 : 1], 0x55, SWIM_KEY_BYTES);
            nodes[i].options.mesh_key_count = step == 3 ? 1 : 2;
            crash(i);
            start(i);
            run(15 * NS_PER_S);
            for (uint32_t j = 0; j < NODES; j++) {
                expect_state(i, j, MEMBER_UP);
                expect_state(j, i, MEMBER_UP);
            }
        }
    }
    end();
}
END_TEST

/* The same without restarts: nobody is ever missed. */
START_TEST(keys_change_in_a_running_mesh)
{
    uint8_t old[SWIM_KEY_BYTES], new[SWIM_KEY_BYTES];
    memset(old, 0x55, sizeof(old));
    memset(new, 0x66, sizeof(new));
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    for (uint32_t step = 1; step <= 3; step++) {
        for (uint32_t i = 0; i < NODES; i++) {
            uint8_t keys[2][SWIM_KEY_BYTES];
            memcpy(keys[0], step == 1 ? old : new, SWIM_KEY_BYTES);
            memcpy(keys[1], step == 1 ? new : old, SWIM_KEY_BYTES);
            ck_assert_int_eq(gossip_set_keys(nodes[i].gossip, keys, step == 3 ? 1 : 2), 0);
            run(5 * NS_PER_S);
        }
    }
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            expect_state(i, j, MEMBER_UP);
        }
        ck_assert_uint_eq(swim_counters(gossip_swim(nodes[i].gossip))->unsealed, 0);
        ck_assert_uint_eq(swim_counters(gossip_swim(nodes[i].gossip))->votes_cast, 0);
    }
    /* Whoever still has the old one is out. */
    crash(1);
    start(1);
    run(10 * NS_PER_S);
    ck_assert_uint_eq(members_count(gossip_members(nodes[1].gossip)), 1);
    uint8_t many[GOSSIP_KEYS_MAX + 1][SWIM_KEY_BYTES] = {{1}, {2}, {3}, {4}, {5}};
    ck_assert_int_eq(gossip_set_keys(nodes[0].gossip, many, 0), -EINVAL);
    ck_assert_int_eq(gossip_set_keys(nodes[0].gossip, many, GOSSIP_KEYS_MAX + 1), -EINVAL);
    ck_assert_int_eq(gossip_set_keys(nodes[0].gossip, many, GOSSIP_KEYS_MAX), 0);
    ck_assert_int_eq(gossip_set_keys(nodes[0].gossip, many + 1, GOSSIP_KEYS_MAX), 0);
    /* Where four stay, the fifth has no place. */
    memset(many[1], 9, SWIM_KEY_BYTES);
    ck_assert_int_eq(gossip_set_keys(nodes[0].gossip, many + 1, GOSSIP_KEYS_MAX), -ENOSPC);
    end();
}
END_TEST

/* Two identities with one first choice of an id. */
static void same_ids(uint8_t a[SWIM_KEY_BYTES], uint8_t b[SWIM_KEY_BYTES])
{
    static uint32_t owner[WEFT_NODE_NONE];
    memset(owner, 0, sizeof(owner));
    for (uint32_t i = 1;; i++) {
        uint8_t seed[SWIM_KEY_BYTES] = {0};
        memcpy(seed, &i, sizeof(i));
        uint16_t id = gossip_id_of(seed, 0);
        ck_assert_uint_lt(id, WEFT_NODE_NONE);
        if (owner[id] != 0) {
            memset(a, 0, SWIM_KEY_BYTES);
            memcpy(a, &owner[id], sizeof(owner[id]));
            memcpy(b, seed, SWIM_KEY_BYTES);
            return;
        }
        owner[id] = i;
    }
}

static void derive(uint32_t i)
{
    nodes[i].options.id_derived = true;
    nodes[i].self.id = gossip_id_of(nodes[i].options.sign_seed, 0);
}

/* `a` has the id first; `b` takes another one and is in the mesh with that. */
static void clash(uint32_t a, uint32_t b)
{
    begin();
    same_ids(nodes[a].options.sign_seed, nodes[b].options.sign_seed);
    derive(a);
    derive(b);
    ck_assert_uint_eq(nodes[a].self.id, nodes[b].self.id);
    for (uint32_t i = 0; i < NODES; i++) {
        if (i != b) {
            start(i);
        }
    }
    run(10 * NS_PER_S);
    start(b);
    run(20 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        ck_assert_uint_eq(seen(i, a)->id, nodes[a].self.id);
        expect_state(i, b, MEMBER_UP);
        ck_assert_uint_eq(seen(i, b)->id, gossip_id_of(nodes[b].options.sign_seed, 1));
    }
    ck_assert_uint_eq(gossip_counters(nodes[b].gossip)->id_changes, 1);
    ck_assert_uint_eq(gossip_counters(nodes[a].gossip)->id_changes, 0);
    end();
}

START_TEST(a_clash_with_the_seed)
{
    clash(0, 3);
}
END_TEST

START_TEST(a_clash_with_another)
{
    clash(2, 3);
}
END_TEST

/* Two meshes become one: of two that have been there for long one gives way, and only one. */
START_TEST(a_clash_of_elders)
{
    begin();
    same_ids(nodes[1].options.sign_seed, nodes[3].options.sign_seed);
    derive(1);
    derive(3);
    nodes[4].config.seeds[0].address = nodes[3].self.address;
    nodes[3].config.seed_count = 2;
    nodes[3].config.seeds[1] = (struct config_seed){nodes[4].self.address, DATA_PORT + 1};
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            cut[i][j] = (i < 3) != (j < 3);
        }
        start(i);
    }
    run(60 * NS_PER_S);
    expect_state(3, 4, MEMBER_UP);
    ck_assert_ptr_null(seen(0, 3));
    memset(cut, 0, sizeof(cut));
    run(60 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        expect_state(i, 1, MEMBER_UP);
        expect_state(i, 3, MEMBER_UP);
        ck_assert_uint_ne(seen(i, 1)->id, seen(i, 3)->id);
    }
    ck_assert_uint_eq(gossip_counters(nodes[1].gossip)->id_changes +
                          gossip_counters(nodes[3].gossip)->id_changes,
                      1);
    end();
}
END_TEST

/* The younger one may not give way: the elder does, if it hears of it. */
START_TEST(a_given_id_wins)
{
    begin();
    nodes[3].self.id = gossip_id_of(nodes[0].options.sign_seed, 0);
    derive(0);
    for (uint32_t i = 0; i < NODES; i++) {
        if (i == 3) {
            run(5 * NS_PER_S);
        }
        start(i);
    }
    run(60 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        expect_state(i, 0, MEMBER_UP);
        expect_state(i, 3, MEMBER_UP);
        ck_assert_uint_eq(seen(i, 3)->id, nodes[3].self.id);
        ck_assert_uint_lt(swim_counters(gossip_swim(nodes[i].gossip))->datagrams_in, 2000);
    }
    end();
}
END_TEST

START_TEST(a_given_id_gives_not_way)
{
    begin();
    nodes[3].self.id = nodes[2].self.id;
    for (uint32_t i = 0; i < NODES; i++) {
        if (i == 3) {
            run(5 * NS_PER_S);
        }
        start(i);
    }
    run(20 * NS_PER_S);
    ck_assert_ptr_null(seen(0, 3));
    expect_state(0, 2, MEMBER_UP);
    ck_assert_uint_lt(swim_counters(gossip_swim(nodes[0].gossip))->datagrams_in, 1000);
    ck_assert_uint_gt(gossip_counters(nodes[3].gossip)->id_clashes, 0);
    ck_assert_uint_eq(gossip_counters(nodes[3].gossip)->id_changes, 0);
    end();
}
END_TEST

/* A machine set up anew: another identity, another id, at the address of one that is no more. */
START_TEST(an_address_passes_on)
{
    begin();
    for (uint32_t i = 0; i < NODES - 1; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    nodes[4].self.address = nodes[2].self.address;
    crash(2);
    start(4);
    run(20 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        if (i != 2) {
            ck_assert_ptr_null(seen(i, 2));
            expect_state(i, 4, MEMBER_UP);
        }
    }
    end();
}
END_TEST

/* The same machine at another address: it is the same member. */
START_TEST(a_member_moves)
{
    begin();
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    crash(2);
    nodes[2].self.address = addr_of_v4(htonl(FIRST_HOST + 77));
    start(2);
    run(10 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        expect_state(i, 2, MEMBER_UP);
        ck_assert_uint_eq(members_count(gossip_members(nodes[i].gossip)), NODES);
        ck_assert(addr_equal(&seen(i, 2)->address, &nodes[2].self.address));
    }
    end();
}
END_TEST

START_TEST(another_data_port_is_not_for_us)
{
    begin();
    nodes[3].config.data_port = DATA_PORT + 100;
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    ck_assert_ptr_null(seen(0, 3));
    expect_state(0, 4, MEMBER_UP);
    ck_assert_uint_eq(gossip_counters(nodes[0].gossip)->port_foreign, 1);
    end();
}
END_TEST

/* Figures that only move are told once a second; that there is no room any more at once. */
START_TEST(load_is_told_as_it_matters)
{
    begin();
    start(0);
    start(1);
    run(5 * NS_PER_S);
    uint64_t before = gossip_counters(nodes[0].gossip)->states_told;
    for (uint16_t i = 0; i < 100; i++) {
        struct members_facts facts = facts_of((uint16_t)(i % 2 + 1));
        facts.models[0].speeds.prefill = (uint8_t)(i + 1);
        gossip_set_local(nodes[0].gossip, &facts);
        run(100 * NS_PER_MS);
    }
    uint64_t told = gossip_counters(nodes[0].gossip)->states_told - before;
    ck_assert_uint_ge(told, 9);
    ck_assert_uint_le(told, 12);
    run(5 * NS_PER_S); /* nothing is owed any more */
    ck_assert_uint_eq(seen(1, 0)->facts.models[0].speeds.prefill, 100);
    struct members_facts full = facts_of(0);
    gossip_set_local(nodes[0].gossip, &full);
    run(200 * NS_PER_MS);
    ck_assert_uint_eq(seen(1, 0)->facts.room, 0);
    before = gossip_counters(nodes[0].gossip)->states_told;
    run(60 * NS_PER_S);
    told = gossip_counters(nodes[0].gossip)->states_told - before;
    ck_assert_uint_ge(told, 5);
    ck_assert_uint_le(told, 7);
    end();
}
END_TEST

/* 5 ms there and back from Frankfurt to Tokyo: the place is doubted, the measure is not. */
START_TEST(light_judges_places)
{
    begin();
    nodes[1].self.latitude_deg = 35.0;
    nodes[1].self.longitude_deg = 139.0;
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(5 * NS_PER_S);
    ck_assert(seen(0, 1)->place_doubted);
    ck_assert_uint_eq(seen(0, 1)->srtt_ns, 2 * DELAY_NS);
    ck_assert(!seen(0, 2)->place_doubted);
    end();
}
END_TEST

/* Node 2 is beside 0, 3 and 4, and says that it is in Madrid, as 1 is: these three find light too
 * slow for that, 1 hears it from them, and so does 2, whose own findings count for nothing then. */
START_TEST(liars_are_found_out_by_witnesses)
{
    begin();
    nodes[1].self.latitude_deg = 40.5; /* near Madrid: nothing contradicts 2 from here */
    nodes[1].self.longitude_deg = -3.7;
    nodes[2].self.latitude_deg = 40.4;
    nodes[2].self.longitude_deg = -3.7;
    for (uint32_t j = 0; j < NODES; j++) {
        way_ns[1][j] = way_ns[j][1] = 20 * NS_PER_MS; /* as far as Madrid is */
    }
    way_ns[1][2] = way_ns[2][1] = DELAY_NS;
    for (uint32_t i = 0; i < NODES; i++) {
        start(i);
    }
    run(60 * NS_PER_S);
    for (uint32_t i = 0; i < NODES; i++) {
        for (uint32_t j = 0; j < NODES; j++) {
            ck_assert_msg(seen(i, j)->place_doubted == (j == 2), "%u of %u", i, j);
        }
    }
    end();
}
END_TEST

START_TEST(options_are_checked)
{
    struct gossip *gossip;
    begin();
    nodes[0].options.mesh_key_count = 0;
    ck_assert_int_eq(gossip_create(&gossip, &nodes[0].options, now_ns), -EINVAL);
    nodes[0].options.mesh_key_count = 1;
    nodes[0].self.id = WEFT_NODE_NONE;
    ck_assert_int_eq(gossip_create(&gossip, &nodes[0].options, now_ns), -EINVAL);
    ck_assert_ptr_null(gossip);
    gossip_destroy(NULL);
    end();
}
END_TEST

MAIN_OF("gossip", joins_by_one_seed, the_dead_go_and_come_back, whoever_is_missed_is_asked,
        whoever_leaves_is_gone_at_once, a_partition_heals, a_wrong_key_keeps_out,
        keys_change_node_by_node, keys_change_in_a_running_mesh, a_clash_with_the_seed,
        a_clash_with_another, a_clash_of_elders, a_given_id_wins, a_given_id_gives_not_way,
        an_address_passes_on, a_member_moves, another_data_port_is_not_for_us,
        load_is_told_as_it_matters, light_judges_places, liars_are_found_out_by_witnesses,
        options_are_checked)
