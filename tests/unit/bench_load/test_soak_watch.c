/* SPDX-License-Identifier: Apache-2.0 */
/* test_soak_watch.c - series that grow, that are flat, that began anew; readings of this process.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/soak_watch.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static struct watch_series series;

static void done(void)
{
    free(series.seconds);
    free(series.values);
    series = (struct watch_series){.pid = 0};
}

/* 600 readings, a second apart: base, a slope an hour, noise. */
static struct watch_verdict judge(enum watch_kind kind, double base, double per_hour, double noise)
{
    struct rng rng = {.state = 3};
    series = (struct watch_series){.kind = kind};
    for (uint32_t i = 0; i < 600; i++) {
        watch_note(&series, 7, i, base + per_hour * i / 3600.0 + noise * (rng_unit(&rng) - 0.5));
    }
    struct watch_verdict v = watch_judge(&series);
    done();
    return v;
}

START_TEST(what_grows_and_what_does_not)
{
    struct watch_verdict v = judge(WATCH_RSS_KIB, 20000, 60000, 100); /* 5 MiB in five minutes */
    ck_assert(v.judged && !v.flat);
    ck_assert_double_eq_tol(v.per_hour, 60000, 1000);
    ck_assert_double_eq_tol(v.grown, 60000.0 / 12, 100);
    ck_assert(judge(WATCH_RSS_KIB, 20000, 0, 4000).flat);
    ck_assert(judge(WATCH_RSS_KIB, 20000, -60000, 0).flat);
    ck_assert(!judge(WATCH_FDS, 20, 60, 0).flat);
    ck_assert(judge(WATCH_FDS, 20, 6, 0).flat);
    ck_assert(!judge(WATCH_MBUFS, 0, 3600, 10).flat);
}
END_TEST

START_TEST(growth_at_the_beginning_is_allowed)
{
    series = (struct watch_series){.kind = WATCH_RSS_KIB};
    for (uint32_t i = 0; i < 100; i++) {
        watch_note(&series, 7, i, i < 40 ? i * 1000 : 40000);
    }
    ck_assert(watch_judge(&series).flat);
    done();
}
END_TEST

START_TEST(a_new_process_begins_anew)
{
    series = (struct watch_series){.kind = WATCH_RSS_KIB};
    for (uint32_t i = 0; i < 100; i++) {
        watch_note(&series, i < 95 ? 7 : 8, i, i * 10000);
    }
    ck_assert_uint_eq(series.restarts, 1);
    ck_assert_uint_eq(series.count, 5);
    ck_assert(!watch_judge(&series).judged);
    ck_assert(watch_judge(&series).flat);
    done();
}
END_TEST

START_TEST(readings_of_this_process)
{
    char folder[] = "/tmp/weft-watch-XXXXXX", pid_file[64], other[64];
    static struct watch w;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(pid_file, sizeof(pid_file), "%s/pid", folder);
    snprintf(other, sizeof(other), "%s/other", folder);
    FILE *f = fopen(pid_file, "w");
    fprintf(f, "%d\n", getpid());
    fclose(f);
    ck_assert_int_eq(watch_add_process(&w, "self", pid_file), 0);
    ck_assert_int_eq(watch_add_folder(&w, "files", folder), 0);
    ck_assert_int_eq(watch_add_node(&w, "nobody", "/nonexistent/admin.sock"), 0);
    ck_assert_int_eq(watch_add_process(&w, "gone", "/nonexistent/pid"), 0);
    watch_read(&w, 1);
    int fd = dup(0);
    f = fopen(other, "w");
    watch_read(&w, 2);
    fclose(f);
    ck_assert_double_gt(w.series[0].values[0], 100);
    ck_assert_double_eq(w.series[1].values[1] - w.series[1].values[0], 2);
    ck_assert_double_ge(w.series[2].values[0], 1);
    ck_assert_double_eq(w.series[3].values[0], 1);
    ck_assert_double_eq(w.series[3].values[1], 2);
    for (uint32_t i = 4; i < w.count; i++) {
        ck_assert_uint_eq(w.series[i].count, 0);
    }
    close(fd);
    unlink(other);
    unlink(pid_file);
    rmdir(folder);
    watch_deinit(&w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("soak_watch");
    TCase *t = tcase_create("watch");
    tcase_add_test(t, what_grows_and_what_does_not);
    tcase_add_test(t, growth_at_the_beginning_is_allowed);
    tcase_add_test(t, a_new_process_begins_anew);
    tcase_add_test(t, readings_of_this_process);
    suite_add_tcase(s, t);
    return suite_main(s);
}
