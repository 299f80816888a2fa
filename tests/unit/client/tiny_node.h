/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tiny_node.h - the smallest node: one UDP socket, weftd's own end of the ports, cookies, and
 * return blocks, in one thread; and a runtime that answers each prompt with itself, in another.
 * Real sockets, rings and eventfds; used by test_client.c and test_worker.c.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/worker.h>

#include "dataplane/port/client_port.h"
#include "dataplane/port/port.h"
#include "schemas/base/rng.h"

#define TINY_JOBS_MAX    4096u
#define TINY_TOKEN_BYTES 7u
#define TINY_ADDRESS_MAX 80u

struct tiny_job {
    struct weft_job *job;
    char *text;
    size_t len;
    size_t at;
    bool stop;
};

struct tiny_node {
    int udp;
    uint16_t udp_port;
    int listener;
    char socket_path[64];
    struct port *port;
    struct client_port *client; /* the local client, one at a time */
    struct rng rng;
    pthread_t thread;
    pthread_t runtime;
    atomic_bool stop;
    atomic_bool mute;       /* drop everything, both ways */
    atomic_bool cut_port;   /* close the worker's port */
    atomic_bool cut_client; /* close the local client's */
    atomic_uint loss_permille;
    atomic_uint cookies; /* sent */
    /* The runtime. */
    weft_worker_t *worker;
    atomic_uint room;
    atomic_uint room_told; /* that the worker goes by */
    atomic_uint step_us;   /* pause between two steps */
    atomic_uint started;
    atomic_uint cancelled;
    atomic_int process_rc; /* what weft_worker_process() last said */
    atomic_bool runtime_stop;
    bool runtime_on;
    struct tiny_job jobs[TINY_JOBS_MAX];
    uint32_t job_count;
};

/* Starts the node's thread; with `runtime` also attaches and runs the worker. */
struct tiny_node *tiny_node_start(bool runtime);
void tiny_node_stop(struct tiny_node *n);
/* Returns once the worker has as much room. */
void tiny_node_room(struct tiny_node *n, uint32_t room);
/* "127.0.0.1:PORT", or "unix:PATH" for a local client. */
void tiny_node_address(const struct tiny_node *n, bool local, char out[TINY_ADDRESS_MAX]);
