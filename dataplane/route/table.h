/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - the routing table: what one generation of membership means for the packet path.
 * Immutable once built, one allocation, so that a pointer publishes it and one free() ends it.
 * Built by weftd's control thread (dataplane/glue.c), read by choose.c and stages.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/wire.h>

#include "dataplane/route/classes.h"
#include "dataplane/route/scan.h"
#include "schemas/base/addr.h"
#include "schemas/base/geo.h"
#include "schemas/base/torus.h"

#define ROUTE_NODES_MAX       SCAN_CANDIDATES_MAX
#define ROUTE_MODELS_PER_NODE 8u
#define ROUTE_INDEX_NONE      0xffffu

/* A worker that has not measured itself yet is taken to be this slow (tokens per second). */
#define ROUTE_PREFILL_UNKNOWN 50u
#define ROUTE_DECODE_UNKNOWN  10u

/* Cells per hardware tier on the z axis: 1,000 km. */
#define ROUTE_TIER_CELLS TORUS_TIER_CELLS

/* How fast a node is with one model, in nanoseconds per token; 0 = as the node is. */
struct route_pace {
    uint32_t prefill_ns;
    uint32_t decode_ns;
};

struct route_node {
    /* What a choice looks at: one cache line. Load as last heard; the core's overlay may know
     * better. */
    _Alignas(64) uint64_t load_ns; /* when it was heard, local clock */
    uint32_t queue_us;
    uint16_t room;
    uint16_t free_vram_64mib;
    uint32_t rtt_us; /* from this node; 0 for itself */
    uint16_t id;
    uint8_t tier;
    bool alive;
    bool reachable; /* link address of the next hop is known */
    uint8_t mac[6]; /* of the next hop; meaningful if reachable */
    bool suspect;   /* alive, as far as is known, but somebody gets no answer from it */
    uint16_t x, y;
    uint32_t tags;        /* its jurisdiction among them (wire.def) */
    struct in6_addr addr; /* schemas/base/addr.h; of a family that this node has one of, too */
    /* The rest. */
    struct geo_point at;
    uint32_t prefill_per_second; /* tokens, of models that say nothing; 0 = not measured */
    uint32_t decode_per_second;
    bool leaving;       /* is given nothing new; what it has goes on */
    bool keeps_prompts; /* a prompt that begins like an earlier one needs prefill for the rest only
                         */
    uint32_t model_count;
    uint32_t models[ROUTE_MODELS_PER_NODE]; /* wire ids */
    uint32_t
        arithmetics[ROUTE_MODELS_PER_NODE]; /* of their workers, as in a GRANT; 0 = not known */
    struct route_pace paces[ROUTE_MODELS_PER_NODE]; /* in a table none is 0 */
};
WEFT_ASSERT(offsetof(struct route_node, at) <= 64, "a choice reads one line of a node");

/* What a choice reads of each of eight candidates at once (lanes.h): the node with that model. */
struct route_cost {
    _Alignas(16) uint32_t rtt_us;
    uint32_t prefill_ns;
    uint32_t decode_ns;
    uint32_t id;
};

/* The nearest candidates of a model from this node's own place, by tag class and lowest tier
 * allowed, with no highest tier: what most requests want, in three cache lines and sorted. Models
 * with few candidates have rows for no tags only: the others find theirs as fast by a search. */
#define ROUTE_ROW_CLASSES_LEAST 17u /* candidates */
#define ROUTE_ROW_ENTRIES       8u
#define ROUTE_ROW_TIERS         (WEFT_TIER_MAX + 1u)
struct route_row {
    /* As a scan without salt gives them; SCAN_NONE behind the last. */
    _Alignas(64) uint32_t keys[ROUTE_ROW_ENTRIES];
    uint16_t nodes[ROUTE_ROW_ENTRIES]; /* indexes; behind the last any candidate's */
    uint16_t count;                    /* fewer than ROUTE_ROW_ENTRIES: there are no others */
    bool tied; /* some are equally far: a request's salt puts them in order */
    bool cut;  /* more are as far as the last: only a scan sees them all */
    /* Their struct route_cost, in columns. */
    _Alignas(64) uint32_t rtt_us[ROUTE_ROW_ENTRIES];
    uint32_t prefill_ns[ROUTE_ROW_ENTRIES];
    uint32_t decode_ns[ROUTE_ROW_ENTRIES];
    uint16_t ids[ROUTE_ROW_ENTRIES];
};
WEFT_ASSERT(sizeof(struct route_row) == 192, "a row is three cache lines");

