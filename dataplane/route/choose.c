/* SPDX-License-Identifier: Apache-2.0 */
/* choose.c - see choose.h. */
#include "dataplane/route/choose.h"

#include <string.h>
#include <weft/status.h>

#include "dataplane/route/lanes.h"
#include "schemas/base/torus.h"

/* The inner loop of a choice: a call for each candidate would cost a third more. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The place of the query, worked out once per choice. */
struct origin {
    uint16_t x, y;
    double chord2_max;
    struct geo_point at;
};

struct ranked {
    uint32_t distance;
    uint32_t predicted_us;
    uint32_t assigned;
    uint16_t node;
};

/* Constraints in the order in which the filters apply, which their values are not. */
#define STEP_(name, value, unit, text)    STEP_##name,
#define STEP_OF_(name, value, unit, text) [value] = STEP_##name,
enum { WEFT_CONSTRAINTS(STEP_) };
static const uint8_t steps[] = {WEFT_CONSTRAINTS(STEP_OF_)};

/* How far a candidate got, and its figure at the constraint that stopped it. */
struct verdict {
    uint16_t constraint; /* WEFT_C_NONE: passed all */
    uint32_t figure;
    uint32_t predicted_us;
    uint32_t queue_us;
};

static struct origin origin_of(const struct route_table *table, const struct route_query *query)
{
    const struct route_node *self = &table->nodes[table->self];
    struct origin o = {
        .x = query->has_position ? query->x : self->x,
        .y = query->has_position ? query->y : self->y,
    };
    if (query->radius_km != 0 && !table->abstract) {
        o.at = geo_point_at(weft_cell_latitude(o.y), weft_cell_longitude(o.x));
        o.chord2_max = geo_chord2_of_km(query->radius_km);
    }
    return o;
}

static uint32_t distance_from(const struct route_table *table, const struct origin *o,
                              const struct route_query *query, const struct route_node *node)
{
    return torus_ring_distance(node->x, o->x) + torus_ring_distance(node->y, o->y) +
           ROUTE_TIER_CELLS * torus_tier_steps(node->tier, query->tier_min, table->abstract);
}

uint32_t route_distance(const struct route_table *table, const struct route_query *query,
                        const struct route_node *node)
{
    struct origin o = origin_of(table, query);
    return distance_from(table, &o, query, node);
}

static bool within_radius(const struct route_table *table, const struct origin *o,
                          const struct route_query *query, const struct route_node *node)
{
    if (query->radius_km == 0) {
        return true;
    }
    if (table->abstract) {
        return torus_ring_distance(node->x, o->x) + torus_ring_distance(node->y, o->y) <=
               query->radius_km;
    }
    return geo_chord2(o->at, node->at) <= o->chord2_max;
}

static uint32_t radius_figure(const struct route_table *table, const struct origin *o,
                              const struct route_node *node)
{
    if (table->abstract) {
        return torus_ring_distance(node->x, o->x) + torus_ring_distance(node->y, o->y);
    }
    return (uint32_t)geo_distance_km(o->at, node->at) + 1; /* rounded up: this radius would do */
}

uint32_t route_predict_us(const struct route_query *query, const struct route_node *node,
                          uint32_t queue_us)
{
    const struct route_pace *pace = route_pace_of(node, query->model);
    return route_work_us(route_work_of(query), (uint64_t)node->rtt_us + queue_us, pace->prefill_ns,
                         pace->decode_ns);
}

/* Tags, jurisdiction, tier and radius; the model is given by the candidate list. */
static struct verdict judge_static(const struct route_table *table, const struct origin *o,
                                   const struct route_query *query, const struct route_node *node)
{
    uint32_t lacks = query->tags & ~node->tags;
    if (lacks != 0) {
        bool tags = (lacks & ~WEFT_TAGS_JURISDICTION) != 0;
        return (struct verdict){.constraint = tags ? WEFT_C_TAGS : WEFT_C_JURISDICTION};
    }
    if (node->tier < query->tier_min || node->tier > query->tier_max) {
        return (struct verdict){.constraint = WEFT_C_TIER, .figure = node->tier};
    }
    if (!within_radius(table, o, query, node)) {
        return (struct verdict){.constraint = WEFT_C_RADIUS,
                                .figure = radius_figure(table, o, node)};
    }
    return (struct verdict){.constraint = WEFT_C_NONE};
}

