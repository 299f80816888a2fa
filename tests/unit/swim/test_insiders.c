/* SPDX-License-Identifier: Apache-2.0 */
/* test_insiders.c - the protocol against members who do not keep to it, and those who have caught
 * what was said once: forged records, votes and answers. */
#include <check.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/items.h"
#include "controlplane/swim/seal.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"
#include "tests/unit/swim/nodes.h"

/* A datagram under the mesh key, as any member could make it. */
struct forgery {
    uint8_t data[SWIM_DATAGRAM_MAX];
    struct swim_keyring ring;
    struct swim_header header;
    struct cursor body;
};

static void forgery_begin(struct forgery *f, uint64_t session, uint64_t counter)
{
    uint8_t mesh_key[32];
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_keyring_init(&f->ring, mesh_key);
    f->header = (struct swim_header){.version = SWIM_VERSION,
                                     .kind = SWIM_SEAL_MESH,
                                     .key_tag = f->ring.keys[0].tag,
                                     .session = session,
                                     .counter = counter};
    cursor_init(&f->body, f->data + SWIM_HEADER_BYTES, 1000);
}

static size_t forgery_end(struct forgery *f)
{
    size_t len = (size_t)(f->body.at - f->data) - SWIM_HEADER_BYTES;
    return swim_seal(&f->header, f->ring.keys[0].mesh, f->data, len);
}

static struct swim_identity identity_of(uint32_t node)
{
    struct swim_identity identity;
    uint8_t seed[32];
    memset(seed, (int)node + 1, sizeof(seed));
    swim_identity_init(&identity, seed);
    return identity;
}

/* As that node would sign it, whoever the observer is said to be. */
static struct swim_vote vote_of(uint64_t suspect, uint64_t incarnation, uint64_t observer,
                                uint32_t signer)
{
    const struct swim_identity identity = identity_of(signer);
    struct swim_vote vote = {.suspect = suspect, .incarnation = incarnation, .observer = observer};
    swim_vote_sign(&vote, identity.secret_key);
    return vote;
}

/* One that shows a record, and answers a challenge unless `proof` is 0. Returns its size. */
static size_t forge(uint64_t session, const uint8_t *raw, size_t raw_size, uint64_t proof,
                    uint8_t *data)
{
    static uint64_t counter = UINT64_C(1) << 32; /* beyond all that was sent */
    struct forgery f;
    forgery_begin(&f, session, ++counter);
    swim_put_number(&f.body, SWIM_ITEM_CHALLENGE, 1);
    if (proof != 0) {
        swim_put_number(&f.body, SWIM_ITEM_PROOF, proof);
    }
    swim_put_bytes(&f.body, SWIM_ITEM_RECORD, raw, raw_size);
    size_t size = forgery_end(&f);
    memcpy(data, f.data, size);
    return size;
}

/* Opens what `node` has just put out, and finds its challenge. */
static uint64_t challenge_in(const struct swim_datagram *datagram)
{
    struct swim_keyring ring;
    struct swim_header header = {0};
    struct swim_item item;
    struct cursor c;
    uint8_t mesh_key[32], body[SWIM_DATAGRAM_MAX];
    uint64_t number = 0;
    bool malformed;
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_keyring_init(&ring, mesh_key);
    ck_assert(swim_header_read(&header, datagram->data, datagram->len));
    ck_assert(swim_open(&header, ring.keys[0].mesh, datagram->data, datagram->len, body));
    cursor_init(&c, body, datagram->len - SWIM_SEAL_BYTES);
    ck_assert(swim_item_next(&c, &item, &malformed));
    ck_assert_int_eq(item.type, SWIM_ITEM_CHALLENGE);
    ck_assert(swim_get_number(&item, &number));
    return number;
}

/* A member in good standing makes records of others: with their key but its own signature, and
 * one of its own with another's id. */
