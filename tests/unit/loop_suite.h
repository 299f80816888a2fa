/* SPDX-License-Identifier: Apache-2.0 */
/* loop_suite.h - suite.h for suites that run the event loop (controlplane/loop): they are skipped
 * where the machine does not permit io_uring; and a process without descriptors. */
#pragma once

#include <errno.h>
#include <sys/resource.h>
#include <unistd.h>

#include "controlplane/loop/loop.h"
#include "tests/unit/suite.h"

/* From now on no descriptor can be had, until fds_back() is given what this returns. */
static inline struct rlimit fds_gone(void)
{
    struct rlimit before;
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    int next = dup(STDIN_FILENO); /* all below it are in use */
    ck_assert_int_ge(next, 0);
    close(next);
    struct rlimit none = {.rlim_cur = (rlim_t)next, .rlim_max = before.rlim_max};
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    return before;
}

static inline void fds_back(const struct rlimit *before)
{
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, before), 0);
}

static inline int loop_suite_main(Suite *suite)
{
    struct loop *probe;
    int rc = loop_create(&probe);
    if (rc == -EPERM || rc == -ENOSYS) {
        srunner_free(srunner_create(suite));
        return SUITE_SKIPPED;
    }
    loop_destroy(probe);
    return suite_main(suite);
}
