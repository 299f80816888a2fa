/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.h - for each `nic.driver` of the configuration: DPDK's device, what has to be there first,
 * and what has to be gone afterwards. nic.c calls these in the order below; main thread only.
 */
#pragma once

#include "dataplane/nic/nic.h"
#include "dataplane/nic/xdp.h"

#define DRIVER_DEVICE_MAX 512u
#define DRIVER_PORT_MAX   64u
/* IPv4, UDP and the largest datagram: what an interface's MTU must be at least. */
#define DRIVER_MTU_MIN ((uint32_t)(ROUTE_FRAME_MAX - sizeof(struct route_ether)))

struct driver {
    enum nic_driver kind;
    struct xdp xdp;
    int family;        /* of its sockets; 0: it has none, or they are not known */
    uint32_t mtu;      /* 0: the port tells */
    bool whole;        /* takes all frames of the NIC, unless steer.h can part them */
    bool pci;          /* `device` is a PCI address */
    bool partial_sums; /* frames may come with a checksum that their sender left to hardware */
    char device[DRIVER_DEVICE_MAX]; /* argument of --vdev, or the PCI address */
    char port[DRIVER_PORT_MAX];     /* DPDK's name of the port */
};

/* Checks privileges, interface and queues, so that a refusal can name its reason, and fills in the
 * device. Returns 0 or -errno, logged; driver_stopped() is then fine, not needed. */
int driver_prepare(struct driver *driver, const struct nic_options *options);

/* The port runs. */
void driver_started(struct driver *driver);
/* It is closed, or could not be started. */
void driver_stopped(struct driver *driver);

/* "af_packet", as in the configuration. */
const char *driver_name(enum nic_driver kind);

/* Of a driver that is not whole: who keeps other frames than the data port's from the lcores, and
 * what becomes of them. */
const char *driver_steering(enum nic_driver kind);

/* Packet buffers that the driver itself holds, for each queue. */
uint32_t driver_buffers(enum nic_driver kind);

/* The driver's sockets in the order of their queues, each readable when a frame waits. Returns how
 * many there are, of which up to `max` are stored. They stay the driver's. */
uint32_t driver_sockets(const struct driver *driver, int *fds, uint32_t max);
