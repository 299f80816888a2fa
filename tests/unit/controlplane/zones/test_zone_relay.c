/* SPDX-License-Identifier: Apache-2.0 */
/* test_zone_relay.c - searches done by others for far places: they find what the brute force finds,
 * also if those who were asked are gone, have no room, or end in the middle of it. */
#include <check.h>

#include <string.h>

#include "tests/unit/controlplane/zones/one_search.h"
#include "tests/unit/suite.h"

#define NODES 2000u

static void world_start(uint64_t seed)
{
    struct world_options options = {
        .nodes = NODES, .seed = seed, .member_max = 32, .split_above = 24};
    world_begin(&options);
}

static uint64_t duties(void)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < NODES; i++) {
        sum += world->zones[i].counters.duties;
    }
    return sum;
}

/* A node that has begun to search for another; NODES: there is none. */
static uint32_t worker(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        const struct zone_options *o = &world->zones[i].options;
        for (uint32_t d = 0; d < o->duty_max; d++) {
            if (o->duties[d].used && vnet_is_up(world->vnet, i)) {
                return i;
            }
        }
    }
    return NODES;
}

static uint32_t asker_draw(void)
{
    uint32_t asker;
    do {
        asker = rng_below(&world->population.rng, NODES);
    } while (!vnet_is_up(world->vnet, asker));
    query = population_query(&world->population, &world->truth[asker], POPULATION_GLOBAL,
                             rng_below(&world->population.rng, 2) == 0);
    return asker;
}

static void ask(uint32_t asker)
{
    found = false;
    world_ask(world, asker, &query, BUDGET_NS, 0);
    while (!found) {
        ck_assert(vnet_step(world->vnet));
    }
}

static void expect_brute_force(void)
{
    struct zone_top expected;
    world_oracle(world, &query, UINT64_MAX, &expected);
    ck_assert_uint_eq(result.top.count, expected.count);
    for (uint32_t i = 0; i < expected.count; i++) {
        ck_assert_uint_eq(result.top.all[i].node, expected.all[i].node);
    }
}

START_TEST(far_searches_are_done_there)
{
    world_start(3);
    for (uint32_t i = 0; i < 600; i++) {
        ask(asker_draw());
        ck_assert(result.complete);
        expect_brute_force();
    }
    ck_assert_uint_gt(duties(), 400);
    ck_assert_uint_eq(worker(), NODES); /* all are done */
    world_destroy(world);
}
END_TEST

/* Nobody does anything for others: the asker does it all, with as many answers as were asked. */
START_TEST(without_room_the_asker_searches)
{
    world_start(4);
    for (uint32_t i = 0; i < NODES; i++) {
        world->zones[i].options.duty_max = 0;
    }
    for (uint32_t i = 0; i < 300; i++) {
        ask(asker_draw());
        ck_assert(result.complete);
        expect_brute_force();
    }
    ck_assert_uint_eq(duties(), 0);
    world_destroy(world);
}
END_TEST

/* A fifth is gone, and nobody knows: what is complete still holds all that is there. */
START_TEST(the_dead_are_passed_over)
{
    uint32_t complete = 0;
    world_start(5);
    for (uint32_t i = 0; i < NODES; i++) {
        if (rng_below(&world->population.rng, 5) == 0) {
            world_crash(world, i);
        }
    }
    for (uint32_t i = 0; i < 300; i++) {
        struct zone_top expected;
        uint32_t at = 0;
        ask(asker_draw());
        world_oracle(world, &query, UINT64_MAX, &expected);
        complete += result.complete;
        /* Records of the dead are still found; none of the living may be missing before the last.
         */
        for (uint32_t e = 0; result.complete && e < expected.count; e++) {
            const struct zone_found *last = &result.top.all[result.top.count - 1];
            while (at < result.top.count && result.top.all[at].node != expected.all[e].node) {
                at++;
            }
            ck_assert(at < result.top.count ||
                      (result.top.count == query.k && expected.all[e].distance >= last->distance));
        }
    }
    ck_assert_uint_gt(complete, 290);
    world_destroy(world);
}
END_TEST

