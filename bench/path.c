/* SPDX-License-Identifier: Apache-2.0 */
/*
 * path.c - weft-bench dataplane path: what one core does with a burst from rte_eth_rx_burst() to
 * rte_eth_tx_burst(), over DPDK's null device, in packets per second.
 *
 * The null device gives buffers without content, so each one gets its frame by memcpy: "fill",
 * which is measured by itself and taken off. All ways run one after the other in each round,
 * testpmd too, so that a slow moment of the machine hits all of them.
 */
#include <errno.h>
#include <rte_cycles.h>
#include <rte_ether.h>
#include <rte_launch.h>
#include <rte_rcu_qsbr.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bench/dataplane.h"
#include "bench/figures.h"

#define BURSTS_PER_SAMPLE 64u
#define SAMPLES_KEPT      20000u
#define NOW_NS            (10 * SEAL_LIFE_NS)
#define WAIT_US           1000
#define TESTPMD_SECONDS   3.0

enum way {
    WAY_IO,      /* receive, send */
    WAY_MACSWAP, /* what testpmd does, in this process */
    WAY_FILL,    /* receive, fill, send */
    WAY_STAGES,  /* receive, fill, the whole path, send */
};

struct run {
    enum way way;
    struct scene *scene;
    uint16_t port;
    double seconds;
    struct rte_rcu_qsbr *qsbr;
    struct series *ns_per_packet;
    double packets_per_second; /* out */
    uint64_t refused;          /* out: by the stages, not sent */
};

/* One line of the report: a way, or a kind of packet with its own fill measured beside it. */
struct line {
    struct series ns;    /* of samples */
    struct series rates; /* of rounds */
};

struct report {
    struct line io, macswap, testpmd;
    struct line fill[SCENE_KINDS];
    struct line stages[SCENE_KINDS];
    struct line net[SCENE_KINDS]; /* of rounds only: stages less fill plus io */
    struct line ratio[SCENE_KINDS];
};

static void swap_macs(struct rte_mbuf *buf)
{
    struct rte_ether_hdr *h = rte_pktmbuf_mtod(buf, struct rte_ether_hdr *);
    struct rte_ether_addr was = h->src_addr;
    h->src_addr = h->dst_addr;
    h->dst_addr = was;
}

static void treat(struct run *r, struct route_packet *packets, uint32_t count, uint64_t begin_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        if (r->way == WAY_MACSWAP) {
            swap_macs(packets[i].buffer);
        } else if (r->way != WAY_IO) {
            scene_fill(r->scene, packet_ether(&packets[i]));
            packets[i].len = r->scene->frame_len;
        }
    }
    if (r->way != WAY_STAGES) {
        for (uint32_t i = 0; i < count; i++) {
            packets[i].action = ROUTE_SEND;
        }
        return;
    }
    /* Once per burst, like core.c: the time, the stages, the quiescent state. */
    scene_run(r->scene, packets, count, NOW_NS + figures_now_ns() - begin_ns);
    rte_rcu_qsbr_quiescent(r->qsbr, 0);
    for (uint32_t i = 0; i < count; i++) {
        r->refused += packets[i].action != ROUTE_SEND;
    }
}

static uint64_t run_sample(struct run *r, uint64_t begin_ns)
{
    struct rte_mbuf *bufs[SCENE_BURST];
    struct route_packet packets[SCENE_BURST];
    uint64_t done = 0;
    for (uint32_t b = 0; b < BURSTS_PER_SAMPLE; b++) {
        uint16_t count = rte_eth_rx_burst(r->port, 0, bufs, SCENE_BURST);
        for (uint16_t i = 0; i < count; i++) {
            dataplane_wrap(&packets[i], bufs[i]);
        }
        treat(r, packets, count, begin_ns);
        dataplane_tx(r->port, packets, count);
        done += count;
    }
    return done;
}

