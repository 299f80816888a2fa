/* SPDX-License-Identifier: Apache-2.0 */
/*
 * askers.h - one search, done by each of the systems that are compared: zones in virtual time,
 * Kademlia and Chord by dht.h. sim_lookup.c and sim_recover.c draw the searches and print.
 */
#pragma once

#include "bench/mesh/dht.h"
#include "bench/mesh/world.h"

#define ASKERS_BUDGET_NS (10 * NS_PER_S)

enum system { ZONES, KAD3, KAD10, KAD3_PNS, KAD10_PNS, CHORD, CHORD_PNS, SYSTEMS };
extern const char *const system_names[SYSTEMS];

struct task {
    uint32_t asker;
    struct zone_query query;
    uint32_t *cells; /* that a table's user must read: first those that hold the answer, then those
                        that could have held something nearer; room for each tile */
    uint32_t cell_count, holding_count;
};

/* found: the last of the k was in hand; sure: nothing nearer could be left. */
struct answer {
    bool complete;
    uint64_t found_ns, sure_ns;
    uint32_t hops, messages;
};

struct askers {
    struct world *world;
    struct dht plain, near, chord, chord_near;
    bool *alive;
};

/* All machines in zones, tables full. Returns 0, -ENOMEM or the error of world_create(). Deinit
 * also after a failure. */
int askers_init(struct askers *askers, const struct world_options *options);
void askers_deinit(struct askers *askers);

/* Machines end at once, and nobody knows yet. */
void askers_kill(struct askers *askers, double share);

/* Draws an asker (any machine) and a query, and finds the cells in reach of the k-th best: an
 * oracle has told the table's user how far that is. */
void task_draw(struct askers *askers, enum population_workload workload, struct task *task);

/* By Kademlia or Chord: all cells at once, the slowest counts. */
struct answer askers_table(struct askers *askers, enum system system, const struct task *task);
struct answer askers_zones_answer(const struct zone_result *result, uint64_t took_ns);
