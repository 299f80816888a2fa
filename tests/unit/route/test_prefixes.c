/* SPDX-License-Identifier: Apache-2.0 */
/* test_prefixes.c - prefixes.c against lists and a brute-force opinion on random tables, and what
 * the stages make of it: requests that begin alike come together, as long as that pays. */
#include "dataplane/route/prefixes.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define ROUNDS    300
#define TABLES    30000
#define NODES_MAX 12u
#define NOW       UINT64_C(1000000000000)

static struct prefixes known;
static struct route_load loads[65536];
static struct scan scratch;

/* One of few beginnings, so that many have something in common. */
static uint64_t random_prefix(struct rng *rng)
{
    static uint8_t text[140000];
    uint32_t size = 600u << rng_below(rng, 8);
    size = size < sizeof(text) ? size : sizeof(text);
    memset(text, 0, size);
    for (uint32_t at = 0; at < size; at = at == 0 ? 511 : 2 * at) {
        text[at] = (uint8_t)rng_below(rng, 2);
    }
    return prefix_of(MODEL_A, text, size);
}

/* ---- who has what ---- */

struct entry {
    uint64_t prefix;
    uint16_t node;
};

static uint32_t most_at(const struct entry *list, uint32_t count, uint64_t prefix, uint16_t node)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t common = list[i].node == node ? prefix_common(list[i].prefix, prefix) : 0;
        most = common > most ? common : most;
    }
    return most;
}

START_TEST(finds_what_was_learned)
{
    struct rng rng = {.state = suite_seed(5)};
    for (int round = 0; round < ROUNDS; round++) {
        struct entry list[60];
        uint32_t count = 1 + rng_below(&rng, 60);
        memset(&known, 0, sizeof(known));
        for (uint32_t i = 0; i < count; i++) {
            list[i] = (struct entry){random_prefix(&rng), (uint16_t)(1 + rng_below(&rng, 8))};
            prefixes_learn(&known, list[i].prefix, list[i].node, NOW + i);
        }
        for (int i = 0; i < 20; i++) {
            uint64_t prefix = random_prefix(&rng);
            struct prefix_holder holders[PREFIXES_HOLDERS];
            uint32_t found = prefixes_find(&known, prefix, NOW + 100, holders);
            uint32_t wanted = 0;
            for (uint16_t node = 1; node <= 8; node++) {
                wanted += most_at(list, count, prefix, node) != 0;
            }
            ck_assert_uint_eq(found, wanted);
            for (uint32_t n = 0; n < found; n++) {
                uint32_t most = most_at(list, count, prefix, holders[n].node);
                ck_assert_uint_eq(holders[n].levels, most);
                ck_assert(n == 0 || holders[n].levels <= holders[n - 1].levels);
            }
        }
    }
}
END_TEST

START_TEST(old_ones_make_room_and_end)
{
    struct prefix_holder holders[PREFIXES_HOLDERS];
    uint64_t prefix = prefix_of(MODEL_A, (uint8_t[600]){1}, 600);
    uint64_t later = NOW + PREFIXES_LIFE_NS;
    memset(&known, 0, sizeof(known));
    for (uint16_t node = 1; node <= PREFIXES_WAYS; node++) {
        prefixes_learn(&known, prefix, node, NOW + node * UINT64_C(3000000000));
    }
    prefixes_learn(&known, prefix, 1, NOW + UINT64_C(60000000000)); /* the oldest is 2 now */
    prefixes_learn(&known, prefix, 99, NOW + UINT64_C(61000000000));
    uint64_t then = NOW + UINT64_C(62000000000);
    ck_assert_uint_eq(prefixes_find(&known, prefix, then, holders), PREFIXES_HOLDERS);
    for (uint32_t i = 0; i < PREFIXES_HOLDERS; i++) {
        ck_assert_uint_ne(holders[i].node, 2);
    }
    /* All but two have ended. */
    ck_assert_uint_eq(prefixes_find(&known, prefix, later + UINT64_C(50000000000), holders), 2);
    ck_assert_uint_eq(prefixes_find(&known, prefix, later + UINT64_C(90000000000), holders), 0);
}
END_TEST

/* Whatever comes from outside is a prefix. */
START_TEST(any_word_will_do)
{
    struct rng rng = {.state = suite_seed(6)};
    struct prefix_holder holders[PREFIXES_HOLDERS];
    for (int i = 0; i < 300000; i++) {
        uint64_t word = rng_next(&rng) >> rng_below(&rng, 64);
        prefixes_learn(&known, word, (uint16_t)rng_next(&rng), NOW);
        ck_assert_uint_le(prefixes_find(&known, word, NOW, holders), PREFIXES_HOLDERS);
    }
}
END_TEST

