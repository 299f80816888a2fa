/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.h - the client's state machine for one request, from the first fragment to the last
 * acknowledgement. dataplane/client drives it with sockets, the tests with a simulated network.
 *
 * Drive it so: request_input() for each datagram of this request and request_tick() when
 * request_due_ns() has come; after either, request_event() until it returns false (texts in
 * order), then request_output() until it returns 0. `ended` says that `result` is final;
 * request_closed() that the machine may be freed. Every path ends: by DONE, a refusal, silence
 * (connect_tries, the bounds below), the budget, or a second after CANCEL.
 *
 * A worker that has accepted is given up when
 * - nothing at all is heard from it for 150 ms or six round-trip timeouts after a probe, which goes
 *   out after a silence of 50 ms, twice the usual time between tokens or a round-trip timeout,
 *   whichever is longest (frozen, cut off);
 * - it answers probes and says that its model has not taken a step for ten times the usual time
 * between tokens, 200 ms at least, five seconds before that time is known (stuck);
 * - its model works but this answer gets nothing for a hundred times the usual, five seconds at
 *   least (forgotten).
 * Before the first of these, when a probe has not been answered for a round-trip timeout and
 * nothing was heard for 200 ms, it is `suspect`: somebody else may begin to go on.
 *
 * Where the GRANT named no alternate and no other node could be asked, the first two bounds are
 * four seconds at least: nobody could go on. Whatever the estimates say, `stall_ns` of silence is
 * the end.
 *
 * Threads: none; all times are of one monotonic clock given by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "dataplane/flow/cc.h"
#include "dataplane/flow/datagram.h"
#include "dataplane/flow/pmtu.h"
#include "dataplane/flow/reasm.h"
#include "dataplane/flow/rtt.h"

#define REQUEST_OPEN_RTO_NS                                                                        \
    (200 * NS_PER_MS) /* floor before the GRANT: a worker may be computing */
#define REQUEST_QUIET_NS           (50 * NS_PER_MS) /* floor of the silence before a probe */
#define REQUEST_QUIET_MAX_NS       NS_PER_S
#define REQUEST_QUIET_DOUBLINGS    4u
#define REQUEST_SILENT_NS          (150 * NS_PER_MS) /* floor of probes without an answer */
#define REQUEST_SILENT_RTOS        6u
#define REQUEST_SUSPECT_NS         (200 * NS_PER_MS) /* floor of what makes suspicious */
#define REQUEST_ALONE_NS           (4 * NS_PER_S) /* floor of both where nobody else could go on */
#define REQUEST_STUCK_NS           (200 * NS_PER_MS)
#define REQUEST_STUCK_FIRST_NS     (5 * NS_PER_S)
#define REQUEST_STUCK_GAPS         10u
#define REQUEST_FORGOTTEN_NS       (5 * NS_PER_S)
#define REQUEST_FORGOTTEN_FIRST_NS (30 * NS_PER_S) /* before the usual time is known */
#define REQUEST_FORGOTTEN_GAPS     100u
#define REQUEST_FORGIVEN_NS        (30 * NS_PER_S) /* most of one's own pauses between fresh data */
#define REQUEST_ACK_DELAY_NS       (20 * NS_PER_MS)
#define REQUEST_ACK_EVERY          16u /* datagrams */
#define REQUEST_CANCEL_NS          NS_PER_S
#define REQUEST_COOKIES_MAX        4u /* restarts for a new cookie before they count as silence */
#define REQUEST_TOMBS              1024u /* a power of two */
#define REQUEST_TRIES_AGAIN        3u    /* of an attempt after a lost one */
#define REQUEST_PEERS              64u   /* a power of two */
#define REQUEST_TRIES              5u
#define REQUEST_STALL_NS           (5 * NS_PER_S)
#define REQUEST_LACKS              64u /* gaps of the request to be filled at a time */
#define REQUEST_HELD_ACK_NS        (2 * NS_PER_S)
#define REQUEST_OUT_MAX            WEFT_DATAGRAM_MAX

/* What is left of a closed request: enough to answer what still arrives for it. */
struct request_tomb {
    struct weft_req_hdr hdr; /* conn_id 0 = empty */
    uint32_t cum;
    bool complete; /* answer ACK, else CANCEL */
};

