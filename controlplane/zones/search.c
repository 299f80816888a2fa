/* SPDX-License-Identifier: Apache-2.0 */
/* search.c - see search.h. */
#include "controlplane/zones/search.h"

#include <string.h>

#include "schemas/base/clock.h"

#define ASK_BITS 8u
#define ASK_MASK ((1u << ASK_BITS) - 1)
_Static_assert(ZONE_SEARCH_ASKS_MAX <= 1u << ASK_BITS, "a question's number is part of its id");
_Static_assert(ZONE_SEARCH_REGIONS <= ZONE_REGION_RELAY, "a region's number is a byte");

void zone_search_init(struct zone_search *s, const struct zone_query *query, uint32_t id,
                      uint64_t now_ns, uint64_t deadline_ns)
{
    s->query = *query;
    s->started_ns = now_ns;
    s->changed_ns = now_ns;
    s->deadline_ns = deadline_ns;
    s->id = id << ASK_BITS;
    s->asks = 0;
    s->hops = 0;
    s->evidence_age_ms = 0;
    s->region_count = 0;
    s->lost = false;
    s->helper_count = 0;
    s->relay_asks = 0;
    s->relay = (struct zone_relay){.waits = false};
    zone_top_init(&s->top, query->k);
}

void zone_search_evidence(struct zone_search *s, uint32_t age_ms)
{
    s->evidence_age_ms = age_ms > s->evidence_age_ms ? age_ms : s->evidence_age_ms;
}

static bool waiting(const struct zone_region *r)
{
    return r->state == ZONE_REGION_OPEN || r->state == ZONE_REGION_ASKED;
}

/* Could it hold something better than what is found? Equal distances count: ids break ties. */
static bool matters(const struct zone_search *s, const struct zone_region *r)
{
    return r->bound <= zone_top_bound(&s->top);
}

/* A place for a region: one that is settled, or a new one. */
static struct zone_region *region_new(struct zone_search *s)
{
    if (s->region_count < ZONE_SEARCH_REGIONS) {
        return &s->regions[s->region_count++];
    }
    for (uint32_t i = 0; i < s->region_count; i++) {
        struct zone_region *r = &s->regions[i];
        if (r->state == ZONE_REGION_DONE || (r->state == ZONE_REGION_OPEN && !matters(s, r))) {
            for (uint32_t ask = 0; ask < s->asks; ask++) { /* late answers are not about it */
                s->region_of[ask] = s->region_of[ask] == i ? ZONE_REGION_NONE : s->region_of[ask];
            }
            return r;
        }
    }
    s->lost = true;
    return NULL;
}

static struct zone_region *region_add(struct zone_search *s, const struct zone_summary *piece)
{
    uint32_t bound = zone_summary_bound(piece, &s->query);
    if (bound > zone_top_bound(&s->top)) {
        zone_search_evidence(s, piece->age_ms);
        return NULL;
    }
    struct zone_region *r = region_new(s);
    if (r == NULL) {
        return NULL;
    }
    *r = (struct zone_region){
        .range = piece->range,
        .bound = bound,
        .age_ms = piece->age_ms,
        .contact_count = piece->contact_count,
        .own_count = piece->contact_count,
    };
    memcpy(r->contacts, piece->contacts, sizeof(piece->contacts));
    return r;
}

void zone_search_add(struct zone_search *s, const struct zone_summary *piece)
{
    (void)region_add(s, piece);
}

/* Part of `asked`, as one has told of it who does not live there: he may refer to others, but not
 * for ever, and those who did so before him are asked last. */
static void region_referred(struct zone_region *r, const struct zone_region *asked, uint32_t by)
{
    r->helped = asked->helped;
    r->referrals = (uint8_t)(asked->referrals + 1);
    memcpy(r->visited, asked->visited, sizeof(r->visited));
    r->visited[asked->referrals % ZONE_SEARCH_VISITED] = by;
    uint32_t known = r->referrals < ZONE_SEARCH_VISITED ? r->referrals : ZONE_SEARCH_VISITED;
    for (uint32_t i = 0; i < r->contact_count; i++) {
        for (uint32_t v = 0; v < known; v++) {
            r->been[i] = r->been[i] || r->contacts[i].node == r->visited[v];
        }
    }
    if (r->referrals > ZONE_SEARCH_REFERRALS) {
        r->contact_count = r->own_count = 0;
    }
}

