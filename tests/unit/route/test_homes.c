/* SPDX-License-Identifier: Apache-2.0 */
/* test_homes.c - sessions and their nodes: route_prefer_home() against a brute-force opinion on
 * random tables, and homes.c over the turns of a session. The choice without a session is
 * test_choose.c's matter. */
#include "dataplane/route/homes.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define MODEL_A   1000u
#define TABLES    100000
#define NODES_MAX 24u
#define SESSION   UINT32_C(0xfeed5e55)
#define SECOND    UINT64_C(1000000000)

static struct route_load loads[65536];
static struct scan scratch;
static struct homes homes;

static double slowest_us(double best)
{
    return floor(best + fmax(fmin(floor(best / 2), 25000), floor(best / 4))) + 10000;
}

/* ---- the other opinion: no shared code ---- */

/* Nanoseconds per token: the model's, else the node's. */
static double pace(uint32_t own_ns, uint32_t node_per_second)
{
    return own_ns != 0 ? own_ns : floor(1e9 / node_per_second);
}

static double predicted(const struct route_query *q, const struct route_node *n, double bytes,
                        double queue)
{
    uint32_t m = n->model_count == 2 && n->models[1] == q->model;
    double work_ns = (floor(bytes / 4) + 1) * pace(n->paces[m].prefill_ns, n->prefill_per_second);
    work_ns +=
        q->end_to_end ? q->max_tokens * pace(n->paces[m].decode_ns, n->decode_per_second) : 0;
    return n->rtt_us + queue + floor(work_ns / 1000);
}

static bool serves(const struct route_query *q, const struct route_node *n)
{
    bool has_model = false, avoided = false;
    for (uint32_t m = 0; m < n->model_count; m++) {
        has_model = has_model || n->models[m] == q->model;
    }
    for (uint32_t i = 0; i < q->avoid_count; i++) {
        avoided = avoided || q->avoid[i] == n->id;
    }
    return has_model && !avoided && n->alive && !n->suspect && !n->leaving &&
           (q->tags & ~n->tags) == 0 && n->tier >= q->tier_min && n->tier <= q->tier_max;
}

static bool wanted(const struct route_query *q, const struct route_node *n, uint32_t known,
                   double other_us)
{
    const struct route_load *over = &loads[n->id];
    bool fresher = over->heard_ns != 0 && over->heard_ns >= n->load_ns;
    uint32_t room = fresher ? over->room : n->room;
    uint32_t assigned = fresher ? over->assigned : 0;
    uint32_t vram = fresher ? over->free_vram_64mib : n->free_vram_64mib;
    double queue = fresher ? over->queue_us : n->queue_us;
    double rest = n->keeps_prompts ? fmax(0, (double)q->prompt_bytes - known) : q->prompt_bytes;
    return serves(q, n) && room > assigned && vram >= q->vram_64mib &&
           predicted(q, n, q->prompt_bytes, queue) <= q->budget_us &&
           predicted(q, n, rest, queue) <= slowest_us(other_us);
}

/* ---- random input ---- */

static struct route_node random_node(struct rng *rng, uint16_t id)
{
    const uint32_t model = rng_below(rng, 4) == 0;
    loads[id] = (struct route_load){
        .heard_ns = rng_below(rng, 100),
        .queue_us = rng_below(rng, 100000),
        .room = (uint16_t)rng_below(rng, 5),
        .free_vram_64mib = (uint16_t)rng_below(rng, 300),
        .assigned = rng_below(rng, 4),
    };
    return (struct route_node){
        .id = id,
        .tier = (uint8_t)rng_below(rng, 8),
        .alive = rng_below(rng, 8) != 0,
        .suspect = rng_below(rng, 8) == 0,
        .leaving = rng_below(rng, 8) == 0,
        .reachable = true,
        .x = (uint16_t)rng_below(rng, 65536),
        .y = (uint16_t)rng_below(rng, 32768),
        .addr = addr_of_v4(id),
        .tags = rng_below(rng, 4),
        .load_ns = rng_below(rng, 100),
        .queue_us = rng_below(rng, 3) != 0 ? 0 : rng_below(rng, 100000),
        .room = (uint16_t)rng_below(rng, 4),
        .free_vram_64mib = (uint16_t)rng_below(rng, 300),
        .rtt_us = rng_below(rng, 60000),
        .prefill_per_second = 1 + rng_below(rng, 20000),
        .decode_per_second = 1 + rng_below(rng, 200),
        .keeps_prompts = rng_below(rng, 2) != 0,
        .model_count = 1 + rng_below(rng, 2),
        .models = {MODEL_A + model, MODEL_A + 1 - model},
        .paces = {{rng_below(rng, 2) * route_pace_ns(1 + rng_below(rng, 20000)), 0},
                  {route_pace_ns(1 + rng_below(rng, 20000)),
                   route_pace_ns(1 + rng_below(rng, 99))}},
    };
}

