/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reshape.c - splits and merges in two phases, and takeovers; see zone.h. The live member with the
 * lowest id coordinates. PREPARE with the next epoch goes to all; each acknowledges (for a merge
 * after it has fetched the other part's records); COMMIT follows when all have, or after
 * ZONE_PREPARE_NS a majority. Meanwhile everybody answers for the old claims, and for
 * ZONE_LINGER_NS afterwards records outside the new claim are still answered for: two owners, never
 * none. Whoever misses COMMIT learns from the claim in any header of his zone.
 */
#include <string.h>

#include "controlplane/zones/internal.h"

#define PROBE_STEPS_MAX 16u

static bool coordinates(const struct zone *z, uint64_t now_ns)
{
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (m->record.node < z->self.node && zone_member_live(z, m, now_ns) &&
            zone_range_has(z->claim, m->key)) {
            return false;
        }
    }
    return true;
}

static struct zone_msg reshape_msg(const struct zone *z, enum zone_stage stage,
                                   const struct zone_contact *source)
{
    struct zone_msg msg;
    memset(&msg, 0, sizeof(msg.header));
    msg.header.kind = ZONE_RESHAPE;
    msg.reshape = (struct zone_reshape){
        .stage = (uint8_t)stage,
        .epoch = z->reshape.epoch,
        .range = z->reshape.range,
        .cut = z->reshape.cut,
    };
    if (source != NULL) {
        msg.reshape.source = *source;
    }
    return msg;
}

static void begin(struct zone *z, struct zone_range range, uint64_t cut, uint32_t epoch,
                  uint64_t now_ns)
{
    z->reshape = (struct zone_reshaping){
        .pending = true,
        .mine = true,
        .epoch = epoch,
        .coordinator = z->self.node,
        .range = range,
        .cut = cut,
        .started_ns = now_ns,
    };
}

static void split_begin(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    uint64_t keys[ZONE_MEMBERS_MAX + 1];
    uint32_t count = 0;
    bool self_waits = true;
    for (uint32_t i = 0; i <= z->member_count && count < ZONE_MEMBERS_MAX; i++) {
        bool end = i == z->member_count;
        if (self_waits && (end || z->members[i].key >= z->key)) {
            keys[count++] = z->key;
            self_waits = false;
        }
        if (!end && zone_member_live(z, &z->members[i], now_ns) &&
            zone_range_has(z->claim, z->members[i].key)) {
            keys[count++] = z->members[i].key;
        }
    }
    uint64_t cut = zone_key_cut(keys, count);
    if (cut <= z->claim.lo || cut >= z->claim.hi) {
        return;
    }
    begin(z, z->claim, cut, z->epoch + 1, now_ns);
    struct zone_msg msg = reshape_msg(z, ZONE_PREPARE, NULL);
    zone_broadcast(z, io, &msg, now_ns);
}

/* The part of the merged range that is not this node's. */
static struct zone_range other_part(const struct zone *z, struct zone_range range)
{
    return range.lo < z->claim.lo ? (struct zone_range){range.lo, z->claim.lo}
                                  : (struct zone_range){z->claim.hi, range.hi};
}

static void merge_begin(struct zone *z, const struct zone_header *other,
                        const struct zone_contact *partner, uint64_t now_ns,
                        const struct zone_io *io)
{
    struct zone_range range = z->claim;
    if (other->claim.lo == z->claim.hi) {
        range.hi = other->claim.hi;
    } else if (other->claim.hi == z->claim.lo) {
        range.lo = other->claim.lo;
    } else {
        return;
    }
    uint32_t epoch = (other->epoch > z->epoch ? other->epoch : z->epoch) + 1;
    struct zone_contact self = zone_contact_of(&z->self);
    begin(z, range, 0, epoch, now_ns);
    z->reshape.partner = *partner;
    struct zone_msg msg = reshape_msg(z, ZONE_PREPARE, partner);
    zone_broadcast(z, io, &msg, now_ns);
    msg = reshape_msg(z, ZONE_PREPARE, &self);
    zone_send(z, io, partner, &msg);
    zone_fetch_begin(z, partner, other_part(z, range), now_ns, io);
}

