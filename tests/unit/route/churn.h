/* SPDX-License-Identifier: Apache-2.0 */
/*
 * churn.h - a mesh whose members come, go and change under the router's feet, and what the router
 * should make of it. Kept as plain lists, written from the documented rules and never from the
 * routing table's code: the second opinion of test_churn.c.
 */
#pragma once

#include "fixture.h"
#include "schemas/base/rng.h"

#define CHURN_MEMBERS_MAX 300u
#define CHURN_MODELS      4u
#define CHURN_RETIRED     32u
#define CHURN_SELF        0u /* index of the member that routes */

struct churn_member {
    struct route_node node; /* as the table gets it */
    uint32_t generation;    /* rises with every change that a request could notice */
    bool present;
};

struct churn_world {
    struct churn_member members[CHURN_MEMBERS_MAX];
    uint32_t count;
    uint16_t epoch;
    uint32_t next_addr;
    struct in6_addr retired[CHURN_RETIRED]; /* addresses that nobody has now, all zero = none */
    struct rng rng;
};

/* What a request may not be denied and may not be given. */
struct churn_filter {
    uint32_t model;
    uint32_t tags;
    uint8_t tier_min, tier_max;
};

static inline struct churn_member *churn_by_addr(struct churn_world *w, struct in6_addr addr)
{
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->members[i].present && addr_equal(&w->members[i].node.addr, &addr)) {
            return &w->members[i];
        }
    }
    return NULL;
}

static inline struct churn_member *churn_by_id(struct churn_world *w, uint16_t id)
{
    bool known = id >= 1 && id <= w->count && w->members[id - 1].present;
    return known ? &w->members[id - 1] : NULL;
}

static inline bool churn_capable(const struct churn_member *m, const struct churn_filter *f)
{
    bool has_model = false;
    for (uint32_t i = 0; i < m->node.model_count; i++) {
        has_model |= m->node.models[i] == f->model;
    }
    return m->present && m->node.alive && has_model && (m->node.tags & f->tags) == f->tags &&
           m->node.tier >= f->tier_min && m->node.tier <= f->tier_max;
}

static inline bool churn_any_capable(const struct churn_world *w, const struct churn_filter *f)
{
    for (uint32_t i = 0; i < w->count; i++) {
        if (churn_capable(&w->members[i], f)) {
            return true;
        }
    }
    return false;
}

static inline bool churn_none(const struct in6_addr *addr)
{
    return IN6_IS_ADDR_UNSPECIFIED(addr);
}

/* An address for a member that joins: one that another member had before, or one never used, of
 * either family. */
static inline struct in6_addr churn_new_addr(struct churn_world *w)
{
    struct in6_addr *slot = &w->retired[rng_below(&w->rng, CHURN_RETIRED)];
    if (!churn_none(slot) && rng_below(&w->rng, 2) == 0) {
        struct in6_addr addr = *slot;
        *slot = (struct in6_addr){.s6_addr = {0}};
        return addr;
    }
    struct in6_addr addr = fixture_addr(0, true);
    uint32_t number = htonl(w->next_addr++);
    addr.s6_addr32[rng_below(&w->rng, 2) + 1] ^= number; /* neighbours, or other networks */
    return rng_below(&w->rng, 3) == 0 ? addr : addr_of_v4(number);
}

/* New facts for a member; its id stays. */
static inline void churn_join(struct churn_world *w, uint32_t index)
{
    struct churn_member *m = &w->members[index];
    double latitude = rng_unit(&w->rng) * 170.0 - 85.0;
    double longitude = rng_unit(&w->rng) * 360.0 - 180.0;
    uint8_t tier = (uint8_t)rng_below(&w->rng, WEFT_TIER_MAX + 1);
    m->node = fixture_node((uint16_t)(index + 1), latitude, longitude, tier);
    m->node.addr = index == CHURN_SELF ? node_addr(1) : churn_new_addr(w);
    for (int i = 3; i < 6 && index != CHURN_SELF; i++) {
        m->node.mac[i] = (uint8_t)rng_next(&w->rng);
    }
    m->node.room = 60000; /* never what binds */
    m->node.tags = rng_below(&w->rng, 8);
    m->node.rtt_us = 1 + rng_below(&w->rng, 100000);
    m->node.model_count = rng_below(&w->rng, 3);
    for (uint32_t i = 0; i < m->node.model_count; i++) {
        m->node.models[i] = MODEL_A + rng_below(&w->rng, CHURN_MODELS);
    }
    m->present = true;
    m->generation++;
}

static inline void churn_leave(struct churn_world *w, uint32_t index)
{
    w->members[index].present = false;
    w->members[index].generation++;
    w->retired[rng_below(&w->rng, CHURN_RETIRED)] = w->members[index].node.addr;
}

static inline void churn_init(struct churn_world *w, uint32_t count, uint64_t seed)
{
    memset(w, 0, sizeof(*w));
    w->rng.state = seed;
    w->count = count;
    w->epoch = 65500; /* wraps soon */
    w->next_addr = 0x0a500001u;
    for (uint32_t i = 0; i < count; i++) {
        churn_join(w, i);
    }
}

/* One change: leave, join, move to another address, die, revive, lose or gain the neighbour. */
static inline void churn_once(struct churn_world *w)
{
    uint32_t index = 1 + rng_below(&w->rng, w->count - 1);
    struct churn_member *m = &w->members[index];
    uint32_t what = rng_below(&w->rng, 8);
    if (!m->present) {
        churn_join(w, index);
    } else if (what < 3) {
        churn_leave(w, index);
    } else if (what < 5) { /* gone and back within one epoch, other in everything but the id */
        churn_leave(w, index);
        churn_join(w, index);
    } else if (what == 5) {
        m->node.alive = !m->node.alive;
        m->generation++;
    } else if (what == 6) {
        m->node.reachable = !m->node.reachable;
    } else {
        m->node.addr = churn_new_addr(w);
    }
}

/* The table of the world as it is now, under the next epoch. */
static inline struct route_table *churn_table(struct churn_world *w, uint64_t now_ns)
{
    static struct route_node nodes[CHURN_MEMBERS_MAX];
    uint32_t used = 0;
    for (uint32_t i = 0; i < w->count; i++) {
        if (w->members[i].present) {
            nodes[used] = w->members[i].node;
            nodes[used++].load_ns = now_ns;
        }
    }
    struct route_table *table = NULL;
    (void)route_table_create(&table, nodes, used, CHURN_SELF + 1, ++w->epoch, false);
    return table;
}
