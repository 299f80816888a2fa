/* SPDX-License-Identifier: Apache-2.0 */
/* test_cc.c - congestion control: each algorithm by itself, and whole prompts and replies through a
 * bottleneck in virtual time (exchange.h). */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/flow/exchange.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define T0         NS_PER_S
#define LIMIT_NS   (1000 * NS_PER_S)
#define RATE       UINT64_C(12500000) /* 100 Mbit/s */
#define MS         NS_PER_MS
#define SEEDS      (SANITIZED ? 1u : 5u)
#define STAGGER_MS (SANITIZED ? 250u : 50u) /* from one pair of flows to the next */

static const struct cc_ops *const algorithms[] = {&cc_delay, &cc_loss};

/* ---- by itself ---- */

/* Samples of a path of 10 ms plus `queue_ns`, a window's worth of data each. */
static uint64_t rounds(struct cc *cc, uint32_t count, uint64_t queue_ns, bool ecn, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        now_ns += 10 * MS + queue_ns;
        cc_on_data(cc, cc_window(cc), 10 * MS + queue_ns, ecn, now_ns);
    }
    return now_ns;
}

START_TEST(default_is_delay)
{
    struct cc cc;
    cc_init(&cc, NULL);
    ck_assert_str_eq(cc.ops->name, "delay");
    cc_init(&cc, &cc_loss);
    ck_assert_str_eq(cc.ops->name, "loss");
    ck_assert_uint_eq(cc_window(&cc), WINDOW_MIN_BYTES);
}
END_TEST

START_TEST(delay_doubles_until_a_queue_shows)
{
    struct cc cc;
    cc_init(&cc, &cc_delay);
    uint64_t now_ns = rounds(&cc, 1, 0, false, T0);
    uint32_t first = cc_window(&cc);
    now_ns = rounds(&cc, 1, 0, false, now_ns);
    ck_assert_uint_eq(cc_window(&cc), 2 * first);
    now_ns = rounds(&cc, 1, 5 * MS, false, now_ns);
    ck_assert_uint_eq(cc_window(&cc), 2 * first); /* once may be a scheduler: no further as yet */
    ck_assert(!cc.delay.steady);
    (void)rounds(&cc, 1, 5 * MS, false, now_ns);
    ck_assert_uint_lt(cc_window(&cc), 2 * first);
    ck_assert_uint_gt(cc_window(&cc), first / 2);
    ck_assert(cc.delay.steady);
}
END_TEST

/* Brings it to steady state at a window of about 120 kB. */
static uint64_t settle(struct cc *cc)
{
    cc_init(cc, &cc_delay);
    uint64_t now_ns = rounds(cc, 2, 0, false, T0);
    now_ns = rounds(cc, 2, 5 * MS, false, now_ns);
    ck_assert(cc->delay.steady);
    cc->delay.next_slow_ns = UINT64_MAX; /* has a test of its own */
    return now_ns + 100 * MS;
}

START_TEST(delay_grows_below_and_shrinks_above_in_proportion)
{
    struct cc cc;
    uint64_t now_ns = settle(&cc);
    uint32_t before = cc_window(&cc);
    now_ns = rounds(&cc, 1, 2 * MS, false, now_ns);
    ck_assert_uint_gt(cc_window(&cc), before);
    ck_assert_uint_le(cc_window(&cc), before + 4 * WEFT_DATAGRAM_SAFE);
    struct cc once = cc;
    now_ns = rounds(&once, 1, 90 * MS, false, now_ns);
    now_ns = rounds(&once, 1, 0, false, now_ns);
    ck_assert_uint_gt(cc_window(&once), cc_window(&cc)); /* no queue, a scheduler */
    cc.delay.excess_ns = 90 * MS;
    before = cc_window(&cc);
    struct cc other = cc;
    (void)rounds(&cc, 1, 12 * MS, false, now_ns);
    (void)rounds(&other, 1, 90 * MS, false, now_ns);
    ck_assert_uint_lt(cc_window(&cc), before);
    ck_assert_uint_gt(cc_window(&cc), before * 6 / 10);
    ck_assert_uint_lt(cc_window(&other), cc_window(&cc));
    ck_assert_uint_ge(cc_window(&other), before / 2);
}
END_TEST