/* ---- asking ---- */

/* The contact to try next: fewest tries, nobody who has only referred to others, then fewest
 * silences, then one that lives in the region, then the nearest in time, counting the way on to
 * where the query points: the nearer to that it lives, the more it knows of it. If
 * none lives there, the one with the nearest path: whatever entry he has of the region begins
 * beyond his own zone, so that its first contact is nearer still. By time instead, two nodes that
 * know the region only as part of something large could send a search to and fro. */
static uint32_t contact_choose(const struct zone_search *s, const struct zone_region *r,
                               const struct zone_peers *peers)
{
    uint32_t best = 0;
    uint64_t best_cost = UINT64_MAX;
    for (uint32_t i = 0; i < r->contact_count; i++) {
        uint64_t fails = zone_peers_fails(peers, r->contacts[i].node);
        uint64_t gap = zone_area_gap(r->contacts[i].area, r->range);
        bool had_turn = i < r->own_count && r->own_count < r->contact_count;
        uint64_t cost = (uint64_t)(r->tried[i] + r->been[i] + had_turn) << 56 |
                        (fails < 255 ? fails : 255) << 48;
        cost |= gap != 0 ? UINT64_C(1) << 40 | gap
                         : zone_peers_rtt_us(peers, &r->contacts[i]) +
                               zone_peers_way_us(r->contacts[i].area, s->query.x, s->query.y);
        if (cost < best_cost) {
            best = i;
            best_cost = cost;
        }
    }
    return best;
}

static bool may_live_there(const struct zone_region *r, uint32_t contact)
{
    return zone_area_in(r->contacts[contact].area, r->range);
}

/* Is another one to be asked at the same time? Not beside one who lives there somebody who does
 * not: he would be sooner, with nothing but other names. */
static bool region_races(const struct zone_search *s, const struct zone_region *r, uint32_t at,
                         const struct zone_peers *peers)
{
    bool doubtful = peers->silence_permille >= ZONE_RACE_PERMILLE ||
                    !zone_peers_measured(peers, r->contacts[at].node);
    return r->tries == 1 && r->contact_count > 1 && doubtful &&
           (!may_live_there(r, at) || may_live_there(r, contact_choose(s, r, peers)));
}

static void region_ask(struct zone_search *s, uint32_t index, struct zone_peers *peers,
                       uint64_t now_ns, struct zone_ask *ask)
{
    struct zone_region *r = &s->regions[index];
    uint32_t at = contact_choose(s, r, peers);
    bool instead = r->tries != 0 && !r->raced; /* of one who is late */
    uint32_t before = r->tried[at]++;
    r->tries++;
    r->blamed[at] = false;
    r->raced = region_races(s, r, at, peers);
    /* While there is another one to ask, or there are those who may know one, late is reason enough
     * to do so: this one's answer stays welcome. */
    bool last = r->tries >= r->contact_count && !r->helped && s->helper_count != 0;
    bool hedged = before == 0 && (last || r->tries < r->contact_count);
    uint64_t wait_us = hedged ? zone_peers_late_us(peers, &r->contacts[at])
                              : zone_peers_rto_us(peers, &r->contacts[at]);
    bool at_once = r->raced || (last && instead);
    r->due_ns = at_once ? now_ns : now_ns + (wait_us * NS_PER_US << before);
    r->sent_ns[at] = now_ns;
    r->last = (uint8_t)at;
    r->state = ZONE_REGION_ASKED;
    s->region_of[s->asks] = (uint8_t)index;
    *ask = (struct zone_ask){
        .to = r->contacts[at],
        .id = s->id | s->asks++,
        .range = r->range,
        .bound = zone_top_bound(&s->top),
    };
}

/* Tells of those who have been silent for longer than their round-trip times allow. */
static void region_blame(struct zone_region *r, struct zone_peers *peers, uint64_t now_ns)
{
    for (uint32_t i = 0; i < r->contact_count; i++) {
        uint64_t rto_ns = (uint64_t)zone_peers_rto_us(peers, &r->contacts[i]) * NS_PER_US;
        if (r->tried[i] != 0 && !r->blamed[i] && now_ns >= r->sent_ns[i] + rto_ns) {
            r->blamed[i] = true;
            zone_peers_silent(peers, r->contacts[i].node);
        }
    }
}

