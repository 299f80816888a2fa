/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inflight.h - the requests that this node has handed to its worker, just enough of each to tell
 * the client if the worker dies: key and return block. Also remembers requests passed on to an
 * alternate, so that their later fragments follow. Fixed size, set-associative, owned by one lcore.
 * What finds its set full goes to one of four others: sets of eight alone would turn a few away at
 * a third of the room (10,000 of 32,768).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#define INFLIGHT_SETS   4096u /* a power of two */
#define INFLIGHT_WAYS   8u
#define INFLIGHT_OTHERS 4u /* sets where an entry may lie that found its own full */
#define INFLIGHT_SLOTS  (INFLIGHT_SETS * INFLIGHT_WAYS)
/* An entry of which nothing was heard for so long may be replaced: clients of open requests show a
 * sign of life far more often. */
#define INFLIGHT_LIFE_NS UINT64_C(60000000000)

enum inflight_state {
    INFLIGHT_FREE,
    INFLIGHT_OPEN,      /* with the worker, reply not complete */
    INFLIGHT_FINISHED,  /* the reply's last part has gone out */
    INFLIGHT_FORWARDED, /* passed on to node `forwarded_to` */
};

struct inflight_entry {
    uint64_t conn_id;
    uint64_t seen_ns;
    uint32_t req_seq;
    uint16_t origin;
    uint16_t forwarded_to;
    uint8_t state;
    struct weft_return ret;
};

struct inflight {
    struct inflight_entry entries[INFLIGHT_SLOTS];
    bool spilled[INFLIGHT_SETS]; /* an entry of this set may lie in another one */
};

/* Zero-filled memory is an empty table; inflight_clear() makes it one again. */
void inflight_clear(struct inflight *table);

/* The entry of a request, or NULL. */
struct inflight_entry *inflight_find(struct inflight *table, uint64_t conn_id, uint32_t req_seq);

/* A new entry in `state`, or NULL if all its sets are full of live ones. The key must not be
 * present. */
struct inflight_entry *inflight_add(struct inflight *table, uint64_t conn_id, uint32_t req_seq,
                                    enum inflight_state state, uint64_t now_ns);

/* The next open entry at or after *cursor (start with 0), or NULL at the end. */
struct inflight_entry *inflight_next_open(struct inflight *table, uint32_t *cursor,
                                          uint64_t now_ns);
