/* SPDX-License-Identifier: Apache-2.0 */
/* test_local.c - dataplane/local.c: datagrams of local clients through the real stages and back. */
#include <check.h>

#include "tests/unit/port/local_fixture.h"
#include "tests/unit/suite.h"

#define SELF 2u

static struct local *local;
static struct route_core *core;
static struct route_table *table;
static struct hand_turn turn;

static void setup(void)
{
    local = calloc(1, sizeof(*local));
    core = fixture_core(SELF);
    table = fixture_table(SELF);
}

static void teardown(void)
{
    route_table_destroy(table);
    route_core_destroy(core);
    free(local);
}

static struct weft_req request(uint32_t seq)
{
    struct route_packet p;
    static struct route_frame f;
    fixture_request(&p, &f, SELF, 32);
    f.weft.req.h.req_seq = seq;
    return f.weft.req;
}

/* Header and 32 bytes. */
static bool ask(struct hand_client *c, uint32_t seq)
{
    uint8_t data[sizeof(struct weft_req) + 32] = {0};
    struct weft_req req = request(seq);
    memcpy(data, &req, sizeof(req));
    return hand_send(c, data, sizeof(data));
}

static uint64_t drops(enum route_drop why)
{
    return atomic_load(&core->counters.drops[why]);
}

/* What lies in the client's ring next; NULL: nothing. */
static const struct weft_rsp *heard(struct hand_client *c)
{
    struct ring_slot *slot = ring_peek(&c->in);
    if (slot == NULL) {
        return NULL;
    }
    ring_release(&c->in);
    return (const struct weft_rsp *)(const void *)(slot->data);
}

/* The worker's answer to what was delivered, as it comes back from node `server`. */
static struct route_packet answer_to(const struct weft_req *req, struct route_frame *f,
                                     uint16_t server)
{
    struct route_packet p;
    fixture_reply(&p, f, req, server, WEFT_T_RESP);
    if (server == SELF) {
        stage_parse_worker(core, &p, 1);
    } else {
        struct route_host from = fixture_host(node_addr(server), PORT_DATA);
        struct route_hop to = {.port_be = htons(PORT_DATA), .addr = node_addr(SELF)};
        packet_compose(&p, &from, &to);
        stage_parse(core, &p, 1);
    }
    stage_classify(core, table, &p, 1, 5);
    return p;
}

START_TEST(request_reaches_a_node_and_its_reply_the_client)
{
    struct hand_client c = hand_client(local, 3, 70);
    struct route_frame f;
    fixture_ip6_nodes = _i == 1;
    route_table_destroy(table);
    table = fixture_table(SELF);
    core->host.addr = _i == 1 ? 0 : core->host.addr;
    ck_assert(ask(&c, 1));
    hand_turn(&turn, local, core, table, 5);
    ck_assert_uint_eq(turn.count, 1);
    struct route_packet *p = &turn.packets[0];
    ck_assert_uint_eq(drops(ROUTE_DROP_no_cookie), 0); /* it needs none */
    ck_assert_uint_eq(p->action, ROUTE_DELIVER);       /* here: the nearest */
    ck_assert(packet_udp_ok(p));
    struct weft_req delivered = p->frame->weft.req;
    struct route_packet reply = answer_to(&delivered, &f, SELF);
    ck_assert(local_bound(&reply));
    local_deliver(local, core, &reply, 1, false);
    ck_assert_uint_eq(reply.action, ROUTE_LET_GO);
    ck_assert_uint_eq(reply.why, 0);
    const struct weft_rsp *rsp = heard(&c);
    ck_assert_ptr_nonnull(rsp);
    ck_assert_uint_eq(rsp->h.req_seq, 1);
    /* The same from another node. */
    reply = answer_to(&delivered, &f, 3);
    ck_assert_uint_eq(reply.action, ROUTE_SEND);
    local_deliver(local, core, &reply, 1, true);
    ck_assert_ptr_nonnull(heard(&c));
    ck_assert_uint_eq(atomic_load(&local->local_given), 2);
    ck_assert_uint_eq(atomic_load(&local->local_taken), 1);
    /* Damaged on its way. */
    reply = answer_to(&delivered, &f, 3);
    f.weft.bytes[sizeof(struct weft_rsp)] ^= 1;
    local_deliver(local, core, &reply, 1, false);
    ck_assert_uint_eq(drops(ROUTE_DROP_bad_checksum), 1);
    ck_assert_ptr_null(heard(&c));
    fixture_ip6_nodes = false;
    hand_free(&c);
}
END_TEST

