/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vnet.h - a network and its machines in virtual time: delay, jitter, loss, duplicates, one-way
 * blocks, partitions, frozen nodes, clocks that are off and drift, crash and restart. The simulated
 * programs are the production cores; the user of this file feeds them what vnet hands over.
 *
 * One run is a function of the options and of the calls made: same seed, same run. Nodes are
 * 0..count-1. True time starts at 0; a node only ever sees its own clock.
 *
 * A frozen node (SIGSTOP, a machine that swaps) keeps what arrives, up to inbox_max datagrams, and
 * gets it when it goes on; whether its overdue timer or its datagrams come first is drawn.
 * A datagram on its way to a node that crashes and is started again meets the new program.
 *
 * Threads: none of its own. Hooks may call everything here but vnet_destroy() and vnet_step().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench/mesh/delay.h"

#define VNET_DATAGRAM_MAX 1280u
#define VNET_OVERHEAD     28u /* IPv4 and UDP headers, counted with each datagram */

struct vnet_hooks {
    /* A datagram reached `node`; the bytes are valid during the call. */
    void (*datagram)(uint32_t node, uint32_t from, const void *data, size_t size, uint64_t local_ns,
                     void *user);
    /* The time that vnet_wake() asked for has come. */
    void (*wake)(uint32_t node, uint64_t local_ns, void *user);
    /* What vnet_at() asked for. */
    void (*script)(uint32_t node, uint64_t value, uint64_t true_ns, void *user);
    void *user;
};

struct vnet_options {
    uint32_t nodes;
    uint64_t seed;
    const struct delay *delay; /* must outlive the network */
    double jitter;             /* mean of an exponential part, as a share of the delay */
    double loss;               /* 0..1, of every datagram */
    double duplicate;          /* 0..1 */
    uint32_t inbox_max;        /* of a frozen node, datagrams; 0: 256 */
};

struct vnet_counters {
    uint64_t sent;
    uint64_t sent_bytes; /* VNET_OVERHEAD included */
    uint64_t received;
};

struct vnet;

/* All nodes are up, in group 0, with right clocks. Heap. Returns 0, -EINVAL or -ENOMEM. */
int vnet_create(struct vnet **vnet, const struct vnet_options *options,
                const struct vnet_hooks *hooks);
void vnet_destroy(struct vnet *vnet); /* NULL is fine */

/* ---- what programs do ---- */

/* Sends a datagram; larger than VNET_DATAGRAM_MAX: lost. */
void vnet_send(struct vnet *vnet, uint32_t from, uint32_t to, const void *data, size_t size);

/* Calls `wake` when the node's clock shows `local_ns`; replaces what was asked for before.
 * UINT64_MAX: never. */
void vnet_wake(struct vnet *vnet, uint32_t node, uint64_t local_ns);

/* ---- what happens to them ---- */

void vnet_set_loss(struct vnet *vnet, double loss);
/* Further loss of what a node sends and receives. */
void vnet_set_node_loss(struct vnet *vnet, uint32_t node, double out, double in);
/* One way: what `from` sends to `to` is lost. Returns 0 or -ENOMEM. */
int vnet_block(struct vnet *vnet, uint32_t from, uint32_t to, bool blocked);
/* Nodes reach only those of their own group. */
void vnet_set_group(struct vnet *vnet, uint32_t node, uint32_t group);
void vnet_freeze(struct vnet *vnet, uint32_t node, uint64_t duration_ns);
/* The node's clock shows `offset_ns` now and gains `drift_ppm` from now on. Before the node is
 * started: its wake is not moved. */
void vnet_set_clock(struct vnet *vnet, uint32_t node, uint64_t offset_ns, int32_t drift_ppm);
void vnet_crash(struct vnet *vnet, uint32_t node);
void vnet_restart(struct vnet *vnet, uint32_t node);
/* Calls `script` at a true time. */
void vnet_at(struct vnet *vnet, uint64_t true_ns, uint32_t node, uint64_t value);

/* ---- running and reading ---- */

/* Does the next event. False: there is none. */
bool vnet_step(struct vnet *vnet);
/* All events up to and at that time; then it is that time. */
void vnet_run(struct vnet *vnet, uint64_t until_ns);

uint64_t vnet_now_ns(const struct vnet *vnet);
uint64_t vnet_local_ns(const struct vnet *vnet, uint32_t node);
bool vnet_is_up(const struct vnet *vnet, uint32_t node);
bool vnet_is_frozen(const struct vnet *vnet, uint32_t node);
/* Could a datagram get through, loss aside? Both up, neither frozen, same group, not blocked. */
bool vnet_reaches(const struct vnet *vnet, uint32_t from, uint32_t to);
const struct vnet_counters *vnet_counters(const struct vnet *vnet, uint32_t node);
/* A number that two runs share only if all their events were the same (practically). */
uint64_t vnet_fingerprint(const struct vnet *vnet);
/* False once memory ran out: the run is worth nothing then. */
bool vnet_is_sound(const struct vnet *vnet);
