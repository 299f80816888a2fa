/* SPDX-License-Identifier: Apache-2.0 */
/* test_choose.c - choose.c against a brute-force oracle on random tables, and its edges by hand. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "dataplane/route/choose.h"
#include "schemas/base/rng.h"
#include "tests/unit/route/oracle.h"
#include "tests/unit/route/palette.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define TABLES  (SANITIZED ? 10000 : 100000)
#define MODEL_A 1000u

static struct scan scratch;

/* ---- random input ---- */

static void random_node(struct rng *rng, struct oracle_node *o, uint16_t id)
{
    /* Whole cells, so that both sides see the same place; often the same few places: ties. */
    uint16_t x =
        (uint16_t)(rng_below(rng, 4) != 0 ? rng_below(rng, 65536) : rng_below(rng, 3) * 20000);
    uint16_t y = (uint16_t)(rng_below(rng, 4) != 0 ? rng_below(rng, 32768) : 16000);
    if (rng_below(rng, 4) == 0) { /* a site: many close together */
        x = (uint16_t)(30000 + rng_below(rng, 60));
        y = 20000;
    }
    *o = (struct oracle_node){.lat = weft_cell_latitude(y), .lon = weft_cell_longitude(x)};
    o->n = (struct route_node){
        .id = id,
        .tier = (uint8_t)rng_below(rng, 8),
        .alive = rng_below(rng, 8) != 0,
        .reachable = true,
        .x = x,
        .y = y,
        .addr = addr_of_v4(id),
        .tags = (uint32_t)rng_next(rng) | (uint32_t)rng_next(rng),
        .at = geo_point_at(o->lat, o->lon),
        .load_ns = rng_below(rng, 100),
        .queue_us = rng_below(rng, 3) != 0 ? 0 : rng_below(rng, 500000),
        .room = (uint16_t)rng_below(rng, 4),
        .free_vram_64mib = (uint16_t)rng_below(rng, 300),
        .rtt_us = rng_below(rng, 200000),
        .prefill_per_second = 1 + rng_below(rng, 5000),
        .decode_per_second = 1 + rng_below(rng, 200),
        .model_count = rng_below(rng, 4),
    };
    for (uint32_t m = 0; m < o->n.model_count; m++) {
        o->n.models[m] = MODEL_A + rng_below(rng, 3);
        if (rng_below(rng, 3) != 0) { /* others are as fast as their node */
            o->n.paces[m].prefill_ns = rng_below(rng, 2) * route_pace_ns(1 + rng_below(rng, 5000));
            o->n.paces[m].decode_ns = rng_below(rng, 2) * route_pace_ns(1 + rng_below(rng, 200));
        }
    }
    loads[id] = (struct route_load){
        .heard_ns = rng_below(rng, 100),
        .queue_us = rng_below(rng, 100000),
        .room = (uint16_t)rng_below(rng, 5),
        .free_vram_64mib = (uint16_t)rng_below(rng, 300),
        .assigned = rng_below(rng, 4),
    };
}

static struct route_query random_query(struct rng *rng)
{
    struct route_query q = {
        .model = MODEL_A + rng_below(rng, 3),
        .budget_us = WEFT_BUDGET_NONE,
        .prompt_bytes = 1 + rng_below(rng, 4000),
        .max_tokens = (uint16_t)rng_below(rng, 100),
        .x = (uint16_t)rng_below(rng, 65536),
        .y = (uint16_t)rng_below(rng, 32768),
        .lot = (uint32_t)rng_next(rng),
        .tier_max = WEFT_TIER_MAX,
        .has_position = rng_below(rng, 4) != 0,
        .end_to_end = rng_below(rng, 2) != 0,
    };
    if (rng_below(rng, 3) == 0) {
        q.tags = UINT32_C(1) << rng_below(rng, 32) | UINT32_C(1) << rng_below(rng, 32);
    }
    if (rng_below(rng, 2) == 0) {
        q.tier_min = (uint8_t)rng_below(rng, 8);
        q.tier_max = (uint8_t)(q.tier_min + rng_below(rng, 8u - q.tier_min));
    }
    if (rng_below(rng, 3) == 0) {
        q.radius_km = (uint16_t)(1 + rng_below(rng, 20000));
    }
    if (rng_below(rng, 4) == 0) {
        q.vram_64mib = (uint16_t)rng_below(rng, 320);
    }
    if (rng_below(rng, 4) == 0) {
        q.avoid_count = (uint16_t)(1 + rng_below(rng, WEFT_AVOID_MAX));
        for (unsigned i = 0; i < q.avoid_count; i++) {
            q.avoid[i] = (uint16_t)(100 + 7 * rng_below(rng, 12));
        }
    }
    if (rng_below(rng, 3) == 0) {
        q.budget_us = 1 + rng_below(rng, 2000000);
    }
    return q;
}