START_TEST(relayed_with_a_checksum_that_is_right)
{
    struct hand_client c = hand_client(local, 0, 1);
    struct weft_req req = request(1);
    uint8_t data[sizeof(req) + 32] = {7};
    req.h.tiers = 5 << 4 | 5; /* New York alone */
    memcpy(data, &req, sizeof(req));
    ck_assert(hand_send(&c, data, sizeof(data)));
    hand_turn(&turn, local, core, table, 5);
    struct route_packet *p = &turn.packets[0];
    ck_assert_uint_eq(p->action, ROUTE_SEND);
    ck_assert(!local_bound(p));
    local_deliver(local, core, p, 1, false);
    stage_rewrite(core, table, p, 1);
    ck_assert_uint_eq(p->action, ROUTE_SEND);
    ck_assert(goes_to(p, node_addr(3)) && comes_from(p, node_addr(SELF)));
    ck_assert(p->frame->udp.checksum != 0 && packet_udp_ok(p));
    hand_free(&c);
}
END_TEST

START_TEST(refusals_come_back_without_a_network)
{
    struct hand_client c = hand_client(local, 31, 9);
    struct weft_req req = request(1);
    req.h.model = 5; /* nobody's */
    uint8_t data[sizeof(req) + 1] = {0};
    req.h.msg_len = 1;
    memcpy(data, &req, sizeof(req));
    ck_assert(hand_send(&c, data, sizeof(data)));
    ck_assert(hand_send(&c, data, 20)); /* garbage: counted, not answered */
    hand_turn(&turn, local, core, table, 5);
    ck_assert_uint_eq(turn.count, 2);
    local_deliver(local, core, turn.packets, turn.count, true);
    const struct weft_rsp *rsp = heard(&c);
    ck_assert_ptr_nonnull(rsp);
    ck_assert_uint_eq(rsp->h.type, WEFT_T_REJECT);
    ck_assert_ptr_null(heard(&c));
    ck_assert_uint_eq(drops(ROUTE_DROP_truncated), 1);
    hand_free(&c);
}
END_TEST

START_TEST(nobody_else_hears_it)
{
    struct hand_client c = hand_client(local, 4, 1);
    struct route_frame f;
    ck_assert(ask(&c, 1));
    hand_turn(&turn, local, core, table, 5);
    struct weft_req delivered = turn.packets[0].frame->weft.req;
    atomic_store(&c.port->lost, true);
    struct route_packet reply = answer_to(&delivered, &f, SELF);
    local_deliver(local, core, &reply, 1, false);
    ck_assert_uint_eq(drops(ROUTE_DROP_client_gone), 1);
    ck_assert_uint_eq(local_waiting(local, 32), 0);
    ck_assert(atomic_load(&c.port->released));
    hand_free(&c);
    /* The next one in that slot. */
    struct hand_client next = hand_client(local, 4, 2);
    ck_assert_uint_eq(local_waiting(local, 32), 0);
    reply = answer_to(&delivered, &f, SELF);
    local_deliver(local, core, &reply, 1, false);
    ck_assert_uint_eq(drops(ROUTE_DROP_client_gone), 2);
    ck_assert_ptr_null(heard(&next));
    /* Nor does a frame from the network get so far that claims to be a local client's. */
    struct route_packet p;
    fixture_request(&p, &f, SELF, 32);
    f.ip.src = htonl(0x7f000002);
    f.udp.src_port = htons(5);
    stage_parse(core, &p, 1);
    ck_assert_uint_eq(p.action, ROUTE_LET_GO);
    /* A block that this node has not sealed is good for nothing. */
    delivered.ret.port++;
    reply = answer_to(&delivered, &f, 3);
    ck_assert_uint_eq(reply.action, ROUTE_LET_GO);
    ck_assert_uint_eq(drops(ROUTE_DROP_bad_return), 1);
    hand_free(&next);
}
END_TEST

