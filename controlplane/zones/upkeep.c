/* SPDX-License-Identifier: Apache-2.0 */
/* upkeep.c - what a zone does without being asked: joins, tells its state, fetches records, renews
 * its view. See zone.h. */
#include <string.h>

#include "controlplane/zones/internal.h"

#define JOIN_TRIES_MAX  32u
#define FETCH_TRIES_MAX 4u
#define FETCH_POOR_MAX  8u
#define FETCH_AGAIN_NS  (NS_PER_S / 2)
#define STALE_FAILS     3u
#define RETRIES_MAX     (2 * STALE_FAILS) /* of an entry nobody answers for, at once */
#define RETRY_DUE       1.5               /* before what is due, after what is overdue */
#define LOST_HOPS_MAX   8u
#define BACK_OFF_MAX    3u
#define HOPE_PERCENT    60u /* of a guess: what the fastest tenth of routes takes */

/* With back-off: else a peer farther than was guessed would never be measured. */
uint64_t zone_patience_ns(const struct zone *z, const struct zone_contact *to)
{
    uint32_t fails = zone_peers_fails(&z->peers, to->node);
    uint64_t rto_ns = (uint64_t)zone_peers_rto_us(&z->peers, to) * NS_PER_US;
    return rto_ns << (fails < BACK_OFF_MAX ? fails : BACK_OFF_MAX);
}

static void pending_send(struct zone *z, struct zone_pending *p, const struct zone_contact *to,
                         struct zone_range range, uint64_t now_ns)
{
    p->id = ++z->next_id;
    p->range = range;
    p->to = *to;
    p->waits = true;
    p->sent_ns = now_ns;
    p->due_ns = now_ns + zone_patience_ns(z, to);
}

static bool pending_answered(struct zone *z, struct zone_pending *p, uint32_t id, uint32_t node,
                             uint64_t now_ns)
{
    if (!p->waits || p->id != id || p->to.node != node) {
        return false;
    }
    zone_peers_heard(&z->peers, node, (uint32_t)((now_ns - p->sent_ns) / NS_PER_US));
    p->waits = false;
    return true;
}

static bool pending_late(const struct zone_pending *p, uint64_t now_ns)
{
    return p->waits && p->due_ns <= now_ns;
}

static void pull_send(struct zone *z, struct zone_pending *p, const struct zone_contact *to,
                      struct zone_range range, uint32_t want, uint64_t now_ns,
                      const struct zone_io *io)
{
    struct zone_msg msg = {.header.kind = ZONE_PULL};
    pending_send(z, p, to, range, now_ns);
    msg.pull = (struct zone_pull){.id = p->id, .range = range, .want = (uint8_t)want};
    zone_send(z, io, to, &msg);
}

/* A live member of the claim, drawn; false: there is none. */
static bool mate_draw(struct zone *z, uint64_t now_ns, struct zone_contact *mate)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (zone_member_live(z, m, now_ns) && zone_range_has(z->claim, m->key) &&
            rng_below(&z->rng, ++seen) == 0) {
            *mate = zone_contact_of(&m->record);
        }
    }
    return seen != 0;
}

/* ---- joining ---- */

void zone_join_step(struct zone *z, const struct zone_contact *to, uint64_t now_ns,
                    const struct zone_io *io)
{
    z->join.tries++;
    pull_send(z, &z->join, to, (struct zone_range){z->key, z->key + 1}, 1, now_ns, io);
}

void zone_join(struct zone *z, const struct zone_contact *seed, uint64_t now_ns,
               const struct zone_io *io)
{
    z->seed = *seed;
    zone_lost_add(z, seed); /* to be asked now and then, for ever */
    z->join.tries = 0;
    zone_join_step(z, seed, now_ns, io);
}