/* Asks, and ends whoever has begun the search for it, before he is done. Returns who that was;
 * NODES: nobody has begun. */
static uint32_t ask_and_end_worker(uint32_t asker, void (*end)(uint32_t victim))
{
    uint32_t victim = NODES;
    found = false;
    world_ask(world, asker, &query, BUDGET_NS, 0);
    while (!found) {
        ck_assert(vnet_step(world->vnet));
        if (victim == NODES && (victim = worker()) != NODES) {
            end(victim);
        }
    }
    ck_assert(result.complete);
    return victim;
}

static void cut_off(uint32_t victim)
{
    vnet_crash(world->vnet, victim);
}

static void crash(uint32_t victim)
{
    world_crash(world, victim);
}

/* The asker takes it over. */
START_TEST(an_end_in_the_middle_is_noticed)
{
    uint32_t ended = 0;
    world_start(6);
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t victim = ask_and_end_worker(asker_draw(), cut_off);
        ended += victim != NODES;
        if (victim != NODES) { /* back again, as if he had only been cut off */
            vnet_restart(world->vnet, victim);
            for (uint32_t d = 0; d < ZONE_DUTIES; d++) {
                world->zones[victim].options.duties[d].used = false;
            }
        }
        expect_brute_force();
    }
    ck_assert_uint_gt(ended, 50);
    world_destroy(world);
}
END_TEST

/* Nor is anybody waited for until there is no time left: however long such work has taken before,
 * and whether the one who has begun comes to an end or not. */
START_TEST(slow_work_is_not_waited_for)
{
    uint32_t ended = 0;
    world_start(8);
    for (uint32_t i = 0; i < 30; i++) {
        uint32_t asker = asker_draw();
        world->zones[asker].peers.work_us = 60000000;
        ended += ask_and_end_worker(asker, crash) != NODES;
    }
    ck_assert_uint_gt(ended, 15);
    world_destroy(world);
}
END_TEST

static bool send_nothing(void *user, const struct zone_contact *to, const void *data, size_t size)
{
    (void)user;
    (void)to;
    (void)data;
    (void)size;
    return true;
}

/* Node `from` wants node 0 to search for it. Returns how many node 0 does then. */
static uint32_t give_duty(uint32_t from, uint32_t id)
{
    const struct zone_io io = {.send = send_nothing};
    struct zone *zone = &world->zones[0];
    struct zone_msg msg = {.header = {.kind = ZONE_ASK, .node = from}};
    uint8_t data[ZONE_DATAGRAM_MAX];
    uint32_t used = 0;
    msg.ask.ask = (struct zone_ask){
        .id = id, .range = ZONE_RANGE_ALL, .bound = UINT32_MAX, .budget_ms = 2000, .hops = 1};
    msg.ask.query = query;
    size_t size = zone_msg_write(data, &msg, NULL);
    zone_input(zone, data, size, &zone->self.addr, NULL, vnet_now_ns(world->vnet), &io);
    for (uint32_t i = 0; i < zone->options.duty_max; i++) {
        used += zone->options.duties[i].used;
    }
    return used;
}

/* However much one member asks for, there is room for another one. */
START_TEST(nobody_takes_all_places)
{
    world_start(7);
    query = population_query(&world->population, &world->truth[1], POPULATION_GLOBAL, false);
    for (uint32_t i = 0; i < 2 * ZONE_DUTIES; i++) {
        ck_assert_uint_le(give_duty(1000, i << 8), ZONE_DUTIES / 2);
    }
    ck_assert_uint_eq(give_duty(1001, 0), ZONE_DUTIES / 2 + 1);
    world_destroy(world);
}
END_TEST

static struct zone_relay relay;
static struct zone_peers peers;