/* ---- commit ---- */

static void apply(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    struct zone_reshaping r = z->reshape;
    struct zone_range claim = r.range;
    struct zone_range before = z->claim;
    bool whole = zone_range_equal(z->synced, z->claim);
    z->reshape.pending = false;
    if (r.cut != 0) {
        z->counters.splits++;
        if (z->key < r.cut) {
            claim.hi = r.cut;
        } else {
            claim.lo = r.cut;
        }
        zone_claim_set(z, claim, r.epoch, r.cut != 0, now_ns);
        return;
    }
    z->counters.merges++;
    zone_claim_set(z, claim, r.epoch, r.cut != 0, now_ns);
    if (whole && r.fetched && now_ns - r.fetched_ns < ZONE_LINGER_NS / 2) {
        z->synced = claim;
    } else {
        z->synced = whole ? before : (struct zone_range){0, 0};
        zone_fetch_begin(z, &r.origin, claim, now_ns, io);
    }
}

static bool agreed(const struct zone *z, uint64_t now_ns)
{
    uint32_t live = 0;
    uint32_t acked = 0;
    for (uint32_t i = 0; i < z->member_count; i++) {
        const struct zone_member *m = &z->members[i];
        if (zone_member_live(z, m, now_ns) && zone_range_has(z->claim, m->key)) {
            live++;
            acked += m->acked == z->reshape.epoch;
        }
    }
    if (z->reshape.cut == 0 && (!z->reshape.fetched || !z->reshape.partner_acked)) {
        return false;
    }
    bool late = now_ns - z->reshape.started_ns >= ZONE_PREPARE_NS;
    return acked == live || (late && 2 * (acked + 1) > live + 1);
}

static void commit(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    struct zone_contact self = zone_contact_of(&z->self);
    struct zone_msg msg = reshape_msg(z, ZONE_COMMIT, &self);
    zone_broadcast(z, io, &msg, now_ns);
    if (z->reshape.cut == 0 && z->reshape.mine) {
        zone_send(z, io, &z->reshape.partner, &msg);
    }
    z->reshape.origin = z->reshape.mine ? z->reshape.partner : z->reshape.origin;
    apply(z, now_ns, io);
}

/* ---- messages ---- */

static void prepare_heard(struct zone *z, const struct zone_msg *in,
                          const struct zone_contact *from, uint64_t now_ns,
                          const struct zone_io *io)
{
    const struct zone_reshape *m = &in->reshape;
    bool fits = m->cut != 0 ? zone_range_equal(m->range, z->claim)
                            : zone_range_inside(z->claim, m->range) &&
                                  !zone_range_equal(z->claim, m->range);
    if (!fits || m->epoch <= z->epoch ||
        (z->reshape.pending &&
         (z->reshape.epoch > m->epoch ||
          (z->reshape.epoch == m->epoch && z->reshape.coordinator < from->node)))) {
        return;
    }
    begin(z, m->range, m->cut, m->epoch, now_ns);
    z->reshape.mine = false;
    z->reshape.coordinator = from->node;
    z->reshape.origin = *from;
    if (m->cut != 0) {
        struct zone_msg ack = reshape_msg(z, ZONE_ACK, NULL);
        zone_send(z, io, from, &ack);
        return;
    }
    z->reshape.relaying = !zone_range_equal(in->header.claim, z->claim);
    if (z->reshape.relaying) {
        struct zone_msg msg = reshape_msg(z, ZONE_PREPARE, &m->source);
        zone_broadcast(z, io, &msg, now_ns);
    }
    zone_fetch_begin(z, &m->source, other_part(z, m->range), now_ns, io);
}