static void join_heard(struct zone *z, const struct zone_msg *msg, const struct zone_contact *from,
                       uint64_t now_ns, const struct zone_io *io)
{
    if (zone_range_has(msg->header.claim, z->key)) {
        z->joined = true;
        zone_claim_set(z, msg->header.claim, msg->header.epoch, false, now_ns);
        z->synced = (struct zone_range){0, 0};
        zone_fetch_begin(z, from, z->claim, now_ns, io);
        return;
    }
    const struct zone_summary *piece = &msg->view.all[0];
    if (piece->contact_count == 0 || z->join.tries >= JOIN_TRIES_MAX) {
        zone_join(z, &z->seed, now_ns, io);
        return;
    }
    struct zone_contact next = piece->contacts[rng_below(&z->rng, piece->contact_count)];
    zone_join_step(z, next.node == z->self.node ? &z->seed : &next, now_ns, io);
}

/* ---- records of the own zone ---- */

void zone_fetch_begin(struct zone *z, const struct zone_contact *from, struct zone_range range,
                      uint64_t now_ns, const struct zone_io *io)
{
    struct zone_msg msg = {.header.kind = ZONE_FETCH};
    z->fetch_whole = range;
    z->fetch_partial = false;
    z->fetch.tries = 0;
    pending_send(z, &z->fetch, from, range, now_ns);
    msg.fetch = (struct zone_fetch){.id = z->fetch.id, .range = range};
    zone_send(z, io, from, &msg);
}

static void fetch_retry(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    struct zone_contact to = z->fetch.to;
    zone_peers_silent(&z->peers, to.node);
    if (++z->fetch.tries >= FETCH_TRIES_MAX) {
        z->fetch.tries = 0;
        z->fetch.range = z->fetch_whole;
        z->fetch_partial = false;
        if (!mate_draw(z, now_ns, &to)) {
            z->fetch.waits = false;
            if (!zone_range_valid(z->synced)) { /* joined nobody: begin anew */
                z->joined = false;
                zone_join(z, &z->seed, now_ns, io);
            }
            return;
        }
    }
    uint8_t tries = z->fetch.tries;
    struct zone_msg msg = {.header.kind = ZONE_FETCH};
    pending_send(z, &z->fetch, &to, z->fetch.range, now_ns);
    z->fetch.tries = tries;
    z->fetch.due_ns += (z->fetch.due_ns - now_ns) << tries;
    msg.fetch = (struct zone_fetch){.id = z->fetch.id, .range = z->fetch.range};
    zone_send(z, io, &to, &msg);
}

/* All pages are here. What comes from somebody who does not know all himself is as good as it gets
 * only if nobody seems to: after FETCH_POOR_MAX of them. */
static void fetch_finish(struct zone *z, uint64_t now_ns)
{
    if (z->fetch_partial && !zone_range_equal(z->synced, z->claim) &&
        ++z->fetch_poor < FETCH_POOR_MAX) {
        z->repair_due_ns = now_ns + FETCH_AGAIN_NS;
        z->state_due_ns = now_ns; /* those who were found are told all the same */
        z->state_count = 0;
        return;
    }
    z->fetch_poor = 0;
    if (z->reshape.pending && z->reshape.cut == 0 &&
        !zone_range_overlap(z->fetch_whole, z->claim)) {
        z->reshape.fetched = !z->fetch_partial;
        z->reshape.fetched_ns = now_ns;
        return;
    }
    struct zone_range have = zone_range_common(z->fetch_whole, z->claim);
    if (zone_range_inside(z->claim, z->fetch_whole)) {
        have = z->claim;
    }
    if (zone_range_equal(have, z->claim) && z->member_count < z->member_max) {
        z->synced = z->claim;
    }
    if (!zone_range_equal(z->synced, z->claim)) {
        z->repair_due_ns = now_ns;
    }
    zone_own_update(z, now_ns);
    z->state_count = 0; /* all members are known now: tell them */
    z->state_due_ns = now_ns;
}

