/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that go on elsewhere: the choice among nodes that compute with the same weights in the
 * same way is the choice in a mesh where the others are dead; without such a node it is as if
 * nobody had asked for them. test_choose.c has what a choice is. */
#include <check.h>
#include <string.h>

#include "dataplane/route/choose.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define MODEL  0x77u
#define NODES  24u
#define ROUNDS 4000u

static struct route_load loads[65536];
static struct scan scratch;

/* No two at the same distance: the order of equals depends on who else is there. */
static void random_nodes(struct rng *rng, struct route_node *nodes)
{
    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i] = (struct route_node){
            .id = (uint16_t)(100 + i),
            .alive = true,
            .reachable = true,
            .x = (uint16_t)rng_below(rng, 65536),
            .y = (uint16_t)rng_below(rng, 32768),
            .addr = addr_of_v4(100 + i),
            .room = (uint16_t)rng_below(rng, 3),
            .rtt_us = rng_below(rng, 100000),
            .queue_us = rng_below(rng, 50000),
            .prefill_per_second = 1 + rng_below(rng, 3000),
            .decode_per_second = 1 + rng_below(rng, 200),
            .model_count = 2,
            .models = {MODEL + 1, MODEL},
        };
        nodes[i].arithmetics[0] = 1 + rng_below(rng, 4);
        nodes[i].arithmetics[1] = rng_below(rng, 5);
    }
}

static struct route_choice choose(const struct route_node *nodes, const struct route_query *query,
                                  uint16_t *id)
{
    struct route_table *table;
    struct route_choice choice;
    ck_assert_int_eq(route_table_create(&table, nodes, NODES, 100, 1, false), 0);
    memset(loads, 0, sizeof(loads));
    route_choose(table, loads, &scratch, query, &choice);
    *id = choice.node == ROUTE_INDEX_NONE ? WEFT_NODE_NONE : table->nodes[choice.node].id;
    route_table_destroy(table);
    return choice;
}

static uint16_t chosen(const struct route_node *nodes, const struct route_query *query)
{
    uint16_t id;
    (void)choose(nodes, query, &id);
    return id;
}

static struct route_query random_query(struct rng *rng)
{
    struct route_query q = {
        .model = MODEL,
        .budget_us = WEFT_BUDGET_NONE,
        .prompt_bytes = 1 + rng_below(rng, 2000),
        .max_tokens = 10,
        .lot = (uint32_t)rng_next(rng),
        .tier_max = WEFT_TIER_MAX,
        .avoid_count = (uint16_t)(1 + rng_below(rng, WEFT_AVOID_MAX)),
        .arithmetic = 1 + rng_below(rng, 6), /* some are nobody's */
        .end_to_end = rng_below(rng, 2) != 0,
    };
    for (uint32_t i = 0; i < q.avoid_count; i++) {
        q.avoid[i] = (uint16_t)(100 + rng_below(rng, NODES));
    }
    return q;
}

START_TEST(the_same_arithmetic_goes_first)
{
    struct rng rng = {.state = 71};
    struct route_node nodes[NODES];
    struct route_node same[NODES];
    uint32_t found = 0;
    uint32_t nobody = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        random_nodes(&rng, nodes);
        struct route_query query = random_query(&rng);
        memcpy(same, nodes, sizeof(same));
        for (uint32_t i = 0; i < NODES; i++) {
            bool avoided = false;
            for (uint32_t j = 0; j < query.avoid_count; j++) {
                avoided = avoided || query.avoid[j] == nodes[i].id;
            }
            same[i].alive = nodes[i].arithmetics[1] == query.arithmetic && !avoided;
        }
        struct route_query any = query;
        any.arithmetic = 0;
        uint16_t best = chosen(same, &any);
        found += best != WEFT_NODE_NONE;
        nobody += best == WEFT_NODE_NONE;
        ck_assert_uint_eq(chosen(nodes, &query),
                          best != WEFT_NODE_NONE ? best : chosen(nodes, &any));
    }
    ck_assert_uint_gt(found, ROUNDS / 4);
    ck_assert_uint_gt(nobody, ROUNDS / 10);
}
END_TEST

/* A request that has failed nowhere is nobody's answer yet. */
START_TEST(alone_it_means_nothing)
{
    struct rng rng = {.state = 72};
    struct route_node nodes[NODES];
    for (uint32_t round = 0; round < ROUNDS / 10; round++) {
        random_nodes(&rng, nodes);
        struct route_query query = random_query(&rng);
        query.avoid_count = 0;
        struct route_query any = query;
        any.arithmetic = 0;
        ck_assert_uint_eq(chosen(nodes, &query), chosen(nodes, &any));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("route_arithmetic");
    TCase *tc = tcase_create("arithmetic");
    tcase_add_test(tc, the_same_arithmetic_goes_first);
    tcase_add_test(tc, alone_it_means_nothing);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
