/* SPDX-License-Identifier: Apache-2.0 */
/* See slice.h. By the system call itself: the C library does not have it. */
#include "schemas/base/slice.h"

#include <linux/sched.h>
#include <linux/sched/types.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* 0 = the usual one. What it cannot change stays as it is: it is only a little later then. */
static void set(uint64_t slice_ns)
{
    struct sched_attr attr;
    if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) || attr.sched_policy != SCHED_NORMAL)
        return;
    attr.sched_runtime = slice_ns;
    (void)syscall(SYS_sched_setattr, 0, &attr, 0);
}

void slice_short(void)
{
    set(SLICE_SHORT_NS);
}

void slice_usual(void)
{
    set(0);
}
