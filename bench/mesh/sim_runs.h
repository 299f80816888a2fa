/* SPDX-License-Identifier: Apache-2.0 */
/* sim_runs.h - what weft-bench mesh-sim runs (mesh_sim.c): each fills a JSON object and, unless
 * quiet, prints a table. They return 0 or the exit status. */
#pragma once

#include <jansson.h>

#include "bench/mesh/world.h"

struct sim_run {
    struct world_options world;
    uint32_t searches;
    uint32_t seconds; /* virtual; churn and exact */
    uint32_t runs;    /* seeds from world.seed on; churn */
    double kill;      /* share of the machines killed at once; lookup, recover */
    double mend_s;    /* in which a table is looked through for dead ones; recover */
    double deadline_ms;
    bool json;
};

/* Lookup latency of zones, Kademlia and Chord, before and after a kill. */
int sim_lookup(const struct sim_run *run, json_t *out);
/* Searches all the time while machines are killed: second by second, until it is as before. */
int sim_recover(const struct sim_run *run, json_t *out);
/* Random searches during churn against brute force. */
int sim_exact(const struct sim_run *run, json_t *out);
/* Growth, crashes, restarts, a partition: every path claimed at each event. */
int sim_churn(const struct sim_run *run, json_t *out);
/* State of a node, hops and bytes, N = 100 to `world.nodes`. */
int sim_state(const struct sim_run *run, json_t *out);
