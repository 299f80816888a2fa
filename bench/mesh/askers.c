/* SPDX-License-Identifier: Apache-2.0 */
/* askers.c - see askers.h. */
#include "bench/mesh/askers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const system_names[SYSTEMS] = {
    "zones", "kademlia a=3", "kademlia a=10", "kademlia a=3 pns", "kademlia a=10 pns",
    "chord", "chord pns"};

int askers_init(struct askers *a, const struct world_options *options)
{
    uint64_t seed = options->seed;
    *a = (struct askers){0};
    int rc = world_create(&a->world, options);
    rc = rc < 0 ? rc : world_tile(a->world);
    if (rc < 0) {
        return rc;
    }
    a->alive = malloc(options->nodes * sizeof(*a->alive));
    if (a->alive == NULL) {
        return -ENOMEM;
    }
    memset(a->alive, true, options->nodes * sizeof(*a->alive));
    rc = dht_create(&a->plain, a->world, false, false, seed);
    rc = rc < 0 ? rc : dht_create(&a->near, a->world, false, true, seed);
    rc = rc < 0 ? rc : dht_create(&a->chord, a->world, true, false, seed);
    return rc < 0 ? rc : dht_create(&a->chord_near, a->world, true, true, seed);
}

void askers_deinit(struct askers *a)
{
    free(a->alive);
    dht_destroy(&a->plain);
    dht_destroy(&a->near);
    dht_destroy(&a->chord);
    dht_destroy(&a->chord_near);
    world_destroy(a->world);
}

void askers_kill(struct askers *a, double share)
{
    struct rng rng = {.state = a->world->options.seed ^ 0xdead};
    for (uint32_t i = 0; i < a->world->options.nodes; i++) {
        if (rng_unit(&rng) < share) {
            world_crash(a->world, i);
            a->alive[i] = false;
        }
    }
}

static void cells_find(const struct askers *a, struct task *t)
{
    struct zone_top top;
    uint32_t count = 0;
    uint32_t holding = 0;
    world_oracle(a->world, &t->query, UINT64_MAX, &top);
    for (uint32_t i = 0; i < a->world->tile_count; i++) {
        const struct world_zone *tile = &a->world->tiles[i];
        const struct zone_query *q = &t->query;
        if (zone_box_distance(&tile->is.box, q->x, q->y, q->tier_min, q->tier_max, false) >
            zone_top_bound(&top)) {
            continue;
        }
        bool holds = false;
        for (uint32_t j = 0; j < tile->count && !holds; j++) {
            uint32_t node = a->world->tile_nodes[tile->first + j];
            uint32_t distance;
            holds = zone_query_match(&t->query, &a->world->truth[node], &distance) &&
                    distance <= zone_top_bound(&top);
        }
        t->cells[count++] = i;
        if (holds) {
            t->cells[count - 1] = t->cells[holding];
            t->cells[holding++] = i;
        }
    }
    t->cell_count = count;
    t->holding_count = holding;
}

void task_draw(struct askers *a, enum population_workload workload, struct task *t)
{
    struct population *p = &a->world->population;
    t->asker = rng_below(&p->rng, a->world->options.nodes);
    t->query = population_query(p, &a->world->truth[t->asker], workload, false);
    cells_find(a, t);
}

static struct dht_lookup table_lookup(struct askers *a, enum system system, uint32_t asker,
                                      uint64_t key)
{
    switch (system) {
    case KAD3:
    case KAD10:
        return dht_kademlia(&a->plain, a->alive, asker, key, system == KAD3 ? 3 : 10,
                            ASKERS_BUDGET_NS);
    case KAD3_PNS:
    case KAD10_PNS:
        return dht_kademlia(&a->near, a->alive, asker, key, system == KAD3_PNS ? 3 : 10,
                            ASKERS_BUDGET_NS);
    case CHORD:
        return dht_chord(&a->chord, a->alive, asker, key, ASKERS_BUDGET_NS);
    default:
        return dht_chord(&a->chord_near, a->alive, asker, key, ASKERS_BUDGET_NS);
    }
}

struct answer askers_table(struct askers *a, enum system system, const struct task *t)
{
    struct answer answer = {.complete = true};
    for (uint32_t i = 0; i < t->cell_count || i == 0; i++) {
        uint32_t cell = t->cell_count > 0 ? t->cells[i] : 0; /* none holds any: read one to know */
        struct dht_lookup r = table_lookup(a, system, t->asker, dht_key(cell));
        answer.messages += r.messages;
        answer.complete = answer.complete && r.found;
        answer.sure_ns = r.took_ns > answer.sure_ns ? r.took_ns : answer.sure_ns;
        answer.hops = r.hops > answer.hops ? r.hops : answer.hops;
        answer.found_ns = i < t->holding_count ? answer.sure_ns : answer.found_ns;
    }
    return answer;
}

struct answer askers_zones_answer(const struct zone_result *result, uint64_t took_ns)
{
    return (struct answer){.complete = result->complete,
                           .found_ns = result->settled_ns,
                           .sure_ns = took_ns,
                           .hops = result->hops,
                           .messages = result->asks};
}
