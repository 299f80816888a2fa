/* SPDX-License-Identifier: Apache-2.0 */
/* input.c - one datagram: opened, checked for replay, its items carried out. See state.h. */
#include <string.h>

#include "controlplane/swim/state.h"

#define BODY_MAX (SWIM_DATAGRAM_MAX - SWIM_SEAL_BYTES)

/* One datagram's way through. */
struct visit {
    struct swim *swim;
    struct swim_out *out;
    uint64_t now_ns;
    struct swim_header header;
    uint32_t sender;    /* slot; SWIM_SLOT_NONE: not known (yet) */
    uint64_t dead_uid;  /* the sender holds this one dead, its record may follow */
    uint64_t challenge; /* its challenge, 0: none */
    bool fresh;         /* it has answered ours */
    bool asked;         /* who is not known has been asked */
    struct draft reply;
};

static bool datagram_open(struct visit *visit, const uint8_t *data, size_t size, uint8_t *body)
{
    struct swim *swim = visit->swim;
    struct member *member = NULL;
    visit->header.receiver = 0;
    if (visit->header.kind == SWIM_SEAL_PAIR) {
        member = &swim->members[visit->sender];
        visit->header.receiver = swim->members[SELF].pub.record.session;
    }
    for (uint32_t i = 0; i < swim->keyring.count; i++) {
        uint8_t key[SWIM_KEY_BYTES];
        if (swim->keyring.keys[i].tag == visit->header.key_tag && key_for(swim, member, i, key) &&
            swim_open(&visit->header, key, data, size, body)) {
            if (member != NULL) {
                member->knows_me = true; /* see seal.h */
            }
            return true;
        }
    }
    return false;
}

/* A record of a session not known here, in a datagram of that session, that may have been caught
 * years ago: ask whether anybody is there, and keep nothing. The answer carries the proof. If the
 * mesh remembers more of that node than the node says (its clock was set back), its own signed
 * record goes along, and tells it how far it had come. Who has answered and is not taken in because
 * its id is another's is shown the record of that one; there is nothing else to tell it, or two
 * that do not take each other in would never stop. */
static void stranger_ask(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    struct swim_record record;
    struct draft draft;
    if (!swim_record_read(&record, item->data, item->size) ||
        record.session != visit->header.session || visit->challenge == 0 || visit->asked ||
        !swim_record_verify(&record, item->data, item->size)) {
        return;
    }
    uint64_t uid = swim_uid(record.public_key);
    const struct member *member = member_find(swim, uid);
    const struct member *shown = NULL;
    visit->asked = true;
    if (member == &swim->members[SELF]) {
        return;
    }
    if (member != NULL && member->pub.record.incarnation >= record.incarnation) {
        shown = member;
    } else if (visit->fresh) {
        shown = id_owner(swim, record.id, uid);
    }
    if (shown == &swim->members[SELF]) {
        shown = NULL; /* it is there anyway */
    }
    if (!draft_begin_address(swim, &draft, &record.address, record.port, visit->header.version,
                             visit->challenge, !visit->fresh, visit->out)) {
        return;
    }
    if (shown != NULL) {
        swim_put_bytes(&draft.body, SWIM_ITEM_RECORD, shown->raw, shown->raw_size);
    }
    draft_end(swim, &draft);
}

static void record_item(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    bool as_dead = visit->dead_uid != 0;
    visit->dead_uid = 0;
    if (visit->sender != SWIM_SLOT_NONE || visit->header.kind != SWIM_SEAL_MESH) {
        record_take(swim, item->data, item->size, as_dead, visit->now_ns, visit->out);
        return;
    }
    if (!visit->fresh) {
        stranger_ask(visit, item);
        return;
    }
    uint32_t slot = record_take(swim, item->data, item->size, false, visit->now_ns, visit->out);
    visit->sender = swim_map_get(&swim->by_session, visit->header.session);
    if (visit->sender == SWIM_SLOT_NONE) {
        stranger_ask(visit, item);
        return;
    }
    swim->members[visit->sender].challenge = visit->challenge;
    swim_window_mark(&swim->members[visit->sender].window, visit->header.counter);
    if (visit->sender == slot &&
        draft_ensure(swim, &visit->reply, slot, 2 * SWIM_ITEM_HEAD + 16, visit->out)) {
        sync_put(swim, &visit->reply.body); /* also proves this node to it */
    }
}

static void number_item(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    uint64_t number;
    if (!swim_get_number(item, &number)) {
        swim->counters.malformed++;
    } else if (item->type == SWIM_ITEM_PROOF) {
        visit->fresh = number == swim->challenges[0] || number == swim->challenges[1];
    } else {
        visit->challenge = number;
        if (visit->sender != SWIM_SLOT_NONE) {
            swim->members[visit->sender].challenge = number;
        }
    }
}

static void ping_item(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    const struct member *sender = &swim->members[visit->sender];
    uint32_t token;
    if (!swim_get_token(item, &token)) {
        swim->counters.malformed++;
        return;
    }
    size_t votes = SWIM_OBSERVERS * (SWIM_ITEM_HEAD + sizeof(struct swim_vote));
    if (!draft_ensure(swim, &visit->reply, visit->sender, 2 * SWIM_ITEM_HEAD + 20 + votes,
                      visit->out)) {
        return;
    }
    swim_put_token(&visit->reply.body, SWIM_ITEM_ACK, token);
    if (sender->pub.status == SWIM_DEAD) {
        swim_put_two(&visit->reply.body, SWIM_ITEM_DEAD, sender->pub.uid,
                     sender->pub.record.incarnation);
    } else if (sender->pub.status == SWIM_SUSPECT) {
        put_votes_on(swim, sender, &visit->reply.body);
    }
}

