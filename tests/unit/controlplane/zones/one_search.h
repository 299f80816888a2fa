/* SPDX-License-Identifier: Apache-2.0 */
/* one_search.h - a tiled world and one search in it, for the suites of searches. Include it once.
 */
#pragma once

#include <check.h>

#include "bench/mesh/world.h"

#define BUDGET_NS (5 * NS_PER_S)

static struct world *world;
static struct zone_query query;
static struct zone_result result;
static bool found;

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    (void)w;
    (void)now_ns;
    zone_search_result(&s->search, &result);
    found = true;
}

static void world_begin(const struct world_options *options)
{
    ck_assert_int_eq(world_create(&world, options), 0);
    world->on_found = on_found;
    ck_assert_int_gt(world_tile(world), 0);
}
