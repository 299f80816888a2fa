/* SPDX-License-Identifier: Apache-2.0 */
/* test_zone_growth.c - meshes that grow from one node, split, lose members, merge, part and heal:
 * every path claimed at every event, and searches equal to brute force once things have settled. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/mesh/world.h"
#include "controlplane/zones/internal.h"
#include "tests/unit/suite.h"

#define SETTLE_NS   (60 * NS_PER_S)
#define SPLIT_ABOVE 24 /* small zones: more happens with fewer machines */
#define MERGE_BELOW 8

static struct world *world;
static struct zone_result result;
static bool found;
static bool watching;
static uint64_t epochs;

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    (void)w;
    (void)now_ns;
    zone_search_result(&s->search, &result);
    found = true;
}

/* Claims change only together with an epoch or a trim: then the tiling is looked at. */
static void on_event(struct world *w, uint32_t node, uint64_t now_ns)
{
    static uint64_t last[4096];
    const struct zone *z = &w->zones[node];
    uint64_t mark = z->claim.lo * 31 + z->claim.hi * 7 + z->epoch;
    (void)now_ns;
    if (!watching || last[node] == mark) {
        return;
    }
    uint64_t hole;
    last[node] = mark;
    epochs++;
    ck_assert_msg(world_covered(w, &hole), "node %u: hole at %lx", node, hole);
}

static void world_start(uint32_t nodes, uint64_t seed, double loss)
{
    struct world_options options = {.nodes = nodes,
                                    .seed = seed,
                                    .loss = loss,
                                    .jitter = 0.05,
                                    .member_max = 64,
                                    .split_above = SPLIT_ABOVE,
                                    .merge_below = MERGE_BELOW,
                                    .upkeep = true};
    ck_assert_int_eq(world_create(&world, &options), 0);
    world->on_found = on_found;
    world->on_event = on_event;
    watching = false;
    world_found(world, 0);
    watching = true;
}

static void run_for(uint64_t ns)
{
    vnet_run(world->vnet, vnet_now_ns(world->vnet) + ns);
}

static uint32_t up_draw(void)
{
    uint32_t node;
    do {
        node = rng_below(&world->population.rng, world->options.nodes);
    } while (!vnet_is_up(world->vnet, node) || !world->zones[node].joined);
    return node;
}

static void grow(uint32_t from, uint32_t to, uint64_t gap_ns)
{
    for (uint32_t i = from; i < to; i++) {
        world_join(world, i, up_draw());
        run_for(gap_ns);
    }
}

static uint32_t zones_count(uint32_t *least, uint32_t *most)
{
    uint32_t count = 0;
    *least = UINT32_MAX;
    *most = 0;
    for (uint32_t i = 0; i < world->options.nodes; i++) {
        const struct zone *z = &world->zones[i];
        bool first = vnet_is_up(world->vnet, i);
        for (uint32_t j = 0; j < i && first; j++) {
            first =
                !vnet_is_up(world->vnet, j) || !zone_range_equal(world->zones[j].claim, z->claim);
        }
        if (first) {
            uint32_t live = zone_live(z, vnet_now_ns(world->vnet));
            *least = live < *least ? live : *least;
            *most = live > *most ? live : *most;
            count++;
        }
    }
    return count;
}

/* Every claim belongs to exactly one zone: no overlaps. */
static void expect_tiling(void)
{
    uint64_t hole;
    ck_assert(world_covered(world, &hole));
    for (uint32_t i = 0; i < world->options.nodes; i++) {
        for (uint32_t j = 0; j < i; j++) {
            const struct zone *a = &world->zones[i];
            const struct zone *b = &world->zones[j];
            if (vnet_is_up(world->vnet, i) && vnet_is_up(world->vnet, j)) {
                ck_assert(zone_range_equal(a->claim, b->claim) ||
                          !zone_range_overlap(a->claim, b->claim));
            }
        }
        const struct zone *z = &world->zones[i];
        ck_assert_msg(!vnet_is_up(world->vnet, i) ||
                          (z->joined && zone_range_has(z->claim, z->key)),
                      "node %u: joined %d, [%lx, %lx) has %lx", i, z->joined, z->claim.lo,
                      z->claim.hi, z->key);
    }
}