static struct route_query random_query(struct rng *rng)
{
    struct route_query q = {
        .model = MODEL_A + (rng_below(rng, 4) == 0),
        .tags = rng_below(rng, 2) != 0 ? rng_below(rng, 4) : 0,
        .budget_us = rng_below(rng, 3) != 0 ? WEFT_BUDGET_NONE : rng_below(rng, 1000000),
        .prompt_bytes = rng_below(rng, 8000),
        .max_tokens = (uint16_t)rng_below(rng, 100),
        .vram_64mib = rng_below(rng, 4) == 0 ? (uint16_t)rng_below(rng, 300) : 0,
        .x = (uint16_t)rng_below(rng, 65536),
        .y = (uint16_t)rng_below(rng, 32768),
        .has_position = rng_below(rng, 2) != 0,
        .lot = (uint32_t)rng_next(rng),
        .tier_min = rng_below(rng, 3) == 0 ? (uint8_t)rng_below(rng, 4) : 0,
        .tier_max = WEFT_TIER_MAX,
        .end_to_end = rng_below(rng, 4) == 0,
    };
    if (rng_below(rng, 4) == 0) {
        q.avoid_count = 2;
        q.avoid[0] = (uint16_t)(100 + rng_below(rng, NODES_MAX));
        q.avoid[1] = (uint16_t)(100 + rng_below(rng, NODES_MAX));
    }
    return q;
}

static uint16_t id_at(const struct route_table *t, uint16_t index)
{
    return index == ROUTE_INDEX_NONE ? 0 : t->nodes[index].id;
}

START_TEST(preference_equals_brute_force)
{
    struct rng rng = {.state = 99};
    uint32_t moved = 0, kept = 0;
    for (int t = 0; t < TABLES; t++) {
        struct route_node nodes[NODES_MAX];
        uint32_t count = 2 + rng_below(&rng, NODES_MAX - 1);
        for (uint32_t i = 0; i < count; i++) {
            nodes[i] = random_node(&rng, (uint16_t)(100 + i));
        }
        struct route_table *table;
        ck_assert_int_eq(route_table_create(&table, nodes, count, 100, 1, false), 0);
        struct route_query q = random_query(&rng);
        uint16_t home = (uint16_t)rng_below(&rng, count);
        uint32_t known = rng_below(&rng, 2) != 0 ? rng_below(&rng, 8000) : 0;
        struct route_choice was, is;
        route_choose(table, loads, &scratch, &q, &was);
        is = was;
        bool got = route_prefer_home(table, loads, &q, home, known, &is);
        bool any = was.node != ROUTE_INDEX_NONE;
        bool want =
            any && (was.node == home || wanted(&q, &nodes[home], known, (double)was.predicted_us));
        ck_assert_msg(got == want, "table %d: %d, wanted %d", t, got, want);
        if (!want || was.node == home) {
            ck_assert_mem_eq(&is, &was, sizeof(is));
            kept++;
        } else {
            uint16_t left = was.alternates[was.alternates[0] == home ? 1 : 0];
            ck_assert_uint_eq(is.node, home);
            ck_assert_uint_eq(is.alternates[0], was.node);
            ck_assert_uint_eq(id_at(table, is.alternates[1]), id_at(table, left));
            ck_assert_uint_ne(is.alternates[1], home);
            moved++;
        }
        route_table_destroy(table);
    }
    ck_assert_uint_gt(moved, TABLES / 50);
    ck_assert_uint_gt(kept, TABLES / 2);
}
END_TEST

/* ---- turns of a session ---- */

