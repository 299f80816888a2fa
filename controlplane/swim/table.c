/* SPDX-License-Identifier: Apache-2.0 */
/* table.c - the members of one swim object: taking in records, statuses, slots. See state.h. */
#include <string.h>

#include "controlplane/swim/state.h"
#include "schemas/base/addr.h"
#include "schemas/base/rng.h"

#define PARTED      4u /* more dead than the live divided by this: it may have been a partition */
#define ASKED_AMONG 8u /* next ones of a round, of whom the one silent for longest is asked */

struct member *member_find(struct swim *swim, uint64_t uid)
{
    uint32_t slot = swim_map_get(&swim->by_uid, uid);
    return slot != SWIM_SLOT_NONE ? &swim->members[slot] : NULL;
}

uint64_t member_sum(const struct member *member)
{
    /* Those gone count as those unknown: they are forgotten at different times. */
    if (!member_is_live(member)) {
        return 0;
    }
    struct rng rng = {.state = member->pub.uid ^ member->pub.record.incarnation << 20 ^
                               (uint64_t)member->pub.record.version << 4};
    rng.state ^= rng_next(&rng) + member->pub.state_version;
    return rng_next(&rng);
}

void member_notify(struct swim *swim, struct member *member, bool on)
{
    if (member->notify != on) {
        member->notify = on;
        swim->notify_count += on ? 1u : UINT32_MAX;
    }
}

/* ---- live ones ---- */

/* Where a member stands in `live`. */
static void live_put(struct swim *swim, uint32_t at, uint32_t slot)
{
    swim->live[at] = slot;
    swim->members[slot].live_at = at;
}

/* Among those that the round in progress has yet to ask: it may be here to be lost again. */
static void live_add(struct swim *swim, struct member *member)
{
    uint32_t next = swim->live_next < swim->live_count ? swim->live_next : swim->live_count;
    uint32_t at = next + random_below(swim, swim->live_count - next + 1);
    if (at < swim->live_count) {
        live_put(swim, swim->live_count, swim->live[at]);
    }
    live_put(swim, at, slot_of(swim, member));
    swim->live_count++;
}

/* Nobody whom the round has yet to ask comes to stand among those asked. */
static void live_remove(struct swim *swim, struct member *member)
{
    uint32_t at = member->live_at;
    uint32_t last = --swim->live_count;
    if (at < swim->live_next) {
        uint32_t asked = --swim->live_next;
        live_put(swim, at, swim->live[asked]);
        at = asked;
    }
    if (at < last) {
        live_put(swim, at, swim->live[last]);
    }
    member->live_at = SWIM_SLOT_NONE;
}

void live_shuffle(struct swim *swim)
{
    for (uint32_t i = swim->live_count; i > 1; i--) {
        uint32_t j = random_below(swim, i);
        uint32_t moved = swim->live[i - 1];
        swim->live[i - 1] = swim->live[j];
        swim->live[j] = moved;
    }
    for (uint32_t i = 0; i < swim->live_count; i++) {
        swim->members[swim->live[i]].live_at = i;
    }
}

uint32_t live_take_next(struct swim *swim)
{
    uint32_t next = swim->live_next++;
    uint32_t left = swim->live_count - next;
    uint32_t best = next;
    for (uint32_t at = next + 1; at < next + (left < ASKED_AMONG ? left : ASKED_AMONG); at++) {
        if (swim->members[swim->live[at]].heard_ns < swim->members[swim->live[best]].heard_ns) {
            best = at;
        }
    }
    uint32_t slot = swim->live[best];
    live_put(swim, best, swim->live[next]);
    live_put(swim, next, slot);
    return slot;
}

uint32_t live_pick(struct swim *swim, uint32_t not )
{
    uint32_t others = swim->live_count;
    bool excluded = not != SWIM_SLOT_NONE && swim->members[not ].live_at != SWIM_SLOT_NONE;
    if (others == 0 || (others == 1 && excluded)) {
        return SWIM_SLOT_NONE;
    }
    uint32_t at = random_below(swim, excluded ? others - 1 : others);
    if (excluded && at >= swim->members[not ].live_at) {
        at++;
    }
    return swim->live[at];
}

/* ---- statuses ---- */

void member_set_status(struct swim *swim, struct member *member, enum swim_status status,
                       uint64_t now_ns, struct swim_out *out)
{
    static const enum swim_event_type events[] = {
        [SWIM_ALIVE] = SWIM_EVENT_ALIVE,
        [SWIM_SUSPECT] = SWIM_EVENT_SUSPECT,
        [SWIM_DEAD] = SWIM_EVENT_DEAD,
        [SWIM_LEFT] = SWIM_EVENT_LEFT,
    };
    bool live = status <= SWIM_SUSPECT;
    swim->sum -= member_sum(member);
    swim->dead_count -= member->pub.status == SWIM_DEAD ? 1 : 0;
    swim->dead_count += status == SWIM_DEAD ? 1 : 0;
    member->pub.status = status;
    member->pub.changed_ns = now_ns;
    swim->sum += member_sum(member);
    if (live != (member->live_at != SWIM_SLOT_NONE)) {
        if (live) {
            live_add(swim, member);
        } else {
            live_remove(swim, member);
            member_notify(swim, member, false);
            if (swim->live_count == 0) {
                swim->remember_ns = now_ns; /* alone: others are called more often */
            }
        }
        suspicions_rate(swim);
    }
    event_add(out, events[status], member);
}

