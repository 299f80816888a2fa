/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - builds the immutable routing table and looks things up in it. See table.h. */
#include "dataplane/route/table.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/route/nearest.h"

struct pair {
    uint32_t model;
    uint16_t node;
};

#define LINE_BYTES 64u

static int compare_node(const void *a, const void *b)
{
    const struct route_node *x = a;
    const struct route_node *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static int compare_pair(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    if (x->model != y->model) {
        return x->model > y->model ? 1 : -1;
    }
    return (x->node > y->node) - (x->node < y->node);
}

static bool is_candidate(const struct route_node *node)
{
    return node->alive && !node->leaving;
}

/* (model, node) of every candidate, sorted, without repetition. Returns their number. */
static uint32_t collect_pairs(const struct route_node *nodes, uint32_t count, struct pair *pairs)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t m = 0; is_candidate(&nodes[i]) && m < nodes[i].model_count; m++) {
            pairs[used++] = (struct pair){nodes[i].models[m], (uint16_t)i};
        }
    }
    qsort(pairs, used, sizeof(*pairs), compare_pair);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < used; i++) {
        if (kept == 0 || compare_pair(&pairs[kept - 1], &pairs[i]) != 0) {
            pairs[kept++] = pairs[i];
        }
    }
    return kept;
}

/* The arrays of a table under construction. */
struct arrays {
    struct route_node *nodes;
    struct route_model *models;
    struct route_row *rows;
    uint32_t *places;
    uint32_t *tags;
    uint16_t *candidates;
    struct route_map_entry *by_id;
    struct route_map_entry *by_v4;
    struct route_map_entry *by_v6;
    struct route_map_entry *by_model;
    uint8_t *tiers;
    uint32_t *bases;
    struct route_cost *costs;
};

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* As a query for tier 0 sees it (scan.h). */
static uint32_t tier_cost(uint32_t tier, bool abstract)
{
    return ROUTE_TIER_CELLS * (abstract ? min_u32(tier, SCAN_TIERS - tier) : tier);
}

static void add_candidate(const struct arrays *to, struct route_model *model, uint16_t index,
                          bool abstract)
{
    const struct route_node *node = &to->nodes[index];
    const struct route_pace *pace = route_pace_of(node, model->id);
    uint32_t at = model->first + model->count++;
    to->candidates[at] = index;
    to->places[at] = node->x | (uint32_t)node->y << 16;
    to->tags[at] = node->tags;
    to->tiers[at] = node->tier;
    to->bases[at] = nearest_base(model->count - 1, tier_cost(node->tier, abstract));
    to->costs[at] = (struct route_cost){
        .rtt_us = node->rtt_us,
        .prefill_ns = pace->prefill_ns,
        .decode_ns = pace->decode_ns,
        .id = node->id,
    };
    model->rtt_min_us = min_u32(model->rtt_min_us, node->rtt_us);
    model->prefill_min_ns = min_u32(model->prefill_min_ns, pace->prefill_ns);
    model->decode_min_ns = min_u32(model->decode_min_ns, pace->decode_ns);
}

static uint32_t fill_models(const struct arrays *to, const struct pair *pairs, uint32_t count,
                            bool abstract)
{
    uint32_t used = 0;
    uint32_t next = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (used == 0 || to->models[used - 1].id != pairs[i].model) {
            to->models[used++] = (struct route_model){
                .id = pairs[i].model,
                .first = (next + SCAN_PAD - 1) / SCAN_PAD * SCAN_PAD,
                .rtt_min_us = UINT32_MAX,
                .prefill_min_ns = UINT32_MAX,
                .decode_min_ns = UINT32_MAX,
            };
        }
        struct route_model *model = &to->models[used - 1];
        add_candidate(to, model, pairs[i].node, abstract);
        next = model->first + model->count;
    }
    return used;
}

/* Divisions are done here, once per table, not per choice. */
static void set_paces(struct route_node *node)
{
    uint32_t prefill = node->prefill_per_second;
    uint32_t decode = node->decode_per_second;
    const struct route_pace otherwise = {
        .prefill_ns = route_pace_ns(prefill != 0 ? prefill : ROUTE_PREFILL_UNKNOWN),
        .decode_ns = route_pace_ns(decode != 0 ? decode : ROUTE_DECODE_UNKNOWN),
    };
    for (uint32_t i = 0; i < ROUTE_MODELS_PER_NODE; i++) {
        struct route_pace *pace = &node->paces[i];
        pace->prefill_ns = pace->prefill_ns != 0 ? pace->prefill_ns : otherwise.prefill_ns;
        pace->decode_ns = pace->decode_ns != 0 ? pace->decode_ns : otherwise.decode_ns;
    }
}