/* Memory, room and time: what changes from moment to moment. */
static struct verdict judge_load(const struct route_load *load, const struct route_query *query,
                                 const struct route_node *node)
{
    struct verdict v = {
        .constraint = WEFT_C_NONE,
        .predicted_us = route_predict_us(query, node, load->queue_us),
        .queue_us = load->queue_us,
    };
    if (load->free_vram_64mib < query->vram_64mib) {
        v.constraint = WEFT_C_VRAM;
        v.figure = load->free_vram_64mib;
    } else if (load->left == 0) {
        v.constraint = WEFT_C_ROOM;
        v.figure = load->queue_us;
    } else if (v.predicted_us > query->budget_us) {
        v.constraint = WEFT_C_BUDGET;
        v.figure = v.predicted_us;
    }
    return v;
}

static struct verdict judge(const struct route_table *table, struct route_load *loads,
                            const struct origin *o, const struct route_query *query, uint16_t index)
{
    const struct route_node *node = &table->nodes[index];
    struct verdict v = judge_static(table, o, query, node);
    return v.constraint != WEFT_C_NONE
               ? v
               : judge_load(route_load_now(table, index, loads), query, node);
}

/* Tiers outside of the range: steps to the range, so that the closest tier is the best figure. */
static uint32_t tier_gap(const struct route_query *query, uint32_t tier)
{
    return tier < query->tier_min ? query->tier_min - tier : tier - query->tier_max;
}

static bool figure_better(const struct route_query *query, uint16_t constraint, uint32_t a,
                          uint32_t b)
{
    switch (constraint) {
    case WEFT_C_TIER:
        return tier_gap(query, a) < tier_gap(query, b);
    case WEFT_C_VRAM:
        return a > b;
    default:
        return a < b;
    }
}

/* Of all refusals the one that got furthest binds: relaxing any earlier one would not help. */
static void note_refusal(const struct route_query *query, const struct verdict *v,
                         struct route_choice *choice)
{
    if (steps[v->constraint] > steps[choice->constraint]) {
        choice->constraint = v->constraint;
        choice->candidates = 0;
        choice->best = v->figure;
    }
    if (v->constraint == choice->constraint) {
        choice->candidates++;
        if (figure_better(query, v->constraint, v->figure, choice->best)) {
            choice->best = v->figure;
        }
    }
}

/* Of the near-equals among top[first..count) two are drawn; the better one's index. */
static uint32_t draw(const struct ranked *top, uint32_t first, uint32_t count, uint64_t limit,
                     uint32_t lot)
{
    uint32_t equals[ROUTE_TOP_K];
    uint32_t used = 0;
    for (uint32_t i = first; i < count; i++) {
        if (top[i].distance <= top[first].distance + ROUTE_NEAR_CELLS &&
            top[i].predicted_us <= limit) {
            equals[used++] = i;
        }
    }
    if (used < 2) {
        return first;
    }
    uint32_t a = (lot & 0xffffu) * used >> 16;
    uint32_t b = (lot >> 16) * (used - 1) >> 16;
    const struct ranked *one = &top[equals[a]];
    const struct ranked *two = &top[equals[b >= a ? b + 1 : b]];
    bool second = two->predicted_us < one->predicted_us ||
                  (two->predicted_us == one->predicted_us && two->assigned < one->assigned);
    return (uint32_t)((second ? two : one) - top);
}

/* The nearest whose prediction is close to the best one, or an equal of it; alternates are the
 * nearest others. */
