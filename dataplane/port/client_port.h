/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_port.h - weftd's end of a local client's port (schemas/port.h has the contract,
 * dataplane/client/portal.c the other end). The control thread opens and closes ports; the lcore
 * owns the rings in between. Which ports there are, and what their datagrams look like to the
 * stages, is dataplane/local.h.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "dataplane/port/share.h"

struct client_port {
    /* Control thread. */
    int socket_fd; /* the lcore wakes the client through it */
    int memfd;
    int wake_node_fd; /* in the lcore's wait set; never read */
    pid_t pid;        /* of the process that connected, as the kernel says */
    uid_t uid;
    char program[PORT_PROGRAM_MAX]; /* as it says, printable */
    uint32_t slot;                  /* of those that attach, 0..PORT_CLIENTS_MAX-1 */
    uint32_t generation;            /* of that slot: replies to the one before are not for it */
    /* Hand-over: the control thread sets `lost`, the lcore sets `released` when it is done. */
    _Atomic bool lost;
    _Atomic bool released;
    /* The lcore; counters have any reader. */
    struct port_client_shm *shm;
    struct ring_end to_client;
    struct ring_end to_node;
    bool pushed;        /* something to wake the client for */
    uint32_t last_left; /* entries that are still taken once it is lost */
    _Atomic uint64_t taken;
    _Atomic uint64_t given;
    _Atomic uint64_t full; /* not given: its ring was full */
};

/* Reads the hello of a client (port_kind()) and answers it with memory, rings and the wake
 * descriptor. On success the port owns `socket_fd`; slot and generation are the caller's to set.
 * Returns 0 or as port_kind(). */
int client_port_open(struct client_port **port, int socket_fd, const struct port_self *self);

/* Unmaps, closes, frees. NULL is fine. */
void client_port_destroy(struct client_port *port);

/* ---- the lcore's side ---- */

/* Copies a datagram into the client's ring. False, and counted: it is full. */
bool client_port_push(struct client_port *port, const void *datagram, uint32_t len);

/* Wakes the client if it sleeps and something was pushed. Never waits. */
void client_port_flush(struct client_port *port);

/* Copies the client's next datagram out, as share_pop(). */
uint32_t client_port_pop(struct client_port *port, void *out, uint32_t max);
