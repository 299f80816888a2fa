/* SPDX-License-Identifier: Apache-2.0 */
/* test_schedule.c - arrivals: rates, gaps, bursts, seeds; and what a stall does to a latency that
 * counts from when a request was due, and to one that counts from when it was sent. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/schedule.h"
#include "bench/load/stats.h"
#include "tests/unit/suite.h"

#define COUNT 20000u

static uint64_t due[COUNT];
static double gaps[COUNT];

static double seconds_of(const struct schedule_plan *plan, uint32_t count)
{
    schedule_draw(plan, due, count);
    for (uint32_t i = 1; i < count; i++) {
        ck_assert_uint_ge(due[i], due[i - 1]);
        gaps[i - 1] = (double)(due[i] - due[i - 1]) / 1e9;
    }
    return (double)due[count - 1] / 1e9;
}

START_TEST(poisson_has_its_rate_and_exponential_gaps)
{
    struct schedule_plan plan = {.kind = SCHEDULE_POISSON, .rate = 250, .seed = (uint64_t)_i};
    /* 4 standard deviations of the sum of 20,000 exponentials. */
    ck_assert_double_eq_tol(seconds_of(&plan, COUNT), COUNT / 250.0, 4 * 141.4 / 250.0);
    /* One seed in 100 fails at STATS_AD_LIMIT; none of a few gets twice that. */
    ck_assert_double_lt(stats_exponential(gaps, COUNT - 1), 2 * STATS_AD_LIMIT);
}
END_TEST

START_TEST(fixed_gaps_are_equal)
{
    struct schedule_plan plan = {.kind = SCHEDULE_FIXED, .rate = 1000};
    seconds_of(&plan, 100);
    ck_assert_uint_eq(due[0], 0);
    ck_assert_uint_eq(due[99], 99000000);
    ck_assert_double_gt(stats_exponential(gaps, 99), STATS_AD_LIMIT);
}
END_TEST

START_TEST(bursts_keep_the_mean_rate_and_are_no_poisson_process)
{
    struct schedule_plan plan = {
        .kind = SCHEDULE_BURSTS, .rate = 1000, .on_s = 0.02, .off_s = 0.08, .seed = 3};
    /* 200 cycles of on and off: their sum varies by about a tenth. */
    ck_assert_double_eq_tol(seconds_of(&plan, COUNT), 20.0, 6.0);
    ck_assert_double_gt(stats_exponential(gaps, COUNT - 1), 100.0);
    /* Most gaps are those within a burst, five times as dense as the mean. */
    ck_assert_double_eq_tol(stats_quantile(gaps, COUNT - 1, 0.5), 0.000139, 0.00001);
    ck_assert_double_gt(gaps[COUNT - 2], 0.1);
}
END_TEST

START_TEST(equal_seeds_draw_equal_times)
{
    static uint64_t again[100];
    struct schedule_plan plan = {.kind = SCHEDULE_POISSON, .rate = 10, .seed = 7};
    schedule_draw(&plan, due, 100);
    schedule_draw(&plan, again, 100);
    ck_assert_mem_eq(due, again, sizeof(again));
    plan.seed = 8;
    schedule_draw(&plan, again, 100);
    ck_assert_mem_ne(due, again, sizeof(again));
}
END_TEST

/* ---- coordinated omission, in virtual time ---- */

#define CYCLE_S   10.0
#define STALL_S   1.0
#define SERVICE_S 0.001

/* When a server that stands still for STALL_S at the end of each CYCLE_S answers what comes at
 * `at_s`; it serves any number at once. */
static double answered_at(double at_s)
{
    double in_cycle = at_s - CYCLE_S * (double)(uint64_t)(at_s / CYCLE_S);
    double left = CYCLE_S - in_cycle;
    return (left <= STALL_S ? at_s + left : at_s) + SERVICE_S;
}

/* Of all that arrive, STALL/CYCLE wait, uniformly up to STALL: quantile q waits
 * STALL - (1 - q) * CYCLE. */
START_TEST(open_loop_shows_a_stall_as_theory_says)
{
    struct schedule_plan plan = {.kind = SCHEDULE_POISSON, .rate = 20, .seed = 5};
    static double latency[COUNT];
    schedule_draw(&plan, due, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        double at_s = (double)due[i] / 1e9;
        latency[i] = answered_at(at_s) - at_s;
    }
    qsort(latency, COUNT, sizeof(double), stats_compare);
    ck_assert_double_eq_tol(stats_quantile(latency, COUNT, 0.50), SERVICE_S, 1e-6);
    ck_assert_double_eq_tol(stats_quantile(latency, COUNT, 0.95), 0.5 + SERVICE_S, 0.05);
    ck_assert_double_eq_tol(stats_quantile(latency, COUNT, 0.99), 0.9 + SERVICE_S, 0.02);
}
END_TEST

/* The same server asked by one client that waits for its answers: in 10 s it sends 9,000 quick ones
 * and one slow one, and its p99 sees nothing. */
START_TEST(closed_loop_does_not_see_it)
{
    static double latency[COUNT];
    double at_s = 0;
    for (uint32_t i = 0; i < COUNT; i++) {
        double end_s = answered_at(at_s);
        latency[i] = end_s - at_s;
        at_s = end_s;
    }
    ck_assert_double_gt(at_s, CYCLE_S); /* stalls were met */
    qsort(latency, COUNT, sizeof(double), stats_compare);
    ck_assert_double_eq_tol(stats_quantile(latency, COUNT, 0.99), SERVICE_S, 1e-6);
    ck_assert_double_gt(latency[COUNT - 1], 0.9 * STALL_S);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_schedule");
    TCase *t = tcase_create("schedule");
    tcase_add_loop_test(t, poisson_has_its_rate_and_exponential_gaps, 1, 9);
    tcase_add_test(t, fixed_gaps_are_equal);
    tcase_add_test(t, bursts_keep_the_mean_rate_and_are_no_poisson_process);
    tcase_add_test(t, equal_seeds_draw_equal_times);
    tcase_add_test(t, open_loop_shows_a_stall_as_theory_says);
    tcase_add_test(t, closed_loop_does_not_see_it);
    suite_add_tcase(s, t);
    return suite_main(s);
}
