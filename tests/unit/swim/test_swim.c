/* SPDX-License-Identifier: Apache-2.0 */
/* test_swim.c - the protocol among a few nodes, and against those who do not keep to it. */
#include <check.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/items.h"
#include "controlplane/swim/seal.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"
#include "tests/unit/swim/shuttle.h"

static struct shuttle shuttle;
static struct swim_out out;

static void start(uint32_t node)
{
    struct swim_seed seed;
    struct swim_options options = shuttle_options(node, &seed);
    shuttle_start(&shuttle, node, &options);
}

static void start_all(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        start(i);
    }
    shuttle_run(&shuttle, 10 * NS_PER_S);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), count);
        ck_assert_uint_eq(swim_sum(shuttle.nodes[i]), swim_sum(shuttle.nodes[0]));
    }
}

static void stop(uint32_t node)
{
    swim_destroy(shuttle.nodes[node]);
    shuttle.nodes[node] = NULL;
}

static void give(uint32_t node, const void *data, size_t size)
{
    struct in6_addr from = shuttle_address(7);
    swim_input(shuttle.nodes[node], &from, 7401, data, size, shuttle.now_ns, &out);
}

/* ---- life ---- */

START_TEST(join_by_one_seed)
{
    start_all(8);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_ALIVE), 7);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_SUSPECT), 0);
    }
    const struct swim_member *other = swim_at(shuttle.nodes[3], 1);
    ck_assert_uint_ne(other->srtt_ns, 0);
    shuttle_end(&shuttle);
}
END_TEST

/* While votes go round, what is being written and what is begun meanwhile must not share a place.
 */
static void expect_clean(void)
{
    for (uint32_t i = 0; i < SHUTTLE_NODES; i++) {
        if (shuttle.nodes[i] != NULL) {
            const struct swim_counters *counters = swim_counters(shuttle.nodes[i]);
            ck_assert_uint_eq(counters->malformed, 0);
            ck_assert_uint_eq(counters->unsealed, 0);
            ck_assert_uint_eq(counters->replayed, 0);
        }
    }
}

/* Nobody hears some datagram wrongly or twice because of the death of one after the other. */
START_TEST(votes_garble_nothing)
{
    for (uint32_t victim = 1; victim < 6; victim++) {
        start_all(8);
        swim_destroy(shuttle.nodes[victim]);
        shuttle.nodes[victim] = NULL;
        shuttle_run(&shuttle, 10 * NS_PER_S);
        for (uint32_t i = 0; i < 8; i++) {
            if (i != victim) {
                ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
            }
        }
        expect_clean();
        shuttle_end(&shuttle);
    }
}
END_TEST

