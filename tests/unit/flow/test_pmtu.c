/* SPDX-License-Identifier: Apache-2.0 */
/* test_pmtu.c - path MTU discovery: the search by itself, and whole exchanges over paths whose
 * limit is low, falls or rises during the transfer (exchange.h): complete, exact and at bounded
 * cost. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/flow/exchange.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define T0       NS_PER_S
#define LIMIT_NS (1000 * NS_PER_S)
#define MS       NS_PER_MS
#define SEEDS    (SANITIZED ? 40u : 200u)

/* ---- by itself ---- */

/* A path that lets `limit` bytes pass; each datagram's fate is told before the next one goes. */
static uint32_t drive(struct pmtu *p, uint32_t limit, uint32_t datagrams, uint64_t now_ns)
{
    uint32_t lost = 0;
    uint32_t at = 0;
    for (uint32_t i = 0; i < datagrams; i++) {
        uint32_t size = pmtu_next(p, 10000, now_ns);
        uint32_t end = at + size;
        pmtu_sent(p, 1, at, end, size, now_ns);
        while (size > limit) {
            lost++;
            ck_assert_uint_lt(lost, 100);
            pmtu_lost(p, 1, at, end, now_ns);
            size = pmtu_again(p);
            pmtu_sent(p, 1, at, at + size, size, now_ns);
        }
        at = end; /* what is left of it passes too */
        pmtu_arrived(p, 1, at, now_ns);
        now_ns += MS;
    }
    return lost;
}

START_TEST(search_ends_at_what_passes)
{
    static const uint32_t limits[][2] = {{1472, 1472}, {1471, 1400}, {1400, 1400}, {1399, 1200},
                                         {1200, 1200}, {1199, 548},  {548, 548}};
    for (uint32_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct pmtu p;
        pmtu_init(&p);
        ck_assert_uint_eq(pmtu_size(&p), WEFT_DATAGRAM_SAFE);
        uint32_t lost = drive(&p, limits[i][0], 50, T0);
        ck_assert_uint_eq(pmtu_size(&p), limits[i][1]);
        ck_assert_uint_le(lost, 3 * PMTU_TRIES);
        ck_assert_uint_eq(drive(&p, limits[i][0], 1000, T0 + NS_PER_S), 0); /* settled */
    }
}
END_TEST

START_TEST(black_hole_is_left_and_the_search_begins_again_later)
{
    struct pmtu p;
    pmtu_init(&p);
    drive(&p, 1472, 20, T0);
    ck_assert_uint_eq(drive(&p, 1300, 20, T0 + MS), PMTU_TRIES);
    ck_assert_uint_eq(pmtu_size(&p), 1200);
    ck_assert_uint_ge(drive(&p, 600, 20, T0 + 2 * MS), PMTU_TRIES);
    ck_assert_uint_eq(pmtu_size(&p), 548);
    drive(&p, 1472, 20, T0 + PMTU_LOW_RAISE_NS / 2);
    ck_assert_uint_eq(pmtu_size(&p), 548);
    drive(&p, 1472, 20, T0 + 2 * PMTU_LOW_RAISE_NS);
    ck_assert_uint_eq(pmtu_size(&p), 1472);
}
END_TEST

/* Nothing passes, small or large: that is no black hole. */
START_TEST(outage_teaches_nothing)
{
    struct pmtu p;
    pmtu_init(&p);
    drive(&p, 1472, 20, T0);
    for (int level = 0; level < 2; level++) {
        uint32_t before = pmtu_size(&p);
        uint32_t size = pmtu_next(&p, 10000, T0);
        for (uint32_t i = 0; i < 100; i++) {
            pmtu_sent(&p, 2, 0, size, size, T0);
            pmtu_lost(&p, 2, 0, 10000, T0);
            size = pmtu_again(&p);
        }
        ck_assert_uint_eq(pmtu_size(&p), before);
        pmtu_init(&p); /* the same at 1,200 bytes */
        p.ceiling = p.level;
    }
}
END_TEST

