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

#include "dataplane/route/nearest.h"
#include "dataplane/route/table.h"

#define ROUTE_TOP_K      8u
#define ROUTE_ALTERNATES 2u
#define ROUTE_SHORT_DEN  2u     /* half of the best ... */
#define ROUTE_SHORT_US   25000u /* ... up to this, ... */
#define ROUTE_LONG_DEN   4u     /* ... or a quarter if that is more, ... */
#define ROUTE_SLACK_US   10000u /* ... and this */
#define ROUTE_NEAR_CELLS 32u    /* 20 km */
/* Prompts arrive as bytes; English takes about four of them per token. */
#define ROUTE_BYTES_PER_TOKEN 4u

/* What the wire header says, in the units of the table. */
struct route_query {
    uint32_t model;
    uint32_t tags; /* the jurisdiction among them */
    uint32_t budget_us;
    uint32_t prompt_bytes;
    uint16_t max_tokens;
    uint16_t vram_64mib;
    uint16_t radius_km;
    uint16_t x, y;
    uint32_t lot; /* of this request, evenly spread: who gets it among near-equals */
    /* Node ids, the first avoid_count: only if nobody else can. The client's, and one of ours. */
    uint16_t avoid[WEFT_AVOID_MAX + 1];
    uint16_t avoid_count;
    uint32_t arithmetic; /* with avoid_count: nobody else if one with the same can; 0 = no matter */
    uint8_t tier_min, tier_max;
    bool has_position; /* x, y are given; else this node's own */
    bool end_to_end;
};

/* A core's view of one node: the load word of the last reply that came through it or the last
 * beacon, whichever was heard later, and what the core has sent there since. Indexed by node id;
 * zero-filled = knows nothing. Who writes one fills in what was heard and leaves the rest 0: the
 * next choice compares it with its table (route_load_now()). */
struct route_load {
    _Alignas(16) uint32_t queue_us;
    uint16_t left; /* room less assigned; with `generation` */
    uint16_t free_vram_64mib;
    uint32_t assigned;   /* requests sent since heard_ns */
    uint32_t generation; /* of the table that it has been compared with; 0 = none */
    uint64_t heard_ns;
    uint16_t room;
    uint32_t sent_us; /* prefill of requests sent since heard_ns, of those that prefixes.h places */
};
WEFT_ASSERT(offsetof(struct route_load, heard_ns) == 16, "a choice reads the first half at once");

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
void route_choose(const struct route_table *table, struct route_load *loads, struct scan *scratch,
                  const struct route_query *query, struct route_choice *choice);

/* The same for a burst of up to ROUTE_LOOKS_MAX, in two steps: what does not depend on how the
 * others are decided is done for all queries first, stage by stage, so that their waits overlap.
 * Then each is decided in turn, and what one is given counts for the next. In between nothing but
 * route_load_assign() may change `loads`, at most once for each query. */
#define ROUTE_LOOKS_MAX NEAREST_BURST
struct route_look {
    struct route_query query; /* the caller's */
    const struct route_model *model;
    const struct route_row *row; /* that the eight are of, if its columns are theirs */
    bool near;                   /* the eight nearest are known */
    bool tight;                  /* one of them may run out of room within this burst */
    uint8_t there, pass;         /* masks of those that exist, that can take the request */
    uint16_t nodes[NEAREST_COUNT];
    uint32_t predicted_us[NEAREST_COUNT];
    struct nearest nearest;
};
void route_look(const struct route_table *table, struct route_load *loads, struct scan *scratch,
                struct route_look *looks, uint32_t count);
void route_choose_looked(const struct route_table *table, struct route_load *loads,
                         struct scan *scratch, struct route_look *look,
                         struct route_choice *choice);

/* A session has been at the node of index `home`, with `known_bytes` of its prompts. If that node
 * passes every filter, is not suspected, and its prediction, less the prefill of what it knows, is
 * within the limit that the choice sets, it is the choice, and who would have been chosen without
 * it its first alternate. Returns whether it is. */
bool route_prefer_home(const struct route_table *table, struct route_load *loads,
                       const struct route_query *query, uint16_t home, uint32_t known_bytes,
                       struct route_choice *choice);

