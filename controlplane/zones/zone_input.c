/* SPDX-License-Identifier: Apache-2.0 */
/* zone_input.c - what a zone does with a datagram; see zone.h and msg.h. */
#include <string.h>

#include "controlplane/zones/internal.h"

/* ---- answering ---- */

static void answer_records(struct zone *z, const struct zone_query *q, struct zone_range range,
                           uint32_t farthest, struct zone_top *top, uint64_t now_ns)
{
    uint32_t distance;
    if (zone_range_has(range, z->key) && zone_query_match(q, &z->self, &distance) &&
        distance <= farthest) {
        struct zone_found found = zone_found_of(&z->self, distance, 0);
        zone_top_add(top, &found);
    }
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (zone_range_has(range, m->key) && zone_member_live(z, m, now_ns) &&
            zone_query_match(q, &m->record, &distance) && distance <= farthest) {
            struct zone_found found =
                zone_found_of(&m->record, distance, (uint32_t)((now_ns - m->told_ns) / NS_PER_MS));
            zone_top_add(top, &found);
        }
    }
}

/* Contacts that were silent to this node are not named to others, if there is one who was not. */
static void silent_omit(const struct zone *z, struct zone_summary *pieces, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct zone_summary *s = &pieces[i];
        uint32_t kept = 0;
        for (uint32_t c = 0; c < s->contact_count; c++) {
            if (zone_peers_fails(&z->peers, s->contacts[c].node) == 0) {
                s->contacts[kept++] = s->contacts[c];
            }
        }
        s->contact_count = kept != 0 ? (uint8_t)kept : s->contact_count;
    }
}

static void ask_heard(struct zone *z, const struct zone_msg *in, const struct zone_contact *from,
                      uint64_t now_ns, const struct zone_io *io)
{
    const struct zone_ask *ask = &in->ask.ask;
    const struct zone_query *q = &in->ask.query;
    struct zone_msg msg = {.header.kind = ZONE_ANSWER};
    struct zone_answer *a = &msg.answer;
    struct zone_top top;
    if (q->abstract != z->options.abstract) {
        return;
    }
    if (ask->budget_ms != 0 && zone_duty_take(z, in, from, now_ns, io)) {
        return;
    }
    zone_top_init(&top, q->k);
    answer_records(z, q, ask->range, ask->bound, &top, now_ns);
    memcpy(a->found, top.all, top.count * sizeof(top.all[0]));
    a->id = ask->id;
    a->found_count = top.count;
    a->covered = zone_range_common(z->synced, ask->range);
    /* What this node has answered itself holds nothing more. */
    struct zone_summary own;
    zone_summary_init(&own, z->synced);
    uint32_t farthest = zone_top_bound(&top) < ask->bound ? zone_top_bound(&top) : ask->bound;
    a->piece_count = zone_view_pieces(
        &z->view, zone_range_valid(a->covered) ? &own : NULL, ask->range, q, farthest, a->pieces,
        zone_answer_room(top.count), q->x, q->y, now_ns, &a->excluded_age_ms);
    silent_omit(z, a->pieces, a->piece_count);
    zone_send(z, io, from, &msg);
}

static void pull_heard(struct zone *z, const struct zone_msg *in, const struct zone_contact *from,
                       uint64_t now_ns, const struct zone_io *io)
{
    struct zone_msg msg = {.header.kind = ZONE_VIEW};
    uint32_t excluded;
    if (!z->joined) {
        return;
    }
    uint16_t x;
    uint16_t y;
    zone_area_place(from->area, &x, &y);
    zone_own_update(z, now_ns);
    msg.view.id = in->pull.id;
    msg.view.count =
        (uint8_t)zone_view_pieces(&z->view, &z->own, in->pull.range, NULL, UINT32_MAX, msg.view.all,
                                  in->pull.want, x, y, now_ns, &excluded);
    silent_omit(z, msg.view.all, msg.view.count);
    zone_send(z, io, from, &msg);
}

static void page_add(struct zone_page *page, const struct zone_record *record, uint64_t age_ms)
{
    page->all[page->count].record = *record;
    page->all[page->count++].age_ms = (uint16_t)(age_ms < UINT16_MAX ? age_ms : UINT16_MAX);
}

