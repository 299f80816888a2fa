/* SPDX-License-Identifier: Apache-2.0 */
/* zone.c - see zone.h: members, claims and searches. upkeep.c keeps the view, reshape.c splits and
 * merges, zone_input.c takes datagrams. */
#include "controlplane/zones/zone.h"

#include <errno.h>
#include <string.h>

#include "controlplane/zones/internal.h"

struct zone_contact zone_contact_of(const struct zone_record *r)
{
    return (struct zone_contact){
        .node = r->node,
        .area = zone_area(zone_key(r->x, r->y, r->tier, r->node)),
        .addr = r->addr,
    };
}

bool zone_claim_beats(struct zone_range a, uint32_t a_epoch, struct zone_range b, uint32_t b_epoch)
{
    if (a_epoch != b_epoch) {
        return a_epoch > b_epoch;
    }
    return a.lo != b.lo ? a.lo < b.lo : a.hi > b.hi;
}

void zone_init(struct zone *z, const struct zone_options *options, const struct zone_record *self,
               struct zone_member *members, uint32_t member_max, uint64_t now_ns)
{
    memset(z, 0, sizeof(*z));
    z->options = *options;
    if (z->options.split_above == 0) {
        z->options.split_above = ZONE_SPLIT_ABOVE;
    }
    if (z->options.merge_below == 0) {
        z->options.merge_below = ZONE_MERGE_BELOW;
    }
    if (z->options.silence_ns == 0) {
        z->options.silence_ns = ZONE_SILENCE_NS;
    }
    z->self = *self;
    z->key = zone_key(self->x, self->y, self->tier, self->node);
    z->rng.state = options->seed;
    z->members = members;
    z->member_max = member_max;
    for (uint32_t i = 0; i < options->duty_max; i++) {
        options->duties[i].used = false;
    }
    z->peers.x = self->x;
    z->peers.y = self->y;
    z->peers.abstract = options->abstract;
    z->state_due_ns = now_ns + rng_next(&z->rng) % ZONE_STATE_NS;
    z->pull_due_ns = now_ns + rng_next(&z->rng) % ZONE_PULL_NS;
    z->shape_due_ns = now_ns + rng_next(&z->rng) % ZONE_STATE_NS;
    z->repair_due_ns = now_ns + rng_next(&z->rng) % ZONE_REPAIR_NS;
}

void zone_found_mesh(struct zone *z, uint64_t now_ns)
{
    z->joined = true;
    z->claim = ZONE_RANGE_ALL;
    z->synced = ZONE_RANGE_ALL;
    z->epoch = 1;
    zone_own_update(z, now_ns);
}

void zone_set_self(struct zone *z, const struct zone_record *self, uint64_t now_ns)
{
    struct zone_record next = *self;
    uint64_t edition = z->self.version >> 32;
    bool lasting = self->tags != z->self.tags || self->jurisdiction != z->self.jurisdiction ||
                   self->model_count != z->self.model_count ||
                   self->vram_total_64mib != z->self.vram_total_64mib ||
                   memcmp(self->models, z->self.models, sizeof(self->models)) != 0;
    next.node = z->self.node;
    next.x = z->self.x;
    next.y = z->self.y;
    next.tier = z->self.tier;
    next.version = lasting ? (edition + 1) << 32 : z->self.version + 1;
    bool notable = lasting || (self->room == 0) != (z->self.room == 0);
    z->self = next;
    if (lasting) {
        z->state_count = 0; /* all of it */
    }
    if (notable) {
        uint64_t soon_ns = z->told_ns + ZONE_SOON_NS;
        soon_ns = soon_ns > now_ns ? soon_ns : now_ns;
        z->state_due_ns = soon_ns < z->state_due_ns ? soon_ns : z->state_due_ns;
    }
}

/* ---- sending ---- */

bool zone_send(struct zone *z, const struct zone_io *io, const struct zone_contact *to,
               struct zone_msg *msg)
{
    uint8_t data[ZONE_DATAGRAM_MAX];
    msg->header.node = z->self.node;
    msg->header.area = zone_area(z->key);
    msg->header.epoch = z->epoch;
    msg->header.claim = z->claim;
    size_t size = zone_msg_write(data, msg, z->options.sign_secret);
    if (!io->send(io->user, to, data, size)) {
        return false;
    }
    z->counters.datagrams_sent++;
    z->counters.bytes_sent += size;
    return true;
}