/* Candidates of one model: `count` entries from `first` in the table's candidate arrays. */
struct route_model {
    uint32_t id;
    uint32_t first; /* a multiple of SCAN_PAD */
    uint32_t count;
    /* The best of each among them: no prediction can be lower than what they add up to. */
    uint32_t rtt_min_us;
    uint32_t prefill_min_ns;
    uint32_t decode_min_ns;
    uint32_t
        row; /* of the first class and tier 0; the other tiers', then the other classes' follow */
    uint32_t row_classes; /* how many classes have theirs */
};

/* Finds a place by a 32-bit key: open addressing, at most half full. */
struct route_map_entry {
    uint32_t key;
    uint16_t place; /* ROUTE_INDEX_NONE: empty */
    uint16_t unused;
};
struct route_map {
    const struct route_map_entry *entries;
    uint32_t shift; /* the entry of a key is the upper 32 - shift bits of its hash */
};

struct route_table {
    uint16_t epoch;
    uint16_t self; /* index of this node */
    bool abstract; /* plain torus: full rings, radius in cells */
    bool closing;  /* this node takes no new requests from clients; set before it is published */
    uint32_t node_count;
    uint32_t model_count;
    uint32_t generation;              /* no other table of this process has the same; never 0 */
    const struct route_node *nodes;   /* rising by id */
    const struct route_model *models; /* rising by id */
    struct route_map by_id;           /* node id, IPv4 address, model id -> index */
    struct route_map by_v4;
    struct route_map by_v6; /* a hash of an IPv6 address -> index; the node has the address */
    struct route_map by_model;
    const struct route_row *rows;
    struct route_classes classes;
    size_t size_bytes; /* of all of it */
    /* Of each model's nodes alive, rising by id, padded to SCAN_PAD: */
    const uint16_t *candidates; /* node indexes */
    const uint32_t *places;     /* x | y << 16 */
    const uint32_t *tags;
    const uint8_t *tiers;
    const uint32_t *bases; /* nearest.h */
    const struct route_cost *costs;
};

/* Per token at so many tokens per second; 0 stays 0. */
static inline uint32_t route_pace_ns(uint32_t per_second)
{
    return per_second != 0 ? 1000000000u / per_second : 0;
}

/* How fast a node of a table is with a model that it has. */
static inline const struct route_pace *route_pace_of(const struct route_node *node, uint32_t model)
{
    uint32_t i = 0;
    while (i + 1 < node->model_count && node->models[i] != model) {
        i++;
    }
    return &node->paces[i];
}

/* Builds a table from `count` nodes in any order; they are copied. `self_id` must be among them.
 * Returns 0, -EINVAL (duplicate id or address, self missing, too many), -ENOMEM. Free with
 * route_table_destroy(). */
int route_table_create(struct route_table **table, const struct route_node *nodes, uint32_t count,
                       uint16_t self_id, uint16_t epoch, bool abstract);
void route_table_destroy(struct route_table *table);

/* The same table in other memory of `size_bytes` bytes at a multiple of 64, the caller's: for a
 * NUMA node of its own. Not for route_table_destroy(). */
struct route_table *route_table_copy(const struct route_table *table, void *memory);

/* Index of a node id, of an IPv4 address (network order), of an address of either family;
 * ROUTE_INDEX_NONE if not a member. */
uint16_t route_table_find(const struct route_table *table, uint16_t node_id);
uint16_t route_table_find_v4(const struct route_table *table, uint32_t addr);
uint16_t route_table_find_addr(const struct route_table *table, const struct in6_addr *addr);

/* The model's candidates, or NULL if no node alive has it. */
const struct route_model *route_table_model(const struct route_table *table, uint32_t model);