START_TEST(sparse_loss_is_no_black_hole)
{
    struct pmtu p;
    pmtu_init(&p);
    drive(&p, 1472, 20, T0);
    for (uint32_t i = 0; i < 100; i++) {
        uint32_t size = pmtu_next(&p, 10000, T0);
        pmtu_sent(&p, 3, 0, size, size, T0);
        if (i % 3 != 2) {
            pmtu_lost(&p, 3, 0, size, T0);
        } else {
            pmtu_arrived(&p, 3, size, T0);
        }
        ck_assert_uint_eq(pmtu_size(&p), 1472);
    }
}
END_TEST

START_TEST(forgotten_probe_does_not_stop_the_search)
{
    struct pmtu p;
    pmtu_init(&p);
    uint32_t size = pmtu_next(&p, 10000, T0);
    ck_assert_uint_eq(size, PMTU_TUNNEL);
    pmtu_sent(&p, 1, 0, size, size, T0);
    ck_assert_uint_eq(pmtu_next(&p, 10000, T0), WEFT_DATAGRAM_SAFE); /* one at a time */
    pmtu_arrived(&p, 2, 10000, T0);                                  /* another message's */
    pmtu_lost(&p, 1, size, size + 10, T0);                           /* other bytes */
    ck_assert_uint_eq(pmtu_next(&p, 10000, T0 + NS_PER_S), WEFT_DATAGRAM_SAFE);
    ck_assert_uint_eq(pmtu_next(&p, 10000, T0 + PMTU_FORGOTTEN_NS), PMTU_TUNNEL);
    ck_assert_uint_eq(pmtu_next(&p, 1399, T0 + PMTU_FORGOTTEN_NS), WEFT_DATAGRAM_SAFE);
}
END_TEST

/* ---- whole exchanges ---- */

static struct exchange_config base_config(uint64_t seed, uint32_t prompt_bytes)
{
    return (struct exchange_config){
        .seed = seed,
        .delay_min_ns = 2 * MS,
        .delay_max_ns = 2 * MS,
        .requests = 1,
        .prompt_bytes = prompt_bytes,
        .tokens = 10,
        .token_bytes = 5,
        .token_ns = MS,
    };
}

static struct exchange *play(const struct exchange_config *c)
{
    struct exchange *x = exchange_create(c);
    exchange_play(x, LIMIT_NS);
    ck_assert(!x->prompt_wrong);
    ck_assert_uint_eq(x->serve->table.count, 0);
    for (uint32_t i = 0; i < c->requests; i++) {
        ck_assert_msg(x->result[i].status == 0,
                      "seed %lu: %d after %lu ms; up %u from %lu, %u from %lu, %u from %lu",
                      c->seed, x->result[i].status, x->result[i].total_us / 1000,
                      c->mtu[1][0].bytes, c->mtu[1][0].at_ns / MS, c->mtu[1][1].bytes,
                      c->mtu[1][1].at_ns / MS, c->mtu[1][2].bytes, c->mtu[1][2].at_ns / MS);
        ck_assert_uint_eq(x->run[i].executions, 1);
        ck_assert(exchange_text_ok(x, i, c->tokens));
    }
    return x;
}

START_TEST(large_prompt_uses_what_the_path_has)
{
    static const uint32_t limits[][2] = {{0, 1472}, {1452, 1400}, {1200, 1200}, {600, 548}};
    for (uint32_t i = 0; i < 4; i++) {
        struct exchange_config c = base_config(i + 1, 4u << 20);
        c.mtu[1][0] = (struct exchange_mtu){1, limits[i][0]};
        struct exchange *x = play(&c);
        uint32_t size = limits[i][1];
        ck_assert_uint_eq(pmtu_size(&x->conn.pmtu), size);
        uint64_t least = c.prompt_bytes / (size - sizeof(struct weft_req));
        printf("limit %u: %lu datagrams for %lu, %lu too large, %lu ms\n", limits[i][0], x->sent_up,
               least, x->links[1].too_large, x->result[0].total_us / 1000);
        ck_assert_uint_le(x->sent_up, least + least / 10 + 60);
        ck_assert_uint_le(x->links[1].too_large, limits[i][0] == 600 ? 80 : 2 * PMTU_TRIES);
        exchange_destroy(x);
    }
}
END_TEST

