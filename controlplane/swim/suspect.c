/* SPDX-License-Identifier: Apache-2.0 */
/*
 * suspect.c - votes that a member does not answer, and the verdict. See state.h.
 *
 * There is no message "X is dead": each node counts the signed votes of distinct observers and
 * lets its own timer run, longer the fewer agree. So no one member can have another declared dead,
 * and a member has SWIM_SUSPECT_MIN_NS at least to say, under a higher incarnation, that it lives.
 */
#include <math.h>
#include <string.h>

#include "controlplane/swim/state.h"

#define TELLS_MAX         8u
#define LAST_ASK_NS       (500 * NS_PER_MS) /* before a verdict */
#define COMPARE_NS        (100 * NS_PER_MS) /* after others may have had theirs; then doubled */
#define COMPARES          4u
#define HEARD_COUNTS      3u  /* a vote that others send: as so many sent */
#define LAST_ASKERS       64u /* expected number of nodes that ask, if enough agree */
#define HEARD_ROUND_TRIPS 4u  /* until all have heard a suspect, at least */
#define OBSERVERS_DRAWN   4u  /* expected number of nodes that look for themselves at once */

/* Lifeguard's curve: max - (max - min) ln(votes) / ln(needed); all of it longer where the way to
 * the suspect takes so long that it could not be heard in time. */
static uint64_t timeout_ns(const struct swim *swim, const struct suspicion *suspicion)
{
    uint32_t needed = swim->live_count < SWIM_OBSERVERS ? swim->live_count : SWIM_OBSERVERS;
    uint64_t srtt_ns = swim->members[suspicion->slot].pub.srtt_ns;
    uint64_t way_ns = HEARD_ROUND_TRIPS * (srtt_ns < RTO_MAX_NS ? srtt_ns : RTO_MAX_NS);
    uint64_t min_ns = way_ns > swim->suspect_min_ns ? way_ns : swim->suspect_min_ns;
    uint64_t max_ns = swim->suspect_max_ns + (min_ns - swim->suspect_min_ns);
    if (suspicion->vote_count >= needed) {
        return min_ns;
    }
    double part = log((double)suspicion->vote_count) / log((double)needed);
    return max_ns - (uint64_t)(part * (double)(max_ns - min_ns));
}

/* When a suspect is asked once more, with the votes on the ping: its answer carries a record that
 * ends them, and need not come from mouth to mouth. */
static uint64_t ask_at_ns(const struct swim *swim, const struct suspicion *suspicion)
{
    uint64_t ahead_ns =
        LAST_ASK_NS < swim->suspect_min_ns / 2 ? LAST_ASK_NS : swim->suspect_min_ns / 2;
    return suspicion->asked ? suspicion->deadline_ns : suspicion->deadline_ns - ahead_ns;
}

/* When votes are still lacking though whoever has enough has come to its verdict: gossip may have
 * missed this node, and what others know is a question away. UINT64_MAX: never (again). */
static uint64_t compare_at_ns(const struct swim *swim, const struct suspicion *suspicion)
{
    bool done = suspicion->compares == COMPARES || suspicion->vote_count == SWIM_OBSERVERS;
    uint64_t after_ns = swim->suspect_min_ns + (COMPARE_NS << suspicion->compares);
    return done ? UINT64_MAX : suspicion->started_ns + after_ns;
}

static uint64_t due_at_ns(const struct swim *swim, const struct suspicion *suspicion)
{
    uint64_t ask_ns = ask_at_ns(swim, suspicion);
    uint64_t compare_ns = compare_at_ns(swim, suspicion);
    return compare_ns < ask_ns ? compare_ns : ask_ns;
}

void suspicions_rate(struct swim *swim)
{
    swim->suspect_ns = UINT64_MAX;
    for (uint32_t i = 0; i < swim->suspicions_max; i++) {
        struct suspicion *suspicion = &swim->suspicions[i];
        if (suspicion->slot == SWIM_SLOT_NONE || suspicion->deadline_ns == UINT64_MAX) {
            continue;
        }
        suspicion->deadline_ns = suspicion->started_ns + timeout_ns(swim, suspicion);
        uint64_t due_ns = due_at_ns(swim, suspicion);
        swim->suspect_ns = due_ns < swim->suspect_ns ? due_ns : swim->suspect_ns;
    }
}

void suspicions_delay(struct swim *swim, uint64_t late_ns, uint64_t not_before_ns)
{
    swim->grace_ns = not_before_ns;
    for (uint32_t i = 0; i < swim->suspicions_max; i++) {
        swim->suspicions[i].started_ns += late_ns;
    }
    suspicions_rate(swim);
}

/* Frees what belongs to a member that has refuted, left, or is forgotten. */
void suspicion_free(struct swim *swim, struct member *member)
{
    if (member->suspicion != SWIM_SLOT_NONE) {
        struct suspicion *suspicion = &swim->suspicions[member->suspicion];
        suspicion->slot = SWIM_SLOT_NONE;
        suspicion->vote_count = 0;
        member->suspicion = SWIM_SLOT_NONE;
        suspicions_rate(swim);
    }
}