static int run_on_lcore(void *arg)
{
    struct run *r = arg;
    uint64_t hz = rte_get_tsc_hz();
    uint64_t begin_ns = figures_now_ns();
    uint64_t begin = rte_rdtsc(), last = begin, packets = 0, since_refresh = 0;
    uint64_t end = begin + (uint64_t)(r->seconds * (double)hz);
    r->refused = 0;
    rte_rcu_qsbr_thread_online(r->qsbr, 0);
    while (last < end) {
        uint64_t done = run_sample(r, begin_ns);
        since_refresh += done;
        if (r->scene != NULL && since_refresh >= SCENE_REFRESH) {
            scene_refresh(r->scene);
            since_refresh = 0;
        }
        uint64_t now = rte_rdtsc();
        series_add(r->ns_per_packet, (double)(now - last) * 1e9 / (double)hz / (double)done);
        last = now;
        packets += done;
    }
    rte_rcu_qsbr_thread_offline(r->qsbr, 0);
    r->packets_per_second = (double)packets * (double)hz / (double)(last - begin);
    return 0;
}

/* On the worker lcore, while this thread sleeps. */
static void measure(struct run *r, struct line *line)
{
    r->ns_per_packet = &line->ns;
    rte_eal_remote_launch(run_on_lcore, r, 1);
    while (rte_eal_get_lcore_state(1) == RUNNING) {
        usleep(WAIT_US); /* rte_eal_wait_lcore() would spin */
    }
    rte_eal_wait_lcore(1);
    series_add(&line->rates, r->packets_per_second);
    if (r->refused != 0) {
        fprintf(stderr, "weft-bench dataplane: %lu packets were not sent on\n",
                (unsigned long)r->refused);
    }
}

/* Every buffer of the pool gets a whole frame once; later fills write headers only. */
static void fill_pool(struct rte_mempool *pool, struct scene *scene)
{
    struct rte_mbuf *bufs[BENCH_BUFFERS];
    uint32_t count = 0;
    while (count < BENCH_BUFFERS && (bufs[count] = rte_pktmbuf_alloc(pool)) != NULL) {
        scene_fill_whole(scene, rte_pktmbuf_mtod(bufs[count], void *));
        count++;
    }
    rte_pktmbuf_free_bulk(bufs, count);
}

static void measure_round(const struct dataplane_options *o, struct run *r, struct report *report,
                          struct scene *const *scenes, const char *vdev)
{
    double testpmd = 0;
    r->scene = NULL;
    r->way = WAY_IO;
    measure(r, &report->io);
    double io_ns = 1e9 / r->packets_per_second;
    r->way = WAY_MACSWAP;
    measure(r, &report->macswap);
    if (o->testpmd != NULL && testpmd_run(o, vdev, TESTPMD_SECONDS, &testpmd) == 0) {
        series_add(&report->testpmd.rates, testpmd);
    } else {
        testpmd = r->packets_per_second;
    }
    for (enum scene_kind kind = 0; kind < SCENE_KINDS; kind++) {
        r->scene = scenes[kind];
        r->way = WAY_FILL;
        measure(r, &report->fill[kind]);
        double fill_ns = 1e9 / r->packets_per_second;
        r->way = WAY_STAGES;
        measure(r, &report->stages[kind]);
        double net = 1e9 / (1e9 / r->packets_per_second - fill_ns + io_ns);
        series_add(&report->net[kind].rates, net);
        series_add(&report->ratio[kind].rates, net / testpmd);
    }
}

static int line_init(struct line *line, uint32_t rounds)
{
    int rc = series_init(&line->ns, SAMPLES_KEPT);
    return rc != 0 ? rc : series_init(&line->rates, rounds);
}

static void line_deinit(struct line *line)
{
    series_deinit(&line->ns);
    series_deinit(&line->rates);
}

/* The report is nothing but lines. */
#define REPORT_LINES (sizeof(struct report) / sizeof(struct line))

