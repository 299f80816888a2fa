/* SPDX-License-Identifier: Apache-2.0 */
/*
 * workers.h - the local workers of a node, as its packet path sees them: which of them gets a
 * request, what they answer, and who else gets what none of them can take. Pure but for the rings:
 * no device, no clock. Used by lcore 0 (core.c); the control thread (attach.c) brings ports and
 * takes them back.
 *
 * A request stays with the worker that has it. A new one goes, of those that have its model, to the
 * one with the most room; equal ones by the shorter queue. The mesh knows the node, not its
 * workers: the load that it is told is that of all, so a node whose worker for one model is full
 * may be sent requests for it while another one has room; they go on to their next candidate.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/port/port.h"
#include "dataplane/route/stages.h"

struct workers {
    /* Control thread -> lcore. */
    struct port *_Atomic incoming[PORT_WORKERS_MAX]; /* by slot */
    _Atomic uint32_t arrivals;                       /* raised after one of them was set */
    /* The lcore. */
    uint32_t arrivals_seen;
    uint32_t count; /* workers here: the first of `there` */
    uint32_t turn;  /* who answers first */
    struct port *there[PORT_WORKERS_MAX];
    struct port_load load; /* of all of them, as last looked at */
};

/* Zero-filled is a node without workers. */

/* Control thread: hands over a port whose slot nobody else has. Then wake the lcore. It comes back
 * by port->released once port->lost is set. */
void workers_attach(struct workers *workers, struct port *port);

/* The load of several: rooms add up, the shortest queue of those with room, the most free memory.
 * Any thread. */
struct port_load workers_load(struct port *const *ports, uint32_t count);

/* ---- the lcore ---- */

/* Greets those who have come, looks at their load and tells the core of it. `table` may be NULL.
 * Once a turn, before workers_next(). */
void workers_look(struct workers *workers, struct route_core *core, const struct route_table *table,
                  uint64_t now_ns);

/* The next answer, into a packet with a buffer; for stage_parse_worker(). Of a worker that has gone
 * an error for each request that it leaves open, and then its port is let go of. False: there is
 * none, the packet is as it was. */
bool workers_next(struct workers *workers, const struct route_table *table,
                  struct route_packet *packet, uint64_t now_ns);

/* A packet with ROUTE_DELIVER: into a worker's ring, or what becomes of it instead. */
void workers_give(struct workers *workers, struct route_core *core, const struct route_table *table,
                  struct route_packet *packet, uint64_t now_ns);

/* Wakes those who sleep and were given something. */
void workers_flush(struct workers *workers);

/* As ring_sleep_begin() and ring_sleep_end(), of all. */
bool workers_sleep_begin(struct workers *workers);
void workers_sleep_end(struct workers *workers);
