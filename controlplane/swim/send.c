/* SPDX-License-Identifier: Apache-2.0 */
/* send.c - writing datagrams, and the news that ride in them or go out in rounds. See state.h. */
#include <sodium.h>
#include <string.h>

#include "controlplane/swim/state.h"

#define BODY_MAX (SWIM_DATAGRAM_MAX - SWIM_SEAL_BYTES)

/* ---- keys ---- */

bool key_for(struct swim *swim, struct member *member, uint32_t index, uint8_t key[SWIM_KEY_BYTES])
{
    if (member == NULL) {
        memcpy(key, swim->keyring.keys[index].mesh, SWIM_KEY_BYTES);
        return true;
    }
    if (!member->shared_known) {
        if (!swim_pair_shared(&swim->identity, member->pub.record.public_key, member->shared)) {
            return false;
        }
        member->shared_known = true;
    }
    if (index == 0 && member->pair_generation == swim->keyring.generation) {
        memcpy(key, member->pair_key, SWIM_KEY_BYTES);
        return true;
    }
    swim_pair_key(&swim->keyring, index, member->shared, swim->identity.public_key,
                  member->pub.record.public_key, key);
    if (index == 0) {
        memcpy(member->pair_key, key, SWIM_KEY_BYTES);
        member->pair_generation = swim->keyring.generation;
    }
    return true;
}

/* ---- drafts ---- */

/* Takes the next datagram of the output, if there is one. It is counted at once: others may be
 * begun and ended while this one is open. */
static bool draft_open(struct swim *swim, struct draft *draft, const struct in6_addr *address,
                       uint16_t port, struct swim_out *out)
{
    draft->datagram = NULL;
    cursor_init(&draft->body, draft, 0);
    if (out_room(out) == 0 || swim->counter + 1 >= SWIM_COUNTER_LIMIT) {
        swim->counters.datagrams_unsent++;
        return false;
    }
    draft->datagram = &out->datagrams[out->datagram_count++];
    draft->datagram->address = *address;
    draft->datagram->port = port;
    draft->header.key_tag = swim->keyring.keys[0].tag;
    draft->header.session = swim->members[SELF].pub.record.session;
    cursor_init(&draft->body, draft->datagram->data + SWIM_HEADER_BYTES, BODY_MAX);
    return true;
}

bool draft_begin_address(struct swim *swim, struct draft *draft, const struct in6_addr *address,
                         uint16_t port, uint8_t version, uint64_t proof, bool ask,
                         struct swim_out *out)
{
    const struct member *self = &swim->members[SELF];
    if (!draft_open(swim, draft, address, port, out)) {
        return false;
    }
    draft->header.version = version;
    draft->header.kind = SWIM_SEAL_MESH;
    draft->header.receiver = 0;
    key_for(swim, NULL, 0, draft->key);
    if (ask) {
        swim_put_number(&draft->body, SWIM_ITEM_CHALLENGE, swim->challenges[0]);
    }
    if (proof != 0) {
        swim_put_number(&draft->body, SWIM_ITEM_PROOF, proof);
    }
    swim_put_bytes(&draft->body, SWIM_ITEM_RECORD, self->raw, self->raw_size);
    return true;
}

/* The highest version both speak, 0 if there is none. */
static uint8_t version_for(const struct swim *swim, const struct swim_record *record)
{
    uint8_t high = swim->speaks_max < record->speaks_max ? swim->speaks_max : record->speaks_max;
    uint8_t low = swim->speaks_min > record->speaks_min ? swim->speaks_min : record->speaks_min;
    return high >= low ? high : 0;
}

/* Of a member's addresses the one of this node's family. */
static const struct in6_addr *address_for(const struct swim *swim, const struct member *member)
{
    const struct swim_record *record = &member->pub.record;
    bool four = IN6_IS_ADDR_V4MAPPED(&swim->members[SELF].pub.record.address);
    if (!IN6_IS_ADDR_UNSPECIFIED(&record->client_address) &&
        (IN6_IS_ADDR_V4MAPPED(&record->address) != 0) != four) {
        return &record->client_address;
    }
    return &record->address;
}