/* ---- maps ---- */

#define MAP_HASH 0x9e3779b1u /* 2^32 divided by the golden ratio */

/* Entries of a map of `count` keys: a power of two, at least twice as many. */
static uint32_t map_entries(uint32_t count)
{
    uint32_t entries = 4;
    while (entries < 2 * count) {
        entries *= 2;
    }
    return entries;
}

static uint32_t v6_count(const struct route_node *nodes, uint32_t count)
{
    uint32_t v6 = 0;
    for (uint32_t i = 0; i < count; i++) {
        v6 += !addr_is_v4(&nodes[i].addr);
    }
    return v6;
}

static struct route_map map_begin(struct route_map_entry *entries, uint32_t count)
{
    uint32_t size = map_entries(count);
    for (uint32_t i = 0; i < size; i++) {
        entries[i].place = ROUTE_INDEX_NONE;
    }
    return (struct route_map){
        .entries = entries,
        .shift = 32u - (uint32_t)__builtin_ctz(size),
    };
}

/* The key's place, ROUTE_INDEX_NONE if it is not there; then *slot is where it would go. */
static inline uint16_t map_look(const struct route_map *map, uint32_t key, uint32_t *slot)
{
    const uint32_t mask = (1u << (32u - map->shift)) - 1;
    uint32_t at = (key * MAP_HASH) >> map->shift;
    while (map->entries[at].place != ROUTE_INDEX_NONE && map->entries[at].key != key) {
        at = (at + 1) & mask;
    }
    *slot = at;
    return map->entries[at].place;
}

/* False: it is there already. */
static bool map_add(const struct route_map *map, struct route_map_entry *entries, uint32_t key,
                    uint32_t place)
{
    uint32_t slot;
    if (map_look(map, key, &slot) != ROUTE_INDEX_NONE) {
        return false;
    }
    entries[slot] = (struct route_map_entry){.key = key, .place = (uint16_t)place};
    return true;
}

/* What stands for an IPv6 address in the map. Which of two that share it is meant, the nodes tell.
 */
static inline uint32_t v6_key(const struct in6_addr *addr)
{
    uint64_t halves[2];
    memcpy(halves, addr, sizeof(halves));
    uint64_t mixed =
        (halves[0] ^ halves[1] * UINT64_C(0x9e3779b97f4a7c15)) * UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)(mixed >> 32);
}

static uint16_t v6_look(const struct route_map *map, const struct route_node *nodes,
                        const struct in6_addr *addr, uint32_t *slot)
{
    const uint32_t mask = (1u << (32u - map->shift)) - 1;
    const uint32_t key = v6_key(addr);
    uint32_t at = (key * MAP_HASH) >> map->shift;
    while (
        map->entries[at].place != ROUTE_INDEX_NONE &&
        (map->entries[at].key != key || !addr_equal(&nodes[map->entries[at].place].addr, addr))) {
        at = (at + 1) & mask;
    }
    *slot = at;
    return map->entries[at].place;
}

/* Into the map of the address's family. False: it is there already. */
static bool map_add_addr(const struct route_table *table, const struct arrays *to, uint32_t index)
{
    const struct in6_addr *addr = &table->nodes[index].addr;
    uint32_t slot;
    if (addr_is_v4(addr)) {
        return map_add(&table->by_v4, to->by_v4, addr_v4(addr), index);
    }
    if (v6_look(&table->by_v6, table->nodes, addr, &slot) != ROUTE_INDEX_NONE) {
        return false;
    }
    to->by_v6[slot] = (struct route_map_entry){.key = v6_key(addr), .place = (uint16_t)index};
    return true;
}