/* A page of records in order of path. Equal paths stay together as long as a page has room. */
static void fetch_heard(struct zone *z, const struct zone_msg *in, const struct zone_contact *from,
                        uint64_t now_ns, const struct zone_io *io)
{
    struct zone_msg msg = {.header.kind = ZONE_RECORDS};
    if (in->fetch.id == 0) { /* nobody's question but for this node's own record */
        msg.header.kind = ZONE_STATE;
        msg.state = z->self;
        zone_send(z, io, from, &msg);
        return;
    }
    struct zone_page *page = &msg.page;
    bool self_waits = zone_range_has(in->fetch.range, z->key);
    page->id = in->fetch.id;
    page->next = ZONE_KEY_END;
    page->whole = zone_range_valid(z->synced) && zone_range_inside(in->fetch.range, z->synced);
    for (uint32_t i = 0; i <= z->member_count; i++) {
        const struct zone_member *m = i < z->member_count ? &z->members[i] : NULL;
        uint64_t key = m != NULL ? m->key : ZONE_KEY_END;
        if (self_waits && z->key <= key) {
            if (page->count == ZONE_PAGE_MAX) {
                page->next = z->key;
                break;
            }
            page_add(page, &z->self, 0);
            self_waits = false;
        }
        if (m != NULL && zone_range_has(in->fetch.range, key) && zone_member_live(z, m, now_ns)) {
            if (page->count == ZONE_PAGE_MAX) {
                page->next = key != in->fetch.range.lo ? key : key + 1; /* never in a circle */
                break;
            }
            page_add(page, &m->record, (now_ns - m->told_ns) / NS_PER_MS);
        }
    }
    zone_send(z, io, from, &msg);
}

/* ---- taking ---- */

/* A mate's record did not arrive, or not its latest edition: it is asked for it. */
static void record_missed(struct zone *z, const struct zone_contact *from, uint64_t now_ns,
                          const struct zone_io *io)
{
    struct zone_msg msg = {.header.kind = ZONE_FETCH};
    if (!z->joined || now_ns - z->missed_ns < ZONE_MISSED_NS) {
        return;
    }
    z->missed_ns = now_ns;
    msg.fetch = (struct zone_fetch){.id = 0, .range = z->claim};
    zone_send(z, io, from, &msg);
}

static void delta_heard(struct zone *z, const struct zone_msg *msg, const struct zone_contact *from,
                        uint64_t now_ns, const struct zone_io *io)
{
    struct zone_member *m = zone_member_find(z, msg->header.node);
    if (m == NULL) {
        if (zone_range_equal(msg->header.claim, z->claim)) {
            record_missed(z, from, now_ns, io);
        }
        return;
    }
    m->heard_ns = now_ns;
    if (msg->delta.version >> 32 > m->record.version >> 32) {
        record_missed(z, from, now_ns, io);
    }
    if (msg->delta.version >> 32 != m->record.version >> 32 ||
        msg->delta.version < m->record.version ||
        msg->delta.vram_free_64mib > m->record.vram_total_64mib) {
        return;
    }
    m->record.version = msg->delta.version;
    m->record.queue_us = msg->delta.queue_us;
    m->record.room = msg->delta.room;
    m->record.vram_free_64mib = msg->delta.vram_free_64mib;
    m->told_ns = now_ns;
}

static void answer_heard(struct zone *z, struct zone_msg *msg, uint64_t now_ns)
{
    msg->answer.from = msg->header.node;
    for (uint32_t i = 0; i < ZONE_SEARCHES_MAX; i++) {
        if (z->searches[i] != NULL) {
            zone_search_answer(z->searches[i], &z->peers, &msg->answer, now_ns);
        }
    }
    for (uint32_t i = 0; i < z->options.duty_max; i++) {
        struct zone_duty *d = &z->options.duties[i];
        if (d->used) {
            zone_search_answer(&d->search, &z->peers, &msg->answer, now_ns);
        }
    }
}

static void maintenance_heard(struct zone *z, const struct zone_msg *msg,
                              const struct zone_contact *from, uint64_t now_ns,
                              const struct zone_io *io)
{
    switch (msg->header.kind) {
    case ZONE_STATE:
        if (msg->state.node == msg->header.node) {
            zone_member_put(z, &msg->state, 0, now_ns);
        }
        break;
    case ZONE_DELTA:
        delta_heard(z, msg, from, now_ns, io);
        break;
    case ZONE_PULL:
        pull_heard(z, msg, from, now_ns, io);
        break;
    case ZONE_VIEW:
        zone_view_heard(z, msg, from, now_ns, io);
        break;
    case ZONE_FETCH:
        fetch_heard(z, msg, from, now_ns, io);
        break;
    case ZONE_RECORDS:
        zone_fetch_heard(z, msg, now_ns, io);
        break;
    case ZONE_RESHAPE:
        zone_reshape_heard(z, msg, from, now_ns, io);
        break;
    default:
        break;
    }
}

void zone_input(struct zone *z, const void *data, size_t size, const struct in6_addr *addr,
                const uint8_t *public_key, uint64_t now_ns, const struct zone_io *io)
{
    struct zone_msg msg;
    if (!zone_msg_read(data, size, public_key, &msg) || msg.header.node == z->self.node) {
        z->counters.malformed++;
        return;
    }
    struct zone_contact from = {.node = msg.header.node, .area = msg.header.area, .addr = *addr};
    zone_claim_heard(z, &msg, &from, now_ns, io);
    if (msg.header.kind == ZONE_ASK) {
        ask_heard(z, &msg, &from, now_ns, io);
    } else if (msg.header.kind == ZONE_ANSWER) {
        answer_heard(z, &msg, now_ns);
        zone_searches_poll(z, now_ns, io);
    } else {
        maintenance_heard(z, &msg, &from, now_ns, io);
    }
}