static void dead_item(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    uint64_t uid;
    uint64_t incarnation;
    if (!swim_get_two(item, &uid, &incarnation)) {
        swim->counters.malformed++;
        return;
    }
    visit->dead_uid = uid;
    struct member *member = member_find(swim, uid);
    if (member == NULL || incarnation != member->pub.record.incarnation) {
        return;
    }
    if (member == &swim->members[SELF]) {
        struct member *self = member;
        self_refute(swim, incarnation, visit->now_ns);
        /* Whoever said so hears it first. */
        if (draft_ensure(swim, &visit->reply, visit->sender, SWIM_ITEM_HEAD + self->raw_size,
                         visit->out)) {
            swim_put_bytes(&visit->reply.body, SWIM_ITEM_RECORD, self->raw, self->raw_size);
            sync_put(swim, &visit->reply.body);
        }
    } else if (member_is_live(member)) {
        member_notify(swim, member, true);
    }
}

/* What only counts from a known pair. */
static void pair_item(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    uint32_t token;
    uint64_t uid;
    bool pair = visit->header.kind == SWIM_SEAL_PAIR;
    bool good = item->type == SWIM_ITEM_PING_REQ ? swim_get_ping_req(item, &token, &uid)
                                                 : swim_get_token(item, &token);
    if (!good) {
        swim->counters.malformed++;
    } else if (item->type == SWIM_ITEM_ACK) {
        probe_acked(swim, visit->sender, token, pair, visit->now_ns, visit->out);
    } else if (item->type == SWIM_ITEM_NACK && pair) {
        probe_nacked(swim, token, visit->now_ns, visit->out);
    } else if (item->type == SWIM_ITEM_PING_REQ && pair) {
        probe_help(swim, visit->sender, token, uid, visit->now_ns, visit->out);
    }
}

static void item_carry_out(struct visit *visit, const struct swim_item *item)
{
    struct swim *swim = visit->swim;
    struct swim_vote vote;
    if (item->type == SWIM_ITEM_RECORD) {
        record_item(visit, item);
        return;
    }
    if (item->type == SWIM_ITEM_CHALLENGE || item->type == SWIM_ITEM_PROOF) {
        number_item(visit, item);
        return;
    }
    if (visit->sender == SWIM_SLOT_NONE) {
        return;
    }
    switch (item->type) {
    case SWIM_ITEM_PING:
        ping_item(visit, item);
        break;
    case SWIM_ITEM_ACK:
    case SWIM_ITEM_NACK:
    case SWIM_ITEM_PING_REQ:
        pair_item(visit, item);
        break;
    case SWIM_ITEM_VOTE:
        if (swim_get_vote(item, &vote)) {
            vote_take(swim, &vote, visit->sender, visit->now_ns, &visit->reply, visit->out);
        } else {
            swim->counters.malformed++;
        }
        break;
    case SWIM_ITEM_STATE:
        state_take(swim, item, visit->now_ns, visit->out);
        break;
    case SWIM_ITEM_DEAD:
        dead_item(visit, item);
        break;
    default:
        /* Unknown ones are of a later version: skipped. */
        sync_item(swim, item, visit->sender, visit->now_ns, &visit->reply, visit->out);
        break;
    }
}

/* Whether it is for this node, new, and good; opens it. */
static bool datagram_admit(struct visit *visit, const uint8_t *data, size_t size, uint8_t *body)
{
    struct swim *swim = visit->swim;
    if (size > SWIM_DATAGRAM_MAX || !swim_header_read(&visit->header, data, size)) {
        swim->counters.malformed++;
        return false;
    }
    if (visit->header.version < swim->speaks_min || visit->header.version > swim->speaks_max) {
        swim->counters.foreign_version++;
        return false;
    }
    visit->sender = swim_map_get(&swim->by_session, visit->header.session);
    if (visit->sender == SELF ||
        (visit->sender == SWIM_SLOT_NONE && visit->header.kind == SWIM_SEAL_PAIR)) {
        swim->counters.unknown_sender++;
        return false;
    }
    if (visit->sender != SWIM_SLOT_NONE &&
        !swim_window_fresh(&swim->members[visit->sender].window, visit->header.counter)) {
        swim->counters.replayed++;
        return false;
    }
    if (!datagram_open(visit, data, size, body)) {
        swim->counters.unsealed++;
        return false;
    }
    if (visit->sender != SWIM_SLOT_NONE) {
        swim_window_mark(&swim->members[visit->sender].window, visit->header.counter);
        if (visit->header.kind == SWIM_SEAL_PAIR) {
            swim->members[visit->sender].heard_ns = visit->now_ns;
        }
    }
    return true;
}

void swim_input(struct swim *swim, const struct in6_addr *from, uint16_t port, const void *data,
                size_t size, uint64_t now_ns, struct swim_out *out)
{
    uint8_t body[BODY_MAX];
    struct visit visit = {.swim = swim, .out = out, .now_ns = now_ns};
    struct cursor c;
    struct swim_item item;
    bool malformed = false;
    /* Where it came from proves nothing and is not used: answers go to the address in the sender's
     * signed record. */
    (void)from;
    (void)port;
    out->datagram_count = 0;
    out->event_count = 0;
    swim->counters.datagrams_in++;
    pause_check(swim, now_ns);
    if (!datagram_admit(&visit, data, size, body)) {
        return;
    }
    cursor_init(&c, body, size - SWIM_SEAL_BYTES);
    while (swim_item_next(&c, &item, &malformed)) {
        item_carry_out(&visit, &item);
    }
    swim->counters.malformed += malformed ? 1 : 0;
    draft_end(swim, &visit.reply);
}