/* What is known of a serving node through one connection: its requests share what they hear of it,
 * and only one of them asks whether it is still there. */
struct request_peer {
    uint16_t node;
    uint64_t heard_ns;
    uint64_t suspect_ns; /* first probe since then; 0 = none */
    uint64_t probed_ns;  /* latest one */
};

/* What the requests of one client share. */
struct request_conn {
    uint64_t conn_id;
    uint64_t cookie; /* 0 = none yet */
    uint64_t heard_ns;
    bool others; /* other nodes could be asked */
    struct rtt rtt;
    struct pmtu pmtu;        /* of requests */
    const struct cc_ops *cc; /* of replies; NULL = the default */
    uint32_t connect_tries;
    uint64_t stall_ns;
    struct request_peer peers[REQUEST_PEERS]; /* by node id, later ones overwrite */
    struct request_tomb tombs[REQUEST_TOMBS]; /* by req_seq, later ones overwrite */
};

enum request_state {
    REQUEST_OPENING,    /* no worker has answered */
    REQUEST_ACCEPTED,   /* `server` is known */
    REQUEST_CANCELLING, /* worker is being told to stop */
    REQUEST_CLOSED,
};

struct request {
    struct weft_req_hdr hdr; /* as filled by the caller; copied into each datagram */
    const uint8_t *body;     /* the caller's; NULL once the worker has it all */
    uint32_t body_len;
    uint64_t prefix; /* how the prompt begins, for the ingress; 0 = not told; set behind _init() */
    enum request_state state;
    bool ended;
    weft_result_t result; /* of this attempt; times of the whole answer are stream.h's */

    uint16_t wanted; /* node to ask for; WEFT_NODE_NONE = the mesh chooses ... */
    uint16_t avoid_count;
    uint16_t avoid[WEFT_AVOID_MAX]; /* ... if it can, none of these */
    uint16_t server;
    uint16_t alternates[2]; /* as the GRANT told */
    uint32_t arithmetic;    /* of the server, the same; 0 = not told */
    uint32_t prefers;       /* arithmetic to go on with, with `avoid`; 0 = any */
    uint16_t stray;         /* another node that answered: to be cancelled there */
    bool stray_due;
    uint64_t cookie_sent; /* in the latest fragment */
    uint32_t cookies;     /* restarts for a new one since the worker was heard */
    uint32_t tries;       /* datagrams in a row without an answer while opening ... */
    uint32_t tries_max;   /* ... and how many are too many */
    uint64_t try_ns;      /* next try while opening; next CANCEL while cancelling */
    uint64_t sample_ns;   /* when the first fragment went, if only once */
    bool first_due;       /* first fragment to be sent again */
    uint32_t sent_to;     /* fragments before it were sent */
    uint32_t granted;
    struct reasm_range lacks[REQUEST_LACKS]; /* what the worker asked for again, one by one */
    uint32_t lacks_count;
    uint32_t lacked; /* the furthest that it has asked for */

    bool held;        /* the user reads nothing for now: no texts, no further credit */
    uint32_t resumed; /* tokens of earlier attempts: the account includes them */
    struct reasm reply;
    uint32_t parsed;     /* frames before it were handed out */
    uint32_t last_token; /* handed out, or resumed behind */
    float *embedding;    /* owned; NULL = none has come */
    uint32_t embedding_count;
    struct cc cc;
    uint32_t credit;
    uint32_t credit_before;   /* the byte here answers the credit ... */
    uint64_t credit_ns;       /* ... that went then; 0 = sampled */
    uint32_t unacked;         /* RESPs since the last ACK */
    uint64_t ack_ns;          /* when an ACK is due; UINT64_MAX = none */
    uint32_t lost;            /* gaps before it are known to congestion control */
    struct reasm_range asked; /* RESEND outstanding if end > cum */
    uint32_t asks;            /* repeats of it */
    uint64_t ask_ns;          /* when to repeat it */
    bool ask_due;
    uint64_t life_ns;     /* last datagram that came */
    uint64_t forgiven_ns; /* of one's own pauses, since the last fresh one */
    uint64_t probe_ns;    /* next sign of life asked for */
    uint32_t probes;      /* in a row without an answer */
    uint64_t probed_ns;   /* when the first of them went */
    bool suspect;         /* see above; until it is heard again */
    uint32_t idle;        /* answers to probes in a row that were no data */
    bool probe_due;
    struct rtt pace;   /* time between fresh datagrams of the reply */
    uint64_t fresh_ns; /* last of them; 0 = none yet */
    uint64_t step_ns;  /* last sign that the model works */
    uint32_t steps;    /* its count then */

