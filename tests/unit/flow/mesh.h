/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mesh.h - a whole mesh in virtual time: a client with its streams (stream.h, request.h), nodes
 * that choose and relay, workers (serve.h) with a toy runtime, a network that loses, repeats and
 * reorders, and faults at a token of the seed's choice. Used by test_mesh.c. mesh.c is the network
 * and the clock, mesh_node.c nodes and workers, mesh_client.c the client's shell, mesh_fault.c what
 * goes wrong. Everything follows from the seed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/flow/request.h"
#include "dataplane/flow/serve.h"
#include "dataplane/flow/stream.h"
#include "schemas/base/rng.h"

#define MESH_NODES_MAX    6u
#define MESH_STREAMS_MAX  8u
#define MESH_PATHS_MAX    3u
#define MESH_FAULTS_MAX   3u
#define MESH_SLOTS        4u /* jobs a worker runs at the same time */
#define MESH_CLIENT       MESH_NODES_MAX
#define MESH_ENDS         (MESH_NODES_MAX + 1)
#define MESH_INFLIGHT_MAX 512u
#define MESH_RING_MAX     256u /* datagrams a frozen worker's ring holds */
#define MESH_NEVER        UINT64_MAX

enum mesh_fault_kind {
    MESH_HEALTHY,
    MESH_DIES,         /* the worker; its node tells all clients */
    MESH_DIES_UNTOLD,  /* worker and node start anew and know nothing */
    MESH_FREEZES,      /* the worker, until all is over */
    MESH_NAPS,         /* ... for a while; then it goes on as if nothing had been */
    MESH_STALLS,       /* the model stands still, the worker answers */
    MESH_PAUSES,       /* ... for a while */
    MESH_CUT_SERVER,   /* between the node asked and the node that serves */
    MESH_CUT_CLIENT,   /* between the client and the node asked */
    MESH_GARBLES,      /* the worker writes malformed frames from now on */
    MESH_MISCOUNTS,    /* its account is wrong */
    MESH_INGRESS_DIES, /* the node asked */
    MESH_ADDRESS,      /* the client has another address from now on */
    MESH_MTU,          /* large datagrams vanish on one link */
    MESH_FAULT_KINDS,
};

struct mesh_fault {
    enum mesh_fault_kind kind;
    uint32_t token;   /* of stream 0: strikes when so many were delivered */
    uint64_t wait_ns; /* ... and this much later */
    uint64_t heal_ns; /* lasts so long; MESH_NEVER = until all streams have ended */
    uint32_t variant; /* kinds have ways */
    bool armed, struck, healed;
    uint64_t at_ns, heal_at_ns;
    uint32_t node, other; /* whom it struck */
};

struct mesh_config {
    uint64_t seed;
    uint32_t nodes, paths, streams;
    uint32_t loss_permille, dup_permille, flip_permille;
    uint64_t jitter_ns;
    uint32_t prompt_bytes;
    uint32_t tokens;      /* the model stops by itself behind so many ... */
    uint32_t max_tokens;  /* ... if it is allowed to */
    uint32_t token_bytes; /* at most, each */
    uint32_t prefill_steps;
    uint64_t step_ns;
    uint64_t cancel_ns; /* stream 1 is given up then; 0 = never */
    uint32_t fault_count;
    bool hedge, once;
    bool late_done;   /* the account comes a step behind the last token */
    bool net_refuses; /* a dead node's host says so */
    struct mesh_fault faults[MESH_FAULTS_MAX];
};

struct mesh_packet {
    uint64_t at_ns;
    uint64_t order;
    uint32_t from, to; /* node or MESH_CLIENT */
    uint32_t address;  /* of the client: source or destination */
    uint32_t len;
    uint8_t data[WEFT_DATAGRAM_MAX];
};

/* One job of the toy runtime. Token i follows from the prompt, the seed and all tokens before. */
struct mesh_run {
    struct weft_job *job; /* NULL: free */
    uint64_t hash;
    uint32_t at, until, total;
    uint32_t prefill;
    bool stop;
};

struct mesh_inflight {
    uint64_t conn_id;
    uint32_t req_seq;
    uint16_t origin, forwarded_to;
    bool open;
    struct weft_return ret;
};

struct mesh_pin {
    uint32_t req_seq; /* 0 = free; one client, so one conn_id */
    uint16_t node;
    uint16_t alternates[2];
};

struct mesh;