static struct report *report_create(uint32_t rounds)
{
    struct report *report = calloc(1, sizeof(*report));
    struct line *lines = (struct line *)report;
    for (size_t i = 0; report != NULL && i < REPORT_LINES; i++) {
        if (line_init(&lines[i], rounds) != 0) {
            return NULL; /* the program ends */
        }
    }
    return report;
}

static void report_destroy(struct report *report)
{
    struct line *lines = (struct line *)report;
    for (size_t i = 0; report != NULL && i < REPORT_LINES; i++) {
        line_deinit(&lines[i]);
    }
    free(report);
}

/* Rates are those of whole rounds: whoever takes the CPU meanwhile lowers them. A median burst does
 * not see him. Its share of what macswap does in this process, which is testpmd's loop. */
static double share_by_burst(struct report *report, enum scene_kind kind)
{
    double ns = series_quantile(&report->stages[kind].ns, 0.5) -
                series_quantile(&report->fill[kind].ns, 0.5) + series_quantile(&report->io.ns, 0.5);
    return series_quantile(&report->macswap.ns, 0.5) / ns;
}

/* ---- printing ---- */

static void print_line(const char *name, struct line *line)
{
    printf("%-34s %9.2f %8.2f %8.2f", name, series_quantile(&line->rates, 0.5) / 1e6,
           series_quantile(&line->rates, 0) / 1e6, series_quantile(&line->rates, 1) / 1e6);
    if (line->ns.seen != 0) {
        printf(" %9.1f %9.1f %10lu\n", series_quantile(&line->ns, 0.5),
               series_quantile(&line->ns, 0.99), (unsigned long)line->ns.seen);
    } else {
        printf(" %9.1f\n", 1e9 / series_quantile(&line->rates, 0.5));
    }
}

static void print_text(const struct dataplane_options *o, struct report *report)
{
    char name[64];
    machine_print();
    printf("one core, bursts of %u, %u candidates, %u rounds of %.2f s each\n\n", SCENE_BURST,
           o->candidates, o->rounds, o->seconds);
    printf("%-34s %9s %8s %8s %9s %9s %10s\n", "", "Mpps", "min", "max", "ns/packet", "p99",
           "samples");
    if (report->testpmd.rates.seen != 0) {
        print_line("testpmd macswap", &report->testpmd);
    } else {
        puts("testpmd is not there (package dpdk-dev): macswap below is the floor");
    }
    print_line("macswap in this process", &report->macswap);
    print_line("floor: receive and send", &report->io);
    for (enum scene_kind kind = 0; kind < SCENE_KINDS; kind++) {
        printf("\n%s\n", scene_kind_name(kind));
        print_line("  floor: with fill", &report->fill[kind]);
        print_line("  whole path, with fill", &report->stages[kind]);
        print_line("  whole path, fill taken off", &report->net[kind]);
        snprintf(name, sizeof(name), "  of %s's rate",
                 report->testpmd.rates.seen != 0 ? "testpmd" : "macswap");
        printf("%-34s %8.1f%% %7.1f%% %7.1f%%\n", name,
               100 * series_quantile(&report->ratio[kind].rates, 0.5),
               100 * series_quantile(&report->ratio[kind].rates, 0),
               100 * series_quantile(&report->ratio[kind].rates, 1));
        printf("%-34s %8.1f%%\n", "  of macswap's, by median bursts",
               100 * share_by_burst(report, kind));
    }
}

static json_t *line_json(struct line *line)
{
    json_t *out = json_object();
    json_object_set_new(out, "packets_per_second", series_json(&line->rates));
    if (line->ns.seen != 0) {
        json_object_set_new(out, "ns_per_packet", series_json(&line->ns));
    }
    return out;
}

