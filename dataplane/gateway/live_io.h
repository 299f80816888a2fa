/* SPDX-License-Identifier: Apache-2.0 */
/*
 * live_io.h - those who watch the mesh (GET /v1/live): one aggregation four times a second for all
 * of them, none while there are none. Inside of the gateway; the loop's thread.
 */
#pragma once

#include <sys/queue.h>

#include "dataplane/gateway/live.h"

#define LIVE_TICK_NS    (NS_PER_S / 4)
#define LIVE_BEAT_NS    NS_PER_S     /* an event at least so often: a silent stream is a dead one */
#define LIVE_HOLD_BYTES (512u << 10) /* unsent; who has more loses events and gets it all anew */

struct gateway;
struct exchange;

/* In an exchange. */
struct live_viewer {
    LIST_ENTRY(exchange) link;
    bool watching;
    bool lost; /* events were left out: it needs a whole one */
};

/* In the gateway. */
struct live_io {
    struct live live;
    struct live_view view;
    LIST_HEAD(viewers, exchange) viewers;
    uint64_t tick_ns; /* the next */
    uint64_t beat_ns;
};

/* An answer of the mesh is over. */
void live_io_answer(struct gateway *g, const char *model, const weft_result_t *result);
/* GET /v1/live. */
void live_io_watch(struct exchange *x);
/* It is over; nothing if it was none. */
void live_io_leave(struct exchange *x);
/* Anybody there? Then the census has to be kept fresh. */
bool live_io_wanted(const struct gateway *g);
/* Tells what has changed, if it is time. Ends all when the gateway is stopping. */
void live_io_turn(struct gateway *g, uint64_t now_ns);
/* When the next turn is due; UINT64_MAX = nobody watches. */
uint64_t live_io_due_ns(const struct gateway *g);