START_TEST(the_dead_are_found_and_come_back_anew)
{
    struct swim_seed seed;
    start_all(5);
    uint64_t before = swim_self(shuttle.nodes[4])->record.incarnation;
    stop(4);
    shuttle_run(&shuttle, 6 * NS_PER_S);
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(shuttle_view(&shuttle, i, 4), SWIM_DEAD);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
    }
    /* Started with the same incarnation: it learns that this one is over. */
    struct swim_options options = shuttle_options(4, &seed);
    options.entropy[0]++;
    shuttle_start(&shuttle, 4, &options);
    shuttle_run(&shuttle, 10 * NS_PER_S);
    ck_assert_uint_gt(swim_self(shuttle.nodes[4])->record.incarnation, before);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 5);
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(a_clock_set_back_is_no_obstacle)
{
    struct swim_seed seed;
    start_all(3);
    stop(2);
    struct swim_options options = shuttle_options(2, &seed);
    options.self.incarnation = 5; /* long ago */
    options.entropy[0]++;
    shuttle_start(&shuttle, 2, &options);
    shuttle_run(&shuttle, 15 * NS_PER_S);
    ck_assert_uint_gt(swim_self(shuttle.nodes[2])->record.incarnation, 1000);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 3);
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(leaving_is_not_dying)
{
    start_all(5);
    swim_leave(shuttle.nodes[2], shuttle.now_ns, &out);
    shuttle_carry(&shuttle, 2, &out);
    shuttle_run(&shuttle, NS_PER_S);
    stop(2);
    shuttle_run(&shuttle, 20 * NS_PER_S);
    for (uint32_t i = 0; i < 5; i++) {
        if (i != 2) {
            ck_assert_int_eq(shuttle_view(&shuttle, i, 2), SWIM_LEFT);
            ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_LEFT), 1);
            ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_SUSPECT), 0);
        }
    }
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(facts_and_states_spread)
{
    start_all(4);
    struct swim_record facts = swim_self(shuttle.nodes[1])->record;
    facts.tier = 5;
    ck_assert_int_eq(swim_set_self(shuttle.nodes[1], &facts), 0);
    facts.tier = WEFT_TIER_MAX + 1;
    ck_assert_int_eq(swim_set_self(shuttle.nodes[1], &facts), -EINVAL);
    ck_assert_int_eq(swim_set_state(shuttle.nodes[1], "models", 6), 0);
    shuttle_run(&shuttle, 3 * NS_PER_S);
    for (uint32_t i = 0; i < 4; i++) {
        const struct swim_member *member =
            swim_find(shuttle.nodes[i], swim_self(shuttle.nodes[1])->uid);
        ck_assert_uint_eq(member->record.tier, 5);
        ck_assert_uint_eq(member->state_size, 6);
        ck_assert_mem_eq(swim_state_of(shuttle.nodes[i], member), "models", 6);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_STATE), i == 1 ? 0 : 1);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* One direction between two of eight is cut: the helpers know better, nobody dies. */
START_TEST(helpers_know_better)
{
    start_all(8);
    shuttle.cut[0][1] = true;
    shuttle_run(&shuttle, 120 * NS_PER_S);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 0);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* Node 0 hears nothing for five seconds and votes against one after the other; nobody agrees, and
 * in that time its own vote is not enough for a verdict either. */
START_TEST(one_observer_alone_is_no_verdict)
{
    start_all(8);
    for (uint32_t i = 1; i < 8; i++) {
        shuttle.cut[i][0] = true;
    }
    shuttle_run(&shuttle, 5 * NS_PER_S);
    ck_assert_uint_ge(swim_counters(shuttle.nodes[0])->votes_cast, 2);
    ck_assert_uint_ge(shuttle_events(&shuttle, 0, SWIM_EVENT_SUSPECT), 2);
    ck_assert_uint_eq(shuttle_events(&shuttle, 0, SWIM_EVENT_DEAD), 0);
    for (uint32_t i = 1; i < 8; i++) {
        /* Of node 0 itself all know that it hears nothing. */
        ck_assert_int_eq(shuttle_view(&shuttle, i, 0), SWIM_DEAD);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
    }
    memset(shuttle.cut, 0, sizeof(shuttle.cut));
    shuttle_run(&shuttle, 20 * NS_PER_S);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 8);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* Nobody hears node `lost` for four seconds. By then all know, and it has votes of its own that
 * nobody else has heard. Back again it asks whom it suspects, and holds nobody dead. */