START_TEST(delay_takes_a_mark_for_a_queue_at_its_aim)
{
    struct cc cc;
    cc_init(&cc, &cc_delay);
    uint64_t now_ns = rounds(&cc, 2, 0, true, T0);
    ck_assert(cc.delay.steady); /* the doubling ends ... */
    cc.delay.next_slow_ns = UINT64_MAX;
    uint32_t before = cc_window(&cc);
    now_ns = rounds(&cc, 20, 0, true, now_ns);
    ck_assert_uint_eq(cc_window(&cc), before); /* ... and no more growth either */
    (void)rounds(&cc, 1, 0, false, now_ns);
    ck_assert_uint_gt(cc_window(&cc), before);
}
END_TEST

START_TEST(delay_halves_on_loss_once_per_round_trip)
{
    struct cc cc;
    uint64_t now_ns = settle(&cc);
    now_ns = rounds(&cc, 2, 7 * MS, false, now_ns);
    uint32_t before = cc_window(&cc);
    for (uint32_t i = 0; i < 10; i++) {
        cc_on_loss(&cc, WEFT_DATAGRAM_SAFE, now_ns + i);
    }
    ck_assert_uint_eq(cc_window(&cc), before / 2);
    cc_on_loss(&cc, WEFT_DATAGRAM_SAFE, now_ns + 17 * MS);
    ck_assert_uint_eq(cc_window(&cc), before / 2 / 2);
    for (uint32_t i = 2; i < 100; i++) {
        cc_on_loss(&cc, WEFT_DATAGRAM_SAFE, now_ns + i * 17 * MS);
    }
    ck_assert_uint_eq(cc_window(&cc), CC_WINDOW_MIN_BYTES);
}
END_TEST

START_TEST(delay_forgives_loss_that_comes_with_no_queue)
{
    struct cc cc;
    uint64_t now_ns = settle(&cc);
    for (uint32_t i = 0; i < 50; i++) { /* one in a hundred */
        uint32_t before = cc_window(&cc);
        now_ns = rounds(&cc, 1, 0, false, now_ns);
        cc_on_loss(&cc, before / 100, now_ns);
        ck_assert_uint_gt(cc_window(&cc), before);
    }
    uint32_t before = cc_window(&cc);
    for (uint32_t i = 0; i < 10; i++) { /* one in ten is too many */
        now_ns = rounds(&cc, 1, 0, false, now_ns);
        cc_on_loss(&cc, before / 10, now_ns);
    }
    ck_assert_uint_lt(cc_window(&cc), before / 2);
}
END_TEST

START_TEST(delay_slows_down_and_comes_back)
{
    struct cc cc;
    uint64_t now_ns = settle(&cc);
    now_ns = rounds(&cc, 50, 0, false, now_ns);
    uint32_t before = cc_window(&cc);
    cc.delay.next_slow_ns = now_ns;
    uint32_t least = before;
    uint32_t count = 0;
    do {
        now_ns = rounds(&cc, 1, 0, false, now_ns);
        least = cc_window(&cc) < least ? cc_window(&cc) : least;
        ck_assert_uint_lt(count++, 10);
    } while (cc.delay.resume != 0);
    ck_assert_uint_le(least, before / 4);
    ck_assert_uint_ge(cc_window(&cc), before / 2);
    ck_assert_uint_le(cc_window(&cc), before);
    ck_assert_uint_ge(cc.delay.next_slow_ns, now_ns + 9 * 2 * 10 * MS);
}
END_TEST

START_TEST(delay_forgets_an_old_round_trip)
{
    struct cc cc;
    uint64_t now_ns = settle(&cc);
    (void)rounds(&cc, 2, 100 * MS, false, now_ns);
    ck_assert_uint_eq(cc.delay.queue_ns, 100 * MS);
    (void)rounds(&cc, 1, 100 * MS, false, now_ns + 2 * CC_BASE_NS); /* a new, longer way */
    ck_assert_uint_eq(cc.delay.queue_ns, 0);
}
END_TEST

