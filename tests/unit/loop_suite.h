/* SPDX-License-Identifier: Apache-2.0 */
/* loop_suite.h - suite.h for suites that run the event loop (controlplane/loop): they are skipped
 * where the machine does not permit io_uring. */
#pragma once

#include <errno.h>

#include "controlplane/loop/loop.h"
#include "tests/unit/suite.h"

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
