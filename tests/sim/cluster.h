/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cluster.h - a mesh of the production swim objects on the virtual network of bench/mesh. It only
 * carries: datagrams, time, start and stop. What to do to it is up to the caller (swim_life.c,
 * swim_figures.c). Threads: none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/mesh/vnet.h"
#include "controlplane/swim/swim.h"
#include "schemas/base/rng.h"

#define CLUSTER_PORT  7401u
#define CLUSTER_SEEDS 3u /* nodes 0.. are everybody's seeds */

struct cluster_options {
    uint32_t nodes;
    uint64_t seed;
    const struct delay *delay;
    double jitter, loss, duplicate;
    uint32_t state_bytes;       /* of state per node */
    uint64_t probe_interval_ns; /* 0: the default, as for the two below */
    uint64_t suspect_min_ns, suspect_max_ns;
    bool odd_clocks;  /* clocks are off by up to a day and drift by up to 200 ppm */
    double corrupted; /* share of datagrams with a byte changed on the way */
    double replayed;  /* share of datagrams that somebody sends once more, much later */
};

struct cluster;

struct cluster_hooks {
    void (*event)(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                  void *user);
    void (*script)(struct cluster *cluster, uint32_t node, uint64_t value, void *user);
    void *user;
};

struct cluster {
    struct cluster_options options;
    struct cluster_hooks hooks;
    struct vnet *vnet;
    struct rng rng;
    struct swim **nodes; /* NULL: not running */
    uint64_t *uids;
    int64_t *wall_skew_ms;
    uint64_t *incarnation_top; /* the highest that the node has ever announced */
    struct swim_out out;
    struct {
        uint32_t to;
        uint32_t size;
        uint8_t data[SWIM_DATAGRAM_MAX];
    } caught[32]; /* to be sent once more */
    uint32_t caught_count;
};

/* Nobody runs yet. Returns 0 or -errno. */
int cluster_create(struct cluster **cluster, const struct cluster_options *options,
                   const struct cluster_hooks *hooks);
void cluster_destroy(struct cluster *cluster);

void cluster_start(struct cluster *cluster, uint32_t node);
void cluster_crash(struct cluster *cluster, uint32_t node);
/* Says good-bye; crash it a second later. */
void cluster_leave(struct cluster *cluster, uint32_t node);
static inline bool cluster_runs(const struct cluster *cluster, uint32_t node)
{
    return cluster->nodes[node] != NULL;
}

/* The number of the node with that uid, UINT32_MAX: none. */
uint32_t cluster_node_of(const struct cluster *cluster, uint64_t uid);
/* What `observer` thinks of `node`, SWIM_LEFT if it does not know it. */
enum swim_status cluster_view(const struct cluster *cluster, uint32_t observer, uint32_t node);
/* Does every running node hold exactly the running ones live, and all know the same? */
bool cluster_agrees(const struct cluster *cluster);
uint64_t cluster_bytes(const struct cluster *cluster);