/* ---- the choice: no shared code ---- */

/* Its first model is not the one that is asked for. */
static double pace(const struct route_node *n)
{
    return n->paces[1].prefill_ns != 0 ? n->paces[1].prefill_ns
                                       : floor(1e9 / n->prefill_per_second);
}

static double predicted(const struct route_node *n, double bytes)
{
    double work_ns = (floor(bytes / 4) + 1) * pace(n);
    return n->rtt_us + n->queue_us + floor(work_ns / 1000);
}

static bool can(const struct route_query *q, const struct route_node *n)
{
    return n->alive && !n->suspect && !n->leaving && (q->tags & ~n->tags) == 0 && n->room != 0 &&
           n->keeps_prompts && predicted(n, q->prompt_bytes) <= q->budget_us;
}

static double offered(const struct route_query *q, const struct route_node *n, uint32_t bytes)
{
    return predicted(n, fmax(0, (double)q->prompt_bytes - bytes));
}

static struct route_node random_node(struct rng *rng, uint16_t id)
{
    struct route_node node = fixture_node(id, 50.0, rng_below(rng, 40), 3);
    node.alive = rng_below(rng, 8) != 0;
    node.suspect = rng_below(rng, 8) == 0;
    node.leaving = rng_below(rng, 8) == 0;
    node.tags = rng_below(rng, 4);
    node.queue_us = rng_below(rng, 3) == 0 ? rng_below(rng, 3000000) : 0;
    node.room = (uint16_t)rng_below(rng, 4);
    node.rtt_us = rng_below(rng, 60000);
    node.prefill_per_second = 500 + rng_below(rng, 20000);
    node.keeps_prompts = rng_below(rng, 4) != 0;
    node.model_count = 2;
    node.models[0] = MODEL_A + 1;
    node.models[1] = MODEL_A;
    node.paces[0].prefill_ns = route_pace_ns(1 + rng_below(rng, 50000));
    node.paces[1].prefill_ns = rng_below(rng, 2) * route_pace_ns(500 + rng_below(rng, 20000));
    return node;
}

static void check_steer(struct rng *rng, const struct route_node *nodes, uint32_t count,
                        uint32_t *moved)
{
    struct entry list[20];
    struct route_table *table;
    uint64_t prefix = random_prefix(rng);
    struct route_query q = {
        .model = MODEL_A,
        .tags = rng_below(rng, 3) == 0,
        .budget_us = rng_below(rng, 3) != 0 ? WEFT_BUDGET_NONE : rng_below(rng, 3000000),
        .prompt_bytes = 500 + rng_below(rng, 60000),
        .tier_max = WEFT_TIER_MAX,
        .lot = (uint32_t)rng_next(rng),
    };
    memset(&known, 0, sizeof(known));
    memset(loads, 0, (count + 1) * sizeof(loads[0]));
    for (uint32_t i = 0; i < 20; i++) {
        list[i] = (struct entry){random_prefix(rng), (uint16_t)(1 + rng_below(rng, 8))};
        prefixes_learn(&known, list[i].prefix, list[i].node, NOW);
    }
    ck_assert_int_eq(route_table_create(&table, nodes, count, 1, 1, false), 0);
    struct route_choice was, is;
    route_choose(table, loads, &scratch, &q, &was);
    if (was.node != ROUTE_INDEX_NONE) {
        is = was;
        uint32_t bytes = prefixes_steer(&known, table, loads, &q, prefix, NOW, &is);
        double least = was.predicted_us;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t has = prefix_bytes(most_at(list, 20, prefix, nodes[i].id));
            least =
                has != 0 && can(&q, &nodes[i]) ? fmin(least, offered(&q, &nodes[i], has)) : least;
        }
        uint32_t most = 0;
        double us = was.predicted_us;
        for (uint32_t i = 0; i < count; i++) {
            uint32_t has = prefix_bytes(most_at(list, 20, prefix, nodes[i].id));
            has = has < q.prompt_bytes ? has : q.prompt_bytes;
            double at = offered(&q, &nodes[i], has);
            double saved = floor(floor(fmin(has, q.prompt_bytes) / 4) * pace(&nodes[i]) / 1000);
            bool good = has != 0 && can(&q, &nodes[i]) && at <= least + saved;
            if (good && (has > most || (has == most && at < us))) {
                most = has;
                us = at;
            }
        }
        ck_assert_uint_eq(bytes, most);
        ck_assert_uint_eq(is.predicted_us, (uint32_t)us);
        ck_assert(is.node == was.node || is.alternates[0] == was.node);
        *moved += is.node != was.node;
    }
    route_table_destroy(table);
}

