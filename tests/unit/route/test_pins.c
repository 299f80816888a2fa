/* SPDX-License-Identifier: Apache-2.0 */
/* test_pins.c - where the datagrams of a request go while nodes fall under suspicion, die, leave
 * and come back: stages.c at an ingress against a model of what each request's node is and whether
 * it has answered. And what an ingress that drains still takes. */
#include <check.h>
#include <stdlib.h>
#include <weft/status.h>

#include "fixture.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define NODES 6u /* 1 is the ingress and serves nothing */
#define KEYS  8u
#define ROUND 400u
#define SEEDS 200u
#define NOW   UINT64_C(1000)

#define EU 1u /* a tag */

struct fate {
    bool alive, suspect, leaving;
    uint32_t tags;
};

static struct route_core *core;
static struct route_table *table;
static struct route_frame frame, reply_frame;
static struct route_packet packet, reply;
static struct fate fates[NODES + 1];
static uint16_t epoch;
static uint32_t need_tags; /* of requests */
static uint64_t now_ns;

/* A table in which all are as `fates` says. */
static void publish(void)
{
    struct route_node nodes[NODES];
    for (uint16_t id = 1; id <= NODES; id++) {
        nodes[id - 1] = fixture_node(id, 50.0, 8.0 + 5.0 * id, 3);
        nodes[id - 1].alive = fates[id].alive;
        nodes[id - 1].suspect = fates[id].suspect;
        nodes[id - 1].leaving = fates[id].leaving;
        nodes[id - 1].tags = fates[id].tags;
        nodes[id - 1].queue_us = fates[id].suspect ? 1000000 : 0;
        nodes[id - 1].room = 60000;
    }
    route_table_destroy(table);
    ck_assert_int_eq(route_table_create(&table, nodes, NODES, 1, ++epoch, false), 0);
}

static void setup(void)
{
    fixture_ip6_nodes = fixture_ip6_client = false;
    core = fixture_core(1);
    table = NULL;
    epoch = 0;
    need_tags = 0;
    now_ns = NOW;
    for (uint32_t id = 1; id <= NODES; id++) {
        fates[id] = (struct fate){.alive = true};
    }
    publish();
}

static void teardown(void)
{
    route_core_destroy(core);
    route_table_destroy(table);
}

/* A datagram of request `seq` from the client; the node that it was sent on to, 0 if none. */
static uint16_t send_named(uint32_t seq, uint8_t type, uint8_t flags, uint16_t target)
{
    fixture_request(&packet, &frame, 1, 100);
    struct weft_req_hdr *h = &frame.weft.req.h;
    packet_set(&frame, &h->req_seq, &seq, sizeof(seq));
    packet_set_u8(&frame, &h->type, type);
    packet_set_u8(&frame, &h->flags, (uint8_t)(h->flags | flags));
    packet_set(&frame, &h->target, &target, sizeof(target));
    packet_set(&frame, &h->req_tags, &need_tags, sizeof(need_tags));
    fixture_cookie(core, &packet);
    run_stages(core, table, &packet, now_ns);
    bool on = packet.action == ROUTE_SEND && !packet.own;
    return on ? frame.weft.req.h.target : 0;
}

static uint16_t send_on(uint32_t seq, uint8_t type, uint8_t flags)
{
    return send_named(seq, type, flags, WEFT_NODE_NONE);
}

/* The node that the packet just sent went to answers, and its answer passes here. */
static void answer(uint16_t server, uint8_t type, uint8_t flags)
{
    struct weft_req request = frame.weft.req;
    fixture_reply(&reply, &reply_frame, &request, server, type);
    reply_frame.weft.rsp.h.flags |= flags;
    reply_frame.weft.rsp.h.room = 60000;
    struct route_hop hop = {
        .mac = {2, 0, 0, 0, 0, 1}, .port_be = htons(PORT_DATA), .addr = node_addr(1)};
    struct route_host host = fixture_host(node_addr(server), PORT_DATA);
    reply.from_worker = reply.own = false;
    packet_compose(&reply, &host, &hop);
    run_stages(core, table, &reply, NOW);
    ck_assert_uint_eq(reply.action, ROUTE_SEND);
    ck_assert_uint_eq(reply.to, ROUTE_TO_CLIENT);
}

static const struct weft_reject *rejected(void)
{
    ck_assert_uint_eq(packet.action, ROUTE_SEND);
    ck_assert_uint_eq(frame.weft.rsp.h.type, WEFT_T_REJECT);
    return (const struct weft_reject *)(frame.weft.bytes + sizeof(struct weft_rsp));
}

START_TEST(a_suspect_that_has_not_answered_is_passed_by)
{
    uint16_t first = send_on(1, WEFT_T_REQ, 0);
    ck_assert_uint_eq(first, 2); /* the nearest */
    fates[2].suspect = true;
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_CANCEL, 0), 2); /* it goes where the request went */
    uint16_t second = send_on(1, WEFT_T_REQ, WEFT_F_RETX);
    ck_assert_uint_eq(second, 3);
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 3); /* its other parts follow */
    ck_assert_uint_eq(send_on(1, WEFT_T_CANCEL, 0), 3);
    fates[2].suspect = false;
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 3); /* and stay */
    ck_assert_uint_eq(send_on(2, WEFT_T_REQ, 0), 2);
}
END_TEST