/* A free one, or that of the member dead for longest. */
static struct suspicion *suspicion_take(struct swim *swim)
{
    struct suspicion *settled = NULL;
    for (uint32_t i = 0; i < swim->suspicions_max; i++) {
        struct suspicion *suspicion = &swim->suspicions[i];
        if (suspicion->slot == SWIM_SLOT_NONE) {
            return suspicion;
        }
        if (suspicion->deadline_ns == UINT64_MAX &&
            (settled == NULL || suspicion->started_ns < settled->started_ns)) {
            settled = suspicion;
        }
    }
    if (settled != NULL) {
        suspicion_free(swim, &swim->members[settled->slot]);
    }
    return settled;
}

static bool has_voted(const struct suspicion *suspicion, uint64_t observer)
{
    for (uint32_t i = 0; i < suspicion->vote_count; i++) {
        if (suspicion->votes[i].observer == observer) {
            return true;
        }
    }
    return false;
}

/* Others know this vote already: less need to pass it on. */
static void vote_heard_again(struct swim *swim, const struct member *member, uint64_t observer)
{
    if (member->suspicion != SWIM_SLOT_NONE) {
        struct suspicion *suspicion = &swim->suspicions[member->suspicion];
        for (uint32_t i = 0; i < suspicion->vote_count; i++) {
            uint16_t *sent = &suspicion->votes[i].sent;
            if (suspicion->votes[i].observer == observer && *sent <= UINT16_MAX - HEARD_COUNTS) {
                *sent = (uint16_t)(*sent + HEARD_COUNTS);
            }
        }
    }
}

/* A vote that has been checked, for a live member in its present incarnation. True if it is the
 * first one. */
static bool vote_add(struct swim *swim, struct member *member, const struct swim_vote *vote,
                     uint64_t now_ns, struct swim_out *out)
{
    bool first = member->suspicion == SWIM_SLOT_NONE;
    if (first) {
        struct suspicion *fresh = suspicion_take(swim);
        if (fresh == NULL) {
            swim->counters.suspicions_full++;
            return false;
        }
        member->suspicion = (uint32_t)(fresh - swim->suspicions);
        fresh->slot = slot_of(swim, member);
        fresh->incarnation = vote->incarnation;
        fresh->started_ns = now_ns;
        fresh->deadline_ns = 0;
        fresh->vote_count = 0;
        fresh->asked = false;
        fresh->compares = 0;
        fresh->tells_left = TELLS_MAX;
    }
    struct suspicion *suspicion = &swim->suspicions[member->suspicion];
    if (suspicion->vote_count == SWIM_OBSERVERS || has_voted(suspicion, vote->observer)) {
        return false; /* enough: more would only cost bytes */
    }
    uint32_t at = suspicion->vote_count++;
    suspicion->votes[at].observer = vote->observer;
    memcpy(suspicion->votes[at].signature, vote->signature, SWIM_SIGNATURE_BYTES);
    news_vote(swim, member->suspicion, at, now_ns);
    if (first) {
        member_set_status(swim, member, SWIM_SUSPECT, now_ns, out);
    }
    suspicions_rate(swim);
    return first;
}

void suspect_cast(struct swim *swim, uint32_t slot, uint64_t now_ns, struct swim_out *out)
{
    struct member *member = &swim->members[slot];
    struct swim_vote vote = {
        .suspect = member->pub.uid,
        .incarnation = member->pub.record.incarnation,
        .observer = swim->members[SELF].pub.uid,
    };
    if (now_ns < swim->grace_ns || !member_is_live(member) ||
        (member->suspicion != SWIM_SLOT_NONE &&
         (swim->suspicions[member->suspicion].vote_count == SWIM_OBSERVERS ||
          has_voted(&swim->suspicions[member->suspicion], vote.observer)))) {
        return;
    }
    swim_vote_sign(&vote, swim->identity.secret_key);
    swim->counters.votes_cast++;
    if (vote_add(swim, member, &vote, now_ns, out)) {
        /* Tells it at once, and gives it one more chance. */
        probe_start(swim, slot, now_ns, out);
    }
}

static void vote_about_self(struct swim *swim, const struct swim_vote *vote, uint32_t sender,
                            uint64_t now_ns, struct draft *reply, struct swim_out *out)
{
    const struct member *self = &swim->members[SELF];
    const struct member *observer = member_find(swim, vote->observer);
    if (vote->incarnation < self->pub.record.incarnation) {
        /* Who has stood still finds many of them waiting: each sender is told once, and again only
         * if it goes on. */
        struct member *teller = &swim->members[sender];
        if (teller->told == self->pub.record.incarnation &&
            now_ns < teller->told_ns + TELL_AGAIN_NS) {
            return;
        }
        teller->told = self->pub.record.incarnation;
        teller->told_ns = now_ns;
        if (draft_ensure(swim, reply, sender, SWIM_ITEM_HEAD + self->raw_size, out)) {
            swim_put_bytes(&reply->body, SWIM_ITEM_RECORD, self->raw, self->raw_size);
        }
        return;
    }
    if (vote->incarnation == self->pub.record.incarnation && observer != NULL &&
        swim_vote_verify(vote, observer->pub.record.public_key)) {
        self_refute(swim, vote->incarnation, now_ns);
    }
}

