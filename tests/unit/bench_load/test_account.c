/* SPDX-License-Identifier: Apache-2.0 */
/* test_account.c - notes of a run with known figures; the JSON and the log made of them. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/load/report.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"

#define COUNT 1000u

static struct drive drive;
static struct account account;

/* Request i is due at i ms, sent 10 us later, has its first token i us after it was due and 10
 * more, 2 ms apart. */
static void make_drive(void)
{
    static const float gaps[] = {1000, 2000, 3000};
    drive = (struct drive){.samples = calloc(COUNT, sizeof(*drive.samples)),
                           .sent = COUNT,
                           .ended = COUNT,
                           .gaps_us = malloc(sizeof(gaps)),
                           .gaps = 3,
                           .took_ns = NS_PER_S,
                           .node_count = 1};
    memcpy(drive.gaps_us, gaps, sizeof(gaps));
    strcpy(drive.nodes[0], "tokyo");
    for (uint32_t i = 0; i < COUNT; i++) {
        uint64_t due_ns = i * NS_PER_MS;
        uint64_t first_ns = due_ns + i * NS_PER_US;
        drive.samples[i] = (struct drive_sample){.due_ns = due_ns,
                                                 .sent_ns = due_ns + 10 * NS_PER_US,
                                                 .first_ns = first_ns,
                                                 .end_ns = first_ns + 20 * NS_PER_MS,
                                                 .tokens = 11};
    }
}

static void lose(uint32_t index, int status)
{
    drive.samples[index].status = status;
    drive.samples[index].first_ns = 0;
    drive.samples[index].node = DRIVE_NODE_NONE;
}

static void done(void)
{
    account_deinit(&account);
    drive_deinit(&drive);
}

START_TEST(figures_of_a_run)
{
    const struct account_plan plan = {.slo_first_ms = 0.5, .slo_token_ms = 2.0};
    make_drive();
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    ck_assert_uint_eq(account.answered, COUNT);
    ck_assert_double_eq_tol(account.first.q[0], 0.499, 1e-9);
    ck_assert_double_eq_tol(account.first.q[3], 0.989, 1e-9);
    ck_assert_double_eq_tol(account.first.max, 0.999, 1e-9);
    ck_assert_double_eq_tol(account.total.q[0], 20.499, 1e-9);
    ck_assert_double_eq_tol(account.token.q[3], 2.0, 1e-9);
    ck_assert_double_eq_tol(account.gap.q[0], 2.0, 1e-9);
    ck_assert_double_eq_tol(account.lateness.q[0], 0.01, 1e-9);
    ck_assert_uint_eq(account.late, 0);
    ck_assert_uint_eq(account.good, 501); /* 0 to 500 us */
    ck_assert_uint_eq(account.tokens, 11 * COUNT);
    ck_assert_uint_eq(account.served[0], COUNT);
    ck_assert_uint_eq(account.refusal.samples, 0);
    done();
}
END_TEST

/* What the worker had it is taken off, of answers that one worker gave and of which it has said so.
 */
START_TEST(the_workers_own_time_is_taken_off)
{
    const struct account_plan plan = {0};
    make_drive();
    for (uint32_t i = 500; i < COUNT; i++) {
        drive.samples[i].worker_ns = 400 * NS_PER_US;
    }
    drive.samples[999].failovers = 1;
    lose(998, WEFT_E_STALLED);
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    ck_assert_uint_eq(account.outside.samples, 498);
    ck_assert_uint_eq(account.outside.lost, 0);
    ck_assert_double_eq_tol(account.outside.sorted[0], 0.09, 1e-9); /* sent 10 us late */
    ck_assert_double_eq_tol(account.outside.max, 0.587, 1e-9);
    done();
}
END_TEST

