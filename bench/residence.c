/* SPDX-License-Identifier: Apache-2.0 */
/*
 * residence.c - weft-bench dataplane residence: how long a packet is inside the router, from the
 * moment it should have arrived to the moment its last bytes are handed over, at half and at 90 %
 * of the rate that passes without drops.
 *
 * Two cores and two rings: the generator puts a frame into the first ring when its time has come
 * (Poisson arrivals, drawn beforehand; a late send counts from when it was due), the router core
 * receives from it through DPDK's ring device, runs the packet path and sends into the second,
 * where the generator finds it. One clock reads both ends. The floor is the same with a router that
 * only receives and sends. A lost packet took forever.
 */
#include <errno.h>
#include <math.h>
#include <rte_cycles.h>
#include <rte_eth_ring.h>
#include <rte_launch.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench/dataplane.h"
#include "bench/figures.h"
#include "schemas/base/cpu.h"
#include "schemas/base/hist.h"

#define NOW_NS         (10 * SEAL_LIFE_NS)
#define GAPS           65536u /* a power of two */
#define RATE_FIRST     500000.0
#define RATE_LAST      64e6
#define RATE_STEPS     5
#define TRIAL_SECONDS  0.05
#define TRIAL_TRIES    20 /* at most; TRIAL_CLEAN failures without a pause settle it */
#define TRIAL_CLEAN    2
#define PAUSE_NS       50000.0 /* a core that was away so long was taken away */
#define LATE_NS        1000.0
#define LAG_NS         100000.0 /* behind by this at the end: the generator cannot do it */
#define DRAIN_NS       5000000.0
#define NOISY_LATE     0.01    /* share of late sends */
#define NOISY_FLOOR_NS 20000.0 /* of the floor's p99 */

struct tag {
    uint64_t due; /* TSC */
};

struct rig {
    const struct dataplane_options *options;
    struct scene *scene;      /* the router's core and table; frames are the generator's */
    struct rte_mempool *pool; /* struct tag beside each buffer */
    struct rte_ring *in, *out;
    uint16_t port;
    double hz;
    uint32_t *gaps;
    struct rte_mbuf *unused[BENCH_BUFFERS];
    uint32_t unused_count;
    _Atomic bool stop;
    bool empty_stage;
    long router_switches;
    uint64_t router_pause; /* longest time between two polls */
};

struct trial {
    uint64_t sent, received, late;
    double longest_pause_ns; /* between two polls of either core */
    long switches;           /* times that either core was taken away */
    bool lagged;
    struct hist ns;
};

/* ---- the router core ---- */

static long switches_so_far(void)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

static int run_router(void *arg)
{
    struct rig *rig = arg;
    struct rte_mbuf *bufs[SCENE_BURST];
    struct route_packet packets[SCENE_BURST];
    uint64_t begin_ns = figures_now_ns();
    uint32_t since_refresh = 0;
    uint64_t then = rte_rdtsc(), pause = 0;
    long before = switches_so_far();
    while (!atomic_load_explicit(&rig->stop, memory_order_relaxed)) {
        uint64_t now_ns = NOW_NS + figures_now_ns() - begin_ns;
        uint16_t count = rte_eth_rx_burst(rig->port, 0, bufs, SCENE_BURST);
        for (uint16_t i = 0; i < count; i++) {
            dataplane_wrap(&packets[i], bufs[i]);
            packets[i].action = rig->empty_stage ? ROUTE_SEND : ROUTE_UNDECIDED;
        }
        if (!rig->empty_stage) {
            scene_run(rig->scene, packets, count, now_ns);
            since_refresh += count;
            if (since_refresh >= SCENE_REFRESH) {
                scene_refresh(rig->scene);
                since_refresh = 0;
            }
        }
        if (count != 0) {
            dataplane_tx(rig->port, packets, count);
        } else {
            cpu_pause();
        }
        uint64_t now = rte_rdtsc();
        pause = now - then > pause ? now - then : pause;
        then = now;
    }
    rig->router_pause = pause;
    rig->router_switches = switches_so_far() - before;
    return 0;
}

