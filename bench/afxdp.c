/* SPDX-License-Identifier: Apache-2.0 */
/*
 * afxdp.c - weft-bench dataplane afxdp: the packet path on the AF_XDP driver against testpmd on the
 * same driver with the same filter, flooded over veth from another network namespace.
 *
 * A generator process in that namespace writes requests of proven clients into a packet socket as
 * fast as the kernel takes them, to one of two veth pairs: one is Weft's, one testpmd's (a queue
 * has one AF_XDP socket). What limits both is mostly the kernel: veth, XDP in copy mode and a
 * system call for each burst sent; the generator shares the machine, too, and where it is the
 * slowest part both take all it offers. So the time that the router's core is busy with a packet is
 * told as well, of bursts that had any.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <rte_cycles.h>
#include <rte_launch.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/dataplane.h"
#include "bench/figures.h"
#include "dataplane/nic/pool.h"
#include "dataplane/nic/xdp.h"

#define NOW_NS          (10 * SEAL_LIFE_NS)
#define PORT_DATA       7400u /* as in tests/unit/route/fixture.h */
#define TESTPMD_SECONDS 3.0
#define WARM_US         100000
#define WAIT_US         1000
#define BATCHES         8u /* prepared frames that are sent over and over: of 8 x 32 requests */

enum target { TARGET_NONE, TARGET_WEFT, TARGET_TESTPMD, TARGET_QUIT };

/* Between the generator process and this one. */
struct shared {
    _Atomic int target;
    _Atomic int ready; /* 1: its namespace is there; 2: the links are, too; negative: -errno */
    _Atomic uint64_t sent;
};

struct run {
    struct scene *scene;
    uint16_t port;
    double seconds;
    bool empty_stage;
    uint64_t received, forwarded; /* out */
    double packets_per_second;
    double busy_ns; /* for each packet received */
};

struct report {
    struct series offered, empty, path, testpmd, ratio, empty_ns, path_ns;
};

/* ---- the generator process ---- */

static int packet_socket(const char *interface)
{
    int on = 1;
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_ifindex = (int)if_nametoindex(interface),
    };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        return -errno;
    }
    setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof(on));
    return fd;
}

static void generate(struct shared *shared, struct scene *scene, const int *fds)
{
    static struct route_frame frames[BATCHES][SCENE_BURST];
    struct iovec pieces[BATCHES][SCENE_BURST];
    struct mmsghdr batch[BATCHES][SCENE_BURST];
    memset(batch, 0, sizeof(batch));
    for (uint32_t i = 0; i < BATCHES * SCENE_BURST; i++) {
        uint32_t b = i / SCENE_BURST, f = i % SCENE_BURST;
        scene_fill_whole(scene, &frames[b][f]);
        pieces[b][f] = (struct iovec){&frames[b][f], scene->frame_len};
        batch[b][f].msg_hdr = (struct msghdr){.msg_iov = &pieces[b][f], .msg_iovlen = 1};
    }
    for (uint32_t turn = 0;; turn = (turn + 1) % BATCHES) {
        int target = atomic_load_explicit(&shared->target, memory_order_relaxed);
        if (target == TARGET_QUIT) {
            return;
        }
        if (target == TARGET_NONE) {
            usleep(WAIT_US);
            continue;
        }
        /* New requests each time, or a pin would fit. */
        for (uint32_t f = 0; f < SCENE_BURST; f++) {
            scene_fill(scene, &frames[turn][f]);
        }
        int sent = sendmmsg(fds[target - TARGET_WEFT], batch[turn], SCENE_BURST, 0);
        atomic_fetch_add_explicit(&shared->sent, sent > 0 ? (uint64_t)sent : 0,
                                  memory_order_relaxed);
    }
}

static void run_generator(struct shared *shared, struct scene *scene)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    atomic_store(&shared->ready, unshare(CLONE_NEWNET) == 0 ? 1 : -errno);
    while (atomic_load(&shared->ready) == 1) {
        usleep(WAIT_US);
    }
    if (atomic_load(&shared->ready) == 2) {
        int fds[2] = {packet_socket("w1"), packet_socket("t1")};
        if (fds[0] >= 0 && fds[1] >= 0) {
            generate(shared, scene, fds);
        }
    }
    _exit(0);
}

static void pin_to(pid_t pid, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)cpu, &set);
    sched_setaffinity(pid, sizeof(set), &set);
}