/* All contacts were tried: those of the asker's own zone may know others. False: nobody is left. */
static bool region_help(const struct zone_search *s, struct zone_region *r)
{
    if (r->helped || s->helper_count == 0) {
        return false;
    }
    r->helped = true;
    r->referrals = 0;
    for (uint32_t i = 0; i < s->helper_count; i++) {
        r->contacts[r->contact_count++] = s->helpers[i];
    }
    return true;
}

/* Who came with the region is tried once, helpers and those they name more often. */
static uint32_t tries_max(const struct zone_region *r)
{
    uint32_t others = r->contact_count - r->own_count;
    if (others == 0) {
        return (r->helped ? ZONE_SEARCH_ROUNDS : 1) * r->contact_count;
    }
    return (r->renamed ? 0u : r->own_count) + ZONE_SEARCH_ROUNDS * others;
}

/* The region to act on: least bound first. Returns region_count if none. */
static uint32_t region_choose(struct zone_search *s, struct zone_peers *peers, uint64_t now_ns)
{
    uint32_t asked = 0;
    uint32_t best = s->region_count;
    for (uint32_t i = 0; i < s->region_count; i++) {
        struct zone_region *r = &s->regions[i];
        if (!waiting(r) || !matters(s, r)) {
            continue;
        }
        asked += r->state == ZONE_REGION_ASKED;
        if (r->state == ZONE_REGION_ASKED && r->due_ns <= now_ns) {
            region_blame(r, peers, now_ns);
            if (s->asks < ZONE_SEARCH_ASKS_MAX && (r->tries < tries_max(r) || region_help(s, r))) {
                return i;
            }
            r->state = ZONE_REGION_DEAD;
            asked--;
        }
        if (r->state == ZONE_REGION_OPEN && r->contact_count == 0 && !region_help(s, r)) {
            r->state = ZONE_REGION_DEAD;
        }
        if (r->state == ZONE_REGION_OPEN &&
            (best == s->region_count || r->bound < s->regions[best].bound)) {
            best = i;
        }
    }
    uint64_t parallel =
        ZONE_SEARCH_PARALLEL + (now_ns - s->started_ns) / (uint64_t)ZONE_SEARCH_WIDEN_NS;
    return asked < parallel ? best : s->region_count;
}

/* ---- by others ---- */

void zone_search_relay(struct zone_search *s, uint32_t hops)
{
    s->relay.waits = s->relay.count != 0;
    s->relay.hops = (uint8_t)hops;
    s->relay.due_ns = s->started_ns;
}

/* Half of the time is the asker's own, however long others say that they work. */
static void relay_hurry(struct zone_search *s)
{
    uint64_t latest_ns = s->started_ns + (s->deadline_ns - s->started_ns) / 2;
    s->relay.due_ns = s->relay.due_ns < latest_ns ? s->relay.due_ns : latest_ns;
}

static bool relay_poll(struct zone_search *s, struct zone_peers *peers, uint64_t now_ns,
                       struct zone_ask *ask)
{
    struct zone_contact to;
    uint64_t left_ns = s->deadline_ns - now_ns;
    if (!zone_relay_poll(&s->relay, peers, now_ns, &to)) {
        return false;
    }
    relay_hurry(s);
    left_ns = left_ns < ZONE_RELAY_LIMIT_NS ? left_ns : ZONE_RELAY_LIMIT_NS;
    s->region_of[s->asks] = ZONE_REGION_RELAY;
    *ask = (struct zone_ask){
        .to = to,
        .id = s->id | s->asks++,
        .range = ZONE_RANGE_ALL,
        .bound = zone_top_bound(&s->top),
        .budget_ms = (uint16_t)(left_ns / NS_PER_MS + 1),
        .hops = s->relay.hops,
    };
    return true;
}

static void found_take(struct zone_search *s, const struct zone_answer *a, uint64_t now_ns)
{
    for (uint32_t i = 0; i < a->found_count; i++) {
        if (zone_top_add(&s->top, &a->found[i])) {
            s->changed_ns = now_ns;
        }
    }
}

