/* SPDX-License-Identifier: Apache-2.0 */
/* nodes.h - the nodes of a test of the protocol (shuttle.h), and what they are started, stopped and
 * given datagrams with. */
#pragma once

#include <check.h>

#include "tests/unit/swim/shuttle.h"

static struct shuttle shuttle;
static struct swim_out out;

static inline void start(uint32_t node)
{
    struct swim_seed seed;
    struct swim_options options = shuttle_options(node, &seed);
    shuttle_start(&shuttle, node, &options);
}

static inline void start_all(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        start(i);
    }
    shuttle_run(&shuttle, 10 * NS_PER_S);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), count);
        ck_assert_uint_eq(swim_sum(shuttle.nodes[i]), swim_sum(shuttle.nodes[0]));
    }
}

static inline void stop(uint32_t node)
{
    swim_destroy(shuttle.nodes[node]);
    shuttle.nodes[node] = NULL;
}

static inline void give(uint32_t node, const void *data, size_t size)
{
    struct in6_addr from = shuttle_address(7);
    swim_input(shuttle.nodes[node], &from, 7401, data, size, shuttle.now_ns, &out);
}