static void pick(const struct ranked *top, uint32_t count, uint32_t lot,
                 struct route_choice *choice)
{
    uint32_t best_us = top[0].predicted_us;
    for (uint32_t i = 1; i < count; i++) {
        best_us = top[i].predicted_us < best_us ? top[i].predicted_us : best_us;
    }
    uint64_t limit = route_limit_us(best_us);
    uint32_t first = 0;
    while (top[first].predicted_us > limit) {
        first++; /* ends: the best one is within its own limit */
    }
    uint32_t chosen = draw(top, first, count, limit, lot);
    choice->node = top[chosen].node;
    choice->predicted_us = top[chosen].predicted_us;
    uint32_t used = 0;
    for (uint32_t i = 0; i < count && used < ROUTE_ALTERNATES; i++) {
        if (i != chosen) {
            choice->alternates[used++] = top[i].node;
        }
    }
    choice->constraint = WEFT_C_NONE;
}

/* Nobody can take it: which constraint bound, and how close did anyone come? The slow way, over all
 * candidates. */
static void explain(const struct route_table *table, struct route_load *loads,
                    const struct origin *o, const struct route_query *query,
                    const struct route_model *model, struct route_choice *choice)
{
    uint32_t queue_min_us = UINT32_MAX;
    for (uint32_t i = 0; i < model->count; i++) {
        struct verdict v = judge(table, loads, o, query, table->candidates[model->first + i]);
        note_refusal(query, &v, choice);
        /* Waiting helps where only the queue was in the way. */
        if (steps[v.constraint] >= STEP_ROOM && v.queue_us < queue_min_us &&
            v.predicted_us - v.queue_us <= query->budget_us) {
            queue_min_us = v.queue_us;
        }
    }
    if (queue_min_us != UINT32_MAX) {
        choice->retry_after_us = queue_min_us != 0 ? queue_min_us : 1;
    }
}

/* The order of equals, from the request's lot. */
static uint32_t salt_of(const struct route_query *query)
{
    return query->lot * 0x9e3779b1u >> (32 - SCAN_POSITION_BITS);
}

static struct scan_input scan_of(const struct route_table *table, uint32_t place,
                                 const struct route_query *query, const struct route_model *model)
{
    return (struct scan_input){
        .places = table->places + model->first,
        .tags = table->tags + model->first,
        .tiers = table->tiers + model->first,
        .count = model->count,
        .place = place,
        .need_tags = query->tags,
        .tier_min = query->tier_min,
        .tier_max = query->tier_max,
        .tier_cells = ROUTE_TIER_CELLS,
        .tier_ring = table->abstract,
        .salt = salt_of(query),
    };
}

/* Would the answer go on with other weights, or another way of computing? */
static bool computes_otherwise(const struct route_query *query, const struct route_node *node)
{
    for (uint32_t i = 0; i < node->model_count; i++) {
        if (node->models[i] == query->model) {
            return node->arithmetics[i] != query->arithmetic;
        }
    }
    return true;
}

static bool avoided(const struct route_query *query, const struct route_node *node)
{
    for (uint32_t i = 0; i < query->avoid_count; i++) {
        if (query->avoid[i] == node->id) {
            return true;
        }
    }
    return query->avoid_count != 0 && query->arithmetic != 0 && computes_otherwise(query, node);
}

struct candidate {
    uint32_t distance;
    uint32_t rtt_us;
    uint32_t prefill_ns, decode_ns; /* with the model that is asked for */
    uint16_t index;
};

/* Does a candidate of the scan pass what the scan does not look at? The same as judge(), without
 * the reasons. */
ALWAYS_INLINE bool take_candidate(const struct route_table *table, struct route_load *loads,
                                  const struct origin *o, const struct route_query *query,
                                  struct candidate one, struct route_work work,
                                  struct ranked *ranked)
{
    const struct route_node *node = &table->nodes[one.index];
    const struct route_load *load = route_load_now(table, one.index, loads);
    uint32_t us =
        route_work_us(work, (uint64_t)one.rtt_us + load->queue_us, one.prefill_ns, one.decode_ns);
    ranked->predicted_us = us;
    ranked->assigned = load->assigned;
    ranked->node = one.index;
    return load->left != 0 && load->free_vram_64mib >= query->vram_64mib &&
           us <= query->budget_us && within_radius(table, o, query, node) &&
           (query->avoid_count == 0 || !avoided(query, node));
}

/* The nearest candidates that pass, in order, as many as the decision needs. */
struct collection {
    uint64_t bound; /* what the nearest must be within to settle the matter */
    struct route_work work;
    uint32_t count;
    bool settled;
    struct ranked top[ROUTE_TOP_K];
};