void zone_fetch_heard(struct zone *z, const struct zone_msg *msg, uint64_t now_ns,
                      const struct zone_io *io)
{
    const struct zone_page *page = &msg->page;
    if (!pending_answered(z, &z->fetch, page->id, msg->header.node, now_ns)) {
        return;
    }
    z->fetch_partial = z->fetch_partial || !page->whole;
    for (uint32_t i = 0; i < page->count; i++) {
        zone_member_put(z, &page->all[i].record, page->all[i].age_ms, now_ns);
    }
    if (page->next < z->fetch_whole.hi && page->next > z->fetch.range.lo) {
        struct zone_msg next = {.header.kind = ZONE_FETCH};
        struct zone_contact to = z->fetch.to;
        pending_send(z, &z->fetch, &to, (struct zone_range){page->next, z->fetch_whole.hi}, now_ns);
        z->fetch.tries = 0;
        next.fetch = (struct zone_fetch){.id = z->fetch.id, .range = z->fetch.range};
        zone_send(z, io, &to, &next);
        return;
    }
    fetch_finish(z, now_ns);
}

/* ---- the view ---- */

/* How good a contact is to be asked: one that was never measured is taken for a fast one, so that
 * each has its turn and the fastest stays. */
static uint64_t contact_cost(const struct zone *z, const struct zone_contact *c)
{
    uint64_t rtt_us = zone_peers_rtt_us(&z->peers, c);
    bool measured = zone_peers_measured(&z->peers, c->node);
    return (uint64_t)zone_peers_fails(&z->peers, c->node) << 32 |
           (measured ? rtt_us : rtt_us * HOPE_PERCENT / 100);
}

/* Answers bring contacts that were drawn, or are near to a cell. The fastest that this node has
 * measured in the same range takes the place of the one that is there for being near (summary.h);
 * so the entries' contacts become near in time, like the neighbours that a Kademlia with proximity
 * selection keeps. */
static void contacts_keep(struct zone *z, struct zone_summary *piece)
{
    const struct zone_contact *best = NULL;
    for (uint32_t i = 0; i < z->view.count; i++) {
        const struct zone_summary *is = &z->view.all[i].is;
        for (uint32_t c = 0; zone_range_overlap(is->range, piece->range) && c < is->contact_count;
             c++) {
            const struct zone_contact *contact = &is->contacts[c];
            if (zone_peers_measured(&z->peers, contact->node) &&
                zone_area_in(contact->area, piece->range) &&
                (best == NULL || contact_cost(z, contact) < contact_cost(z, best))) {
                best = contact;
            }
        }
    }
    for (uint32_t i = 0; best != NULL && i < piece->contact_count; i++) {
        best = piece->contacts[i].node == best->node ? NULL : best;
    }
    if (best == NULL || zone_peers_fails(&z->peers, best->node) != 0) {
        return;
    }
    if (piece->contact_count < ZONE_CONTACTS) {
        piece->contacts[piece->contact_count++] = piece->contacts[0];
        piece->contacts[0] = *best;
    } else if (contact_cost(z, best) < contact_cost(z, &piece->contacts[0])) {
        piece->contacts[0] = *best;
    }
}

