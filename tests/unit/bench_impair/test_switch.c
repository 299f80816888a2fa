/* SPDX-License-Identifier: Apache-2.0 */
/* test_switch.c - the switch as a whole, in its own time: who gets a frame, when, how often. Shares
 * are held against the binomial distribution, delays against the quantiles of their distribution;
 * seeds make every run the same. */
#include "bench/impair/switch.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PORTS      3u
#define FRAME_SIZE 100u
#define MANY       100000u
#define SIGMAS     5.0
#define GAP_NS     NS_PER_MS

struct arrival {
    uint64_t at_ns;
    uint32_t id;
    uint32_t to;
};

static struct impair_switch *sw;
static struct arrival *seen;
static uint32_t seen_count;

static void setup_with(uint64_t seed, uint32_t frames)
{
    struct impair_config config = {seed, PORTS, IMPAIR_FRAME_MIN, frames};
    sw = impair_switch_create(&config);
    ck_assert_ptr_nonnull(sw);
    seen = calloc(2 * (size_t)MANY, sizeof(*seen));
    seen_count = 0;
}

static void setup(void)
{
    setup_with(42, 4096);
}

static void teardown(void)
{
    impair_switch_destroy(sw);
    free(seen);
}

/* Broadcast by port `from`, or to a station that port `to` has; the id is behind the header. */
static void make_frame(uint8_t *frame, uint32_t from, int to, uint32_t id)
{
    memset(frame, 0, FRAME_SIZE);
    memset(frame, 0xff, 6);
    if (to >= 0) {
        memcpy(frame, (uint8_t[6]){2, 0, 0, 0, 0, (uint8_t)(to + 1)}, 6);
    }
    memcpy(frame + 6, (uint8_t[6]){2, 0, 0, 0, 0, (uint8_t)(from + 1)}, 6);
    frame[12] = 0x88;
    frame[13] = 0xb5; /* a local experiment (IEEE 802) */
    memcpy(frame + 14, &id, sizeof(id));
}

static void drain(uint64_t until_ns)
{
    struct impair_out out;
    uint32_t wrong = 0;
    while (impair_switch_due_ns(sw) <= until_ns && impair_switch_due_ns(sw) != IMPAIR_NEVER) {
        uint64_t now_ns = impair_switch_due_ns(sw);
        wrong += impair_switch_pop(sw, now_ns - 1, &out);
        wrong += !impair_switch_pop(sw, now_ns, &out) || out.size != FRAME_SIZE;
        struct arrival *a = &seen[seen_count++];
        a->at_ns = now_ns;
        a->to = out.to;
        memcpy(&a->id, out.frame + 14, sizeof(a->id));
    }
    ck_assert_uint_eq(wrong, 0); /* one assertion: they are slow, frames are many */
}

static void push(uint32_t from, int to, uint32_t id, uint64_t now_ns)
{
    uint8_t frame[FRAME_SIZE];
    make_frame(frame, from, to, id);
    impair_switch_push(sw, from, frame, sizeof(frame), now_ns);
}

/* Port 1 has spoken once, so that 0 -> 1 is a link of two. */
static void introduce(void)
{
    push(1, -1, 0, 1);
    drain(IMPAIR_NEVER - 1);
    impair_switch_reset_counters(sw);
    seen_count = 0;
}

static uint64_t sent_ns(uint32_t id)
{
    return NS_PER_S + id * GAP_NS;
}

static void send_many(const struct impair_rule *rule, uint32_t count)
{
    impair_switch_rule(sw, 0, 1, rule);
    introduce();
    for (uint32_t i = 0; i < count; i++) {
        drain(sent_ns(i));
        push(0, 1, i, sent_ns(i));
    }
    drain(IMPAIR_NEVER - 1);
}

static const struct impair_counters *link_counters(void)
{
    return impair_switch_counters(sw, 0, 1);
}

static void check_sum(void)
{
    const struct impair_counters *c = link_counters();
    ck_assert_uint_eq(c->frames + c->duplicated, c->delivered + c->lost + c->burst_lost + c->cut +
                                                     c->too_big + c->queue_full + c->no_memory +
                                                     impair_switch_under_way(sw));
}

