/* SPDX-License-Identifier: Apache-2.0 */
/* test_exchange.c - whole exchanges over a bad network in virtual time: exact text or an explicit
 * error, at most one execution, nothing left behind. Each seed is one run; failures print it. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/flow/exchange.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define LIMIT_NS (1000 * NS_PER_S)
#define SEEDS    (SANITIZED ? 200u : 1000u)

static struct exchange_config base_config(uint64_t seed)
{
    return (struct exchange_config){
        .seed = seed,
        .delay_min_ns = 2 * NS_PER_MS,
        .delay_max_ns = 4 * NS_PER_MS,
        .requests = 1,
        .prompt_bytes = 300,
        .tokens = 40,
        .token_bytes = 5,
        .prefill_ns = 50 * NS_PER_MS,
        .token_ns = 12 * NS_PER_MS,
    };
}

/* What must hold after any run in which the worker lived. */
static void check_clean(const struct exchange *x)
{
    uint64_t seed = x->config.seed;
    ck_assert_msg(!x->prompt_wrong, "seed %lu: prompt damaged", seed);
    ck_assert_msg(x->serve->table.count == 0, "seed %lu: requests left at the worker", seed);
    ck_assert_msg(x->serve->partial_bytes == 0 && x->serve->reply_bytes == 0, "seed %lu: bytes",
                  seed);
    ck_assert_uint_eq(x->serve->receiving, 0);
    for (uint32_t i = 0; i < x->config.requests; i++) {
        ck_assert_msg(x->ended_ns[i] != 0 && !x->open[i], "seed %lu: request %u open", seed, i);
        ck_assert_msg(x->run[i].executions <= 1, "seed %lu: executed twice", seed);
        if (x->result[i].status == 0) {
            ck_assert_msg(x->run[i].executions == 1, "seed %lu: from nowhere", seed);
            ck_assert_msg(exchange_text_ok(x, i, x->config.tokens), "seed %lu: text", seed);
            ck_assert_uint_eq(x->result[i].new_tokens, x->config.tokens);
            ck_assert_str_eq(x->result[i].backend, "sim");
        } else {
            ck_assert_int_lt(x->result[i].status, -1000);
        }
    }
}

START_TEST(perfect_network_is_lean)
{
    struct exchange_config c = base_config(1);
    struct exchange *x = exchange_create(&c);
    exchange_play(x, LIMIT_NS);
    check_clean(x);
    ck_assert_int_eq(x->result[0].status, 0);
    ck_assert_uint_eq(x->result[0].resends, 0);
    /* cookie try, request, one ACK per ~2 tokens of 12 ms, last ACK: not one per token */
    ck_assert_uint_le(x->acks, 25);
    ck_assert_uint_le(x->sent_up, 28);
    ck_assert_uint_eq(x->serve->stats.resent, 0);
    ck_assert_uint_ge(x->result[0].total_us, 530000);
    ck_assert_uint_eq(x->result[0].prefill_us, 50000);
    exchange_destroy(x);
}
END_TEST

/* A thousand seeds, each with its own mix of faults and sizes. */
START_TEST(every_seed_ends_right)
{
    uint32_t complete = 0;
    uint32_t light = 0;
    uint32_t light_complete = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct rng rng = {seed * 77};
        struct exchange_config c = base_config(seed);
        c.loss_permille = rng_below(&rng, 301);
        c.dup_permille = rng_below(&rng, 2) * rng_below(&rng, 200);
        c.delay_max_ns = c.delay_min_ns + (1 + rng_below(&rng, 60)) * NS_PER_MS;
        c.requests = 1 + rng_below(&rng, 4);
        c.prompt_bytes = rng_below(&rng, 4) == 0 ? rng_below(&rng, 60000) : rng_below(&rng, 3000);
        c.tokens = rng_below(&rng, 60);
        c.token_bytes = rng_below(&rng, 8) == 0 ? 3000 : rng_below(&rng, 12);
        c.no_cookie = rng_below(&rng, 4) == 0;
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        check_clean(x);
        for (uint32_t i = 0; i < c.requests; i++) {
            complete += x->result[i].status == 0;
            light += c.loss_permille <= 50;
            light_complete += c.loss_permille <= 50 && x->result[i].status == 0;
            if (c.loss_permille <= 50 && x->result[i].status != 0) {
                printf("seed %lu: request %u: %d\n", seed, i, x->result[i].status);
            }
        }
        exchange_destroy(x);
    }
    printf("complete %u; with at most 5 %% loss %u of %u\n", complete, light_complete, light);
    ck_assert_uint_gt(light, SEEDS / 5);
    ck_assert_uint_eq(light_complete, light);
}
END_TEST

