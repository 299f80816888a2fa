/* SPDX-License-Identifier: Apache-2.0 */
/* dataplane.c - weft-bench dataplane: options, DPDK's environment and what its parts share. */
#include "bench/dataplane.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/bench.h"
#include "bench/figures.h"
#include "bench/options.h"

#define ARGS_MAX   16
#define MEMORY_MIB "256"
#define TX_TRIES   3u

struct dataplane_env dataplane_env;

/* Tails need many short rounds: the median round is then one that nothing disturbed. */
static const struct part {
    const char *name;
    int (*run)(const struct dataplane_options *options);
    uint32_t rounds;
    double seconds;
} parts[] = {
    {"path", path_run, 5, 0.5},
    {"residence", residence_run, 15, 0.2},
    {"afxdp", afxdp_run, 5, 2},
    {"wake", wake_run, 10, 0.5},
};
#define PARTS (sizeof(parts) / sizeof(parts[0]))

/* ---- DPDK ---- */

int dataplane_find_cpus(void)
{
    int found = 0;
    if (sched_getaffinity(0, sizeof(dataplane_env.permitted), &dataplane_env.permitted) != 0) {
        return -errno;
    }
    for (int cpu = 0; cpu < CPU_SETSIZE && found < 2; cpu++) {
        if (CPU_ISSET((size_t)cpu, &dataplane_env.permitted)) {
            dataplane_env.cpus[found++] = cpu;
        }
    }
    return found == 2 ? 0 : -ENODEV;
}

void dataplane_pin(pthread_t thread, uint32_t index)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)dataplane_env.cpus[index], &set);
    pthread_setaffinity_np(thread, sizeof(set), &set);
}

int dataplane_start(const char *vdev)
{
    char lcores[32], prefix[40], device[256];
    if (dataplane_find_cpus() != 0) {
        fputs("weft-bench dataplane: needs two CPUs\n", stderr);
        return -ENODEV;
    }
    snprintf(lcores, sizeof(lcores), "--lcores=0@%d,1@%d", dataplane_env.cpus[0],
             dataplane_env.cpus[1]);
    snprintf(prefix, sizeof(prefix), "--file-prefix=weft-bench-%d", (int)getpid());
    snprintf(device, sizeof(device), "--vdev=%s", vdev != NULL ? vdev : "");
    char *args[ARGS_MAX] = {
        "weft-bench", lcores,        prefix, "--no-pci", "--no-telemetry",
        "--no-huge",  "--no-shconf", "-m",   MEMORY_MIB, "--log-level=*:error",
    };
    int count = 10;
    if (vdev != NULL) {
        args[count++] = device;
    }
    if (rte_eal_init(count, args) < 0) {
        fprintf(stderr, "weft-bench dataplane: cannot start DPDK: %s\n", rte_strerror(rte_errno));
        return rte_errno != 0 ? -rte_errno : -EINVAL;
    }
    return 0;
}

void dataplane_stop(void)
{
    char folder[256];
    snprintf(folder, sizeof(folder), "%s", rte_eal_get_runtime_dir());
    rte_eal_cleanup();
    rmdir(folder); /* EAL leaves it */
}

struct rte_mempool *dataplane_pool(const char *name, uint32_t count, uint16_t private_size)
{
    return rte_pktmbuf_pool_create(name, count, BENCH_BUFFER_CACHE, private_size,
                                   RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
}

int dataplane_port_start(uint16_t port, struct rte_mempool *pool)
{
    struct rte_eth_conf conf = {.intr_conf.rxq = 0};
    uint16_t rx = BENCH_DESCRIPTORS, tx = BENCH_DESCRIPTORS;
    int rc = rte_eth_dev_configure(port, 1, 1, &conf);
    if (rc == 0) {
        rc = rte_eth_dev_adjust_nb_rx_tx_desc(port, &rx, &tx);
    }
    if (rc == 0) {
        rc = rte_eth_rx_queue_setup(port, 0, rx, (unsigned)SOCKET_ID_ANY, NULL, pool);
    }
    if (rc == 0) {
        rc = rte_eth_tx_queue_setup(port, 0, tx, (unsigned)SOCKET_ID_ANY, NULL);
    }
    if (rc == 0) {
        rc = rte_eth_dev_start(port);
    }
    if (rc != 0) {
        fprintf(stderr, "weft-bench dataplane: cannot start the port: %s\n", rte_strerror(-rc));
    }
    return rc;
}

uint32_t dataplane_tx(uint16_t port, struct route_packet *packets, uint32_t count)
{
    struct rte_mbuf *bufs[SCENE_BURST];
    uint16_t used = 0, sent = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct rte_mbuf *buf = packets[i].buffer;
        if (packets[i].action != ROUTE_SEND) {
            rte_pktmbuf_free(buf);
            continue;
        }
        buf->data_off = (uint16_t)((char *)packet_ether(&packets[i]) - (char *)buf->buf_addr);
        buf->data_len = (uint16_t)packets[i].len;
        buf->pkt_len = packets[i].len;
        bufs[used++] = buf;
    }
    for (uint32_t tries = 0; sent < used && tries < TX_TRIES; tries++) {
        sent = (uint16_t)(sent + rte_eth_tx_burst(port, 0, bufs + sent, (uint16_t)(used - sent)));
    }
    for (uint16_t i = sent; i < used; i++) {
        rte_pktmbuf_free(bufs[i]);
    }
    return (uint32_t)(used - sent);
}

