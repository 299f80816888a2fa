/* SPDX-License-Identifier: Apache-2.0 */
/* view.c - see view.h. */
#include "controlplane/zones/view.h"

#include <string.h>

#include "schemas/base/clock.h"

uint32_t zone_entry_age_ms(const struct zone_entry *entry, uint64_t now_ns)
{
    uint64_t age = entry->is.age_ms + (now_ns - entry->heard_ns) / NS_PER_MS;
    return age < ZONE_AGE_MAX_MS ? (uint32_t)age : ZONE_AGE_MAX_MS;
}

const struct zone_entry *zone_view_find(const struct zone_view *view, uint64_t key)
{
    uint32_t lo = 0;
    uint32_t hi = view->count;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (view->all[mid].is.range.hi <= key) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < view->count && view->all[lo].is.range.lo <= key ? &view->all[lo] : NULL;
}

static void entry_remove(struct zone_view *view, uint32_t at)
{
    view->count--;
    memmove(&view->all[at], &view->all[at + 1], (view->count - at) * sizeof(view->all[0]));
}

/* Joins entry `at` with the next one, which must begin where it ends. */
static void entry_join(struct zone_view *view, uint32_t at, uint16_t x, uint16_t y)
{
    struct zone_entry *a = &view->all[at];
    const struct zone_entry *b = &view->all[at + 1];
    uint64_t now_ns = a->heard_ns > b->heard_ns ? a->heard_ns : b->heard_ns;
    uint32_t age_ms = zone_entry_age_ms(a, now_ns);
    uint32_t age_b_ms = zone_entry_age_ms(b, now_ns);
    zone_summary_merge(&a->is, &b->is, x, y);
    a->is.age_ms = age_ms > age_b_ms ? age_ms : age_b_ms;
    a->heard_ns = now_ns;
    a->pulled_ns = a->pulled_ns < b->pulled_ns ? a->pulled_ns : b->pulled_ns;
    a->single = false;
    a->fails = a->fails < b->fails ? a->fails : b->fails;
    entry_remove(view, at + 1);
}

static bool touching(const struct zone_range *a, const struct zone_range *b)
{
    return a->hi == b->lo;
}

/* The pair of touching neighbours with the fewest nodes, `count` if there is none. */
static uint32_t smallest_pair(const struct zone_view *view)
{
    uint32_t best = view->count;
    uint64_t best_live = UINT64_MAX;
    for (uint32_t i = 0; i + 1 < view->count; i++) {
        const struct zone_summary *a = &view->all[i].is;
        const struct zone_summary *b = &view->all[i + 1].is;
        uint64_t live = (uint64_t)a->live + b->live;
        if (touching(&a->range, &b->range) && live < best_live) {
            best = i;
            best_live = live;
        }
    }
    return best;
}

static bool make_room(struct zone_view *view, uint16_t x, uint16_t y)
{
    if (view->count < ZONE_VIEW_MAX) {
        return true;
    }
    uint32_t at = smallest_pair(view);
    if (at == view->count) {
        return false;
    }
    entry_join(view, at, x, y);
    return true;
}

static void entry_insert(struct zone_view *view, const struct zone_entry *entry)
{
    uint32_t at = view->count++;
    for (; at > 0 && view->all[at - 1].is.range.lo > entry->is.range.lo; at--) {
        view->all[at] = view->all[at - 1];
    }
    view->all[at] = *entry;
}

