/* SPDX-License-Identifier: Apache-2.0 */
/*
 * query_zones.h - a query answered by a search over all zones of the mesh, page by page: the node
 * finds members by what zones can filter (model, tags, tiers, radius, memory), nearest first; what
 * depends on the way to each (room, budget) is judged here, as query.h does; so pages are asked for
 * until enough are found or there are no more. Used by cmd_query.c. Pure; no I/O.
 */
#pragma once

#include "controlplane/cli/query.h"

#define QUERY_PAGES_MAX 64u

struct query_zones {
    json_t *self;
    json_t *members; /* found, of all pages */
    json_t *not_heard;
    json_t *last; /* where the next page begins; NULL: at the nearest */
    char node[WEFT_NAME_MAX];
    bool complete;
    bool cut; /* too many pages */
    uint32_t pages;
    uint64_t fit; /* candidates so far */
    double age_ms, asks, hops, unheard, took_ms;
};

void query_zones_init(struct query_zones *zones);
void query_zones_deinit(struct query_zones *zones);

/* The request for the next page, for the node's admin socket: a new reference. */
json_t *query_zones_request(const struct query_zones *zones, const struct query *query);

/* Takes a page. Returns 1: there is another one to be asked for, 0: that was all, -1 with a
 * sentence in `why`: it is no answer. */
int query_zones_take(struct query_zones *zones, const struct query *query, const json_t *page,
                     char why[QUERY_WHY_MAX]);

/*
 * As query_answer(), but `excluded` are only those found that room or budget bar; `complete`,
 * `not_heard` and `oldest_record_ms` are what the zones say; and there are `scope` ("zones"), asks,
 * hops, pages, unheard (ranges of the torus) and took_ms.
 */
json_t *query_zones_answer(const struct query_zones *zones, const struct query *query,
                           char why[QUERY_WHY_MAX]);