START_TEST(insiders_cannot_speak_for_others)
{
    uint8_t raw[SWIM_RECORD_MAX], data[SWIM_DATAGRAM_MAX], seed[32];
    struct swim_identity insider;
    start_all(3);
    struct swim_record record = swim_self(shuttle.nodes[1])->record;
    memset(seed, 0x99, sizeof(seed));
    swim_identity_init(&insider, seed);
    record.incarnation += 1000;
    record.session = 0x123456789;
    record.port = 666;
    size_t size = swim_record_write(&record, insider.secret_key, raw);
    give(0, data, forge(record.session, raw, size, 0, data));
    ck_assert_uint_eq(out.datagram_count, 0); /* not even asked: the signature is wrong */
    uint64_t challenge = 1;
    memcpy(record.public_key, insider.public_key, 32);
    size = swim_record_write(&record, insider.secret_key, raw);
    give(0, data, forge(record.session, raw, size, 0, data));
    ck_assert_uint_eq(out.datagram_count, 1);
    challenge = challenge_in(&out.datagrams[0]);
    give(0, data, forge(record.session, raw, size, challenge, data));
    ck_assert_uint_eq(out.event_count, 1);
    ck_assert_int_eq(out.events[0].type, SWIM_EVENT_CLASH);
    /* And the forged one with the right answer to the challenge. */
    memcpy(record.public_key, swim_self(shuttle.nodes[1])->record.public_key, 32);
    size = swim_record_write(&record, insider.secret_key, raw);
    give(0, data, forge(record.session, raw, size, challenge, data));
    ck_assert_uint_eq(out.event_count, 0);
    ck_assert_uint_ge(swim_counters(shuttle.nodes[0])->bad_signatures, 1);
    const struct swim_member *member =
        swim_find(shuttle.nodes[0], swim_self(shuttle.nodes[1])->uid);
    ck_assert_uint_eq(member->record.port, 7401);
    shuttle_end(&shuttle);
}
END_TEST

/* One datagram asks, and then says something that makes this node ask another: the answer and the
 * question go out each for itself. */
START_TEST(an_answer_and_a_question_at_once)
{
    struct forgery f;
    start_all(4);
    const struct swim_member *suspect = swim_self(shuttle.nodes[1]);
    const struct swim_vote vote =
        vote_of(suspect->uid, suspect->record.incarnation, swim_self(shuttle.nodes[2])->uid, 2);
    forgery_begin(&f, swim_self(shuttle.nodes[2])->record.session,
                  /* its own next ones are still in the window */
                  swim_counters(shuttle.nodes[2])->datagrams_out + 200);
    ck_assert(swim_put_token(&f.body, SWIM_ITEM_PING, 77));
    ck_assert(swim_put_vote(&f.body, &vote));
    memset(&out, 0xff, sizeof(out));
    give(0, f.data, forgery_end(&f));
    struct in6_addr asker = shuttle_address(2);
    struct in6_addr asked = shuttle_address(1);
    ck_assert_uint_eq(out.datagram_count, 2);
    ck_assert(addr_equal(&out.datagrams[0].address, &asker));
    ck_assert(addr_equal(&out.datagrams[1].address, &asked));
    /* Both are what they should be to those they are for. */
    shuttle_carry(&shuttle, 0, &out);
    shuttle_run(&shuttle, NS_PER_S);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_uint_eq(swim_counters(shuttle.nodes[i])->malformed, 0);
        ck_assert_uint_eq(swim_counters(shuttle.nodes[i])->unsealed, 0);
    }
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 1), SWIM_ALIVE);
    shuttle_end(&shuttle);
}
END_TEST

/* Votes in others' names, and its own in a stranger's: none counts. */
START_TEST(insiders_cannot_vote_for_others)
{
    struct forgery f;
    start_all(6);
    const struct swim_member *victim = swim_self(shuttle.nodes[1]);
    forgery_begin(&f, swim_self(shuttle.nodes[2])->record.session, UINT64_C(1) << 32);
    for (uint32_t i = 3; i < 6; i++) {
        const struct swim_vote vote =
            vote_of(victim->uid, victim->record.incarnation, swim_self(shuttle.nodes[i])->uid, 2);
        ck_assert(swim_put_vote(&f.body, &vote));
    }
    give(0, f.data, forgery_end(&f));
    ck_assert_uint_eq(out.event_count, 0);
    ck_assert_uint_eq(swim_counters(shuttle.nodes[0])->bad_signatures, 3);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 1), SWIM_ALIVE);
    shuttle_end(&shuttle);
}
END_TEST

