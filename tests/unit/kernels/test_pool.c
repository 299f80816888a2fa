/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/cpu/pool.c: every index once, results visible, sleepers woken. */
#include <check.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "kernels/cpu/pool.h"
#include "tests/unit/suite.h"

#define RUNS 3000u

struct work {
    uint32_t calls[8];
    uint32_t value;
    uint32_t wrong;
};

static void add(void *arg, uint32_t index, uint32_t count)
{
    struct work *w = arg;
    (void)count;
    if (w->value != w->calls[index])
        w->wrong++; /* each index sees what the caller wrote before this run */
    w->calls[index]++;
}

START_TEST(test_runs)
{
    const uint32_t threads = (uint32_t)_i;
    struct pool *pool;
    struct work work = {0};
    ck_assert_int_eq(pool_create(&pool, threads), 0);
    ck_assert_uint_eq(pool_threads(pool), threads);
    for (uint32_t n = 0; n < RUNS; n++) {
        work.value = n;
        pool_run(pool, add, &work);
        for (uint32_t i = 0; i < threads; i++)
            ck_assert_uint_eq(work.calls[i], n + 1);
        if (n % 1000 == 0) { /* long enough that all threads are asleep */
            const struct timespec pause = {0, 2000000};
            nanosleep(&pause, NULL);
        }
    }
    ck_assert_uint_eq(work.wrong, 0);
    pool_destroy(pool);
}
END_TEST

START_TEST(test_limits)
{
    struct pool *pool;
    ck_assert_int_eq(pool_create(&pool, 0), -EINVAL);
    ck_assert_int_eq(pool_create(&pool, POOL_THREADS_MAX + 1), -EINVAL);
    ck_assert_ptr_null(pool);
    pool_destroy(NULL);
    for (int i = 0; i < 50; i++) { /* at once: threads that never ran */
        ck_assert_int_eq(pool_create(&pool, 4), 0);
        pool_destroy(pool);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pool");
    TCase *tcase = tcase_create("core");
    tcase_add_loop_test(tcase, test_runs, 1, 5);
    tcase_add_test(tcase, test_limits);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
