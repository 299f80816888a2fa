/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe.c - asking members whether they are there: directly, again, by way of helpers; for others;
 * and those thought dead. See state.h.
 *
 * A probe of ours: ping; after one RTO ping again and ask three helpers; after another RTO ping
 * once more; after the helpers' time has passed too, or when all of them have said no, it has
 * failed. A helper pings twice and answers ACK or NACK. In case this node is not known there, its
 * record goes with the last ping of its own, and with the second one to a member that has never
 * answered: who has is more often late than forgetful, and on a busy machine records would be most
 * of the traffic.
 */
#include <errno.h>
#include <string.h>

#include "controlplane/swim/state.h"

/* RFC 6298 without its second of patience; stretched while this node is not well. */
static uint64_t rto_ns(const struct swim *swim, const struct member *member)
{
    uint64_t rto = RTO_FIRST_NS;
    if (member->pub.srtt_ns != 0) {
        rto = member->pub.srtt_ns + 4 * member->pub.rttvar_ns;
    }
    rto = rto < RTO_MIN_NS ? RTO_MIN_NS : rto;
    rto *= 1 + swim->health;
    return rto < RTO_MAX_NS ? rto : RTO_MAX_NS;
}

static void rtt_sample(struct member *member, uint64_t rtt_ns)
{
    struct swim_member *pub = &member->pub;
    if (rtt_ns > RTT_MAX_NS) {
        return;
    }
    rtt_ns = rtt_ns > 0 ? rtt_ns : 1;
    pub->rtt_ns = rtt_ns;
    pub->rtt_count++;
    if (pub->srtt_ns == 0) {
        pub->srtt_ns = rtt_ns;
        pub->rttvar_ns = rtt_ns / 2;
        return;
    }
    uint64_t error_ns = rtt_ns > pub->srtt_ns ? rtt_ns - pub->srtt_ns : pub->srtt_ns - rtt_ns;
    pub->rttvar_ns = (3 * pub->rttvar_ns + error_ns) / 4;
    pub->srtt_ns = (7 * pub->srtt_ns + rtt_ns) / 8;
    pub->srtt_ns = pub->srtt_ns > 0 ? pub->srtt_ns : 1;
}

/* The member of a probe, NULL if its slot has changed hands. */
static struct member *probe_member(struct swim *swim, const struct probe *probe)
{
    struct member *member = &swim->members[probe->slot];
    return member->pub.uid == probe->uid ? member : NULL;
}

static void probe_drop(struct swim *swim, struct probe *probe)
{
    *probe = swim->probes[--swim->probe_count];
}

static struct probe *probe_find(struct swim *swim, uint32_t token)
{
    for (uint32_t i = 0; i < swim->probe_count; i++) {
        if (swim->probes[i].token == (token & ~(PROBE_TRIES - 1))) {
            return &swim->probes[i];
        }
    }
    return NULL;
}

static void vote_put(const struct suspicion *suspicion, uint32_t i, const struct member *member,
                     struct cursor *body)
{
    struct swim_vote vote = {.suspect = member->pub.uid,
                             .incarnation = suspicion->incarnation,
                             .observer = suspicion->votes[i].observer};
    memcpy(vote.signature, suspicion->votes[i].signature, SWIM_SIGNATURE_BYTES);
    swim_put_vote(body, &vote);
}

void put_votes_on(struct swim *swim, const struct member *member, struct cursor *body)
{
    if (member->suspicion == SWIM_SLOT_NONE) {
        return;
    }
    const struct suspicion *suspicion = &swim->suspicions[member->suspicion];
    for (uint32_t i = 0; i < suspicion->vote_count; i++) {
        vote_put(suspicion, i, member, body);
    }
}

