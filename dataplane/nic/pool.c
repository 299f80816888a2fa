/* SPDX-License-Identifier: Apache-2.0 */
/* pool.c - see pool.h. */
#include "dataplane/nic/pool.h"

#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_memzone.h>
#include <stdio.h>

#define PAGE_BYTES 4096u

static void free_memory(struct rte_mempool_memhdr *memory, void *zone)
{
    (void)memory;
    rte_memzone_free(zone);
}

static int populate(struct rte_mempool *pool, const char *name, uint32_t buffers)
{
    char zone_name[RTE_MEMZONE_NAMESIZE];
    size_t size = (size_t)buffers * POOL_BUFFER_BYTES;
    snprintf(zone_name, sizeof(zone_name), "%s_memory", name);
    const struct rte_memzone *zone =
        rte_memzone_reserve_aligned(zone_name, size, SOCKET_ID_ANY, 0, PAGE_BYTES);
    if (zone == NULL) {
        return -ENOMEM;
    }
    int rc = rte_mempool_populate_virt(pool, zone->addr, size, PAGE_BYTES, free_memory,
                                       (void *)(uintptr_t)zone);
    if (rc < 0) {
        rte_memzone_free(zone);
        return rc;
    }
    uint32_t each = pool->header_size + pool->elt_size + pool->trailer_size;
    return rc == (int)buffers && each == POOL_BUFFER_BYTES ? 0 : -ENOMEM;
}

static struct rte_mempool *create_shared(const char *name, uint32_t buffers)
{
    uint32_t object =
        POOL_BUFFER_BYTES -
        (uint32_t)RTE_ALIGN_CEIL(sizeof(struct rte_mempool_objhdr), (size_t)RTE_MEMPOOL_ALIGN);
    struct rte_pktmbuf_pool_private private = {
        .mbuf_data_room_size = (uint16_t)(object - sizeof(struct rte_mbuf)),
    };
    struct rte_mempool *pool =
        rte_mempool_create_empty(name, buffers, object, POOL_CACHE, sizeof(private), SOCKET_ID_ANY,
                                 RTE_MEMPOOL_F_NO_SPREAD | RTE_MEMPOOL_F_NO_IOVA_CONTIG);
    if (pool == NULL) {
        return NULL;
    }
    rte_pktmbuf_pool_init(pool, &private);
    if (rte_mempool_set_ops_byname(pool, rte_mbuf_best_mempool_ops(), NULL) != 0 ||
        populate(pool, name, buffers) != 0) {
        rte_mempool_free(pool);
        return NULL;
    }
    rte_mempool_obj_iter(pool, rte_pktmbuf_init, NULL);
    return pool;
}

struct rte_mempool *packet_pool_create(const char *name, uint32_t buffers, bool shared)
{
    return shared ? create_shared(name, buffers)
                  : rte_pktmbuf_pool_create(name, buffers, POOL_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                            SOCKET_ID_ANY);
}

void packet_pool_destroy(struct rte_mempool *pool)
{
    rte_mempool_free(pool);
}
