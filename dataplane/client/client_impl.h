/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_impl.h - the inside of weft_client_t, shared by client.c (requests, time), client_io.c
 * (socket), ask.c (waiting) and query.c (queries to wire); nobody else includes it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <weft/client.h>

#include "dataplane/flow/prompt.h"
#include "dataplane/flow/request.h"
#include "dataplane/flow/table.h"
#include "dataplane/flow/timers.h"

#define CLIENT_OPEN_MAX     65536u
#define CLIENT_BATCH        64u
#define CLIENT_ROUNDS       32u       /* batches received per weft_client_process() */
#define CLIENT_SOCKET_BYTES (4 << 20) /* asked of the kernel; what it gives is enough too */

struct weft_request {
    struct table_node node; /* first member */
    struct timer timer;
    STAILQ_ENTRY(weft_request) ready_link;
    bool ready;
    bool reported; /* `done` was called; the worker may still be being told */
    struct weft_client *client;
    struct request core;
    weft_text_fn text;
    weft_done_fn done;
    void *user;
};

/* Datagrams on their way out; kept when the socket is full. */
struct client_outbox {
    uint32_t count;
    uint32_t sent;
    uint16_t len[CLIENT_BATCH];
    uint8_t data[CLIENT_BATCH][REQUEST_OUT_MAX];
};

struct client_inbox {
    struct mmsghdr msgs[CLIENT_BATCH];
    struct iovec iov[CLIENT_BATCH];
    uint8_t data[CLIENT_BATCH][WEFT_DATAGRAM_MAX];
};

struct weft_client {
    int epoll; /* socket and wake */
    int socket;
    int wake; /* eventfd of weft_ask_interrupt() */
    atomic_bool interrupted;
    bool asking;     /* weft_ask() runs */
    bool processing; /* callbacks run: submit must not send by itself */
    bool blocked;    /* socket full */
    bool refused;    /* nobody listens at the node */
    uint32_t next_seq;
    struct table table;
    struct timers timers;
    STAILQ_HEAD(client_ready, weft_request) ready;
    struct request_conn conn;
    struct client_outbox outbox;
    struct client_inbox inbox;
};

/* query.c: 0, -EINVAL, -E2BIG or -ENOMEM. `*body` is the caller's. */
int query_encode(const weft_query_t *query, struct weft_req_hdr *hdr, uint8_t **body,
                 uint32_t *body_len);

/* client.c */
void client_step(struct weft_request *req, uint64_t now_ns);
void client_settle(struct weft_request *req);

/* ask.c: forgets an interrupt. */
void client_interrupt_clear(struct weft_client *c);

/* client_io.c */
int client_io_open(struct weft_client *c, const char *node);
void client_io_close(struct weft_client *c);
/* Receives and hands out what has come. */
void client_io_receive(struct weft_client *c, uint64_t now_ns);
/* Sends what the ready requests have to say, until none has or the socket is full. */
void client_io_flush(struct weft_client *c, uint64_t now_ns);