/* One vote is enough for a suspect to know and to answer: this node's own, if it has voted. */
static void put_vote_on(struct swim *swim, const struct member *member, struct cursor *body)
{
    if (member->suspicion == SWIM_SLOT_NONE) {
        return;
    }
    const struct suspicion *suspicion = &swim->suspicions[member->suspicion];
    uint32_t which = random_below(swim, suspicion->vote_count);
    for (uint32_t i = 0; i < suspicion->vote_count; i++) {
        which = suspicion->votes[i].observer == swim->members[SELF].pub.uid ? i : which;
    }
    vote_put(suspicion, which, member, body);
}

/* Lifeguard's buddy: whoever is suspected is told so by the ping itself. */
static void ping_send(struct swim *swim, struct member *member, uint32_t token, bool introduce,
                      struct swim_out *out)
{
    struct draft draft;
    if (!draft_begin(swim, &draft, slot_of(swim, member), introduce, out)) {
        return;
    }
    swim_put_token(&draft.body, SWIM_ITEM_PING, token);
    if (member->pub.status == SWIM_SUSPECT) {
        put_vote_on(swim, member, &draft.body);
    }
    if (member->notify || member->pub.status == SWIM_DEAD) {
        swim_put_two(&draft.body, SWIM_ITEM_DEAD, member->pub.uid, member->pub.record.incarnation);
    }
    draft_end(swim, &draft);
}

static struct probe *probe_add(struct swim *swim, enum probe_kind kind, struct member *member,
                               uint64_t now_ns)
{
    if (swim->probe_count == PROBES_MAX) {
        return NULL;
    }
    struct probe *probe = &swim->probes[swim->probe_count++];
    *probe = (struct probe){
        .kind = kind,
        .slot = slot_of(swim, member),
        .uid = member->pub.uid,
        .token = random_u32(swim) & ~(PROBE_TRIES - 1),
        .tries = 1,
        .sent_ns = {now_ns},
        .next_ns = now_ns + rto_ns(swim, member),
    };
    return probe;
}

/* Each ping of a probe has a token of its own: its answer tells the round trip even if the one
 * before it was slow or lost, so that a way that has become long is known as such. */
static void ping_again(struct swim *swim, struct probe *probe, struct member *member,
                       bool introduce, uint64_t now_ns, struct swim_out *out)
{
    uint32_t which = probe->tries < PROBE_TRIES ? probe->tries : PROBE_TRIES - 1;
    probe->sent_ns[which] = now_ns;
    probe->tries++;
    ping_send(swim, member, probe->token + which, introduce, out);
}

void probe_start(struct swim *swim, uint32_t slot, uint64_t now_ns, struct swim_out *out)
{
    struct member *member = &swim->members[slot];
    for (uint32_t i = 0; i < swim->probe_count; i++) {
        if (swim->probes[i].kind == PROBE_OWN && swim->probes[i].slot == slot) {
            return; /* is being asked already */
        }
    }
    const struct probe *probe = probe_add(swim, PROBE_OWN, member, now_ns);
    if (probe != NULL) {
        swim->counters.probes++;
        ping_send(swim, member, probe->token, false, out);
    }
}

void swim_ask(struct swim *swim, uint64_t uid, uint64_t now_ns, struct swim_out *out)
{
    uint32_t slot = swim_map_get(&swim->by_uid, uid);
    if (slot != SWIM_SLOT_NONE && slot != SELF && out_room(out) > HELPERS) {
        probe_start(swim, slot, now_ns, out);
    }
}

void ping_only(struct swim *swim, uint32_t slot, struct swim_out *out)
{
    ping_send(swim, &swim->members[slot], random_u32(swim), false, out);
}

/* ---- for others ---- */

static void answer_requester(struct swim *swim, const struct probe *probe,
                             enum swim_item_type answer, struct swim_out *out)
{
    struct member *requester = member_find(swim, probe->requester);
    struct draft draft;
    if (requester != NULL && draft_begin(swim, &draft, slot_of(swim, requester), false, out)) {
        swim_put_token(&draft.body, answer, probe->requester_token);
        draft_end(swim, &draft);
    }
}

