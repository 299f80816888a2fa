/* SPDX-License-Identifier: Apache-2.0 */
/*
 * choose.h - picks the node for a request: hard filters, toroidal-Manhattan rank, predicted
 * completion among the nearest. Pure: table, the core's own view of load and the request go in.
 *
 * Distance in cells: |dx| + |dy| + ROUTE_TIER_CELLS * |dz|, where dx wraps around the ring, dy lies
 * on half a ring and z is the tier (of the request: the lowest tier it allows). Ties, as among the
 * machines of one site, are in an order drawn by the request's lot (scan.h), so that each has its
 * share however many there are. The radius is a great circle, never the torus.
 *
 * Predicted completion = RTT + queue + prompt * prefill cost (+ max_tokens * decode cost if the
 * budget covers the whole answer). Of the ROUTE_TOP_K nearest that pass every filter, the nearest
 * one whose prediction is within ROUTE_SLACK of the best is the pick: near wins unless it is
 * clearly slower, since the torus is only a proxy for the network.
 *
 * Machines of one site are near-equals (up to ROUTE_NEAR_CELLS further than the pick, prediction
 * within the slack too). Among them the request's own lot draws two and the one that is predicted
 * to be sooner, then the one that was sent less, gets it: the power of two choices (Mitzenmacher
 * 2001) keeps routers with the same stale view from herding onto one machine. No node is sent more
 * than it advertised room for, less what this core has sent since (JBSQ, RackSched 2020).
 */
#pragma once

#include "dataplane/route/scan.h"
#include "dataplane/route/table.h"

#define ROUTE_TOP_K      8u
#define ROUTE_ALTERNATES 2u
#define ROUTE_SLACK_NUM  3u
#define ROUTE_SLACK_DEN  2u
#define ROUTE_SLACK_US   10000u
#define ROUTE_NEAR_CELLS 32u /* 20 km */
/* Prompts arrive as bytes; English takes about four of them per token. */
#define ROUTE_BYTES_PER_TOKEN 4u

/* What the wire header says, in the units of the table. */
struct route_query {
    uint32_t model;
    uint32_t tags;
    uint32_t budget_us;
    uint32_t prompt_bytes;
    uint16_t max_tokens;
    uint16_t vram_64mib;
    uint16_t radius_km;
    uint16_t x, y;
    uint32_t lot; /* of this request, evenly spread: who gets it among near-equals */
    uint16_t avoid[WEFT_AVOID_MAX]; /* node ids, the first avoid_count: only if nobody else can */
    uint16_t avoid_count;
    uint8_t tier_min, tier_max;
    bool has_position; /* x, y are given; else this node's own */
    bool end_to_end;
};

/* A core's fresher view of one node: the load word of the last reply that came through it, and what
 * it has sent there since. Indexed by node id; zero-filled = knows nothing. */
struct route_load {
    uint64_t heard_ns;
    uint32_t queue_us;
    uint16_t room;
    uint16_t free_vram_64mib;
    uint32_t assigned; /* requests sent since heard_ns */
};

struct route_choice {
    uint16_t node;                         /* index, or ROUTE_INDEX_NONE: refused */
    uint16_t alternates[ROUTE_ALTERNATES]; /* indexes, or ROUTE_INDEX_NONE */
    uint32_t predicted_us;
    /* Refused: */
    uint16_t constraint; /* WEFT_C_*: the one that bound */
    uint32_t best;       /* best figure of it that can be had */
    uint32_t candidates; /* nodes that met all constraints before it */
    uint32_t retry_after_us;
};

/* `loads` is indexed by node id; `scratch` is the core's own. Candidates are looked at in order of
 * distance, as many as the decision needs; the answer is that of looking at all. */
void route_choose(const struct route_table *table, const struct route_load *loads,
                  struct scan *scratch, const struct route_query *query,
                  struct route_choice *choice);

/* Does the node meet what never changes with load: model, tags, tier, radius? */
bool route_allows(const struct route_table *table, const struct route_query *query, uint16_t node);

/* Cells between the query's place and a node. */
uint32_t route_distance(const struct route_table *table, const struct route_query *query,
                        const struct route_node *node);

/* The load that counts for a node: whichever of table and overlay was heard later. */
struct route_load route_load_of(const struct route_node *node, const struct route_load *overlay);

/* Microseconds until the first token, or the last with query->end_to_end. Saturates. */
uint32_t route_predict_us(const struct route_query *query, const struct route_node *node,
                          uint32_t queue_us);

/* Status that a binding constraint means for the client (weft/status.h). */
int route_constraint_status(uint16_t constraint);