/* Both namespaces, both pairs, the generator asleep. Stores its process id. Returns 0 or -errno. */
static int make_network(struct shared *shared, struct scene *scene, pid_t *generator)
{
    char line[512];
    if (unshare(CLONE_NEWNET) != 0) {
        return -errno;
    }
    *generator = fork();
    if (*generator == 0) {
        run_generator(shared, scene);
    }
    while (*generator > 0 && atomic_load(&shared->ready) == 0) {
        usleep(WAIT_US);
    }
    if (*generator < 0 || atomic_load(&shared->ready) < 0) {
        return *generator < 0 ? -errno : atomic_load(&shared->ready);
    }
    snprintf(line, sizeof(line),
             "ip link add w0 type veth peer name w1 && ip link add t0 type veth peer name t1 && "
             "ip link set w1 netns %d && ip link set t1 netns %d && "
             "ip link set w0 up && ip link set t0 up && "
             "nsenter -t %d -n sh -c 'ip link set w1 up && ip link set t1 up'",
             (int)*generator, (int)*generator, (int)*generator);
    int rc = system(line) == 0 ? 0 : -EPERM;
    atomic_store(&shared->ready, rc == 0 ? 2 : -1);
    return rc;
}

/* ---- the router core ---- */

static int run_on_lcore(void *arg)
{
    struct run *r = arg;
    struct rte_mbuf *bufs[SCENE_BURST];
    struct route_packet packets[SCENE_BURST];
    uint64_t begin_ns = figures_now_ns(), begin = rte_rdtsc(), now = begin, busy = 0;
    uint64_t end = begin + (uint64_t)(r->seconds * (double)rte_get_tsc_hz());
    uint32_t since_refresh = 0;
    r->received = r->forwarded = 0;
    while ((now = rte_rdtsc()) < end) {
        uint16_t count = rte_eth_rx_burst(r->port, 0, bufs, SCENE_BURST);
        for (uint16_t i = 0; i < count; i++) {
            dataplane_wrap(&packets[i], bufs[i]);
            packets[i].action = r->empty_stage ? ROUTE_SEND : ROUTE_UNDECIDED;
        }
        if (!r->empty_stage) {
            scene_run(r->scene, packets, count, NOW_NS + figures_now_ns() - begin_ns);
        }
        uint32_t send = 0;
        for (uint16_t i = 0; i < count; i++) {
            send += packets[i].action == ROUTE_SEND;
        }
        r->received += count;
        r->forwarded += send - dataplane_tx(r->port, packets, count);
        since_refresh += count;
        if (since_refresh >= SCENE_REFRESH) {
            scene_refresh(r->scene);
            since_refresh = 0;
        }
        busy += count != 0 ? rte_rdtsc() - now : 0;
    }
    r->busy_ns =
        r->received == 0 ? 0 : (double)busy * 1e9 / (double)rte_get_tsc_hz() / (double)r->received;
    r->packets_per_second = (double)r->forwarded * (double)rte_get_tsc_hz() / (double)(now - begin);
    return 0;
}

static void on_lcore(struct run *r)
{
    rte_eal_remote_launch(run_on_lcore, r, 1);
    while (rte_eal_get_lcore_state(1) == RUNNING) {
        usleep(WAIT_US);
    }
    rte_eal_wait_lcore(1);
}

/* ---- rounds ---- */

static double measure(struct run *r, struct shared *shared, bool empty, struct report *report)
{
    double seconds = r->seconds;
    r->empty_stage = empty;
    atomic_store(&shared->target, TARGET_WEFT);
    r->seconds = WARM_US / 1e6;
    on_lcore(r);
    r->seconds = seconds;
    uint64_t before = atomic_load(&shared->sent);
    on_lcore(r);
    series_add(&report->offered, (double)(atomic_load(&shared->sent) - before) / seconds);
    series_add(empty ? &report->empty_ns : &report->path_ns, r->busy_ns);
    atomic_store(&shared->target, TARGET_NONE);
    return r->packets_per_second;
}

static void measure_round(const struct dataplane_options *o, struct run *r, struct shared *shared,
                          const char *testpmd_device, struct report *report)
{
    double floor_rate = measure(r, shared, true, report);
    double rate = measure(r, shared, false, report);
    series_add(&report->empty, floor_rate);
    series_add(&report->path, rate);
    if (o->testpmd != NULL) {
        atomic_store(&shared->target, TARGET_TESTPMD);
        if (testpmd_run(o, testpmd_device, TESTPMD_SECONDS, &floor_rate) == 0) {
            series_add(&report->testpmd, floor_rate);
        }
        atomic_store(&shared->target, TARGET_NONE);
    }
    series_add(&report->ratio, rate / floor_rate);
}

