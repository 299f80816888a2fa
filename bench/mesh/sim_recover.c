/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_recover.c - weft-bench mesh-sim recover: searches go on all the time while a part of the
 * machines ends at once; second by second, zones with all their upkeep beside Kademlia and Chord
 * whose tables are looked through at a rate that is given. Until when is it felt?
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/figures.h"
#include "bench/mesh/askers.h"
#include "bench/mesh/sim_runs.h"

#define BEFORE_S      5u /* seconds looked at before the kill */
#define SETTLE_S      10u
#define SPAN_S        3u    /* over which what comes after it is averaged */
#define PING_BYTES    100.0 /* with IP and UDP; the answer takes as many */
#define SLOWER        1.25  /* back: a median at most so much above that before */
#define FEWER_PERCENT 2.0   /* and a share in time at most so much below */

static const enum system compared[] = {ZONES, KAD3, KAD10_PNS, CHORD, CHORD_PNS};
#define COMPARED (sizeof(compared) / sizeof(compared[0]))

struct second {
    struct series found_ms;
    uint32_t count, in_time;
};

struct recovery {
    const struct sim_run *run;
    struct askers askers;
    struct task *tasks; /* of one second */
    struct second *seconds[COMPARED];
    uint32_t second_count;
};

static void answer_add(const struct recovery *r, uint32_t system, uint32_t at, struct answer a)
{
    struct second *s = &r->seconds[system][at];
    double ms = (double)a.found_ns / 1e6;
    s->count++;
    s->in_time += a.complete && ms <= r->run->deadline_ms;
    series_add(&s->found_ms, ms);
}

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    struct zone_result result;
    zone_search_result(&s->search, &result);
    answer_add(w->user, 0, (uint32_t)s->user, askers_zones_answer(&result, now_ns - s->started_ns));
}

/* One second of searches, evenly spaced; then the same by the tables. */
static void second_run(struct recovery *r, uint32_t at)
{
    struct world *w = r->askers.world;
    uint64_t start_ns = vnet_now_ns(w->vnet);
    for (uint32_t i = 0; i < r->run->searches; i++) {
        struct task *t = &r->tasks[i];
        vnet_run(w->vnet, start_ns + (uint64_t)i * NS_PER_S / r->run->searches);
        do {
            task_draw(&r->askers, POPULATION_LOCAL, t);
        } while (!r->askers.alive[t->asker]);
        world_ask(w, t->asker, &t->query, ASKERS_BUDGET_NS, at);
    }
    vnet_run(w->vnet, start_ns + NS_PER_S);
    for (uint32_t s = 1; s < COMPARED; s++) {
        for (uint32_t i = 0; i < r->run->searches; i++) {
            answer_add(r, s, at, askers_table(&r->askers, compared[s], &r->tasks[i]));
        }
    }
}

static uint64_t bytes_sent(const struct world *w)
{
    uint64_t sent = 0;
    for (uint32_t i = 0; i < w->options.nodes; i++) {
        sent += vnet_counters(w->vnet, i)->sent_bytes;
    }
    return sent;
}

static int prepare(struct recovery *r)
{
    struct world_options options = r->run->world;
    options.upkeep = true;
    options.member_max = 2 * ZONE_SPLIT_ABOVE;
    int rc = askers_init(&r->askers, &options);
    r->second_count = BEFORE_S + r->run->seconds;
    r->tasks = calloc(r->run->searches, sizeof(*r->tasks));
    if (rc < 0 || r->tasks == NULL) {
        return rc < 0 ? rc : -ENOMEM;
    }
    for (uint32_t i = 0; i < r->run->searches; i++) {
        r->tasks[i].cells = malloc(r->askers.world->tile_count * sizeof(uint32_t));
        if (r->tasks[i].cells == NULL) {
            return -ENOMEM;
        }
    }
    for (uint32_t s = 0; s < COMPARED; s++) {
        r->seconds[s] = calloc(r->second_count, sizeof(*r->seconds[s]));
        for (uint32_t i = 0; i < r->second_count; i++) {
            if (r->seconds[s] == NULL ||
                series_init(&r->seconds[s][i].found_ms, r->run->searches) < 0) {
                return -ENOMEM;
            }
        }
    }
    r->askers.world->on_found = on_found;
    r->askers.world->user = r;
    return 0;
}

static void recovery_deinit(struct recovery *r)
{
    for (uint32_t s = 0; s < COMPARED; s++) {
        for (uint32_t i = 0; r->seconds[s] != NULL && i < r->second_count; i++) {
            series_deinit(&r->seconds[s][i].found_ms);
        }
        free(r->seconds[s]);
    }
    for (uint32_t i = 0; r->tasks != NULL && i < r->run->searches; i++) {
        free(r->tasks[i].cells);
    }
    free(r->tasks);
    askers_deinit(&r->askers);
}

