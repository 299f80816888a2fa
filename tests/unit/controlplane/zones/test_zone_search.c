/* SPDX-License-Identifier: Apache-2.0 */
/* test_zone_search.c - searches over a virtual network against the brute force over all records:
 * equal when `complete`, and never incomplete without saying what was not heard. */
#include <check.h>

#include <stdlib.h>
#include <string.h>

#include "tests/unit/controlplane/zones/one_search.h"
#include "tests/unit/suite.h"

static void world_start(uint32_t nodes, uint64_t seed, double loss)
{
    struct world_options options = {.nodes = nodes, .seed = seed, .loss = loss, .member_max = 128};
    world_begin(&options);
}

static void ask(uint32_t asker)
{
    found = false;
    world_ask(world, asker, &query, BUDGET_NS, 0);
    while (!found) {
        ck_assert(vnet_step(world->vnet));
    }
}

static void expect_equal(const struct zone_top *expected, const struct zone_top *got)
{
    ck_assert_uint_eq(got->count, expected->count);
    for (uint32_t i = 0; i < got->count; i++) {
        ck_assert_uint_eq(got->all[i].node, expected->all[i].node);
        ck_assert_uint_eq(got->all[i].distance, expected->all[i].distance);
    }
}

START_TEST(equals_brute_force)
{
    static const uint32_t sizes[] = {1, 2, 60, 100, 1000, 4000};
    struct zone_top expected;
    world_start(sizes[_i], 7 + (uint64_t)_i, 0);
    for (uint32_t i = 0; i < 600; i++) {
        uint32_t asker = rng_below(&world->population.rng, sizes[_i]);
        query = population_query(&world->population, &world->truth[asker],
                                 (enum population_workload)(i % 3), i % 4 != 0);
        ask(asker);
        ck_assert(result.complete);
        ck_assert_uint_eq(result.unheard_count, 0);
        world_oracle(world, &query, UINT64_MAX, &expected);
        expect_equal(&expected, &result.top);
    }
    world_destroy(world);
}
END_TEST

/* Many small zones, so many that contacts of a region mostly live elsewhere: a search must not be
 * sent to and fro between those who know no more. */
START_TEST(nobody_is_asked_in_circles)
{
    struct world_options options = {.nodes = 4000, .seed = 1, .member_max = 16, .split_above = 8};
    struct zone_top expected;
    ck_assert_int_eq(world_create(&world, &options), 0);
    world->on_found = on_found;
    ck_assert_int_gt(world_tile(world), 600);
    for (uint32_t i = 0; i < 1800; i++) {
        uint32_t asker = rng_below(&world->population.rng, 4000);
        query = population_query(&world->population, &world->truth[asker],
                                 (enum population_workload)(i / 600), false);
        ask(asker);
        ck_assert_msg(result.complete, "search %u", i);
        world_oracle(world, &query, UINT64_MAX, &expected);
        expect_equal(&expected, &result.top);
    }
    world_destroy(world);
}
END_TEST

/* Page by page the same as all at once: nothing twice, nothing left out. */
START_TEST(pages_equal_brute_force)
{
    struct zone_top expected;
    world_start(1000, 21, 0);
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t asker = rng_below(&world->population.rng, 1000);
        query = population_query(&world->population, &world->truth[asker],
                                 (enum population_workload)(i % 3), i % 2 == 0);
        query.k = ZONE_TOP_MAX;
        world_oracle(world, &query, UINT64_MAX, &expected);
        query.k = (uint8_t)(1 + i % 4);
        for (uint32_t at = 0; at < expected.count;) {
            ask(asker);
            ck_assert(result.complete);
            ck_assert_uint_gt(result.top.count, 0);
            for (uint32_t f = 0; f < result.top.count && at < expected.count; f++, at++) {
                ck_assert_uint_eq(result.top.all[f].node, expected.all[at].node);
            }
            const struct zone_found *last = &result.top.all[result.top.count - 1];
            query.has_after = true;
            query.after_distance = last->distance;
            query.after_node = last->node;
        }
        if (expected.count < ZONE_TOP_MAX && expected.count > 0) {
            ask(asker);
            ck_assert_uint_eq(result.top.count, 0);
        }
    }
    world_destroy(world);
}
END_TEST