/* True: the node passes every filter and is not suspected; its prediction less the prefill of the
 * known bytes, if it keeps prompts. The budget is held against the whole prefill: caches forget. */
bool route_predict_known(const struct route_table *table, struct route_load *loads,
                         const struct route_query *query, uint16_t index, uint32_t known_bytes,
                         uint32_t *predicted_us);

/* The node of that index is the choice, who was chosen before its first alternate. */
void route_choice_move(struct route_choice *choice, uint16_t index);

/* Does the node meet what never changes with load: model, tags, jurisdiction, tier,
 * radius? */
bool route_allows(const struct route_table *table, const struct route_query *query, uint16_t node);

/* Cells between the query's place and a node. */
uint32_t route_distance(const struct route_table *table, const struct route_query *query,
                        const struct route_node *node);

/* The load that counts for a node, in its place in `loads`: whichever of table and overlay was
 * heard later, compared once for each table. */
static inline struct route_load *route_load_now(const struct route_table *table, uint16_t index,
                                                struct route_load *loads)
{
    const struct route_node *node = &table->nodes[index];
    struct route_load *load = &loads[node->id];
    if (load->generation != table->generation) {
        if (load->heard_ns == 0 || load->heard_ns < node->load_ns) {
            *load = (struct route_load){
                .queue_us = node->queue_us,
                .room = node->room,
                .free_vram_64mib = node->free_vram_64mib,
            };
        }
        load->left = (uint16_t)(load->room > load->assigned ? load->room - load->assigned : 0);
        load->generation = table->generation;
    }
    return load;
}

/* Counts a request sent to the node that was just chosen against the room that it last told of.
 * Nothing is counted against a node that never told. */
static inline void route_load_assign(struct route_load *load, const struct route_node *node)
{
    typedef uint32_t words __attribute__((vector_size(16), may_alias));
    if (load->heard_ns == 0) {
        load->heard_ns = node->load_ns;
    }
    if (load->heard_ns != 0) { /* in one store: the next choice reads these words in one load */
        *(words *)(void *)load += (words){0, UINT32_MAX, 1, 0};
    }
}

/* Tokens that a prediction covers. */
struct route_work {
    uint64_t prompt;
    uint64_t answer;
};

static inline struct route_work route_work_of(const struct route_query *query)
{
    return (struct route_work){
        .prompt = query->prompt_bytes / ROUTE_BYTES_PER_TOKEN + 1,
        .answer = query->end_to_end ? query->max_tokens : 0,
    };
}

/* Predictions saturate here: more than an hour is as good as never. */
#define ROUTE_PREDICT_MAX_US 3600000000u

static inline uint32_t route_work_us(struct route_work work, uint64_t wait_us, uint32_t prefill_ns,
                                     uint32_t decode_ns)
{
    uint64_t us = wait_us + (work.prompt * prefill_ns + work.answer * decode_ns) / 1000u;
    return us < ROUTE_PREDICT_MAX_US ? (uint32_t)us : ROUTE_PREDICT_MAX_US;
}

/* How slow a nearer node may be when the best one takes `best_us`. */
static inline uint64_t route_limit_us(uint32_t best_us)
{
    uint32_t short_us = best_us / ROUTE_SHORT_DEN;
    uint32_t long_us = best_us / ROUTE_LONG_DEN;
    short_us = short_us < ROUTE_SHORT_US ? short_us : ROUTE_SHORT_US;
    return (uint64_t)best_us + (short_us > long_us ? short_us : long_us) + ROUTE_SLACK_US;
}

/* A candidate predicted within this is within the limit of whichever is the best. */
static inline uint64_t route_bound_us(const struct route_query *query,
                                      const struct route_model *model)
{
    return route_limit_us(route_work_us(route_work_of(query), model->rtt_min_us,
                                        model->prefill_min_ns, model->decode_min_ns));
}

/* Microseconds until the first token, or the last with query->end_to_end, from a node of a table
 * that has the model. Saturates. */
uint32_t route_predict_us(const struct route_query *query, const struct route_node *node,
                          uint32_t queue_us);

/* Status that a refusal means for the client (weft/status.h). Everybody full who could do it, and
 * all of them because they end what they have and take nothing new, is DRAINING. */
int route_refusal_status(const struct route_choice *choice);
