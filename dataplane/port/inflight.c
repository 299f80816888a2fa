/* SPDX-License-Identifier: Apache-2.0 */
/* inflight.c - see inflight.h. */
#include "dataplane/port/inflight.h"

#include <string.h>

static struct inflight_entry *set_of(struct inflight *table, uint64_t conn_id, uint32_t req_seq)
{
    uint64_t h = (conn_id ^ ((uint64_t)req_seq << 32)) + req_seq;
    h = (h ^ (h >> 31)) * UINT64_C(0x9e3779b97f4a7c15);
    return &table->entries[((h >> 40) & (INFLIGHT_SETS - 1)) * INFLIGHT_WAYS];
}

void inflight_clear(struct inflight *table)
{
    memset(table, 0, sizeof(*table));
}

struct inflight_entry *inflight_find(struct inflight *table, uint64_t conn_id, uint32_t req_seq)
{
    struct inflight_entry *set = set_of(table, conn_id, req_seq);
    for (uint32_t i = 0; i < INFLIGHT_WAYS; i++) {
        if (set[i].state != INFLIGHT_FREE && set[i].conn_id == conn_id &&
            set[i].req_seq == req_seq) {
            return &set[i];
        }
    }
    return NULL;
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

struct inflight_entry *inflight_add(struct inflight *table, uint64_t conn_id, uint32_t req_seq,
                                    enum inflight_state state, uint64_t now_ns)
{
    struct inflight_entry *set = set_of(table, conn_id, req_seq);
    struct inflight_entry *best = NULL;
    uint64_t best_cost = UINT64_MAX;
    for (uint32_t i = 0; i < INFLIGHT_WAYS; i++) {
        uint64_t cost = replace_cost(&set[i], now_ns);
        if (cost < best_cost) {
            best = &set[i];
            best_cost = cost;
        }
    }
    if (best != NULL) {
        *best = (struct inflight_entry){
            .conn_id = conn_id,
            .seen_ns = now_ns,
            .req_seq = req_seq,
            .state = (uint8_t)state,
        };
    }
    return best;
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
