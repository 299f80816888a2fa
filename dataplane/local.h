/* SPDX-License-Identifier: Apache-2.0 */
/*
 * local.h - the local clients of a node, as its packet path sees them: their datagrams are given
 * headers with which they pass through the same stages as those of any client, and what is for them
 * is taken out of the burst before it would be sent. Pure but for the rings: no device, no clock.
 * Used by lcore 0 (core.c); the control thread (attach.c) brings ports and takes them back.
 *
 * A local client has an address that exists in this node alone: 127.0.0.0/8, in it the generation
 * of its slot, and the slot as its UDP port. No frame from the network may have such a source
 * (addr_v4_is_host()), and return blocks are sealed, so nobody else can send there; a reply for a
 * client that is gone finds another generation, never another client. It needs no cookie from the
 * client: the node puts it in.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/port/client_port.h"
#include "dataplane/route/stages.h"

struct local {
    /* Control thread -> lcore. */
    struct client_port *_Atomic incoming[PORT_CLIENTS_MAX]; /* by slot */
    _Atomic uint32_t arrivals;                              /* raised after one of them was set */
    /* The lcore. */
    uint32_t arrivals_seen;
    uint32_t count; /* clients here: the first of `there` */
    uint32_t turn;  /* whose datagrams come first */
    struct client_port *there[PORT_CLIENTS_MAX];
    struct client_port *slots[PORT_CLIENTS_MAX];
    uint32_t granted[PORT_CLIENTS_MAX]; /* of each in `there`: entries to take this turn */
    route_counter local_taken;          /* metrics.def */
    route_counter local_given;
};

/* Zero-filled is a node without local clients. */

/* Control thread: hands over a port whose slot nobody else has. Then wake the lcore. It comes back
 * by port->released once port->lost is set. */
void local_attach(struct local *local, struct client_port *port);

/* ---- the lcore ---- */

/* How many datagrams to take now, `max` at most, each client its share. Also greets those who have
 * come and lets go of those that are lost. Before each local_take(). */
uint32_t local_waiting(struct local *local, uint32_t max);

/* Takes that many, into packets with buffers (nic_alloc()): headers in front, cookie in place. To
 * be given to stage_parse_local(). Returns how many it took: fewer only if a client has meddled
 * with its ring. */
uint32_t local_take(struct local *local, struct route_core *core, struct route_packet *packets,
                    uint32_t count);

/* Is this packet about to be sent to a local client? */
bool local_bound(const struct route_packet *packet);

/* Gives local clients what is for them, and counts what they cannot take. Between stage_select()
 * (and what follows from it) and stage_rewrite(). `watched`: datagrams of this node's own get
 * headers, too, for a capture. */
void local_deliver(struct local *local, struct route_core *core, struct route_packet *packets,
                   uint32_t count, bool watched);

/* Wakes those who sleep and have been given something. */
void local_flush(struct local *local);

/* Around a sleep. False: somebody has something to be taken. */
bool local_sleep_begin(struct local *local);
void local_sleep_end(struct local *local);