void zone_broadcast(struct zone *z, const struct zone_io *io, struct zone_msg *msg, uint64_t now_ns)
{
    for (uint32_t i = 0; i < z->member_count; i++) {
        if (zone_member_live(z, &z->members[i], now_ns) &&
            zone_range_has(z->claim, z->members[i].key)) {
            struct zone_contact to = zone_contact_of(&z->members[i].record);
            zone_send(z, io, &to, msg);
        }
    }
}

/* ---- members ---- */

struct zone_member *zone_member_find(struct zone *z, uint32_t node)
{
    for (uint32_t i = 0; i < z->member_count; i++) {
        if (z->members[i].record.node == node) {
            return &z->members[i];
        }
    }
    return NULL;
}

bool zone_member_live(const struct zone *z, const struct zone_member *m, uint64_t now_ns)
{
    return now_ns - m->heard_ns < z->options.silence_ns;
}

static void member_remove(struct zone *z, uint32_t at)
{
    z->member_count--;
    memmove(&z->members[at], &z->members[at + 1], (z->member_count - at) * sizeof(z->members[0]));
}

void zone_member_put(struct zone *z, const struct zone_record *record, uint32_t age_ms,
                     uint64_t now_ns)
{
    uint64_t age_ns = age_ms * NS_PER_MS;
    uint64_t then_ns = now_ns > age_ns ? now_ns - age_ns : 0;
    if (record->node == z->self.node || age_ns >= z->options.silence_ns) {
        return;
    }
    struct zone_member *m = zone_member_find(z, record->node);
    if (m != NULL) {
        m->heard_ns = then_ns > m->heard_ns ? then_ns : m->heard_ns;
        if (record->version > m->record.version) {
            uint64_t key = zone_key(record->x, record->y, record->tier, record->node);
            m->told_ns = then_ns;
            m->record = *record;
            if (key != m->key) { /* it has moved */
                struct zone_member moved = *m;
                moved.key = key;
                member_remove(z, (uint32_t)(m - z->members));
                uint32_t at = z->member_count++;
                for (; at > 0 && z->members[at - 1].key > key; at--) {
                    z->members[at] = z->members[at - 1];
                }
                z->members[at] = moved;
            }
        } else if (record->version == m->record.version && then_ns > m->told_ns) {
            m->told_ns = then_ns;
        }
        return;
    }
    if (z->member_count == z->member_max) {
        z->counters.members_refused++;
        z->synced = (struct zone_range){0, 0}; /* not all are known any more */
        return;
    }
    struct zone_member fresh = {
        .record = *record,
        .key = zone_key(record->x, record->y, record->tier, record->node),
        .heard_ns = then_ns,
        .told_ns = then_ns,
    };
    fresh.left_ns = zone_range_has(z->claim, fresh.key) || !z->joined ? 0 : now_ns;
    uint32_t at = z->member_count++;
    for (; at > 0 && z->members[at - 1].key > fresh.key; at--) {
        z->members[at] = z->members[at - 1];
    }
    z->members[at] = fresh;
}

void zone_member_down(struct zone *z, uint32_t node)
{
    struct zone_member *m = zone_member_find(z, node);
    if (m != NULL) {
        member_remove(z, (uint32_t)(m - z->members));
    }
}

void zone_lost_add(struct zone *z, const struct zone_contact *contact)
{
    uint32_t kept = z->lost_count < ZONE_LOST_MAX ? z->lost_count : ZONE_LOST_MAX;
    for (uint32_t i = 0; i < kept; i++) {
        if (z->lost[i].node == contact->node) {
            return;
        }
    }
    z->lost[z->lost_count++ % ZONE_LOST_MAX] = *contact;
}

void zone_meet(struct zone *z, const struct zone_contact *contact)
{
    if (contact->node != z->self.node && zone_member_find(z, contact->node) == NULL) {
        zone_lost_add(z, contact);
    }
}

void zone_members_expire(struct zone *z, uint64_t now_ns)
{
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        bool silent = z->options.silence_ns != UINT64_MAX && now_ns - m->heard_ns >= ZONE_FORGET_NS;
        if (silent) {
            struct zone_contact contact = zone_contact_of(&m->record);
            zone_lost_add(z, &contact);
        }
        if (silent || (m->left_ns != 0 && now_ns - m->left_ns >= ZONE_LINGER_NS)) {
            member_remove(z, i--);
        }
    }
}