static void relay_answer(struct zone_search *s, struct zone_peers *peers,
                         const struct zone_answer *a, uint64_t now_ns)
{
    if (!zone_relay_heard(&s->relay, peers, a->from, a->stage, now_ns)) {
        return;
    }
    relay_hurry(s);
    found_take(s, a, now_ns);
    s->hops = a->hops + 1u > s->hops ? a->hops + 1u : s->hops;
    if (a->stage != ZONE_RELAY_FINISHED) {
        return;
    }
    s->relay_asks += a->asks;
    if (!zone_range_equal(a->covered, ZONE_RANGE_ALL)) {
        return;
    }
    zone_search_evidence(s, a->excluded_age_ms);
    for (uint32_t i = 0; i < s->region_count; i++) {
        s->regions[i].state = ZONE_REGION_DONE;
    }
    s->lost = false;
}

bool zone_search_poll(struct zone_search *s, struct zone_peers *peers, uint64_t now_ns,
                      struct zone_ask *ask)
{
    if (now_ns >= s->deadline_ns) {
        return false;
    }
    if (s->relay.waits && relay_poll(s, peers, now_ns, ask)) {
        return true;
    }
    if (s->relay.waits) {
        return false;
    }
    uint32_t index = region_choose(s, peers, now_ns);
    if (index == s->region_count || s->asks >= ZONE_SEARCH_ASKS_MAX) {
        return false;
    }
    region_ask(s, index, peers, now_ns, ask);
    return true;
}

void zone_search_gone(struct zone_search *s, const struct zone_peers *peers,
                      const struct zone_ask *ask, uint64_t now_ns)
{
    uint32_t index = s->region_of[ask->id & ASK_MASK];
    if (index == ZONE_REGION_RELAY) {
        zone_relay_gone(&s->relay, peers, now_ns);
        return;
    }
    struct zone_region *r = &s->regions[index];
    r->blamed[r->last] = true; /* nothing was lost on the way */
    r->due_ns = now_ns;
}

/* ---- answers ---- */

/* Which of the contacts it is; ZONE_REGION_CONTACTS: none that was asked. */
static uint32_t region_asked_of(struct zone_region *r, uint32_t from, struct zone_peers *peers,
                                uint64_t now_ns)
{
    for (uint32_t i = 0; i < r->contact_count; i++) {
        if (r->contacts[i].node == from && r->tried[i] != 0) {
            r->blamed[i] = true;    /* no more */
            if (r->tried[i] == 1) { /* asked once: the sample is beyond doubt (Karn) */
                zone_peers_heard(peers, from, (uint32_t)((now_ns - r->sent_ns[i]) / NS_PER_US));
            }
            return i;
        }
    }
    return ZONE_REGION_CONTACTS;
}

static bool region_knows(const struct zone_region *r, uint32_t node)
{
    for (uint32_t i = 0; i < r->contact_count; i++) {
        if (r->contacts[i].node == node) {
            return true;
        }
    }
    return false;
}

/* Somebody who may live there has been asked and is not overdue. */
static bool region_hopes(const struct zone_region *r)
{
    for (uint32_t i = 0; i < r->own_count; i++) {
        if (r->tried[i] != 0 && !r->blamed[i] && may_live_there(r, i)) {
            return true;
        }
    }
    return false;
}

/* Contact `at` does not live there but knows others who may: they take the places of the helpers,
 * and the region stays one, so that those who were asked before need not be given up. False: there
 * is nobody to be waited for, or he has nobody new to name. */
static bool region_rename(struct zone_region *r, uint32_t at, const struct zone_answer *a,
                          uint64_t now_ns)
{
    uint32_t count = r->own_count;
    if (r->renamed || zone_range_valid(a->covered) || may_live_there(r, at) || !region_hopes(r)) {
        return false;
    }
    for (uint32_t i = 0; i < ZONE_CONTACTS * a->piece_count; i++) {
        const struct zone_summary *piece = &a->pieces[i % a->piece_count];
        uint32_t c = i / a->piece_count; /* the first of each piece first */
        if (c < piece->contact_count && count < ZONE_REGION_CONTACTS &&
            !region_knows(r, piece->contacts[c].node)) {
            r->contacts[count] = piece->contacts[c];
            r->tried[count] = 0;
            r->been[count] = r->blamed[count] = false;
            count++;
        }
    }
    if (count == r->own_count) {
        return false;
    }
    r->contact_count = (uint8_t)count;
    r->helped = r->renamed = true;
    r->state = ZONE_REGION_ASKED;
    r->tries = 0;
    r->raced = false;
    r->due_ns = now_ns;
    return true;
}