/* 5, 9 and 7 are the best of ten; waits from 1 s on. */
static void relay_start(uint8_t hops)
{
    static const uint64_t costs[] = {900, 800, 700, 950, 600, 10, 500, 30, 400, 20};
    uint64_t cost_us[ZONE_RELAYS_MAX];
    memset(&peers, 0, sizeof(peers));
    memset(&relay, 0, sizeof(relay));
    for (uint32_t i = 0; i < 10; i++) {
        struct zone_contact contact = {.node = i};
        zone_relay_offer(&relay, cost_us, &contact, costs[i]);
        zone_relay_offer(&relay, cost_us, &contact, costs[i]);
    }
    ck_assert_uint_eq(relay.count, ZONE_RELAYS_MAX);
    relay.hops = hops;
    relay.waits = true;
    relay.due_ns = NS_PER_S;
}

START_TEST(the_best_placed_are_asked_in_turn)
{
    struct zone_contact to;
    relay_start(0);
    ck_assert(!zone_relay_poll(&relay, &peers, NS_PER_S - 1, &to));
    ck_assert(zone_relay_poll(&relay, &peers, NS_PER_S, &to));
    ck_assert_uint_eq(to.node, 5);
    ck_assert(!zone_relay_poll(&relay, &peers, NS_PER_S, &to));
    /* He has no room, the next is late, the third works: no fourth, and silence is told. */
    ck_assert(zone_relay_heard(&relay, &peers, 5, ZONE_RELAY_NOT, NS_PER_S + 1));
    ck_assert(zone_relay_poll(&relay, &peers, NS_PER_S + 1, &to));
    ck_assert_uint_eq(to.node, 9);
    ck_assert(zone_relay_poll(&relay, &peers, relay.due_ns, &to));
    ck_assert_uint_eq(to.node, 7);
    ck_assert(!zone_relay_heard(&relay, &peers, 4, ZONE_RELAY_FINISHED, relay.due_ns));
    ck_assert(zone_relay_heard(&relay, &peers, 7, ZONE_RELAY_WORKING, relay.due_ns - 1));
    ck_assert(relay.waits && relay.working);
    ck_assert(!zone_relay_poll(&relay, &peers, relay.due_ns - 1, &to));
    ck_assert(!zone_relay_poll(&relay, &peers, relay.due_ns, &to));
    ck_assert(!relay.waits); /* long enough */
    ck_assert_uint_eq(zone_peers_fails(&peers, 9), 1);
    ck_assert_uint_eq(zone_peers_fails(&peers, 5), 0);
}
END_TEST

/* Whoever searches for itself asks two at once; the slower of them is blamed only if it is silent
 * for longer than its round-trip time allows, and once. */
START_TEST(two_are_asked_at_once)
{
    struct zone_contact to;
    relay_start(1);
    ck_assert(zone_relay_poll(&relay, &peers, NS_PER_S, &to));
    ck_assert_uint_eq(to.node, 5);
    ck_assert(zone_relay_poll(&relay, &peers, NS_PER_S, &to));
    ck_assert_uint_eq(to.node, 9);
    ck_assert(!zone_relay_poll(&relay, &peers, NS_PER_S, &to));
    ck_assert(zone_relay_heard(&relay, &peers, 9, ZONE_RELAY_WORKING, NS_PER_S + 1));
    ck_assert(zone_relay_heard(&relay, &peers, 9, ZONE_RELAY_FINISHED, NS_PER_S + 2));
    ck_assert(!relay.waits);
    ck_assert_uint_eq(zone_peers_fails(&peers, 5), 0);
    ck_assert(zone_relay_heard(&relay, &peers, 9, ZONE_RELAY_FINISHED, 3 * NS_PER_S));
    ck_assert(zone_relay_heard(&relay, &peers, 9, ZONE_RELAY_FINISHED, 4 * NS_PER_S));
    ck_assert_uint_eq(zone_peers_fails(&peers, 5), 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_relay");
    TCase *tcase = tcase_create("zone_relay");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, far_searches_are_done_there);
    tcase_add_test(tcase, without_room_the_asker_searches);
    tcase_add_test(tcase, the_dead_are_passed_over);
    tcase_add_test(tcase, an_end_in_the_middle_is_noticed);
    tcase_add_test(tcase, slow_work_is_not_waited_for);
    tcase_add_test(tcase, nobody_takes_all_places);
    tcase_add_test(tcase, the_best_placed_are_asked_in_turn);
    tcase_add_test(tcase, two_are_asked_at_once);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
