/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exception.h - what the kernel keeps of a NIC that a driver has taken whole: frames that are not
 * Weft's go to a TAP interface, what the kernel sends there leaves by the port. ARP, ICMP, SSH and
 * the beacons live there.
 *
 *     lcores ── ring ──► thread ── write ──► TAP ──► kernel
 *     lcore 0 ◄── ring ── thread ◄── read ── TAP ◄── kernel
 *
 * The thread makes the system calls; an lcore makes one only to wake it from its sleep. The TAP is
 * the operator's, with its addresses and routes, made before the node starts and there when it has
 * ended (ip tuntap add NAME mode tap): a node that falls takes no address with it. One that is not
 * there is made, and goes with the node. It gets the port's link address and MTU, and is set up.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct exception;
struct rte_mbuf;
struct rte_mempool;

struct exception_options {
    const char *tap; /* name of the interface */
    struct rte_mempool *pool;
    uint32_t mtu;
    uint8_t mac[6];
};

struct exception_counts {
    uint64_t to_kernel;
    uint64_t from_kernel;
    uint64_t lost; /* either way: a ring was full, or there was no buffer */
};

/* Starts the thread. EAL must run. Returns 0 or -errno, logged. */
int exception_create(struct exception **exception, const struct exception_options *options);
/* The lcores must have stopped. NULL is fine. */
void exception_destroy(struct exception *exception);

/* ---- control thread ---- */

/* Gives the TAP this MTU and link address; no event if it has them. Returns 0 or -errno. */
int exception_set(const struct exception *exception, uint32_t mtu, const uint8_t mac[6]);

/* Has the port none (as rings)? Then the TAP keeps its own. */
static inline bool exception_no_mac(const uint8_t mac[6])
{
    return (mac[0] | mac[1] | mac[2] | mac[3] | mac[4] | mac[5]) == 0;
}

/* Does the kernel see a cable on the TAP? */
void exception_carrier(const struct exception *exception, bool up);

/* Has somebody removed the TAP? Frames for the kernel are then lost, and counted. */
bool exception_gone(const struct exception *exception);

/* One of the same name is there: takes it in place of the one that is gone, as at the start.
 * Returns 0 or -errno; -ENODEV: it is not there yet. */
int exception_reopen(struct exception *exception, uint32_t mtu, const uint8_t mac[6]);

/* ---- lcores ---- */

/* Any lcore: for the kernel. Takes all buffers over. */
void exception_give(struct exception *exception, struct rte_mbuf **bufs, uint32_t count);

/* Lcore 0: from the kernel, to be sent. Returns how many, up to `max`. */
uint32_t exception_take(struct exception *exception, struct rte_mbuf **bufs, uint32_t max);
/* Of those taken, so many could not be sent. */
void exception_lost(struct exception *exception, uint32_t count);

/* Becomes readable anew whenever frames of the kernel's begin to wait: for epoll with EPOLLET. */
int exception_fd(const struct exception *exception);

struct exception_counts exception_counts(const struct exception *exception);
