/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.h - is the way over a third node shorter? Internet routes violate the triangle inequality
 * (about 5 % of all triples of hosts), which no coordinate can show, so that only measured legs
 * count: one's own (latency.h) and what others tell of theirs, kept here.
 *
 * A relay is taken only if it saves RELAY_GAIN_MIN_NS and RELAY_GAIN_PART of the direct way both
 * on average and at p95, each pass through the relay costing RELAY_HOP_NS. The one in use is kept
 * until another saves half as much again on top of it, or it no longer saves half of what it had
 * to: no flapping between equals.
 *
 * Sans-I/O. Memory: fixed at creation, 24 + 40 bytes a leg, the one used longest ago makes room.
 * Threads: one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/maps/slots.h"
#include "schemas/base/clock.h"

#define RELAY_NONE        UINT32_MAX
#define RELAY_HOP_NS      (100 * NS_PER_US) /* of a round trip: twice through a router */
#define RELAY_GAIN_MIN_NS (5 * NS_PER_MS)
#define RELAY_GAIN_PART   10u /* one in so many */
#define RELAY_FRESH_NS    (30 * NS_PER_S)
#define RELAY_RTT_MAX_NS  (10 * NS_PER_S)

struct relay_leg {
    uint64_t rtt_ns;
    uint64_t p95_ns;
    uint64_t measured_ns; /* by this node's clock */
};

struct relay_map {
    struct slots slots;
    struct relay_leg *legs;
};

/* Returns 0, -EINVAL or -ENOMEM. */
int relay_init(struct relay_map *map, uint32_t legs_max, uint64_t seed);
void relay_deinit(struct relay_map *map);

/* `from` says that `to` is so far from it, measured `age_ns` ago. False: not believable (0, above
 * RELAY_RTT_MAX_NS, p95 below a quarter of the mean, stale, or older than what is known). */
bool relay_learn(struct relay_map *map, uint32_t from, uint32_t to, uint64_t rtt_ns,
                 uint64_t p95_ns, uint64_t age_ns, uint64_t now_ns);

/* The leg as last told in this direction; NULL: unknown or older than RELAY_FRESH_NS. */
const struct relay_leg *relay_leg(const struct relay_map *map, uint32_t from, uint32_t to,
                                  uint64_t now_ns);

/* A way over `node`: both of its legs measured. */
struct relay_way {
    uint32_t node;
    struct relay_leg first;  /* from here to it; measured_ns is not looked at */
    struct relay_leg second; /* from it to the target */
};

/* The node to go over, RELAY_NONE for the direct way. `direct` NULL: there is no direct way, and
 * any is better. `current`: what this returned last time for that target. */
uint32_t relay_choose(const struct relay_leg *direct, const struct relay_way *ways, uint32_t count,
                      uint32_t current);