/* A proof is the answer to a challenge of now: one of another time may have been caught. */
START_TEST(an_old_proof_is_none)
{
    uint8_t raw[SWIM_RECORD_MAX], data[SWIM_DATAGRAM_MAX], seed[32];
    struct swim_identity newcomer;
    start_all(2);
    struct swim_record record = swim_self(shuttle.nodes[1])->record;
    memset(seed, 0x99, sizeof(seed));
    swim_identity_init(&newcomer, seed);
    memcpy(record.public_key, newcomer.public_key, 32);
    record.id = 777;
    record.session = 0x123456789;
    record.address = shuttle_address(6);
    size_t size = swim_record_write(&record, newcomer.secret_key, raw);
    give(0, data, forge(record.session, raw, size, 0, data));
    ck_assert_uint_eq(out.datagram_count, 1);
    uint64_t challenge = challenge_in(&out.datagrams[0]);
    give(0, data, forge(record.session, raw, size, challenge ^ 1, data));
    ck_assert_uint_eq(out.event_count, 0);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[0]), 2);
    give(0, data, forge(record.session, raw, size, challenge, data));
    ck_assert_uint_eq(out.event_count, 1);
    ck_assert_int_eq(out.events[0].type, SWIM_EVENT_ALIVE);
    shuttle_end(&shuttle);
}
END_TEST

/* The token of a ping from node 0 to node 1, under the key of the two. */
static uint32_t token_in(const struct swim_datagram *ping)
{
    const struct swim_identity own = identity_of(1);
    struct swim_keyring ring;
    struct swim_header header = {.receiver = swim_self(shuttle.nodes[1])->record.session};
    struct swim_item item;
    struct cursor c;
    uint8_t mesh_key[32], shared[32], key[32], body[SWIM_DATAGRAM_MAX];
    const uint8_t *other = swim_self(shuttle.nodes[0])->record.public_key;
    uint32_t token = 0;
    bool malformed;
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_keyring_init(&ring, mesh_key);
    ck_assert(swim_pair_shared(&own, other, shared));
    swim_pair_key(&ring, 0, shared, other, own.public_key, key);
    ck_assert(swim_header_read(&header, ping->data, ping->len));
    ck_assert_int_eq(header.kind, SWIM_SEAL_PAIR);
    ck_assert(swim_open(&header, key, ping->data, ping->len, body));
    cursor_init(&c, body, ping->len - SWIM_SEAL_BYTES);
    while (swim_item_next(&c, &item, &malformed) && item.type != SWIM_ITEM_PING) {
    }
    ck_assert(swim_get_token(&item, &token));
    return token;
}

/* An answer under the key that all have could be anybody's: it is asked again, under that of the
 * two. */
START_TEST(any_member_could_have_answered)
{
    struct forgery f;
    start_all(2);
    const struct swim_member *member =
        swim_find(shuttle.nodes[0], swim_self(shuttle.nodes[1])->uid);
    out.datagram_count = out.event_count = 0;
    swim_ask(shuttle.nodes[0], member->uid, ++shuttle.now_ns, &out);
    ck_assert_uint_eq(out.datagram_count, 1);
    uint64_t acked_ns = member->acked_ns;
    forgery_begin(&f, swim_self(shuttle.nodes[1])->record.session, UINT64_C(1) << 32);
    ck_assert(swim_put_token(&f.body, SWIM_ITEM_ACK, token_in(&out.datagrams[0])));
    give(0, f.data, forgery_end(&f));
    ck_assert_uint_eq(out.datagram_count, 1);
    ck_assert_uint_eq(member->acked_ns, acked_ns);
    shuttle_end(&shuttle);
}
END_TEST

/* Node 2 hands node 0 a vote of `observer` about `suspect`, signed with the key of node `signer`.
 */
static void give_vote(uint64_t suspect, uint64_t incarnation, uint64_t observer, uint32_t signer)
{
    static uint64_t counter = UINT64_C(2) << 32;
    struct forgery f;
    const struct swim_vote vote = vote_of(suspect, incarnation, observer, signer);
    forgery_begin(&f, swim_self(shuttle.nodes[2])->record.session, ++counter);
    ck_assert(swim_put_vote(&f.body, &vote));
    give(0, f.data, forgery_end(&f));
}

/* About this node itself: nobody can have it say that it lives in another's name, and who has left
 * does not come back to say so. */