/* Loss costs time, not truth. */
START_TEST(loss_is_survived)
{
    struct zone_top expected;
    uint32_t complete = 0;
    world_start(2000, 3, 0.1);
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t asker = rng_below(&world->population.rng, 2000);
        query = population_query(&world->population, &world->truth[asker], POPULATION_GLOBAL,
                                 i % 2 == 0);
        ask(asker);
        ck_assert(result.complete || result.unheard_count > 0);
        complete += result.complete;
        if (result.complete) {
            world_oracle(world, &query, UINT64_MAX, &expected);
            expect_equal(&expected, &result.top);
        }
    }
    ck_assert_uint_gt(complete, 290);
    world_destroy(world);
}
END_TEST

/* Dead nodes: what is left is found, or else it is said what was not heard. A zone answers for what
 * its members hold, so the dead are still in answers until the membership takes them out; here it
 * has. */
START_TEST(a_fifth_dies)
{
    struct zone_top expected;
    uint32_t complete = 0;
    world_start(3000, 11, 0);
    for (uint32_t i = 0; i < 600; i++) {
        uint32_t dead = rng_below(&world->population.rng, 3000);
        if (vnet_is_up(world->vnet, dead)) {
            world_crash(world, dead);
            for (uint32_t j = 0; j < 3000; j++) {
                zone_member_down(&world->zones[j], dead);
            }
        }
    }
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t asker = rng_below(&world->population.rng, 3000);
        if (!vnet_is_up(world->vnet, asker)) {
            continue;
        }
        query = population_query(&world->population, &world->truth[asker],
                                 (enum population_workload)(i % 3), i % 2 == 0);
        ask(asker);
        ck_assert(result.complete || result.unheard_count > 0);
        complete += result.complete;
        world_oracle(world, &query, UINT64_MAX, &expected);
        if (result.complete) {
            expect_equal(&expected, &result.top);
        } else {
            ck_assert_uint_le(result.top.count, expected.count);
        }
    }
    ck_assert_uint_gt(complete, 750);
    world_destroy(world);
}
END_TEST

/* What 300 searches take after a fifth has died. */
static uint64_t after_deaths_ns(bool known)
{
    const struct world_options options = {.nodes = 2000, .seed = 12, .deaths_known = known};
    uint64_t took_ns = 0;
    world_begin(&options);
    for (uint32_t i = 0; i < 400; i++) {
        world_crash(world, 5 * i);
    }
    for (uint32_t i = 0; i < 300; i++) {
        uint32_t asker = 5 * rng_below(&world->population.rng, 400) + 1;
        query = population_query(&world->population, &world->truth[asker], POPULATION_MIXED,
                                 i % 2 == 0);
        uint64_t from_ns = vnet_now_ns(world->vnet);
        ask(asker);
        took_ns += vnet_now_ns(world->vnet) - from_ns;
    }
    world_destroy(world);
    return took_ns;
}

/* Whom the membership holds dead nobody waits for, whoever still names him. */
START_TEST(the_dead_are_not_waited_for)
{
    uint64_t unknown_ns = after_deaths_ns(false);
    uint64_t known_ns = after_deaths_ns(true);
    ck_assert_msg(known_ns < unknown_ns * 9 / 10, "%.1f and %.1f s", (double)known_ns / 1e9,
                  (double)unknown_ns / 1e9);
}
END_TEST