/* ---- the generator core ---- */

static void draw_gaps(struct rig *rig, double rate)
{
    struct rng rng = {.state = rig->options->seed};
    for (uint32_t i = 0; i < GAPS; i++) {
        rig->gaps[i] = (uint32_t)(-log(1.0 - rng_unit(&rng)) / rate * rig->hz);
    }
}

static struct tag *tag_of(struct rte_mbuf *buf)
{
    return rte_mbuf_to_priv(buf);
}

/* Takes what came out, and gives its buffer the next frame while there is time for it. */
static void take_in(struct rig *rig, struct trial *t)
{
    struct rte_mbuf *bufs[SCENE_BURST];
    uint32_t count = rte_ring_sc_dequeue_burst(rig->out, (void **)bufs, SCENE_BURST, NULL);
    uint64_t now = count != 0 ? rte_rdtsc() : 0;
    for (uint32_t i = 0; i < count; i++) {
        hist_add(&t->ns, (uint64_t)((double)(now - tag_of(bufs[i])->due) * 1e9 / rig->hz));
        scene_fill(rig->scene, rte_pktmbuf_mtod(bufs[i], void *));
        bufs[i]->data_len = (uint16_t)rig->scene->frame_len;
        bufs[i]->pkt_len = rig->scene->frame_len;
        rig->unused[rig->unused_count++] = bufs[i];
    }
    t->received += count;
}

/* Sends what is due at `now`. Returns when the next one is. */
static uint64_t send_due(struct rig *rig, struct trial *t, uint64_t due, uint64_t now,
                         uint32_t *next_gap)
{
    struct rte_mbuf *bufs[SCENE_BURST];
    uint64_t late = (uint64_t)(LATE_NS * rig->hz / 1e9);
    uint32_t count = 0, missing = 0;
    while (due <= now && count + missing < SCENE_BURST) {
        if (rig->unused_count == 0) {
            missing++; /* all are on their way: as lost as one that finds no place in the ring */
        } else {
            struct rte_mbuf *buf = rig->unused[--rig->unused_count];
            tag_of(buf)->due = due;
            bufs[count++] = buf;
        }
        t->late += now - due > late;
        due += rig->gaps[(*next_gap)++ & (GAPS - 1)];
    }
    uint32_t done = count == 0 ? 0 : rte_ring_sp_enqueue_burst(rig->in, (void **)bufs, count, NULL);
    while (count > done) {
        rig->unused[rig->unused_count++] = bufs[--count];
        missing++;
    }
    t->sent += done + missing;
    return due;
}

static void generate(struct rig *rig, struct trial *t, double seconds)
{
    uint64_t begin = rte_rdtsc(), now = begin, due = begin, pause = 0;
    uint64_t end = begin + (uint64_t)(seconds * rig->hz);
    uint64_t drained = end + (uint64_t)(DRAIN_NS * rig->hz / 1e9);
    uint32_t next_gap = 0;
    while (now < end) {
        due = send_due(rig, t, due, now, &next_gap);
        take_in(rig, t);
        uint64_t then = now;
        now = rte_rdtsc();
        pause = now - then > pause ? now - then : pause;
    }
    t->lagged = due + (uint64_t)(LAG_NS * rig->hz / 1e9) < now;
    while (t->received < t->sent && now < drained) {
        take_in(rig, t);
        now = rte_rdtsc();
    }
    t->longest_pause_ns = (double)pause * 1e9 / rig->hz;
}

