/* SPDX-License-Identifier: Apache-2.0 */
/* swim_figures.c - how fast, how wrong and how dear: detection, slow nodes, partitions. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/cluster.h"
#include "tests/sim/swim_sim.h"

#define SETTLE_NS         (60 * NS_PER_S)
#define ABSENT_MAX_NS     (30 * NS_PER_S)
#define ABSENT_STOPPED_NS (6 * NS_PER_S)

/* ---- one cluster, set up ---- */

static struct cluster *settled(const struct sim_settings *settings, uint32_t nodes, uint64_t seed,
                               const struct cluster_hooks *hooks, const struct delay *delay)
{
    struct cluster *cluster;
    struct cluster_options options = {
        .nodes = nodes,
        .seed = seed,
        .delay = delay,
        .jitter = 0.1,
        .loss = settings->loss,
        .probe_interval_ns = settings->probe_interval_ns,
        .suspect_min_ns = settings->suspect_min_ns,
        .suspect_max_ns = settings->suspect_max_ns,
    };
    if (cluster_create(&cluster, &options, hooks) < 0) {
        fprintf(stderr, "out of memory\n");
        exit(EXIT_FAILURE);
    }
    for (uint32_t i = 0; i < nodes; i++) {
        cluster_start(cluster, i);
    }
    vnet_run(cluster->vnet, SETTLE_NS);
    for (unsigned i = 0; i < 60 && !cluster_agrees(cluster); i++) {
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + NS_PER_S);
    }
    if (!cluster_agrees(cluster)) {
        fprintf(stderr, "%u nodes do not agree after %.0f s\n", nodes,
                (double)vnet_now_ns(cluster->vnet) / 1e9);
        exit(EXIT_FAILURE);
    }
    return cluster;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

struct sample {
    double all[4096];
    uint32_t count;
};

static void sample_add(struct sample *sample, double value)
{
    if (sample->count < sizeof(sample->all) / sizeof(sample->all[0])) {
        sample->all[sample->count++] = value;
    }
}

static void sample_print(const char *name, struct sample *sample)
{
    double sum = 0.0;
    qsort(sample->all, sample->count, sizeof(sample->all[0]), by_size);
    for (uint32_t i = 0; i < sample->count; i++) {
        sum += sample->all[i];
    }
    if (sample->count > 0) {
        printf("  %s mean %.2f p50 %.2f p90 %.2f max %.2f s", name, sum / sample->count,
               sample->all[sample->count / 2], sample->all[sample->count * 9 / 10],
               sample->all[sample->count - 1]);
    }
}

/* ---- detection ---- */

struct detection {
    uint32_t victim;
    uint64_t first_ns, last_ns;
    uint32_t knowing;
    uint64_t wrong; /* live ones held dead */
};

static void detection_event(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                            void *user)
{
    struct detection *detection = user;
    (void)node;
    if (event->type == SWIM_EVENT_DEAD && event->uid != cluster->uids[detection->victim]) {
        detection->wrong++;
        return;
    }
    if (event->uid != cluster->uids[detection->victim]) {
        return;
    }
    uint64_t now_ns = vnet_now_ns(cluster->vnet);
    if (event->type == SWIM_EVENT_SUSPECT && detection->first_ns == 0) {
        detection->first_ns = now_ns;
    }
    if (event->type == SWIM_EVENT_DEAD) {
        detection->knowing++;
        detection->last_ns = now_ns;
    }
}

int figures_detect(const struct sim_settings *settings, uint32_t nodes)
{
    struct detection detection = {0};
    struct cluster_hooks hooks = {.event = detection_event, .user = &detection};
    struct delay delay = {.kind = DELAY_CONSTANT, .constant_ns = settings->delay_ns};
    struct cluster *cluster = settled(settings, nodes, settings->seed, &hooks, &delay);
    static struct sample first, last;
    double bytes_s = 0.0;
    uint32_t incomplete = 0;
    first.count = last.count = 0;
    for (uint32_t trial = 0; trial < settings->trials; trial++) {
        struct rng *rng = &cluster->rng;
        uint64_t idle_from_ns = vnet_now_ns(cluster->vnet);
        uint64_t idle_bytes = cluster_bytes(cluster);
        vnet_run(cluster->vnet, idle_from_ns + 20 * NS_PER_S + rng_below(rng, 1000000) * NS_PER_US);
        double idle_s = (double)(vnet_now_ns(cluster->vnet) - idle_from_ns) / 1e9;
        bytes_s += (double)(cluster_bytes(cluster) - idle_bytes) / nodes / idle_s;
        detection = (struct detection){.victim = rng_below(rng, nodes), .wrong = detection.wrong};
        uint64_t kill_ns = vnet_now_ns(cluster->vnet);
        cluster_crash(cluster, detection.victim);
        vnet_run(cluster->vnet, kill_ns + 30 * NS_PER_S);
        sample_add(&first, (double)(detection.first_ns - kill_ns) / 1e9);
        sample_add(&last, (double)(detection.last_ns - kill_ns) / 1e9);
        incomplete += detection.knowing != nodes - 1 ? 1 : 0;
        cluster_start(cluster, detection.victim);
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 20 * NS_PER_S);
        if (!cluster_agrees(cluster)) {
            incomplete++;
        }
    }
    printf("detect nodes %u trials %u loss %.2f one-way %.1f ms:", nodes, settings->trials,
           settings->loss, (double)settings->delay_ns / 1e6);
    sample_print("first suspects:", &first);
    sample_print(" all know:", &last);
    printf("  idle %.0f B/s/node, wrong verdicts %llu, incomplete %u\n", bytes_s / settings->trials,
           (unsigned long long)detection.wrong, incomplete);
    cluster_destroy(cluster);
    return incomplete == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- slow nodes ---- */