uint32_t zone_live(const struct zone *z, uint64_t now_ns)
{
    uint32_t live = z->joined;
    for (uint32_t i = 0; i < z->member_count; i++) {
        live += zone_member_live(z, &z->members[i], now_ns) &&
                zone_range_has(z->claim, z->members[i].key);
    }
    return live;
}

/* A reservoir over all members; `fixed` places in front stay as they are. */
static void contact_draw(struct zone *z, struct zone_summary *s, const struct zone_member *m,
                         uint32_t fixed, uint32_t *seen)
{
    uint32_t at =
        s->contact_count < ZONE_CONTACTS ? s->contact_count++ : fixed + rng_below(&z->rng, ++*seen);
    if (at < ZONE_CONTACTS) {
        s->contacts[at] = zone_contact_of(&m->record);
    }
}

/* Summary of the members in a range; unless all of them are known it excludes nothing. A few
 * contacts are drawn, so that askers spread: of those who were heard a moment ago, if there are
 * any. Who is silent still counts for a while, but is not named any more. */
static void summarise(struct zone *z, struct zone_range range, bool known, struct zone_summary *s,
                      uint64_t now_ns)
{
    uint32_t contacts = 0;
    uint32_t fixed = zone_range_has(range, z->key); /* place 0 stays with this node */
    zone_summary_init(s, range);
    s->epoch = z->epoch;
    if (fixed != 0) {
        struct zone_contact self = zone_contact_of(&z->self);
        zone_summary_add(s, &z->self);
        s->contacts[s->contact_count++] = self;
        contacts++;
    }
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (!zone_member_live(z, m, now_ns) || !zone_range_has(range, m->key)) {
            continue;
        }
        uint32_t age_ms = (uint32_t)((now_ns - m->told_ns) / NS_PER_MS);
        zone_summary_add(s, &m->record);
        s->age_ms = age_ms > s->age_ms ? age_ms : s->age_ms;
        if (now_ns - m->heard_ns < ZONE_NAMED_NS) {
            contact_draw(z, s, m, fixed, &contacts);
        }
    }
    for (uint32_t i = 0; s->contact_count == 0 && i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (zone_member_live(z, m, now_ns) && zone_range_has(range, m->key)) {
            contact_draw(z, s, m, fixed, &contacts);
        }
    }
    if (!known) {
        struct zone_summary all;
        zone_summary_unknown(&all, range);
        memcpy(all.contacts, s->contacts, sizeof(all.contacts));
        all.contact_count = s->contact_count;
        all.epoch = s->epoch;
        all.live = s->live > 0 ? s->live : 1;
        *s = all;
    }
}

void zone_own_update(struct zone *z, uint64_t now_ns)
{
    uint16_t version = (uint16_t)(z->own.version + 1);
    summarise(z, z->claim, zone_range_equal(z->synced, z->claim), &z->own, now_ns);
    z->own.version = version;
}

/* ---- claims ---- */

void zone_claim_set(struct zone *z, struct zone_range claim, uint32_t epoch, bool split,
                    uint64_t now_ns)
{
    struct zone_range was = z->claim;
    z->claim = claim;
    z->epoch = epoch;
    /* What was given up: summed up from the records as long as nothing better is known. */
    struct zone_range parts[2] = {{was.lo, claim.lo < was.hi ? claim.lo : was.hi},
                                  {claim.hi > was.lo ? claim.hi : was.lo, was.hi}};
    for (uint32_t i = 0; i < 2; i++) {
        if (z->joined && zone_range_valid(was) && zone_range_valid(parts[i])) {
            struct zone_summary piece;
            summarise(z, parts[i], split && zone_range_inside(parts[i], z->synced), &piece, now_ns);
            zone_view_replace(&z->view, parts[i], &piece, 1, now_ns, z->self.x, z->self.y);
        }
    }
    zone_view_replace(&z->view, claim, NULL, 0, now_ns, z->self.x, z->self.y);
    z->synced = zone_range_common(z->synced, claim);
    for (uint32_t i = 0; i < z->member_count; i++) {
        struct zone_member *m = &z->members[i];
        bool inside = zone_range_has(claim, m->key);
        m->left_ns = inside ? 0 : m->left_ns != 0 ? m->left_ns : now_ns;
    }
    zone_own_update(z, now_ns);
    z->state_count = 0;
    z->state_due_ns = now_ns;
}

