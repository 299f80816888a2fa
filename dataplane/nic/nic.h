/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nic.h - the network port as the rest of weftd sees it: bursts of route_packet in and out, packet
 * buffers, and a descriptor to sleep on. EAL and every rte_* type stay behind this header and
 * publish.h. One port with a queue pair for each lcore; packets of one flow come to one queue (RSS,
 * or the kernel's fan-out by flow hash). Create and destroy on the main thread, which is lcore 0.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/route/packet.h"

/* Same order as in the `choices` of schemas/config.def. */
enum nic_driver { NIC_AF_PACKET, NIC_AF_XDP, NIC_DPDK, NIC_NONE };
enum nic_hugepages { NIC_HUGEPAGES_AUTO, NIC_HUGEPAGES_ON, NIC_HUGEPAGES_OFF };

#define NIC_LCORES_MAX 16u

struct nic_options {
    const char *name;        /* of the node; makes EAL's file prefix unique */
    const char *runtime_dir; /* where EAL may keep files while it runs; it leaves none */
    enum nic_driver driver;
    const char *device;    /* NIC_DPDK: PCI address, or virtual device with arguments */
    const char *interface; /* kernel interface the port sits on; NIC_DPDK: the kernel's share */
    uint16_t data_port;    /* UDP; only its datagrams are wanted */
    enum nic_hugepages hugepages;
    uint32_t memory_mib;
    uint32_t lcores; /* 1..NIC_LCORES_MAX; lcore i has queue i */
};

struct nic;

/* Starts EAL and the port. Can be done once per process (EAL's own limit). Returns 0 or -errno;
 * the reason is logged. */
int nic_create(struct nic **nic, const struct nic_options *options);

/* Stops the port and EAL. NULL is fine. */
void nic_destroy(struct nic *nic);

/* How the port was set up and what passed by, for people: `nic` in the status answer. Texts live as
 * long as the port. */
struct nic_facts {
    const char *driver;
    const char *wait;     /* what a sleeping lcore is woken by */
    const char *steering; /* who keeps frames away that are not the data port's */
    uint32_t mtu;
    const char *sums;     /* who ends the UDP checksums of what this node writes */
    const char *checks;   /* who looks at the checksums of what comes in */
    uint64_t summed;      /* datagrams whose checksum was left to the port */
    uint64_t chained;     /* frames larger than a buffer, let go of */
    bool carrier;         /* as the port says; true where the kernel has the interface itself */
    bool whole;           /* the rest is of a NIC taken whole (exception.h) */
    uint64_t to_kernel;   /* frames */
    uint64_t from_kernel; /* frames */
    uint64_t lost;        /* of either */
};
struct nic_facts nic_facts(const struct nic *nic);

void nic_mac(const struct nic *nic, uint8_t mac[6]);

/* Control thread, a port with a TAP (link.h), else nothing: what the operator has set on the TAP;
 * and, from time to time, a look at the port's carrier. */
struct kernel_link;
void nic_follow(struct nic *nic, const struct kernel_link *wish);
void nic_look(struct nic *nic);

/* Does the port end UDP checksums? Then the host's `port_sums` must say so (packet.h). */
bool nic_sums(const struct nic *nic);

/* Runs `fn` on lcore 1..; nic_join() waits for all of them. */
int nic_launch(struct nic *nic, uint32_t lcore, int (*fn)(void *arg), void *arg);
void nic_join(struct nic *nic);

/* Fills in frame, buffer and len of up to `max` packets. Returns how many. */
uint32_t nic_rx(struct nic *nic, uint32_t queue, struct route_packet *packets, uint32_t max);

/* A fresh buffer of ROUTE_FRAME_MAX bytes for a datagram of this node's own. */
bool nic_alloc(struct nic *nic, struct route_packet *packet);

/* Sends those with ROUTE_SEND and gives all other buffers back, but those of ROUTE_GONE. Returns
 * how many the queue refused. */
uint32_t nic_tx(struct nic *nic, uint32_t queue, struct route_packet *packets, uint32_t count);

/* What the port could not bring, since it was started: no buffer was free, or nobody fetched it in
 * time. Any thread. */
struct nic_losses {
    uint64_t no_buffer; /* times that one was wanted; some drivers keep the frame meanwhile */
    uint64_t missed;    /* frames, as far as the driver counts them */
};
struct nic_losses nic_losses(const struct nic *nic);

/* Packet buffers that are neither in the pool nor where the driver had them when it started: leaks
 * show here. Some drivers give sent ones back only while they send. Any thread. */
uint32_t nic_buffers_in_use(const struct nic *nic);

/* ---- sleeping ---- */

/* Adds what becomes readable when a packet arrives at a queue to an epoll set. Returns 0; or
 * -ENOTSUP if the driver has neither socket nor interrupt: then the sleeper must use
 * NIC_BLIND_SLEEP_MS. */
#define NIC_BLIND_SLEEP_MS 1
int nic_watch(struct nic *nic, uint32_t queue, int epoll_fd);

/* Around a sleep: arms and disarms the receive interrupt where there is one. After
 * nic_sleep_begin() poll once more before sleeping. */
void nic_sleep_begin(struct nic *nic, uint32_t queue);
void nic_sleep_end(struct nic *nic, uint32_t queue);