/* Each expected one is among the answer's, unless those are all nearer. */
static void expect_has(const struct zone_top *expected, const struct zone_top *got)
{
    uint32_t j = 0;
    for (uint32_t i = 0; i < expected->count && j < got->k; i++) {
        while (j < got->count && got->all[j].node != expected->all[i].node) {
            j++;
        }
        ck_assert_msg(j < got->count || got->count == got->k, "node %u was not found",
                      expected->all[i].node);
    }
}

static void expect_exact(uint32_t searches, uint32_t incomplete_max)
{
    uint32_t incomplete = 0;
    for (uint32_t i = 0; i < searches; i++) {
        uint32_t asker = up_draw();
        struct zone_query q = population_query(&world->population, &world->truth[asker],
                                               (enum population_workload)(i % 3), i % 2 == 0);
        struct zone_top expected;
        found = false;
        world_ask(world, asker, &q, 5 * NS_PER_S, 0);
        while (!found) {
            ck_assert(vnet_step(world->vnet));
        }
        incomplete += !result.complete;
        if (result.complete) {
            /* The contract: all that was there, and known to its zone, `age_ms` ago. */
            uint64_t old_ns = result.age_ms * NS_PER_MS + ZONE_REPAIR_NS + 2 * NS_PER_S;
            uint64_t now_ns = vnet_now_ns(world->vnet);
            ck_assert_uint_lt(result.age_ms, 45000);
            world_oracle(world, &q, now_ns > old_ns ? now_ns - old_ns : 0, &expected);
            expect_has(&expected, &result.top);
        }
    }
    ck_assert_uint_le(incomplete, incomplete_max);
}

START_TEST(grows_and_splits)
{
    uint32_t least;
    uint32_t most;
    world_start(100, 21 + (uint64_t)_i, _i == 0 ? 0 : 0.05);
    grow(1, 100, 50 * NS_PER_MS);
    run_for(SETTLE_NS);
    expect_tiling();
    uint32_t zones = zones_count(&least, &most);
    ck_assert_uint_ge(zones, 5);
    ck_assert_uint_le(zones, 12);
    ck_assert_uint_ge(least, MERGE_BELOW);
    ck_assert_uint_le(most, SPLIT_ABOVE);
    expect_exact(300, _i == 0 ? 0 : 6);
    world_destroy(world);
}
END_TEST

START_TEST(shrinks_and_merges)
{
    uint32_t least;
    uint32_t most;
    world_start(100, 31, 0);
    grow(1, 100, 20 * NS_PER_MS);
    run_for(SETTLE_NS);
    uint32_t before = zones_count(&least, &most);
    for (uint32_t i = 1; i < 100; i++) {
        if (i % 4 != 0) {
            world_crash(world, i);
            run_for(300 * NS_PER_MS);
        }
    }
    run_for(2 * SETTLE_NS);
    expect_tiling();
    ck_assert_uint_lt(zones_count(&least, &most), before);
    ck_assert_uint_ge(least, MERGE_BELOW);
    expect_exact(200, 0);
    world_destroy(world);
}
END_TEST

START_TEST(a_fifth_dies_at_once)
{
    world_start(100, 41, 0);
    grow(1, 100, 20 * NS_PER_MS);
    run_for(SETTLE_NS);
    for (uint32_t i = 0; i < 100; i++) {
        if (rng_below(&world->population.rng, 5) == 0) {
            world_crash(world, i);
        }
    }
    run_for(SETTLE_NS);
    expect_tiling();
    expect_exact(300, 0);
    world_destroy(world);
}
END_TEST

/* All members of one zone die: its neighbour takes the range over. */
START_TEST(a_zone_is_exterminated)
{
    uint64_t hole;
    world_start(100, 51, 0);
    grow(1, 100, 20 * NS_PER_MS);
    run_for(SETTLE_NS);
    struct zone_range gone = world->zones[17].claim;
    watching = false;
    for (uint32_t i = 0; i < 100; i++) {
        if (zone_range_equal(world->zones[i].claim, gone)) {
            world_crash(world, i);
        }
    }
    ck_assert(!world_covered(world, &hole));
    run_for(4 * SETTLE_NS);
    expect_tiling();
    expect_exact(200, 10); /* it is said of those who have not heard yet */
    world_destroy(world);
}
END_TEST