static void ack_heard(struct zone *z, const struct zone_msg *in, uint64_t now_ns,
                      const struct zone_io *io)
{
    if (!z->reshape.pending || in->reshape.epoch != z->reshape.epoch) {
        return;
    }
    struct zone_member *m = zone_member_find(z, in->header.node);
    if (m != NULL) {
        m->acked = in->reshape.epoch;
    }
    if (z->reshape.cut == 0 && in->header.node == z->reshape.partner.node) {
        z->reshape.partner_acked = true;
    }
    if (z->reshape.mine && agreed(z, now_ns)) {
        commit(z, now_ns, io);
    }
}

static void commit_heard(struct zone *z, const struct zone_msg *in, const struct zone_contact *from,
                         uint64_t now_ns, const struct zone_io *io)
{
    const struct zone_reshape *m = &in->reshape;
    if (m->epoch <= z->epoch || !zone_range_has(m->range, z->key)) {
        return;
    }
    bool known = z->reshape.pending && z->reshape.epoch == m->epoch &&
                 zone_range_equal(z->reshape.range, m->range) && z->reshape.cut == m->cut;
    if (!known) {
        begin(z, m->range, m->cut, m->epoch, now_ns);
        z->reshape.mine = false;
    }
    z->reshape.origin = *from;
    if (z->reshape.relaying) {
        struct zone_contact self = zone_contact_of(&z->self);
        struct zone_msg msg = reshape_msg(z, ZONE_COMMIT, &self);
        zone_broadcast(z, io, &msg, now_ns);
    }
    apply(z, now_ns, io);
}

void zone_reshape_heard(struct zone *z, const struct zone_msg *msg, const struct zone_contact *from,
                        uint64_t now_ns, const struct zone_io *io)
{
    if (!z->joined) {
        return;
    }
    switch (msg->reshape.stage) {
    case ZONE_PREPARE:
        prepare_heard(z, msg, from, now_ns, io);
        break;
    case ZONE_ACK:
        ack_heard(z, msg, now_ns, io);
        break;
    default:
        commit_heard(z, msg, from, now_ns, io);
        break;
    }
}

/* ---- neighbours ---- */

static void probe_send(struct zone *z, const struct zone_contact *to, uint64_t now_ns,
                       const struct zone_io *io)
{
    struct zone_msg msg = {.header.kind = ZONE_PULL};
    z->probe.id = ++z->next_id;
    z->probe.range = (struct zone_range){z->probe_key, z->probe_key + 1};
    z->probe.to = *to;
    z->probe.waits = true;
    z->probe.sent_ns = now_ns;
    z->probe.due_ns = now_ns + zone_patience_ns(z, to);
    msg.pull = (struct zone_pull){.id = z->probe.id, .range = z->probe.range, .want = 1};
    zone_send(z, io, to, &msg);
}

/* The zone above, or below if there is none (or, for a merge, by lot). */
static void probe_begin(struct zone *z, bool merge, uint64_t now_ns, const struct zone_io *io)
{
    bool up = z->claim.hi < ZONE_KEY_END;
    if (up && z->claim.lo > 0) {
        const struct zone_entry *below = zone_view_find(&z->view, z->claim.lo - 1);
        bool lowest = below != NULL && below->is.range.lo == 0;
        up = merge || lowest ? rng_below(&z->rng, 2) == 0 : true;
    }
    z->probe_key = up ? z->claim.hi : z->claim.lo - 1;
    const struct zone_entry *e = zone_view_find(&z->view, z->probe_key);
    z->probe.tries = 0;
    if (e != NULL && e->is.contact_count != 0) {
        probe_send(z, &e->is.contacts[rng_below(&z->rng, e->is.contact_count)], now_ns, io);
    }
}