/* ---- command line ---- */

static void usage(FILE *out)
{
    fputs(
        "weft-bench dataplane - the packet path with DPDK around it, against DPDK's own floor\n\n"
        "usage: weft-bench dataplane PART [OPTIONS]\n\n"
        "  path       packets per second of one core, receive to send, over a null device;\n"
        "             alternately with testpmd, which only swaps MAC addresses, if it is there\n"
        "  residence  time from the intended arrival to the departure, open loop, over rings\n"
        "             between a generator core and the router core\n"
        "  afxdp      packets per second over AF_XDP and veth between two network namespaces,\n"
        "             alternately with testpmd; needs root\n"
        "  wake       what it costs a request that its node sleeps: one at a time over veth,\n"
        "             answered by a router that sleeps and by one that polls; needs root\n\n"
        "  --candidates N  nodes that a choice is made among; default 64\n"
        "  --payload N     bytes behind each header; default 64\n"
        "  --rounds N      default 5; residence 15\n"
        "  --seconds S     of one measurement; default 0.5; residence 0.2; afxdp 2\n"
        "  --driver D      wake: af_packet or af_xdp; default af_packet\n"
        "  --rate R        residence: packets per second; default 50 and 90 % of the no-drop rate\n"
        "  --seed N        default 1\n"
        "  --json          for machines\n\n"
        "Needs two CPUs. Close what else is running: the machine's noise is\n"
        "shown, not removed.\n\n"
        "examples:\n"
        "  weft-bench dataplane path --rounds 9\n"
        "  weft-bench dataplane path --candidates 1000 --json\n"
        "  weft-bench dataplane residence --rate 1000000 --seconds 5\n"
        "  weft-bench dataplane afxdp --rounds 9\n"
        "  weft-bench dataplane wake --driver af_xdp\n",
        out);
}

static const struct option long_options[] = {
    {"candidates", required_argument, NULL, 'c'},
    {"payload", required_argument, NULL, 'p'},
    {"rounds", required_argument, NULL, 'r'},
    {"seconds", required_argument, NULL, 's'},
    {"rate", required_argument, NULL, 'R'},
    {"seed", required_argument, NULL, 'S'},
    {"driver", required_argument, NULL, 'd'},
    {"json", no_argument, NULL, 'j'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* Returns 0, 1 for help, -1 if the value cannot be used. */
static int take_option(void *user, int option, const char *value)
{
    struct dataplane_options *o = user;
    double n = 0;
    switch (option) {
    case 'c':
        n = figures_number(value, 1, ROUTE_NODES_MAX - 1);
        o->candidates = (uint32_t)n;
        break;
    case 'p':
        n = figures_number(value, 0, 1200);
        o->payload = (uint32_t)n;
        break;
    case 'r':
        n = figures_number(value, 1, 1000);
        o->rounds = (uint32_t)n;
        break;
    case 's':
        n = figures_number(value, 0.05, 60);
        o->seconds = n;
        break;
    case 'R':
        n = figures_number(value, 1000, 1e8);
        o->rate = n;
        break;
    case 'S':
        n = figures_number(value, 0, 1e15);
        o->seed = (uint64_t)n;
        break;
    case 'd':
        o->af_xdp = strcmp(value, "af_xdp") == 0;
        n = o->af_xdp || strcmp(value, "af_packet") == 0 ? 0 : -1;
        break;
    case 'j':
        o->json = true;
        break;
    default:
        return 1;
    }
    return n < 0 ? -1 : 0;
}

int bench_dataplane(int argc, char **argv)
{
    struct dataplane_options o = {
        .candidates = 64,
        .payload = 64,
        .seed = 1,
        .testpmd = testpmd_find(),
    };
    int taken = bench_options(argc, argv, "dataplane", long_options, take_option, &o);
    if (taken > 0) {
        usage(stdout);
    }
    if (taken != 0) {
        return taken > 0 ? EXIT_SUCCESS : BENCH_USAGE;
    }
    for (size_t i = 0; optind == argc - 1 && i < PARTS; i++) {
        if (strcmp(argv[optind], parts[i].name) == 0) {
            o.rounds = o.rounds != 0 ? o.rounds : parts[i].rounds;
            o.seconds = o.seconds > 0 ? o.seconds : parts[i].seconds;
            return parts[i].run(&o);
        }
    }
    fputs("weft-bench dataplane: needs one PART: path, residence, afxdp or wake\n", stderr);
    return BENCH_USAGE;
}