void probe_help(struct swim *swim, uint32_t requester, uint32_t token, uint64_t uid,
                uint64_t now_ns, struct swim_out *out)
{
    struct member *member = member_find(swim, uid);
    struct probe refused = {.requester = swim->members[requester].pub.uid,
                            .requester_token = token};
    if (member == NULL || member == &swim->members[SELF]) {
        answer_requester(swim, &refused, SWIM_ITEM_NACK, out);
        return;
    }
    struct probe *probe = probe_add(swim, PROBE_HELP, member, now_ns);
    if (probe == NULL) {
        return; /* too busy to be a witness */
    }
    probe->requester = refused.requester;
    probe->requester_token = token;
    ping_send(swim, member, probe->token, false, out);
}

/* ---- answers ---- */

void probe_acked(struct swim *swim, uint32_t slot, uint32_t token, bool pair, uint64_t now_ns,
                 struct swim_out *out)
{
    struct probe *probe = probe_find(swim, token);
    if (probe == NULL) {
        return;
    }
    struct member *member = probe_member(swim, probe);
    if (member == NULL) {
        probe_drop(swim, probe);
        return;
    }
    if (probe->slot != slot) {
        /* A helper has had an answer for us. */
        if (pair && probe->kind == PROBE_OWN && probe->indirect) {
            probe_drop(swim, probe);
            health_change(swim, -1);
        }
        return;
    }
    member->knows_me = true;
    if (!pair) {
        /* Any member could have said so: ask again, now that both know each other. */
        if (probe->tries < PROBE_TRIES) {
            ping_again(swim, probe, member, false, now_ns, out);
        }
        return;
    }
    uint32_t which = token % PROBE_TRIES;
    if (which < probe->tries) {
        rtt_sample(member, now_ns - probe->sent_ns[which]);
    }
    member->pub.acked_ns = now_ns;
    member->failed_ns = 0;
    member_notify(swim, member, false);
    if (probe->kind == PROBE_HELP) {
        answer_requester(swim, probe, SWIM_ITEM_ACK, out);
    } else {
        health_change(swim, -1);
    }
    probe_drop(swim, probe);
}

/* ---- time ---- */

static void helpers_ask(struct swim *swim, struct probe *probe, const struct member *member,
                        struct swim_out *out, uint64_t *slowest_ns)
{
    uint32_t others = swim->live_count - (member->live_at != SWIM_SLOT_NONE ? 1 : 0);
    uint32_t first = live_pick(swim, probe->slot);
    if (others == 0 || first == SWIM_SLOT_NONE) {
        return;
    }
    uint32_t at = swim->members[first].live_at;
    for (uint32_t i = 0; i < swim->live_count && probe->asked < HELPERS; i++) {
        uint32_t slot = swim->live[(at + i) % swim->live_count];
        struct member *helper = &swim->members[slot];
        struct draft draft;
        if (slot == probe->slot || !helper->knows_me ||
            !draft_begin(swim, &draft, slot, false, out)) {
            continue;
        }
        swim_put_ping_req(&draft.body, probe->token, member->pub.uid);
        draft_end(swim, &draft);
        probe->asked++;
        uint64_t takes_ns = rto_ns(swim, helper);
        *slowest_ns = takes_ns > *slowest_ns ? takes_ns : *slowest_ns;
    }
}

static void probe_failed(struct swim *swim, struct probe *probe, struct member *member,
                         uint64_t now_ns, struct swim_out *out)
{
    struct probe failed = *probe;
    probe_drop(swim, probe);
    if (failed.kind == PROBE_HELP) {
        answer_requester(swim, &failed, SWIM_ITEM_NACK, out);
    }
    if (!member_is_live(member)) {
        return;
    }
    member->failed_ns = now_ns;
    if (failed.kind == PROBE_HELP) {
        /* Others have seen the same: say so. Alone with it, it is only remembered for a while. */
        if (member->pub.status == SWIM_SUSPECT) {
            suspect_cast(swim, failed.slot, now_ns, out);
        }
        return;
    }
    swim->counters.probes_failed++;
    member_notify(swim, member, false);
    /* Helpers that said nothing at all: it may be this node that hears badly. */
    if (failed.asked > failed.nacks) {
        health_change(swim, 1);
    }
    suspect_cast(swim, failed.slot, now_ns, out);
}