static void print_json(const struct dataplane_options *o, struct report *report)
{
    json_t *kinds = json_object();
    for (enum scene_kind kind = 0; kind < SCENE_KINDS; kind++) {
        json_object_set_new(kinds, scene_kind_name(kind),
                            json_pack("{s:o, s:o, s:o, s:o, s:f}", "fill",
                                      line_json(&report->fill[kind]), "with_fill",
                                      line_json(&report->stages[kind]), "net",
                                      line_json(&report->net[kind]), "of_floor",
                                      series_json(&report->ratio[kind].rates),
                                      "of_macswap_by_median_bursts", share_by_burst(report, kind)));
    }
    json_t *out =
        json_pack("{s:o, s:s, s:i, s:i, s:i, s:f, s:o, s:o, s:o}", "machine", machine_json(),
                  "floor", report->testpmd.rates.seen != 0 ? "testpmd" : "macswap", "burst",
                  (int)SCENE_BURST, "candidates", (int)o->candidates, "rounds", (int)o->rounds,
                  "seconds", o->seconds, "receive_and_send", line_json(&report->io), "macswap",
                  line_json(&report->macswap), "packets", kinds);
    if (report->testpmd.rates.seen != 0) {
        json_object_set_new(out, "testpmd", line_json(&report->testpmd));
    }
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

/* ---- */

static int measure_all(const struct dataplane_options *o, struct run *r, struct report *report,
                       const char *vdev)
{
    struct scene *scenes[SCENE_KINDS] = {NULL};
    int rc = 0;
    struct rte_mempool *pool = dataplane_pool("path", BENCH_BUFFERS, 0);
    for (enum scene_kind kind = 0; rc == 0 && kind < SCENE_KINDS; kind++) {
        rc = scene_create(&scenes[kind], kind, o->candidates, o->payload, o->seed, NOW_NS);
    }
    if (rc == 0) {
        rc = pool == NULL ? -ENOMEM : dataplane_port_start(r->port, pool);
    }
    if (rc == 0) {
        fill_pool(pool, scenes[SCENE_NEW]);
        for (uint32_t round = 0; round < o->rounds; round++) {
            if (isatty(STDERR_FILENO)) {
                fprintf(stderr, "\rround %u of %u ", round + 1, o->rounds);
            }
            measure_round(o, r, report, scenes, vdev);
        }
        if (isatty(STDERR_FILENO)) {
            fputs("\r\x1b[K", stderr);
        }
        rte_eth_dev_stop(r->port);
    }
    for (enum scene_kind kind = 0; kind < SCENE_KINDS; kind++) {
        scene_destroy(scenes[kind]);
    }
    return rc;
}

int path_run(const struct dataplane_options *o)
{
    char vdev[64];
    struct run run = {.seconds = o->seconds};
    snprintf(vdev, sizeof(vdev), "net_null0,size=%u",
             ROUTE_WEFT_OFFSET - ROUTE_START_IPV4 + (unsigned)sizeof(struct weft_req) + o->payload);
    if (dataplane_start(vdev) != 0) {
        return EXIT_FAILURE;
    }
    struct report *report = report_create(o->rounds);
    run.qsbr = aligned_alloc(RTE_CACHE_LINE_SIZE, rte_rcu_qsbr_get_memsize(1));
    int rc = report == NULL || run.qsbr == NULL ? -ENOMEM : rte_rcu_qsbr_init(run.qsbr, 1);
    if (rc == 0) {
        rc = rte_rcu_qsbr_thread_register(run.qsbr, 0);
    }
    if (rc == 0) {
        rc = rte_eth_dev_get_port_by_name("net_null0", &run.port);
    }
    if (rc == 0) {
        rc = measure_all(o, &run, report, vdev);
    }
    if (rc == 0 && o->json) {
        print_json(o, report);
    } else if (rc == 0) {
        print_text(o, report);
    } else {
        fprintf(stderr, "weft-bench dataplane: %s\n", rte_strerror(-rc));
    }
    report_destroy(report);
    free(run.qsbr);
    dataplane_stop();
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
