/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dataplane.h - the parts of weft-bench dataplane (dataplane.c): DPDK's environment and, for each
 * subcommand, one function. These are the benches' only users of rte_*.
 */
#pragma once

#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#include "bench/scene.h"

#define BENCH_BUFFERS      4095u /* as in dataplane/nic/nic.c */
#define BENCH_BUFFER_CACHE 64u
#define BENCH_DESCRIPTORS  512u

struct dataplane_options {
    uint32_t candidates;
    uint32_t payload; /* bytes behind the header of each datagram */
    uint32_t rounds;
    double seconds; /* of one measurement */
    double rate;    /* packets per second; 0 = look for the highest without drops */
    uint64_t seed;
    const char *testpmd; /* path; NULL = not found */
    bool af_xdp;         /* wake: that driver, else af_packet */
    bool json;
};

/* What EAL runs on. The main lcore is on cpus[0], the worker lcore on cpus[1]. */
struct dataplane_env {
    int cpus[2];
    cpu_set_t permitted; /* before EAL pinned the main thread; children get it back */
};
extern struct dataplane_env dataplane_env;

/* Fills in the CPUs; EAL does not run yet. Returns 0, or -ENODEV if there are not two. */
int dataplane_find_cpus(void);
/* Keeps a thread on one of them. */
void dataplane_pin(pthread_t thread, uint32_t index);

/* Starts EAL with two lcores, ordinary memory and `vdev` (NULL: none). Returns 0 or -errno, told.
 */
int dataplane_start(const char *vdev);
void dataplane_stop(void);

/* Buffers with `private_size` bytes of the bench's own each; NULL if there is no memory. */
struct rte_mempool *dataplane_pool(const char *name, uint32_t count, uint16_t private_size);

/* One receive and one send queue, started. Returns 0 or -errno, told. */
int dataplane_port_start(uint16_t port, struct rte_mempool *pool);

/* A received buffer as the stages see it, and back: what dataplane/nic/nic.c does. */
static inline void dataplane_wrap(struct route_packet *p, struct rte_mbuf *buf)
{
    *p = (struct route_packet){.buffer = buf};
    packet_attach(p, rte_pktmbuf_mtod(buf, void *), buf->data_len);
}

/* Sends what is to be sent and frees the rest. Returns how many the queue refused. */
uint32_t dataplane_tx(uint16_t port, struct route_packet *packets, uint32_t count);

/* ---- testpmd.c: DPDK's own forwarder, in a process of its own on the same CPUs ---- */

/* Runs it for about `seconds` and stores the rate of its forwarding core. `args` go before "--".
 * Returns 0 or -errno. */
int testpmd_run(const struct dataplane_options *options, const char *vdev, double seconds,
                double *packets_per_second);
const char *testpmd_find(void);

/* ---- subcommands; each returns the exit status ---- */

int path_run(const struct dataplane_options *options);
int residence_run(const struct dataplane_options *options);
int afxdp_run(const struct dataplane_options *options);
int wake_run(const struct dataplane_options *options);
