/* SPDX-License-Identifier: Apache-2.0 */
/* sim_state.c - weft-bench mesh-sim state: what a node keeps as meshes grow, and the fit
 * bytes = a k + b log2(n), k being the members of its zone. With --seconds upkeep runs for so long
 * before it is counted, and what that sends in the second half is counted too. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/figures.h"
#include "bench/mesh/sim_runs.h"

#define SIZES_MAX 16u

struct size_figures {
    uint32_t nodes, zones;
    double members, entries, entries_max, bytes, bytes_max;
    double hops_p50, hops_p99;
    double bytes_per_s; /* of upkeep: what a node sends */
};

static struct series *hops_into;

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    struct zone_result result;
    (void)w;
    (void)now_ns;
    zone_search_result(&s->search, &result);
    series_add(hops_into, result.hops);
}

static double record_bytes(const struct zone_record *record)
{
    uint8_t data[ZONE_RECORD_BYTES_MAX];
    struct cursor c;
    cursor_init(&c, data, sizeof(data));
    zone_record_write(&c, record);
    return (double)(sizeof(data) - cursor_left(&c));
}

/* In the form that is sent, written out: records and signed summaries. */
static void state_measure(const struct world *w, struct size_figures *f)
{
    f->members = f->entries = f->entries_max = f->bytes = f->bytes_max = 0;
    for (uint32_t i = 0; i < w->options.nodes; i++) {
        const struct zone *z = &w->zones[i];
        double entries = z->view.count;
        double bytes = record_bytes(&z->self) + entries * ZONE_SUMMARY_SIGNED_BYTES;
        for (uint32_t m = 0; m < z->member_count; m++) {
            bytes += record_bytes(&z->members[m].record);
        }
        f->members += z->member_count + 1.0;
        f->entries += entries;
        f->entries_max = entries > f->entries_max ? entries : f->entries_max;
        f->bytes += bytes;
        f->bytes_max = bytes > f->bytes_max ? bytes : f->bytes_max;
    }
    f->members /= w->options.nodes;
    f->entries /= w->options.nodes;
    f->bytes /= w->options.nodes;
}

static void searches_run(const struct sim_run *run, struct world *w)
{
    for (uint32_t i = 0; i < run->searches; i++) {
        uint32_t asker = rng_below(&w->population.rng, w->options.nodes);
        struct zone_query q =
            population_query(&w->population, &w->truth[asker], POPULATION_MIXED, false);
        world_ask(w, asker, &q, 10 * NS_PER_S, 0);
        vnet_run(w->vnet, vnet_now_ns(w->vnet) + 10 * NS_PER_S);
    }
}

/* Upkeep on: what nodes keep after `seconds` of a whole mesh, and bytes that they send. */
static int traffic_measure(const struct sim_run *run, struct world_options options,
                           struct size_figures *f)
{
    struct world *w;
    uint64_t sent = 0;
    options.upkeep = true;
    int rc = world_create(&w, &options);
    if (rc == 0) {
        w->on_found = on_found;
        rc = world_tile(w);
    }
    if (rc > 0) {
        /* The first half lets all timers fall into their places. */
        vnet_run(w->vnet, run->seconds * NS_PER_S / 2);
        for (uint32_t i = 0; i < options.nodes; i++) {
            sent -= vnet_counters(w->vnet, i)->sent_bytes;
        }
        vnet_run(w->vnet, run->seconds * NS_PER_S);
        for (uint32_t i = 0; i < options.nodes; i++) {
            sent += vnet_counters(w->vnet, i)->sent_bytes;
        }
        f->bytes_per_s = (double)sent / options.nodes / (run->seconds - run->seconds / 2);
        state_measure(w, f);
    }
    world_destroy(w);
    return rc < 0 ? rc : 0;
}