    uint64_t start_ns;
    uint64_t deadline_ns; /* 0 = none */
    uint64_t cancel_end_ns;
    bool cancel_due;
};

/* One piece of the answer. */
struct request_text {
    uint32_t token;
    bool continued;   /* the same token as before */
    bool partial;     /* as long as a piece can be: more of the token may follow */
    const char *data; /* until the next call for this request */
    size_t len;
    const uint8_t *logprobs; /* rows of struct weft_logprob_entry, checked; NULL = none */
    uint32_t logprobs_len;
};

/* Zero tries or stall means the default. */
void request_conn_init(struct request_conn *conn, uint64_t conn_id, uint32_t connect_tries,
                       uint64_t stall_ns);

/* The caller itself was away for so long, until now: it cannot tell whether anybody was silent
 * meanwhile. Call the first one for the connection, the second one for each of its requests. Who is
 * always late still comes to an end: between fresh data REQUEST_FORGIVEN_NS at most are forgiven.
 */
void request_conn_late(struct request_conn *conn, uint64_t late_ns);
void request_late(struct request *r, uint64_t late_ns, uint64_t now_ns);

/*
 * Begins a request. Of `hdr` the caller fills req_seq, session, prio_mode, route block fields
 * (model, req_tags, vram, radius, x, y, tiers, want, max_tokens); the rest is set here. `body`
 * (prompt.h) must stay until request_forget_body(). `budget_ns` 0 = none. What node to ask for or
 * to avoid is set behind it.
 */
void request_init(struct request *r, const struct request_conn *conn,
                  const struct weft_req_hdr *hdr, const uint8_t *body, uint32_t body_len,
                  uint64_t budget_ns, uint64_t now_ns);
void request_deinit(struct request *r);

/* The body is about to go; only for a request that has ended or is being cancelled. */
static inline void request_forget_body(struct request *r)
{
    r->body = NULL;
}

/* A datagram that passed datagram_check() and carries this request's conn_id and req_seq. */
void request_input(struct request *r, struct request_conn *conn, const struct weft_rsp *rsp,
                   struct datagram_payload payload, uint64_t now_ns);
void request_tick(struct request *r, struct request_conn *conn, uint64_t now_ns);

/* When to call request_tick() at the latest; UINT64_MAX when closed. */
uint64_t request_due_ns(const struct request *r);

/* Takes the next row off rows that request_event() gave. False if there is none. */
bool request_logprob(struct request_text *text, weft_logprob_t *out);

/* Next piece of text in order; false if there is none. Also notices the end. */
bool request_event(struct request *r, struct request_text *text, uint64_t now_ns);

/* Writes the next datagram to send; 0 = none. `out` has REQUEST_OUT_MAX bytes. */
size_t request_output(struct request *r, struct request_conn *conn, uint64_t now_ns, uint8_t *out);

/* While `held`, no text comes out of request_event(), and no more is allowed to arrive than has
 * been allowed already (WINDOW_MAX_BYTES). Time does not count. */
void request_hold(struct request *r, bool held, uint64_t now_ns);

/* The user gives up: `result.status` will be WEFT_E_CANCELLED. request_tick() is due at once. */
void request_cancel(struct request *r, uint64_t now_ns);

/* The network says that nobody listens: ends a request that nobody has answered. */
void request_refused(struct request *r);

static inline bool request_closed(const struct request *r)
{
    return r->state == REQUEST_CLOSED && r->ack_ns == UINT64_MAX;
}

/* Remembers a closed request. */
void request_bury(const struct request *r, struct request_conn *conn);

/* Answers a datagram for a request that is no longer open; 0 = no answer is due. */
size_t request_tomb_output(const struct request_conn *conn, const struct weft_rsp *rsp,
                           uint8_t *out);
