/* SPDX-License-Identifier: Apache-2.0 */
/* sim_lookup.c - weft-bench mesh-sim lookup: the same searches by zones, Kademlia and Chord. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/figures.h"
#include "bench/mesh/dht.h"
#include "bench/mesh/sim_runs.h"

#define BUDGET_NS (10 * NS_PER_S)

enum system { ZONES, KAD3, KAD10, KAD3_PNS, KAD10_PNS, CHORD, CHORD_PNS, SYSTEMS };
static const char *const system_names[SYSTEMS] = {
    "zones", "kademlia a=3", "kademlia a=10", "kademlia a=3 pns", "kademlia a=10 pns",
    "chord", "chord pns"};

struct task {
    uint32_t asker;
    struct zone_query query;
    uint32_t *cells; /* that a table's user must read: first those that hold the answer, then those
                        that could have held something nearer */
    uint32_t cell_count, holding_count;
};

struct lookup {
    const struct sim_run *run;
    struct world *world;
    struct dht plain, near, chord, chord_near;
    bool *alive;
    struct task *tasks;
    struct zone_result last;
    uint64_t last_ns;
    bool done;
};

struct outcome {
    struct series found_ms, ms, hops, asks;
    uint32_t count, in_time, found_in_time, silent; /* silent: answered without a datagram */
    uint32_t incomplete;
};

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    struct lookup *l = w->user;
    zone_search_result(&s->search, &l->last);
    l->last_ns = now_ns - s->started_ns;
    l->done = true;
}