/* One probe whose time has come. False: it has ended, and another stands in its place. */
static bool probe_advance(struct swim *swim, struct probe *probe, uint64_t now_ns,
                          struct swim_out *out)
{
    struct member *member = probe_member(swim, probe);
    if (member == NULL) {
        probe_drop(swim, probe);
        return false;
    }
    uint64_t rto = rto_ns(swim, member);
    if (probe->kind == PROBE_OWN && !probe->indirect) {
        uint64_t slowest_ns = rto;
        probe->indirect = true;
        probe->indirect_ns = now_ns;
        ping_again(swim, probe, member, member->pub.srtt_ns == 0, now_ns, out);
        helpers_ask(swim, probe, member, out, &slowest_ns);
        /* To the helper and back, and twice the helper's own patience. */
        probe->next_ns = now_ns + rto;
        probe->end_ns = now_ns + (probe->asked > 0 ? slowest_ns + 2 * (slowest_ns + rto) : 2 * rto);
        return true;
    }
    if (probe->kind == PROBE_OWN && !probe->last_try) {
        probe->last_try = true;
        ping_again(swim, probe, member, true, now_ns, out);
        probe->next_ns = probe->end_ns;
        return true;
    }
    if (probe->kind == PROBE_HELP && probe->tries == 1) {
        ping_again(swim, probe, member, member->pub.srtt_ns == 0, now_ns, out);
        probe->next_ns = now_ns + rto;
        return true;
    }
    probe_failed(swim, probe, member, now_ns, out);
    return false;
}

void probes_advance(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    uint32_t i = 0;
    while (i < swim->probe_count && out_room(out) > HELPERS) {
        struct probe *probe = &swim->probes[i];
        if (probe->next_ns > now_ns || probe_advance(swim, probe, now_ns, out)) {
            i++;
        }
    }
}

void probe_nacked(struct swim *swim, uint32_t token, uint64_t now_ns, struct swim_out *out)
{
    struct probe *probe = probe_find(swim, token);
    if (probe == NULL || probe->kind != PROBE_OWN || !probe->indirect) {
        return;
    }
    struct member *member = probe_member(swim, probe);
    if (++probe->nacks < probe->asked || member == NULL) {
        return;
    }
    /* All have tried in vain. Our own second ping has its time still. */
    uint64_t own_ns = probe->indirect_ns + rto_ns(swim, member);
    if (now_ns >= own_ns) {
        probe_failed(swim, probe, member, now_ns, out);
    } else {
        probe->last_try = true;
        probe->next_ns = own_ns;
    }
}

uint64_t probes_next_ns(const struct swim *swim)
{
    uint64_t next_ns = UINT64_MAX;
    for (uint32_t i = 0; i < swim->probe_count; i++) {
        next_ns = swim->probes[i].next_ns < next_ns ? swim->probes[i].next_ns : next_ns;
    }
    return next_ns;
}

/* ---- who is asked ---- */

void probe_round(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    uint64_t interval_ns = swim->probe_interval_ns * (1 + swim->health);
    swim->probe_ns += interval_ns;
    if (swim->probe_ns <= now_ns) {
        swim->probe_ns = now_ns + interval_ns;
    }
    if (swim->live_count == 0) {
        return;
    }
    if (swim->live_next >= swim->live_count) {
        live_shuffle(swim);
        swim->live_next = 0;
    }
    probe_start(swim, live_take_next(swim), now_ns, out);
}