void zone_view_heard(struct zone *z, const struct zone_msg *msg, const struct zone_contact *from,
                     uint64_t now_ns, const struct zone_io *io)
{
    if (pending_answered(z, &z->join, msg->view.id, from->node, now_ns)) {
        join_heard(z, msg, from, now_ns, io);
        return;
    }
    if (pending_answered(z, &z->probe, msg->view.id, from->node, now_ns)) {
        zone_reshape_probed(z, msg, from, now_ns, io);
        return;
    }
    /* Who really holds this node's path? If it is not his zone, the mates there will say. */
    const struct zone_summary *piece = &msg->view.all[0];
    if (msg->view.id == 0 && z->joined && zone_range_has(piece->range, z->key) &&
        !zone_range_has(msg->header.claim, z->key) && piece->contact_count != 0) {
        const struct zone_contact *next =
            &piece->contacts[rng_below(&z->rng, piece->contact_count)];
        if (next->node != z->self.node && next->node != from->node &&
            zone_member_find(z, next->node) == NULL && z->lost_hops++ < LOST_HOPS_MAX) {
            struct zone_msg ask;
            ask.header.kind = ZONE_PULL;
            ask.pull = (struct zone_pull){.id = 0, .range = {z->key, z->key + 1}, .want = 1};
            zone_send(z, io, next, &ask);
        }
        return;
    }
    if (!z->joined || !pending_answered(z, &z->pull, msg->view.id, from->node, now_ns)) {
        return;
    }
    struct zone_range range = z->pull.range;
    uint32_t age_ms = 0;
    for (uint32_t i = 0; i < msg->view.count; i++) {
        uint32_t piece_ms = msg->view.all[i].age_ms;
        age_ms = piece_ms > age_ms ? piece_ms : age_ms;
    }
    const struct zone_entry *known = zone_view_find(&z->view, range.lo);
    bool theirs =
        zone_range_valid(msg->header.claim) && zone_range_overlap(msg->header.claim, range);
    /* Who does not live there may know older things than this node does. */
    if (known != NULL && !theirs && age_ms >= zone_entry_age_ms(known, now_ns)) {
        return;
    }
    struct zone_pieces view = msg->view;
    for (uint32_t i = 0; i < view.count; i++) {
        contacts_keep(z, &view.all[i]);
    }
    zone_view_replace(&z->view, range, view.all, view.count, now_ns, z->self.x, z->self.y);
    zone_view_replace(&z->view, z->claim, NULL, 0, now_ns, z->self.x, z->self.y);
}

/* Does it name somebody who was silent when asked last? Others may be known by now. */
static bool entry_sick(const struct zone *z, const struct zone_entry *e)
{
    for (uint32_t i = 0; i < e->is.contact_count; i++) {
        if (zone_peers_fails(&z->peers, e->is.contacts[i].node) != 0) {
            return true;
        }
    }
    return false;
}

/* The entry to ask about next; NULL if none is due. */
static struct zone_entry *entry_due(struct zone *z, const uint32_t *limits, uint64_t now_ns)
{
    struct zone_entry *best = NULL;
    double best_due = 1.0;
    for (uint32_t i = 0; i < z->view.count; i++) {
        struct zone_entry *e = &z->view.all[i];
        bool coarse = e->is.live > limits[i] && !e->single;
        bool near = limits[i] <= z->options.split_above;
        uint64_t period_ns = near ? ZONE_PULL_NEAR_NS : ZONE_PULL_FAR_NS;
        uint64_t since_ns = now_ns - e->pulled_ns;
        double due = (double)since_ns / (double)(coarse ? 3 * ZONE_PULL_NS : period_ns);
        bool soon = e->retry || (since_ns >= ZONE_PULL_SICK_NS && entry_sick(z, e));
        due = soon && due < RETRY_DUE ? RETRY_DUE : due;
        if (due >= best_due) {
            best = e;
            best_due = due;
        }
    }
    return best;
}

/* A range outside the claim of which nothing is known. */
static bool hole_find(const struct zone *z, struct zone_range *hole)
{
    uint64_t at = 0;
    for (uint32_t i = 0; i <= z->view.count; i++) {
        uint64_t next = i < z->view.count ? z->view.all[i].is.range.lo : ZONE_KEY_END;
        while (at < next) {
            *hole = (struct zone_range){at, next};
            if (!zone_range_overlap(*hole, z->claim)) {
                return true;
            }
            if (at < z->claim.lo) {
                hole->hi = z->claim.lo;
                return true;
            }
            at = z->claim.hi;
        }
        at = i < z->view.count ? z->view.all[i].is.range.hi : at;
    }
    return false;
}

/* Somebody, drawn, of whom this node has ever heard: the last way out of a zone of one whose view
 * has entries that nobody is known of. */
static bool anybody_draw(struct zone *z, struct zone_contact *to)
{
    uint32_t kept = z->lost_count < ZONE_LOST_MAX ? z->lost_count : ZONE_LOST_MAX;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < kept; i++) {
        *to = rng_below(&z->rng, ++seen) == 0 ? z->lost[i] : *to;
    }
    for (uint32_t i = 0; i < z->view.count; i++) {
        const struct zone_summary *is = &z->view.all[i].is;
        for (uint32_t c = 0; c < is->contact_count; c++) {
            bool other = is->contacts[c].node != z->self.node;
            *to = other && rng_below(&z->rng, ++seen) == 0 ? is->contacts[c] : *to;
        }
    }
    return seen != 0;
}