/* Whatever comes, the window stays within its bounds. */
START_TEST(windows_stay_in_their_bounds)
{
    for (uint32_t a = 0; a < 2; a++) {
        for (uint64_t seed = 1; seed <= 200; seed++) {
            struct rng rng = {seed};
            struct cc cc;
            cc_init(&cc, algorithms[a]);
            uint64_t now_ns = T0;
            for (uint32_t i = 0; i < 2000; i++) {
                now_ns += rng_next(&rng) >> (20 + rng_below(&rng, 44));
                uint64_t rtt_ns = rng_next(&rng) >> (20 + rng_below(&rng, 44));
                uint32_t bytes = rng_below(&rng, WEFT_MESSAGE_MAX);
                if (rng_below(&rng, 4) == 0) {
                    cc_on_loss(&cc, bytes, now_ns);
                } else {
                    cc_on_data(&cc, bytes, rtt_ns, rng_below(&rng, 9) == 0, now_ns);
                }
                if (cc_window(&cc) < CC_WINDOW_MIN_BYTES || cc_window(&cc) > CC_WINDOW_MAX_BYTES ||
                    cc_step(cc_window(&cc)) < WEFT_DATAGRAM_MAX) {
                    ck_abort_msg("seed %lu, step %u: a window of %u", seed, i, cc_window(&cc));
                }
            }
        }
    }
}
END_TEST

/* ---- through a bottleneck ---- */

static struct exchange_config base_config(const struct cc_ops *cc, uint64_t rate, uint64_t way_ns)
{
    return (struct exchange_config){
        .seed = 1,
        .delay_min_ns = way_ns,
        .delay_max_ns = way_ns,
        .requests = 1,
        .prompt_bytes = WEFT_MESSAGE_MAX - sizeof(struct weft_prompt),
        .tokens = 3,
        .token_bytes = 5,
        .token_ns = MS,
        .cc = cc,
        .rate_bytes = rate,
        .queue_bytes = (uint32_t)(rate / 10),
    };
}

static void check_complete(const struct exchange *x)
{
    ck_assert(!x->prompt_wrong);
    ck_assert_uint_eq(x->serve->table.count, 0);
    for (uint32_t i = 0; i < x->config.requests; i++) {
        ck_assert_int_eq(x->result[i].status, 0);
        ck_assert_uint_eq(x->run[i].executions, 1);
        ck_assert(exchange_text_ok(x, i, x->config.tokens));
    }
}

/* Share of the bottleneck that one prompt gets, in percent. Queueing is counted behind the start.
 */
static uint32_t prompt_share(struct exchange *x)
{
    struct exchange_link *up = &x->links[1];
    up->count_ns = T0 + 300 * MS;
    exchange_play(x, LIMIT_NS);
    check_complete(x);
    uint64_t needs_ns = x->config.prompt_bytes * NS_PER_S / x->config.rate_bytes;
    uint32_t share = (uint32_t)(100 * needs_ns / (x->job_ns[0] - T0));
    printf(
        "%s, round trip %lu ms, loss %u permille: %u %%; queue p50 %lu p99 %lu us, %lu dropped\n",
        x->config.cc->name, 2 * x->config.delay_min_ns / MS, x->config.loss_permille, share,
        hist_quantile(&up->queue_us, 0.5), hist_quantile(&up->queue_us, 0.99), up->dropped);
    return share;
}

START_TEST(delay_fills_the_path_and_not_the_queue)
{
    for (uint64_t way_ns = MS; way_ns <= 5 * MS; way_ns += 2 * MS) {
        struct exchange_config c = base_config(&cc_delay, RATE, way_ns);
        struct exchange *x = exchange_create(&c);
        ck_assert_uint_ge(prompt_share(x), 80);
        ck_assert_uint_lt(hist_quantile(&x->links[1].queue_us, 0.99), CC_TARGET_NS / NS_PER_US);
        ck_assert_uint_eq(x->links[1].dropped, 0);
        exchange_destroy(x);
    }
}
END_TEST

START_TEST(loss_fills_path_and_queue)
{
    struct exchange_config c = base_config(&cc_loss, RATE, 5 * MS);
    struct exchange *x = exchange_create(&c);
    ck_assert_uint_ge(prompt_share(x), 80);
    ck_assert_uint_gt(hist_quantile(&x->links[1].queue_us, 0.5), CC_TARGET_NS / NS_PER_US);
    exchange_destroy(x);
}
END_TEST

