/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core_impl.h - the inside of the lcore, shared by core.c (the loop) and core_worker.c (the local
 * worker); nobody else includes it.
 */
#pragma once

#include "dataplane/core.h"

/* Replies of the local worker, each in a buffer of the port's; for stage_parse_worker(). When the
 * worker has gone, an error for each request that it leaves open. `table` may be NULL. */
uint32_t worker_poll(struct core *core, const struct route_table *table,
                     struct route_packet *packets, uint32_t max, uint64_t now_ns);

/* A packet with ROUTE_DELIVER: into the worker's ring, or what becomes of it instead. */
void worker_give(struct core *core, const struct route_table *table, struct route_packet *packet,
                 uint64_t now_ns);