static void check_share(uint64_t hits, double count, double share)
{
    double bound = SIGMAS * sqrt(count * share * (1 - share));
    ck_assert_msg(fabs((double)hits - count * share) <= bound, "%lu of %.0f, expected %.0f +- %.0f",
                  (unsigned long)hits, count, count * share, bound);
}

static int by_delay(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The delay in ms that a share of the frames does not exceed. */
static double delay_quantile(double share)
{
    double *delays = calloc(seen_count, sizeof(*delays));
    for (uint32_t i = 0; i < seen_count; i++) {
        delays[i] = (double)(seen[i].at_ns - sent_ns(seen[i].id)) / 1e6;
    }
    qsort(delays, seen_count, sizeof(*delays), by_delay);
    double value = delays[(uint32_t)(share * (seen_count - 1))];
    free(delays);
    return value;
}

START_TEST(learns_and_floods)
{
    push(0, -1, 1, 10);
    drain(10);
    ck_assert_uint_eq(seen_count, 2); /* the broadcast, at both others */
    push(1, 0, 2, 20);
    drain(20);
    ck_assert_uint_eq(seen_count, 3); /* known: one port */
    ck_assert_uint_eq(seen[2].to, 0);
    push(0, 2, 3, 30);
    drain(30);
    ck_assert_uint_eq(seen_count, 5); /* unknown: flooded */
    push(0, 0, 4, 40);
    drain(40);
    ck_assert_uint_eq(seen_count, 5); /* to a station on the same side */
    push(2, -1, 5, 50);
    push(2, 0, 6, 60);
    uint8_t moved[FRAME_SIZE];
    make_frame(moved, 0, -1, 7);
    impair_switch_push(sw, 2, moved, sizeof(moved), 70); /* station 0 now lives on port 2 */
    drain(70);
    seen_count = 0;
    push(1, 0, 8, 80);
    drain(80);
    ck_assert_uint_eq(seen_count, 1);
    ck_assert_uint_eq(seen[0].to, 2);
}
END_TEST

START_TEST(ignores_what_is_no_frame)
{
    uint8_t bytes[IMPAIR_FRAME_MIN + 1] = {0};
    for (uint32_t size = 0; size < 14; size++) {
        impair_switch_push(sw, 0, bytes, size, 1);
    }
    impair_switch_push(sw, 0, bytes, sizeof(bytes), 1);
    ck_assert_uint_eq(impair_switch_under_way(sw), 0);
    ck_assert_uint_eq(impair_switch_due_ns(sw), IMPAIR_NEVER);
}
END_TEST

START_TEST(perfect_link_keeps_all)
{
    send_many(&(struct impair_rule){0}, MANY);
    ck_assert_uint_eq(seen_count, MANY);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < seen_count; i++) {
        wrong += seen[i].id != i || seen[i].at_ns != sent_ns(i);
    }
    ck_assert_uint_eq(wrong, 0);
    check_sum();
}
END_TEST

START_TEST(equal_times_keep_order)
{
    introduce();
    for (uint32_t i = 0; i < 500; i++) {
        push(0, 1, i, NS_PER_S);
    }
    drain(NS_PER_S);
    for (uint32_t i = 0; i < 500; i++) {
        ck_assert_uint_eq(seen[i].id, i);
    }
}
END_TEST

START_TEST(loss_is_binomial)
{
    send_many(&(struct impair_rule){.loss = 0.1}, MANY);
    check_share(link_counters()->lost, MANY, 0.1);
    /* Independent: the chance of a loss right behind a loss is the same. */
    uint32_t pairs = 0;
    for (uint32_t i = 1; i < seen_count; i++) {
        uint32_t gap = seen[i].id - seen[i - 1].id - 1;
        pairs += gap > 1 ? gap - 1 : 0;
    }
    check_share(pairs, (double)link_counters()->lost, 0.1);
    check_sum();
}
END_TEST