START_TEST(who_is_back_asks_first)
{
    uint32_t lost = (uint32_t)_i;
    start_all(8);
    for (uint32_t i = 0; i < 8; i++) {
        shuttle.cut[lost][i] = true;
        shuttle.cut[i][lost] = true;
    }
    shuttle_run(&shuttle, 4 * NS_PER_S);
    ck_assert_uint_ge(shuttle_events(&shuttle, lost, SWIM_EVENT_SUSPECT), 1);
    ck_assert_uint_eq(shuttle_events(&shuttle, lost, SWIM_EVENT_DEAD), 0);
    memset(shuttle.cut, 0, sizeof(shuttle.cut));
    shuttle_run(&shuttle, 20 * NS_PER_S);
    ck_assert_uint_eq(shuttle_events(&shuttle, lost, SWIM_EVENT_DEAD), 0);
    for (uint32_t i = 0; i < 8; i++) {
        ck_assert_uint_le(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 8);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* A node that was stopped for half a minute finds old news and no answers: it blames itself. */
START_TEST(a_pause_is_nobodys_death)
{
    start_all(6);
    struct swim *paused = shuttle.nodes[3];
    shuttle.nodes[3] = NULL;
    shuttle_run(&shuttle, 30 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&shuttle, 0, 3), SWIM_DEAD);
    shuttle.nodes[3] = paused;
    shuttle_run(&shuttle, 15 * NS_PER_S);
    ck_assert_uint_eq(shuttle_events(&shuttle, 3, SWIM_EVENT_DEAD), 0);
    ck_assert_uint_eq(swim_counters(paused)->pauses, 1);
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 6);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* By the seed, or, if that is gone for good, by remembering each other. */
START_TEST(halves_find_each_other)
{
    bool seedless = _i == 1;
    uint32_t half = seedless ? 2 : 3;
    start_all(6);
    if (seedless) {
        stop(0);
        shuttle_run(&shuttle, 10 * NS_PER_S);
    }
    for (uint32_t i = 0; i < 6; i++) {
        for (uint32_t j = 0; j < 6; j++) {
            shuttle.cut[i][j] = (i < 3) != (j < 3);
        }
    }
    shuttle_run(&shuttle, 300 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[1]), half);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[5]), 3);
    memset(shuttle.cut, 0, sizeof(shuttle.cut));
    shuttle_run(&shuttle, 30 * NS_PER_S);
    for (uint32_t i = seedless ? 1 : 0; i < 6; i++) {
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), half + 3);
    }
    shuttle_end(&shuttle);
}
END_TEST

/* ---- those who do not keep to it ---- */