bool draft_begin(struct swim *swim, struct draft *draft, uint32_t slot, bool introduce,
                 struct swim_out *out)
{
    struct member *member = &swim->members[slot];
    uint8_t version = version_for(swim, &member->pub.record);
    const struct in6_addr *address = address_for(swim, member);
    draft->datagram = NULL;
    cursor_init(&draft->body, draft, 0);
    if (version == 0) {
        swim->counters.seal_failures++;
        return false;
    }
    if (introduce || !member->knows_me) {
        return draft_begin_address(swim, draft, address, member->pub.record.port, version,
                                   member->challenge, true, out);
    }
    if (!draft_open(swim, draft, address, member->pub.record.port, out)) {
        return false;
    }
    draft->header.version = version;
    draft->header.kind = SWIM_SEAL_PAIR;
    draft->header.receiver = member->pub.record.session;
    if (!key_for(swim, member, 0, draft->key)) {
        swim->counters.seal_failures++;
        draft->datagram = NULL;
        out->datagram_count--; /* none was begun since */
        return false;
    }
    return true;
}

/* ---- news ---- */

/* How often an item is told: a vote less often than a record of life, without which the healthy may
 * be held dead. */
static uint32_t limit_of(const struct swim *swim, enum ring_class class, enum news_kind kind)
{
    uint32_t doublings = 1;
    for (uint32_t n = swim->live_count + 1; n > 1; n /= 2) {
        doublings++;
    }
    if (kind == NEWS_VOTE) {
        return FANOUT + doublings;
    }
    return class == RING_LIVENESS ? FANOUT * (1 + (doublings + 1) / 2) : FANOUT + doublings / 2;
}

static void ring_push(struct ring *ring, struct news news, bool in_front)
{
    if (ring->count == ring->room) {
        return; /* cannot be: one entry per slot and vote */
    }
    if (in_front) {
        ring->first = (ring->first + ring->room - 1) % ring->room;
        ring->all[ring->first] = news;
    } else {
        ring->all[(ring->first + ring->count) % ring->room] = news;
    }
    ring->count++;
}

static void gossip_by(struct swim *swim, uint64_t after_ns, uint64_t now_ns)
{
    uint64_t at_ns = swim->gossiped_ns + after_ns;
    at_ns = at_ns > now_ns ? at_ns : now_ns;
    swim->gossip_ns = at_ns < swim->gossip_ns ? at_ns : swim->gossip_ns;
}

void news_record(struct swim *swim, struct member *member, enum ring_class class, uint64_t now_ns)
{
    member->record_sent = 0;
    if (!member->record_queued[class]) {
        member->record_queued[class] = true;
        ring_push(&swim->rings[class],
                  (struct news){.index = slot_of(swim, member), .kind = NEWS_RECORD}, true);
    }
    gossip_by(swim, class == RING_LIVENESS ? GOSSIP_HOT_NS : GOSSIP_NS, now_ns);
}

void news_vote(struct swim *swim, uint32_t suspicion, uint32_t vote, uint64_t now_ns)
{
    swim->suspicions[suspicion].votes[vote].sent = 0;
    if (!swim->suspicions[suspicion].votes[vote].queued) {
        swim->suspicions[suspicion].votes[vote].queued = true;
        ring_push(&swim->rings[RING_LIVENESS],
                  (struct news){.index = suspicion, .kind = NEWS_VOTE, .vote = (uint8_t)vote},
                  true);
    }
    gossip_by(swim, GOSSIP_HOT_NS, now_ns);
}

void news_state(struct swim *swim, struct member *member, uint64_t now_ns)
{
    member->state_sent = 0;
    if (!member->state_queued) {
        member->state_queued = true;
        ring_push(&swim->rings[RING_STATE],
                  (struct news){.index = slot_of(swim, member), .kind = NEWS_STATE}, true);
    }
    gossip_by(swim, GOSSIP_NS, now_ns);
}

/* Where an entry counts how often it was sent; NULL: it is news no more. */
static uint16_t *news_sent(struct swim *swim, struct news news, bool **queued,
                           enum ring_class class)
{
    if (news.kind == NEWS_VOTE) {
        struct suspicion *suspicion = &swim->suspicions[news.index];
        *queued = &suspicion->votes[news.vote].queued;
        bool there = suspicion->slot != SWIM_SLOT_NONE && news.vote < suspicion->vote_count;
        return there ? &suspicion->votes[news.vote].sent : NULL;
    }
    struct member *member = &swim->members[news.index];
    if (news.kind == NEWS_STATE) {
        *queued = &member->state_queued;
        return member->pub.uid != 0 && member->pub.state_version != 0 ? &member->state_sent : NULL;
    }
    *queued = &member->record_queued[class];
    return member->pub.uid != 0 && member->pub.status != SWIM_DEAD ? &member->record_sent : NULL;
}