/* The cells in reach of the k-th best: an oracle has told the table's user how far that is. */
static int cells_find(struct lookup *l, struct task *t)
{
    struct zone_top top;
    uint32_t count = 0;
    uint32_t holding = 0;
    world_oracle(l->world, &t->query, UINT64_MAX, &top);
    t->cells = malloc(l->world->tile_count * sizeof(*t->cells));
    if (t->cells == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < l->world->tile_count; i++) {
        const struct world_zone *tile = &l->world->tiles[i];
        const struct zone_query *q = &t->query;
        if (zone_box_distance(&tile->is.box, q->x, q->y, q->tier_min, q->tier_max, false) >
            zone_top_bound(&top)) {
            continue;
        }
        bool holds = false;
        for (uint32_t j = 0; j < tile->count && !holds; j++) {
            uint32_t node = l->world->tile_nodes[tile->first + j];
            uint32_t distance;
            holds = zone_query_match(&t->query, &l->world->truth[node], &distance) &&
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
    return 0;
}

static int tasks_draw(struct lookup *l, enum population_workload workload)
{
    for (uint32_t i = 0; i < l->run->searches; i++) {
        struct task *t = &l->tasks[i];
        free(t->cells);
        t->asker = rng_below(&l->world->population.rng, l->run->world.nodes);
        t->query =
            population_query(&l->world->population, &l->world->truth[t->asker], workload, false);
        if (cells_find(l, t) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static void zones_do(struct lookup *l, const struct task *t, struct outcome *o)
{
    l->done = false;
    world_ask(l->world, t->asker, &t->query, BUDGET_NS, 0);
    while (!l->done && vnet_step(l->world->vnet)) {
    }
    double ms = (double)l->last_ns / 1e6;
    o->count++;
    o->silent += l->last.asks == 0;
    o->incomplete += !l->last.complete;
    o->in_time += l->last.complete && ms <= l->run->deadline_ms;
    series_add(&o->ms, ms);
    o->found_in_time += l->last.complete && (double)l->last.settled_ns / 1e6 <= l->run->deadline_ms;
    series_add(&o->found_ms, (double)l->last.settled_ns / 1e6);
    series_add(&o->hops, l->last.hops);
    series_add(&o->asks, l->last.asks);
}

static struct dht_lookup table_lookup(struct lookup *l, enum system system, uint32_t asker,
                                      uint64_t key)
{
    switch (system) {
    case KAD3:
    case KAD10:
        return dht_kademlia(&l->plain, l->alive, asker, key, system == KAD3 ? 3 : 10, BUDGET_NS);
    case KAD3_PNS:
    case KAD10_PNS:
        return dht_kademlia(&l->near, l->alive, asker, key, system == KAD3_PNS ? 3 : 10, BUDGET_NS);
    case CHORD:
        return dht_chord(&l->chord, l->alive, asker, key, BUDGET_NS);
    default:
        return dht_chord(&l->chord_near, l->alive, asker, key, BUDGET_NS);
    }
}

/* All cells at once: the slowest counts. */
static void table_do(struct lookup *l, enum system system, const struct task *t, struct outcome *o)
{
    struct dht_lookup worst = {.found = true};
    uint64_t found_ns = 0;
    uint32_t messages = 0;
    for (uint32_t i = 0; i < t->cell_count || i == 0; i++) {
        uint32_t cell = t->cell_count > 0 ? t->cells[i] : 0; /* none holds any: read one to know */
        struct dht_lookup r = table_lookup(l, system, t->asker, dht_key(cell));
        messages += r.messages;
        worst.found = worst.found && r.found;
        worst.took_ns = r.took_ns > worst.took_ns ? r.took_ns : worst.took_ns;
        worst.hops = r.hops > worst.hops ? r.hops : worst.hops;
        found_ns = i < t->holding_count ? worst.took_ns : found_ns;
    }
    double ms = (double)worst.took_ns / 1e6;
    o->count++;
    o->silent += messages == 0;
    o->incomplete += !worst.found;
    o->in_time += worst.found && ms <= l->run->deadline_ms;
    series_add(&o->ms, ms);
    o->found_in_time += worst.found && (double)found_ns / 1e6 <= l->run->deadline_ms;
    series_add(&o->found_ms, (double)found_ns / 1e6);
    series_add(&o->hops, worst.hops);
    series_add(&o->asks, messages);
}

static int outcome_take(struct lookup *l, enum system system, struct outcome *o)
{
    memset(o, 0, sizeof(*o));
    if (series_init(&o->ms, l->run->searches) < 0 ||
        series_init(&o->found_ms, l->run->searches) < 0 ||
        series_init(&o->hops, l->run->searches) < 0 ||
        series_init(&o->asks, l->run->searches) < 0) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < l->run->searches; i++) {
        const struct task *t = &l->tasks[i];
        if (!l->alive[t->asker]) {
            continue;
        }
        if (system == ZONES) {
            zones_do(l, t, o);
        } else {
            table_do(l, system, t, o);
        }
    }
    return 0;
}

static void outcome_tell(const struct lookup *l, const char *workload, const char *phase,
                         enum system system, struct outcome *o, json_t *list)
{
    double p50 = series_quantile(&o->ms, 0.5);
    double p99 = series_quantile(&o->ms, 0.99);
    double found_p50 = series_quantile(&o->found_ms, 0.5);
    double found_p99 = series_quantile(&o->found_ms, 0.99);
    double in_time = 100.0 * o->in_time / o->count;
    double found_in_time = 100.0 * o->found_in_time / o->count;
    if (!l->run->json) {
        printf(
            "%-7s %-10s %-18s %8.1f %8.1f %6.1f %8.1f %8.1f %6.1f %7.2f %6.1f %6.0f %5.0f %5.0f\n",
            workload, phase, system_names[system], found_p50, found_p99, found_in_time, p50, p99,
            in_time, 100.0 * o->incomplete / o->count, 100.0 * o->silent / o->count,
            series_quantile(&o->asks, 0.5), series_quantile(&o->hops, 0.5),
            series_quantile(&o->hops, 0.99));
        fflush(stdout);
    }
    json_array_append_new(
        list,
        json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i}",
                  "workload", workload, "phase", phase, "system", system_names[system],
                  "found_p50_ms", found_p50, "found_p99_ms", found_p99, "found_in_time_percent",
                  found_in_time, "sure_p50_ms", p50, "sure_p99_ms", p99, "sure_in_time_percent",
                  in_time, "incomplete_percent", 100.0 * o->incomplete / o->count,
                  "no_datagram_percent", 100.0 * o->silent / o->count, "datagrams_p50",
                  series_quantile(&o->asks, 0.5), "hops_p50", series_quantile(&o->hops, 0.5),
                  "hops_p99", series_quantile(&o->hops, 0.99), "samples", (int)o->count));
    series_deinit(&o->found_ms);
    series_deinit(&o->ms);
    series_deinit(&o->hops);
    series_deinit(&o->asks);
}

static int phase_run(struct lookup *l, const char *phase, json_t *list)
{
    for (uint32_t w = 0; w < POPULATION_WORKLOADS; w++) {
        if (tasks_draw(l, (enum population_workload)w) < 0) {
            return -ENOMEM;
        }
        for (uint32_t s = 0; s < SYSTEMS; s++) {
            struct outcome o;
            if (outcome_take(l, (enum system)s, &o) < 0) {
                return -ENOMEM;
            }
            outcome_tell(l, population_workload_names[w], phase, (enum system)s, &o, list);
        }
    }
    return 0;
}

/* At once, and nobody knows yet. */
static void kill_some(struct lookup *l)
{
    struct rng rng = {.state = l->run->world.seed ^ 0xdead};
    for (uint32_t i = 0; i < l->run->world.nodes; i++) {
        if (rng_unit(&rng) < l->run->kill) {
            world_crash(l->world, i);
            l->alive[i] = false;
        }
    }
}

static int prepare(struct lookup *l)
{
    uint64_t seed = l->run->world.seed;
    int rc = world_create(&l->world, &l->run->world);
    if (rc < 0) {
        return rc;
    }
    l->world->on_found = on_found;
    l->world->user = l;
    rc = world_tile(l->world);
    l->alive = malloc(l->run->world.nodes * sizeof(*l->alive));
    l->tasks = calloc(l->run->searches, sizeof(*l->tasks));
    if (rc < 0 || l->alive == NULL || l->tasks == NULL) {
        return -ENOMEM;
    }
    memset(l->alive, true, l->run->world.nodes * sizeof(*l->alive));
    rc = dht_create(&l->plain, l->world, false, false, seed);
    rc = rc < 0 ? rc : dht_create(&l->near, l->world, false, true, seed);
    rc = rc < 0 ? rc : dht_create(&l->chord, l->world, true, false, seed);
    return rc < 0 ? rc : dht_create(&l->chord_near, l->world, true, true, seed);
}

int sim_lookup(const struct sim_run *run, json_t *out)
{
    struct lookup l = {.run = run};
    json_t *list = json_array();
    json_object_set_new(out, "lookups", list);
    int rc = prepare(&l);
    if (rc == 0 && !run->json) {
        printf("%u machines in %u zones, %u searches each; deadline %.0f ms\n\n", run->world.nodes,
               l.world->tile_count, run->searches, run->deadline_ms);
        printf(
            "found: when the last of the k was in hand; sure: when nothing nearer could be left\n"
            "%-37s %24s %24s\n%-37s %8s %8s %6s %8s %8s %6s %7s %6s %6s %5s %5s\n",
            "", "found", "sure", "", "p50 ms", "p99 ms", "in t.%", "p50 ms", "p99 ms", "in t.%",
            "incmp.%", "none%", "asks", "hops", "p99");
    }
    if (rc == 0) {
        json_object_set_new(out, "zones", json_integer(l.world->tile_count));
        rc = phase_run(&l, "whole", list);
    }
    if (rc == 0 && run->kill > 0) {
        kill_some(&l);
        rc = phase_run(&l, "after kill", list);
    }
    for (uint32_t i = 0; l.tasks != NULL && i < run->searches; i++) {
        free(l.tasks[i].cells);
    }
    free(l.tasks);
    free(l.alive);
    dht_destroy(&l.plain);
    dht_destroy(&l.near);
    dht_destroy(&l.chord);
    dht_destroy(&l.chord_near);
    world_destroy(l.world);
    return rc;
}