/* A datagram under the mesh key, as any member could make it. */
static size_t forge(uint64_t session, const uint8_t *raw, size_t raw_size, uint64_t proof,
                    uint8_t *data)
{
    static uint64_t counter = UINT64_C(1) << 32; /* beyond all that was sent */
    struct swim_keyring ring;
    struct cursor body;
    uint8_t mesh_key[32];
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_keyring_init(&ring, mesh_key);
    struct swim_header header = {.version = SWIM_VERSION,
                                 .kind = SWIM_SEAL_MESH,
                                 .key_tag = ring.keys[0].tag,
                                 .session = session,
                                 .counter = ++counter};
    cursor_init(&body, data + SWIM_HEADER_BYTES, 1000);
    swim_put_number(&body, SWIM_ITEM_CHALLENGE, 1);
    if (proof != 0) {
        swim_put_number(&body, SWIM_ITEM_PROOF, proof);
    }
    swim_put_bytes(&body, SWIM_ITEM_RECORD, raw, raw_size);
    return swim_seal(&header, ring.keys[0].mesh, data,
                     (size_t)(body.at - data) - SWIM_HEADER_BYTES);
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
    uint8_t data[SWIM_DATAGRAM_MAX], seed[32], mesh_key[32];
    struct swim_identity node2;
    struct swim_keyring ring;
    struct cursor body;
    start_all(4);
    memset(seed, 3, sizeof(seed)); /* node 2 */
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_identity_init(&node2, seed);
    swim_keyring_init(&ring, mesh_key);
    const struct swim_member *suspect = swim_self(shuttle.nodes[1]);
    struct swim_header header = {.version = SWIM_VERSION,
                                 .kind = SWIM_SEAL_MESH,
                                 .key_tag = ring.keys[0].tag,
                                 .session = swim_self(shuttle.nodes[2])->record.session,
                                 /* its own next ones are still in the window */
                                 .counter = swim_counters(shuttle.nodes[2])->datagrams_out + 200};
    struct swim_vote vote = {.suspect = suspect->uid,
                             .incarnation = suspect->record.incarnation,
                             .observer = swim_self(shuttle.nodes[2])->uid};
    swim_vote_sign(&vote, node2.secret_key);
    cursor_init(&body, data + SWIM_HEADER_BYTES, 1000);
    ck_assert(swim_put_token(&body, SWIM_ITEM_PING, 77));
    ck_assert(swim_put_vote(&body, &vote));
    size_t size =
        swim_seal(&header, ring.keys[0].mesh, data, (size_t)(body.at - data) - SWIM_HEADER_BYTES);
    memset(&out, 0xff, sizeof(out));
    give(0, data, size);
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
    uint8_t data[SWIM_DATAGRAM_MAX], seed[32], mesh_key[32];
    struct swim_identity insider;
    struct swim_keyring ring;
    struct cursor body;
    start_all(6);
    memset(seed, 3, sizeof(seed)); /* node 2 */
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_identity_init(&insider, seed);
    swim_keyring_init(&ring, mesh_key);
    const struct swim_member *victim = swim_self(shuttle.nodes[1]);
    struct swim_header header = {.version = SWIM_VERSION,
                                 .kind = SWIM_SEAL_MESH,
                                 .key_tag = ring.keys[0].tag,
                                 .session = swim_self(shuttle.nodes[2])->record.session,
                                 .counter = UINT64_C(1) << 32};
    cursor_init(&body, data + SWIM_HEADER_BYTES, 1000);
    for (uint32_t i = 3; i < 6; i++) {
        struct swim_vote vote = {.suspect = victim->uid,
                                 .incarnation = victim->record.incarnation,
                                 .observer = swim_self(shuttle.nodes[i])->uid};
        swim_vote_sign(&vote, insider.secret_key);
        ck_assert(swim_put_vote(&body, &vote));
    }
    size_t size =
        swim_seal(&header, ring.keys[0].mesh, data, (size_t)(body.at - data) - SWIM_HEADER_BYTES);
    give(0, data, size);
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
    struct swim_identity own;
    struct swim_keyring ring;
    struct swim_header header = {.receiver = swim_self(shuttle.nodes[1])->record.session};
    struct swim_item item;
    struct cursor c;
    uint8_t seed[32], mesh_key[32], shared[32], key[32], body[SWIM_DATAGRAM_MAX];
    const uint8_t *other = swim_self(shuttle.nodes[0])->record.public_key;
    uint32_t token = 0;
    bool malformed;
    memset(seed, 2, sizeof(seed));
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_identity_init(&own, seed);
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
    uint8_t data[SWIM_DATAGRAM_MAX], mesh_key[32];
    struct swim_keyring ring;
    struct cursor body;
    start_all(2);
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_keyring_init(&ring, mesh_key);
    const struct swim_member *member =
        swim_find(shuttle.nodes[0], swim_self(shuttle.nodes[1])->uid);
    out.datagram_count = out.event_count = 0;
    swim_ask(shuttle.nodes[0], member->uid, ++shuttle.now_ns, &out);
    ck_assert_uint_eq(out.datagram_count, 1);
    uint64_t acked_ns = member->acked_ns;
    struct swim_header header = {.version = SWIM_VERSION,
                                 .kind = SWIM_SEAL_MESH,
                                 .key_tag = ring.keys[0].tag,
                                 .session = swim_self(shuttle.nodes[1])->record.session,
                                 .counter = UINT64_C(1) << 32};
    cursor_init(&body, data + SWIM_HEADER_BYTES, 1000);
    ck_assert(swim_put_token(&body, SWIM_ITEM_ACK, token_in(&out.datagrams[0])));
    size_t size =
        swim_seal(&header, ring.keys[0].mesh, data, (size_t)(body.at - data) - SWIM_HEADER_BYTES);
    give(0, data, size);
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
    uint8_t data[SWIM_DATAGRAM_MAX], seed[32], mesh_key[32];
    struct swim_identity identity;
    struct swim_keyring ring;
    struct cursor body;
    memset(seed, (int)signer + 1, sizeof(seed));
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_identity_init(&identity, seed);
    swim_keyring_init(&ring, mesh_key);
    struct swim_vote vote = {.suspect = suspect, .incarnation = incarnation, .observer = observer};
    swim_vote_sign(&vote, identity.secret_key);
    struct swim_header header = {.version = SWIM_VERSION,
                                 .kind = SWIM_SEAL_MESH,
                                 .key_tag = ring.keys[0].tag,
                                 .session = swim_self(shuttle.nodes[2])->record.session,
                                 .counter = ++counter};
    cursor_init(&body, data + SWIM_HEADER_BYTES, 1000);
    ck_assert(swim_put_vote(&body, &vote));
    size_t size =
        swim_seal(&header, ring.keys[0].mesh, data, (size_t)(body.at - data) - SWIM_HEADER_BYTES);
    give(0, data, size);
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

START_TEST(keys_rotate_under_way)
{
    uint8_t old[32], fresh[32];
    struct swim_seed seed;
    start_all(5);
    memset(old, 0x77, sizeof(old));
    memset(fresh, 0x78, sizeof(fresh));
    for (uint32_t step = 0; step < 3; step++) {
        for (uint32_t i = 0; i < 5; i++) {
            int rc = step == 0   ? swim_key_install(shuttle.nodes[i], fresh)
                     : step == 1 ? swim_key_use(shuttle.nodes[i], fresh)
                                 : swim_key_remove(shuttle.nodes[i], old);
            ck_assert_int_eq(rc, 0);
            shuttle_run(&shuttle, 2 * NS_PER_S); /* some have, some have not */
        }
    }
    shuttle_run(&shuttle, 10 * NS_PER_S);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_SUSPECT), 0);
        ck_assert_uint_eq(swim_live_count(shuttle.nodes[i]), 5);
    }
    struct swim_options options = shuttle_options(6, &seed);
    shuttle_start(&shuttle, 6, &options); /* with the old key */
    shuttle_run(&shuttle, 5 * NS_PER_S);
    ck_assert_uint_eq(swim_live_count(shuttle.nodes[6]), 1);
    shuttle_end(&shuttle);
}
END_TEST