START_TEST(bursts_are_geometric)
{
    struct impair_rule rule = {.burst_begin = 0.02, .burst_end = 0.25, .burst_loss = 1};
    send_many(&rule, MANY);
    uint32_t bursts = 0;
    for (uint32_t i = 1; i < seen_count; i++) {
        bursts += seen[i].id - seen[i - 1].id > 1;
    }
    double lost = (double)link_counters()->burst_lost;
    /* Stationary share of the bad state: begin / (begin + end); mean length: 1 / end. */
    ck_assert_double_eq_tol(lost / MANY, 0.02 / 0.27, 0.01);
    ck_assert_double_eq_tol(lost / bursts, 4, 0.4);
    ck_assert_uint_eq(link_counters()->lost, 0);
    check_sum();
}
END_TEST

START_TEST(loss_within_and_between_bursts)
{
    struct impair_rule rule = {
        .loss = 0.01, .burst_begin = 0.1, .burst_end = 0.1, .burst_loss = 0.5};
    send_many(&rule, MANY);
    ck_assert_double_eq_tol((double)link_counters()->lost / MANY, 0.005, 0.002);
    ck_assert_double_eq_tol((double)link_counters()->burst_lost / MANY, 0.25, 0.02);
}
END_TEST

START_TEST(duplicates)
{
    send_many(&(struct impair_rule){.duplicate = 0.05, .delay_ns = NS_PER_MS}, MANY);
    ck_assert_uint_eq(seen_count, MANY + link_counters()->duplicated);
    check_share(link_counters()->duplicated, MANY, 0.05);
    check_sum();
}
END_TEST

START_TEST(reorders_the_share)
{
    send_many(&(struct impair_rule){.reorder = 0.1, .reorder_ns = 5 * NS_PER_MS / 2}, MANY);
    uint32_t late = 0, odd = 0;
    for (uint32_t i = 0; i < seen_count; i++) {
        uint64_t delay = seen[i].at_ns - sent_ns(seen[i].id);
        odd += delay != 0 && delay != 5 * NS_PER_MS / 2;
        late += delay != 0;
    }
    ck_assert_uint_eq(odd, 0);
    ck_assert_uint_eq(seen_count, MANY);
    ck_assert_uint_eq(late, link_counters()->reordered);
    check_share(late, MANY, 0.1);
}
END_TEST

START_TEST(uniform_quantiles)
{
    struct impair_rule rule = {.delay_ns = 50 * NS_PER_MS, .jitter_ns = 10 * NS_PER_MS};
    send_many(&rule, MANY);
    ck_assert_double_eq_tol(delay_quantile(0.05), 41, 0.3);
    ck_assert_double_eq_tol(delay_quantile(0.5), 50, 0.4);
    ck_assert_double_eq_tol(delay_quantile(0.95), 59, 0.3);
    ck_assert_double_ge(delay_quantile(0), 40);
    ck_assert_double_le(delay_quantile(1), 60);
}
END_TEST

START_TEST(normal_quantiles)
{
    struct impair_rule rule = {
        .delay_ns = 50 * NS_PER_MS, .jitter_ns = 5 * NS_PER_MS, .jitter = IMPAIR_JITTER_NORMAL};
    send_many(&rule, MANY);
    ck_assert_double_eq_tol(delay_quantile(0.05), 50 - 1.6449 * 5, 0.4);
    ck_assert_double_eq_tol(delay_quantile(0.5), 50, 0.2);
    ck_assert_double_eq_tol(delay_quantile(0.99), 50 + 2.3263 * 5, 0.6);
}
END_TEST

START_TEST(pareto_quantiles)
{
    struct impair_rule rule = {
        .delay_ns = 20 * NS_PER_MS, .jitter_ns = 4 * NS_PER_MS, .jitter = IMPAIR_JITTER_PARETO};
    send_many(&rule, MANY);
    /* Lomax, shape 3, scale 8: 8 ((1 - q)^(-1/3) - 1). */
    ck_assert_double_eq_tol(delay_quantile(0.5), 20 + 8 * (pow(0.5, -1.0 / 3) - 1), 0.1);
    ck_assert_double_eq_tol(delay_quantile(0.9), 20 + 8 * (pow(0.1, -1.0 / 3) - 1), 0.5);
    ck_assert_double_ge(delay_quantile(0), 20);
    ck_assert_double_le(delay_quantile(1), 20 + 400);
}
END_TEST

