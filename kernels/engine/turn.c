/* SPDX-License-Identifier: Apache-2.0 */
/* Whose turn it is. Among a tenant's requests: priority, raised by waiting; then the earlier
 * deadline; then first come. Among tenants whose first requests are of one level: who has used
 * less, then the earlier deadline.
 *
 * What a tenant has used is counted in tokens as they are served, those of answers double: a
 * virtual counter (Sheng et al., "Fairness in Serving Large Language Models", OSDI'24). Who comes
 * back from having nothing to ask starts where the least served of the others is: there is no
 * credit for idle time, and no debt. Waiting raises a tenant's level from when it was last served,
 * so that one with many requests gains nothing by its own queue. */
#include "kernels/engine/engine_impl.h"

/* Tenants are equal within so many tokens: deadlines decide then. */
#define EQUAL_TOKENS  512u
#define WEIGHT_PROMPT 1u
#define WEIGHT_ANSWER 2u

static uint64_t least_used(const struct engine *e)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < e->request_count; i++)
        if (e->tenants[i].open && e->tenants[i].used < least)
            least = e->tenants[i].used;
    return least;
}

void turn_join(struct engine *e, struct request *r, uint64_t id)
{
    struct tenant *found = NULL;
    for (size_t i = 0; i < e->request_count; i++) {
        struct tenant *t = &e->tenants[i];
        if (t->id == id && (t->open || t->served_ns)) {
            found = t;
            break;
        }
        /* There is one without a request for each request that is not open. */
        if (!t->open && (!found || t->served_ns < found->served_ns))
            found = t;
    }
    if (found->open == 0) {
        const uint64_t least = least_used(e);
        if (least != UINT64_MAX && least > e->used_floor)
            e->used_floor = least;
        if (found->id != id)
            *found = (struct tenant){.id = id};
        if (found->used < e->used_floor)
            found->used = e->used_floor;
    }
    found->open++;
    r->tenant = found;
}

bool engine_share_admits(uint32_t capacity, uint32_t reserve, uint32_t open, uint32_t others,
                         uint32_t own)
{
    if (open >= capacity)
        return false;
    if (capacity - open > reserve)
        return true;
    const uint32_t share = capacity / (others + 2);
    return own < (share ? share : 1);
}

bool turn_may_join(const struct engine *e, uint64_t id)
{
    uint32_t others = 0;
    uint32_t own = 0;
    for (size_t i = 0; i < e->request_count; i++) {
        const struct tenant *t = &e->tenants[i];
        if (t->open && t->id == id)
            own = t->open;
        else if (t->open)
            others++;
    }
    return engine_share_admits((uint32_t)e->request_count, e->options.reserve,
                               e->active + e->queued, others, own);
}

void turn_leave(struct engine *e, struct request *r)
{
    struct tenant *t = r->tenant;
    if (--t->open == 0 && least_used(e) == UINT64_MAX && t->used > e->used_floor)
        e->used_floor = t->used;
}

void turn_begin(struct request *r, uint64_t now_ns)
{
    r->tenant->served_ns = now_ns;
    r->tenant->used += (uint64_t)WEIGHT_PROMPT * (r->given_count - r->done_count);
}

void turn_token(struct request *r)
{
    r->tenant->used += WEIGHT_ANSWER;
}

static uint64_t level(const struct engine *e, const struct request *r, uint64_t since_ns,
                      uint64_t now_ns)
{
    return r->priority + us_between(since_ns, now_ns) / e->options.aging_us;
}

static bool is_sooner(const struct request *a, const struct request *b)
{
    const uint64_t da = a->deadline_ns ? a->deadline_ns : UINT64_MAX;
    const uint64_t db = b->deadline_ns ? b->deadline_ns : UINT64_MAX;
    return da != db ? da < db : a->order < b->order;
}

/* Of one tenant. */
static bool goes_before(const struct engine *e, const struct request *a, const struct request *b,
                        uint64_t now_ns)
{
    const uint64_t la = level(e, a, a->submitted_ns, now_ns);
    const uint64_t lb = level(e, b, b->submitted_ns, now_ns);
    return la != lb ? la > lb : is_sooner(a, b);
}

static uint64_t waiting_since(const struct request *r)
{
    return r->submitted_ns > r->tenant->served_ns ? r->submitted_ns : r->tenant->served_ns;
}

/* Of two tenants, each the first of its own. */
static bool tenant_goes_before(const struct engine *e, const struct request *a,
                               const struct request *b, uint64_t now_ns)
{
    const uint64_t la = level(e, a, waiting_since(a), now_ns);
    const uint64_t lb = level(e, b, waiting_since(b), now_ns);
    const uint64_t ua = a->tenant->used / EQUAL_TOKENS;
    const uint64_t ub = b->tenant->used / EQUAL_TOKENS;
    if (la != lb)
        return la > lb;
    return ua != ub ? ua < ub : is_sooner(a, b);
}

bool turn_goes_before(const struct engine *e, const struct request *a, const struct request *b,
                      uint64_t now_ns)
{
    return a->tenant == b->tenant ? goes_before(e, a, b, now_ns)
                                  : tenant_goes_before(e, a, b, now_ns);
}

struct request *turn_next(struct engine *e, uint64_t now_ns)
{
    struct request *best = NULL;
    for (size_t i = 0; i < e->request_count; i++)
        e->tenants[i].first = NULL;
    for (size_t i = 0; i < e->request_count; i++) {
        struct request *r = &e->requests[i];
        if (r->state == QUEUED &&
            (!r->tenant->first || goes_before(e, r, r->tenant->first, now_ns)))
            r->tenant->first = r;
    }
    for (size_t i = 0; i < e->request_count; i++) {
        struct request *r = e->tenants[i].first;
        if (r && (!best || tenant_goes_before(e, r, best, now_ns)))
            best = r;
    }
    return best;
}

struct request *turn_next_prompt(struct engine *e, const bool *visited, uint64_t now_ns)
{
    struct request *best = NULL;
    for (size_t i = 0; i < e->request_count; i++) {
        struct request *r = &e->requests[i];
        if (r->state == PREFILL && !visited[r->slot] && (!best || goes_before(e, r, best, now_ns)))
            best = r;
    }
    return best;
}