struct slow {
    uint32_t slow_count; /* nodes 0.. are the slow ones */
    double pause_max_s;
    uint64_t wrong_healthy; /* healthy ones held dead, by anyone: Lifeguard's FP */
    uint64_t wrong_by_healthy;
    uint64_t slow_held_dead;
    bool measuring;
};

static void slow_event(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                       void *user)
{
    struct slow *slow = user;
    if (event->type != SWIM_EVENT_DEAD || !slow->measuring) {
        return;
    }
    uint32_t about = cluster_node_of(cluster, event->uid);
    if (about < slow->slow_count) {
        slow->slow_held_dead++;
        return;
    }
    slow->wrong_healthy++;
    slow->wrong_by_healthy += node >= slow->slow_count ? 1 : 0;
}

/* One slow node pauses and goes on, over and over: script value 0. */
static void slow_script(struct cluster *cluster, uint32_t node, uint64_t value, void *user)
{
    const struct slow *slow = user;
    (void)value;
    /* Log-uniform, a 300th of the longest to it, then as long awake on average. */
    double pause_s = slow->pause_max_s / 300.0 * pow(300.0, rng_unit(&cluster->rng));
    double awake_s = slow->pause_max_s / 300.0 * pow(300.0, rng_unit(&cluster->rng));
    uint64_t pause_ns = (uint64_t)(pause_s * 1e9);
    vnet_freeze(cluster->vnet, node, pause_ns);
    vnet_at(cluster->vnet, vnet_now_ns(cluster->vnet) + pause_ns + (uint64_t)(awake_s * 1e9), node,
            0);
}

int figures_slow(const struct sim_settings *settings, uint32_t nodes)
{
    struct slow slow = {.slow_count = settings->slow,
                        .pause_max_s = (double)settings->pause_max_ms / 1e3};
    struct cluster_hooks hooks = {.event = slow_event, .script = slow_script, .user = &slow};
    struct delay delay = {.kind = DELAY_CONSTANT, .constant_ns = settings->delay_ns};
    struct cluster *cluster = settled(settings, nodes, settings->seed, &hooks, &delay);
    uint64_t from_ns = vnet_now_ns(cluster->vnet);
    uint64_t bytes = cluster_bytes(cluster);
    slow.measuring = true;
    for (uint32_t i = 0; i < slow.slow_count; i++) {
        vnet_at(cluster->vnet, from_ns + rng_below(&cluster->rng, 5000) * NS_PER_MS, i, 0);
    }
    vnet_run(cluster->vnet, from_ns + settings->seconds * NS_PER_S);
    double node_hours = (double)nodes * (double)settings->seconds / 3600.0;
    double bytes_s = (double)(cluster_bytes(cluster) - bytes) / nodes / (double)settings->seconds;
    /* A verdict of each observer counts; 95 % upper bound of a Poisson count of zero is 3. */
    printf(
        "slow nodes %u of %u for %llu s: healthy held dead %llu (%.4f per node-hour%s), of these "
        "by healthy %llu, slow ones held dead %llu, %.0f B/s/node\n",
        slow.slow_count, nodes, (unsigned long long)settings->seconds,
        (unsigned long long)slow.wrong_healthy, (double)slow.wrong_healthy / node_hours,
        slow.wrong_healthy == 0 ? ", 95 % bound 3 counts" : "",
        (unsigned long long)slow.wrong_by_healthy, (unsigned long long)slow.slow_held_dead,
        bytes_s);
    cluster_destroy(cluster);
    return EXIT_SUCCESS;
}

/* ---- lost for a while, then back ---- */

enum absence { ABSENT_CUT, ABSENT_MUTE, ABSENT_DEAF, ABSENT_STOPPED, ABSENCES };

struct back {
    uint32_t victim;
    uint32_t knowing;
    bool is_back;
    uint32_t by_healthy, by_returned; /* verdicts about healthy ones */
};