START_TEST(jitter_overtakes_unless_forbidden)
{
    for (int keep = 0; keep < 2; keep++) {
        struct impair_rule rule = {
            .delay_ns = 20 * NS_PER_MS, .jitter_ns = 10 * NS_PER_MS, .keep_order = keep != 0};
        uint32_t overtaken = 0;
        seen_count = 0;
        send_many(&rule, 2000);
        for (uint32_t i = 1; i < seen_count; i++) {
            overtaken += seen[i].id < seen[i - 1].id;
        }
        ck_assert_uint_eq(seen_count, 2000);
        ck_assert(keep != 0 ? overtaken == 0 : overtaken > 100);
    }
}
END_TEST

START_TEST(rate_spaces_and_queue_drops_the_tail)
{
    /* 100 bytes at 800 kbit/s take 1 ms; the queue holds nine besides the one on the wire. */
    struct impair_rule rule = {.rate_bits = 800000, .queue_bytes = 1000};
    impair_switch_rule(sw, 0, 1, &rule);
    introduce();
    for (uint32_t i = 0; i < 50; i++) {
        push(0, 1, i, NS_PER_S);
    }
    drain(IMPAIR_NEVER - 1);
    ck_assert_uint_eq(seen_count, 10);
    ck_assert_uint_eq(link_counters()->queue_full, 40);
    for (uint32_t i = 0; i < seen_count; i++) {
        ck_assert_uint_eq(seen[i].id, i);
        ck_assert_uint_eq(seen[i].at_ns, NS_PER_S + (i + 1) * NS_PER_MS);
    }
    push(0, 1, 99, 2 * NS_PER_S); /* the queue has emptied itself */
    drain(IMPAIR_NEVER - 1);
    ck_assert_uint_eq(seen[seen_count - 1].at_ns, 2 * NS_PER_S + NS_PER_MS);
    check_sum();
}
END_TEST

START_TEST(mtu_and_cut)
{
    send_many(&(struct impair_rule){.mtu = FRAME_SIZE - 14}, 10);
    ck_assert_uint_eq(seen_count, 10);
    send_many(&(struct impair_rule){.mtu = FRAME_SIZE - 15}, 10);
    ck_assert_uint_eq(seen_count, 0);
    ck_assert_uint_eq(link_counters()->too_big, 10);
    send_many(&(struct impair_rule){.cut = true}, 10);
    ck_assert_uint_eq(seen_count, 0);
    ck_assert_uint_eq(link_counters()->cut, 10);
    push(1, 0, 7, IMPAIR_NEVER / 2); /* the other way is open */
    drain(IMPAIR_NEVER - 1);
    ck_assert_uint_eq(seen_count, 1);
}
END_TEST

START_TEST(cut_and_healed_while_frames_are_under_way)
{
    struct impair_rule rule = {.delay_ns = 10 * NS_PER_MS};
    impair_switch_rule(sw, 0, 1, &rule);
    introduce();
    push(0, 1, 1, NS_PER_S);
    rule.cut = true;
    impair_switch_rule(sw, 0, 1, &rule);
    push(0, 1, 2, NS_PER_S + 1);
    rule.cut = false;
    impair_switch_rule(sw, 0, 1, &rule);
    push(0, 1, 3, NS_PER_S + 2);
    drain(IMPAIR_NEVER - 1);
    ck_assert_uint_eq(seen_count, 2);
    ck_assert_uint_eq(seen[0].id, 1);
    ck_assert_uint_eq(seen[1].id, 3);
}
END_TEST

