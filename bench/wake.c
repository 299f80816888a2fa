/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wake.c - weft-bench dataplane wake: what it costs a request that its node was asleep. One frame
 * at a time goes into one end of a veth pair whose other end is the node's port (dataplane/nic);
 * the time until the answer is there is taken with a router that sleeps as dataplane/core.c does,
 * and with one that polls all the time. The difference of the medians is the price of sleeping.
 *
 * The frame is a request of a client that is not proven yet: its cookie comes from the router
 * itself. The sender polls for it, so that only the router's sleep is in the figure. Both have a
 * CPU of their own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/dataplane.h"
#include "bench/figures.h"
#include "dataplane/nic/nic.h"
#include "schemas/base/cpu.h"
#include "schemas/base/log.h"

#define NOW_NS         (10 * SEAL_LIFE_NS)
#define PORT_DATA      7400u /* as in tests/unit/route/fixture.h */
#define SOURCE_PORT_AT 34    /* in a frame over IPv4 */
#define INTERFACE      "w0"
#define PEER           "w1"
#define MEMORY_MIB     64u
#define IDLE_POLLS     32u /* as in dataplane/core.c */
#define SLEEP_MS       1000
#define LOST_NS        100000000u
#define SAMPLES_MAX    100000u

struct rig {
    struct scene *scene;
    struct nic *nic;
    int epoll_fd;
    int peer_fd;
    uint32_t gap_us;
    uint32_t rounds;
    uint32_t frames; /* of a round, for each way */
    _Atomic bool may_sleep;
    _Atomic bool stop;
    uint64_t lost;
    struct series asleep, awake; /* microseconds */
};

/* ---- the router ---- */

static uint32_t route_burst(struct rig *rig, uint64_t now_ns)
{
    struct route_packet packets[SCENE_BURST];
    uint32_t count = nic_rx(rig->nic, 0, packets, SCENE_BURST);
    if (count != 0) {
        scene_run(rig->scene, packets, count, NOW_NS + now_ns);
        nic_tx(rig->nic, 0, packets, count);
    }
    return count;
}

/* Sleeps in the steps of dataplane/core.c: empty polls, armed, one more poll, asleep. */
static void run_router(struct rig *rig)
{
    uint64_t begin_ns = figures_now_ns();
    uint32_t idle = 0;
    while (!atomic_load_explicit(&rig->stop, memory_order_relaxed)) {
        uint32_t count = route_burst(rig, figures_now_ns() - begin_ns);
        bool may_sleep = atomic_load_explicit(&rig->may_sleep, memory_order_relaxed);
        if (count != 0 || !may_sleep) {
            idle = 0;
        } else if (idle < IDLE_POLLS) {
            cpu_pause();
            idle++;
        } else if (idle++ == IDLE_POLLS) {
            nic_sleep_begin(rig->nic, 0);
        } else {
            struct epoll_event event;
            epoll_wait(rig->epoll_fd, &event, 1, SLEEP_MS);
            nic_sleep_end(rig->nic, 0);
            idle = 0;
        }
    }
}

/* ---- the client ---- */

/* One frame there and its answer back. Nanoseconds; 0: lost. */
static uint64_t ping(struct rig *rig)
{
    uint8_t frame[ROUTE_FRAME_MAX], answer[ROUTE_FRAME_MAX];
    scene_fill_whole(rig->scene, frame);
    uint64_t begin_ns = figures_now_ns(), now_ns;
    if (send(rig->peer_fd, frame, rig->scene->frame_len, 0) < 0) {
        return 0;
    }
    do {
        ssize_t len = recv(rig->peer_fd, answer, sizeof(answer), MSG_DONTWAIT);
        now_ns = figures_now_ns();
        if (len > SOURCE_PORT_AT + 1 &&
            (answer[SOURCE_PORT_AT] << 8 | answer[SOURCE_PORT_AT + 1]) == PORT_DATA) {
            return now_ns - begin_ns;
        }
    } while (now_ns - begin_ns < LOST_NS);
    return 0;
}

static void measure(struct rig *rig, bool may_sleep)
{
    struct series *out = may_sleep ? &rig->asleep : &rig->awake;
    atomic_store(&rig->may_sleep, may_sleep);
    for (uint32_t i = 0; i <= rig->frames; i++) {
        usleep(rig->gap_us);
        uint64_t took_ns = ping(rig);
        rig->lost += took_ns == 0;
        if (took_ns != 0 && i != 0) { /* the first one meets the other way still */
            series_add(out, (double)took_ns / 1e3);
        }
    }
}

static void *run_client(void *arg)
{
    struct rig *rig = arg;
    for (uint32_t i = 0; i < rig->rounds; i++) {
        measure(rig, true);
        measure(rig, false);
    }
    atomic_store(&rig->stop, true);
    ping(rig); /* wakes it */
    return NULL;
}

