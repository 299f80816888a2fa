/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core.h - the lcore: polls the network port and the worker port, runs the stages over each burst,
 * sleeps when there is nothing. Made by weftd.c; the control thread (glue.c) talks to it only by
 * core_attach(), core_wake() and the published table.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "dataplane/nic/nic.h"
#include "dataplane/nic/publish.h"
#include "dataplane/port/port.h"
#include "dataplane/route/stages.h"

struct core {
    struct nic *nic;
    struct publish *tables; /* of struct route_table */
    struct route_core *route;
    struct port *_Atomic incoming; /* control thread -> lcore */
    struct port *port;             /* the lcore's own; NULL = no worker */
    uint64_t local_word;           /* the local worker's load word last seen */
    int epoll_fd;
    int wake_fd;
    int sleep_ms; /* longest sleep */
    _Atomic bool stop;
};

/* Takes nothing over. Returns 0 or -errno. */
int core_create(struct core **core, struct nic *nic, struct publish *tables,
                const struct route_host *host);
void core_destroy(struct core *core);

/* Runs in the calling thread until core_stop(). */
void core_run(struct core *core);

/* Any thread, signal handlers. */
void core_stop(struct core *core);
void core_wake(struct core *core);

/* Control thread: hands a new port to the lcore; it must have released the one before. The port
 * comes back by port->released once port->lost is set. */
int core_attach(struct core *core, struct port *port);

/* Control thread: before a released port is destroyed. */
void core_detach(struct core *core, struct port *port);
