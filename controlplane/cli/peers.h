/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.h - a node's status answer as a list of members, and as routes: what its packet path would
 * choose from for each model. Used by cmd_peers.c and cmd_routes.c. Pure; no I/O but printing.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

/* {node, membership, peers: [{name, id, state, ...}]}: self first, then those up by round-trip
 * time, then the others. A new reference; NULL without memory. */
json_t *peers_list(const json_t *status);
void peers_print(FILE *out, const json_t *list);

/* {node, routes: [{model, candidates: [...], excluded: [...]}]}: each model that somebody has, its
 * nodes in the order of their distance from this node, as query.h gives them. A new reference;
 * NULL: the status makes no routing table, why is in `why` (QUERY_WHY_MAX). */
json_t *routes_list(const json_t *status, char *why);
void routes_print(FILE *out, const json_t *list);
