/* SPDX-License-Identifier: Apache-2.0 */
/*
 * udp.h - batches of datagrams on a non-blocking UDP socket: one recvmmsg(2) or sendmmsg(2) for
 * many. loop.h says when to receive.
 *
 * Threads: none of its own; a batch belongs to one thread.
 */
#pragma once

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/base/clock.h"

#define UDP_BATCH        32u
#define UDP_PAYLOAD_MAX  1232u /* IPv6's smallest MTU less its headers: passes everywhere */
#define UDP_PAYLOAD_ROOM 1280u /* one longer than allowed is still seen as such */

struct udp_datagram {
    struct in6_addr address; /* where from or where to; schemas/base/addr.h */
    uint16_t port;           /* host byte order */
    uint16_t len;
    uint8_t data[UDP_PAYLOAD_ROOM];
};

/* A non-blocking socket of the address's family, bound to `address`:`port` (0: the kernel's choice,
 * read back into *port); it sends to that family only.
 * Sets *fd, which the caller closes. Returns 0 or -errno. */
int udp_open(int *fd, const struct in6_addr *address, uint16_t *port);

/* The same, but tried again for UDP_PATIENCE_NS if another process still has the port, or the
 * address is not there yet: addresses come a moment after their interface, those of IPv6 once
 * nobody else has them, and a process that ends keeps its sockets until its last thread has gone.
 * Blocks; for starts. */
#define UDP_PATIENCE_NS (2 * NS_PER_S)
int udp_open_patiently(int *fd, const struct in6_addr *address, uint16_t *port);

/* Takes up to `room` (at most UDP_BATCH) datagrams. Longer ones come cut off at UDP_PAYLOAD_ROOM.
 * Returns how many, 0 if there are none, or -errno. */
int udp_receive(int fd, struct udp_datagram *batch, unsigned room);

/* Sends up to `count` (at most UDP_BATCH) datagrams. Returns how many went out: those the kernel
 * refuses (no route, no buffer) are lost like any other datagram. */
int udp_send(int fd, const struct udp_datagram *batch, unsigned count);