/* Two halves for a minute, then one mesh again, with no help. */
START_TEST(parts_and_heals)
{
    world_start(100, 61, 0);
    grow(1, 100, 20 * NS_PER_MS);
    run_for(SETTLE_NS);
    for (uint32_t i = 0; i < 100; i++) {
        vnet_set_group(world->vnet, i, rng_below(&world->population.rng, 2));
    }
    run_for(2 * SETTLE_NS);
    for (uint32_t i = 0; i < 100; i++) {
        vnet_set_group(world->vnet, i, 0);
    }
    run_for(3 * SETTLE_NS);
    expect_tiling();
    expect_exact(200, 0);
    world_destroy(world);
}
END_TEST

/* ---- records within a zone ---- */

static bool knows_edition(uint32_t node, uint32_t other)
{
    const struct zone_member *m = zone_member_find(&world->zones[node], other);
    return m != NULL && m->record.version >> 32 == world->zones[other].self.version >> 32;
}

static uint32_t mate_of(uint32_t node)
{
    uint32_t mate = 0;
    while (mate == node || !zone_range_equal(world->zones[mate].claim, world->zones[node].claim)) {
        mate++;
    }
    return mate;
}

static void tags_change(uint32_t node)
{
    struct zone_record r = world->zones[node].self;
    uint64_t now_ns = vnet_local_ns(world->vnet, node);
    r.tags ^= 1u << 20;
    zone_set_self(&world->zones[node], &r, now_ns);
    vnet_wake(world->vnet, node, zone_next_ns(&world->zones[node]));
}

/* Told at once; who missed it asks for it as soon as it hears anything. */
START_TEST(a_changed_record_is_with_its_zone_soon)
{
    uint32_t missed = 0;
    world_start(40, 71, 0);
    grow(1, 40, 20 * NS_PER_MS);
    run_for(SETTLE_NS);
    for (uint32_t i = 0; i < 40; i++) {
        uint32_t mate = mate_of(i);
        tags_change(i);
        ck_assert(!knows_edition(mate, i));
        run_for(ZONE_SOON_NS + 400 * NS_PER_MS); /* the longest way on earth is shorter */
        ck_assert(knows_edition(mate, i));
        vnet_block(world->vnet, i, mate, true);
        tags_change(i);
        run_for(ZONE_SOON_NS + 400 * NS_PER_MS);
        missed += !knows_edition(mate, i); /* else it has just fetched all, from another */
        vnet_block(world->vnet, i, mate, false);
        run_for(ZONE_STATE_NS + 800 * NS_PER_MS);
        ck_assert(knows_edition(mate, i));
    }
    ck_assert_uint_gt(missed, 30);
    world_destroy(world);
}
END_TEST

/* However often it changes: no more than ten a second to each mate. */
START_TEST(changes_are_told_at_a_bounded_rate)
{
    world_start(20, 72, 0);
    grow(1, 20, 20 * NS_PER_MS);
    run_for(SETTLE_NS);
    uint64_t before = world->zones[3].counters.datagrams_sent;
    for (uint32_t i = 0; i < 1000; i++) {
        tags_change(3);
        run_for(5 * NS_PER_MS);
    }
    uint64_t sent = world->zones[3].counters.datagrams_sent - before;
    ck_assert_uint_gt(sent, 5 * 19);
    ck_assert_uint_lt(sent, 5 * (10 + 4) * 19 + 200);
    world_destroy(world);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_growth");
    TCase *tcase = tcase_create("zone_growth");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, grows_and_splits, 0, 2);
    tcase_add_test(tcase, shrinks_and_merges);
    tcase_add_test(tcase, a_fifth_dies_at_once);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("healing");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, a_zone_is_exterminated);
    tcase_add_test(tcase, parts_and_heals);
    tcase_add_test(tcase, a_changed_record_is_with_its_zone_soon);
    tcase_add_test(tcase, changes_are_told_at_a_bounded_rate);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