static void back_event(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                       void *user)
{
    struct back *back = user;
    if (event->type != SWIM_EVENT_DEAD) {
        return;
    }
    if (event->uid == cluster->uids[back->victim]) {
        back->knowing++;
    } else if (node != back->victim) {
        back->by_healthy++;
    } else if (back->is_back) {
        back->by_returned++;
    }
}

/* A stopped one goes on by itself after ABSENT_STOPPED_NS. */
static void absence_set(struct cluster *cluster, uint32_t node, enum absence kind, bool on)
{
    if (kind == ABSENT_CUT) {
        vnet_set_group(cluster->vnet, node, on ? 1 : 0);
    } else if (kind == ABSENT_STOPPED && on) {
        vnet_freeze(cluster->vnet, node, ABSENT_STOPPED_NS);
    }
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        if (i != node && kind == ABSENT_MUTE) {
            vnet_block(cluster->vnet, node, i, on);
        } else if (i != node && kind == ABSENT_DEAF) {
            vnet_block(cluster->vnet, i, node, on);
        }
    }
}

static void back_trial(struct cluster *cluster, struct back *back, enum absence kind,
                       struct sample *last)
{
    uint64_t from_ns = vnet_now_ns(cluster->vnet) + rng_below(&cluster->rng, 1000000) * NS_PER_US;
    vnet_run(cluster->vnet, from_ns);
    back->victim = rng_below(&cluster->rng, cluster->options.nodes);
    back->knowing = 0;
    back->is_back = false;
    absence_set(cluster, back->victim, kind, true);
    while (back->knowing < cluster->options.nodes - 1 &&
           vnet_now_ns(cluster->vnet) < from_ns + ABSENT_MAX_NS) {
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 10 * NS_PER_MS);
    }
    sample_add(last, (double)(vnet_now_ns(cluster->vnet) - from_ns) / 1e9);
    if (kind == ABSENT_STOPPED) {
        vnet_run(cluster->vnet, from_ns + ABSENT_STOPPED_NS);
    }
    absence_set(cluster, back->victim, kind, false);
    back->is_back = true;
    vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 15 * NS_PER_S);
}

int figures_back(const struct sim_settings *settings, uint32_t nodes)
{
    static const char *const names[ABSENCES] = {"cut", "mute", "deaf", "stopped"};
    struct delay delay = {.kind = DELAY_CONSTANT, .constant_ns = settings->delay_ns};
    uint32_t wrong = 0;
    for (int kind = 0; kind < ABSENCES; kind++) {
        struct back back = {0};
        struct cluster_hooks hooks = {.event = back_event, .user = &back};
        struct cluster *cluster = settled(settings, nodes, settings->seed, &hooks, &delay);
        static struct sample last;
        last.count = 0;
        back = (struct back){0};
        for (uint32_t trial = 0; trial < settings->trials; trial++) {
            back_trial(cluster, &back, (enum absence)kind, &last);
        }
        printf("back nodes %u trials %u %s:", nodes, settings->trials, names[kind]);
        sample_print("all know:", &last);
        printf("  healthy held dead by who is back %u, by healthy %u%s\n", back.by_returned,
               back.by_healthy, cluster_agrees(cluster) ? "" : ", no agreement");
        wrong += back.by_returned + back.by_healthy + (cluster_agrees(cluster) ? 0 : 1);
        cluster_destroy(cluster);
    }
    return wrong == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- partitions ---- */

int figures_heal(const struct sim_settings *settings, uint32_t nodes)
{
    struct cluster_hooks hooks = {0};
    struct delay delay = {.kind = DELAY_CONSTANT, .constant_ns = settings->delay_ns};
    static struct sample heal;
    heal.count = 0;
    uint32_t failed = 0;
    for (uint32_t trial = 0; trial < settings->trials; trial++) {
        struct cluster *cluster = settled(settings, nodes, settings->seed + trial, &hooks, &delay);
        for (uint32_t i = 0; i < nodes; i++) {
            vnet_set_group(cluster->vnet, i, i < nodes / 2 ? 0 : 1);
        }
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 300 * NS_PER_S);
        bool parted = swim_live_count(cluster->nodes[0]) == nodes / 2;
        for (uint32_t i = 0; i < nodes; i++) {
            vnet_set_group(cluster->vnet, i, 0);
        }
        uint64_t from_ns = vnet_now_ns(cluster->vnet);
        while (!cluster_agrees(cluster) && vnet_now_ns(cluster->vnet) < from_ns + 120 * NS_PER_S) {
            vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 10 * NS_PER_MS);
        }
        failed += !parted || !cluster_agrees(cluster) ? 1 : 0;
        sample_add(&heal, (double)(vnet_now_ns(cluster->vnet) - from_ns) / 1e9);
        cluster_destroy(cluster);
    }
    printf("heal nodes %u trials %u, halves apart for 300 s:", nodes, settings->trials);
    sample_print("all agree again:", &heal);
    printf("  failed %u\n", failed);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