/* Who is asked again without having answered is to be asked whether it lives. */
START_TEST(silence_is_told)
{
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    ck_assert_uint_eq(atomic_load(&core->missed), WEFT_NODE_NONE);
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(atomic_exchange(&core->missed, WEFT_NODE_NONE), 2);
    answer(2, WEFT_T_GRANT, 0);
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(atomic_load(&core->missed), WEFT_NODE_NONE);
}
END_TEST

START_TEST(who_has_answered_keeps_the_request)
{
    const uint8_t types[] = {WEFT_T_GRANT, WEFT_T_BUSY, WEFT_T_RESEND_REQ};
    for (uint32_t i = 0; i < sizeof(types); i++) {
        ck_assert_uint_eq(send_on(10 + i, WEFT_T_REQ, 0), 2);
        answer(2, types[i], 0);
        fates[2].suspect = true;
        publish();
        ck_assert_uint_eq(send_on(10 + i, WEFT_T_REQ, WEFT_F_RETX), 2);
        fates[2].alive = false; /* until it is dead */
        publish();
        ck_assert_uint_eq(send_on(10 + i, WEFT_T_REQ, WEFT_F_RETX), 3);
        fates[2] = (struct fate){.alive = true};
        publish();
    }
}
END_TEST

START_TEST(a_suspect_is_better_than_nobody)
{
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    for (uint16_t id = 2; id <= NODES; id++) {
        fates[id] = (struct fate){.alive = id == 2, .suspect = id == 2};
    }
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(send_named(1, WEFT_T_REQ, 0, 2), 2); /* the client has its reasons */
}
END_TEST

/* Where one has gone that leaves its parts go on to; nobody new is sent there. */
START_TEST(who_leaves_keeps_what_it_has)
{
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    fates[2].leaving = true;
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(send_named(1, WEFT_T_REQ, 0, 2), 2);
    ck_assert_uint_eq(send_on(2, WEFT_T_REQ, 0), 3);
    for (uint16_t id = 3; id <= NODES; id++) {
        fates[id].alive = false;
    }
    publish();
    ck_assert_uint_eq(send_on(3, WEFT_T_REQ, 0), 0);
    ck_assert_uint_eq(rejected()->status, -WEFT_E_UNKNOWN_MODEL);
}
END_TEST

/* A filter holds for every datagram: what a node may have had it may not have any more. */
START_TEST(who_may_not_have_it_any_more_loses_it)
{
    need_tags = EU;
    for (uint16_t id = 2; id <= NODES; id++) {
        fates[id].tags = EU;
    }
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    answer(2, WEFT_T_GRANT, 0);
    fates[2].tags = 0;
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_CANCEL, 0), 2); /* that it has to hear of */
    ck_assert_uint_eq(send_named(1, WEFT_T_REQ, 0, 2), 0);
    ck_assert_uint_eq(rejected()->status, -WEFT_E_NO_CAPABLE_NODE);
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 3);
    fates[2].tags = EU;
    publish();
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 3);
}
END_TEST

START_TEST(pins_do_not_live_for_ever)
{
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    answer(2, WEFT_T_GRANT, 0);
    now_ns = NOW + ROUTE_PIN_LIFE_NS;
    ck_assert_uint_eq(send_on(1, WEFT_T_CANCEL, 0), 2);
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(atomic_load(&core->counters.chosen), 1);
    now_ns++;
    ck_assert_uint_eq(send_on(1, WEFT_T_CANCEL, 0), 0); /* nobody knows where it went */
    ck_assert_uint_eq(frame.weft.rsp.h.type, WEFT_T_UNKNOWN);
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(atomic_load(&core->counters.chosen), 2);
}
END_TEST

/* What one request has seen so far. */
struct request_model {
    uint16_t node; /* 0 = none */
    bool answered;
};

static uint32_t others_than(uint16_t doubted)
{
    uint32_t count = 0;
    for (uint16_t id = 2; id <= NODES; id++) {
        count += fates[id].alive && !fates[id].leaving && id != doubted;
    }
    return count;
}

static void check_sent(struct request_model *m, uint32_t seq, bool again)
{
    const struct fate *at = &fates[m->node];
    uint16_t held = m->node;
    uint16_t sent = send_on(seq, WEFT_T_REQ, again ? WEFT_F_RETX : 0);
    if (held != 0 && at->alive && (m->answered || !at->suspect)) {
        ck_assert_uint_eq(sent, held); /* never a second one without need */
        return;
    }
    uint16_t doubted = held != 0 && at->alive ? held : 0;
    bool anybody = others_than(0) != 0;
    ck_assert(anybody == (sent != 0));
    ck_assert(sent == 0 || (fates[sent].alive && !fates[sent].leaving));
    ck_assert(doubted == 0 || others_than(doubted) == 0 || sent != doubted);
    if (sent != 0) {
        *m = (struct request_model){.node = sent};
    }
}

