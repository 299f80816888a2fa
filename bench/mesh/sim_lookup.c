/* SPDX-License-Identifier: Apache-2.0 */
/* sim_lookup.c - weft-bench mesh-sim lookup: the same searches by zones, Kademlia and Chord. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/figures.h"
#include "bench/mesh/askers.h"
#include "bench/mesh/sim_runs.h"

struct lookup {
    const struct sim_run *run;
    struct askers askers;
    struct task *tasks;
    struct answer last;
    bool done;
};

struct outcome {
    struct series found_ms, ms, hops, asks;
    uint32_t count, in_time, found_in_time, silent; /* silent: answered without a datagram */
    uint32_t incomplete;
    double questions; /* of everybody for one search, also of those whose answers came too late */
};

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    struct lookup *l = w->user;
    struct zone_result result;
    zone_search_result(&s->search, &result);
    l->last = askers_zones_answer(&result, now_ns - s->started_ns);
    l->done = true;
}

static void tasks_draw(struct lookup *l, enum population_workload workload)
{
    for (uint32_t i = 0; i < l->run->searches; i++) {
        task_draw(&l->askers, workload, &l->tasks[i]);
    }
}

static struct answer zones_do(struct lookup *l, const struct task *t)
{
    l->done = false;
    world_ask(l->askers.world, t->asker, &t->query, ASKERS_BUDGET_NS, 0);
    while (!l->done && vnet_step(l->askers.world->vnet)) {
    }
    return l->last;
}

static void outcome_add(const struct lookup *l, struct outcome *o, struct answer a)
{
    double ms = (double)a.sure_ns / 1e6;
    double found_ms = (double)a.found_ns / 1e6;
    o->count++;
    o->silent += a.messages == 0;
    o->incomplete += !a.complete;
    o->in_time += a.complete && ms <= l->run->deadline_ms;
    o->found_in_time += a.complete && found_ms <= l->run->deadline_ms;
    series_add(&o->ms, ms);
    series_add(&o->found_ms, found_ms);
    series_add(&o->hops, a.hops);
    series_add(&o->asks, a.messages);
}

static double datagrams_sent(const struct lookup *l)
{
    double sent = 0;
    for (uint32_t i = 0; i < l->run->world.nodes; i++) {
        sent += (double)vnet_counters(l->askers.world->vnet, i)->sent;
    }
    return sent;
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
    double sent = datagrams_sent(l);
    for (uint32_t i = 0; i < l->run->searches; i++) {
        const struct task *t = &l->tasks[i];
        if (!l->askers.alive[t->asker]) {
            continue;
        }
        struct answer a = system == ZONES ? zones_do(l, t) : askers_table(&l->askers, system, t);
        outcome_add(l, o, a);
        o->questions += system == ZONES ? 0 : a.messages;
    }
    /* Of the zones' datagrams one in two is a question. */
    o->questions += system == ZONES ? (datagrams_sent(l) - sent) / 2 : 0;
    o->questions /= o->count > 0 ? o->count : 1;
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
        printf("%-7s %-10s %-18s %8.1f %8.1f %6.1f %8.1f %8.1f %6.1f %7.2f %6.1f %6.0f %6.1f %5.0f "
               "%5.0f\n",
               workload, phase, system_names[system], found_p50, found_p99, found_in_time, p50, p99,
               in_time, 100.0 * o->incomplete / o->count, 100.0 * o->silent / o->count,
               series_quantile(&o->asks, 0.5), o->questions, series_quantile(&o->hops, 0.5),
               series_quantile(&o->hops, 0.99));
        fflush(stdout);
    }
    json_array_append_new(
        list,
        json_pack(
            "{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i}",
            "workload", workload, "phase", phase, "system", system_names[system], "found_p50_ms",
            found_p50, "found_p99_ms", found_p99, "found_in_time_percent", found_in_time,
            "sure_p50_ms", p50, "sure_p99_ms", p99, "sure_in_time_percent", in_time,
            "incomplete_percent", 100.0 * o->incomplete / o->count, "no_datagram_percent",
            100.0 * o->silent / o->count, "datagrams_p50", series_quantile(&o->asks, 0.5),
            "questions_mean", o->questions, "hops_p50", series_quantile(&o->hops, 0.5), "hops_p99",
            series_quantile(&o->hops, 0.99), "samples", (int)o->count));
    series_deinit(&o->found_ms);
    series_deinit(&o->ms);
    series_deinit(&o->hops);
    series_deinit(&o->asks);
}

static int phase_run(struct lookup *l, const char *phase, json_t *list)
{
    for (uint32_t w = 0; w < POPULATION_WORKLOADS; w++) {
        tasks_draw(l, (enum population_workload)w);
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

static int prepare(struct lookup *l)
{
    int rc = askers_init(&l->askers, &l->run->world);
    l->tasks = calloc(l->run->searches, sizeof(*l->tasks));
    if (rc < 0 || l->tasks == NULL) {
        return rc < 0 ? rc : -ENOMEM;
    }
    l->askers.world->on_found = on_found;
    l->askers.world->user = l;
    for (uint32_t i = 0; i < l->run->searches; i++) {
        l->tasks[i].cells = malloc(l->askers.world->tile_count * sizeof(uint32_t));
        if (l->tasks[i].cells == NULL) {
            return -ENOMEM;
        }
    }
    return 0;
}

int sim_lookup(const struct sim_run *run, json_t *out)
{
    struct lookup l = {.run = run};
    json_t *list = json_array();
    json_object_set_new(out, "lookups", list);
    int rc = prepare(&l);
    if (rc == 0 && !run->json) {
        printf("%u machines in %u zones, %u searches each; deadline %.0f ms\n\n", run->world.nodes,
               l.askers.world->tile_count, run->searches, run->deadline_ms);
        printf(
            "found: when the last of the k was in hand; sure: when nothing nearer could be left\n"
            "%-37s %24s %24s\n%-37s %8s %8s %6s %8s %8s %6s %7s %6s %6s %6s %5s %5s\n",
            "", "found", "sure", "", "p50 ms", "p99 ms", "in t.%", "p50 ms", "p99 ms", "in t.%",
            "incmp.%", "none%", "asks", "mean", "hops", "p99");
    }
    if (rc == 0) {
        json_object_set_new(out, "zones", json_integer(l.askers.world->tile_count));
        rc = phase_run(&l, "whole", list);
    }
    if (rc == 0 && run->kill > 0) {
        askers_kill(&l.askers, run->kill);
        rc = phase_run(&l, "after kill", list);
    }
    for (uint32_t i = 0; l.tasks != NULL && i < run->searches; i++) {
        free(l.tasks[i].cells);
    }
    free(l.tasks);
    askers_deinit(&l.askers);
    return rc;
}