static bool news_put(struct swim *swim, struct news news, struct cursor *body)
{
    if (news.kind == NEWS_VOTE) {
        const struct suspicion *suspicion = &swim->suspicions[news.index];
        struct swim_vote vote = {
            .suspect = swim->members[suspicion->slot].pub.uid,
            .incarnation = suspicion->incarnation,
            .observer = suspicion->votes[news.vote].observer,
        };
        memcpy(vote.signature, suspicion->votes[news.vote].signature, SWIM_SIGNATURE_BYTES);
        return swim_put_vote(body, &vote);
    }
    const struct member *member = &swim->members[news.index];
    if (news.kind == NEWS_RECORD) {
        return swim_put_bytes(body, SWIM_ITEM_RECORD, member->raw, member->raw_size);
    }
    struct swim_state_head head = {.uid = member->pub.uid,
                                   .incarnation = member->pub.record.incarnation,
                                   .version = member->pub.state_version};
    return swim_put_state(body, &head, swim->states + (size_t)swim->state_max * news.index,
                          member->pub.state_size, member->state_signature);
}

/* Entries from the front into the room left; those sent often enough go. Stops after the first
 * entry that finds no room, which then is first next time. */
static void ring_fill(struct swim *swim, enum ring_class class, struct cursor *body)
{
    struct ring *ring = &swim->rings[class];
    for (uint32_t left = ring->count; left > 0; left--) {
        struct news news = ring->all[ring->first];
        uint32_t limit = limit_of(swim, class, news.kind);
        bool *queued;
        uint16_t *sent = news_sent(swim, news, &queued, class);
        if (sent != NULL && *sent < limit && !news_put(swim, news, body)) {
            return;
        }
        ring->first = (ring->first + 1) % ring->room;
        ring->count--;
        if (sent != NULL && *sent < limit && ++*sent < limit) {
            ring_push(ring, news, false);
        } else {
            *queued = false;
        }
    }
}

static void news_fill(struct swim *swim, struct cursor *body)
{
    ring_fill(swim, RING_LIVENESS, body);
    size_t kept = swim->rings[RING_LIVENESS].count > 0 ? SWIM_LIVENESS_BYTES : 0;
    size_t left = cursor_left(body);
    if (left > kept) {
        struct cursor rest = {.at = body->at, .end = body->end - kept};
        ring_fill(swim, RING_STATE, &rest);
        body->at = rest.at;
    }
}

void draft_end(struct swim *swim, struct draft *draft)
{
    if (draft->datagram == NULL) {
        return;
    }
    news_fill(swim, &draft->body);
    size_t body_size = (size_t)(draft->body.at - (draft->datagram->data + SWIM_HEADER_BYTES));
    draft->header.counter = ++swim->counter;
    draft->datagram->len =
        (uint16_t)swim_seal(&draft->header, draft->key, draft->datagram->data, body_size);
    sodium_memzero(draft->key, sizeof(draft->key));
    swim->counters.datagrams_out++;
    swim->counters.bytes_out += draft->datagram->len;
    draft->datagram = NULL;
}

bool draft_ensure(struct swim *swim, struct draft *draft, uint32_t slot, size_t bytes,
                  struct swim_out *out)
{
    if (draft->datagram != NULL && cursor_left(&draft->body) >= bytes) {
        return true;
    }
    draft_end(swim, draft);
    return draft_begin(swim, draft, slot, false, out) && cursor_left(&draft->body) >= bytes;
}

void gossip_round(struct swim *swim, uint64_t now_ns, struct swim_out *out)
{
    uint32_t first = random_below(swim, swim->live_count + 1);
    uint32_t peers = swim->live_count < FANOUT ? swim->live_count : FANOUT;
    uint32_t step = swim->live_count / FANOUT;
    for (uint32_t i = 0; i < peers; i++) {
        struct draft draft;
        if (swim->rings[RING_LIVENESS].count == 0 && swim->rings[RING_STATE].count == 0) {
            break;
        }
        /* Evenly spaced in an order that is shuffled each round of probing: distinct, and random
         * enough. */
        uint32_t at = (first + i * (step > 0 ? step : 1)) % swim->live_count;
        if (draft_begin(swim, &draft, swim->live[at], false, out)) {
            draft_end(swim, &draft);
        }
    }
    bool more = swim->rings[RING_LIVENESS].count > 0 || swim->rings[RING_STATE].count > 0;
    swim->gossiped_ns = now_ns;
    swim->gossip_ns = more && swim->live_count > 0 ? now_ns + GOSSIP_NS : UINT64_MAX;
}