/* Takes `range` out of what is known. Returns when its parts were last asked for. */
static uint64_t carve(struct zone_view *view, struct zone_range range, uint16_t x, uint16_t y)
{
    uint64_t pulled_ns = 0;
    for (uint32_t i = 0; i < view->count; i++) {
        struct zone_entry *e = &view->all[i];
        if (!zone_range_overlap(e->is.range, range)) {
            continue;
        }
        pulled_ns = e->pulled_ns > pulled_ns ? e->pulled_ns : pulled_ns;
        struct zone_range was = e->is.range;
        if (was.lo < range.lo && was.hi > range.hi) {
            struct zone_entry upper = *e;
            e->is.range.hi = range.lo;
            upper.is.range.lo = range.hi;
            if (make_room(view, x, y)) {
                entry_insert(view, &upper);
            }
            return pulled_ns;
        }
        if (was.lo < range.lo) {
            e->is.range.hi = range.lo;
        } else if (was.hi > range.hi) {
            e->is.range.lo = range.hi;
        } else {
            entry_remove(view, i--);
        }
    }
    return pulled_ns;
}

void zone_view_replace(struct zone_view *view, struct zone_range range,
                       const struct zone_summary *pieces, uint32_t count, uint64_t now_ns,
                       uint16_t x, uint16_t y)
{
    uint64_t pulled_ns = carve(view, range, x, y);
    for (uint32_t i = 0; i < count; i++) {
        struct zone_entry entry = {
            .is = pieces[i],
            .heard_ns = now_ns,
            .pulled_ns = pulled_ns,
            .single = count == 1,
        };
        entry.is.range = zone_range_common(pieces[i].range, range);
        if (zone_range_valid(entry.is.range) && make_room(view, x, y)) {
            entry_insert(view, &entry);
        }
    }
}

/* ---- pieces ---- */

uint32_t zone_pieces_fit(struct zone_summary *pieces, uint32_t count, uint32_t room,
                         struct zone_range barrier, uint16_t x, uint16_t y)
{
    while (count > room) {
        uint32_t best = count;
        uint64_t best_live = UINT64_MAX;
        for (uint32_t i = 0; i + 1 < count; i++) {
            uint64_t live = (uint64_t)pieces[i].live + pieces[i + 1].live;
            bool apart = zone_range_valid(barrier) && pieces[i].range.lo < barrier.lo &&
                         pieces[i + 1].range.hi > barrier.hi;
            if (live < best_live && !apart) {
                best = i;
                best_live = live;
            }
        }
        if (best == count) {
            break;
        }
        zone_summary_merge(&pieces[best], &pieces[best + 1], x, y);
        count--;
        memmove(&pieces[best + 1], &pieces[best + 2], (count - best - 1) * sizeof(pieces[0]));
    }
    return count;
}

/* Collects what covers a range from below; holes become unknown pieces. */
struct collector {
    struct zone_summary all[2 * ZONE_VIEW_MAX + 3];
    uint32_t count;
    uint64_t at;   /* covered up to here */
    uint16_t x, y; /* contacts near there are wanted */
};

static void collect(struct collector *c, const struct zone_summary *is, struct zone_range range,
                    uint32_t age_ms)
{
    struct zone_range part = zone_range_common(is->range, range);
    if (!zone_range_valid(part)) {
        return;
    }
    if (part.lo > c->at) {
        zone_summary_unknown(&c->all[c->count++], (struct zone_range){c->at, part.lo});
    }
    struct zone_summary *piece = &c->all[c->count++];
    *piece = *is;
    piece->age_ms = age_ms;
    if (!zone_range_equal(piece->range, part)) {
        zone_summary_clip(piece, part, c->x, c->y);
    }
    c->at = part.hi;
}