void zone_reshape_probed(struct zone *z, const struct zone_msg *msg,
                         const struct zone_contact *from, uint64_t now_ns, const struct zone_io *io)
{
    if (zone_range_has(msg->header.claim, z->probe_key)) {
        z->lone_since_ns = 0;
        if (zone_live(z, now_ns) < z->options.merge_below && coordinates(z, now_ns) &&
            !z->reshape.pending) {
            merge_begin(z, &msg->header, from, now_ns, io);
        }
        return;
    }
    const struct zone_summary *piece = &msg->view.all[0];
    if (piece->contact_count != 0 && ++z->probe.tries < PROBE_STEPS_MAX) {
        probe_send(z, &piece->contacts[rng_below(&z->rng, piece->contact_count)], now_ns, io);
    }
}

/* Nobody there has answered for long: the range is this zone's from now on. */
static void takeover(struct zone *z, uint64_t now_ns)
{
    const struct zone_entry *e = zone_view_find(&z->view, z->probe_key);
    struct zone_range range = e != NULL ? e->is.range : (struct zone_range){0, 0};
    uint32_t epoch = z->epoch;
    if (e == NULL || zone_entry_age_ms(e, now_ns) * NS_PER_MS < ZONE_TAKEOVER_NS) {
        return;
    }
    struct zone_range claim = z->claim;
    if (range.lo == claim.hi) {
        claim.hi = range.hi;
    } else if (range.hi == claim.lo && range.lo == 0) {
        claim.lo = 0;
    } else {
        return;
    }
    bool whole = zone_range_equal(z->synced, z->claim);
    epoch = (e->is.epoch > epoch ? e->is.epoch : epoch) + 1;
    z->counters.takeovers++;
    z->lone_since_ns = 0;
    zone_claim_set(z, claim, epoch, false, now_ns);
    z->synced = whole ? claim : z->synced; /* nobody is there whose records could be missing */
}

static void neighbours_tick(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    bool small = zone_live(z, now_ns) < z->options.merge_below;
    if (!z->probe.waits && now_ns >= z->probe_due_ns) {
        z->probe_due_ns = now_ns + ZONE_PROBE_NS;
        if (z->lone_since_ns != 0 && now_ns - z->lone_since_ns >= ZONE_TAKEOVER_NS) {
            takeover(z, now_ns);
        }
        probe_begin(z, small, now_ns, io);
    }
}

void zone_reshape_tick(struct zone *z, uint64_t now_ns, const struct zone_io *io)
{
    struct zone_reshaping *r = &z->reshape;
    if (z->probe.waits && z->probe.due_ns <= now_ns) {
        zone_peers_silent(&z->peers, z->probe.to.node);
        z->probe.waits = false;
        z->lone_since_ns = z->lone_since_ns != 0 ? z->lone_since_ns : now_ns;
    }
    if (r->pending && r->cut == 0 && !r->mine && r->fetched && now_ns >= r->fetched_ns) {
        struct zone_msg ack = reshape_msg(z, ZONE_ACK, NULL);
        if (z->shape_due_ns <= now_ns || now_ns == r->fetched_ns) {
            zone_send(z, io, &r->origin, &ack);
        }
    }
    if (now_ns < z->shape_due_ns) {
        return;
    }
    z->shape_due_ns = now_ns + ZONE_STATE_NS;
    if (r->pending) {
        uint64_t age_ns = now_ns - r->started_ns;
        if (r->mine && agreed(z, now_ns)) {
            commit(z, now_ns, io);
        } else if (age_ns >= (r->mine ? ZONE_ABANDON_NS : 2 * ZONE_ABANDON_NS)) {
            r->pending = false;
        }
        return;
    }
    if (zone_range_equal(z->claim, ZONE_RANGE_ALL) &&
        zone_live(z, now_ns) <= z->options.split_above) {
        return;
    }
    if (!coordinates(z, now_ns)) {
        return;
    }
    if (zone_live(z, now_ns) > z->options.split_above) { /* even if it cannot know all: it is why */
        split_begin(z, now_ns, io);
    } else if (zone_range_equal(z->synced, z->claim)) {
        neighbours_tick(z, now_ns, io);
    }
}