/* Fills all maps. False: two nodes have the same id or address. */
static bool fill_maps(struct route_table *table, const struct arrays *to)
{
    bool unique = true;
    table->by_id = map_begin(to->by_id, table->node_count);
    table->by_v4 =
        map_begin(to->by_v4, table->node_count - v6_count(table->nodes, table->node_count));
    table->by_v6 = map_begin(to->by_v6, v6_count(table->nodes, table->node_count));
    table->by_model = map_begin(to->by_model, table->model_count);
    for (uint32_t i = 0; i < table->node_count; i++) {
        unique &= map_add(&table->by_id, to->by_id, table->nodes[i].id, i);
        unique &= map_add_addr(table, to, i);
    }
    for (uint32_t i = 0; i < table->model_count; i++) {
        unique &= map_add(&table->by_model, to->by_model, table->models[i].id, i);
    }
    return unique;
}

/* ---- building ---- */

/* Takes `size` bytes, line-aligned, off a layout in progress: counts them, and if there is memory
 * gives their place. */
static void *lay_out(uint8_t *base, size_t *used, size_t size)
{
    uint8_t *at = base != NULL ? base + *used : NULL;
    *used += (size + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
    return at;
}

/* The one allocation behind a table: header, then arrays. Returns its size. */
static size_t lay_out_all(uint8_t *base, struct arrays *to, uint32_t nodes, uint32_t nodes6,
                          uint32_t models, uint32_t rows, uint32_t candidates)
{
    size_t used = 0;
    lay_out(base, &used, sizeof(struct route_table));
    to->nodes = lay_out(base, &used, nodes * sizeof(*to->nodes));
    to->models = lay_out(base, &used, models * sizeof(*to->models));
    to->rows = lay_out(base, &used, rows * sizeof(*to->rows));
    to->places = lay_out(base, &used, candidates * sizeof(*to->places));
    to->tags = lay_out(base, &used, candidates * sizeof(*to->tags));
    to->candidates = lay_out(base, &used, candidates * sizeof(*to->candidates));
    to->tiers = lay_out(base, &used, candidates * sizeof(*to->tiers));
    to->bases = lay_out(base, &used, candidates * sizeof(*to->bases));
    to->costs = lay_out(base, &used, candidates * sizeof(*to->costs));
    to->by_id = lay_out(base, &used, map_entries(nodes) * sizeof(*to->by_id));
    to->by_v4 = lay_out(base, &used, map_entries(nodes - nodes6) * sizeof(*to->by_v4));
    to->by_v6 = lay_out(base, &used, map_entries(nodes6) * sizeof(*to->by_v6));
    to->by_model = lay_out(base, &used, map_entries(models) * sizeof(*to->by_model));
    return used;
}

static int check_input(const struct route_node *nodes, uint32_t count, uint32_t *pair_max)
{
    *pair_max = 0;
    for (uint32_t i = 0; i < count && count <= ROUTE_NODES_MAX; i++) {
        if (nodes[i].model_count > ROUTE_MODELS_PER_NODE || nodes[i].id == WEFT_NODE_NONE ||
            nodes[i].tier > WEFT_TIER_MAX) {
            return -EINVAL;
        }
        *pair_max += nodes[i].model_count;
    }
    return count == 0 || count > ROUTE_NODES_MAX ? -EINVAL : 0;
}

/* Classes that a model of so many candidates has rows for. */
static uint32_t row_classes(const struct route_classes *classes, uint32_t candidates)
{
    return candidates >= ROUTE_ROW_CLASSES_LEAST ? classes->count : 1;
}

struct extent {
    uint32_t models, rows;
};

static struct extent measure(const struct pair *pairs, uint32_t count,
                             const struct route_classes *classes)
{
    struct extent e = {.models = 0};
    uint32_t begin = 0;
    for (uint32_t i = 1; i <= count; i++) {
        if (i == count || pairs[i].model != pairs[begin].model) {
            e.models++;
            e.rows += ROUTE_ROW_TIERS * row_classes(classes, i - begin);
            begin = i;
        }
    }
    return e;
}

/* Of the nodes that are candidates of anything. Returns 0 or -ENOMEM. */
static int find_classes(struct route_classes *classes, const struct route_node *nodes,
                        uint32_t count)
{
    uint32_t *masks = calloc(count, sizeof(*masks));
    uint32_t used = 0;
    if (masks == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (is_candidate(&nodes[i]) && nodes[i].model_count != 0) {
            masks[used++] = nodes[i].tags & ~WEFT_TAGS_JURISDICTION;
        }
    }
    route_classes_find(classes, masks, used);
    free(masks);
    return 0;
}

/* Tables are numbered as they are made, by whatever thread. */
static uint32_t next_generation(void)
{
    static _Atomic uint32_t last;
    uint32_t next = atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
    return next != 0 ? next : next_generation();
}

static int build(struct route_table **out, const struct route_node *sorted, uint32_t count,
                 const struct pair *pairs, uint32_t pair_count, bool abstract)
{
    struct arrays to;
    struct route_classes classes;
    int rc = find_classes(&classes, sorted, count);
    struct extent e = measure(pairs, pair_count, &classes);
    if (rc != 0 || e.models >= ROUTE_INDEX_NONE) {
        return rc != 0 ? rc : -EINVAL;
    }
    uint32_t nodes6 = v6_count(sorted, count);
    uint32_t padded = pair_count + (e.models + 1) * SCAN_PAD;
    size_t size = lay_out_all(NULL, &to, count, nodes6, e.models, e.rows, padded);
    uint8_t *memory = aligned_alloc(LINE_BYTES, size);
    if (memory == NULL) {
        return -ENOMEM;
    }
    memset(memory, 0, size);
    lay_out_all(memory, &to, count, nodes6, e.models, e.rows, padded);
    for (uint32_t i = 0; i < count; i++) {
        to.nodes[i] = sorted[i];
        set_paces(&to.nodes[i]);
    }
    for (uint32_t i = 0; i < padded; i++) {
        to.bases[i] = NEAREST_PAD;
    }
    struct route_table *table = (struct route_table *)memory;
    *table = (struct route_table){
        .node_count = count,
        .model_count = fill_models(&to, pairs, pair_count, abstract),
        .abstract = abstract,
        .generation = next_generation(),
        .nodes = to.nodes,
        .models = to.models,
        .rows = to.rows,
        .classes = classes,
        .size_bytes = size,
        .candidates = to.candidates,
        .places = to.places,
        .tags = to.tags,
        .tiers = to.tiers,
        .bases = to.bases,
        .costs = to.costs,
    };
    if (!fill_maps(table, &to)) {
        free(memory);
        return -EINVAL;
    }
    *out = table;
    return 0;
}

/* What a choice would have to look up for each of a row's candidates; behind the last any's. */
static void fill_columns(const struct route_table *table, const struct route_model *model,
                         struct route_row *row)
{
    for (uint32_t i = 0; i < ROUTE_ROW_ENTRIES; i++) {
        uint32_t position = i < row->count ? scan_position(0, row->keys[i]) : 0;
        const struct route_cost *cost = &table->costs[model->first + position];
        row->rtt_us[i] = cost->rtt_us;
        row->prefill_ns[i] = cost->prefill_ns;
        row->decode_ns[i] = cost->decode_ns;
        row->ids[i] = (uint16_t)cost->id;
    }
}

static void fill_row(const struct route_table *table, const struct route_model *model,
                     uint32_t tags, uint32_t tier_min, struct scan *scan, struct route_row *row)
{
    const struct route_node *self = &table->nodes[table->self];
    struct scan_input input = {
        .places = table->places + model->first,
        .tags = table->tags + model->first,
        .tiers = table->tiers + model->first,
        .count = model->count,
        .place = self->x | (uint32_t)self->y << 16,
        .need_tags = tags,
        .tier_min = tier_min,
        .tier_max = WEFT_TIER_MAX,
        .tier_cells = ROUTE_TIER_CELLS,
        .tier_ring = table->abstract,
    };
    scan_start(scan, &input);
    for (uint32_t i = 0; i < ROUTE_ROW_ENTRIES; i++) {
        row->keys[i] = SCAN_NONE;
        row->nodes[i] = table->candidates[model->first];
    }
    uint32_t last = 0;
    for (uint16_t i = 0; i <= ROUTE_ROW_ENTRIES; i++) {
        uint32_t key = i < scan->first_count ? scan->first[i] : scan_next(scan);
        if (key == SCAN_NONE) {
            break;
        }
        bool equal = i != 0 && scan_distance(key) == last;
        if (i == ROUTE_ROW_ENTRIES) {
            row->cut = equal;
            break;
        }
        row->tied = row->tied || equal;
        last = scan_distance(key);
        row->keys[i] = key;
        row->nodes[i] = table->candidates[model->first + scan_position(0, key)];
        row->count++;
    }
}

/* Needs everything else of the table. Returns 0 or -ENOMEM. */
static int fill_rows(struct route_table *table)
{
    struct scan *scan = aligned_alloc(_Alignof(struct scan), sizeof(*scan));
    struct route_model *models = (struct route_model *)(uintptr_t)table->models;
    struct route_row *rows = (struct route_row *)(uintptr_t)table->rows;
    uint32_t next = 0;
    if (scan == NULL) {
        return -ENOMEM;
    }
    for (uint32_t m = 0; m < table->model_count; m++) {
        models[m].row = next;
        models[m].row_classes = row_classes(&table->classes, models[m].count);
        for (uint32_t i = 0; i < models[m].row_classes * ROUTE_ROW_TIERS; i++) {
            fill_row(table, &models[m], table->classes.masks[i / ROUTE_ROW_TIERS],
                     i % ROUTE_ROW_TIERS, scan, &rows[next]);
            fill_columns(table, &models[m], &rows[next++]);
        }
    }
    free(scan);
    return 0;
}

int route_table_create(struct route_table **out, const struct route_node *nodes, uint32_t count,
                       uint16_t self_id, uint16_t epoch, bool abstract)
{
    *out = NULL;
    uint32_t pair_max;
    int rc = check_input(nodes, count, &pair_max);
    if (rc != 0) {
        return rc;
    }
    struct route_node *sorted = aligned_alloc(LINE_BYTES, count * sizeof(*sorted));
    struct pair *pairs = calloc(pair_max + 1, sizeof(*pairs));
    struct route_table *table = NULL;
    if (sorted != NULL && pairs != NULL) {
        memcpy(sorted, nodes, count * sizeof(*sorted));
        qsort(sorted, count, sizeof(*sorted), compare_node);
        rc = build(&table, sorted, count, pairs, collect_pairs(sorted, count, pairs), abstract);
    } else {
        rc = -ENOMEM;
    }
    free(sorted);
    free(pairs);
    if (rc != 0) {
        return rc;
    }
    table->epoch = epoch;
    table->self = route_table_find(table, self_id);
    rc = table->self == ROUTE_INDEX_NONE ? -EINVAL : fill_rows(table);
    if (rc != 0) {
        route_table_destroy(table);
        return rc;
    }
    *out = table;
    return 0;
}

void route_table_destroy(struct route_table *table)
{
    free(table); /* the head of its one allocation */
}

/* Where `at` of the table at `from` is in its copy at `to`. */
static const void *moved(const struct route_table *from, const void *to, const void *at)
{
    return (const uint8_t *)to + ((const uint8_t *)at - (const uint8_t *)from);
}

struct route_table *route_table_copy(const struct route_table *table, void *memory)
{
    struct route_table *copy = memory;
    memcpy(memory, table, table->size_bytes);
    copy->nodes = moved(table, memory, table->nodes);
    copy->models = moved(table, memory, table->models);
    copy->rows = moved(table, memory, table->rows);
    copy->candidates = moved(table, memory, table->candidates);
    copy->places = moved(table, memory, table->places);
    copy->tags = moved(table, memory, table->tags);
    copy->tiers = moved(table, memory, table->tiers);
    copy->bases = moved(table, memory, table->bases);
    copy->costs = moved(table, memory, table->costs);
    copy->by_id.entries = moved(table, memory, table->by_id.entries);
    copy->by_v4.entries = moved(table, memory, table->by_v4.entries);
    copy->by_v6.entries = moved(table, memory, table->by_v6.entries);
    copy->by_model.entries = moved(table, memory, table->by_model.entries);
    return copy;
}

uint16_t route_table_find(const struct route_table *table, uint16_t node_id)
{
    uint32_t slot;
    return map_look(&table->by_id, node_id, &slot);
}

uint16_t route_table_find_v4(const struct route_table *table, uint32_t addr)
{
    uint32_t slot;
    return map_look(&table->by_v4, addr, &slot);
}

uint16_t route_table_find_addr(const struct route_table *table, const struct in6_addr *addr)
{
    uint32_t slot;
    return addr_is_v4(addr) ? route_table_find_v4(table, addr_v4(addr))
                            : v6_look(&table->by_v6, table->nodes, addr, &slot);
}

const struct route_model *route_table_model(const struct route_table *table, uint32_t model)
{
    uint32_t slot;
    uint16_t place = map_look(&table->by_model, model, &slot);
    return place != ROUTE_INDEX_NONE ? &table->models[place] : NULL;
}