void zone_claim_heard(struct zone *z, const struct zone_msg *msg, const struct zone_contact *from,
                      uint64_t now_ns, const struct zone_io *io)
{
    struct zone_range theirs = msg->header.claim;
    if (z->joined && zone_range_valid(theirs) && zone_range_overlap(theirs, z->claim) &&
        !zone_range_equal(theirs, z->claim) &&
        zone_claim_beats(z->claim, z->epoch, theirs, msg->header.epoch) &&
        now_ns - z->corrected_ns >= ZONE_CORRECT_NS) {
        z->corrected_ns = now_ns;
        struct zone_msg state;
        state.header.kind = ZONE_STATE;
        state.state = z->self;
        zone_send(z, io, from, &state);
    }
    if (!z->joined || !zone_range_valid(theirs) || !zone_range_overlap(theirs, z->claim) ||
        zone_range_equal(theirs, z->claim) ||
        !zone_claim_beats(theirs, msg->header.epoch, z->claim, z->epoch)) {
        if (z->joined && zone_range_equal(theirs, z->claim)) {
            z->epoch = msg->header.epoch > z->epoch ? msg->header.epoch : z->epoch;
            /* A mate that was lost, or is new: he may know more of them. */
            if (!z->fetch.waits && msg->header.kind != ZONE_STATE &&
                zone_member_find(z, from->node) == NULL) {
                zone_fetch_begin(z, from, z->claim, now_ns, io);
            }
        }
        return;
    }
    if (zone_range_has(theirs, z->key)) {
        z->counters.adopted++;
        z->reshape.pending = false;
        zone_claim_set(z, theirs, msg->header.epoch, false, now_ns);
        if (!zone_range_equal(z->synced, z->claim)) {
            zone_fetch_begin(z, from, z->claim, now_ns, io);
        }
        return;
    }
    /* What is theirs is given up; the side that this node is on stays. */
    struct zone_range rest = z->claim;
    if (z->key < theirs.lo) {
        rest.hi = theirs.lo;
    } else {
        rest.lo = theirs.hi;
    }
    z->counters.trimmed++;
    z->reshape.pending = false;
    /* A new epoch, so that the mates who have not heard of it follow and not the other way round.
     */
    zone_claim_set(z, rest, msg->header.epoch + 1, false, now_ns);
}

/* ---- searches ---- */

static void search_local(struct zone *z, struct zone_search *s, uint64_t now_ns)
{
    uint32_t distance;
    if (zone_query_match(&s->query, &z->self, &distance)) {
        struct zone_found found = zone_found_of(&z->self, distance, 0);
        zone_top_add(&s->top, &found);
    }
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (zone_member_live(z, m, now_ns) && zone_query_match(&s->query, &m->record, &distance)) {
            struct zone_found found =
                zone_found_of(&m->record, distance, (uint32_t)((now_ns - m->told_ns) / NS_PER_MS));
            zone_top_add(&s->top, &found);
        }
    }
}

/* Members of the own zone who may know others: the nearest in time. */
static void search_helpers(struct zone *z, struct zone_search *s, uint64_t now_ns)
{
    uint32_t rtt_us[ZONE_CONTACTS];
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (!zone_member_live(z, m, now_ns) || !zone_range_has(z->claim, m->key)) {
            continue;
        }
        struct zone_contact contact = zone_contact_of(&m->record);
        uint32_t rtt = zone_peers_rtt_us(&z->peers, &contact);
        uint32_t at = s->helper_count < ZONE_CONTACTS ? s->helper_count++ : ZONE_CONTACTS;
        for (; at > 0 && rtt_us[at - 1] > rtt; at--) {
            if (at < ZONE_CONTACTS) {
                rtt_us[at] = rtt_us[at - 1];
                s->helpers[at] = s->helpers[at - 1];
            }
        }
        if (at < ZONE_CONTACTS) {
            rtt_us[at] = rtt;
            s->helpers[at] = contact;
        }
    }
}

static void search_regions(struct zone *z, struct zone_search *s, uint64_t now_ns)
{
    uint64_t at = 0;
    struct zone_summary unknown;
    for (uint32_t i = 0; i <= z->view.count; i++) {
        bool end = i == z->view.count;
        struct zone_range range =
            end ? (struct zone_range){ZONE_KEY_END, 0} : z->view.all[i].is.range;
        /* Holes between entries, but for what this node answers itself. */
        while (at < range.lo) {
            struct zone_range hole = {at, range.lo};
            if (zone_range_valid(z->synced) && zone_range_overlap(hole, z->synced)) {
                if (z->synced.lo <= at) {
                    at = z->synced.hi;
                    continue;
                }
                hole.hi = z->synced.lo;
            }
            zone_summary_unknown(&unknown, hole);
            zone_search_add(s, &unknown);
            at = hole.hi;
        }
        if (!end) {
            struct zone_summary is = z->view.all[i].is;
            is.age_ms = zone_entry_age_ms(&z->view.all[i], now_ns);
            zone_search_add(s, &is);
            at = range.hi;
        }
    }
}