static void print_text(const struct dataplane_options *o, struct report *report)
{
    const struct {
        const char *name;
        struct series *rates;
    } lines[] = {{"offered by the generator", &report->offered},
                 {"testpmd macswap", &report->testpmd},
                 {"floor: receive and send", &report->empty},
                 {"whole path, new requests", &report->path}};
    machine_print();
    printf("AF_XDP over veth, one core, %u candidates, %u rounds of %.2f s\n\n%-28s %9s %8s %8s\n",
           o->candidates, o->rounds, o->seconds, "", "Mpps", "min", "max");
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        printf("%-28s %9.3f %8.3f %8.3f\n", lines[i].name,
               series_quantile(lines[i].rates, 0.5) / 1e6, series_quantile(lines[i].rates, 0) / 1e6,
               series_quantile(lines[i].rates, 1) / 1e6);
    }
    printf("%-28s %8.1f%% %7.1f%% %7.1f%%\n",
           report->testpmd.seen != 0 ? "path, of testpmd's rate" : "path, of the floor's rate",
           100 * series_quantile(&report->ratio, 0.5), 100 * series_quantile(&report->ratio, 0),
           100 * series_quantile(&report->ratio, 1));
    printf("\nbusy for each packet: floor %.0f ns, whole path %.0f ns (medians)\n",
           series_quantile(&report->empty_ns, 0.5), series_quantile(&report->path_ns, 0.5));
}

static void print_json(const struct dataplane_options *o, struct report *report)
{
    json_t *out = json_pack(
        "{s:o, s:i, s:i, s:f, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "machine", machine_json(),
        "candidates", (int)o->candidates, "rounds", (int)o->rounds, "seconds", o->seconds, "unit",
        "packets per second", "offered", series_json(&report->offered), "testpmd",
        series_json(&report->testpmd), "receive_and_send", series_json(&report->empty), "path",
        series_json(&report->path), report->testpmd.seen != 0 ? "of_testpmd" : "of_floor",
        series_json(&report->ratio), "receive_and_send_busy_ns", series_json(&report->empty_ns),
        "path_busy_ns", series_json(&report->path_ns));
    json_dumpf(out, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(out);
}

static int measure_all(const struct dataplane_options *o, struct run *r, struct shared *shared,
                       const char *testpmd_device)
{
    struct report report;
    struct series *all[] = {&report.offered, &report.empty,    &report.path,   &report.testpmd,
                            &report.ratio,   &report.empty_ns, &report.path_ns};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(all) / sizeof(all[0]); i++) {
        rc = series_init(all[i], 2 * o->rounds);
    }
    for (uint32_t i = 0; rc == 0 && i < o->rounds; i++) {
        measure_round(o, r, shared, testpmd_device, &report);
    }
    if (rc == 0) {
        (o->json ? print_json : print_text)(o, &report);
        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
            series_deinit(all[i]);
        }
    }
    return rc;
}

/* ---- */

static int with_port(const struct dataplane_options *o, struct run *r, struct shared *shared,
                     pid_t generator)
{
    struct xdp own, testpmd;
    char device[PATH_MAX + 128], testpmd_device[PATH_MAX + 128];
    int rc = xdp_prepare(&own, "/tmp", "w0", PORT_DATA);
    if (rc != 0) {
        return rc;
    }
    rc = xdp_prepare(&testpmd, "/tmp", "t0", PORT_DATA);
    xdp_device(&own, 1, device, sizeof(device));
    xdp_device(&testpmd, 1, testpmd_device, sizeof(testpmd_device));
    rc = rc == 0 ? dataplane_start(device) : rc;
    if (rc == 0) {
        pin_to(generator, dataplane_env.cpus[0]);
        struct rte_mempool *pool = packet_pool_create("afxdp", BENCH_BUFFERS, true);
        rc = rte_eth_dev_get_port_by_name(XDP_PORT, &r->port);
        rc = rc != 0 ? rc : pool == NULL ? -ENOMEM : dataplane_port_start(r->port, pool);
        rc = rc != 0 ? rc : measure_all(o, r, shared, testpmd_device);
        rte_eth_dev_stop(r->port);
        rte_eth_dev_close(r->port);
        dataplane_stop();
    }
    xdp_stopped(&own);
    xdp_stopped(&testpmd);
    return rc;
}

int afxdp_run(const struct dataplane_options *o)
{
    struct run run = {.seconds = o->seconds};
    pid_t generator = -1;
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int rc = shared == MAP_FAILED
                 ? -ENOMEM
                 : scene_create(&run.scene, SCENE_NEW, o->candidates, o->payload, o->seed, NOW_NS);
    if (rc == 0) {
        rc = make_network(shared, run.scene, &generator);
    }
    if (rc == 0) {
        rc = with_port(o, &run, shared, generator);
    }
    if (generator > 0) {
        atomic_store(&shared->target, TARGET_QUIT);
        kill(generator, SIGKILL);
        waitpid(generator, NULL, 0);
    }
    scene_destroy(run.scene);
    if (rc != 0) {
        fprintf(stderr,
                "weft-bench dataplane: %s (needs root, iproute2, nsenter and AF_XDP sockets)\n",
                strerror(-rc));
    }
    return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
