/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serve.h - the worker's state machine for all its requests: reassembly, grants, at-most-once
 * start, reply streams kept until acknowledged. dataplane/client/worker.c drives it over a port,
 * the tests with a simulated network.
 *
 * Drive it so: serve_input() for each struct weft_req + payload (untrusted), serve_tick() when
 * serve_due_ns() has come, and after either serve_output() until it returns 0. Callbacks run inside
 * serve_input() and serve_tick(); they may emit to and finish any job, but not destroy the server.
 *
 * serve.c takes datagrams in, serve_job.c is the life of one request, serve_ask.c what it still
 * lacks, serve_out.c sends.
 * Threads: none; all times are of one monotonic clock given by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <weft/wire.h>
#include <weft/worker.h>

#include "dataplane/flow/cc.h"
#include "dataplane/flow/datagram.h"
#include "dataplane/flow/done_set.h"
#include "dataplane/flow/pmtu.h"
#include "dataplane/flow/reasm.h"
#include "dataplane/flow/rtt.h"
#include "dataplane/flow/table.h"
#include "dataplane/flow/timers.h"

#define SERVE_REQUESTS_MAX      16384u
#define SERVE_PARTIAL_BYTES_MAX (64u << 20)     /* of all requests not complete yet */
#define SERVE_REPLY_BYTES_MAX   (256u << 20)    /* of all replies not acknowledged yet */
#define SERVE_CONTROLS_MAX      4096u           /* answers waiting to be sent; a power of two */
#define SERVE_GIVE_UP_NS        (5 * NS_PER_S)  /* silence of an unfinished or finished exchange */
#define SERVE_CLIENT_GONE_NS    (10 * NS_PER_S) /* silence during a job */
#define SERVE_REORDER_SHARE     4u  /* a gap may close by itself for this part of an RTO */
#define SERVE_ASK_RANGES        32u /* gaps of a request asked for at a time */
#define SERVE_WAY_UNKNOWN_NS    (500 * NS_PER_MS) /* RTO floor of what answers the first GRANT */
#define SERVE_RETRY_MIN_US      1000u
#define SERVE_OUT_MAX           WEFT_DATAGRAM_MAX
#define SERVE_RESEND_BURST      (WEFT_UNSCHEDULED_MAX * WEFT_RSP_PAYLOAD_SAFE)

struct serve_ops {
    /* As in weft_worker_callbacks_t. */
    int (*on_job)(void *user, struct weft_job *job, const weft_job_view_t *view);
    void (*on_cancel)(void *user, struct weft_job *job);
    void *user;
};

struct serve_config {
    uint16_t node_id;
    uint8_t tier;
    char node_name[WEFT_NAME_MAX];
    char backend[WEFT_BACKEND_MAX];
    uint32_t arithmetic;        /* for the GRANT; 0 = not known */
    uint64_t seed;              /* secret key of the tables */
    uint32_t requests_max;      /* 0 = SERVE_REQUESTS_MAX */
    uint32_t partial_bytes_max; /* 0 = SERVE_PARTIAL_BYTES_MAX */
    uint32_t reply_bytes_max;   /* 0 = SERVE_REPLY_BYTES_MAX */
    const struct cc_ops *cc;    /* of requests on their way here; NULL = the default */
};

enum serve_state {
    SERVE_RECEIVING, /* request not complete */
    SERVE_RUNNING,   /* the runtime has it */
    SERVE_FINISHED,  /* DONE is in the reply; waits for the last ACK */
};

/* What a request lacks (serve_ask.c); times are TIMER_NEVER if nothing is waited for. */
struct serve_ask {
    uint32_t asked_to;  /* gaps before it have been asked for */
    uint32_t seen;      /* gaps between the two are asked for ... */
    uint64_t fresh_ns;  /* ... then */
    uint32_t round_to;  /* gaps before it have been asked for before the round began ... */
    uint32_t round_cum; /* ... when the first of them was here */
    uint64_t round_ns;  /* ... and again then, if they are still open */
    uint64_t quiet_ns;  /* without any gap: when the rest is asked for */
    uint32_t repeats;   /* in a row, of what does not come */
    uint32_t lost;      /* gaps before it are known to congestion control */
};

/* Reply bytes [base, end) kept; those before `acked` may go. */
struct serve_reply {
    uint8_t *data;
    uint32_t capacity;
    uint32_t base;
    uint32_t acked;
    uint32_t sent;
    uint32_t end;
    uint32_t credit;
    uint64_t sent_ns;         /* when the latest datagram went */
    struct reasm_range again; /* asked for by RESEND */
    struct pmtu pmtu;
};