static struct route_table *two_cities(uint16_t room, uint32_t queue_us, bool keeps)
{
    const double lon[2] = {8.68, -74.01};
    struct route_node nodes[2];
    struct route_table *table;
    for (uint16_t i = 0; i < 2; i++) {
        nodes[i] = (struct route_node){
            .id = (uint16_t)(i + 1),
            .alive = true,
            .reachable = true,
            .x = weft_cell_x(lon[i]),
            .y = weft_cell_y(45.0),
            .addr = addr_of_v4(i + 1u),
            .load_ns = 1,
            .room = i == 0 ? room : 9,
            .queue_us = i == 0 ? queue_us : 0,
            .rtt_us = 1000,
            .prefill_per_second = 1000,
            .decode_per_second = 100,
            .keeps_prompts = keeps,
            .model_count = 1,
            .models = {MODEL_A},
        };
    }
    memset(loads, 0, 3 * sizeof(loads[0]));
    ck_assert_int_eq(route_table_create(&table, nodes, 2, 1, 1, false), 0);
    return table;
}

/* Who gets the next turn, asked from one of the two cities. */
static uint16_t turn(const struct route_table *table, uint32_t session, unsigned city,
                     uint32_t bytes, uint64_t now_ns)
{
    struct route_query q = {
        .model = MODEL_A,
        .budget_us = WEFT_BUDGET_NONE,
        .prompt_bytes = bytes,
        .tier_max = WEFT_TIER_MAX,
        .has_position = true,
        .x = table->nodes[city].x,
        .y = table->nodes[city].y,
    };
    struct route_choice choice;
    route_choose(table, loads, &scratch, &q, &choice);
    if (session != 0 && choice.node != ROUTE_INDEX_NONE) {
        homes_steer(&homes, table, loads, &q, session, now_ns, &choice);
    }
    return id_at(table, choice.node);
}

START_TEST(a_session_stays_while_there_is_room)
{
    memset(&homes, 0, sizeof(homes));
    struct route_table *table = two_cities(9, 0, false);
    for (unsigned i = 0; i < 10; i++) {
        ck_assert_uint_eq(turn(table, SESSION, i % 2, 400, SECOND), 1);
        ck_assert_uint_eq(turn(table, 0, i % 2, 400, SECOND), 1 + i % 2);
        ck_assert_uint_eq(turn(table, SESSION + 1, 1, 400, SECOND), 2); /* another one's own */
    }
    route_table_destroy(table);
    table = two_cities(0, 0, false); /* full: it moves, and stays there */
    ck_assert_uint_eq(turn(table, SESSION, 0, 400, SECOND), 2);
    route_table_destroy(table);
    table = two_cities(9, 0, false);
    ck_assert_uint_eq(turn(table, SESSION, 0, 400, SECOND), 2);
    /* Long ago is as good as never. */
    ck_assert_uint_eq(turn(table, SESSION, 0, 400, 2 * SECOND + HOME_LIFE_NS), 1);
    /* Another one has taken it after all. */
    homes_correct(&homes, SESSION, 2);
    ck_assert_uint_eq(turn(table, SESSION, 0, 400, 3 * SECOND + HOME_LIFE_NS), 2);
    homes_correct(&homes, SESSION + HOMES, 1); /* another session of the same place */
    ck_assert_uint_eq(turn(table, SESSION, 0, 400, 3 * SECOND + HOME_LIFE_NS), 2);
    route_table_destroy(table);
}
END_TEST

/* A wait of 60 ms against a prefill of 100: worth it only for who has most of the prompt. */
START_TEST(what_a_node_knows_counts_if_it_says_so)
{
    for (int keeps = 0; keeps < 2; keeps++) {
        memset(&homes, 0, sizeof(homes));
        struct route_table *table = two_cities(9, 0, keeps != 0);
        ck_assert_uint_eq(turn(table, SESSION, 0, 380, SECOND), 1);
        route_table_destroy(table);
        table = two_cities(9, 60000, keeps != 0);
        ck_assert_uint_eq(turn(table, SESSION, 1, 400, SECOND), keeps ? 1 : 2);
        route_table_destroy(table);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("homes");
    TCase *tc = tcase_create("homes");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, preference_equals_brute_force);
    tcase_add_test(tc, a_session_stays_while_there_is_room);
    tcase_add_test(tc, what_a_node_knows_counts_if_it_says_so);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