/* Who could do a search for a far place: of all that are known those who live at most half as far
 * from it as this node does. */
static void relays_choose(struct zone *z, struct zone_search *s)
{
    const struct zone_query *q = &s->query;
    uint64_t cost_us[ZONE_RELAYS_MAX];
    uint64_t way_us = zone_peers_way_us(zone_area(z->key), q->x, q->y);
    if (z->options.abstract || way_us < ZONE_RELAY_FAR_US) {
        return;
    }
    for (uint32_t i = 0; i < z->view.count; i++) {
        const struct zone_summary *is = &z->view.all[i].is;
        for (uint32_t c = 0; c < is->contact_count; c++) {
            const struct zone_contact *contact = &is->contacts[c];
            uint64_t rest_us = zone_peers_way_us(contact->area, q->x, q->y);
            if (2 * rest_us <= way_us && zone_peers_fails(&z->peers, contact->node) == 0) {
                zone_relay_offer(&s->relay, cost_us, contact,
                                 zone_peers_rtt_us(&z->peers, contact) + 2 * rest_us);
            }
        }
    }
}

void zone_search_start(struct zone *z, struct zone_search *s, const struct zone_query *query,
                       uint32_t hops, uint64_t now_ns, uint64_t deadline_ns)
{
    zone_search_init(s, query, (uint32_t)rng_next(&z->rng), now_ns, deadline_ns);
    search_local(z, s, now_ns);
    search_helpers(z, s, now_ns);
    search_regions(z, s, now_ns);
    if (hops != 0) {
        relays_choose(z, s);
        zone_search_relay(s, hops - 1);
    }
}

int zone_search_begin(struct zone *z, struct zone_search *s, const struct zone_query *query,
                      uint64_t now_ns, uint64_t deadline_ns, const struct zone_io *io)
{
    if (!zone_query_valid(query) || query->abstract != z->options.abstract) {
        return -EINVAL;
    }
    uint32_t slot = 0;
    while (slot < ZONE_SEARCHES_MAX && z->searches[slot] != NULL) {
        slot++;
    }
    if (slot == ZONE_SEARCHES_MAX) {
        return -EBUSY;
    }
    zone_search_start(z, s, query, ZONE_RELAY_HOPS, now_ns, deadline_ns);
    z->searches[slot] = s;
    zone_searches_poll(z, now_ns, io);
    return 0;
}

void zone_search_end(struct zone *z, struct zone_search *s)
{
    for (uint32_t i = 0; i < ZONE_SEARCHES_MAX; i++) {
        z->searches[i] = z->searches[i] == s ? NULL : z->searches[i];
    }
}

void zone_search_step(struct zone *z, struct zone_search *s, uint64_t now_ns,
                      const struct zone_io *io)
{
    struct zone_ask ask = {.budget_ms = 0};
    while (zone_search_poll(s, &z->peers, now_ns, &ask)) {
        struct zone_msg msg;
        msg.header.kind = ZONE_ASK;
        msg.ask.ask = ask;
        msg.ask.query = s->query;
        if (!zone_send(z, io, &ask.to, &msg)) {
            zone_search_gone(s, &z->peers, &ask, now_ns);
        }
    }
}

void zone_searches_poll(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    for (uint32_t i = 0; i < ZONE_SEARCHES_MAX; i++) {
        if (z->searches[i] != NULL) {
            zone_search_step(z, z->searches[i], now_ns, io);
        }
    }
    zone_duties_poll(z, now_ns, io);
}

uint64_t zone_searches_next_ns(const struct zone *z)
{
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < ZONE_SEARCHES_MAX; i++) {
        uint64_t due = z->searches[i] != NULL ? zone_search_next_ns(z->searches[i]) : UINT64_MAX;
        next = due < next ? due : next;
    }
    for (uint32_t i = 0; i < z->options.duty_max; i++) {
        const struct zone_duty *d = &z->options.duties[i];
        uint64_t due = d->used ? zone_search_next_ns(&d->search) : UINT64_MAX;
        next = due < next ? due : next;
    }
    return next;
}
