/* SPDX-License-Identifier: Apache-2.0 */
/* publish.c - see publish.h. */
#include "dataplane/nic/publish.h"

#include <errno.h>
#include <rte_malloc.h>
#include <rte_rcu_qsbr.h>
#include <stdatomic.h>
#include <stddef.h>

struct publish {
    void *_Atomic current;
    void (*destroy)(void *object);
    struct rte_rcu_qsbr *qsbr;
};

int publish_create(struct publish **out, uint32_t readers, void (*destroy)(void *object))
{
    *out = NULL;
    struct publish *publish = rte_zmalloc("publish", sizeof(*publish), RTE_CACHE_LINE_SIZE);
    if (publish == NULL) {
        return -ENOMEM;
    }
    publish->destroy = destroy;
    publish->qsbr = rte_zmalloc("qsbr", rte_rcu_qsbr_get_memsize(readers), RTE_CACHE_LINE_SIZE);
    if (publish->qsbr == NULL || rte_rcu_qsbr_init(publish->qsbr, readers) != 0) {
        publish_destroy(publish);
        return -ENOMEM;
    }
    for (uint32_t reader = 0; reader < readers; reader++) {
        rte_rcu_qsbr_thread_register(publish->qsbr, reader);
    }
    *out = publish;
    return 0;
}

void publish_destroy(struct publish *publish)
{
    if (publish == NULL) {
        return;
    }
    void *last = atomic_load(&publish->current);
    if (last != NULL) {
        publish->destroy(last);
    }
    rte_free(publish->qsbr);
    rte_free(publish);
}

void publish_set(struct publish *publish, void *object)
{
    void *old = atomic_exchange_explicit(&publish->current, object, memory_order_acq_rel);
    if (old != NULL) {
        rte_rcu_qsbr_synchronize(publish->qsbr, RTE_QSBR_THRID_INVALID);
        publish->destroy(old);
    }
}

const void *publish_get(const struct publish *publish)
{
    return atomic_load_explicit(&publish->current, memory_order_acquire);
}

void publish_quiescent(struct publish *publish, uint32_t reader)
{
    rte_rcu_qsbr_quiescent(publish->qsbr, reader);
}

void publish_online(struct publish *publish, uint32_t reader)
{
    rte_rcu_qsbr_thread_online(publish->qsbr, reader);
}

void publish_offline(struct publish *publish, uint32_t reader)
{
    rte_rcu_qsbr_thread_offline(publish->qsbr, reader);
}
