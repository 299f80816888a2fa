/* SPDX-License-Identifier: Apache-2.0 */
/* test_stats.c - figures with known answers (those of Anderson-Darling, KPSS and MSER-5 computed
 * with scipy and numpy from the formulas), and intervals that hold what they promise. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "bench/load/stats.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

START_TEST(quantiles_are_samples)
{
    double v[1000];
    for (uint32_t i = 0; i < 1000; i++) {
        v[i] = i + 1;
    }
    ck_assert_double_eq(stats_quantile(v, 1000, 0.5), 500);
    ck_assert_double_eq(stats_quantile(v, 1000, 0.99), 990);
    ck_assert_double_eq(stats_quantile(v, 1000, 0.999), 999);
    ck_assert_double_eq(stats_quantile(v, 1000, 0.9999), 1000);
    ck_assert_double_eq(stats_quantile(v, 1000, 0), 1);
    ck_assert_double_eq(stats_quantile(v, 1, 0.99), 1);
    ck_assert_double_eq(stats_quantile(v, 0, 0.99), 0);
    /* Two in a hundred lost: p99 is infinite, p98 is not. */
    v[999] = v[998] = INFINITY;
    ck_assert_double_eq(stats_quantile(v + 900, 100, 0.98), 998);
    ck_assert(isinf(stats_quantile(v + 900, 100, 0.99)));
}
END_TEST

START_TEST(enough_samples)
{
    ck_assert(stats_enough(200, 0.5));
    ck_assert(!stats_enough(199, 0.5));
    ck_assert(stats_enough(10000, 0.99));
    ck_assert(!stats_enough(9999, 0.99));
    ck_assert(stats_enough(1000000, 0.9999));
}
END_TEST

START_TEST(anderson_darling_as_scipy_has_it)
{
    double x[] = {0.31, 1.25, 0.02, 0.77, 2.9, 0.5, 0.11, 1.6, 0.44, 0.9, 3.3, 0.21};
    double u[12];
    ck_assert_double_eq_tol(stats_exponential(x, 12), 0.20239914262172, 1e-12);
    for (uint32_t i = 0; i < 12; i++) {
        u[i] = 0.1 * (i + 1);
    }
    ck_assert_double_eq_tol(stats_exponential(u, 12), 1.03551770644764, 1e-12);
    ck_assert_double_eq(stats_exponential(u, 7), 0);
    u[0] = 0; /* two events in the same tick of the clock */
    ck_assert(isfinite(stats_exponential(u, 12)));
}
END_TEST

START_TEST(kpss_as_computed_by_hand)
{
    const double v[] = {3, 4, 3, 5, 4, 6, 5, 7, 6, 5, 8, 7, 9, 8, 7, 10, 9, 8, 11, 10};
    ck_assert_double_eq_tol(stats_kpss(v, 20), 0.7597643979057592, 1e-12);
    ck_assert_double_eq(stats_kpss(v, 15), 0);
}
END_TEST

START_TEST(kpss_tells_noise_from_a_drift)
{
    static double v[5000];
    struct rng rng = {.state = (uint64_t)_i};
    for (uint32_t i = 0; i < 5000; i++) {
        v[i] = rng_unit(&rng);
    }
    ck_assert_double_lt(stats_kpss(v, 5000), 2 * STATS_KPSS_LIMIT);
    for (uint32_t i = 0; i < 5000; i++) {
        v[i] += i < 2500 ? 0 : 0.3;
    }
    ck_assert_double_gt(stats_kpss(v, 5000), 4 * STATS_KPSS_LIMIT);
}
END_TEST

START_TEST(warmup_as_mser_5_finds_it)
{
    static const double head[] = {50, 40, 30, 22, 18, 15, 14, 13, 12, 12};
    static const double rest[] = {10, 11, 9, 10, 12, 8, 10, 11, 9, 10};
    double v[50];
    for (uint32_t i = 0; i < 50; i++) {
        v[i] = i < 10 ? head[i] : rest[i % 10];
    }
    ck_assert_uint_eq(stats_warmup(v, 50), 10);
    ck_assert_uint_eq(stats_warmup(v + 10, 40), 0);
    ck_assert_uint_eq(stats_warmup(v, 4), 0);
}
END_TEST

/* Of 100 experiments with samples that depend on their neighbours, most intervals hold the true
 * median; intervals that took the samples for independent would hold it in about half. */
START_TEST(intervals_hold_the_truth)
{
    static double v[1000];
    struct rng rng = {.state = 11};
    const double q = 0.5;
    uint32_t held = 0;
    for (uint32_t trial = 0; trial < 100; trial++) {
        double level = 0;
        for (uint32_t i = 0; i < 1000; i++) {
            level = 0.7 * level + rng_unit(&rng) - 0.5; /* symmetric about 0 */
            v[i] = level;
        }
        struct stats_interval interval;
        ck_assert_int_eq(stats_bootstrap(v, 1000, &q, 1, trial, &interval), 0);
        ck_assert_double_lt(interval.low, interval.high);
        held += interval.low <= 0 && interval.high >= 0;
    }
    ck_assert_uint_ge(held, 82);
    ck_assert_uint_le(held, 100);
}
END_TEST

START_TEST(intervals_of_losses_and_of_nothing)
{
    double v[64];
    const double q[] = {0.5, 0.99};
    struct stats_interval interval[2];
    for (uint32_t i = 0; i < 64; i++) {
        v[i] = i % 16 == 0 ? (double)INFINITY : (double)i;
    }
    ck_assert_int_eq(stats_bootstrap(v, 64, q, 2, 1, interval), 0);
    ck_assert(isfinite(interval[0].low) && isfinite(interval[0].high));
    ck_assert(isinf(interval[1].high));
    ck_assert_int_eq(stats_bootstrap(v, 0, q, 2, 1, interval), 0);
    ck_assert_double_eq(interval[1].high, 0);
    ck_assert_int_eq(stats_bootstrap(v + 1, 1, q, 2, 1, interval), 0);
    ck_assert_double_eq(interval[1].low, 1);
}
END_TEST

START_TEST(slopes)
{
    const double x[] = {0, 1, 2, 3}, y[] = {5, 7, 9, 11}, same[] = {2, 2, 2, 2};
    ck_assert_double_eq_tol(stats_slope(x, y, 4), 2, 1e-12);
    ck_assert_double_eq(stats_slope(same, y, 4), 0);
    ck_assert_double_eq(stats_slope(x, same, 4), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_stats");
    TCase *t = tcase_create("stats");
    tcase_add_test(t, quantiles_are_samples);
    tcase_add_test(t, enough_samples);
    tcase_add_test(t, anderson_darling_as_scipy_has_it);
    tcase_add_test(t, kpss_as_computed_by_hand);
    tcase_add_loop_test(t, kpss_tells_noise_from_a_drift, 1, 9);
    tcase_add_test(t, warmup_as_mser_5_finds_it);
    tcase_add_test(t, intervals_hold_the_truth);
    tcase_add_test(t, intervals_of_losses_and_of_nothing);
    tcase_add_test(t, slopes);
    suite_add_tcase(s, t);
    return suite_main(s);
}
