/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - packet buffers. DPDK's AF_XDP driver shares the pool's memory with the kernel, and takes
 * for granted that the buffers lie one behind the other from the start of a page on. DPDK's own
 * pools do not: without huge pages each buffer has a page of its own (none may cross its end), and
 * then the kernel never sees those at the far end: what is sent from them is lost without a word,
 * what is to be received into them runs the port dry.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct rte_mempool;

#define POOL_BUFFER_BYTES 4096u /* with its headers: a page, so that none crosses two */
#define POOL_CACHE        64u   /* buffers that an lcore keeps */

/* `shared`: for the drivers of kernel sockets. NULL if there is no memory. */
struct rte_mempool *packet_pool_create(const char *name, uint32_t buffers, bool shared);
/* NULL is fine. */
void packet_pool_destroy(struct rte_mempool *pool);