static int id_or_none(const struct route_table *t, uint16_t index)
{
    return index == ROUTE_INDEX_NONE ? -1 : t->nodes[index].id;
}

START_TEST(choice_equals_brute_force)
{
    struct rng rng = {.state = suite_seed(20260501 + (uint64_t)_i)};
    unsigned refused = 0;
    unsigned by_tag_row = 0;
    enum scan_isa before = scan_isa();
    if (scan_isa_use((enum scan_isa)_i) != 0) {
        fprintf(stderr, "not on this CPU: %s\n", scan_isa_name((enum scan_isa)_i));
        return;
    }
    for (int t = 0; t < TABLES; t++) {
        struct oracle_node nodes[NODES_MAX];
        struct route_node plain[NODES_MAX];
        unsigned kind = rng_below(&rng, 64);
        unsigned count = 1 + rng_below(&rng, kind == 0 ? NODES_MAX : kind < 16 ? 80 : 24);
        struct palette palette = random_palette(&rng);
        bool few_masks = rng_below(&rng, 2) != 0;
        for (unsigned i = 0; i < count; i++) {
            random_node(&rng, &nodes[i], (uint16_t)(100 + i * 7));
            palette_dress(few_masks ? &palette : NULL, &nodes[i].n, &rng);
            set_land(&rng, &nodes[i].n.tags);
        }
        for (unsigned i = count - 1; i > 0; i--) { /* any order must do */
            unsigned j = rng_below(&rng, i + 1);
            struct oracle_node swap = nodes[i];
            nodes[i] = nodes[j];
            nodes[j] = swap;
        }
        for (unsigned i = 0; i < count; i++) {
            plain[i] = nodes[i].n;
        }
        unsigned self = rng_below(&rng, count);
        struct route_table *table;
        ck_assert_int_eq(route_table_create(&table, plain, count, plain[self].id, 1, false), 0);
        struct route_query q = random_query(&rng);
        if (kind == 0 && rng_below(&rng, 4) != 0) { /* what rows are for */
            q.has_position = false;
            q.tags = rng_below(&rng, 3) != 0 ? 0 : q.tags | 1u << rng_below(&rng, 32);
            q.tier_max = rng_below(&rng, 2) != 0 ? WEFT_TIER_MAX : q.tier_max;
        }
        if (few_masks) {
            q.tags = random_tags(&rng, &palette);
            q.has_position = q.has_position && rng_below(&rng, 2) != 0;
        }
        ask_land(&rng, &q.tags);
        by_tag_row += has_tag_row(table, &q);
        struct route_choice got;
        route_choose(table, loads, &scratch, &q, &got);
        struct oracle_answer want = oracle(nodes, count, self, &q);
        ck_assert_msg(id_or_none(table, got.node) == want.node &&
                          id_or_none(table, got.alternates[0]) == want.alt1 &&
                          id_or_none(table, got.alternates[1]) == want.alt2 &&
                          got.constraint == want.constraint,
                      "table %d: chose %d (%d, %d; %u), oracle %d (%d, %d; %u)", t,
                      id_or_none(table, got.node), id_or_none(table, got.alternates[0]),
                      id_or_none(table, got.alternates[1]), got.constraint, want.node, want.alt1,
                      want.alt2, want.constraint);
        refused += want.node < 0;
        route_table_destroy(table);
    }
    scan_isa_use(before);
    /* The inputs must exercise both outcomes. */
    ck_assert_uint_gt(refused, TABLES / 10);
    ck_assert_uint_lt(refused, TABLES * 9 / 10);
    ck_assert_uint_gt(by_tag_row, TABLES / 200);
}
END_TEST