START_TEST(choice_equals_brute_force)
{
    struct rng rng = {.state = suite_seed(7)};
    uint32_t moved = 0;
    for (int t = 0; t < TABLES; t++) {
        struct route_node nodes[NODES_MAX];
        uint32_t count = 2 + rng_below(&rng, NODES_MAX - 1);
        for (uint32_t i = 0; i < count; i++) {
            nodes[i] = random_node(&rng, (uint16_t)(1 + i));
        }
        check_steer(&rng, nodes, count, &moved);
    }
    ck_assert_uint_gt(moved, TABLES / 50);
}
END_TEST

/* ---- the stages ---- */

static struct route_core *core;
static struct route_table *table;
static uint64_t told_ns;

/* Frankfurt and New York wait so long; both keep prompts, and are as far. */
static void publish(uint32_t frankfurt_us, uint32_t new_york_us)
{
    struct route_node nodes[3] = {
        fixture_node(1, 35.68, 139.69, 1),
        fixture_node(2, 50.11, 8.68, 3),
        fixture_node(3, 40.71, -74.01, 5),
    };
    for (uint32_t i = 1; i < 3; i++) {
        nodes[i].keeps_prompts = true;
        nodes[i].room = 1000;
        nodes[i].load_ns = NOW + told_ns;
        nodes[i].queue_us = i == 1 ? frankfurt_us : new_york_us;
    }
    told_ns++; /* news */
    route_table_destroy(table);
    ck_assert_int_eq(route_table_create(&table, nodes, 3, 1, 7, false), 0);
}

/* Where a request of so many bytes with that beginning goes. */
static uint16_t ask(uint32_t seq, uint64_t prefix, uint32_t bytes)
{
    static struct route_frame frame;
    static struct route_packet packet;
    fixture_request(&packet, &frame, 1, 100);
    struct weft_req *req = &frame.weft.req;
    packet_set(&frame, &req->h.req_seq, &seq, sizeof(seq));
    packet_set(&frame, &req->h.msg_len, &bytes, sizeof(bytes));
    packet_set(&frame, &req->first.prefix, &prefix, sizeof(prefix));
    uint8_t flags = WEFT_F_FIRST;
    packet_set_u8(&frame, &req->h.flags, flags);
    fixture_cookie(core, &packet);
    run_stages(core, table, &packet, NOW);
    return packet.action == ROUTE_SEND && !packet.own ? frame.weft.req.h.target : 0;
}

/* 4,000 tokens take four seconds. */
START_TEST(alike_come_together)
{
    static uint8_t text[16384];
    uint64_t prefix = prefix_of(MODEL_A, text, sizeof(text));
    uint64_t other = prefix_of(MODEL_A + 1, text, sizeof(text));
    fixture_ip6_nodes = fixture_ip6_client = false;
    core = fixture_core(1);
    table = NULL;
    publish(3000000, 0);
    ck_assert_uint_eq(ask(1, prefix, sizeof(text)), 3);
    publish(0, 2000000); /* 8 KiB of it are two seconds: still worth waiting for */
    ck_assert_uint_eq(ask(2, prefix, sizeof(text)), 3);
    ck_assert_uint_eq(ask(3, other, sizeof(text)), 2);
    ck_assert_uint_eq(ask(4, 0, sizeof(text)), 2);
    publish(0, 6000000); /* not that long: and now Frankfurt has it, too */
    ck_assert_uint_eq(ask(5, prefix, sizeof(text)), 2);
    publish(500000, 0);
    ck_assert_uint_eq(ask(6, prefix, sizeof(text)), 3);
    ck_assert_uint_eq(core->counters.prefix_told, 5);
    ck_assert_uint_eq(core->counters.prefix_known, 2);
    /* What another node told this one. */
    uint64_t told = prefix_of(MODEL_A + 2, text, sizeof(text));
    publish(0, 1000000);
    prefixes_learn(core->prefixes, told, 3, NOW);
    ck_assert_uint_eq(ask(7, told, sizeof(text)), 3);
    route_core_destroy(core);
    route_table_destroy(table);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefixes");
    TCase *tcase = tcase_create("prefixes");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, finds_what_was_learned);
    tcase_add_test(tcase, old_ones_make_room_and_end);
    tcase_add_test(tcase, any_word_will_do);
    tcase_add_test(tcase, choice_equals_brute_force);
    tcase_add_test(tcase, alike_come_together);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