static void collection_clear(struct collection *c)
{
    c->count = 0;
    c->settled = true;
}

/* The next candidate in order of distance. True: no more are needed.
 *
 * If the nearest and its near-equals are good enough against the best prediction that could be,
 * they are against the best that is; then nobody beyond them and the alternates matters. */
ALWAYS_INLINE bool collection_add(struct collection *c, const struct route_table *table,
                                  struct route_load *loads, const struct origin *o,
                                  const struct route_query *query, struct candidate one)
{
    struct ranked *next = &c->top[c->count];
    next->distance = one.distance;
    if (!take_candidate(table, loads, o, query, one, c->work, next)) {
        return false;
    }
    c->count++;
    bool near = one.distance <= c->top[0].distance + ROUTE_NEAR_CELLS;
    c->settled = c->settled && (!near || next->predicted_us <= c->bound);
    return c->count == ROUTE_TOP_K || (c->settled && !near && c->count > ROUTE_ALTERNATES);
}

/* The row that answers such a query, NULL if only a scan does. */
static const struct route_row *row_for(const struct route_table *table,
                                       const struct route_query *query,
                                       const struct route_model *model)
{
    if (query->has_position || query->tier_max != WEFT_TIER_MAX ||
        query->tier_min > WEFT_TIER_MAX) {
        return NULL;
    }
    uint32_t class = route_class_of(&table->classes, query->tags);
    return class < model->row_classes
               ? &table->rows[model->row + class * ROUTE_ROW_TIERS + query->tier_min]
               : NULL;
}

/* Which entry of a row is how nearest, with equals in the order that the scan would give them. */
static void order_equals(const struct route_row *row, uint32_t salt,
                         uint8_t order[ROUTE_ROW_ENTRIES])
{
    uint32_t keys[ROUTE_ROW_ENTRIES];
    for (uint32_t i = 0; i < row->count; i++) {
        uint32_t key = row->keys[i] & ~(SCAN_CANDIDATES_MAX - 1);
        key |= (row->keys[i] + salt) & (SCAN_CANDIDATES_MAX - 1);
        uint32_t at = i;
        for (; at > 0 && keys[at - 1] > key; at--) {
            keys[at] = keys[at - 1];
            order[at] = order[at - 1];
        }
        keys[at] = key;
        order[at] = (uint8_t)i;
    }
}

ALWAYS_INLINE struct candidate of_row(const struct route_row *row, uint32_t i)
{
    return (struct candidate){
        .distance = scan_distance(row->keys[i]),
        .rtt_us = row->rtt_us[i],
        .prefill_ns = row->prefill_ns[i],
        .decode_ns = row->decode_ns[i],
        .index = row->nodes[i],
    };
}

/* The one at `at` of all candidates. */
ALWAYS_INLINE struct candidate of_table(const struct route_table *table, uint32_t at,
                                        uint32_t distance)
{
    const struct route_cost *cost = &table->costs[at];
    return (struct candidate){
        .distance = distance,
        .rtt_us = cost->rtt_us,
        .prefill_ns = cost->prefill_ns,
        .decode_ns = cost->decode_ns,
        .index = table->candidates[at],
    };
}

/* True: what the row has was enough, or all there is. */
static bool collect_row(struct collection *c, const struct route_table *table,
                        struct route_load *loads, const struct origin *o,
                        const struct route_query *query, const struct route_row *row)
{
    uint8_t order[ROUTE_ROW_ENTRIES] = {0, 1, 2, 3, 4, 5, 6, 7};
    if (row->tied) {
        order_equals(row, salt_of(query), order);
    }
    for (uint32_t i = 0; i < row->count; i++) {
        if (collection_add(c, table, loads, o, query, of_row(row, order[i]))) {
            return true;
        }
    }
    return row->count < ROUTE_ROW_ENTRIES;
}

