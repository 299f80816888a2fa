/* SPDX-License-Identifier: Apache-2.0 */
/*
 * port.h - weftd's end of one worker port (schemas/port.h has the contract,
 * dataplane/client/worker.c the other end). The control thread opens and closes ports; the lcore
 * owns the rings in between.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/port/inflight.h"
#include "dataplane/port/share.h"

struct port {
    /* Control thread. */
    int socket_fd;
    int memfd;
    int wake_worker_fd;
    int wake_node_fd; /* in the lcore's wait set */
    struct port_hello facts;
    uint32_t slot;  /* the node's number for it; whoever opened it sets it */
    uint32_t model; /* weft_model_id() of its name */
    /* Hand-over: the control thread sets `lost`, the lcore sets `released` when it is done. */
    _Atomic bool lost;
    _Atomic bool released;
    /* The control thread says so: it is to get nothing new. */
    _Atomic bool rests;
    /* The lcore says so: the worker reads nothing. */
    _Atomic bool stalled;
    /* The lcore. */
    struct port_shm *shm;
    struct ring_end to_worker;
    struct ring_end to_node;
    bool pushed;    /* something to wake the worker for */
    uint32_t taken; /* new requests since the load word below was read */
    uint64_t taken_word;
    uint64_t taken_ns;
    uint32_t stall_tail;  /* how far the worker had read ... */
    uint64_t stall_ns;    /* ... when it last read on, or had read all */
    uint32_t lost_cursor; /* how far its open requests have been told of its loss */
    struct inflight inflight;
};

/* Reads a worker's hello from a connected, non-blocking socket and answers it with memory, rings
 * and wake descriptors. On success the port owns `socket_fd`. Returns 0, -EAGAIN (no hello yet),
 * -EPROTO, -EINVAL (names that no mesh takes), -EPIPE (closed), or another -errno. */
int port_open(struct port **port, int socket_fd, const struct port_self *self);

/* Unmaps, closes, frees. NULL is fine. */
void port_destroy(struct port *port);

/* ---- the lcore's side ---- */

/* Copies a datagram into the worker's ring. False: it is full. */
bool port_push(struct port *port, const void *datagram, uint32_t len);

/* Wakes the worker if it sleeps and something was pushed. */
void port_flush(struct port *port);

/* Copies the worker's next datagram out. Returns its length, 0 if there is none. A length beyond
 * `max` or below a common header is returned as 1: garbage to be counted. */
uint32_t port_pop(struct port *port, void *out, uint32_t max);

/* Does the worker read what it gets? If not for PORT_STALL_NS it counts as stalled (frozen, or
 * computing on the thread that should read) until it reads on. To be called before anything is
 * pushed, and now and then. */
#define PORT_STALL_NS UINT64_C(300000000)
bool port_stalled(struct port *port, uint64_t now_ns);

/* The load as the worker last published it; no room while it is stalled; that of one that drains
 * while it rests. */
struct port_load port_load_now(const struct port *port);
/* Its room whatever the node makes of it. */
uint16_t port_room_told(const struct port *port);

/* Does it say that it takes nothing new any more? */
static inline bool port_drains(const struct port *port)
{
    struct port_load load = port_load_now(port);
    return WEFT_DRAINS(load.room, load.queue_us);
}

/* Does it say that it can do that (enum weft_can)? */
static inline bool port_can(const struct port *port, uint32_t what)
{
    return (atomic_load_explicit(&port->shm->can, memory_order_relaxed) & what) == what;
}

/* Its measured speeds: as last published, or as it said when it attached. */
struct port_rates port_rates_now(const struct port *port);

/* What it says of how its model is served; for people. */
/* What it took last began with; the newest first, `max` at most. Returns how many. */
uint32_t port_prefixes_now(const struct port *port, uint64_t *prefixes, uint32_t max);

struct port_figures port_figures_now(const struct port *port);

/* May a new request go to the worker? Counts it if so. Until the worker publishes its room anew,
 * what was pushed counts against it, for PORT_TAKEN_NS at most. */
#define PORT_TAKEN_NS UINT64_C(20000000)
bool port_take(struct port *port, uint64_t now_ns);