struct mesh_node {
    struct mesh *mesh;
    uint16_t id;
    bool alive, frozen, stalled, garbles, miscounts;
    uint32_t variant;
    uint64_t known_dead_ns; /* when the others know that it does not serve; MESH_NEVER */
    uint64_t secret;
    struct serve *serve; /* NULL: no worker */
    uint64_t step_due_ns, step_ns;
    uint32_t steps;
    struct mesh_run runs[MESH_SLOTS];
    uint8_t executed[MESH_INFLIGHT_MAX]; /* by req_seq */
    struct mesh_inflight inflight[MESH_INFLIGHT_MAX];
    uint32_t inflight_count;
    struct mesh_pin pins[MESH_INFLIGHT_MAX];
    struct mesh_packet *ring[MESH_RING_MAX];
    uint32_t ring_count;
};

struct mesh_stream;

struct mesh_attempt {
    struct mesh_attempt *next;
    struct mesh_stream *owner; /* NULL: given up */
    uint32_t index, path, req_seq;
    bool accepted, suspected;
    struct request core;
};

struct mesh_stream {
    struct mesh *mesh;
    struct stream core;
    struct mesh_attempt *attempts[STREAM_ATTEMPTS];
    struct weft_req_hdr hdr;
    uint8_t *body, *resumed;
    uint32_t body_len, resumed_len;
    bool following;
    char *expected; /* the uncut answer, and where its tokens end */
    uint32_t *ends;
    uint32_t total;
    uint32_t text_len;
    uint32_t delivered; /* tokens */
    uint32_t done;      /* calls */
    uint64_t ended_ns;
    weft_result_t result;
};

struct mesh_link {
    bool cut;
    uint32_t mtu; /* 0 = any */
};

struct mesh {
    struct mesh_config config;
    struct rng rng;
    uint64_t now_ns;
    struct mesh_packet **packets; /* heap by at_ns, order */
    uint32_t packet_count, packet_capacity;
    uint64_t order;
    struct mesh_link links[MESH_ENDS][MESH_ENDS]; /* from, to */
    struct mesh_node nodes[MESH_NODES_MAX];
    uint32_t address;
    struct request_conn conns[MESH_PATHS_MAX];
    struct stream_policy policy;
    struct mesh_stream streams[MESH_STREAMS_MAX];
    struct mesh_attempt *attempts;
    uint32_t next_seq;
    uint32_t open;
    uint64_t all_ended_ns; /* 0 = not yet */
    uint64_t sent_up, sent_down, attempts_made;
    uint64_t up_at_end, down_at_end; /* the same when all had ended */
    uint32_t executions;
    uint64_t tokens;   /* that workers have made */
    const char *wrong; /* what must never happen has happened */
};

struct mesh *mesh_create(const struct mesh_config *config);
void mesh_destroy(struct mesh *m);
/* Until nothing is under way any more, or the virtual limit. */
void mesh_play(struct mesh *m, uint64_t limit_ns);
const char *mesh_fault_name(enum mesh_fault_kind kind);

/* ---- between mesh*.c ---- */

/* mesh.c */
void mesh_send(struct mesh *m, uint32_t from, uint32_t to, uint32_t address, const uint8_t *data,
               size_t len);
void mesh_packet_free(struct mesh_packet *p);
void mesh_wrong(struct mesh *m, const char *what);
static inline uint64_t mesh_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* mesh_node.c; a node takes its packets over. */
void mesh_node_start(struct mesh *m, uint32_t node);
void mesh_node_stop(struct mesh *m, uint32_t node);
void mesh_node_input(struct mesh *m, uint32_t node, struct mesh_packet *p);
void mesh_node_tick(struct mesh_node *node);
uint64_t mesh_node_due_ns(const struct mesh_node *node);
void mesh_worker_start(struct mesh_node *node);
/* `told`: its node tells the clients. */
void mesh_worker_stop(struct mesh_node *node, bool told);
void mesh_worker_thaw(struct mesh_node *node);
uint32_t mesh_node_jobs(const struct mesh_node *node);
/* The answer to a prompt of `stream` as nobody cut it; fills `ends` (total entries). */
char *mesh_answer(const struct mesh_config *config, uint32_t stream, uint32_t *ends,
                  uint32_t *total);
uint32_t mesh_prompt(const struct mesh_config *config, uint32_t stream, char *out);

/* mesh_client.c */
void mesh_client_open(struct mesh *m, uint32_t stream);
void mesh_client_input(struct mesh *m, const struct mesh_packet *p);
void mesh_client_refused(struct mesh *m, uint32_t path);
void mesh_client_cancel(struct mesh *m, uint32_t stream);
void mesh_client_tick(struct mesh *m);
uint64_t mesh_client_due_ns(const struct mesh *m);
void mesh_client_close(struct mesh *m);

/* mesh_fault.c */
void mesh_faults_tick(struct mesh *m);
uint64_t mesh_faults_due_ns(const struct mesh *m);
/* Stream 0 has been given another token. */
void mesh_faults_token(struct mesh *m);