START_TEST(random_loss_does_not_collapse_delay)
{
    for (uint64_t way_ns = MS; way_ns <= 5 * MS; way_ns += 4 * MS) {
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            struct exchange_config c = base_config(&cc_delay, RATE, way_ns);
            c.loss_permille = 10;
            c.seed = seed;
            struct exchange *x = exchange_create(&c);
            ck_assert_uint_ge(prompt_share(x), 50);
            exchange_destroy(x);
        }
    }
}
END_TEST

/* Long ways without a bottleneck, where round trips are all that counts: 40 ms and 150 ms, clean
 * and with one datagram in a hundred lost. */
START_TEST(long_ways_are_filled)
{
    static const uint32_t least_mb[2][2] = {{25, 15}, {7, 4}}; /* a second */
    for (uint32_t far = 0; far < 2; far++) {
        for (uint32_t lossy = 0; lossy < 2; lossy++) {
            struct exchange_config c = base_config(&cc_delay, 0, far != 0 ? 75 * MS : 20 * MS);
            c.loss_permille = 10 * lossy;
            struct exchange *x = exchange_create(&c);
            exchange_play(x, LIMIT_NS);
            check_complete(x);
            uint64_t mb = c.prompt_bytes * UINT64_C(1000) / (x->job_ns[0] - T0);
            printf("round trip %lu ms, loss %u permille: %lu MB/s, %u resends\n",
                   2 * c.delay_min_ns / MS, c.loss_permille, mb, x->result[0].resends);
            ck_assert_uint_ge(mb, least_mb[far][lossy]);
            ck_assert(lossy || x->result[0].resends == 0);
            exchange_destroy(x);
        }
    }
}
END_TEST

/* A machine whose scheduler adds up to 20 ms looks like a queue that never ends: the least window
 * keeps a prompt going. */
START_TEST(jitter_does_not_starve)
{
    struct exchange_config c = base_config(&cc_delay, 0, MS / 2);
    c.delay_max_ns = 20 * MS;
    c.prompt_bytes = 4u << 20;
    struct exchange *x = exchange_create(&c);
    exchange_play(x, LIMIT_NS);
    check_complete(x);
    ck_assert_uint_lt(x->job_ns[0] - T0, 5 * NS_PER_S);
    exchange_destroy(x);
}
END_TEST

/* ... and what is a spike now and then leaves a long way nearly as fast as it is without. */
START_TEST(spikes_leave_long_ways_fast)
{
    struct exchange_config c = base_config(&cc_delay, 0, 40 * MS);
    c.delay_max_ns = 50 * MS;
    struct exchange *x = exchange_create(&c);
    exchange_play(x, LIMIT_NS);
    check_complete(x);
    uint64_t mb = c.prompt_bytes * UINT64_C(1000) / (x->job_ns[0] - T0);
    printf("round trip 80 ms and up to 20 ms more: %lu MB/s\n", mb);
    ck_assert_uint_ge(mb, 8); /* 15 without */
    exchange_destroy(x);
}
END_TEST

/* A queue shorter than the target: loss is all there is to see. */
START_TEST(shallow_queue_is_survived)
{
    for (uint32_t a = 0; a < 2; a++) {
        struct exchange_config c = base_config(algorithms[a], RATE, 5 * MS);
        c.queue_bytes = 30000; /* 2.4 ms */
        struct exchange *x = exchange_create(&c);
        ck_assert_uint_ge(prompt_share(x), a == 0 ? 40 : 20);
        exchange_destroy(x);
    }
}
END_TEST

/* Marks from 2 ms of queue on keep it shorter than delay alone would. */
START_TEST(marks_are_heeded)
{
    struct exchange_config c = base_config(&cc_delay, RATE, 5 * MS);
    c.mark_ns = 2 * MS;
    struct exchange *x = exchange_create(&c);
    ck_assert_uint_ge(prompt_share(x), 70);
    ck_assert_uint_lt(hist_quantile(&x->links[1].queue_us, 0.99), 6000);
    exchange_destroy(x);
}
END_TEST

static uint32_t prompt_bytes_there(const struct exchange *x, uint32_t i)
{
    const struct table_node *node = table_find(&x->serve->table, x->conn.conn_id, i + 1);
    ck_assert_ptr_nonnull(node);
    return ((const struct weft_job *)(const void *)node)->body.cum;
}

