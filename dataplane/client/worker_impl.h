/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker_impl.h - the inside of weft_worker_t, shared by worker.c (rings, callbacks) and
 * worker_attach.c (handshake); nobody else includes it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/worker.h>

#include "dataplane/flow/serve.h"
#include "schemas/port.h"

#define WORKER_BATCH       64u   /* entries between two looks at the replies */
#define WORKER_ENTRIES_MAX 4096u /* per weft_worker_process() */

struct weft_worker {
    int epoll; /* socket and wake_own */
    int socket;
    int wake_own;
    int wake_node;
    struct port_shm *shm; /* shared with a process that is not trusted */
    size_t shm_bytes;     /* an older node has no place for prefixes there */
    uint64_t prefixes;    /* that it has been told */
    struct ring_end in;
    struct ring_end out;
    bool asleep;  /* the node was told to wake us */
    bool more;    /* entries were left in the ring */
    bool blocked; /* the node's ring is full */
    bool lost;    /* weftd has gone */
    uint64_t load_word;
    struct serve *serve;
    weft_worker_callbacks_t callbacks;
    uint32_t can; /* WEFT_CAN_* */
    weft_worker_node_t node;
    uint16_t held_len; /* a datagram taken from `serve` that found no place; 0 = none */
    uint8_t held[SERVE_OUT_MAX];
};

/* worker_attach.c: connects, shakes hands, maps; fills descriptors, rings, node. */
int worker_port_open(struct weft_worker *w, const char *socket_path,
                     const struct port_hello *hello);
void worker_port_close(struct weft_worker *w);
