/* SPDX-License-Identifier: Apache-2.0 */
/* position.c - see position.h. Contradictions are few: plain scans, but for the graph. */
#include "controlplane/maps/position.h"

#include <stdlib.h>
#include <string.h>

#define NODES_MAX (2u * POSITION_EDGES)

uint64_t position_floor_ns(struct geo_point a, struct geo_point b)
{
    double ms = 2.0 * geo_distance_km(a, b) / POSITION_FIBRE_KM_PER_MS;
    return (uint64_t)(POSITION_TOLERANCE * ms * (double)NS_PER_MS);
}

void position_init(struct position_map *map)
{
    memset(map, 0, sizeof(*map));
}

/* ---- who is suspect ---- */

/* The graph without direction: nodes by rising id, opponents counted once a pair. */
struct graph {
    uint32_t nodes[NODES_MAX];
    uint32_t degree[NODES_MAX];
    uint32_t count;
    struct {
        uint16_t a, b;
    } pairs[POSITION_EDGES];
    uint32_t pair_count;
};

static int by_id(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static int by_key(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint16_t graph_find(const struct graph *g, uint32_t node)
{
    const uint32_t *at = bsearch(&node, g->nodes, g->count, sizeof(node), by_id);
    return (uint16_t)(at - g->nodes); /* it is there */
}

/* By sorting, since whoever sends contradictions decides how often this is done. */
static void graph_make(struct graph *g, const struct position_edge *edges)
{
    uint64_t keys[POSITION_EDGES];
    uint32_t key_count = 0, ends = 0;
    g->count = 0;
    g->pair_count = 0;
    for (uint32_t i = 0; i < POSITION_EDGES; i++) {
        uint32_t x = edges[i].observer, y = edges[i].subject;
        if (edges[i].seen_ns != 0) {
            keys[key_count++] = x < y ? (uint64_t)x << 32 | y : (uint64_t)y << 32 | x;
            g->nodes[ends++] = x;
            g->nodes[ends++] = y;
        }
    }
    qsort(keys, key_count, sizeof(keys[0]), by_key);
    qsort(g->nodes, ends, sizeof(g->nodes[0]), by_id);
    for (uint32_t i = 0; i < ends; i++) {
        if (i == 0 || g->nodes[i] != g->nodes[g->count - 1]) {
            g->degree[g->count] = 0;
            g->nodes[g->count++] = g->nodes[i];
        }
    }
    for (uint32_t i = 0; i < key_count; i++) {
        if (i == 0 || keys[i] != keys[i - 1]) {
            uint16_t a = graph_find(g, (uint32_t)(keys[i] >> 32));
            uint16_t b = graph_find(g, (uint32_t)keys[i]);
            g->pairs[g->pair_count].a = a;
            g->pairs[g->pair_count++].b = b;
            g->degree[a]++;
            g->degree[b]++;
        }
    }
}

/* Sets the pairs of a node aside. */
static void graph_remove(struct graph *g, uint32_t index)
{
    for (uint32_t i = 0; i < g->pair_count;) {
        if (g->pairs[i].a == index || g->pairs[i].b == index) {
            g->degree[g->pairs[i].a]--;
            g->degree[g->pairs[i].b]--;
            g->pairs[i] = g->pairs[--g->pair_count];
        } else {
            i++;
        }
    }
}

/* Most opponents first; of equals the larger id, so that every node decides alike. */
static uint32_t graph_worst(const struct graph *g)
{
    uint32_t worst = 0;
    for (uint32_t i = 1; i < g->count; i++) {
        if (g->degree[i] > g->degree[worst] ||
            (g->degree[i] == g->degree[worst] && g->nodes[i] > g->nodes[worst])) {
            worst = i;
        }
    }
    return worst;
}

static void settle(struct position_map *map)
{
    struct graph g;
    uint32_t suspects[POSITION_SUSPECTS_MAX];
    uint32_t count = 0;
    graph_make(&g, map->edges);
    while (g.pair_count > 0 && count < POSITION_SUSPECTS_MAX) {
        uint32_t worst = graph_worst(&g);
        if (g.degree[worst] < POSITION_OBSERVERS) {
            break;
        }
        suspects[count++] = g.nodes[worst];
        graph_remove(&g, worst);
    }
    if (count != map->suspect_count ||
        memcmp(suspects, map->suspects, count * sizeof(suspects[0])) != 0) {
        memcpy(map->suspects, suspects, count * sizeof(suspects[0]));
        map->suspect_count = count;
        map->version++;
    }
}

/* ---- what is said ---- */

/* The observer's own oldest when it has used up its share, else an unused place, else the oldest of
 * all. */
static struct position_edge *edge_place(struct position_map *map, uint32_t observer)
{
    struct position_edge *mine = NULL, *oldest = &map->edges[0];
    uint32_t count = 0;
    for (uint32_t i = 0; i < POSITION_EDGES; i++) {
        struct position_edge *edge = &map->edges[i];
        if (edge->seen_ns != 0 && edge->observer == observer) {
            mine = mine == NULL || edge->seen_ns < mine->seen_ns ? edge : mine;
            count++;
        }
        oldest = edge->seen_ns < oldest->seen_ns ? edge : oldest;
    }
    return count >= POSITION_PER_OBSERVER ? mine : oldest;
}

void position_contradict(struct position_map *map, uint32_t observer, uint32_t subject,
                         uint64_t now_ns)
{
    if (observer == subject) {
        return;
    }
    for (uint32_t i = 0; i < POSITION_EDGES; i++) {
        struct position_edge *edge = &map->edges[i];
        if (edge->seen_ns != 0 && edge->observer == observer && edge->subject == subject) {
            edge->seen_ns = now_ns;
            return;
        }
    }
    *edge_place(map, observer) = (struct position_edge){observer, subject, now_ns};
    settle(map);
}

void position_moved(struct position_map *map, uint32_t node)
{
    bool changed = false;
    for (uint32_t i = 0; i < POSITION_EDGES; i++) {
        struct position_edge *edge = &map->edges[i];
        if (edge->seen_ns != 0 && (edge->observer == node || edge->subject == node)) {
            edge->seen_ns = 0;
            changed = true;
        }
    }
    if (changed) {
        settle(map);
    }
}

void position_tick(struct position_map *map, uint64_t now_ns)
{
    bool changed = false;
    for (uint32_t i = 0; i < POSITION_EDGES; i++) {
        struct position_edge *edge = &map->edges[i];
        if (edge->seen_ns != 0 && now_ns >= edge->seen_ns + POSITION_KEEP_NS) {
            edge->seen_ns = 0;
            changed = true;
        }
    }
    if (changed) {
        settle(map);
    }
}

bool position_is_suspect(const struct position_map *map, uint32_t node)
{
    for (uint32_t i = 0; i < map->suspect_count; i++) {
        if (map->suspects[i] == node) {
            return true;
        }
    }
    return false;
}
