/* SPDX-License-Identifier: Apache-2.0 */
/* gossip_mesh.h - a whole mesh of gossip objects in virtual time, in zones if `zoned`: what
 * test_gossip.c and test_zoning.c share. One loss-free network, DELAY_NS each way unless `way_ns`
 * says otherwise, cut where `cut` says. */
#pragma once

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/gossip/gossip.h"
#include "controlplane/gossip/letters.h"
#include "controlplane/gossip/zoning.h"
#include "schemas/base/addr.h"
#include "tests/unit/controlplane/main_of.h"

#define MESH_FN static __attribute__((unused))

#define NODES      5u
#define DATA_PORT  7400u
#define DELAY_NS   (5 * NS_PER_MS) /* each way */
#define QUEUE_MAX  65536u
#define FIRST_HOST 0x0a000001u
#define START_NS   (1000 * NS_PER_S)
#define MODEL      "smollm2-135m-instruct"

struct flight {
    uint64_t due_ns;
    uint32_t from;
    struct swim_datagram datagram;
};

static struct node {
    struct gossip *gossip;
    struct letters letters; /* these two if `zoned` */
    struct zoning *zoning;
    struct config config;
    struct config_member self;
    struct gossip_options options;
} nodes[NODES];
static struct flight *flights;
static uint32_t flight_count;
static bool cut[NODES][NODES];
static uint64_t way_ns[NODES][NODES]; /* each way; 0: DELAY_NS */
static uint64_t now_ns;
static struct swim_out out;
static bool zoned; /* nodes are in zones, too */
/* The last search that has ended, of whichever node. */
static struct zone_result search_result;
static uint64_t search_ticket;

/* ---- the network ---- */

/* Whoever has the address now; a node that runs goes before one that does not. */
MESH_FN uint32_t at_address(const struct in6_addr *address)
{
    for (uint32_t i = 0; i < NODES; i++) {
        if (nodes[i].gossip != NULL && addr_equal(&nodes[i].self.address, address)) {
            return i;
        }
    }
    return NODES;
}

MESH_FN uint64_t arrival_ns(uint32_t from, const struct in6_addr *to_address)
{
    uint32_t to = at_address(to_address);
    return now_ns + (to < NODES && way_ns[from][to] != 0 ? way_ns[from][to] : DELAY_NS);
}

MESH_FN void carry(uint32_t from)
{
    for (uint32_t i = 0; i < out.datagram_count; i++) {
        ck_assert_uint_lt(flight_count, QUEUE_MAX);
        flights[flight_count++] =
            (struct flight){.due_ns = arrival_ns(from, &out.datagrams[i].address),
                            .from = from,
                            .datagram = out.datagrams[i]};
    }
}

/* Letters leave one by one. */
MESH_FN void letter_carry(const struct in6_addr *address, uint16_t port, const void *data,
                          size_t size, void *user)
{
    const struct node *node = user;
    struct flight *flight = &flights[flight_count++];
    ck_assert_uint_lt(flight_count, QUEUE_MAX);
    flight->due_ns = arrival_ns((uint32_t)(node - nodes), address);
    flight->from = (uint32_t)(node - nodes);
    flight->datagram.address = *address;
    flight->datagram.port = port;
    flight->datagram.len = (uint16_t)size;
    memcpy(flight->datagram.data, data, size);
}

MESH_FN void search_ended(uint64_t ticket, const struct zone_query *query,
                          const struct zone_result *result, uint64_t took_ns, void *user)
{
    (void)query;
    (void)took_ns;
    (void)user;
    search_result = *result;
    search_ticket = ticket;
}

MESH_FN void arrive(uint32_t at)
{
    struct flight flight = flights[at];
    uint32_t to = at_address(&flight.datagram.address);
    flights[at] = flights[--flight_count];
    if (to == NODES || cut[flight.from][to]) {
        return;
    }
    if (zoned && letter_is(flight.datagram.data, flight.datagram.len)) {
        struct letter letter;
        if (letter_open(&nodes[to].letters, flight.datagram.data, flight.datagram.len, now_ns,
                        &letter)) {
            zoning_input(nodes[to].zoning, &letter, now_ns);
        }
        return;
    }
    gossip_input(nodes[to].gossip, &nodes[flight.from].self.address, DATA_PORT + 1,
                 flight.datagram.data, flight.datagram.len, now_ns, &out);
    carry(to);
}

MESH_FN uint64_t node_next_ns(const struct node *node)
{
    uint64_t next_ns = gossip_next_ns(node->gossip);
    uint64_t zone_ns = zoned ? zoning_next_ns(node->zoning) : UINT64_MAX;
    return zone_ns < next_ns ? zone_ns : next_ns;
}