START_TEST(largest_prompt)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct exchange_config c = base_config(seed);
        c.prompt_bytes = WEFT_MESSAGE_MAX - sizeof(struct weft_prompt);
        c.loss_permille = seed == 1 ? 0 : 10;
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        check_clean(x);
        ck_assert_int_eq(x->result[0].status, 0);
        /* what is in flight is bounded by the window, what is held by what came */
        ck_assert_uint_le(x->in_flight_peak, 2 * CC_WINDOW_MAX_BYTES / WEFT_REQ_PAYLOAD_SAFE);
        ck_assert_uint_le(x->partial_peak, WEFT_MESSAGE_MAX);
        printf("16 MiB, loss %u permille: %lu ms, %lu datagrams up\n", c.loss_permille,
               x->result[0].total_us / 1000, x->sent_up);
        exchange_destroy(x);
    }
}
END_TEST

/* A reply of a megabyte produced at once must flow by credit and not by the worker's will. */
START_TEST(credit_bounds_what_is_in_flight)
{
    struct exchange_config c = base_config(5);
    c.tokens = 1000;
    c.token_bytes = 1000;
    c.token_ns = 0;
    for (uint32_t loss = 0; loss <= 100; loss += 50) {
        c.loss_permille = loss;
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        check_clean(x);
        ck_assert_int_eq(x->result[0].status, 0);
        ck_assert_uint_le(x->in_flight_peak, 3 * WINDOW_MAX_BYTES / 1000);
        exchange_destroy(x);
    }
}
END_TEST

START_TEST(cancel_stops_the_worker)
{
    uint32_t cancelled = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct exchange_config c = base_config(seed);
        c.loss_permille = (uint32_t)(seed % 4) * 70;
        c.cancel_ns = NS_PER_S + (seed * 2654435761u) % (600 * NS_PER_MS) + 1;
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        check_clean(x);
        if (x->ended_ns[0] > c.cancel_ns) {
            ck_assert_int_eq(x->result[0].status, WEFT_E_CANCELLED);
            ck_assert_uint_le(x->ended_ns[0], c.cancel_ns + NS_PER_S);
            cancelled++;
            bool running = c.cancel_ns < NS_PER_S + 480 * NS_PER_MS;
            if (x->run[0].executions == 1 && c.loss_permille == 0 && running) {
                ck_assert_uint_eq(x->run[0].cancels, 1);
                ck_assert_uint_lt(x->run[0].emitted, c.tokens);
                ck_assert_uint_le(x->ended_ns[0], c.cancel_ns + 80 * NS_PER_MS);
            }
        }
        exchange_destroy(x);
    }
    ck_assert_uint_gt(cancelled, 200);
}
END_TEST

START_TEST(budget_ends_in_time)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct exchange_config c = base_config(seed);
        c.loss_permille = (uint32_t)(seed % 4) * 70;
        c.budget_ns = (1 + seed % 500) * NS_PER_MS; /* the whole answer needs more */
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        check_clean(x);
        ck_assert_int_eq(x->result[0].status, WEFT_E_BUDGET_EXPIRED);
        ck_assert_uint_le(x->ended_ns[0], NS_PER_S + c.budget_ns);
        exchange_destroy(x);
    }
}
END_TEST

