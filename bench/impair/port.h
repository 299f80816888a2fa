/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h - an interface as a port of the switch: a packet socket that takes every frame that comes
 * in and sends others out. Frames leave here as they would be on a cable: with checksums finished
 * and their VLAN tag inside. Linux only; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define IMPAIR_BURST 32u

struct impair_port_counters {
    uint64_t received;
    uint64_t sent;
    uint64_t finished;    /* checksums that the sender had left to hardware */
    uint64_t merged;      /* let go of: several packets in one (GSO, GRO) */
    uint64_t truncated;   /* let go of: longer than the switch takes */
    uint64_t send_failed; /* link down, or longer than its MTU */
    uint64_t overrun;     /* the kernel's queue was full: this machine is too slow */
};

struct impair_port {
    int fd;
    int ifindex;
    uint32_t mtu;
    struct impair_port_counters counters;
};

/* Frames of one call of impair_port_receive. */
struct impair_burst {
    uint32_t count;
    uint32_t frame_max; /* room for each */
    uint8_t *frames[IMPAIR_BURST];
    uint32_t sizes[IMPAIR_BURST];
    uint8_t *memory;
};

/* Returns 0, -ENOMEM. */
int impair_burst_init(struct impair_burst *burst, uint32_t frame_max);
void impair_burst_deinit(struct impair_burst *burst);

/* Returns 0 or a negative errno: -ENODEV without such an interface, -EPERM without the right. */
int impair_port_open(struct impair_port *port, const char *interface);
void impair_port_close(struct impair_port *port);

/* What is there, without waiting, IMPAIR_BURST frames at most; count 0 if nothing is. */
void impair_port_receive(struct impair_port *port, struct impair_burst *burst);

void impair_port_send(struct impair_port *port, const uint8_t *frame, uint32_t size);

/* Brings counters.overrun up to date. */
void impair_port_overrun(struct impair_port *port);
