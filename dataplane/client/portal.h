/* SPDX-License-Identifier: Apache-2.0 */
/*
 * portal.h - the client's end of a port of its own node (schemas/port.h;
 * dataplane/port/client_port.c is the other): shared rings in place of a UDP socket. Used by
 * client_io.c, which decides when to attach again after the node has gone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "schemas/port.h"

#define PORTAL_PREFIX   "unix:" /* what a node's name then begins with */
#define PORTAL_PATH_MAX sizeof(((struct sockaddr_un *)0)->sun_path)

enum portal_state {
    PORTAL_CLOSED,
    PORTAL_GREETING, /* hello is said, no answer yet */
    PORTAL_OPEN,
};

struct portal {
    char path[PORTAL_PATH_MAX];
    enum portal_state state;
    int socket; /* to wait on: an answer, a wake-up, the end. -1 = closed */
    int wake_node;
    struct port_client_shm *shm; /* shared with a process that is not trusted */
    struct ring_end in;
    struct ring_end out;
    bool asleep;       /* the node was told to wake us */
    bool more;         /* entries were left in the ring */
    bool pushed;       /* something to wake the node for */
    uint32_t wakes;    /* sent by the node, not read yet */
    uint64_t since_ns; /* of GREETING; of CLOSED when it may be tried again */
};

/* `name` with its prefix. Closed. Returns 0 or -EINVAL. */
int portal_init(struct portal *p, const char *name);
void portal_close(struct portal *p);

/* Says hello. Returns 0, now GREETING, or -errno. */
int portal_begin(struct portal *p);
/* Looks for the answer. Returns 0 (now OPEN), -EAGAIN, or what has closed it again (attach.h). */
int portal_greeted(struct portal *p);

/* The rest while OPEN. */
/* False: the ring is full. */
bool portal_push(struct portal *p, const void *datagram, uint32_t len);
/* After pushing. */
void portal_wake(struct portal *p);
/* Before popping: awake again. */
void portal_rouse(struct portal *p);
/* The next datagram, of `max` bytes at most; its length, 0 = none. What is too long comes as 1. */
uint32_t portal_pop(struct portal *p, void *out, uint32_t max);
/* Reads the socket if that has something to say; closes when the node has gone. */
void portal_look(struct portal *p);
/* All is done: the socket becomes readable when something comes. */
void portal_rest(struct portal *p);