/* The limit changes up to four times while 4 MiB go up. */
START_TEST(limit_changes_during_a_prompt)
{
    static const uint32_t limits[] = {0, 1450, 1300, 1200, 1000, 560};
    uint64_t most = 0;
    uint64_t longest_us = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rng rng = {seed};
        struct exchange_config c = base_config(seed, 4u << 20);
        c.rate_bytes = 12500000;
        c.queue_bytes = 1250000;
        c.loss_permille = seed % 3 == 0 ? 5 : 0;
        uint64_t at_ns = 1;
        for (uint32_t i = 0; i < EXCHANGE_MTUS; i++) {
            c.mtu[1][i] = (struct exchange_mtu){at_ns, limits[rng_below(&rng, 6)]};
            at_ns = (i == 0 ? T0 : at_ns) + rng_below(&rng, 200) * MS;
        }
        struct exchange *x = play(&c);
        most = x->sent_up > most ? x->sent_up : most;
        longest_us = x->result[0].total_us > longest_us ? x->result[0].total_us : longest_us;
        exchange_destroy(x);
    }
    uint64_t least = (4u << 20) / (548 - sizeof(struct weft_req));
    printf("changing limits: at most %lu datagrams (548 bytes each: %lu), %lu ms\n", most, least,
           longest_us / 1000);
    ck_assert_uint_le(most, 2 * least);
    ck_assert_uint_le(longest_us, 5 * 1000000);
}
END_TEST

START_TEST(limit_changes_during_a_reply)
{
    static const uint32_t limits[] = {0, 1450, 1300, 1200, 1000, 560};
    uint64_t most = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rng rng = {seed * 3};
        struct exchange_config c = base_config(seed, 100);
        c.tokens = 1000;
        c.token_bytes = rng_below(&rng, 2) == 0 ? 3000 : 300;
        c.loss_permille = seed % 3 == 0 ? 5 : 0;
        uint64_t at_ns = 1;
        for (uint32_t i = 0; i < EXCHANGE_MTUS; i++) {
            c.mtu[0][i] = (struct exchange_mtu){at_ns, limits[rng_below(&rng, 6)]};
            at_ns = (i == 0 ? T0 : at_ns) + rng_below(&rng, 500) * MS;
        }
        struct exchange *x = play(&c);
        most = x->sent_down > most ? x->sent_down : most;
        exchange_destroy(x);
    }
    uint64_t least = UINT64_C(3000000) / (548 - sizeof(struct weft_rsp));
    printf("changing limits: at most %lu datagrams down (548 bytes each: %lu)\n", most, least);
    ck_assert_uint_le(most, 2 * least);
}
END_TEST

/* The next request of the connection begins with what the last one has found out. */
START_TEST(connection_remembers)
{
    struct exchange_config c = base_config(1, 100000);
    c.requests = 2;
    c.stagger_ns = 10 * NS_PER_S;
    c.mtu[1][0] = (struct exchange_mtu){1, 1300};
    struct exchange *x = play(&c);
    ck_assert_uint_le(x->links[1].too_large, PMTU_TRIES);
    exchange_destroy(x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/pmtu");
    TCase *t = tcase_create("pmtu");
    tcase_set_timeout(t, 200);
    tcase_add_test(t, search_ends_at_what_passes);
    tcase_add_test(t, black_hole_is_left_and_the_search_begins_again_later);
    tcase_add_test(t, outage_teaches_nothing);
    tcase_add_test(t, sparse_loss_is_no_black_hole);
    tcase_add_test(t, forgotten_probe_does_not_stop_the_search);
    tcase_add_test(t, large_prompt_uses_what_the_path_has);
    tcase_add_test(t, limit_changes_during_a_prompt);
    tcase_add_test(t, limit_changes_during_a_reply);
    tcase_add_test(t, connection_remembers);
    suite_add_tcase(s, t);
    return suite_main(s);
}