/* A flood gets its share; what does not read loses only its own. */
START_TEST(floods_and_stalls_hurt_nobody_else)
{
    struct hand_client flood = hand_client(local, 0, 1);
    struct hand_client quiet = hand_client(local, 1, 1);
    struct route_frame f;
    struct weft_req delivered = {0};
    uint32_t seq = 0;
    while (ask(&flood, ++seq)) {
    }
    ck_assert_uint_eq(seq - 1, PORT_CLIENT_SLOTS);
    for (int i = 0; i < 4; i++) {
        ck_assert(ask(&quiet, 100000 + (uint32_t)i));
        hand_turn(&turn, local, core, table, 5);
        bool found = false;
        for (uint32_t k = 0; k < turn.count; k++) {
            const struct route_packet *p = &turn.packets[k];
            found |= p->frame->weft.req.h.req_seq == 100000 + (uint32_t)i;
            delivered = p->action == ROUTE_DELIVER ? p->frame->weft.req : delivered;
        }
        ck_assert(found);
        ck_assert_uint_eq(turn.count, HAND_BURST / 2 + 1);
    }
    for (uint32_t i = 0; i < PORT_CLIENT_SLOTS + 10; i++) {
        struct route_packet reply = answer_to(&delivered, &f, SELF);
        local_deliver(local, core, &reply, 1, false);
    }
    ck_assert_uint_eq(drops(ROUTE_DROP_client_full), 10);
    hand_free(&flood);
    hand_free(&quiet);
}
END_TEST

START_TEST(last_words_are_heard_and_end)
{
    struct hand_client c = hand_client(local, 0, 1);
    for (uint32_t i = 0; i < 40; i++) {
        ck_assert(ask(&c, i));
    }
    ck_assert(!local_sleep_begin(local) || local->count == 0);
    hand_turn(&turn, local, core, table, 5);
    ck_assert_uint_eq(turn.count, 32);
    ck_assert(!local_sleep_begin(local));
    atomic_store(&c.port->lost, true);
    hand_turn(&turn, local, core, table, 5);
    ck_assert_uint_eq(turn.count, 8);
    ck_assert(!atomic_load(&c.port->released));
    /* It goes on writing though its socket is closed: not for ever. */
    uint32_t turns = 0;
    while (!atomic_load(&c.port->released)) {
        for (uint32_t i = 0; i < 32; i++) {
            (void)ask(&c, i);
        }
        hand_turn(&turn, local, core, table, 5);
        ck_assert_uint_lt(turns++, 2 * PORT_CLIENT_SLOTS / 32);
    }
    ck_assert_uint_eq(local->count, 0);
    ck_assert(local_sleep_begin(local));
    hand_free(&c);
}
END_TEST

START_TEST(nonsense_in_the_ring_is_nothing)
{
    struct hand_client c = hand_client(local, 0, 1);
    atomic_store(&c.port->shm->to_node.head, 0x80000000u);
    atomic_store(&c.port->shm->to_client.tail, 0x80000000u);
    hand_turn(&turn, local, core, table, 5);
    ck_assert_uint_eq(turn.count, 0);
    ck_assert(local_sleep_begin(local));
    /* Takes back what it has announced. */
    atomic_store(&c.port->shm->to_node.head, 5);
    ck_assert_uint_eq(local_waiting(local, 32), 5);
    atomic_store(&c.port->shm->to_node.head, 0);
    hand_buffers(&turn, 5);
    ck_assert_uint_eq(local_take(local, core, turn.packets, 5), 0);
    atomic_store(&c.port->lost, true);
    ck_assert_uint_eq(local_waiting(local, 32), 0);
    ck_assert(atomic_load(&c.port->released));
    hand_free(&c);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("local");
    TCase *tc = tcase_create("local");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, request_reaches_a_node_and_its_reply_the_client, 0, 2);
    tcase_add_test(tc, relayed_with_a_checksum_that_is_right);
    tcase_add_test(tc, refusals_come_back_without_a_network);
    tcase_add_test(tc, nobody_else_hears_it);
    tcase_add_test(tc, floods_and_stalls_hurt_nobody_else);
    tcase_add_test(tc, last_words_are_heard_and_end);
    tcase_add_test(tc, nonsense_in_the_ring_is_nothing);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