static void run_trial(struct rig *rig, struct trial *t, double rate, double seconds, bool empty)
{
    memset(t, 0, sizeof(*t));
    draw_gaps(rig, rate);
    rig->empty_stage = empty;
    rig->unused_count = 0;
    struct rte_mbuf *buf;
    while (rig->unused_count < BENCH_BUFFERS && (buf = rte_pktmbuf_alloc(rig->pool)) != NULL) {
        scene_fill_whole(rig->scene, rte_pktmbuf_mtod(buf, void *));
        buf->data_len = (uint16_t)rig->scene->frame_len;
        buf->pkt_len = rig->scene->frame_len;
        rig->unused[rig->unused_count++] = buf;
    }
    long before = switches_so_far();
    atomic_store(&rig->stop, false);
    rte_eal_remote_launch(run_router, rig, 1);
    generate(rig, t, seconds);
    atomic_store(&rig->stop, true);
    rte_eal_wait_lcore(1);
    t->switches = switches_so_far() - before + rig->router_switches;
    t->longest_pause_ns = fmax(t->longest_pause_ns, (double)rig->router_pause * 1e9 / rig->hz);
    rte_pktmbuf_free_bulk(rig->unused, rig->unused_count);
    while (rte_ring_sc_dequeue(rig->out, (void **)&buf) == 0 ||
           rte_ring_sc_dequeue(rig->in, (void **)&buf) == 0) {
        rte_pktmbuf_free(buf);
    }
}

/* ---- the rate ---- */

enum limit { LIMIT_NONE, LIMIT_DROPS, LIMIT_GENERATOR, LIMIT_NOISE };

/* One good trial is enough, and a bad one counts only if no core was taken away in it: what that
 * loses says nothing about the router. */
static enum limit try_rate(struct rig *rig, double rate)
{
    static struct trial t;
    enum limit limit = LIMIT_NONE;
    int clean = 0;
    for (int i = 0; i < TRIAL_TRIES && clean < TRIAL_CLEAN; i++) {
        run_trial(rig, &t, rate, TRIAL_SECONDS, false);
        if (t.received == t.sent && !t.lagged) {
            return LIMIT_NONE;
        }
        if (t.longest_pause_ns < PAUSE_NS) {
            clean++;
            limit = t.lagged ? LIMIT_GENERATOR : LIMIT_DROPS;
        }
    }
    return clean != 0 ? limit : LIMIT_NOISE;
}

static double find_rate(struct rig *rig, enum limit *limit)
{
    double good = 0, bad = RATE_FIRST;
    *limit = LIMIT_NONE;
    while (bad <= RATE_LAST && (*limit = try_rate(rig, bad)) == LIMIT_NONE) {
        good = bad;
        bad *= 2;
    }
    for (int i = 0; i < RATE_STEPS && *limit != LIMIT_NONE; i++) {
        double middle = (good + bad) / 2;
        enum limit met = try_rate(rig, middle);
        if (met == LIMIT_NONE) {
            good = middle;
        } else {
            bad = middle;
            *limit = met;
        }
    }
    return good;
}

/* ---- report ---- */

static const double quantiles[] = {0.5, 0.99, 0.999};
static const char *const quantile_names[] = {"p50", "p99", "p99.9"};
#define QUANTILES (sizeof(quantiles) / sizeof(quantiles[0]))

/* Over what was sent: lost ones are slower than all. Microseconds. */
static double quantile_us(const struct trial *t, double q)
{
    double of_received = t->received == 0 ? 2 : q * (double)t->sent / (double)t->received;
    return of_received > 1 ? INFINITY : (double)hist_quantile(&t->ns, of_received) / 1000;
}

struct rounds {
    struct series us[2][QUANTILES]; /* [0] floor, [1] router */
    uint64_t sent[2], lost[2], late[2];
    double longest_pause_ns;
    long switches;
};

static int rounds_init(struct rounds *r, uint32_t rounds)
{
    int rc = 0;
    memset(r, 0, sizeof(*r));
    for (size_t way = 0; way < 2; way++) {
        for (size_t q = 0; rc == 0 && q < QUANTILES; q++) {
            rc = series_init(&r->us[way][q], rounds);
        }
    }
    return rc;
}

static void rounds_deinit(struct rounds *r)
{
    for (size_t way = 0; way < 2; way++) {
        for (size_t q = 0; q < QUANTILES; q++) {
            series_deinit(&r->us[way][q]);
        }
    }
}

