/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exchange.h - clients and a worker (request.h, serve.h) joined by a simulated node and a network
 * that loses, duplicates, delays and reorders, queues at a bottleneck and drops what is too large;
 * virtual time, everything from one seed. Used by test_exchange.c, test_cc.c and test_pmtu.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "dataplane/flow/request.h"
#include "dataplane/flow/serve.h"
#include "schemas/base/hist.h"
#include "schemas/base/rng.h"

#define EXCHANGE_REQUESTS_MAX 8u
#define EXCHANGE_MTUS         4u
#define EXCHANGE_COOKIE       UINT64_C(0x1122334455667788)

/* From then on datagrams above `bytes` are lost. */
struct exchange_mtu {
    uint64_t at_ns;
    uint32_t bytes; /* 0 = any pass */
};

struct exchange_config {
    uint64_t seed;
    uint32_t loss_permille;
    uint32_t dup_permille;
    uint64_t delay_min_ns;
    uint64_t delay_max_ns;
    uint32_t requests;
    uint32_t prompt_bytes;
    uint32_t tokens;
    uint32_t token_bytes;
    uint64_t prefill_ns; /* silence before the first token */
    uint64_t token_ns;
    uint64_t budget_ns;
    uint64_t cancel_ns;  /* the clients cancel then; 0 = never */
    uint64_t die_ns;     /* the worker is gone from then on: the node answers UNKNOWN */
    uint64_t reject_ns;  /* ... or REJECT with WORKER_LOST */
    uint64_t silence_ns; /* nothing arrives any more, either way */
    uint64_t vanish_ns;  /* clients are gone: nothing from them, nothing read */
    bool no_cookie;      /* the node asks for none */
    uint32_t room;       /* 0 = plenty */
    uint64_t stagger_ns; /* between the starts of the requests */
    const struct cc_ops *cc;
    uint64_t rate_bytes;  /* a second through the bottleneck, each way; 0 = there is none */
    uint32_t queue_bytes; /* before it; what does not fit is lost */
    uint64_t mark_ns;     /* datagrams that wait longer there are marked; 0 = never */
    struct exchange_mtu mtu[2][EXCHANGE_MTUS]; /* down, up; in order of time */
};

/* The bottleneck of one way. */
struct exchange_link {
    uint64_t free_ns; /* when it has sent all it has */
    uint64_t bytes;
    uint64_t dropped;   /* datagrams, the queue being full */
    uint64_t too_large; /* datagrams */
    uint64_t count_ns;  /* queueing is counted from then on */
    struct hist queue_us;
};

struct exchange_packet {
    uint64_t at_ns;
    uint64_t order;
    bool to_worker;
    uint32_t len;
    uint8_t data[WEFT_DATAGRAM_MAX];
};

struct exchange_run {
    bool active;
    uint32_t executions;
    uint32_t cancels;
    struct weft_job *job;
    uint32_t emitted;
    uint64_t next_ns;
    bool stop;
};

struct exchange {
    struct exchange_config config;
    struct rng rng;
    uint64_t now_ns;
    struct exchange_packet **packets; /* heap by at_ns, order */
    uint32_t packet_count;
    uint32_t packet_capacity;
    uint64_t order;
    struct exchange_link links[2]; /* down, up */
    struct serve *serve;
    struct request_conn conn;
    struct request requests[EXCHANGE_REQUESTS_MAX];
    uint8_t *body[EXCHANGE_REQUESTS_MAX];
    bool open[EXCHANGE_REQUESTS_MAX];
    char *text[EXCHANGE_REQUESTS_MAX];
    uint32_t text_len[EXCHANGE_REQUESTS_MAX];
    size_t text_room[EXCHANGE_REQUESTS_MAX];
    weft_result_t result[EXCHANGE_REQUESTS_MAX];
    bool started[EXCHANGE_REQUESTS_MAX];
    uint64_t job_ns[EXCHANGE_REQUESTS_MAX]; /* when the worker had the whole prompt */
    uint64_t ended_ns[EXCHANGE_REQUESTS_MAX];
    struct exchange_run run[EXCHANGE_REQUESTS_MAX];
    bool prompt_wrong;
    uint64_t sent_up;
    uint64_t sent_down;
    uint64_t acks;
    uint64_t partial_peak;
    uint64_t reply_peak;
    uint32_t in_flight_peak;
};

struct exchange *exchange_create(const struct exchange_config *config);
void exchange_destroy(struct exchange *x);
/* Until every request is closed and the worker is empty, or the virtual limit. */
void exchange_play(struct exchange *x, uint64_t limit_ns);
/* Is the text of request i exactly what the worker generates for it, up to `tokens` tokens? */
bool exchange_text_ok(const struct exchange *x, uint32_t i, uint32_t tokens);