static void collect(struct collection *c, const struct route_table *table, struct route_load *loads,
                    const struct origin *o, const struct route_query *query,
                    const struct route_model *model, struct scan *scan)
{
    const struct route_row *row = row_for(table, query, model);
    c->work = route_work_of(query);
    c->bound = route_bound_us(query, model);
    collection_clear(c);
    if (row != NULL && !row->cut && collect_row(c, table, loads, o, query, row)) {
        return;
    }
    collection_clear(c);
    struct scan_input input = scan_of(table, o->x | (uint32_t)o->y << 16, query, model);
    scan_start(scan, &input);
    for (uint32_t i = 0;; i++) {
        uint32_t key = i < scan->first_count ? scan->first[i] : scan_next(scan);
        if (key == SCAN_NONE ||
            collection_add(c, table, loads, o, query,
                           of_table(table, model->first + scan_position(scan->salt, key),
                                    scan_distance(key)))) {
            return;
        }
    }
}

static bool choose_among(const struct route_table *table, struct route_load *loads,
                         struct scan *scratch, const struct route_query *query,
                         const struct route_model *model, struct route_choice *choice)
{
    struct origin o = origin_of(table, query);
    struct collection c;
    collect(&c, table, loads, &o, query, model, scratch);
    if (c.count != 0) {
        pick(c.top, c.count, query->lot, choice);
    }
    return c.count != 0;
}

/* Nobody is left: those that compute otherwise, those to be avoided after all, or the reason. The
 * slow way. */
__attribute__((cold, noinline)) static void choose_again(
    const struct route_table *table, struct route_load *loads, struct scan *scratch,
    const struct route_query *query, const struct route_model *model, struct route_choice *choice)
{
    struct route_query any = *query;
    any.arithmetic = 0;
    if (query->avoid_count != 0 && query->arithmetic != 0 &&
        choose_among(table, loads, scratch, &any, model, choice)) {
        return;
    }
    any.avoid_count = 0;
    if (query->avoid_count == 0 || !choose_among(table, loads, scratch, &any, model, choice)) {
        struct origin o = origin_of(table, query);
        explain(table, loads, &o, query, model, choice);
    }
}

/* ---- the usual way: eight at once ---- */

/* The first step: the model, and where its nearest are to be had from. */
static void look_up(const struct route_table *table, struct route_look *look)
{
    const struct route_query *query = &look->query;
    const struct route_model *model = route_table_model(table, query->model);
    look->model = model;
    look->row = NULL;
    look->near = model != NULL && query->radius_km == 0 && query->avoid_count == 0 &&
                 scan_isa() != SCAN_SCALAR;
    if (!look->near) {
        return;
    }
    const struct route_row *row = row_for(table, query, model);
    if (row != NULL && !row->cut) {
        look->row = row;
        return;
    }
    const struct route_node *self = &table->nodes[table->self];
    uint32_t place = query->has_position ? query->x | (uint32_t)query->y << 16
                                         : self->x | (uint32_t)self->y << 16;
    look->nearest.in = scan_of(table, place, query, model);
    look->nearest.bases = table->bases + model->first;
}

/* A row gives the eight in their order. */
static void look_at_row(struct route_look *look)
{
    const struct route_row *row = look->row;
    if (row->tied) {
        nearest_resalt(row->keys, salt_of(&look->query), &look->nearest);
        look->row = NULL; /* its columns are in another order */
        return;
    }
    memcpy(look->nearest.keys, row->keys, sizeof(row->keys));
    memcpy(look->nodes, row->nodes, sizeof(row->nodes));
}

static void look_at_nodes(const struct route_table *table, struct route_look *look)
{
    const uint16_t *candidates = table->candidates + look->model->first;
    const uint32_t *positions = look->nearest.positions;
#pragma GCC unroll 8
    for (uint32_t i = 0; i < NEAREST_COUNT; i++) {
        look->nodes[i] = candidates[positions[i]];
    }
}