void member_forget(struct swim *swim, uint32_t slot)
{
    struct member *member = &swim->members[slot];
    suspicion_free(swim, member);
    member_notify(swim, member, false);
    if (member->live_at != SWIM_SLOT_NONE) {
        live_remove(swim, member);
    }
    swim->sum -= member_sum(member);
    swim->dead_count -= member->pub.status == SWIM_DEAD ? 1 : 0;
    swim_map_remove(&swim->by_uid, member->pub.uid);
    swim_map_remove(&swim->by_session, member->pub.record.session);
    /* Entries of it in the rings stay behind and serve, or are dropped with, the next one here. */
    bool queued[] = {member->record_queued[RING_LIVENESS], member->record_queued[RING_STATE],
                     member->state_queued};
    memset(member, 0, sizeof(*member));
    member->record_queued[RING_LIVENESS] = queued[0];
    member->record_queued[RING_STATE] = queued[1];
    member->state_queued = queued[2];
    member->suspicion = SWIM_SLOT_NONE;
    member->live_at = swim->free_first;
    swim->free_first = slot;
}

void members_forget_old(struct swim *swim, uint64_t now_ns)
{
    for (uint32_t i = 1; i < swim->slots; i++) {
        struct member *member = &swim->members[i];
        if (member->pub.uid != 0 && !member_is_live(member) &&
            now_ns >= member->pub.changed_ns + SWIM_FORGET_NS) {
            member_forget(swim, i);
        }
    }
}

/* A slot for a newcomer: an empty one, or that of whoever has been gone for longest. */
static uint32_t slot_take(struct swim *swim)
{
    uint32_t oldest = SWIM_SLOT_NONE;
    if (swim->free_first == SWIM_SLOT_NONE && swim->slots < swim->members_max) {
        swim->members[swim->slots].live_at = SWIM_SLOT_NONE;
        swim->members[swim->slots].suspicion = SWIM_SLOT_NONE;
        return swim->slots++;
    }
    for (uint32_t i = 1; i < swim->slots && swim->free_first == SWIM_SLOT_NONE; i++) {
        const struct member *member = &swim->members[i];
        if (!member_is_live(member) &&
            (oldest == SWIM_SLOT_NONE ||
             member->pub.changed_ns < swim->members[oldest].pub.changed_ns)) {
            oldest = i;
        }
    }
    if (oldest != SWIM_SLOT_NONE) {
        member_forget(swim, oldest);
    }
    uint32_t slot = swim->free_first;
    if (slot != SWIM_SLOT_NONE) {
        swim->free_first = swim->members[slot].live_at;
        swim->members[slot].live_at = SWIM_SLOT_NONE;
    }
    return slot;
}

/* ---- records ---- */

static bool record_newer(const struct swim_record *record, const struct swim_record *known)
{
    return record->incarnation != known->incarnation ? record->incarnation > known->incarnation
                                                     : record->version > known->version;
}

/* An id belongs to the key that had it first, until that one has left or is forgotten. */
struct member *id_owner(struct swim *swim, uint16_t id, uint64_t uid)
{
    for (uint32_t i = 0; i < swim->slots; i++) {
        struct member *member = &swim->members[i];
        if (member->pub.uid != 0 && member->pub.uid != uid && member->pub.record.id == id &&
            member->pub.status != SWIM_LEFT) {
            return member;
        }
    }
    return NULL;
}

/* Stores a record that has been checked. Which news it is: of life, or of facts. */
static void record_store(struct swim *swim, uint32_t slot, const struct swim_record *record,
                         const uint8_t *data, size_t size)
{
    struct member *member = &swim->members[slot];
    if (member->pub.uid == 0) {
        member->pub.uid = swim_uid(record->public_key);
        swim_map_add(&swim->by_uid, member->pub.uid, slot);
        swim_map_add(&swim->by_session, record->session, slot);
        member->pub.status = SWIM_LEFT; /* until it has its own */
    } else {
        swim->sum -= member_sum(member);
        if (member->pub.record.session != record->session) {
            swim_map_remove(&swim->by_session, member->pub.record.session);
            swim_map_add(&swim->by_session, record->session, slot);
            memset(&member->window, 0, sizeof(member->window));
            member->knows_me = false;
        }
        if (member->pub.record.incarnation != record->incarnation) {
            member->pub.state_version = 0;
            member->pub.state_size = 0;
        }
    }
    member->pub.record = *record;
    memcpy(member->raw, data, size);
    member->raw_size = (uint32_t)size;
    swim->sum += member_sum(member);
}

