/* SPDX-License-Identifier: Apache-2.0 */
/* inflight.c - see inflight.h. */
#include "dataplane/port/inflight.h"

#include <string.h>

static uint64_t hash_of(uint64_t conn_id, uint32_t req_seq)
{
    uint64_t h = (conn_id ^ ((uint64_t)req_seq << 32)) + req_seq;
    return (h ^ (h >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
}

/* A request's own set (0), and the others where it may lie. */
static uint32_t set_of(uint64_t hash, uint32_t which)
{
    uint64_t other = (hash ^ (hash >> 29)) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(which == 0 ? hash >> 40 : (other >> 40) + which) & (INFLIGHT_SETS - 1);
}

void inflight_clear(struct inflight *table)
{
    memset(table, 0, sizeof(*table));
}

static struct inflight_entry *set_find(struct inflight *table, uint32_t set, uint64_t conn_id,
                                       uint32_t req_seq)
{
    struct inflight_entry *e = &table->entries[set * INFLIGHT_WAYS];
    for (uint32_t i = 0; i < INFLIGHT_WAYS; i++) {
        if (e[i].state != INFLIGHT_FREE && e[i].conn_id == conn_id && e[i].req_seq == req_seq) {
            return &e[i];
        }
    }
    return NULL;
}

struct inflight_entry *inflight_find(struct inflight *table, uint64_t conn_id, uint32_t req_seq)
{
    uint64_t hash = hash_of(conn_id, req_seq);
    struct inflight_entry *e = set_find(table, set_of(hash, 0), conn_id, req_seq);
    if (e != NULL || !table->spilled[set_of(hash, 0)]) {
        return e;
    }
    for (uint32_t i = 1; e == NULL && i <= INFLIGHT_OTHERS; i++) {
        e = set_find(table, set_of(hash, i), conn_id, req_seq);
    }
    return e;
}

/* Free first, then expired, then the finished or forwarded one that was silent longest. */
static uint64_t replace_cost(const struct inflight_entry *e, uint64_t now_ns)
{
    if (e->state == INFLIGHT_FREE) {
        return 0;
    }
    if (now_ns - e->seen_ns > INFLIGHT_LIFE_NS) {
        return 1;
    }
    return e->state == INFLIGHT_OPEN ? UINT64_MAX : e->seen_ns + 2;
}

/* The place that costs least, or NULL if all are taken. */
static struct inflight_entry *set_place(struct inflight *table, uint32_t set, uint64_t now_ns)
{
    struct inflight_entry *e = &table->entries[set * INFLIGHT_WAYS];
    struct inflight_entry *best = NULL;
    uint64_t best_cost = UINT64_MAX;
    for (uint32_t i = 0; i < INFLIGHT_WAYS; i++) {
        uint64_t cost = replace_cost(&e[i], now_ns);
        if (cost < best_cost) {
            best = &e[i];
            best_cost = cost;
        }
    }
    return best;
}

struct inflight_entry *inflight_add(struct inflight *table, uint64_t conn_id, uint32_t req_seq,
                                    enum inflight_state state, uint64_t now_ns)
{
    uint64_t hash = hash_of(conn_id, req_seq);
    struct inflight_entry *place = set_place(table, set_of(hash, 0), now_ns);
    for (uint32_t i = 1; place == NULL && i <= INFLIGHT_OTHERS; i++) {
        place = set_place(table, set_of(hash, i), now_ns);
        table->spilled[set_of(hash, 0)] = true;
    }
    if (place != NULL) {
        *place = (struct inflight_entry){
            .conn_id = conn_id,
            .seen_ns = now_ns,
            .req_seq = req_seq,
            .state = (uint8_t)state,
        };
    }
    return place;
}

struct inflight_entry *inflight_next_open(struct inflight *table, uint32_t *cursor, uint64_t now_ns)
{
    while (*cursor < INFLIGHT_SLOTS) {
        struct inflight_entry *e = &table->entries[(*cursor)++];
        if (e->state == INFLIGHT_OPEN && now_ns - e->seen_ns <= INFLIGHT_LIFE_NS) {
            return e;
        }
    }
    return NULL;
}
