/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.h - a mesh of production zones (controlplane/zones) on the virtual network: each node is
 * one `struct zone`, fed with its datagrams and wakes. world_tile() puts all nodes at once into the
 * state that a mesh reaches by itself (tests hold the two against each other); world_found() and
 * world_join() let it grow from nothing.
 *
 * The brute force that searches are compared with: world_oracle(), over the records that live
 * members of reachable nodes hold.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/mesh/population.h"
#include "bench/mesh/vnet.h"
#include "controlplane/zones/zone.h"

#define WORLD_SEARCHES 1024u

struct world_options {
    uint32_t nodes;
    uint64_t seed;
    const char *matrix; /* file of round-trip times; NULL: great circle times a stretch */
    double loss, jitter;
    uint32_t member_max; /* room for members of a node; 0: ZONE_MEMBERS_MAX */
    uint16_t split_above, merge_below;
    bool upkeep;       /* false: nodes keep still but for searches */
    bool deaths_known; /* a membership tells each node at once who is gone */
};

struct world_search {
    bool used;
    uint32_t asker;
    uint64_t started_ns;
    uint64_t user;
    struct zone_search search;
};

/* A zone as world_tile() made it. */
struct world_zone {
    struct zone_range range;
    uint32_t first, count; /* in tile_nodes */
    struct zone_summary is;
};

struct world {
    struct world_options options;
    struct population population;
    struct delay delay;
    struct vnet *vnet;
    struct geo_point *places;
    struct zone *zones;          /* by node */
    struct zone_member *members; /* member_max for each */
    struct zone_duty *duties;    /* ZONE_DUTIES for each */
    struct zone_record *truth;   /* what each node says of itself now */
    uint64_t *changed_ns;        /* when what lasts of it changed, or it (re)joined */
    struct world_search searches[WORLD_SEARCHES];
    uint64_t refreshed_ns;
    struct world_zone *tiles; /* rising by path; NULL before world_tile() */
    uint32_t tile_count;
    uint32_t *tile_nodes; /* in order of path */
    void (*on_found)(struct world *world, struct world_search *search, uint64_t now_ns);
    void (*on_event)(struct world *world, uint32_t node, uint64_t now_ns);
    void (*on_script)(struct world *world, uint32_t node, uint64_t value, uint64_t now_ns);
    void *user;
};

/* Returns 0, -ENOMEM or the error of the matrix. All nodes are down until tiled or joined. */
int world_create(struct world **world, const struct world_options *options);
void world_destroy(struct world *world);

/* All nodes up, in zones, with views. Returns the number of zones, or -ENOMEM. */
int world_tile(struct world *world);
void world_found(struct world *world, uint32_t node);
void world_join(struct world *world, uint32_t node, uint32_t seed_node);
void world_crash(struct world *world, uint32_t node);

/* Starts a search at a node; NULL: too many, or the node is down. on_found is called at its end,
 * maybe before this returns; then the search is free again. */
void world_ask(struct world *world, uint32_t asker, const struct zone_query *query,
               uint64_t budget_ns, uint64_t user);

/* The k best over all records held (as live) by live nodes. With `than_ns` only those that have
 * not changed since then. */
void world_oracle(const struct world *world, const struct zone_query *query, uint64_t than_ns,
                  struct zone_top *top);

/* Is every path claimed by a live node? If not, *hole is one that is not. */
bool world_covered(const struct world *world, uint64_t *hole);
