/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dht.h - what the zones are compared with: Kademlia (Maymounkov and Mazieres 2002; k = 20,
 * iterative, alpha at a time) and Chord (Stoica et al. 2001; fingers, recursive, successor lists)
 * over the same delays, loss and rule for time-outs, on the same machines.
 *
 * They are given the same job in the kindest way: the cells of the map are the zones themselves,
 * each cell's records are one value, and whoever asks is told by an oracle which cells hold the
 * answer, so that one lookup for each, all at once, is all that is needed. No handshakes. Tables
 * are full and, until machines are killed, right; then nobody has repaired anything yet, unless
 * dht_mend() does.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "bench/mesh/world.h"

#define DHT_K          20u /* contacts of a bucket, and holders of a value */
#define DHT_BUCKETS    24u
#define DHT_PNS_SAMPLE 64u /* machines from which a bucket takes the nearest */
#define DHT_SUCCESSORS 16u
#define DHT_HOLDERS    5u /* of a value in Chord: as many successors */

struct dht {
    const struct world *world;
    uint32_t count;
    bool pns; /* proximity neighbour selection */
    double loss;
    double mended; /* share of the tables that were looked through since the kill */
    struct rng rng;
    uint64_t *ids;    /* rising */
    uint32_t *nodes;  /* by place in ids */
    uint32_t *places; /* by node: place in ids */
    uint32_t *table;  /* Kademlia: count * DHT_BUCKETS * DHT_K places, UINT32_MAX: none */
    uint32_t *finger; /* Chord: count * DHT_BUCKETS places */
};

struct dht_lookup {
    bool found;
    uint64_t took_ns;
    uint32_t hops;
    uint32_t messages;
};

/* Returns 0 or -ENOMEM. */
int dht_create(struct dht *dht, const struct world *world, bool chord, bool pns, uint64_t seed);
void dht_destroy(struct dht *dht);

/* Tables are looked through all the time, row by row, and of each row at its turn the dead are
 * replaced by live machines, known at once: what a node gets done in `share` (rising, 0..1) of the
 * time that it takes for all. Values need not be copied again: enough of their holders live. */
void dht_mend(struct dht *dht, const bool *alive, double share);

/* `alive[node]`: is it up? Gives up after `budget_ns`. */
struct dht_lookup dht_kademlia(struct dht *dht, const bool *alive, uint32_t asker, uint64_t key,
                               uint32_t alpha, uint64_t budget_ns);
struct dht_lookup dht_chord(struct dht *dht, const bool *alive, uint32_t asker, uint64_t key,
                            uint64_t budget_ns);
/* The key of a zone's cell. */
uint64_t dht_key(uint32_t tile);