START_TEST(memory_is_bounded)
{
    teardown();
    setup_with(1, 8);
    impair_switch_rule(sw, 0, 1, &(struct impair_rule){.delay_ns = NS_PER_S});
    introduce();
    for (uint32_t i = 0; i < 20; i++) {
        push(0, 1, i, NS_PER_S);
    }
    ck_assert_uint_eq(link_counters()->no_memory, 12);
    check_sum();
    drain(IMPAIR_NEVER - 1);
    ck_assert_uint_eq(seen_count, 8);
    for (uint32_t i = 0; i < 8; i++) { /* all slots came back */
        push(0, 1, i, 9 * NS_PER_S);
    }
    ck_assert_uint_eq(impair_switch_under_way(sw), 8);
}
END_TEST

/* Everything at once; 1 -> 0 only carries frames in the second run. */
static void run_mixed(uint64_t seed, bool others)
{
    struct impair_rule rule = {.delay_ns = NS_PER_MS,
                               .jitter_ns = NS_PER_MS,
                               .loss = 0.1,
                               .burst_begin = 0.01,
                               .burst_end = 0.2,
                               .burst_loss = 0.9,
                               .duplicate = 0.1,
                               .reorder = 0.1,
                               .reorder_ns = 3 * NS_PER_MS};
    setup_with(seed, 4096);
    impair_switch_rule(sw, 0, 1, &rule);
    impair_switch_rule(sw, 1, 0, &rule);
    introduce();
    for (uint32_t i = 0; i < 2000; i++) {
        drain(sent_ns(i));
        push(0, 1, i, sent_ns(i));
        if (others) {
            push(1, 0, MANY + i, sent_ns(i));
        }
    }
    drain(IMPAIR_NEVER - 1);
}

/* Arrivals at port 1 as one number. */
static uint64_t trace(void)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < seen_count; i++) {
        if (seen[i].to == 1) {
            hash =
                (hash ^ seen[i].at_ns ^ (uint64_t)seen[i].id << 40) * UINT64_C(0x9e3779b97f4a7c15);
        }
    }
    return hash;
}

START_TEST(same_seed_same_decisions)
{
    uint64_t traces[4];
    const uint64_t seeds[4] = {5, 5, 5, 6};
    teardown();
    for (int i = 0; i < 4; i++) {
        run_mixed(seeds[i], i == 2);
        traces[i] = trace();
        check_sum();
        if (i < 3) {
            teardown();
        }
    }
    ck_assert_uint_eq(traces[0], traces[1]);
    ck_assert_uint_eq(traces[0], traces[2]); /* traffic of other pairs changes nothing */
    ck_assert_uint_ne(traces[0], traces[3]);
}
END_TEST

START_TEST(config_is_checked)
{
    const struct impair_config bad[] = {{0, 0, 2000, 1},
                                        {0, IMPAIR_PORTS_MAX + 1, 2000, 1},
                                        {0, 1, IMPAIR_FRAME_MIN - 1, 1},
                                        {0, 1, IMPAIR_FRAME_MAX + 1, 1},
                                        {0, 1, 2000, 0},
                                        {0, 1, 2000, IMPAIR_FRAMES_MAX + 1}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_ptr_null(impair_switch_create(&bad[i]));
    }
    impair_switch_destroy(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("impair_switch");
    TCase *tc = tcase_create("switch");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, learns_and_floods);
    tcase_add_test(tc, ignores_what_is_no_frame);
    tcase_add_test(tc, perfect_link_keeps_all);
    tcase_add_test(tc, equal_times_keep_order);
    tcase_add_test(tc, loss_is_binomial);
    tcase_add_test(tc, bursts_are_geometric);
    tcase_add_test(tc, loss_within_and_between_bursts);
    tcase_add_test(tc, duplicates);
    tcase_add_test(tc, reorders_the_share);
    tcase_add_test(tc, uniform_quantiles);
    tcase_add_test(tc, normal_quantiles);
    tcase_add_test(tc, pareto_quantiles);
    tcase_add_test(tc, jitter_overtakes_unless_forbidden);
    tcase_add_test(tc, rate_spaces_and_queue_drops_the_tail);
    tcase_add_test(tc, mtu_and_cut);
    tcase_add_test(tc, cut_and_healed_while_frames_are_under_way);
    tcase_add_test(tc, memory_is_bounded);
    tcase_add_test(tc, same_seed_same_decisions);
    tcase_add_test(tc, config_is_checked);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