void zone_search_answer(struct zone_search *s, struct zone_peers *peers,
                        const struct zone_answer *a, uint64_t now_ns)
{
    uint32_t ask = a->id & ASK_MASK;
    if ((a->id & ~ASK_MASK) != s->id || ask >= s->asks || s->region_of[ask] == ZONE_REGION_NONE) {
        return;
    }
    if (s->region_of[ask] == ZONE_REGION_RELAY) {
        relay_answer(s, peers, a, now_ns);
        return;
    }
    struct zone_region *r = &s->regions[s->region_of[ask]];
    uint32_t at = r->state == ZONE_REGION_OPEN ? ZONE_REGION_CONTACTS
                                               : region_asked_of(r, a->from, peers, now_ns);
    if (at == ZONE_REGION_CONTACTS) {
        return;
    }
    found_take(s, a, now_ns);
    if (r->state == ZONE_REGION_DONE) {
        return;
    }
    region_blame(r, peers, now_ns);
    if (region_rename(r, at, a, now_ns)) {
        zone_search_evidence(s, a->excluded_age_ms);
        return;
    }
    struct zone_region asked = *r;
    r->state = ZONE_REGION_DONE;
    s->hops = asked.hops + 1u > s->hops ? asked.hops + 1u : s->hops;
    zone_search_evidence(s, a->excluded_age_ms);
    for (uint32_t i = 0; i < a->piece_count; i++) {
        struct zone_summary piece = a->pieces[i];
        piece.range = zone_range_common(piece.range, asked.range);
        if (!zone_range_valid(piece.range)) {
            continue;
        }
        struct zone_region *part = region_add(s, &piece);
        if (part != NULL) {
            part->hops = (uint8_t)(asked.hops + 1);
        }
        if (part != NULL && !zone_range_valid(a->covered)) {
            region_referred(part, &asked, a->from);
        }
    }
}

/* ---- the end ---- */

uint64_t zone_search_next_ns(const struct zone_search *s)
{
    uint64_t next = s->deadline_ns;
    if (s->relay.waits) {
        return s->relay.due_ns < next ? s->relay.due_ns : next;
    }
    for (uint32_t i = 0; i < s->region_count; i++) {
        const struct zone_region *r = &s->regions[i];
        if (r->state == ZONE_REGION_ASKED && r->due_ns < next && matters(s, r)) {
            next = r->due_ns;
        }
    }
    return next;
}

bool zone_search_done(const struct zone_search *s, uint64_t now_ns)
{
    if (now_ns >= s->deadline_ns) {
        return true;
    }
    bool asking = false;
    bool open = false;
    for (uint32_t i = 0; i < s->region_count; i++) {
        const struct zone_region *r = &s->regions[i];
        if (matters(s, r)) {
            asking = asking || r->state == ZONE_REGION_ASKED;
            open = open || r->state == ZONE_REGION_OPEN;
        }
    }
    return !asking && (!open || s->asks >= ZONE_SEARCH_ASKS_MAX);
}

void zone_search_result(const struct zone_search *s, struct zone_result *result)
{
    *result = (struct zone_result){
        .top = s->top,
        .complete = !s->lost,
        .age_ms = s->evidence_age_ms,
        .settled_ns = s->changed_ns - s->started_ns,
        .asks = s->asks + s->relay_asks,
        .hops = s->hops,
    };
    for (uint32_t i = 0; i < s->top.count; i++) {
        uint32_t age_ms = s->top.all[i].age_ms;
        result->age_ms = age_ms > result->age_ms ? age_ms : result->age_ms;
    }
    for (uint32_t i = 0; i < s->region_count; i++) {
        const struct zone_region *r = &s->regions[i];
        if (r->state == ZONE_REGION_DONE) {
            continue;
        }
        if (!matters(s, r)) {
            result->age_ms = r->age_ms > result->age_ms ? r->age_ms : result->age_ms;
            continue;
        }
        result->complete = false;
        if (result->unheard_count < ZONE_SEARCH_UNHEARD) {
            result->unheard[result->unheard_count] = r->range;
        }
        result->unheard_count++;
    }
}
