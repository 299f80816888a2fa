/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gateway.h - the inside of weft-gateway, shared by loop.c (waiting), server.c (HTTP), routes.c
 * (which path does what), exchange.c (asking the mesh); ../gateway.c is the program. One thread has
 * all of it.
 *
 * An exchange is one HTTP request and its response. Its way:
 *
 *   READING --body whole--> ASKING --first text, or the end--> SENDING --all sent--> gone
 *                  \--needs the census--> COUNTING --/
 *
 * While there is nothing to send its connection is suspended: the HTTP library does not look at it,
 * and nothing is polled. The SDK's callbacks and the census wake it. A suspended connection's end
 * would go unnoticed, so the loop watches each connection for its peer's end by itself.
 */
#pragma once

#include <microhttpd.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <weft/client.h>

#include "dataplane/gateway/api.h"
#include "dataplane/gateway/cascade.h"
#include "dataplane/gateway/census.h"
#include "dataplane/gateway/components_io.h"
#include "dataplane/gateway/dashboard.h"
#include "dataplane/gateway/figures.h"
#include "dataplane/gateway/keys.h"
#include "dataplane/gateway/live_io.h"
#include "dataplane/gateway/peers_io.h"
#include "dataplane/gateway/realtime_io.h"
#include "dataplane/gateway/reply.h"
#include "dataplane/gateway/scan.h"
#include "dataplane/gateway/trace_io.h"
#include "schemas/base/rng.h"

#define GATEWAY_BODY_MAX     (16u << 20)
#define GATEWAY_HOLD_BYTES   (256u << 10) /* unsent bytes of a reply at which the mesh waits */
#define GATEWAY_UNHOLD_BYTES (64u << 10)
#define GATEWAY_CALLS_MAX    API_CHOICES_MAX /* of one exchange at a time */
#define GATEWAY_TAIL_MAX     128u

/* What an entry of the loop's epoll set is. */
enum watch_kind {
    WATCH_CLIENT,
    WATCH_HTTP,
    WATCH_CENSUS,
    WATCH_JOIN,
    WATCH_SIGNAL,
    WATCH_PEER,
    WATCH_REALTIME
};
struct watch {
    enum watch_kind kind;
};

/* A client's connection. */
struct peer {
    struct watch watch; /* first member */
    struct gateway *gateway;
    struct exchange *exchange; /* NULL between two requests */
    int fd;
    bool gone; /* it has closed its side */
};

enum exchange_state { EXCHANGE_READING, EXCHANGE_COUNTING, EXCHANGE_ASKING, EXCHANGE_SENDING };

/* One answer asked of the mesh. */
struct call {
    struct exchange *exchange;
    weft_request_t *request; /* NULL: over */
    uint32_t index;
    const char *model; /* that was asked */
    uint64_t asked_ns;
    uint64_t span; /* id of its part of the trace */
};

/* The second model of a cascade; the exchange's first call is the better one's, its second this. */
struct draft {
    struct cascade cascade;
    struct api_request request; /* parts of the exchange's own */
    struct reply reply;         /* of whoever has not been taken */
};

struct exchange {
    LIST_ENTRY(exchange) link;
    struct gateway *gateway;
    struct peer *peer;                 /* NULL: the connection is gone, calls are not yet */
    struct MHD_Connection *connection; /* the same */
    const struct route *route;         /* NULL: there is no such path */
    enum exchange_state state;
    bool suspended;
    bool head;      /* the method is HEAD: no body */
    bool preflight; /* OPTIONS, from a page */
    char method[8];
    char path[128];              /* for the log; cut */
    char tail[GATEWAY_TAIL_MAX]; /* what follows the route's path */
    char allow[32];              /* methods that the path has, when it was asked with another */
    char id[32];
    struct buf body;
    uint64_t body_bytes; /* that came, kept or not */
    struct scan scan;
    struct api_request request;
    struct reply reply; /* of inference */
    bool inference;     /* `request` and `reply` are in use */
    bool held;
    bool turning;            /* what was asked is given up: the next model comes */
    uint32_t downgraded;     /* models that were refused, or too late */
    const char *asked_model; /* by the client */
    struct draft *draft;     /* heap; NULL: one model is asked */
    struct call *calls;      /* heap; NULL before they are made */
    uint32_t next;           /* of them to be submitted */
    uint32_t live;           /* calls not over */
    int status;              /* HTTP, once decided */
    const char *content_type;
    struct buf answer; /* of everything but inference */
    struct api_error error;
    uint64_t began_ns; /* first line of the request */
    uint64_t asked_ns; /* given to the mesh */
    uint64_t first_ns; /* first text; 0 = none */
    uint64_t sent_bytes;
    const char *key;                   /* name of the API key; NULL = none */
    uint32_t scopes;                   /* KEYS_* that it has */
    const struct dashboard_file *file; /* the answer is a page of the dashboard; else NULL */
    struct live_viewer viewer;
    struct exchange_trace trace;
    struct components *components; /* stages at different nodes; else NULL */
    struct realtime_io *realtime;  /* it becomes, or is, a WebSocket; else NULL */
};