/* Two prompts at once, the second one sooner or later: half a second after its start both go on
 * alike. */
START_TEST(two_flows_share)
{
    double worst = 1.0;
    for (uint64_t way_ns = MS; way_ns <= 5 * MS; way_ns += 4 * MS) {
        for (uint64_t stagger = 0; stagger <= 500; stagger += STAGGER_MS) {
            struct exchange_config c = base_config(&cc_delay, RATE, way_ns);
            c.requests = 2;
            c.stagger_ns = stagger * MS;
            struct exchange *x = exchange_create(&c);
            uint64_t begin_ns = T0 + (stagger + 500) * MS;
            exchange_play(x, begin_ns);
            uint32_t first = prompt_bytes_there(x, 0);
            uint32_t second = prompt_bytes_there(x, 1);
            exchange_play(x, begin_ns + NS_PER_S);
            double ratio = (double)(prompt_bytes_there(x, 0) - first) /
                           (double)(prompt_bytes_there(x, 1) - second);
            worst = ratio > worst ? ratio : worst;
            worst = 1.0 / ratio > worst ? 1.0 / ratio : worst;
            ck_assert_msg(worst <= 2.0, "%.2f at stagger %lu", ratio, stagger);
            exchange_play(x, LIMIT_NS);
            check_complete(x);
            exchange_destroy(x);
        }
    }
    printf("two flows: %.2f to 1 at worst\n", worst);
}
END_TEST

/* The client's credit is made of the window too: a large reply does not fill the queue either. */
START_TEST(replies_are_paced_by_credit)
{
    struct exchange_config c = base_config(&cc_delay, RATE / 10, 5 * MS);
    c.prompt_bytes = 100;
    c.tokens = 4000;
    c.token_bytes = 1000;
    c.token_ns = 0;
    struct exchange *x = exchange_create(&c);
    x->links[0].count_ns = T0 + NS_PER_S;
    exchange_play(x, LIMIT_NS);
    check_complete(x);
    uint64_t needs_us = UINT64_C(4000) * 1000 * 1000000 / c.rate_bytes;
    printf("reply: %lu %%; queue p50 %lu p99 %lu us, %lu dropped\n",
           100 * needs_us / x->result[0].total_us, hist_quantile(&x->links[0].queue_us, 0.5),
           hist_quantile(&x->links[0].queue_us, 0.99), x->links[0].dropped);
    ck_assert_uint_ge(100 * needs_us / x->result[0].total_us, 80);
    ck_assert_uint_lt(hist_quantile(&x->links[0].queue_us, 0.5), 2 * CC_TARGET_NS / NS_PER_US);
    ck_assert_uint_eq(x->links[0].dropped, 0);
    exchange_destroy(x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/cc");
    TCase *t = tcase_create("cc");
    tcase_set_timeout(t, 200);
    tcase_add_test(t, default_is_delay);
    tcase_add_test(t, delay_doubles_until_a_queue_shows);
    tcase_add_test(t, delay_grows_below_and_shrinks_above_in_proportion);
    tcase_add_test(t, delay_takes_a_mark_for_a_queue_at_its_aim);
    tcase_add_test(t, delay_halves_on_loss_once_per_round_trip);
    tcase_add_test(t, delay_forgives_loss_that_comes_with_no_queue);
    tcase_add_test(t, delay_slows_down_and_comes_back);
    tcase_add_test(t, delay_forgets_an_old_round_trip);
    tcase_add_test(t, windows_stay_in_their_bounds);
    tcase_add_test(t, delay_fills_the_path_and_not_the_queue);
    tcase_add_test(t, loss_fills_path_and_queue);
    tcase_add_test(t, random_loss_does_not_collapse_delay);
    tcase_add_test(t, long_ways_are_filled);
    tcase_add_test(t, jitter_does_not_starve);
    tcase_add_test(t, spikes_leave_long_ways_fast);
    tcase_add_test(t, shallow_queue_is_survived);
    tcase_add_test(t, marks_are_heeded);
    tcase_add_test(t, two_flows_share);
    tcase_add_test(t, replies_are_paced_by_credit);
    suite_add_tcase(s, t);
    return suite_main(s);
}
