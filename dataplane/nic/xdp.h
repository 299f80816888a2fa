/* SPDX-License-Identifier: Apache-2.0 */
/*
 * xdp.h - what DPDK's AF_XDP driver needs around it so that the kernel keeps what is the kernel's.
 * Left alone the driver loads a program that takes every frame of the interface, ARP included; it
 * is given xdp_filter.bpf.c instead, which takes the data port's datagrams only.
 *
 * Order: xdp_prepare(), start EAL with xdp_device(), start the port, xdp_started(); stop the port,
 * xdp_stopped(). Main thread only. Needs CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF (or root).
 */
#pragma once

#include <limits.h>
#include <net/if.h>
#include <stddef.h>
#include <stdint.h>

/* Name of the virtual device that xdp_device() describes. */
#define XDP_PORT       "net_af_xdp0"
#define XDP_QUEUES_MAX 64u /* the filter's map has so many entries */

struct xdp {
    char interface[IF_NAMESIZE];
    char object[PATH_MAX]; /* the filter with its port, as long as the driver needs it; else "" */
};

/* Writes the filter for the UDP port `port` into `folder` and takes away what a Weft that crashed
 * left on the interface. Returns 0; -ENODEV: no such interface; -EBUSY: another program than Weft's
 * is attached there, logged; or -errno. */
int xdp_prepare(struct xdp *xdp, const char *folder, const char *interface, uint16_t port);

/* Queues that the driver can be given on this interface: its combined channels; 1 where it has none
 * (veth: its rx and tx channels do not count for the driver). */
uint32_t xdp_queues(const char *interface);

/* The argument of --vdev. Returns 0, or -ENAMETOOLONG. */
int xdp_device(const struct xdp *xdp, uint32_t queues, char *out, size_t size);

/* The driver has loaded the filter: removes the file. */
void xdp_started(struct xdp *xdp);

/* The driver detaches its program when the port is closed; this makes sure of it. Fine at any time
 * after xdp_prepare(), and after it has failed. */
void xdp_stopped(struct xdp *xdp);