static double in_time_percent(const struct second *s)
{
    return s->count > 0 ? 100.0 * s->in_time / s->count : 0.0;
}

/* Means over `count` seconds from `first` on. */
static void means(const struct recovery *r, uint32_t system, uint32_t first, uint32_t count,
                  double *p50, double *in_time)
{
    *p50 = *in_time = 0.0;
    for (uint32_t i = first; i < first + count; i++) {
        *p50 += series_quantile(&r->seconds[system][i].found_ms, 0.5) / count;
        *in_time += in_time_percent(&r->seconds[system][i]) / count;
    }
}

/* Seconds after the kill when it was as before; infinity: not in the time looked at. */
static double back_s(const struct recovery *r, uint32_t system)
{
    double p50_before, in_time_before, p50, in_time;
    means(r, system, 0, BEFORE_S, &p50_before, &in_time_before);
    for (uint32_t i = BEFORE_S; i + SPAN_S <= r->second_count; i++) {
        means(r, system, i, SPAN_S, &p50, &in_time);
        if (p50 <= SLOWER * p50_before && in_time >= in_time_before - FEWER_PERCENT) {
            return i - BEFORE_S;
        }
    }
    return INFINITY;
}

static void tell(struct recovery *r, json_t *out)
{
    json_t *list = json_array();
    json_object_set_new(out, "seconds", list);
    for (uint32_t i = 0; i < r->second_count; i++) {
        int at = (int)i - (int)BEFORE_S;
        if (!r->run->json) {
            printf("%4d s", at);
        }
        for (uint32_t s = 0; s < COMPARED; s++) {
            struct second *second = &r->seconds[s][i];
            double p50 = series_quantile(&second->found_ms, 0.5);
            double p99 = series_quantile(&second->found_ms, 0.99);
            if (!r->run->json) {
                printf(" | %7.1f %7.1f %5.1f", p50, p99, in_time_percent(second));
            }
            json_array_append_new(list, json_pack("{s:i, s:s, s:f, s:f, s:f, s:i}", "second", at,
                                                  "system", system_names[compared[s]],
                                                  "found_p50_ms", p50, "found_p99_ms", p99,
                                                  "found_in_time_percent", in_time_percent(second),
                                                  "samples", (int)second->count));
        }
        if (!r->run->json) {
            putchar('\n');
        }
    }
    for (uint32_t s = 0; s < COMPARED; s++) {
        double back = back_s(r, s);
        if (!r->run->json && isinf(back)) {
            printf("%s: not as before within %u s\n", system_names[compared[s]], r->run->seconds);
        } else if (!r->run->json) {
            printf("%s: as before from second %.0f on\n", system_names[compared[s]], back);
        }
        json_object_set_new(out, system_names[compared[s]],
                            isinf(back) ? json_null() : json_pack("{s:f}", "back_s", back));
    }
}

int sim_recover(const struct sim_run *run, json_t *out)
{
    struct recovery r = {.run = run};
    int rc = prepare(&r);
    if (rc == 0) {
        struct world *w = r.askers.world;
        struct dht *tables[] = {&r.askers.plain, &r.askers.near, &r.askers.chord,
                                &r.askers.chord_near};
        vnet_run(w->vnet, (SETTLE_S - BEFORE_S) * NS_PER_S);
        uint64_t bytes = bytes_sent(w);
        vnet_run(w->vnet, SETTLE_S * NS_PER_S);
        double rate = (double)(bytes_sent(w) - bytes) / BEFORE_S / run->world.nodes;
        json_object_set_new(out, "zones_bytes_per_s", json_real(rate));
        if (!run->json) {
            printf("%u machines in %u zones, %u local searches a second, %.0f %% killed at 0; "
                   "tables looked through in %.1f s\nzones' upkeep sends %.0f bytes/s a node; for "
                   "these a table's user looks through 200 contacts in %.1f s\n"
                   "found: p50 ms, p99 ms, %% within %.0f ms\n      ",
                   run->world.nodes, w->tile_count, run->searches, 100 * run->kill, run->mend_s,
                   rate, 200 * 2 * PING_BYTES / rate, run->deadline_ms);
            for (uint32_t s = 0; s < COMPARED; s++) {
                printf(" | %-21s", system_names[compared[s]]);
            }
            putchar('\n');
        }
        for (uint32_t i = 0; i < r.second_count; i++) {
            if (i == BEFORE_S) {
                askers_kill(&r.askers, run->kill);
            }
            for (uint32_t t = 0; i > BEFORE_S && t < 4; t++) {
                double share = (i - BEFORE_S) / run->mend_s;
                dht_mend(tables[t], r.askers.alive, share < 1.0 ? share : 1.0);
            }
            second_run(&r, i);
        }
        vnet_run(w->vnet, vnet_now_ns(w->vnet) + ASKERS_BUDGET_NS); /* the last answers */
        tell(&r, out);
    }
    recovery_deinit(&r);
    return rc;
}