/* A burst of choices, each of which counts for the next, is the same as one after the other by the
 * oracle. Rooms are small, so that nodes fill up on the way. */
START_TEST(bursts_equal_one_after_the_other)
{
    struct rng rng = {.state = suite_seed(77000 + (uint64_t)_i)};
    static struct route_look looks[ROUTE_LOOKS_MAX];
    enum scan_isa before = scan_isa();
    if (scan_isa_use((enum scan_isa)_i) != 0) {
        return; /* not on this CPU */
    }
    for (int t = 0; t < TABLES / 100; t++) {
        struct oracle_node nodes[NODES_MAX];
        struct route_node plain[NODES_MAX];
        unsigned count = 1 + rng_below(&rng, rng_below(&rng, 8) == 0 ? 300 : 60);
        unsigned self = rng_below(&rng, count);
        struct palette palette = random_palette(&rng);
        bool few_masks = rng_below(&rng, 2) != 0;
        struct route_table *table;
        for (unsigned i = 0; i < count; i++) {
            random_node(&rng, &nodes[i], (uint16_t)(100 + i * 7));
            palette_dress(few_masks ? &palette : NULL, &nodes[i].n, &rng);
            set_land(&rng, &nodes[i].n.tags);
            nodes[i].n.load_ns++;
            nodes[i].n.room = (uint16_t)(rng_below(&rng, 3) != 0 ? rng_below(&rng, 6) : 40);
            plain[i] = nodes[i].n;
        }
        ck_assert_int_eq(route_table_create(&table, plain, count, plain[self].id, 1, false), 0);
        unsigned burst = 1 + rng_below(&rng, ROUTE_LOOKS_MAX);
        struct route_query same = random_query(&rng);
        for (unsigned k = 0; k < burst; k++) {
            looks[k].query = rng_below(&rng, 2) != 0 ? same : random_query(&rng);
            if (few_masks) {
                looks[k].query.tags = random_tags(&rng, &palette);
            }
            ask_land(&rng, &looks[k].query.tags);
            looks[k].query.lot = (uint32_t)rng_next(&rng);
        }
        route_look(table, loads, &scratch, looks, burst);
        for (unsigned k = 0; k < burst; k++) {
            struct route_choice got;
            struct oracle_answer want = oracle(nodes, count, self, &looks[k].query);
            route_choose_looked(table, loads, &scratch, &looks[k], &got);
            ck_assert_int_eq(id_or_none(table, got.node), want.node);
            ck_assert_int_eq(id_or_none(table, got.alternates[0]), want.alt1);
            ck_assert_int_eq(id_or_none(table, got.alternates[1]), want.alt2);
            if (got.node != ROUTE_INDEX_NONE) {
                const struct route_node *node = &table->nodes[got.node];
                uint32_t assigned = loads[node->id].assigned;
                route_load_assign(&loads[node->id], node);
                ck_assert_uint_eq(loads[node->id].assigned, assigned + 1);
            }
        }
        route_table_destroy(table);
    }
    scan_isa_use(before);
}
END_TEST

/* ---- by hand ---- */

static struct route_node city(uint16_t id, double lat, double lon, uint8_t tier)
{
    return (struct route_node){
        .id = id,
        .tier = tier,
        .alive = true,
        .reachable = true,
        .x = weft_cell_x(lon),
        .y = weft_cell_y(lat),
        .addr = addr_of_v4(id),
        .at = geo_point_at(lat, lon),
        .load_ns = 1,
        .room = 1,
        .free_vram_64mib = 128,
        .prefill_per_second = 1000,
        .decode_per_second = 100,
        .model_count = 1,
        .models = {MODEL_A},
    };
}

