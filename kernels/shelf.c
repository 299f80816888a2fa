/* SPDX-License-Identifier: Apache-2.0 */
/* See shelf.h. */
#include "kernels/shelf.h"

#define NOBODY UINT32_MAX

static bool is_loaded(const struct shelf_model *m)
{
    return m->state == SHELF_READY || m->state == SHELF_CLOSING;
}

static uint64_t loaded_bytes(const struct shelf *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->count; i++)
        if (s->models[i].state != SHELF_AWAY)
            sum += s->models[i].bytes;
    return sum;
}

static bool fits(const struct shelf *s, uint64_t used, uint64_t bytes)
{
    return used <= s->budget_bytes && bytes <= s->budget_bytes - used;
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Until then nobody may ask it to go. */
static uint64_t turn_end_ns(const struct shelf_model *m)
{
    return m->since_ns + later(SHELF_TURN_NS, SHELF_TURN_LOADS * m->load_ns);
}

/* Who has waited longest. */
static uint32_t most_wanted(const struct shelf *s, uint64_t now_ns)
{
    uint32_t best = NOBODY;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct shelf_model *m = &s->models[i];
        if (m->state == SHELF_AWAY && m->waiting && now_ns >= m->retry_ns &&
            (best == NOBODY || m->waiting_ns < s->models[best].waiting_ns))
            best = i;
    }
    return best;
}

/* Of those that compute nothing: closed ones first, then the least recently used. */
static uint32_t least_used(const struct shelf *s)
{
    uint32_t best = NOBODY;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct shelf_model *m = &s->models[i];
        if (!is_loaded(m) || m->open)
            continue;
        if (m->state == SHELF_CLOSING)
            return i;
        if (best == NOBODY || m->used_ns < s->models[best].used_ns)
            best = i;
    }
    return best;
}

/* Of the busy ones whose turn ends first. */
static uint32_t next_to_go(const struct shelf *s)
{
    uint32_t best = NOBODY;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct shelf_model *m = &s->models[i];
        if (m->state == SHELF_READY && m->open &&
            (best == NOBODY || turn_end_ns(m) < turn_end_ns(&s->models[best])))
            best = i;
    }
    return best;
}

/* With all gone that are idle or closed, is there room? */
static uint64_t staying_bytes(const struct shelf *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct shelf_model *m = &s->models[i];
        if (m->state == SHELF_LOADING || (m->state == SHELF_READY && m->open))
            sum += m->bytes;
    }
    return sum;
}

static struct shelf_step make_room(const struct shelf *s, uint64_t bytes, uint64_t now_ns)
{
    const uint32_t idle = least_used(s);
    if (fits(s, staying_bytes(s), bytes)) {
        if (idle != NOBODY)
            return (struct shelf_step){SHELF_UNLOAD, idle};
        return (struct shelf_step){SHELF_NOTHING, 0}; /* the closed ones are about to end */
    }
    const uint32_t busy = next_to_go(s);
    if (busy != NOBODY && now_ns >= turn_end_ns(&s->models[busy]))
        return (struct shelf_step){SHELF_CLOSE, busy};
    return (struct shelf_step){SHELF_NOTHING, 0};
}

struct shelf_step shelf_next(const struct shelf *s, uint64_t now_ns)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->models[i].state == SHELF_LOADING || s->models[i].state == SHELF_LEAVING)
            return (struct shelf_step){SHELF_NOTHING, i};
    const uint32_t wanted = most_wanted(s, now_ns);
    if (wanted == NOBODY) {
        for (uint32_t i = 0; i < s->count; i++)
            if (s->models[i].state == SHELF_CLOSING)
                return (struct shelf_step){SHELF_OPEN, i};
        return (struct shelf_step){SHELF_NOTHING, 0};
    }
    const uint64_t bytes = s->models[wanted].bytes;
    if (fits(s, loaded_bytes(s), bytes))
        return (struct shelf_step){SHELF_LOAD, wanted};
    return make_room(s, bytes, now_ns);
}

uint64_t shelf_wait_ns(const struct shelf *s, uint32_t model, uint64_t now_ns)
{
    const struct shelf_model *m = &s->models[model];
    uint64_t before = 0; /* until its loading can begin */
    if (m->state == SHELF_READY)
        return 0;
    if (m->state == SHELF_LOADING)
        return m->since_ns + m->load_ns > now_ns ? m->since_ns + m->load_ns - now_ns : 0;
    if (m->state == SHELF_CLOSING) /* it comes back after another one's turn */
        before = m->drain_ns + SHELF_TURN_NS;
    else if (m->retry_ns > now_ns)
        before = m->retry_ns - now_ns;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct shelf_model *other = &s->models[i];
        if (i != model && other->state == SHELF_LOADING)
            before = later(before, shelf_wait_ns(s, i, now_ns));
        else if (i != model && other->state == SHELF_CLOSING)
            before = later(before, other->drain_ns);
    }
    const uint32_t busy = next_to_go(s);
    if (m->state != SHELF_CLOSING && busy != NOBODY && !fits(s, staying_bytes(s), m->bytes)) {
        const struct shelf_model *other = &s->models[busy];
        const uint64_t end_ns = turn_end_ns(other);
        before = later(before, (end_ns > now_ns ? end_ns - now_ns : 0) + other->drain_ns);
    }
    return before + m->load_ns;
}

bool shelf_is_wanted(const struct shelf *s)
{
    for (uint32_t i = 0; i < s->count; i++)
        if (s->models[i].waiting && s->models[i].state != SHELF_READY)
            return true;
    return false;
}