static int size_take(const struct sim_run *run, uint32_t nodes, struct size_figures *f)
{
    struct world *w;
    struct series hops;
    struct world_options options = run->world;
    *f = (struct size_figures){.nodes = nodes};
    options.nodes = nodes;
    options.member_max = 2 * ZONE_SPLIT_ABOVE;
    int rc = world_create(&w, &options);
    if (rc == 0) {
        w->on_found = on_found;
        rc = world_tile(w);
    }
    if (rc > 0 && series_init(&hops, run->searches) == 0) {
        f->zones = (uint32_t)rc;
        hops_into = &hops;
        state_measure(w, f);
        searches_run(run, w);
        f->hops_p50 = series_quantile(&hops, 0.5);
        f->hops_p99 = series_quantile(&hops, 0.99);
        series_deinit(&hops);
    }
    world_destroy(w);
    if (rc > 0 && run->seconds > 1) {
        rc = traffic_measure(run, options, f);
    }
    return rc < 0 ? rc : 0;
}

/* Least squares of bytes = a k + b log2 n. */
static void fit(const struct size_figures *f, uint32_t count, double *a, double *b, double *error)
{
    double kk = 0, kl = 0, ll = 0, kb = 0, lb = 0;
    for (uint32_t i = 0; i < count; i++) {
        double l = log2(f[i].nodes);
        kk += f[i].members * f[i].members;
        kl += f[i].members * l;
        ll += l * l;
        kb += f[i].members * f[i].bytes;
        lb += l * f[i].bytes;
    }
    double det = kk * ll - kl * kl;
    *a = (kb * ll - lb * kl) / det;
    *b = (lb * kk - kb * kl) / det;
    *error = 0;
    for (uint32_t i = 0; i < count; i++) {
        double off = fabs(*a * f[i].members + *b * log2(f[i].nodes) - f[i].bytes) / f[i].bytes;
        *error = off > *error ? off : *error;
    }
}

int sim_state(const struct sim_run *run, json_t *out)
{
    struct size_figures f[SIZES_MAX];
    uint32_t count = 0;
    json_t *list = json_array();
    json_object_set_new(out, "sizes", list);
    if (!run->json) {
        printf("%8s %7s %8s %8s %8s %10s %8s %8s %8s %9s\n", "nodes", "zones", "members", "entries",
               "most", "bytes", "most", "hops p50", "p99", "bytes/s");
    }
    for (uint32_t nodes = 100; nodes <= run->world.nodes && count < SIZES_MAX; nodes *= 10) {
        int rc = size_take(run, nodes, &f[count]);
        if (rc < 0) {
            return rc;
        }
        const struct size_figures *s = &f[count++];
        if (!run->json) {
            printf("%8u %7u %8.1f %8.1f %8.0f %10.0f %8.0f %8.0f %8.0f %9.0f\n", s->nodes, s->zones,
                   s->members, s->entries, s->entries_max, s->bytes, s->bytes_max, s->hops_p50,
                   s->hops_p99, s->bytes_per_s);
            fflush(stdout);
        }
        json_array_append_new(
            list, json_pack("{s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "nodes",
                            (int)s->nodes, "zones", (int)s->zones, "members", s->members, "entries",
                            s->entries, "entries_max", s->entries_max, "bytes", s->bytes,
                            "bytes_max", s->bytes_max, "hops_p50", s->hops_p50, "hops_p99",
                            s->hops_p99, "bytes_per_s", s->bytes_per_s));
    }
    double a = 0, b = 0, error = 0;
    if (count >= 2) {
        fit(f, count, &a, &b, &error);
        if (!run->json) {
            printf("\nfit: %.0f bytes a member + %.0f bytes x log2(n), off by at most %.1f %%\n", a,
                   b, 100 * error);
        }
        json_object_set_new(out, "fit",
                            json_pack("{s:f, s:f, s:f}", "a_bytes", a, "b_bytes", b,
                                      "error_max_percent", 100 * error));
    }
    return 0;
}