void probe_notify(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    uint32_t sent = 0;
    for (uint32_t i = 1; i < swim->slots && sent < NOTIFY_BATCH && out_room(out) > HELPERS; i++) {
        struct member *member = &swim->members[i];
        if (!member->notify) {
            continue;
        }
        sent++;
        uint32_t before = swim->probe_count;
        probe_start(swim, i, now_ns, out);
        if (swim->probe_count == before) {
            ping_only(swim, i, out); /* only to be told */
        }
        member_notify(swim, member, false);
    }
}

/* Is a seed's address that of a live member, or this node's own? */
static bool seed_is_live(const struct swim *swim, const struct swim_seed *seed)
{
    for (uint32_t i = 0; i < swim->slots; i++) {
        const struct swim_member *member = &swim->members[i].pub;
        if (member->uid != 0 && member->status <= SWIM_SUSPECT &&
            member->record.port == seed->port &&
            (memcmp(&member->record.address, &seed->address, sizeof(seed->address)) == 0 ||
             memcmp(&member->record.client_address, &seed->address, sizeof(seed->address)) == 0)) {
            return true;
        }
    }
    return false;
}

static void seed_call(struct swim *swim, const struct swim_seed *seed, struct swim_out *out)
{
    struct draft draft;
    /* The lowest version this node speaks: whoever is there is not known yet. */
    if (draft_begin_address(swim, &draft, &seed->address, seed->port, swim->speaks_min, 0, true,
                            out)) {
        swim_put_token(&draft.body, SWIM_ITEM_PING, random_u32(swim));
        sync_put(swim, &draft.body);
        draft_end(swim, &draft);
    }
}

static bool seed_is_known(const struct swim *swim, const struct swim_seed *seed)
{
    for (uint32_t i = 0; i < swim->seed_count; i++) {
        if (swim->seeds[i].port == seed->port &&
            memcmp(&swim->seeds[i].address, &seed->address, sizeof(seed->address)) == 0) {
            return true;
        }
    }
    return false;
}

int swim_join(struct swim *swim, const struct swim_seed *seed, struct swim_out *out)
{
    out->datagram_count = 0;
    out->event_count = 0;
    if (seed_is_live(swim, seed)) {
        return -EALREADY;
    }
    if (!seed_is_known(swim, seed)) {
        uint32_t others = SWIM_SEEDS_MAX - swim->seeds_fixed;
        if (others == 0) {
            return -ENOSPC;
        }
        uint32_t at = swim->seed_count < SWIM_SEEDS_MAX
                          ? swim->seed_count++
                          : swim->seeds_fixed + swim->seed_next++ % others;
        swim->seeds[at] = *seed;
    }
    seed_call(swim, seed, out);
    return 0;
}

static void dead_call(struct swim *swim, uint32_t which, struct swim_out *out)
{
    for (uint32_t i = 1; i < swim->slots; i++) {
        struct member *member = &swim->members[i];
        if (member->pub.uid != 0 && member->pub.status == SWIM_DEAD && which-- == 0) {
            ping_send(swim, member, random_u32(swim), true, out);
            return;
        }
    }
}

void probe_remembered(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    const struct swim_seed *seeds[SWIM_SEEDS_MAX];
    uint32_t seed_count = 0;
    for (uint32_t i = 0; i < swim->seed_count; i++) {
        if (!seed_is_live(swim, &swim->seeds[i])) {
            seeds[seed_count++] = &swim->seeds[i];
        }
    }
    /* Alone there is nothing better to do. */
    bool alone = swim->live_count == 0;
    uint64_t interval_ns = alone ? JOIN_NS : SWIM_REMEMBER_NS;
    /* Nodes that lost each other at the same moment shall not call at the same moment. */
    swim->remember_ns = jittered(swim, now_ns, interval_ns);
    for (uint32_t i = 0; i < (alone ? FANOUT : 1); i++) {
        if (seed_count > 0) {
            seed_call(swim, seeds[random_below(swim, seed_count)], out);
        }
        if (swim->dead_count > 0) {
            dead_call(swim, random_below(swim, swim->dead_count), out);
        }
    }
}