START_TEST(death_of_the_worker_is_told)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct exchange_config c = base_config(seed);
        c.loss_permille = (uint32_t)(seed % 3) * 100;
        uint64_t when = NS_PER_S + (seed * 2654435761u) % (450 * NS_PER_MS);
        c.die_ns = seed % 2 == 0 ? when : 0;
        c.reject_ns = seed % 2 == 1 ? when : 0;
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        ck_assert(!x->open[0]);
        int status = x->result[0].status;
        bool told = status == WEFT_E_WORKER_LOST || status == WEFT_E_UNREACHABLE ||
                    status == WEFT_E_STALLED; /* no worker has answered, but the node has */
        ck_assert_msg(told, "%lu: %d", seed, status);
        if (c.loss_permille == 0) {
            ck_assert_uint_le(x->ended_ns[0], when + NS_PER_S);
        }
        ck_assert_uint_le(x->ended_ns[0], when + 8 * NS_PER_S);
        exchange_destroy(x);
    }
}
END_TEST

START_TEST(silence_ends_in_bounded_time)
{
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct exchange_config c = base_config(seed);
        c.silence_ns = NS_PER_S + (seed * 2654435761u) % (500 * NS_PER_MS);
        struct exchange *x = exchange_create(&c);
        exchange_play(x, LIMIT_NS);
        ck_assert(!x->open[0]);
        int status = x->result[0].status;
        ck_assert_msg(status == WEFT_E_STALLED || status == WEFT_E_UNREACHABLE, "%lu: %d", seed,
                      status);
        ck_assert_uint_le(x->ended_ns[0], c.silence_ns + 6 * NS_PER_S);
        ck_assert_uint_eq(x->serve->table.count, 0);
        exchange_destroy(x);
    }
}
END_TEST

START_TEST(worker_notices_a_client_that_is_gone)
{
    struct exchange_config c = base_config(3);
    c.tokens = 100000;
    c.vanish_ns = NS_PER_S + 300 * NS_PER_MS;
    struct exchange *x = exchange_create(&c);
    exchange_play(x, LIMIT_NS);
    ck_assert_uint_eq(x->run[0].cancels, 1);
    ck_assert_uint_le(x->run[0].emitted, 12000 / 12);
    ck_assert_uint_eq(x->serve->table.count, 0);
    ck_assert_uint_eq(x->serve->reply_bytes, 0);
    exchange_destroy(x);
}
END_TEST

/* A worker that computes for long without a word is alive as long as it answers. */
START_TEST(long_silent_prefill_is_no_stall)
{
    struct exchange_config c = base_config(4);
    c.prefill_ns = 60 * NS_PER_S;
    c.loss_permille = 20;
    struct exchange *x = exchange_create(&c);
    exchange_play(x, LIMIT_NS);
    check_clean(x);
    ck_assert_int_eq(x->result[0].status, 0);
    ck_assert_uint_le(x->sent_up, 140); /* signs of life back off */
    exchange_destroy(x);
}
END_TEST

START_TEST(full_worker_refuses_and_says_when)
{
    struct exchange_config c = base_config(6);
    c.requests = 5;
    c.room = 2;
    struct exchange *x = exchange_create(&c);
    exchange_play(x, LIMIT_NS);
    check_clean(x);
    uint32_t full = 0;
    for (uint32_t i = 0; i < c.requests; i++) {
        if (x->result[i].status == WEFT_E_MESH_FULL) {
            full++;
            ck_assert_uint_eq(x->result[i].retry_after_ms, 5);
            ck_assert_int_eq(x->result[i].constraint, WEFT_C_ROOM);
        }
    }
    ck_assert_uint_eq(full, 3);
    exchange_destroy(x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/exchange");
    TCase *t = tcase_create("exchange");
    tcase_set_timeout(t, 200);
    tcase_add_test(t, perfect_network_is_lean);
    tcase_add_test(t, every_seed_ends_right);
    tcase_add_test(t, largest_prompt);
    tcase_add_test(t, credit_bounds_what_is_in_flight);
    tcase_add_test(t, cancel_stops_the_worker);
    tcase_add_test(t, budget_ends_in_time);
    tcase_add_test(t, death_of_the_worker_is_told);
    tcase_add_test(t, silence_ends_in_bounded_time);
    tcase_add_test(t, worker_notices_a_client_that_is_gone);
    tcase_add_test(t, long_silent_prefill_is_no_stall);
    tcase_add_test(t, full_worker_refuses_and_says_when);
    suite_add_tcase(s, t);
    return suite_main(s);
}