struct otlp_io;

struct gateway_options {
    const char *node;
    const char *listen;   /* [ADDRESS:]PORT */
    const char *admin;    /* NULL = none */
    const char *models;   /* names with commas; NULL = none */
    const char *state;    /* folder of what shall outlive the program; NULL = nothing shall */
    const char *keys;     /* file; NULL = everybody may ask */
    const char *tls_cert; /* chain, PEM; NULL = plain HTTP */
    const char *tls_key;
    const char *cors;  /* origin; NULL = no pages from elsewhere */
    const char *otlp;  /* where traces go; NULL = nowhere */
    double otlp_ratio; /* of traces that begin here, so many */
    uint32_t default_max_tokens;
    uint32_t connections_max;
    bool components; /* the experiment is on */
    bool quiet;      /* no line for each request */
};

struct gateway {
    struct gateway_options options;
    weft_client_t *client;
    struct MHD_Daemon *http;
    struct census census;
    struct keys keys;
    struct figures figures;
    struct live_io live;
    struct otlp_io *otlp; /* NULL = traces go nowhere */
    struct peers_io peers;
    /* Answers a question to /v1/route from the node's status; NULL with the error set. */
    /* Can a worker hold an answer to what the query's format says? NULL: it is not asked. */
    bool (*check_format)(const weft_query_t *query, struct api_error *error);
    json_t *(*dry_run)(const json_t *question, const json_t *status, struct api_error *error);
    struct rng rng;
    int epoll;
    int listen_fd;
    bool misplaced; /* nobody can listen where it was told to */
    int signals;
    struct watch watches[WATCH_SIGNAL + 1];
    LIST_HEAD(exchanges, exchange) exchanges;
    struct realtimes realtimes;
    uint64_t realtime_ns; /* when to look at these */
    bool http_due;        /* a connection was resumed: the library has to run */
    bool counting;        /* an exchange waits for the census, or did */
    bool stopping;        /* no new requests */
    uint64_t stop_ns;     /* then those that are left are ended */
    uint64_t started_s;   /* Unix time */
};

/* ---- loop.c ---- */
int gateway_loop_watch(struct gateway *g, enum watch_kind kind, int fd);
/* Until a signal has come and what was under way is over, or took too long. */
void gateway_loop_run(struct gateway *g);

/* ---- server.c: HTTP ---- */
int server_start(struct gateway *g);
void server_stop(struct gateway *g);
/* Runs the library: accepts, reads, writes, calls exchange_*(). */
void server_run(struct gateway *g);
/* Milliseconds until it wants to run; -1 = never. */
int server_timeout_ms(struct gateway *g);
/* The exchange has something to say or to look at. */
void server_wake(struct exchange *x);
/* A header of the request; NULL = it has none. */
const char *server_header(const struct exchange *x, const char *name);
/* Each of the headers of that name, in the order in which they came. */
typedef void (*server_header_fn)(void *user, const char *value, size_t len);
void server_headers(const struct exchange *x, const char *name, server_header_fn each, void *user);

/* ---- routes.c ---- */
struct route {
    const char *method;
    const char *path;
    bool tail;   /* something follows the path */
    bool open;   /* needs no key */
    bool census; /* handle() wants it fresh */
    /* The request is whole: answers, or begins to ask. */
    void (*handle)(struct exchange *x);
};
/* Sets route and tail, or returns false with the error set. */
bool route_find(struct exchange *x, const char *method, const char *target);
/* All but inference goes through these. */
void exchange_answer(struct exchange *x, int status, const char *content_type);
void exchange_refuse(struct exchange *x, const struct api_error *error);
/* Whoever can be asked was asked and has answered; else false, and refused. */
bool exchange_census(struct exchange *x);

/* ---- exchange.c: asking the mesh ---- */
/* Reads a body of that kind and the headers into `request`, complete with what the client left
 * open; api_deinit() it. False: the error is set. */
bool exchange_read(struct exchange *x, enum api_kind kind, const char *body, size_t len);
/* Reads the body as a request of that kind and sends it to the mesh, or refuses it. */
void exchange_ask(struct exchange *x, enum api_kind kind);
/* The client is gone, or does not want it any more. */
void exchange_cancel(struct exchange *x);
/* Bytes were sent: the mesh may go on. */
void exchange_drained(struct exchange *x);
/* Connection and calls are both over. */
void exchange_free(struct exchange *x);