START_TEST(requests_follow_the_model)
{
    struct rng rng = {.state = 4200 + (uint64_t)_i};
    struct request_model models[KEYS] = {0};
    for (uint32_t step = 0; step < ROUND; step++) {
        uint32_t key = rng_below(&rng, KEYS);
        struct request_model *m = &models[key];
        uint32_t what = rng_below(&rng, 8);
        if (what == 0) {
            uint16_t id = (uint16_t)(2 + rng_below(&rng, NODES - 1));
            fates[id] = (struct fate){.alive = rng_below(&rng, 4) != 0,
                                      .suspect = rng_below(&rng, 2) != 0,
                                      .leaving = rng_below(&rng, 6) == 0};
            publish();
        } else if (what == 1 && m->node != 0 && fates[m->node].alive) {
            ck_assert_uint_eq(send_on(key + 1, WEFT_T_CANCEL, 0), m->node);
            answer(m->node, WEFT_T_GRANT, 0);
            m->answered = true;
        } else {
            check_sent(m, key + 1, rng_below(&rng, 2) != 0);
        }
    }
}
END_TEST

START_TEST(who_drains_takes_nothing_new)
{
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    table->closing = true;
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, WEFT_F_RETX), 2);
    ck_assert_uint_eq(send_on(1, WEFT_T_ACK, 0), 2);
    ck_assert_uint_eq(send_named(2, WEFT_T_REQ, WEFT_F_RETX, 3), 3); /* begun before */
    ck_assert_uint_eq(send_named(3, WEFT_T_REQ, 0, 3), 0);
    ck_assert_uint_eq(rejected()->status, -WEFT_E_DRAINING);
    ck_assert_uint_eq(send_on(3, WEFT_T_REQ, 0), 0);
    ck_assert_uint_eq(rejected()->status, -WEFT_E_DRAINING);
    ck_assert_uint_eq(frame.weft.rsp.h.server, WEFT_NODE_NONE); /* it was asked itself */
    ck_assert_uint_eq(rejected()->retry_after_us, 0);
    ck_assert_uint_eq(atomic_load(&core->counters.drops[ROUTE_DROP_draining]), 2);
}
END_TEST

/* All that could do it take nothing new: another answer than that they are full. */
START_TEST(workers_that_drain_are_not_full)
{
    for (uint16_t id = 2; id <= NODES; id++) {
        core->loads[id] = (struct route_load){
            .heard_ns = NOW, .room = 0, .queue_us = id == 4 ? 5000 : WEFT_QUEUE_DRAINING};
    }
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 0);
    ck_assert_uint_eq(rejected()->status, -WEFT_E_MESH_FULL); /* one of them is */
    ck_assert_uint_eq(rejected()->retry_after_us, 5000);
    core->loads[4].queue_us = WEFT_QUEUE_DRAINING;
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 0);
    ck_assert_uint_eq(rejected()->status, -WEFT_E_DRAINING);
    ck_assert_uint_eq(rejected()->retry_after_us, 0);
}
END_TEST

START_TEST(answers_under_way_are_known)
{
    ck_assert(!carried_any(&core->carried, NOW));
    ck_assert_uint_eq(send_on(1, WEFT_T_REQ, 0), 2);
    ck_assert(!carried_any(&core->carried, NOW));
    answer(2, WEFT_T_GRANT, 0);
    ck_assert(carried_any(&core->carried, NOW));
    ck_assert_uint_eq(send_on(1, WEFT_T_ACK, 0), 2);
    answer(2, WEFT_T_RESP, 0);
    ck_assert(carried_any(&core->carried, NOW + CARRIED_LIFE_NS - (1u << CARRIED_SHIFT)));
    ck_assert(!carried_any(&core->carried, NOW + CARRIED_LIFE_NS + (2u << CARRIED_SHIFT)));
    ck_assert_uint_eq(send_on(1, WEFT_T_ACK, 0), 2);
    answer(2, WEFT_T_RESP, WEFT_F_LAST);
    ck_assert(!carried_any(&core->carried, NOW));
    ck_assert_uint_eq(send_on(2, WEFT_T_REQ, 0), 2);
    answer(2, WEFT_T_BUSY, 0);
    ck_assert_uint_eq(send_on(2, WEFT_T_ACK, 0), 2);
    answer(2, WEFT_T_REJECT, 0);
    ck_assert(!carried_any(&core->carried, NOW));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pins");
    TCase *tc = tcase_create("pins");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_suspect_that_has_not_answered_is_passed_by);
    tcase_add_test(tc, silence_is_told);
    tcase_add_test(tc, who_has_answered_keeps_the_request);
    tcase_add_test(tc, a_suspect_is_better_than_nobody);
    tcase_add_test(tc, who_leaves_keeps_what_it_has);
    tcase_add_test(tc, who_may_not_have_it_any_more_loses_it);
    tcase_add_test(tc, pins_do_not_live_for_ever);
    tcase_add_loop_test(tc, requests_follow_the_model, 0, SEEDS);
    tcase_add_test(tc, who_drains_takes_nothing_new);
    tcase_add_test(tc, workers_that_drain_are_not_full);
    tcase_add_test(tc, answers_under_way_are_known);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