/* ---- */

static int open_peer(struct rig *rig)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETHERTYPE_IP),
        .sll_ifindex = (int)if_nametoindex(PEER),
    };
    rig->peer_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETHERTYPE_IP));
    return rig->peer_fd < 0 || bind(rig->peer_fd, (struct sockaddr *)&addr, sizeof(addr)) != 0
               ? -errno
               : 0;
}

static int make_rig(struct rig *rig, const struct dataplane_options *o)
{
    struct nic_options options = {
        .name = "bench",
        .runtime_dir = "/tmp",
        .driver = o->af_xdp ? NIC_AF_XDP : NIC_AF_PACKET,
        .interface = INTERFACE,
        .data_port = PORT_DATA,
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = MEMORY_MIB,
        .lcores = 1,
    };
    log_init(LOG_LEVEL_WARN, "");
    if (unshare(CLONE_NEWNET) != 0 ||
        system("ip link add " INTERFACE " type veth peer name " PEER " && ip link set " INTERFACE
               " up && ip link set " PEER " up") != 0) {
        return -EPERM;
    }
    int rc = series_init(&rig->asleep, SAMPLES_MAX);
    rc = rc != 0 ? rc : series_init(&rig->awake, SAMPLES_MAX);
    rc = rc != 0 ? rc
                 : scene_create(&rig->scene, SCENE_COOKIE, o->candidates, o->payload, 1, NOW_NS);
    rc = rc != 0 ? rc : nic_create(&rig->nic, &options);
    if (rc == 0) {
        rig->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        rc = nic_watch(rig->nic, 0, rig->epoll_fd);
    }
    return rc != 0 ? rc : open_peer(rig);
}

static void print_text(struct rig *rig)
{
    double asleep = series_quantile(&rig->asleep, 0.5), awake = series_quantile(&rig->awake, 0.5);
    machine_print();
    printf("one request at a time over veth, %s, every %u us\n\n%-28s %8s %8s %8s %8s\n",
           nic_facts(rig->nic).driver, rig->gap_us, "microseconds to the answer", "p50", "p99",
           "p99.9", "samples");
    struct series *both[] = {&rig->asleep, &rig->awake};
    static const char *const names[] = {"the node sleeps", "the node polls"};
    for (size_t i = 0; i < 2; i++) {
        printf("%-28s %8.1f %8.1f %8.1f %8lu\n", names[i], series_quantile(both[i], 0.5),
               series_quantile(both[i], 0.99), series_quantile(both[i], 0.999),
               (unsigned long)both[i]->seen);
    }
    printf("\nwaking: %.1f us (difference of the medians); lost: %lu\n", asleep - awake,
           (unsigned long)rig->lost);
}

static void print_json(struct rig *rig)
{
    double asleep = series_quantile(&rig->asleep, 0.5), awake = series_quantile(&rig->awake, 0.5);
    json_t *out =
        json_pack("{s:o, s:s, s:s, s:i, s:o, s:o, s:f, s:I}", "machine", machine_json(), "driver",
                  nic_facts(rig->nic).driver, "unit", "microseconds", "gap_us", (int)rig->gap_us,
                  "asleep", series_json(&rig->asleep), "awake", series_json(&rig->awake), "waking",
                  asleep - awake, "lost", (json_int_t)rig->lost);
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

static int run_both(struct rig *rig)
{
    pthread_t client;
    int rc = -pthread_create(&client, NULL, run_client, rig);
    if (rc == 0) {
        /* Not before: EAL wants the choice, and a new thread has its maker's CPUs. */
        dataplane_pin(client, 0);
        dataplane_pin(pthread_self(), 1);
        run_router(rig);
        pthread_join(client, NULL);
    }
    return rc;
}

int wake_run(const struct dataplane_options *o)
{
    struct rig rig = {.epoll_fd = -1, .peer_fd = -1, .gap_us = 1000, .rounds = o->rounds};
    rig.frames = (uint32_t)(o->seconds * 1e6 / rig.gap_us);
    int rc = dataplane_find_cpus();
    rc = rc != 0 ? rc : make_rig(&rig, o);
    rc = rc != 0 ? rc : run_both(&rig);
    if (rc == 0 && o->json) {
        print_json(&rig);
    } else if (rc == 0) {
        print_text(&rig);
    } else {
        fprintf(stderr, "weft-bench dataplane: %s (needs root, iproute2 and two CPUs)\n",
                strerror(-rc));
    }
    nic_destroy(rig.nic);
    scene_destroy(rig.scene);
    series_deinit(&rig.asleep);
    series_deinit(&rig.awake);
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
