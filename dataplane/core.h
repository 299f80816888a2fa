/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core.h - an lcore: polls its queue of the network port, runs the stages over each burst, sleeps
 * when there is nothing. Lcores share nothing but the published table; the first one owns the ports
 * of local workers and local clients, the others hand it what is for those. Made by weftd.c;
 * the control thread (glue.c, attach.c) talks to it only by core_attach...(), core_wake() and the
 * table.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "dataplane/handoff.h"
#include "dataplane/local.h"
#include "dataplane/nic/nic.h"
#include "dataplane/nic/publish.h"
#include "dataplane/port/port.h"
#include "dataplane/route/stages.h"
#include "dataplane/tap/tap_hub.h"
#include "dataplane/workers.h"
#include "schemas/base/hist.h"

/* Parts of the loop whose time is measured, in nanoseconds per burst. STAGE(name, text) */
#define CORE_STAGES(STAGE)                                                                         \
    STAGE(rx, "packets taken from the port")                                                       \
    STAGE(parse, "headers checked")                                                                \
    STAGE(worker, "datagrams taken from local workers and local clients")                          \
    STAGE(classify, "who sent it, may it come this way")                                           \
    STAGE(select, "requests get their node")                                                       \
    STAGE(deliver, "to worker and clients here, or to the lcore with them")                        \
    STAGE(rewrite, "addresses and checksums")                                                      \
    STAGE(tx, "packets given to the port")                                                         \
    STAGE(residence, "from the first of these to the last")
#define CORE_STAGE_ENUM_(name, text) CORE_STAGE_##name,
enum core_stage { CORE_STAGES(CORE_STAGE_ENUM_) CORE_STAGE_COUNT };
/* One burst in so many is measured. */
#define CORE_SAMPLE_EVERY 64u

struct core {
    struct nic *nic;
    struct publish *tables; /* of struct route_table */
    struct route_core *route;
    struct tap *tap;
    uint32_t index; /* lcore, queue and reader number */
    int epoll_fd;
    int wake_fd;
    int sleep_ms;    /* longest sleep */
    uint32_t bursts; /* that had packets */
    struct hist stages[CORE_STAGE_COUNT];
    route_counter busy_ns; /* turns of the loop that had packets */
    _Atomic bool asleep;
    _Atomic bool stop;
    _Atomic uint64_t place; /* control thread -> lcore: CORE_PLACE_* and the link address */
    uint64_t placed;        /* the one that is in force */
    /* Of lcore 0: the ports, and what the others hand over. */
    struct handoff *handed[NIC_LCORES_MAX];
    uint32_t handed_count;
    struct workers workers;
    struct local local; /* clients */
    /* Of the others: where to hand to. */
    struct core *owner;
    struct handoff *to_owner;
};

/* What all lcores of a node have in common. */
struct core_options {
    struct nic *nic;
    struct publish *tables;
    struct tap_hub *taps;
    struct route_host host;
    struct seal_master master;
};

/* Takes nothing over. `owner` is lcore 0, NULL for that one itself; it must outlive the others.
 * Returns 0 or -errno. */
int core_create(struct core **core, const struct core_options *options, uint32_t index,
                struct core *owner);
void core_destroy(struct core *core);

/* Runs in the calling thread until core_stop(). */
void core_run(struct core *core);

/* Any thread, signal handlers. */
void core_stop(struct core *core);
void core_wake(struct core *core);

/* Control thread: which of its addresses the node has on its interface now, and the link address
 * that its frames leave with. At first both and the one it was made with. */
#define CORE_PLACE_V4 (UINT64_C(1) << 48)
#define CORE_PLACE_V6 (UINT64_C(1) << 49)
void core_place(struct core *core, bool v4, bool v6, const uint8_t mac[6]);

/* Control thread, lcore 0: hands it a worker's port, whose slot must be free. It comes back by
 * port->released once port->lost is set. */
int core_attach(struct core *core, struct port *port);

/* Control thread: before a released port is destroyed. */
void core_detach(struct core *core, struct port *port);

/* The same for a local client's port. */
int core_attach_client(struct core *core, struct client_port *port);
void core_detach_client(struct core *core, struct client_port *port);