/* 1..1, 1..2 and 2..2: neighbours understand each other, the far ends do not. */
START_TEST(adjacent_versions_work_together)
{
    struct swim_seed seed;
    static const uint8_t speaks[][2] = {{1, 2}, {1, 1}, {2, 2}};
    for (uint32_t i = 0; i < 3; i++) {
        struct swim_options options = shuttle_options(i, &seed);
        options.speaks_min = speaks[i][0];
        options.speaks_max = speaks[i][1];
        shuttle_start(&shuttle, i, &options);
    }
    shuttle_run(&shuttle, 3 * NS_PER_S);
    ck_assert_int_eq(shuttle_view(&shuttle, 1, 0), SWIM_ALIVE);
    ck_assert_int_eq(shuttle_view(&shuttle, 2, 0), SWIM_ALIVE);
    ck_assert_uint_ge(swim_find(shuttle.nodes[1], swim_self(shuttle.nodes[0])->uid)->acked_ns, 1);
    ck_assert_uint_ge(swim_find(shuttle.nodes[2], swim_self(shuttle.nodes[0])->uid)->acked_ns, 1);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(memory_is_what_was_said)
{
    struct swim_seed seed;
    for (uint32_t i = 0; i < 5; i++) {
        struct swim_options options = shuttle_options(i, &seed);
        options.members_max = 3;
        ck_assert_uint_gt(swim_memory_bytes(&options), 3 * sizeof(struct swim_member));
        shuttle_start(&shuttle, i, &options);
    }
    shuttle_run(&shuttle, 20 * NS_PER_S);
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_le(swim_slots(shuttle.nodes[i]), 3);
    }
    ck_assert_uint_gt(swim_counters(shuttle.nodes[0])->records_refused, 0);
    shuttle_end(&shuttle);
}
END_TEST