uint32_t zone_view_pieces(const struct zone_view *view, const struct zone_summary *own,
                          struct zone_range range, const struct zone_query *query,
                          uint32_t farthest, struct zone_summary *out, uint32_t room, uint16_t x,
                          uint16_t y, uint64_t now_ns, uint32_t *excluded_age_ms)
{
    struct collector c;
    bool own_waits = own != NULL;
    c.count = 0;
    c.at = range.lo;
    c.x = x;
    c.y = y;
    for (uint32_t i = 0; i < view->count; i++) {
        const struct zone_entry *e = &view->all[i];
        if (own_waits && e->is.range.lo > own->range.lo) {
            collect(&c, own, range, own->age_ms);
            own_waits = false;
        }
        if (zone_range_overlap(e->is.range, range)) {
            collect(&c, &e->is, range, zone_entry_age_ms(e, now_ns));
        }
    }
    if (own_waits) {
        collect(&c, own, range, own->age_ms);
    }
    if (c.at < range.hi) {
        zone_summary_unknown(&c.all[c.count++], (struct zone_range){c.at, range.hi});
    }
    uint32_t kept = 0;
    *excluded_age_ms = 0;
    for (uint32_t i = 0; i < c.count; i++) {
        uint32_t bound = query == NULL ? 0 : zone_summary_bound(&c.all[i], query);
        if (bound != UINT32_MAX && bound <= farthest) {
            c.all[kept++] = c.all[i];
        } else if (c.all[i].age_ms > *excluded_age_ms) {
            *excluded_age_ms = c.all[i].age_ms;
        }
    }
    struct zone_range barrier =
        own != NULL && query != NULL ? own->range : (struct zone_range){0, 0};
    kept = zone_pieces_fit(c.all, kept, room, barrier, x, y);
    memcpy(out, c.all, kept * sizeof(out[0]));
    return kept;
}

/* ---- shape ---- */

/* Entries in order of their distance from the node. */
static void order_by_distance(const struct zone_view *view, uint16_t x, uint16_t y, uint8_t tier,
                              bool abstract, uint8_t order[ZONE_VIEW_MAX])
{
    uint32_t distance[ZONE_VIEW_MAX];
    for (uint32_t i = 0; i < view->count; i++) {
        const struct zone_box *box = &view->all[i].is.box;
        uint32_t d = UINT32_MAX;
        if (!zone_box_is_empty(box)) {
            uint8_t z = tier < box->z_lo ? box->z_lo : tier > box->z_hi ? box->z_hi : tier;
            d = zone_box_distance(box, x, y, z, z, abstract) +
                TORUS_TIER_CELLS * torus_tier_steps(z, tier, abstract);
        }
        distance[i] = d;
        uint32_t at = i;
        for (; at > 0 && distance[order[at - 1]] > d; at--) {
            order[at] = order[at - 1];
        }
        order[at] = (uint8_t)i;
    }
}

static void limits_find(const struct zone_view *view, const uint8_t *order, uint32_t own_live,
                        uint32_t zone_max, uint32_t limits[ZONE_VIEW_MAX])
{
    uint64_t rank = own_live;
    for (uint32_t i = 0; i < view->count; i++) {
        uint64_t limit = rank / ZONE_VIEW_GRAIN;
        limits[order[i]] = limit > zone_max ? (uint32_t)limit : zone_max;
        rank += view->all[order[i]].is.live;
    }
}

void zone_view_shape(struct zone_view *view, uint32_t own_live, uint32_t zone_max, uint16_t x,
                     uint16_t y, uint8_t tier, bool abstract, uint32_t limits[ZONE_VIEW_MAX])
{
    uint8_t order[ZONE_VIEW_MAX];
    order_by_distance(view, x, y, tier, abstract, order);
    limits_find(view, order, own_live, zone_max, limits);
    for (uint32_t i = 0; i + 1 < view->count;) {
        const struct zone_summary *a = &view->all[i].is;
        const struct zone_summary *b = &view->all[i + 1].is;
        uint32_t limit = limits[i] < limits[i + 1] ? limits[i] : limits[i + 1];
        /* Half of the limit, so that it is not divided again at once. */
        if (touching(&a->range, &b->range) && limit > zone_max &&
            (uint64_t)a->live + b->live <= limit / 2) {
            entry_join(view, i, x, y);
            memmove(&limits[i + 1], &limits[i + 2], (view->count - i - 1) * sizeof(limits[0]));
            limits[i] = limit;
        } else {
            i++;
        }
    }
}