static struct route_query any_query(void)
{
    return (struct route_query){
        .model = MODEL_A,
        .budget_us = WEFT_BUDGET_NONE,
        .prompt_bytes = 100,
        .tier_max = WEFT_TIER_MAX,
        .has_position = true,
        .x = weft_cell_x(8.0),
        .y = weft_cell_y(50.0),
    };
}

static void three_cities(struct route_node nodes[3])
{
    nodes[0] = city(1, 35.68, 139.69, 1);
    nodes[1] = city(2, 50.11, 8.68, 3);
    nodes[2] = city(3, 40.71, -74.01, 5);
    for (int i = 0; i < 3; i++) {
        loads[nodes[i].id] = (struct route_load){0};
    }
}

static struct route_choice choose(struct route_node *nodes, uint32_t count,
                                  const struct route_query *q, bool abstract)
{
    struct route_table *table;
    struct route_choice choice;
    ck_assert_int_eq(route_table_create(&table, nodes, count, nodes[0].id, 1, abstract), 0);
    route_choose(table, loads, &scratch, q, &choice);
    choice.node = (uint16_t)id_or_none(table, choice.node);
    route_table_destroy(table);
    return choice;
}

START_TEST(refusals_name_the_binding_constraint)
{
    struct route_node nodes[3];
    three_cities(nodes);
    struct route_query q = any_query();
    q.model = 77;
    struct route_choice c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_MODEL);
    ck_assert_int_eq(route_refusal_status(&c), WEFT_E_UNKNOWN_MODEL);

    q = any_query();
    q.tier_min = 6;
    q.tier_max = 7;
    c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_TIER);
    ck_assert_uint_eq(c.best, 5);
    ck_assert_uint_eq(c.candidates, 3);
    ck_assert_int_eq(route_refusal_status(&c), WEFT_E_NO_CAPABLE_NODE);

    q = any_query();
    q.radius_km = 10;
    c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_RADIUS);
    ck_assert_uint_ge(c.best, 49);
    ck_assert_uint_le(c.best, 52);
    q.radius_km = (uint16_t)c.best; /* the figure named must really do */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);

    q = any_query();
    q.vram_64mib = 129;
    c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_VRAM);
    ck_assert_uint_eq(c.best, 128);

    q = any_query();
    q.budget_us = 20000;
    c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_BUDGET);
    ck_assert_uint_eq(c.best, 26000);
    ck_assert_uint_eq(c.retry_after_us, 0); /* no queue: waiting is of no use */
    q.budget_us = 26000;                    /* just enough is enough */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    nodes[1].queue_us = 9000;
    q.budget_us = 30000;
    c = choose(&nodes[1], 1, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_BUDGET);
    ck_assert_uint_eq(c.retry_after_us, 9000);
    nodes[1].queue_us = 0;
    ck_assert_int_eq(route_refusal_status(&c), WEFT_E_BUDGET_INFEASIBLE);

    q = any_query();
    for (int i = 0; i < 3; i++) {
        nodes[i].room = 0;
        nodes[i].queue_us = 5000u + (uint32_t)i;
    }
    c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_ROOM);
    ck_assert_uint_eq(c.retry_after_us, 5000);
    ck_assert_int_eq(route_refusal_status(&c), WEFT_E_MESH_FULL);
}
END_TEST