struct weft_job {
    struct table_node node; /* first member: found by (conn_id, req_seq) */
    struct timer timer;
    TAILQ_ENTRY(weft_job) ready_link;
    bool ready;
    struct serve *serve;
    enum serve_state state;
    struct weft_req last; /* latest datagram's header: the way back */
    uint64_t heard_ns;    /* when it came */
    uint64_t deadline_ns; /* 0 = none */
    void *user;
    bool cancelled;      /* on_cancel was called */
    uint32_t last_token; /* emitted, or resumed behind */

    struct reasm body;
    struct cc cc;
    uint32_t granted;
    uint32_t granted_before; /* a byte from here on answers the GRANT ... */
    uint64_t granted_ns;     /* ... that went then; 0 = sampled */
    struct rtt rtt;
    struct serve_ask ask;
    weft_job_view_t view;
    weft_job_part_t *parts;

    struct serve_reply reply;
    uint32_t need_acks;
    uint64_t need_ack_ns; /* TIMER_NEVER until all was sent */
};

/* How the prompts taken last began (schemas/base/prefix.h), each once; at count % PREFIXES goes the
 * next. */
#define SERVE_PREFIXES 16u /* PORT_PREFIXES */
struct serve_prefixes {
    uint64_t count; /* ever put in */
    uint64_t at[SERVE_PREFIXES];
};

/* A short answer, ready to go. */
struct serve_control {
    struct weft_rsp rsp;
    uint8_t payload[SERVE_ASK_RANGES * sizeof(struct weft_range)];
    uint16_t len;
};

struct serve_stats {
    uint64_t malformed;     /* datagrams that fail a check */
    uint64_t controls_lost; /* answers for which there was no place */
    uint64_t jobs;          /* handed to the runtime */
    uint64_t refused;       /* answered REJECT */
    uint64_t resent;        /* RESP datagrams sent again */
    uint64_t gone;          /* clients that fell silent */
};

struct serve {
    struct serve_config config;
    struct serve_ops ops;
    struct table table;
    struct timers timers;
    struct done_set done;
    TAILQ_HEAD(serve_ready, weft_job) ready; /* have something to send, in turn */
    struct serve_control *controls;          /* ring */
    uint32_t controls_head;
    uint32_t controls_tail;
    weft_load_t load;
    uint32_t receiving; /* jobs in that state: each will take room */
    uint32_t started;   /* jobs begun since the load was set */
    uint64_t partial_bytes;
    uint64_t reply_bytes;
    struct serve_prefixes prefixes;
    struct serve_stats stats;
};

/* Heap; NULL if there is no memory. Load is all zero (no room) until serve_set_load(). */
struct serve *serve_create(const struct serve_config *config, const struct serve_ops *ops);
/* Frees jobs too, without callbacks. NULL is fine. */
void serve_destroy(struct serve *s);

void serve_input(struct serve *s, const uint8_t *data, size_t len, uint64_t now_ns);
void serve_tick(struct serve *s, uint64_t now_ns);
/* TIMER_NEVER if nothing is waited for. */
uint64_t serve_due_ns(const struct serve *s);
/* Writes the next datagram (struct weft_rsp + payload) into SERVE_OUT_MAX bytes; 0 = none. */
size_t serve_output(struct serve *s, uint64_t now_ns, uint8_t *out);
/* Would serve_output() have something? */
static inline bool serve_pending(const struct serve *s)
{
    return s->controls_tail != s->controls_head || !TAILQ_EMPTY(&s->ready);
}

/* Jobs that were begun and are not over: running, or finished and not acknowledged. */
static inline size_t serve_open_jobs(const struct serve *s)
{
    return s->table.count - s->receiving;
}

void serve_set_load(struct serve *s, const weft_load_t *load);
/* Requests it would still take, those on their way subtracted. */
uint16_t serve_room(const struct serve *s);
/* Free memory as the wire's load word has it. */
uint16_t serve_free_vram(const struct serve *s);

/* As weft_job_emit(), weft_job_embedding(), weft_job_logprobs() and weft_job_finish(). */
int serve_job_emit(struct weft_job *job, uint32_t token, const char *text, size_t len);
int serve_job_embedding(struct weft_job *job, const float *values, size_t count);
int serve_job_logprobs(struct weft_job *job, const weft_logprob_t *list, size_t count);
void serve_job_finish(struct weft_job *job, const weft_job_report_t *report);
