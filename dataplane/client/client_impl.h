/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_impl.h - the inside of weft_client_t, shared by client.c (requests, callbacks, time),
 * attempt.c (the attempts of a request), client_io.c (sockets and rings), ask.c (waiting) and
 * query.c (queries to wire); nobody else includes it.
 *
 * A weft_request_t is one answer for the user: its decisions are dataplane/flow/stream.h. It owns
 * up to two live attempts; an attempt is one request on the wire (dataplane/flow/request.h). One
 * that has been given up lives on alone until its worker has been told.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <weft/client.h>

#include "dataplane/client/portal.h"
#include "dataplane/flow/prompt.h"
#include "dataplane/flow/request.h"
#include "dataplane/flow/stream.h"
#include "dataplane/flow/table.h"
#include "dataplane/flow/timers.h"

#define CLIENT_OPEN_MAX     65536u
#define CLIENT_ATTEMPTS_MAX (2 * CLIENT_OPEN_MAX)
#define CLIENT_PATHS_MAX    8u /* nodes it knows to ask */
#define CLIENT_BATCH        64u
#define CLIENT_ROUNDS       32u              /* batches received per weft_client_process() */
#define CLIENT_LATE_NS      (20 * NS_PER_MS) /* a call so much too late is the caller's own pause */
#define CLIENT_RETRY_NS     (200 * NS_PER_MS) /* between two tries to attach again */
#define CLIENT_SOCKET_BYTES (4 << 20)         /* asked of the kernel; what it gives is enough too */

/* Where in the heap of timers a due entry belongs. */
struct client_timer {
    struct timer timer; /* first member */
    bool is_attempt;
};

struct client_attempt {
    struct table_node node; /* first member */
    struct client_timer timer;
    STAILQ_ENTRY(client_attempt) ready_link;
    bool ready;
    bool accepted;  /* the stream has been told */
    bool suspected; /* the same */
    struct weft_client *client;
    struct client_path *path;
    struct weft_request *owner; /* NULL: given up */
    uint32_t index;             /* of the owner's attempts */
    struct request core;
};

struct weft_request {
    struct weft_client *client;
    struct client_timer timer;
    LIST_ENTRY(weft_request) open_link;
    struct client_attempt *attempts[STREAM_ATTEMPTS];
    struct stream stream;
    struct weft_req_hdr hdr; /* of each attempt, but for its number */
    uint8_t *body;           /* as written first */
    uint8_t *resumed;        /* the same behind tokens that were given; NULL = none yet */
    uint32_t body_len, resumed_len;
    uint64_t prefix;      /* how the prompt begins */
    uint64_t deadline_ns; /* 0 = none */
    bool end_to_end;      /* the deadline is the last token's */
    bool held;            /* weft_hold() */
    bool following;       /* client_follow() runs */
    weft_text_fn text;
    weft_done_fn done;
    void *user;
    float *embedding; /* owned; NULL = none */
    uint32_t embedding_count;
    uint32_t logprob_count; /* of the text being delivered */
    weft_logprob_t logprobs[WEFT_LOGPROBS_MAX];
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
    /* Traffic class, time of arrival. A union aligns it. */
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct timespec))];
    } control[CLIENT_BATCH];
};

/* One node of the mesh to ask, and what was learnt there: through a connected socket, or through
 * rings shared with it. */
struct client_path {
    int socket;            /* -1: there is `portal` */
    struct portal *portal; /* NULL: there is `socket` */
    bool blocked;          /* socket or ring full */
    bool refused;          /* nobody listens there */
    STAILQ_HEAD(client_ready, client_attempt) ready;
    struct request_conn conn;
    struct client_outbox outbox;
};

/* Which node has served the last request of each session: told to whoever serves the next one, for
 * it may fetch from there what is known. Direct-mapped by session, a hash. */
#define CLIENT_HOMES 1024u /* a power of two */

struct client_homes {
    struct client_home {
        uint32_t session; /* 0 = empty */
        uint32_t model;
        uint32_t node; /* 1 + its id */
    } at[CLIENT_HOMES];
};

struct weft_client {
    int epoll; /* sockets and wake */
    int wake;  /* eventfd of weft_ask_interrupt() */
    atomic_bool interrupted;
    bool asking;           /* weft_ask() runs */
    bool processing;       /* callbacks run: submit must not send by itself */
    uint64_t processed_ns; /* end of the latest weft_client_process() */
    uint64_t arrived_ns;   /* arrival.h */
    uint32_t next_seq;
    uint32_t open; /* requests that have not been reported */
    LIST_HEAD(client_requests, weft_request) requests;
    struct table table; /* of attempts */
    struct timers timers;
    struct stream_policy policy;
    uint32_t path_count;
    struct client_path *paths;
    struct client_homes homes;
    struct client_inbox inbox;
};

/* query.c: 0, -EINVAL, -E2BIG or -ENOMEM. `*body` is the caller's. */
int query_encode(const weft_query_t *query, const struct client_homes *homes,
                 struct weft_req_hdr *hdr, uint8_t **body, uint32_t *body_len);

static inline uint32_t homes_find(const struct client_homes *homes, uint32_t session,
                                  uint32_t model)
{
    const struct client_home *home = &homes->at[session & (CLIENT_HOMES - 1)];
    return session != 0 && home->session == session && home->model == model ? home->node : 0;
}

static inline void homes_note(struct client_homes *homes, uint32_t session, uint32_t model,
                              uint16_t node)
{
    if (session != 0 && node != WEFT_NODE_NONE) {
        homes->at[session & (CLIENT_HOMES - 1)] =
            (struct client_home){session, model, node + UINT32_C(1)};
    }
}

/* client.c: carries out what the stream orders, reports its end, sets its timer. May free `req`. */
void client_follow(struct weft_request *req, uint64_t now_ns);
/* A random number of `len` bytes. Returns 0 or -EIO. */
int client_random(void *out, size_t len);

/* attempt.c */
/* Opens an attempt of the request as ordered. Returns 0, or the status that it has ended with. */
int attempt_start(struct weft_request *req, const struct stream_order *order, uint64_t now_ns);
/* After any input: tokens to the stream, then into the queue of those that may have to send. */
void attempt_step(struct client_attempt *a, uint64_t now_ns);
/* The request no longer wants it: its worker is told in the background. */
void attempt_give_up(struct client_attempt *a, uint64_t now_ns);
/* All was sent: sleep until the next deadline, or go. */
void attempt_settle(struct client_attempt *a);
void attempt_free(struct client_attempt *a);

/* ask.c: forgets an interrupt. */
void client_interrupt_clear(struct weft_client *c);

/* client_io.c */
int client_io_open(struct weft_client *c, const char *nodes);
void client_io_close(struct weft_client *c);
/* Receives and hands out what has come. */
void client_io_receive(struct weft_client *c, uint64_t now_ns);
/* Sends what the ready attempts have to say, until none has or the sockets are full. */
void client_io_flush(struct weft_client *c, uint64_t now_ns);
/* Before waiting: from now on what comes through a ring makes the client's descriptor readable. */
void client_io_rest(struct weft_client *c);