/* Only nodes that say they are there; the tags come before it, all else after it. */
START_TEST(a_jurisdiction_is_kept_to)
{
    struct route_node nodes[3];
    three_cities(nodes);
    nodes[1].tags = 1 | weft_jurisdiction_mask("DE");
    nodes[2].tags = 3 | weft_jurisdiction_mask("US");
    struct route_query q = any_query();
    q.tags = weft_jurisdiction_mask("US");
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 3);
    q.has_position = false; /* what rows are for */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 3);
    q.tags = weft_jurisdiction_mask("DE");
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    ck_assert_uint_eq(choose(nodes, 2, &q, false).node, 2);
    struct route_choice c = choose(nodes, 1, &q, false); /* that one says nothing */
    ck_assert_uint_eq(c.constraint, WEFT_C_JURISDICTION);
    ck_assert_uint_eq(c.candidates, 1);
    ck_assert_uint_eq(c.retry_after_us, 0);
    ck_assert_int_eq(route_refusal_status(&c), WEFT_E_NO_CAPABLE_NODE);
    q.tags |= 2;
    c = choose(nodes, 3, &q, false); /* one has the tag, and is elsewhere */
    ck_assert_uint_eq(c.constraint, WEFT_C_JURISDICTION);
    q.tags |= 4;
    ck_assert_uint_eq(choose(nodes, 3, &q, false).constraint, WEFT_C_TAGS);
    q.tags = weft_jurisdiction_mask("DE");
    q.tier_min = 4;
    c = choose(nodes, 3, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_TIER);
    ck_assert_uint_eq(c.best, 3); /* not that of New York, which is no candidate */
}
END_TEST

START_TEST(the_far_side_of_the_ring_is_far)
{
    struct route_node nodes[3];
    three_cities(nodes);
    struct route_query q = any_query();
    struct route_table *table;
    ck_assert_int_eq(route_table_create(&table, nodes, 3, 1, 1, false), 0);
    q.x = 0;
    q.y = 0;
    struct route_node at = nodes[0];
    at.x = 32768;
    at.y = 0;
    at.tier = 0;
    ck_assert_uint_eq(route_distance(table, &q, &at), 32768);
    at.x = 65535;
    ck_assert_uint_eq(route_distance(table, &q, &at), 1);
    at.x = 0;
    at.y = 32767; /* the other pole: no short cut */
    ck_assert_uint_eq(route_distance(table, &q, &at), 32767);
    at.y = 0;
    at.tier = 7;
    ck_assert_uint_eq(route_distance(table, &q, &at), 7 * 1638);
    route_table_destroy(table);
    ck_assert_int_eq(route_table_create(&table, nodes, 3, 1, 1, true), 0);
    ck_assert_uint_eq(route_distance(table, &q, &at), 1638); /* plain torus: tier wraps */
    route_table_destroy(table);
}
END_TEST

START_TEST(near_wins_unless_clearly_slower)
{
    struct route_node nodes[3];
    three_cities(nodes);
    struct route_query q = any_query();
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    nodes[1].queue_us = 15000; /* 41 ms against 26 ms: within the slack */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    nodes[1].queue_us = 23000; /* 1.5 times 26 ms and 10 ms: the limit */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    nodes[1].queue_us = 23001;
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 3); /* New York is next by distance */
    nodes[0].queue_us = 900000, nodes[1].queue_us = 196501;
    nodes[2].queue_us = 144000; /* 170 ms in all: a quarter of it and 10 ms are the limit */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 3);
    nodes[1].queue_us = 196500;
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    nodes[2].alive = nodes[1].alive = false;
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 1);
}
END_TEST

START_TEST(near_equals_share_the_load)
{
    struct route_node nodes[4];
    unsigned got[5] = {0};
    struct route_query q = any_query();
    for (uint16_t i = 0; i < 4; i++) { /* four machines in one place */
        nodes[i] = city((uint16_t)(i + 1), 50.11, 8.68, 3);
        loads[i + 1] = (struct route_load){0};
    }
    struct rng rng = {.state = 1};
    for (int i = 0; i < 4000; i++) {
        q.lot = (uint32_t)rng_next(&rng);
        got[choose(nodes, 4, &q, false).node]++;
    }
    for (int id = 1; id <= 4; id++) {
        ck_assert_uint_ge(got[id], 850);
        ck_assert_uint_le(got[id], 1150);
    }
    /* Predictions equal: the one that was sent more is never the better of two. */
    for (int id = 1; id <= 4; id++) {
        loads[id] = (struct route_load){.heard_ns = 2, .room = 9, .assigned = id == 2};
    }
    memset(got, 0, sizeof(got));
    for (int i = 0; i < 1000; i++) {
        q.lot = (uint32_t)rng_next(&rng);
        got[choose(nodes, 4, &q, false).node]++;
    }
    ck_assert_uint_eq(got[2], 0);
    memset(loads, 0, 5 * sizeof(loads[0]));
    /* The slowest of the four is never the better of two. */
    nodes[2].queue_us = 5000;
    memset(got, 0, sizeof(got));
    for (int i = 0; i < 4000; i++) {
        q.lot = (uint32_t)rng_next(&rng);
        got[choose(nodes, 4, &q, false).node]++;
    }
    ck_assert_uint_eq(got[3], 0);
    ck_assert_uint_ge(got[1], 1100);
}
END_TEST