static void rounds_add(struct rounds *r, size_t way, const struct trial *t)
{
    for (size_t q = 0; q < QUANTILES; q++) {
        series_add(&r->us[way][q], quantile_us(t, quantiles[q]));
    }
    r->sent[way] += t->sent;
    r->lost[way] += t->sent - t->received;
    r->late[way] += t->late;
    r->switches += t->switches;
    r->longest_pause_ns =
        t->longest_pause_ns > r->longest_pause_ns ? t->longest_pause_ns : r->longest_pause_ns;
}

static bool is_noisy(struct rounds *r)
{
    double late = (double)(r->late[0] + r->late[1]) / (double)(r->sent[0] + r->sent[1]);
    return late > NOISY_LATE || series_quantile(&r->us[0][1], 0.5) * 1000 > NOISY_FLOOR_NS;
}

static const char *limit_text(const struct rig *rig, enum limit limit)
{
    static const char *const texts[] = {
        [LIMIT_NONE] = "the highest tried",
        [LIMIT_DROPS] = "the highest without drops",
        [LIMIT_GENERATOR] = "the generator's limit; the router may do more",
        [LIMIT_NOISE] = "the highest in which the machine left both cores alone",
    };
    return rig->options->rate > 0 ? "given" : texts[limit];
}

static void print_text(const struct rig *rig, struct rounds *r, double rate)
{
    static const char *const ways[2] = {"floor: an empty stage", "whole path, new requests"};
    printf("\n%.2f Mpps, %u rounds of %.2f s\n", rate / 1e6, rig->options->rounds,
           rig->options->seconds);
    printf("%-26s %8s %8s %8s %12s %8s %9s\n", "microseconds, median round", "p50", "p99", "p99.9",
           "packets", "lost", "late");
    for (size_t way = 0; way < 2; way++) {
        printf("%-26s %8.2f %8.2f %8.2f %12lu %8lu %8.2f%%\n", ways[way],
               series_quantile(&r->us[way][0], 0.5), series_quantile(&r->us[way][1], 0.5),
               series_quantile(&r->us[way][2], 0.5), (unsigned long)r->sent[way],
               (unsigned long)r->lost[way], 100.0 * (double)r->late[way] / (double)r->sent[way]);
    }
    printf("noise: a core was taken away %ld times; longest pause %.0f us\n", r->switches,
           r->longest_pause_ns / 1000);
    if (is_noisy(r)) {
        puts("THE MACHINE IS TOO NOISY for the tails to say much about the router: see the floor.");
    }
}

static json_t *way_json(struct rounds *r, size_t way)
{
    json_t *out = json_pack("{s:I, s:I, s:I}", "packets", (json_int_t)r->sent[way], "lost",
                            (json_int_t)r->lost[way], "late", (json_int_t)r->late[way]);
    for (size_t q = 0; q < QUANTILES; q++) {
        double us = series_quantile(&r->us[way][q], 0.5);
        json_object_set_new(out, quantile_names[q], isinf(us) ? json_null() : json_real(us));
    }
    return out;
}

static json_t *rounds_json(struct rounds *r, double rate)
{
    return json_pack("{s:f, s:o, s:o, s:I, s:f, s:b}", "packets_per_second", rate, "floor",
                     way_json(r, 0), "path", way_json(r, 1), "core_taken_away",
                     (json_int_t)r->switches, "longest_pause_us", r->longest_pause_ns / 1000,
                     "noisy", (int)is_noisy(r));
}