/* Of an entry's contacts the one that was silent least and is nearest. After some silences a member
 * of the own zone, who may know others, then contacts of the entries on both sides: if a zone dies
 * as a whole, it is a neighbour that takes its range over. */
static bool entry_contact(struct zone *z, const struct zone_entry *e, uint64_t now_ns,
                          struct zone_contact *to)
{
    uint64_t best = UINT64_MAX;
    uint32_t turn = e->fails >= STALE_FAILS ? e->fails % 4u : 0;
    const struct zone_entry *side = turn == 1 ? e - 1 : e + 1;
    if ((turn == 1 || turn == 2) && side >= z->view.all && side < z->view.all + z->view.count &&
        side->is.contact_count != 0) {
        /* Lowest and highest path are kept in places 1 and 2 (summary.c). */
        uint32_t at = turn == 1 ? side->is.contact_count - 1u : side->is.contact_count / 2u;
        *to = side->is.contacts[at];
        return true;
    }
    if ((e->fails % (STALE_FAILS + 1) == STALE_FAILS || e->is.contact_count == 0) &&
        mate_draw(z, now_ns, to)) {
        return true;
    }
    for (uint32_t i = 0; i < e->is.contact_count; i++) {
        const struct zone_contact *c = &e->is.contacts[i];
        uint64_t cost = contact_cost(z, c);
        if (cost < best && c->node != z->self.node) {
            best = cost;
            *to = *c;
        }
    }
    return best != UINT64_MAX || anybody_draw(z, to);
}

static void pull_next(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    uint32_t limits[ZONE_VIEW_MAX];
    struct zone_range hole;
    struct zone_contact to;
    zone_view_shape(&z->view, z->own.live, z->options.split_above, z->self.x, z->self.y,
                    z->self.tier, z->options.abstract, limits);
    if (hole_find(z, &hole)) {
        if (mate_draw(z, now_ns, &to) || (z->seed.node != z->self.node && z->join.tries != 0)) {
            to = mate_draw(z, now_ns, &to) ? to : z->seed;
            pull_send(z, &z->pull, &to, hole, ZONE_ANSWER_PIECES, now_ns, io);
        }
        return;
    }
    struct zone_entry *e = entry_due(z, limits, now_ns);
    if (e == NULL) {
        return;
    }
    e->retry = false;
    e->pulled_ns = now_ns; /* also if nobody can be asked: the others have their turn */
    if (entry_contact(z, e, now_ns, &to)) {
        uint32_t limit = limits[e - z->view.all];
        pull_send(z, &z->pull, &to, e->is.range, e->is.live > limit ? ZONE_ANSWER_PIECES : 1,
                  now_ns, io);
    }
}

static void pull_late(struct zone *z)
{
    zone_peers_silent(&z->peers, z->pull.to.node);
    if (zone_peers_fails(&z->peers, z->pull.to.node) >= STALE_FAILS) {
        zone_lost_add(z, &z->pull.to);
    }
    z->pull.waits = false;
    for (uint32_t i = 0; i < z->view.count; i++) {
        struct zone_entry *e = &z->view.all[i];
        if (zone_range_equal(e->is.range, z->pull.range)) {
            e->fails = (uint8_t)(e->fails + (e->fails < 0xff));
            e->retry = e->fails <= RETRIES_MAX;
        }
    }
}

/* ---- nodes that fell silent ---- */

