/* SPDX-License-Identifier: Apache-2.0 */
/* Time slices: a thread that hands over has the shortest one, and threads that it makes to compute
 * do not. */
#include <check.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/pool.h"
#include "schemas/base/slice.h"
#include "tests/unit/suite.h"

/* struct sched_attr, whose header and the C library's exclude each other. */
struct attr {
    uint32_t size;
    uint32_t policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime;
    uint64_t others[2];
};

static struct attr attr_of(pid_t thread)
{
    struct attr attr = {.size = 0};
    ck_assert_int_eq(syscall(SYS_sched_getattr, thread, &attr, sizeof(attr), 0), 0);
    return attr;
}

/* Kernels before 6.12 have none to tell. */
static bool can_tell(void)
{
    return attr_of(0).runtime != 0;
}

START_TEST(test_short_and_usual)
{
    const struct attr before = attr_of(0);
    slice_short();
    ck_assert(!can_tell() || attr_of(0).runtime == SLICE_SHORT_NS);
    ck_assert_int_eq(attr_of(0).nice, before.nice);
    ck_assert_uint_eq(attr_of(0).policy, before.policy);
    slice_usual();
    ck_assert_uint_eq(attr_of(0).runtime, before.runtime);
    ck_assert_int_eq(attr_of(0).nice, before.nice);
}
END_TEST

static void nothing(void *arg, uint32_t index, uint32_t count)
{
    (void)arg;
    (void)index;
    (void)count;
}

START_TEST(test_who_computes)
{
    struct pool *pool;
    uint32_t others = 0;
    slice_short();
    ck_assert_int_eq(pool_create(&pool, 3), 0);
    pool_run(pool, nothing, NULL); /* all have begun */
    DIR *dir = opendir("/proc/self/task");
    ck_assert_ptr_nonnull(dir);
    for (const struct dirent *entry; (entry = readdir(dir));) {
        const pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
        if (thread == 0 || thread == getpid())
            continue;
        others++;
        ck_assert(!can_tell() || attr_of(thread).runtime > SLICE_SHORT_NS);
    }
    ck_assert_uint_ge(others, 2);
    closedir(dir);
    pool_destroy(pool);
    ck_assert(!can_tell() || attr_of(0).runtime == SLICE_SHORT_NS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("slice");
    TCase *tcase = tcase_create("core");
    tcase_add_test(tcase, test_short_and_usual);
    tcase_add_test(tcase, test_who_computes);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