/* A late vote for one who is dead here: its observer may have missed the others. Two who both have
 * enough could go on telling each other for ever, so each tells a few times only. */
static void votes_tell(struct swim *swim, const struct member *member, uint64_t observer,
                       uint32_t sender, struct draft *reply, struct swim_out *out)
{
    size_t bytes = SWIM_OBSERVERS * (SWIM_ITEM_HEAD + sizeof(struct swim_vote));
    if (member->suspicion == SWIM_SLOT_NONE || swim->members[sender].pub.uid != observer) {
        return;
    }
    struct suspicion *suspicion = &swim->suspicions[member->suspicion];
    if (!has_voted(suspicion, observer) && suspicion->tells_left > 0 &&
        draft_ensure(swim, reply, sender, bytes, out)) {
        suspicion->tells_left--;
        put_votes_on(swim, member, &reply->body);
    }
}

void vote_take(struct swim *swim, const struct swim_vote *vote, uint32_t sender, uint64_t now_ns,
               struct draft *reply, struct swim_out *out)
{
    struct member *member = member_find(swim, vote->suspect);
    struct member *observer = member_find(swim, vote->observer);
    if (member == &swim->members[SELF]) {
        vote_about_self(swim, vote, sender, now_ns, reply, out);
        return;
    }
    if (member == NULL || observer == NULL || observer == member ||
        observer == &swim->members[SELF] || vote->incarnation != member->pub.record.incarnation) {
        return;
    }
    vote_heard_again(swim, member, vote->observer);
    if (member->pub.status == SWIM_DEAD) {
        votes_tell(swim, member, vote->observer, sender, reply, out);
        return;
    }
    if (!member_is_live(member) || !member_is_live(observer) ||
        (member->suspicion != SWIM_SLOT_NONE &&
         (swim->suspicions[member->suspicion].vote_count == SWIM_OBSERVERS ||
          has_voted(&swim->suspicions[member->suspicion], vote->observer)))) {
        return;
    }
    if (!swim_vote_verify(vote, observer->pub.record.public_key)) {
        swim->counters.bad_signatures++;
        return;
    }
    if (vote_add(swim, member, vote, now_ns, out) &&
        random_below(swim, swim->live_count) < OBSERVERS_DRAWN) {
        probe_start(swim, slot_of(swim, member), now_ns, out);
    }
    if (member->failed_ns != 0 && now_ns < member->failed_ns + EVIDENCE_NS) {
        suspect_cast(swim, slot_of(swim, member), now_ns, out);
    }
}

/* The last question. If fewer than enough agree, what it takes to be answered is left to it: who
 * has been cut off and is back holds votes of its own about those it could not hear, and nobody
 * else has them. If enough agree it is a ping that holds nothing up, from not too many at once. */
static void suspect_ask(struct swim *swim, struct suspicion *suspicion, uint64_t now_ns,
                        struct swim_out *out)
{
    uint64_t ahead_ns = suspicion->deadline_ns - ask_at_ns(swim, suspicion);
    suspicion->asked = true;
    if (suspicion->vote_count == SWIM_OBSERVERS) {
        if (random_below(swim, swim->live_count) < LAST_ASKERS) {
            ping_only(swim, suspicion->slot, out);
        }
        return;
    }
    if (suspicion->deadline_ns < now_ns + ahead_ns) {
        suspicion->started_ns += now_ns + ahead_ns - suspicion->deadline_ns;
    }
    probe_start(swim, suspicion->slot, now_ns, out);
}

void suspicions_settle(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    for (uint32_t i = 0; i < swim->suspicions_max; i++) {
        struct suspicion *suspicion = &swim->suspicions[i];
        if (out->event_count == SWIM_OUT_EVENTS || out_room(out) <= HELPERS) {
            break; /* the rest at once, in the next call */
        }
        if (suspicion->slot == SWIM_SLOT_NONE || suspicion->deadline_ns == UINT64_MAX ||
            due_at_ns(swim, suspicion) > now_ns) {
            continue;
        }
        if (compare_at_ns(swim, suspicion) <= now_ns) {
            suspicion->compares++;
            sync_now(swim, out);
        } else if (ask_at_ns(swim, suspicion) < suspicion->deadline_ns) {
            suspect_ask(swim, suspicion, now_ns, out);
        } else {
            suspicion->deadline_ns = UINT64_MAX;
            member_set_status(swim, &swim->members[suspicion->slot], SWIM_DEAD, now_ns, out);
        }
    }
    suspicions_rate(swim);
}