/* A whole range of nodes is cut off: the answer says so. */
START_TEST(a_lost_zone_is_named)
{
    uint32_t named = 0;
    world_start(1000, 5, 0);
    uint32_t asker = 0;
    struct zone_range own = world->zones[asker].claim;
    for (uint32_t i = 1; i < 1000; i++) {
        if (!zone_range_equal(world->zones[i].claim, own)) {
            vnet_set_group(world->vnet, i, 1);
        }
    }
    for (uint32_t i = 0; i < 50; i++) {
        query =
            population_query(&world->population, &world->truth[asker], POPULATION_GLOBAL, false);
        query.k = ZONE_TOP_MAX;
        ask(asker);
        named += !result.complete;
        ck_assert_uint_eq(result.complete, result.unheard_count == 0);
        for (uint32_t j = 0; j < result.unheard_count && j < ZONE_SEARCH_UNHEARD; j++) {
            ck_assert(!zone_range_overlap(result.unheard[j], own));
        }
    }
    ck_assert_uint_eq(named, 50);
    world_destroy(world);
}
END_TEST

/* ---- one region, by hand ---- */

static struct zone_search one;
static struct zone_peers peers;

static struct zone_contact contact_at(uint32_t node, uint64_t key)
{
    return (struct zone_contact){.node = node, .area = zone_area(key)};
}

/* Nodes 1, 2 and 3 live in the upper half of all paths, nothing else is known; 11 is a mate. */
static void one_region(void)
{
    struct zone_summary upper;
    const struct zone_query any = {.tier_max = 7, .k = 1};
    memset(&peers, 0, sizeof(peers));
    zone_summary_init(&upper, (struct zone_range){ZONE_KEY_END / 2, ZONE_KEY_END});
    zone_search_init(&one, &any, 1, 0, 10 * NS_PER_S);
    zone_summary_unknown(&upper, upper.range);
    for (uint32_t i = 0; i < ZONE_CONTACTS; i++) {
        upper.contacts[upper.contact_count++] = contact_at(1 + i, ZONE_KEY_END / 4 * 3);
    }
    one.helpers[one.helper_count++] = contact_at(11, 0);
    zone_search_add(&one, &upper);
}

/* The next questions at that time go to these, and to nobody else. */
static void expect_asked(uint64_t now_ns, uint32_t count, const uint32_t *nodes, uint32_t *ids)
{
    struct zone_ask next;
    uint32_t asked = 0;
    while (zone_search_poll(&one, &peers, now_ns, &next)) {
        bool wanted = false;
        for (uint32_t i = 0; i < count; i++) {
            if (next.to.node == nodes[i]) {
                wanted = true;
                ids[i] = next.id;
            }
        }
        ck_assert_msg(wanted, "node %u was asked", next.to.node);
        asked++;
    }
    ck_assert_uint_eq(asked, count);
}

/* Two are late: the third is asked, and at the same time a mate for others; those he names are
 * asked at once. Whoever is first, the one who was late or one of the new ones, settles it. */
START_TEST(mates_name_others_beside_the_last)
{
    static const uint32_t names[3][2] = {{1, 2}, {3, 11}, {21, 22}};
    const uint32_t settles = _i == 0 ? 1 : 22;
    const uint64_t half = ZONE_KEY_END / 2;
    uint32_t ids[3][2];
    one_region();
    expect_asked(0, 2, names[0], ids[0]);
    uint64_t late_ns = zone_search_next_ns(&one);
    ck_assert_uint_lt(late_ns, 10 * NS_PER_S);
    expect_asked(late_ns, 2, names[1], ids[1]);
    struct zone_answer others = {.id = ids[1][1], .from = 11, .piece_count = 1};
    zone_summary_unknown(&others.pieces[0], (struct zone_range){half, ZONE_KEY_END});
    others.pieces[0].contact_count = 2;
    others.pieces[0].contacts[0] = contact_at(21, half);
    others.pieces[0].contacts[1] = contact_at(22, half);
    zone_search_answer(&one, &peers, &others, late_ns + NS_PER_MS);
    expect_asked(late_ns + NS_PER_MS, 2, names[2], ids[2]);
    ck_assert(!zone_search_done(&one, late_ns + NS_PER_MS));
    struct zone_answer last = {.id = settles == 1 ? ids[0][0] : ids[2][1],
                               .from = settles,
                               .covered = {half, ZONE_KEY_END}};
    zone_search_answer(&one, &peers, &last, late_ns + 2 * NS_PER_MS);
    ck_assert(zone_search_done(&one, late_ns + 2 * NS_PER_MS));
    zone_search_result(&one, &result);
    ck_assert(result.complete);
}
END_TEST