START_TEST(what_was_lost_or_refused_took_forever)
{
    const struct account_plan plan = {.intervals = true, .seed = 1};
    make_drive();
    for (uint32_t i = 0; i < 20; i++) {
        lose(i * 50, i % 2 == 0 ? WEFT_E_STALLED : WEFT_E_MESH_FULL);
    }
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    ck_assert_uint_eq(account.failed, 10);
    ck_assert_uint_eq(account.refused, 10);
    ck_assert_uint_eq(account.answered, 980);
    ck_assert_uint_eq(account.first.samples, COUNT);
    ck_assert_uint_eq(account.first.lost, 20);
    ck_assert(isfinite(account.first.q[2]));
    ck_assert(isinf(account.first.q[3])); /* 2 % */
    ck_assert(isinf(account.first.interval[3].high));
    ck_assert(isinf(account.first.max) && isfinite(account.first.mean));
    ck_assert_uint_eq(account.refusal.samples, 10);
    ck_assert_uint_eq(account.token.samples, 980);
    ck_assert_uint_eq(account.good, 980);
    done();
}
END_TEST

START_TEST(warmup_is_left_out_of_latencies_and_not_of_counts)
{
    const struct account_plan plan = {.warmup_s = 0.5};
    make_drive();
    lose(3, WEFT_E_STALLED);
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    ck_assert_uint_eq(account.measured, 500);
    ck_assert_double_eq_tol(account.first.q[0], 0.749, 1e-9);
    ck_assert_uint_eq(account.first.lost, 0);
    ck_assert_uint_eq(account.failed, 1);
    done();
}
END_TEST

START_TEST(latency_counts_from_when_a_request_was_due)
{
    const struct account_plan plan = {.intervals = false};
    make_drive();
    for (uint32_t i = 0; i < COUNT; i++) { /* the sender came 5 ms late */
        drive.samples[i].sent_ns += 5 * NS_PER_MS;
        drive.samples[i].first_ns += 5 * NS_PER_MS;
    }
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    ck_assert_double_eq_tol(account.first.q[0], 5.499, 1e-9);
    ck_assert_double_eq_tol(account.lateness.q[0], 5.01, 1e-9);
    ck_assert_uint_eq(account.late, COUNT);
    done();
}
END_TEST

START_TEST(json_and_log)
{
    const struct account_plan plan = {.intervals = true, .slo_first_ms = 0.5};
    char *argv[] = {(char *)"load", NULL};
    char path[] = "/tmp/weft-hlog-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
    make_drive();
    lose(7, WEFT_E_STALLED);
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    const struct report_context c = {.drive = &drive,
                                     .plan = &plan,
                                     .account = &account,
                                     .floor = &account,
                                     .arrivals = "fixed",
                                     .argc = 1,
                                     .argv = argv};
    json_t *out = report_as_json(&c);
    const json_t *first = json_object_get(out, "first_token_ms");
    ck_assert_double_eq_tol(json_real_value(json_object_get(first, "p50")), 0.5, 1e-3);
    ck_assert(json_is_null(json_object_get(first, "max")));
    ck_assert_int_eq(json_integer_value(json_object_get(first, "never")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(out, "failed")), 1);
    ck_assert_uint_eq(json_array_size(json_object_get(out, "series")), 2);
    ck_assert_uint_gt(json_array_size(json_object_get(out, "curve_total")), 30);
    ck_assert(json_is_false(json_object_get(json_object_get(first, "enough_samples"), "p999")));
    json_decref(out);
    ck_assert_int_eq(report_hlog(&c, path), 0);
    ck_assert_int_ne(report_hlog(&c, "/nonexistent/x.hlog"), 0);
    unlink(path);
    done();
}
END_TEST

START_TEST(nothing_sent)
{
    const struct account_plan plan = {.intervals = true};
    drive = (struct drive){.samples = calloc(1, sizeof(*drive.samples)), .took_ns = 1};
    ck_assert_int_eq(account_make(&account, &drive, &plan), 0);
    ck_assert_uint_eq(account.requests, 0);
    ck_assert_double_eq(account.first.q[3], 0);
    done();
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_account");
    TCase *t = tcase_create("account");
    tcase_add_test(t, figures_of_a_run);
    tcase_add_test(t, the_workers_own_time_is_taken_off);
    tcase_add_test(t, what_was_lost_or_refused_took_forever);
    tcase_add_test(t, warmup_is_left_out_of_latencies_and_not_of_counts);
    tcase_add_test(t, latency_counts_from_when_a_request_was_due);
    tcase_add_test(t, json_and_log);
    tcase_add_test(t, nothing_sent);
    suite_add_tcase(s, t);
    return suite_main(s);
}
