/* SPDX-License-Identifier: Apache-2.0 */
/*
 * homes.h - where the last request of each session went: its prompt is in that node's memory, so
 * that the next one, which begins like it, costs less there. A hint of one core (stages.c), weighed
 * by choose.c: it never passes a filter, and gives way to a node that is clearly sooner.
 *
 * Direct-mapped by session, which is a hash: who finds its place taken begins anew.
 */
#pragma once

#include "dataplane/route/choose.h"

#define HOMES        4096u /* a power of two */
#define HOME_LIFE_NS UINT64_C(600000000000)

struct home {
    uint64_t used_ns;
    uint32_t session; /* 0 = empty */
    uint32_t model;
    uint32_t prompt_bytes; /* of its last request */
    uint16_t node;         /* id */
};

/* Zero-filled: knows nothing. */
struct homes {
    struct home at[HOMES];
};

/* `choice` is that of a request of `session` (not 0), no refusal: it becomes the session's home if
 * that is good enough, and is remembered as its home. */
void homes_steer(struct homes *homes, const struct route_table *table, struct route_load *loads,
                 const struct route_query *query, uint32_t session, uint64_t now_ns,
                 struct route_choice *choice);

/* Another node than the chosen one has taken the last request of the session. */
void homes_correct(struct homes *homes, uint32_t session, uint16_t node);
