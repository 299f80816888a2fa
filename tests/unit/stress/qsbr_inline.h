/* SPDX-License-Identifier: Apache-2.0 */
/*
 * qsbr_inline.h - put in front of dataplane/nic/publish.c for stress_publish.c. rte_rcu_qsbr is
 * header code but for its synchronize(), which waits inside a library that the thread sanitizer
 * cannot see into; here it is the same two inline steps. Memory comes from malloc, which the
 * sanitizer watches too and which needs no EAL.
 */
#pragma once

#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>
#include <stdlib.h>
#include <string.h>

static inline void stress_synchronize(struct rte_rcu_qsbr *qsbr)
{
    (void)rte_rcu_qsbr_check(qsbr, rte_rcu_qsbr_start(qsbr), true);
}

static inline void *stress_zmalloc(size_t size)
{
    size = (size + 63) / 64 * 64;
    void *memory = aligned_alloc(64, size);
    return memory != NULL ? memset(memory, 0, size) : NULL;
}

#define rte_rcu_qsbr_synchronize(qsbr, reader) stress_synchronize(qsbr)
#define rte_zmalloc(name, size, align)         stress_zmalloc(size)
#define rte_free(memory)                       free(memory)
