/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stream.h - the client's decisions about one answer: which attempts to make, whose tokens count,
 * when to go elsewhere, how it ends. An attempt is one request of request.h; dataplane/client owns
 * attempts and sockets, tells what they do, and carries out the orders that come out here.
 *
 * Tokens that were delivered are kept. An attempt that is lost (worker gone, frozen, garbled, node
 * unreachable) is followed by another one elsewhere that goes on behind them: the alternates of
 * the same discovery first, then a discovery that avoids who has failed. A hedge is a second
 * attempt beside the first, sent when no token has come by the usual p95; the first token decides
 * and the other attempt is cancelled. A rival is the same in the middle of an answer: somebody else
 * begins to go on while it is not certain yet that who serves is lost (stream_suspect).
 *
 * Other weights, or another way of computing, give other tokens. Where it is known what has
 * computed the answer so far, the mesh is asked for somebody who computes the same, and only if
 * there is nobody for anybody else; the result says how often that was (`mixed`).
 *
 * Two purses, shared by all streams of a client and filled by new ones, bound the extra load:
 * failovers and rivals to one in ten requests once the first ten are spent, hedges to one in
 * twenty. A node that dies takes all its streams with it, those that it served and those that were
 * just being asked by it: the first one's failover pays for the first failover of all that were
 * open there then, so that no more than what was open is asked again. Rivals, sent on suspicion,
 * leave half of the purse to failovers. What a node has turned away because it takes nothing new
 * (draining) was executed by nobody: it goes on elsewhere at once, costs nothing and is no
 * failover. A node that was asked and turns away is left alone from then on, by the streams to
 * come, too.
 *
 * Threads: none; times are of one monotonic clock given by the caller.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "schemas/base/hist.h"

#define STREAM_ATTEMPTS       2u /* at the same time */
#define STREAM_FAILOVERS_MAX  8u
#define STREAM_REFUSALS_MAX   4u /* in a row, of an answer that had begun elsewhere */
#define STREAM_TURNED_MAX     8u /* times that a request is turned away by nodes that drain */
#define STREAM_BACKOFF_MS     100u
#define STREAM_PATH_MS        600u /* without any answer another node is asked as well */
#define STREAM_HEDGE_SAMPLES  20u  /* first tokens seen before a p95 means anything */
#define STREAM_PURSE          1000u
#define STREAM_RETRY_INCOME   100u
#define STREAM_RETRY_MAX      (10u * STREAM_PURSE)
#define STREAM_RIVAL_LEAST    (STREAM_RETRY_MAX / 2u)
#define STREAM_HEDGE_INCOME   50u
#define STREAM_HEDGE_MAX      (5u * STREAM_PURSE)
#define STREAM_ORDERS         8u
#define STREAM_LOSSES         16u /* nodes lost lately; a power of two */
#define STREAM_LOSS_MS        10000u
#define STREAM_TOKENS_INITIAL 64u

/* The loss of a node, paid for by one of its streams. */
struct stream_loss {
    uint16_t node;  /* or path */
    uint64_t at_ns; /* 0 = none */
};

/* What the streams of one client share. */
struct stream_policy {
    uint32_t paths; /* nodes it knows to ask, at least one */
    uint32_t path;  /* the one to ask first */
    uint32_t retry_purse;
    uint32_t hedge_purse;
    uint64_t failovers;
    uint64_t hedges;
    struct stream_loss losses[STREAM_LOSSES];      /* by node id, later ones overwrite */
    struct stream_loss path_losses[STREAM_LOSSES]; /* by path, before anybody has answered */
    struct hist first_us;                          /* first tokens */
};

enum stream_kind { STREAM_START = 1, STREAM_CANCEL };

/* What the shell has to do. */
struct stream_order {
    enum stream_kind kind;
    uint32_t attempt; /* below STREAM_ATTEMPTS; free when it is to be started */
    uint32_t path;
    uint16_t target; /* WEFT_NODE_NONE: let the mesh choose ... */
    uint16_t avoid_count;
    uint16_t avoid[WEFT_AVOID_MAX]; /* ... somebody else than these, ... */
    uint32_t arithmetic;            /* ... if possible one that computes so; 0 = no matter */
};

struct stream_attempt {
    bool live;
    bool answered; /* a worker has accepted */
    uint16_t target;
    uint16_t server;
    uint32_t path;
    uint32_t arithmetic; /* of the server; 0 = not told */
};

struct stream {
    struct stream_attempt attempts[STREAM_ATTEMPTS];
    int leader; /* whose tokens count; -1 = not decided */
    bool ended, cancelled;
    bool once; /* the user wants no second attempt */
    bool hedged;
    bool forgetful; /* no memory for the tokens: cannot go on elsewhere */
    bool partial;   /* the last token may have more text: its id alone would lose that */
    uint32_t *tokens;
    uint32_t count, capacity;
    uint32_t failovers, refusals;
    uint32_t turned, closed; /* times turned away; of these by the node that was asked */
    uint32_t arithmetic;     /* of the last token; 0 = not known */
    uint32_t mixed;          /* changes of it */
    int first_failure;
    uint32_t resends;
    uint16_t alternates[2];
    uint16_t avoid_count; /* rises; the last WEFT_AVOID_MAX are kept */
    uint16_t avoid[WEFT_AVOID_MAX];
    uint64_t start_ns, first_ns, last_ns, gap_ns;
    uint64_t hedge_ns, path_ns, retry_ns; /* UINT64_MAX = not set */
    struct stream_order orders[STREAM_ORDERS];
    uint32_t orders_head, orders_tail;
    weft_result_t result; /* final when `ended` */
};

void stream_policy_init(struct stream_policy *policy, uint32_t paths);

/* Orders the first attempt. `once`: no failover, no hedge. */
void stream_init(struct stream *s, struct stream_policy *policy, bool hedge, bool once,
                 uint64_t now_ns);
void stream_deinit(struct stream *s);

/* The next order; false if there is none. To be asked for after any of the calls below. */
bool stream_next(struct stream *s, struct stream_order *order);

/* A worker has accepted the attempt and named the alternates. */
void stream_accepted(struct stream *s, uint32_t attempt, uint16_t server,
                     const uint16_t alternates[2]);

/* What its worker computes with, once that has been told; to be told before tokens are. */
void stream_computes(struct stream *s, uint32_t attempt, uint32_t arithmetic);

/* The worker of the attempt that leads has not been heard for so long that somebody else should
 * begin to go on; to be told once per silence. */
void stream_suspect(struct stream *s, struct stream_policy *policy, uint32_t attempt);

/* A token of the attempt, in order. Is it for the user? */
bool stream_token(struct stream *s, struct stream_policy *policy, uint32_t attempt, uint32_t token,
                  uint64_t now_ns);

/* Text that goes on with the token before, which another attempt may have given. Is it for the
 * user?
 */
bool stream_more(struct stream *s, struct stream_policy *policy, uint32_t attempt);

/* Text of the attempt: all of its token, or may some follow? Told behind stream_token() and for
 * each further piece. */
void stream_piece(struct stream *s, uint32_t attempt, bool partial);

/* The attempt has ended; it may not be told about again until it is started anew. */
void stream_over(struct stream *s, struct stream_policy *policy, uint32_t attempt,
                 const weft_result_t *result, uint64_t now_ns);

/* The user gives up. Live attempts end by themselves. */
void stream_cancel(struct stream *s, uint64_t now_ns);

void stream_tick(struct stream *s, struct stream_policy *policy, uint64_t now_ns);
/* When to call stream_tick() at the latest; UINT64_MAX = never. */
uint64_t stream_due_ns(const struct stream *s);