MESH_FN void run(uint64_t for_ns)
{
    uint64_t end_ns = now_ns + for_ns;
    for (;;) {
        uint64_t next_ns = UINT64_MAX;
        uint32_t node = NODES;
        uint32_t flight = 0;
        for (uint32_t i = 0; i < NODES; i++) {
            if (nodes[i].gossip != NULL && node_next_ns(&nodes[i]) < next_ns) {
                next_ns = node_next_ns(&nodes[i]);
                node = i;
            }
        }
        for (uint32_t i = 0; i < flight_count; i++) {
            if (flights[i].due_ns < next_ns) {
                next_ns = flights[i].due_ns;
                node = NODES;
                flight = i;
            }
        }
        if (next_ns > end_ns) {
            now_ns = end_ns;
            return;
        }
        now_ns = next_ns > now_ns ? next_ns : now_ns;
        if (node == NODES) {
            arrive(flight);
        } else {
            gossip_tick(nodes[node].gossip, now_ns, &out);
            carry(node);
            if (zoned) {
                zoning_tick(nodes[node].zoning, now_ns);
            }
        }
    }
}

/* ---- nodes ---- */

MESH_FN void prepare(uint32_t i)
{
    struct node *node = &nodes[i];
    *node = (struct node){.self = {.id = 10 + i, .tier = i % 8}};
    snprintf(node->self.name, sizeof(node->self.name), "n%u", i);
    snprintf(node->config.node, sizeof(node->config.node), "n%u", i);
    node->self.address = addr_of_v4(htonl(FIRST_HOST + i));
    node->self.latitude_deg = 50.0;
    node->self.longitude_deg = 8.0 + 0.1 * i;
    node->self.tags = i;
    node->config.gossip = true;
    node->config.data_port = DATA_PORT;
    node->config.members = &node->self;
    node->config.member_count = 1;
    node->config.seed_count = 1;
    node->config.seeds[0] =
        (struct config_seed){.address = addr_of_v4(htonl(FIRST_HOST)), .port = DATA_PORT + 1};
    node->options.config = &node->config;
    node->options.mesh_key_count = 1;
    memset(node->options.sign_seed, (int)(i + 1), SWIM_KEY_BYTES);
    memset(node->options.mesh_keys[0], 0x55, SWIM_KEY_BYTES);
}

MESH_FN void zone_start(struct node *node)
{
    const struct zoning_options options = {
        .config = &node->config,
        .swim = gossip_swim(node->gossip),
        .members = gossip_members(node->gossip),
        .letters = &node->letters,
        .seed = (uint64_t)(node - nodes) + now_ns,
        .send = letter_carry,
        .found = search_ended,
        .user = node,
    };
    ck_assert_int_eq(letters_init(&node->letters, options.swim, node->options.sign_seed,
                                  (const uint8_t(*)[SWIM_KEY_BYTES])node->options.mesh_keys,
                                  node->options.mesh_key_count),
                     0);
    ck_assert_int_eq(zoning_create(&node->zoning, &options, now_ns), 0);
}

MESH_FN void start(uint32_t i)
{
    memset(nodes[i].options.entropy, (int)(i + 100), SWIM_KEY_BYTES);
    nodes[i].options.entropy[0] = (uint8_t)(now_ns / NS_PER_S);
    nodes[i].options.incarnation_ms = now_ns / NS_PER_MS;
    ck_assert_int_eq(gossip_create(&nodes[i].gossip, &nodes[i].options, now_ns), 0);
    if (zoned) {
        zone_start(&nodes[i]);
    }
}

MESH_FN void crash(uint32_t i)
{
    if (zoned && nodes[i].gossip != NULL) {
        zoning_destroy(nodes[i].zoning);
        letters_deinit(&nodes[i].letters);
    }
    gossip_destroy(nodes[i].gossip);
    nodes[i].gossip = NULL;
}

MESH_FN void begin(void)
{
    now_ns = START_NS;
    flight_count = 0;
    flights = calloc(QUEUE_MAX, sizeof(*flights));
    memset(cut, 0, sizeof(cut));
    memset(way_ns, 0, sizeof(way_ns));
    for (uint32_t i = 0; i < NODES; i++) {
        prepare(i);
    }
}

MESH_FN void end(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        crash(i);
    }
    free(flights);
}

/* What `node` has in its table for whoever is called that; NULL: nobody. */
MESH_FN const struct member *seen(uint32_t node, uint32_t other)
{
    const struct members *members = gossip_members(nodes[node].gossip);
    for (uint32_t i = 0; i < members_count(members); i++) {
        if (strcmp(members_at(members, i)->name, nodes[other].self.name) == 0) {
            return members_at(members, i);
        }
    }
    return NULL;
}

MESH_FN void expect_state(uint32_t node, uint32_t other, enum member_state state)
{
    const struct member *member = seen(node, other);
    ck_assert_msg(member != NULL && member->state == state, "n%u has n%u as %s", node, other,
                  member != NULL ? member_state_name(member->state) : "nobody");
    ck_assert(member->alive == (state == MEMBER_UP || state == MEMBER_SUSPECT));
}

MESH_FN struct members_facts facts_of(uint16_t room)
{
    struct members_facts facts = {.room = room, .queue_us = 700, .prefill_tps = 900};
    strcpy(facts.backend, "cpu");
    facts.model_count = 1;
    strcpy(facts.models[0].name, MODEL);
    facts.models[0].id = weft_model_id(MODEL);
    return facts;
}