void route_look(const struct route_table *table, struct route_load *loads, struct scan *scratch,
                struct route_look *looks, uint32_t count)
{
    struct nearest *searches[NEAREST_BURST];
    struct route_look *searched[NEAREST_BURST];
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        look_up(table, &looks[i]);
        if (looks[i].row != NULL) {
            look_at_row(&looks[i]);
        } else if (looks[i].near) {
            searched[used] = &looks[i];
            searches[used++] = &looks[i].nearest;
        }
    }
    if (used != 0) {
        nearest_find(searches, used, scratch);
    }
    for (uint32_t i = 0; i < used; i++) {
        searched[i]->near = searched[i]->nearest.ok;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (looks[i].near && looks[i].row == NULL) {
            look_at_nodes(table, &looks[i]);
        }
    }
    lanes_judge(table, loads, looks, count);
}

void route_choose_looked(const struct route_table *table, struct route_load *loads,
                         struct scan *scratch, struct route_look *look, struct route_choice *choice)
{
    *choice = (struct route_choice){
        .node = ROUTE_INDEX_NONE,
        .alternates = {ROUTE_INDEX_NONE, ROUTE_INDEX_NONE},
        .constraint = WEFT_C_MODEL,
    };
    if (look->model != NULL && !(look->near && lanes_pick(look, table, loads, choice)) &&
        !choose_among(table, loads, scratch, &look->query, look->model, choice)) {
        choose_again(table, loads, scratch, &look->query, look->model, choice);
    }
}

void route_choose(const struct route_table *table, struct route_load *loads, struct scan *scratch,
                  const struct route_query *query, struct route_choice *choice)
{
    struct route_look look;
    look.query = *query;
    route_look(table, loads, scratch, &look, 1);
    route_choose_looked(table, loads, scratch, &look, choice);
}

bool route_allows(const struct route_table *table, const struct route_query *query, uint16_t index)
{
    const struct route_node *node = &table->nodes[index];
    bool has_model = false;
    for (uint32_t i = 0; i < node->model_count; i++) {
        has_model |= node->models[i] == query->model;
    }
    struct origin o = origin_of(table, query);
    return has_model && judge_static(table, &o, query, node).constraint == WEFT_C_NONE;
}

bool route_predict_known(const struct route_table *table, struct route_load *loads,
                         const struct route_query *query, uint16_t index, uint32_t known_bytes,
                         uint32_t *predicted_us)
{
    const struct route_node *node = &table->nodes[index];
    if (!node->alive || node->suspect || node->leaving || avoided(query, node) ||
        !route_allows(table, query, index)) {
        return false;
    }
    struct verdict v = judge_load(route_load_now(table, index, loads), query, node);
    struct route_query rest = *query;
    if (node->keeps_prompts) { /* the least is one token */
        rest.prompt_bytes -= known_bytes < rest.prompt_bytes ? known_bytes : rest.prompt_bytes;
    }
    *predicted_us = route_predict_us(&rest, node, v.queue_us);
    return v.constraint == WEFT_C_NONE;
}

void route_choice_move(struct route_choice *choice, uint16_t index)
{
    if (choice->node == index) {
        return;
    }
    uint16_t other = choice->alternates[0] != index ? choice->alternates[0] : choice->alternates[1];
    choice->alternates[0] = choice->node;
    choice->alternates[1] = other;
    choice->node = index;
}

bool route_prefer_home(const struct route_table *table, struct route_load *loads,
                       const struct route_query *query, uint16_t home, uint32_t known_bytes,
                       struct route_choice *choice)
{
    uint32_t us;
    if (choice->node == home || choice->node == ROUTE_INDEX_NONE) {
        return choice->node == home;
    }
    if (!route_predict_known(table, loads, query, home, known_bytes, &us) ||
        us > route_limit_us(choice->predicted_us)) {
        return false;
    }
    route_choice_move(choice, home);
    choice->predicted_us = us;
    return true;
}

int route_refusal_status(const struct route_choice *choice)
{
    switch (choice->constraint) {
    case WEFT_C_NONE:
        return WEFT_OK;
    case WEFT_C_MODEL:
        return WEFT_E_UNKNOWN_MODEL;
    case WEFT_C_ROOM:
        return choice->best == WEFT_QUEUE_DRAINING ? WEFT_E_DRAINING : WEFT_E_MESH_FULL;
    case WEFT_C_BUDGET:
        return WEFT_E_BUDGET_INFEASIBLE;
    default:
        return WEFT_E_NO_CAPABLE_NODE;
    }
}