START_TEST(only_true_votes_are_refuted)
{
    start_all(4);
    const struct swim_member *self = swim_self(shuttle.nodes[0]);
    const uint64_t observer = swim_self(shuttle.nodes[3])->uid;
    uint64_t incarnation = self->record.incarnation;
    give_vote(self->uid, incarnation, observer, 2);
    ck_assert_uint_eq(self->record.incarnation, incarnation);
    give_vote(self->uid, incarnation, observer, 3);
    ck_assert_uint_eq(self->record.incarnation, incarnation + 1);
    ck_assert_uint_eq(swim_counters(shuttle.nodes[0])->refutations, 1);
    swim_leave(shuttle.nodes[0], shuttle.now_ns, &out);
    give_vote(self->uid, incarnation + 1, observer, 3);
    ck_assert_uint_eq(self->record.incarnation, incarnation + 1);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(the_dead_do_not_vote)
{
    start_all(4);
    const struct swim_member *victim = swim_self(shuttle.nodes[1]);
    const uint64_t observer = swim_self(shuttle.nodes[3])->uid;
    stop(3);
    shuttle_run(&shuttle, 10 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 3), SWIM_DEAD);
    give_vote(victim->uid, victim->record.incarnation, observer, 3);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 1), SWIM_ALIVE);
    give_vote(victim->uid, victim->record.incarnation, swim_self(shuttle.nodes[2])->uid, 2);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 1), SWIM_SUSPECT);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(caught_datagrams_are_worth_nothing)
{
    start_all(2);
    struct swim_datagram caught = shuttle.last[1][0];
    struct swim_datagram introduction = shuttle.first[1];
    uint64_t before = swim_counters(shuttle.nodes[0])->replayed;
    give(0, caught.data, caught.len);
    ck_assert_uint_eq(out.datagram_count, 0);
    ck_assert_uint_eq(swim_counters(shuttle.nodes[0])->replayed, before + 1);
    /* After a restart of the receiver: its session is another, and nobody answers its challenge. */
    struct swim_seed seed;
    struct swim_options options = shuttle_options(0, &seed);
    options.entropy[0]++;
    options.self.incarnation++;
    stop(0);
    stop(1);
    shuttle_start(&shuttle, 0, &options);
    give(0, caught.data, caught.len);
    give(0, introduction.data, introduction.len);
    ck_assert_uint_eq(out.event_count, 0);
    ck_assert_uint_eq(out.datagram_count, 1); /* the question whether anybody is there */
    ck_assert_uint_eq(swim_slots(shuttle.nodes[0]), 1);
    shuttle_carry(&shuttle, 0, &out);
    shuttle_run(&shuttle, 5 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[0]), 1);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(the_dead_stay_dead)
{
    uint8_t raw[SWIM_RECORD_MAX], data[SWIM_DATAGRAM_MAX];
    struct swim_identity dead;
    uint8_t seed[32];
    start_all(4);
    struct swim_record record = swim_self(shuttle.nodes[3])->record;
    stop(3);
    shuttle_run(&shuttle, 10 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 3), SWIM_DEAD);
    /* Its own record once more, even a later version of it: the incarnation is over. */
    memset(seed, 4, sizeof(seed));
    swim_identity_init(&dead, seed);
    for (uint32_t i = 0; i < 2; i++) {
        record.version += i;
        size_t size = swim_record_write(&record, dead.secret_key, raw);
        uint64_t before = swim_counters(shuttle.nodes[0])->replayed;
        give(0, data, forge(record.session, raw, size, 0, data));
        ck_assert_uint_eq(swim_counters(shuttle.nodes[0])->replayed, before);
        ck_assert_uint_eq(out.event_count, 0);
        shuttle_carry(&shuttle, 0, &out);
        shuttle_run(&shuttle, NS_PER_S);
        ck_assert_int_eq(shuttle_view(&shuttle, 0, 3), SWIM_DEAD);
    }
    ck_assert_uint_eq(shuttle_events(&shuttle, 0, SWIM_EVENT_ALIVE), 3);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(outsiders_get_no_answer)
{
    struct swim_seed seed;
    start_all(2);
    struct swim_options options = shuttle_options(5, &seed);
    options.mesh_key[0] ^= 1;
    shuttle_start(&shuttle, 5, &options);
    shuttle_run(&shuttle, 10 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[5]), 1);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[0]), 2);
    ck_assert_uint_eq(swim_counters(shuttle.nodes[5])->datagrams_in, 0);
    ck_assert_uint_ge(swim_counters(shuttle.nodes[0])->unsealed, 5);
    shuttle_end(&shuttle);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim/insiders");
    TCase *cases = tcase_create("insiders");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, an_answer_and_a_question_at_once);
    tcase_add_test(cases, insiders_cannot_speak_for_others);
    tcase_add_test(cases, insiders_cannot_vote_for_others);
    tcase_add_test(cases, an_old_proof_is_none);
    tcase_add_test(cases, any_member_could_have_answered);
    tcase_add_test(cases, only_true_votes_are_refuted);
    tcase_add_test(cases, the_dead_do_not_vote);
    tcase_add_test(cases, caught_datagrams_are_worth_nothing);
    tcase_add_test(cases, the_dead_stay_dead);
    tcase_add_test(cases, outsiders_get_no_answer);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