/* May it be taken in? `member` is NULL for a stranger. */
static bool record_welcome(struct swim *swim, const struct swim_record *record, uint64_t uid,
                           const struct member *member, struct swim_out *out)
{
    uint32_t other = swim_map_get(&swim->by_session, record->session);
    const struct member *owner = NULL;
    if (member == NULL || member->pub.record.id != record->id) {
        owner = id_owner(swim, record->id, uid);
    }
    if (owner != NULL) {
        event_clash(out, owner, uid, record->incarnation);
    }
    bool session_taken = other != SWIM_SLOT_NONE && &swim->members[other] != member;
    if (owner != NULL || session_taken) {
        swim->counters.records_refused++;
        return false;
    }
    return true;
}

static void record_about_self(struct swim *swim, const struct swim_record *record,
                              const uint8_t *data, size_t size, uint64_t now_ns)
{
    const struct swim_record *own = &swim->members[SELF].pub.record;
    bool mine = record->session == own->session && record->incarnation <= own->incarnation;
    if (mine || record->incarnation < own->incarnation) {
        return;
    }
    if (!swim_record_verify(record, data, size)) {
        swim->counters.bad_signatures++;
        return;
    }
    /* An earlier life of this node, before the clock was set back. */
    self_refute(swim, record->incarnation, now_ns);
}

/* A record that has been checked and stored now counts. */
static void record_apply(struct swim *swim, uint32_t slot, bool fresh, bool higher, bool as_dead,
                         uint64_t now_ns, struct swim_out *out)
{
    struct member *member = &swim->members[slot];
    bool left = (member->pub.record.flags & SWIM_RECORD_LEFT) != 0;
    enum swim_status status = member->pub.status;
    if (higher || left) {
        suspicion_free(swim, member);
        member->failed_ns = 0;
        member_notify(swim, member, false);
        status = left ? SWIM_LEFT : fresh && as_dead ? SWIM_DEAD : SWIM_ALIVE;
    }
    bool back = !fresh && !member_is_live(member);
    if (fresh || (back && swim->dead_count > swim->live_count / PARTED)) {
        sync_soon(swim, now_ns); /* where it comes from there may be more */
    }
    if (fresh || status != member->pub.status) {
        member_set_status(swim, member, status, now_ns, out);
    } else {
        event_add(out, SWIM_EVENT_UPDATED, member);
    }
    member_notify(swim, member, as_dead && !fresh && member_is_live(member));
    news_record(swim, member, higher || left ? RING_LIVENESS : RING_STATE, now_ns);
}

uint32_t record_take(struct swim *swim, const uint8_t *data, size_t size, bool as_dead,
                     uint64_t now_ns, struct swim_out *out)
{
    struct swim_record record;
    if (!swim_record_read(&record, data, size)) {
        swim->counters.malformed++;
        return SWIM_SLOT_NONE;
    }
    uint64_t uid = swim_uid(record.public_key);
    struct member *member = member_find(swim, uid);
    if (member == &swim->members[SELF]) {
        record_about_self(swim, &record, data, size, now_ns);
        return SWIM_SLOT_NONE;
    }
    bool higher = member == NULL || record.incarnation > member->pub.record.incarnation;
    if (member != NULL &&
        (!record_newer(&record, &member->pub.record) || (!higher && !member_is_live(member)))) {
        swim->counters.records_stale += record.session != member->pub.record.session ? 1 : 0;
        /* Others have this news already: less need to pass it on. */
        if (member->record_sent < UINT16_MAX) {
            member->record_sent++;
        }
        return SWIM_SLOT_NONE;
    }
    if (!swim_record_verify(&record, data, size)) {
        swim->counters.bad_signatures++;
        return SWIM_SLOT_NONE;
    }
    if (!record_welcome(swim, &record, uid, member, out)) {
        return SWIM_SLOT_NONE;
    }
    uint32_t slot = member != NULL ? slot_of(swim, member) : slot_take(swim);
    if (slot == SWIM_SLOT_NONE) {
        swim->counters.records_refused++;
        return SWIM_SLOT_NONE;
    }
    record_store(swim, slot, &record, data, size);
    record_apply(swim, slot, member == NULL, higher, as_dead, now_ns, out);
    return slot;
}

/* ---- states ---- */

void state_take(struct swim *swim, const struct swim_item *item, uint64_t now_ns,
                struct swim_out *out)
{
    struct swim_state_head head;
    const uint8_t *data;
    const uint8_t *signature;
    size_t size;
    if (!swim_get_state(item, &head, &data, &size, &signature)) {
        swim->counters.malformed++;
        return;
    }
    struct member *member = member_find(swim, head.uid);
    if (member == NULL || member == &swim->members[SELF] || size > swim->state_max ||
        head.incarnation != member->pub.record.incarnation ||
        head.version <= member->pub.state_version) {
        return;
    }
    if (!swim_state_verify(&head, data, size, signature, member->pub.record.public_key)) {
        swim->counters.bad_signatures++;
        return;
    }
    swim->sum -= member_sum(member);
    memcpy(swim->states + (size_t)swim->state_max * slot_of(swim, member), data, size);
    memcpy(member->state_signature, signature, SWIM_SIGNATURE_BYTES);
    member->pub.state_version = head.version;
    member->pub.state_size = (uint32_t)size;
    swim->sum += member_sum(member);
    event_add(out, SWIM_EVENT_STATE, member);
    news_state(swim, member, now_ns);
}