/* Any answer has the claim of who sends it in its header: zone_claim_heard() does the rest. */
static void lost_ask(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    uint32_t kept = z->lost_count < ZONE_LOST_MAX ? z->lost_count : ZONE_LOST_MAX;
    z->lost_due_ns = now_ns + ZONE_LOST_NS;
    z->lost_hops = 0;
    if (kept == 0) {
        return;
    }
    /* Now and then somebody of another zone instead: his claim may show that this one is outdated.
     */
    const struct zone_contact *to = &z->lost[rng_below(&z->rng, kept)];
    const struct zone_entry *e = zone_view_find(&z->view, rng_next(&z->rng) % ZONE_KEY_END);
    if (e != NULL && e->is.contact_count != 0 && rng_below(&z->rng, 2) == 0) {
        to = &e->is.contacts[rng_below(&z->rng, e->is.contact_count)];
    }
    struct zone_msg msg;
    msg.header.kind = ZONE_PULL;
    msg.pull = (struct zone_pull){
        .id = 0, .range = {z->key, z->key + 1}, .want = 1}; /* 0 is no pending question's id */
    zone_send(z, io, to, &msg);
}

/* ---- time ---- */

static void state_tell(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    struct zone_msg msg;
    memset(&msg, 0, sizeof(msg.header));
    if (z->state_count++ % ZONE_STATE_FULL == 0) {
        msg.header.kind = ZONE_STATE;
        msg.state = z->self;
    } else {
        msg.header.kind = ZONE_DELTA;
        msg.delta = (struct zone_delta){.version = z->self.version,
                                        .queue_us = z->self.queue_us,
                                        .room = z->self.room,
                                        .vram_free_64mib = z->self.vram_free_64mib};
    }
    zone_broadcast(z, io, &msg, now_ns);
}

void zone_upkeep(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    if (pending_late(&z->join, now_ns)) {
        zone_peers_silent(&z->peers, z->join.to.node);
        zone_join(z, &z->seed, now_ns, io);
    }
    if (pending_late(&z->fetch, now_ns)) {
        fetch_retry(z, now_ns, io);
    }
    if (pending_late(&z->pull, now_ns)) {
        pull_late(z);
    }
    if (!z->joined) {
        return;
    }
    if (now_ns >= z->state_due_ns) {
        z->state_due_ns = now_ns + ZONE_STATE_NS;
        z->told_ns = now_ns;
        zone_members_expire(z, now_ns);
        zone_own_update(z, now_ns);
        state_tell(z, now_ns, io);
    }
    if (now_ns >= z->pull_due_ns) {
        z->pull_due_ns = now_ns + ZONE_PULL_NS;
        if (!z->pull.waits) {
            pull_next(z, now_ns, io);
        }
    }
    if (now_ns >= z->lost_due_ns) {
        lost_ask(z, now_ns, io);
    }
    struct zone_contact mate;
    bool merging = z->reshape.pending && z->reshape.cut == 0;
    if (now_ns >= z->repair_due_ns && !z->fetch.waits && !merging) {
        z->repair_due_ns = now_ns + ZONE_REPAIR_NS;
        if (mate_draw(z, now_ns, &mate)) {
            zone_fetch_begin(z, &mate, z->claim, now_ns, io);
        }
    }
}

void zone_tick(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    zone_upkeep(z, now_ns, io);
    if (z->joined) {
        zone_reshape_tick(z, now_ns, io);
    }
    zone_searches_poll(z, now_ns, io);
}

uint64_t zone_next_ns(const struct zone *z)
{
    uint64_t next = UINT64_MAX;
    const struct zone_pending *pendings[] = {&z->join, &z->fetch, &z->pull, &z->probe};
    for (uint32_t i = 0; i < sizeof(pendings) / sizeof(pendings[0]); i++) {
        if (pendings[i]->waits && pendings[i]->due_ns < next) {
            next = pendings[i]->due_ns;
        }
    }
    if (z->joined) {
        const uint64_t dues[] = {z->state_due_ns, z->pull_due_ns, z->shape_due_ns};
        for (uint32_t i = 0; i < sizeof(dues) / sizeof(dues[0]); i++) {
            next = dues[i] < next ? dues[i] : next;
        }
    }
    uint64_t due = zone_searches_next_ns(z);
    return due < next ? due : next;
}