static void print_json(const struct rig *rig, double top, enum limit limit, json_t *points)
{
    json_t *out =
        json_pack("{s:o, s:f, s:s, s:i, s:f, s:s, s:O}", "machine", machine_json(),
                  "top_packets_per_second", top, "top_is", limit_text(rig, limit), "rounds",
                  (int)rig->options->rounds, "seconds", rig->options->seconds, "unit",
                  "microseconds, median of rounds; null = lost", "points", points);
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

/* ---- */

/* Floor and path alternate, so that a slow moment hits both. */
static int measure_at(struct rig *rig, double rate, json_t *points)
{
    const struct dataplane_options *o = rig->options;
    struct trial *t = calloc(1, sizeof(*t));
    struct rounds rounds;
    int rc = rounds_init(&rounds, o->rounds);
    rc = t == NULL ? -ENOMEM : rc;
    for (uint32_t i = 0; rc == 0 && i < 2 * o->rounds; i++) {
        run_trial(rig, t, rate, o->seconds, i % 2 == 0);
        rounds_add(&rounds, i % 2, t);
    }
    if (rc == 0 && o->json) {
        json_array_append_new(points, rounds_json(&rounds, rate));
    } else if (rc == 0) {
        print_text(rig, &rounds, rate);
    }
    rounds_deinit(&rounds);
    free(t);
    return rc;
}

static int measure(struct rig *rig)
{
    static const double fractions[] = {0.5, 0.9};
    const struct dataplane_options *o = rig->options;
    enum limit limit = LIMIT_NONE;
    double top = o->rate > 0 ? o->rate : find_rate(rig, &limit);
    if (top <= 0) {
        fputs("weft-bench dataplane: even the lowest rate loses packets here\n", stderr);
        return -EBUSY;
    }
    json_t *points = json_array();
    int rc = 0;
    if (!o->json) {
        machine_print();
        printf("%.2f Mpps: %s\n", top / 1e6, limit_text(rig, limit));
    }
    if (o->rate > 0) {
        rc = measure_at(rig, top, points);
    }
    for (size_t i = 0; o->rate <= 0 && rc == 0 && i < sizeof(fractions) / sizeof(fractions[0]);
         i++) {
        rc = measure_at(rig, top * fractions[i], points);
    }
    if (rc == 0 && o->json) {
        print_json(rig, top, limit, points);
    }
    json_decref(points);
    return rc;
}

static int rig_init(struct rig *rig, const struct dataplane_options *o)
{
    unsigned flags = RING_F_SP_ENQ | RING_F_SC_DEQ;
    rig->options = o;
    rig->hz = (double)rte_get_tsc_hz();
    rig->gaps = calloc(GAPS, sizeof(*rig->gaps));
    rig->pool = dataplane_pool("residence", BENCH_BUFFERS,
                               (uint16_t)RTE_ALIGN(sizeof(struct tag), RTE_MBUF_PRIV_ALIGN));
    rig->in = rte_ring_create("weft_in", BENCH_DESCRIPTORS, SOCKET_ID_ANY, flags);
    rig->out = rte_ring_create("weft_out", BENCH_DESCRIPTORS, SOCKET_ID_ANY, flags);
    if (rig->gaps == NULL || rig->pool == NULL || rig->in == NULL || rig->out == NULL) {
        return -ENOMEM;
    }
    int port = rte_eth_from_rings("weft_rings", &rig->in, 1, &rig->out, 1, 0);
    if (port < 0) {
        return -rte_errno;
    }
    rig->port = (uint16_t)port;
    int rc = scene_create(&rig->scene, SCENE_NEW, o->candidates, o->payload, o->seed, NOW_NS);
    return rc != 0 ? rc : dataplane_port_start(rig->port, rig->pool);
}

int residence_run(const struct dataplane_options *o)
{
    if (dataplane_start(NULL) != 0) {
        return EXIT_FAILURE;
    }
    struct rig *rig = calloc(1, sizeof(*rig));
    int rc = rig == NULL ? -ENOMEM : rig_init(rig, o);
    if (rc == 0) {
        rc = measure(rig);
        rte_eth_dev_stop(rig->port);
    } else {
        fprintf(stderr, "weft-bench dataplane: %s\n", rte_strerror(-rc));
    }
    if (rig != NULL) {
        scene_destroy(rig->scene);
        free(rig->gaps);
    }
    free(rig);
    dataplane_stop();
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