/* Everybody's state is large and new all the time; deaths are found as fast as ever. */
START_TEST(state_does_not_crowd_out_liveness)
{
    uint8_t state[SWIM_STATE_MAX];
    start_all(8);
    stop(7);
    for (uint32_t round = 0; round < 40; round++) {
        for (uint32_t i = 0; i < 7; i++) {
            memset(state, (int)(round + i), sizeof(state));
            ck_assert_int_eq(swim_set_state(shuttle.nodes[i], state, sizeof(state)), 0);
        }
        shuttle_run(&shuttle, 100 * NS_PER_MS);
    }
    for (uint32_t i = 0; i < 7; i++) {
        ck_assert_int_eq(shuttle_view(&shuttle, i, 7), SWIM_DEAD);
        ck_assert_uint_eq(shuttle_events(&shuttle, i, SWIM_EVENT_DEAD), 1);
    }
    ck_assert_uint_le(shuttle.longest, SWIM_DATAGRAM_MAX);
    shuttle_end(&shuttle);
}
END_TEST

START_TEST(noise_does_nothing)
{
    uint8_t data[SWIM_DATAGRAM_MAX + 60];
    start_all(3);
    uint64_t sum = swim_sum(shuttle.nodes[0]);
    for (uint32_t i = 0; i < 20000; i++) {
        size_t size = randombytes_uniform(sizeof(data));
        uint8_t seed[randombytes_SEEDBYTES] = {(uint8_t)i, (uint8_t)(i >> 8)};
        randombytes_buf_deterministic(data, size, seed);
        if (i % 2 == 0 && shuttle.last[1][0].len > 0) {
            size = shuttle.last[1][0].len;
            memcpy(data, shuttle.last[1][0].data, size);
            data[i / 2 % size] ^= (uint8_t)(1 + i % 255);
        }
        give(0, data, size);
        ck_assert_uint_eq(out.datagram_count, 0);
        ck_assert_uint_eq(out.event_count, 0);
    }
    ck_assert_uint_eq(swim_sum(shuttle.nodes[0]), sum);
    shuttle_end(&shuttle);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim");
    TCase *cases = tcase_create("swim");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, join_by_one_seed);
    tcase_add_test(cases, votes_garble_nothing);
    tcase_add_test(cases, an_answer_and_a_question_at_once);
    tcase_add_test(cases, the_dead_are_found_and_come_back_anew);
    tcase_add_test(cases, a_clock_set_back_is_no_obstacle);
    tcase_add_test(cases, leaving_is_not_dying);
    tcase_add_test(cases, facts_and_states_spread);
    tcase_add_test(cases, helpers_know_better);
    tcase_add_test(cases, one_observer_alone_is_no_verdict);
    tcase_add_loop_test(cases, who_is_back_asks_first, 0, 8);
    tcase_add_test(cases, a_pause_is_nobodys_death);
    tcase_add_loop_test(cases, halves_find_each_other, 0, 2);
    tcase_add_test(cases, insiders_cannot_speak_for_others);
    tcase_add_test(cases, insiders_cannot_vote_for_others);
    tcase_add_test(cases, an_old_proof_is_none);
    tcase_add_test(cases, any_member_could_have_answered);
    tcase_add_test(cases, only_true_votes_are_refuted);
    tcase_add_test(cases, the_dead_do_not_vote);
    tcase_add_test(cases, caught_datagrams_are_worth_nothing);
    tcase_add_test(cases, the_dead_stay_dead);
    tcase_add_test(cases, outsiders_get_no_answer);
    tcase_add_test(cases, keys_rotate_under_way);
    tcase_add_test(cases, adjacent_versions_work_together);
    tcase_add_test(cases, memory_is_what_was_said);
    tcase_add_test(cases, state_does_not_crowd_out_liveness);
    tcase_add_test(cases, noise_does_nothing);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