/* All are silent: it ends, and says what was not heard. */
START_TEST(silence_of_all_ends)
{
    struct zone_ask next;
    uint64_t now_ns = 0;
    one_region();
    while (zone_search_poll(&one, &peers, now_ns, &next)) {
    }
    do {
        now_ns = zone_search_next_ns(&one);
        while (zone_search_poll(&one, &peers, now_ns, &next)) {
        }
    } while (!zone_search_done(&one, now_ns));
    zone_search_result(&one, &result);
    ck_assert(!result.complete);
    ck_assert_uint_eq(result.unheard_count, 1);
    ck_assert_uint_eq(one.asks, ZONE_CONTACTS + ZONE_SEARCH_ROUNDS);
    ck_assert_uint_lt(now_ns, 2 * NS_PER_S);
}
END_TEST

/* ---- after losses ---- */

static double dead_contacts_percent(void)
{
    uint32_t dead = 0;
    uint32_t all = 0;
    for (uint32_t i = 0; i < world->options.nodes; i++) {
        const struct zone_view *view = &world->zones[i].view;
        for (uint32_t e = 0; vnet_is_up(world->vnet, i) && e < view->count; e++) {
            for (uint32_t c = 0; c < view->all[e].is.contact_count; c++, all++) {
                dead += !vnet_is_up(world->vnet, view->all[e].is.contacts[c].node);
            }
        }
    }
    return 100.0 * dead / all;
}

/* Who has fallen silent is not named to others any more before he is held gone, and who knows him
 * soon knows others instead. */
START_TEST(the_silent_are_not_named)
{
    struct world_options options = {.nodes = 1000, .seed = 9, .member_max = 128, .upkeep = true};
    world_begin(&options);
    vnet_run(world->vnet, 10 * NS_PER_S);
    for (uint32_t i = 0; i < 1000; i += 5) {
        world_crash(world, i);
    }
    vnet_run(world->vnet, 14 * NS_PER_S);
    for (uint32_t i = 0; i < 1000; i++) {
        const struct zone_summary *own = &world->zones[i].own;
        for (uint32_t c = 0; i % 5 != 0 && c < own->contact_count; c++) {
            ck_assert_msg(own->contacts[c].node % 5 != 0, "%u names %u", i, own->contacts[c].node);
        }
    }
    vnet_run(world->vnet, 20 * NS_PER_S);
    ck_assert_double_lt(dead_contacts_percent(), 5.0);
    world_destroy(world);
}
END_TEST

START_TEST(deadline_is_kept)
{
    world_start(1000, 5, 1.0);
    query = population_query(&world->population, &world->truth[3], POPULATION_GLOBAL, false);
    query.k = ZONE_TOP_MAX;
    uint64_t before_ns = vnet_now_ns(world->vnet);
    found = false;
    world_ask(world, 3, &query, 50 * NS_PER_MS, 0);
    while (!found) {
        ck_assert(vnet_step(world->vnet));
    }
    ck_assert_uint_le(vnet_now_ns(world->vnet) - before_ns, 50 * NS_PER_MS);
    ck_assert(!result.complete);
    world_destroy(world);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_search");
    TCase *tcase = tcase_create("zone_search");
    tcase_set_timeout(tcase, 100);
    tcase_add_loop_test(tcase, equals_brute_force, 0, 6);
    tcase_add_test(tcase, nobody_is_asked_in_circles);
    tcase_add_test(tcase, pages_equal_brute_force);
    tcase_add_test(tcase, loss_is_survived);
    tcase_add_test(tcase, a_fifth_dies);
    tcase_add_test(tcase, the_dead_are_not_waited_for);
    tcase_add_test(tcase, a_lost_zone_is_named);
    tcase_add_loop_test(tcase, mates_name_others_beside_the_last, 0, 2);
    tcase_add_test(tcase, silence_of_all_ends);
    tcase_add_test(tcase, the_silent_are_not_named);
    tcase_add_test(tcase, deadline_is_kept);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
