/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - builds the immutable routing table and looks things up in it. See table.h. */
#include "dataplane/route/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct pair {
    uint32_t model;
    uint16_t node;
};

/* One allocation: the header, then the arrays that it points to. */
struct storage {
    struct route_table table;
    struct route_node nodes[];
};

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

static int compare_addr(const void *a, const void *b, void *nodes)
{
    const struct route_node *list = nodes;
    uint32_t x = list[*(const uint16_t *)a].addr;
    uint32_t y = list[*(const uint16_t *)b].addr;
    return (x > y) - (x < y);
}

/* (model, node) of every node alive, sorted, without repetition. Returns their number. */
static uint32_t collect_pairs(const struct route_node *nodes, uint32_t count, struct pair *pairs)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t m = 0; nodes[i].alive && m < nodes[i].model_count; m++) {
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

static uint32_t fill_models(const struct pair *pairs, uint32_t count, struct route_model *models,
                            uint16_t *candidates)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (used == 0 || models[used - 1].id != pairs[i].model) {
            models[used++] = (struct route_model){pairs[i].model, i, 0};
        }
        models[used - 1].count++;
        candidates[i] = pairs[i].node;
    }
    return used;
}

static int check_nodes(const struct route_node *nodes, const uint16_t *by_addr, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        if (nodes[i].id == nodes[i - 1].id ||
            nodes[by_addr[i]].addr == nodes[by_addr[i - 1]].addr) {
            return -EINVAL;
        }
    }
    return 0;
}

int route_table_create(struct route_table **table, const struct route_node *nodes, uint32_t count,
                       uint16_t self_id, uint16_t epoch, bool abstract)
{
    *table = NULL;
    uint32_t pair_max = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (nodes[i].model_count > ROUTE_MODELS_PER_NODE || nodes[i].id == WEFT_NODE_NONE) {
            return -EINVAL;
        }
        pair_max += nodes[i].model_count;
    }
    if (count == 0 || count > ROUTE_NODES_MAX) {
        return -EINVAL;
    }
    size_t size = sizeof(struct storage) + count * sizeof(struct route_node) +
                  pair_max * (sizeof(struct route_model) + sizeof(uint16_t)) +
                  count * sizeof(uint16_t);
    struct storage *s = calloc(1, size);
    struct pair *pairs = calloc(pair_max + 1, sizeof(*pairs));
    if (s == NULL || pairs == NULL) {
        free(s);
        free(pairs);
        return -ENOMEM;
    }
    struct route_model *models = (struct route_model *)(s->nodes + count);
    uint16_t *candidates = (uint16_t *)(models + pair_max);
    uint16_t *by_addr = candidates + pair_max;
    memcpy(s->nodes, nodes, count * sizeof(*nodes));
    qsort(s->nodes, count, sizeof(*nodes), compare_node);
    for (uint32_t i = 0; i < count; i++) {
        by_addr[i] = (uint16_t)i;
    }
    qsort_r(by_addr, count, sizeof(*by_addr), compare_addr, s->nodes);
    uint32_t pair_count = collect_pairs(s->nodes, count, pairs);
    s->table = (struct route_table){
        .epoch = epoch,
        .abstract = abstract,
        .node_count = count,
        .model_count = fill_models(pairs, pair_count, models, candidates),
        .nodes = s->nodes,
        .models = models,
        .candidates = candidates,
        .by_addr = by_addr,
    };
    free(pairs);
    s->table.self = route_table_find(&s->table, self_id);
    if (check_nodes(s->nodes, by_addr, count) != 0 || s->table.self == ROUTE_INDEX_NONE) {
        free(s);
        return -EINVAL;
    }
    *table = &s->table;
    return 0;
}

void route_table_destroy(struct route_table *table)
{
    free(table); /* first member of its storage */
}

uint16_t route_table_find(const struct route_table *table, uint16_t node_id)
{
    uint32_t low = 0;
    uint32_t high = table->node_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (table->nodes[mid].id < node_id) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    bool found = low < table->node_count && table->nodes[low].id == node_id;
    return found ? (uint16_t)low : (uint16_t)ROUTE_INDEX_NONE;
}

uint16_t route_table_find_addr(const struct route_table *table, uint32_t addr)
{
    uint32_t low = 0;
    uint32_t high = table->node_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (table->nodes[table->by_addr[mid]].addr < addr) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    bool found = low < table->node_count && table->nodes[table->by_addr[low]].addr == addr;
    return found ? table->by_addr[low] : (uint16_t)ROUTE_INDEX_NONE;
}

const struct route_model *route_table_model(const struct route_table *table, uint32_t model)
{
    uint32_t low = 0;
    uint32_t high = table->model_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (table->models[mid].id < model) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    bool found = low < table->model_count && table->models[low].id == model;
    return found ? &table->models[low] : NULL;
}
