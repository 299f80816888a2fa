/* SPDX-License-Identifier: Apache-2.0 */
/*
 * link.h - a port taken whole and its TAP are one interface to the operator: what is set on the TAP
 * (up or down, MTU, link address) the port follows as far as its driver can, and the TAP shows
 * whether the port has a carrier. Where the port cannot follow, the TAP is put back and the log
 * says so. Ports that share their interface with the kernel need none of this: it sets them itself.
 *
 * Threads: control thread, once link_start() is done.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/nic/kernel.h"

struct exception;

struct link {
    uint16_t port;
    struct exception *tap; /* NULL: the port has no TAP */
    uint32_t mtu_min;      /* the port keeps at least this */
    uint32_t mtu;          /* of the port */
    uint32_t tap_mtu;      /* what the kernel sends at most; up to the port's */
    bool up;               /* as the operator wants it */
    bool carrier;
    uint8_t mac[6];
};

/* The port runs with `mtu` and `mac`, and so does its TAP. */
void link_start(struct link *link, uint16_t port, struct exception *tap, uint32_t mtu,
                uint32_t mtu_min, const uint8_t mac[6]);

/* The operator's side has changed to this. */
void link_follow(struct link *link, const struct kernel_link *wish);

/* From time to time: looks at the port's carrier, and at a TAP that was gone. */
void link_look(struct link *link);