/* Machines of one site, more than a choice looks at, few enough for a scan or too many for one: the
 * load of each is even, none starves. */
START_TEST(large_sites_share_the_load)
{
    static struct route_node nodes[300];
    const unsigned sizes[] = {9, 13, 16, 100, 128, 129, 200, 300};
    struct rng rng = {.state = 5};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        unsigned count = sizes[k];
        unsigned got[300] = {0};
        struct route_table *table;
        memset(loads, 0, sizeof(loads));
        for (unsigned i = 0; i < count; i++) {
            nodes[i] = (struct route_node){.id = (uint16_t)(i + 1),
                                           .addr = addr_of_v4(i + 1),
                                           .alive = true,
                                           .reachable = true,
                                           .room = 1,
                                           .model_count = 1,
                                           .models = {MODEL_A}};
        }
        ck_assert_int_eq(route_table_create(&table, nodes, count, 1, 1, false), 0);
        for (unsigned i = 0; i < 1000 * count; i++) {
            struct route_query q = {.model = MODEL_A,
                                    .budget_us = WEFT_BUDGET_NONE,
                                    .tier_max = WEFT_TIER_MAX,
                                    .lot = (uint32_t)rng_next(&rng)};
            struct route_choice choice;
            route_choose(table, loads, &scratch, &q, &choice);
            got[choice.node]++;
        }
        for (unsigned i = 0; i < count; i++) {
            ck_assert_msg(got[i] > 600 && got[i] < 1600, "%u of a site of %u: %u, fair is 1000", i,
                          count, got[i]);
        }
        route_table_destroy(table);
    }
}
END_TEST

START_TEST(rows_know_when_there_are_no_others)
{
    static struct route_node nodes[138];
    const uint32_t count = sizeof(nodes) / sizeof(nodes[0]);
    struct route_query q = any_query();
    q.has_position = false;
    q.tier_min = 7;
    for (uint16_t i = 0; i < count; i++) {
        nodes[i] = city((uint16_t)(i + 1), 50.0 - i * 0.1, 8.0, i % 50 == 49 ? 7 : 1);
        loads[i + 1] = (struct route_load){0};
    }
    struct route_choice c = choose(nodes, count, &q, false);
    ck_assert_uint_eq(c.node, 50); /* 100 is the other one */
    nodes[49].room = 0;
    ck_assert_uint_eq(choose(nodes, count, &q, false).node, 100);
    nodes[99].room = 0;
    c = choose(nodes, count, &q, false);
    ck_assert_uint_eq(c.constraint, WEFT_C_ROOM);
    ck_assert_uint_eq(c.candidates, 2);
    /* All of a row full: those behind it are found all the same. */
    q.tier_min = 0;
    for (uint16_t i = 0; i < 20; i++) {
        nodes[i].room = 0;
    }
    ck_assert_uint_eq(choose(nodes, count, &q, false).node, 21);
}
END_TEST

