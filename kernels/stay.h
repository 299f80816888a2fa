/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stay.h - what the programs that serve a node have in common (worker.c, upstream.c): they attach
 * to its port socket, once for each model, attach again when the node has gone, and stay until a
 * signal tells them to stop. The first SIGTERM or SIGINT lets what is open end, until the clients
 * have all of it, for 30 seconds at most; the second ends at once.
 *
 * Threads: all of it belongs to the main thread. stay_catch_signals() comes before any other thread
 * is made: the signals are blocked everywhere but where stay_wait() sleeps.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/worker.h>

#define STAY_PORTS_MAX 8u  /* as many as a node takes: schemas/port.h */
#define STAY_FDS_MAX   16u /* of the program's own */

struct stay;

/* What the program does; all but `timeout_ms` are needed. */
struct stay_ops {
    /* weft_worker_attach() with the facts of port `index`; its result. */
    int (*attach)(void *user, uint32_t index, weft_worker_t **port);
    /* The port is about to be destroyed, and its jobs with it: forget them, tell nobody. */
    void (*detach)(void *user, uint32_t index);
    /* Takes what has come and publishes loads. Before and after the ports are processed. */
    void (*work)(void *user);
    /* Nothing open. */
    bool (*is_idle)(void *user);
    /* Milliseconds until work() must be called even if nothing comes; -1 = never. May be NULL. */
    int (*timeout_ms)(void *user);
    /* Descriptors that wake it; returns how many, STAY_FDS_MAX at most. */
    size_t (*fds)(void *user, struct pollfd *out);
    void *user;
};

struct stay_port {
    weft_worker_t *port; /* NULL: not attached */
    const char *model;   /* for people; NULL: no port is wanted here (yet) */
    uint64_t due_ns;     /* the next attempt */
    uint32_t retry_ms;   /* pause before the one after that */
    int last;            /* what the last attempt gave */
};

struct stay {
    const char *socket_path;
    const struct stay_ops *ops;
    uint32_t count;
    struct stay_port ports[STAY_PORTS_MAX]; /* zero but `model` */
    bool draining;
    uint64_t drain_begin_ns;
};

void stay_catch_signals(void);

/* Serves until told to stop. All ports are destroyed when it returns. */
void stay_run(struct stay *stay);

/* Closes a port; its jobs are forgotten. Its place is free then. */
void stay_close(struct stay *stay, uint32_t index);

/* Works without any port for so long, or until `until` (may be NULL) or a signal says so. */
void stay_pause(struct stay *stay, uint32_t ms, bool (*until)(void *user));