START_TEST(room_is_counted_down_by_what_was_sent)
{
    struct route_node nodes[3];
    three_cities(nodes);
    struct route_query q = any_query();
    loads[2] = (struct route_load){.heard_ns = 2, .room = 2, .free_vram_64mib = 1, .assigned = 1};
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    loads[2].assigned = 2;
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 3);
    loads[2] = (struct route_load){0}; /* nothing heard is not "full" */
    nodes[1].load_ns = 0;
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    loads[2] = (struct route_load){.heard_ns = 2, .room = 0};
    nodes[1].load_ns = 3; /* a later beacon knows better than the overlay */
    ck_assert_uint_eq(choose(nodes, 3, &q, false).node, 2);
    loads[2] = (struct route_load){0};
}
END_TEST

/* A copy answers as the table does, when that is gone. */
START_TEST(copies_stand_alone)
{
    struct rng rng = {.state = 31};
    struct oracle_node nodes[NODES_MAX];
    struct route_node plain[NODES_MAX];
    const unsigned count = 200;
    for (unsigned i = 0; i < count; i++) {
        random_node(&rng, &nodes[i], (uint16_t)(100 + i * 7));
        set_land(&rng, &nodes[i].n.tags);
        nodes[i].n.addr = i % 2 == 0 ? addr_of_v4(i + 1) : nodes[i].n.addr;
        if (i % 2 != 0) {
            memset(&nodes[i].n.addr, 0x20, sizeof(nodes[i].n.addr));
            nodes[i].n.addr.s6_addr[15] = (uint8_t)i;
        }
        plain[i] = nodes[i].n;
    }
    struct route_table *table;
    ck_assert_int_eq(route_table_create(&table, plain, count, plain[3].id, 1, false), 0);
    void *memory = aligned_alloc(64, table->size_bytes);
    struct route_table *copy = route_table_copy(table, memory);
    memset(table, 0x5a, table->size_bytes);
    route_table_destroy(table);
    for (unsigned i = 0; i < count; i++) {
        uint16_t index = route_table_find(copy, plain[i].id);
        ck_assert_uint_eq(copy->nodes[index].id, plain[i].id);
        ck_assert_uint_eq(route_table_find_addr(copy, &plain[i].addr), index);
    }
    for (int k = 0; k < 2000; k++) {
        struct route_query q = random_query(&rng);
        struct route_choice got;
        q.has_position = k % 2 == 0;
        ask_land(&rng, &q.tags);
        struct oracle_answer want = oracle(nodes, count, 3, &q);
        route_choose(copy, loads, &scratch, &q, &got);
        ck_assert_int_eq(id_or_none(copy, got.node), want.node);
    }
    free(memory);
}
END_TEST

START_TEST(tables_refuse_nonsense)
{
    struct route_node nodes[3];
    struct route_table *table;
    three_cities(nodes);
    ck_assert_int_eq(route_table_create(&table, nodes, 0, 1, 1, false), -EINVAL);
    ck_assert_int_eq(route_table_create(&table, nodes, 3, 9, 1, false), -EINVAL);
    nodes[1].id = 1;
    ck_assert_int_eq(route_table_create(&table, nodes, 3, 1, 1, false), -EINVAL);
    nodes[1].id = 2;
    nodes[1].addr = addr_of_v4(3);
    ck_assert_int_eq(route_table_create(&table, nodes, 3, 1, 1, false), -EINVAL);
    ck_assert_ptr_null(table);
    route_table_destroy(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("choose");
    TCase *tc = tcase_create("choose");
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, choice_equals_brute_force, 0, SCAN_ISAS);
    tcase_add_loop_test(tc, bursts_equal_one_after_the_other, 0, SCAN_ISAS);
    tcase_add_test(tc, refusals_name_the_binding_constraint);
    tcase_add_test(tc, a_jurisdiction_is_kept_to);
    tcase_add_test(tc, the_far_side_of_the_ring_is_far);
    tcase_add_test(tc, near_wins_unless_clearly_slower);
    tcase_add_test(tc, near_equals_share_the_load);
    tcase_add_test(tc, large_sites_share_the_load);
    tcase_add_test(tc, rows_know_when_there_are_no_others);
    tcase_add_test(tc, room_is_counted_down_by_what_was_sent);
    tcase_add_test(tc, copies_stand_alone);
    tcase_add_test(tc, tables_refuse_nonsense);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
