/* SPDX-License-Identifier: Apache-2.0 */
/* test_workers.c - dataplane/workers.c: which of several workers gets a request, who answers, and
 * what becomes of what they leave open. Ports without sockets; the tests are the workers. */
#include <check.h>
#include <stdlib.h>
#include <weft/status.h>

#include "dataplane/workers.h"
#include "schemas/base/clock.h"
#include "tests/unit/route/fixture.h"
#include "tests/unit/suite.h"

#define SELF    2u
#define MODEL_B 2000u
#define NOW     NS_PER_S
#define WORKERS 3u
#define OLD_ID  99u /* of the node when the workers came */

struct hand_worker {
    struct port *port;
    struct ring_end in, out; /* the worker's ends */
};

static struct workers *workers;
static struct route_core *core;
static struct route_table *table;
static struct hand_worker hands[WORKERS];
static struct route_packet packet;
static struct route_frame frame;
static uint32_t budget_us; /* of requests */
static uint16_t alternate;

static void set_load(struct hand_worker *h, uint16_t room, uint32_t queue_us)
{
    struct port_load load = {.room = room, .free_vram_64mib = room, .queue_us = queue_us};
    uint64_t word;
    memcpy(&word, &load, sizeof(word));
    atomic_store(&h->port->shm->load, word);
}

static struct hand_worker come(uint32_t slot, uint32_t model, uint16_t room)
{
    struct hand_worker h = {.port = calloc(1, sizeof(*h.port))};
    struct port_shm *shm = aligned_alloc(64, sizeof(*shm));
    memset(shm, 0, sizeof(*shm));
    h.port->shm = shm;
    h.port->slot = slot;
    h.port->model = model;
    ring_end_init(&h.port->to_worker, &shm->to_worker, shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&h.port->to_node, &shm->to_node, shm->to_node_slots, PORT_SLOTS);
    ring_end_init(&h.in, &shm->to_worker, shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&h.out, &shm->to_node, shm->to_node_slots, PORT_SLOTS);
    set_load(&h, room, 0);
    workers_attach(workers, h.port);
    return h;
}

/* Two for one model, the second with more room, and one for another. */
static void setup(void)
{
    workers = calloc(1, sizeof(*workers));
    budget_us = WEFT_BUDGET_NONE;
    alternate = WEFT_NODE_NONE;
    core = fixture_core(SELF);
    table = fixture_table(SELF);
    hands[0] = come(0, MODEL_A, 2);
    hands[1] = come(5, MODEL_A, 4);
    hands[2] = come(7, MODEL_B, 8);
    workers_look(workers, core, table, NOW);
}

static void teardown(void)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        free(hands[i].port->shm);
        free(hands[i].port);
    }
    route_table_destroy(table);
    route_core_destroy(core);
    free(workers);
}

static void give(uint32_t model, uint32_t seq, uint8_t type)
{
    memset(&packet, 0, sizeof(packet));
    fixture_request(&packet, &frame, SELF, 32);
    frame.weft.req.h.model = model;
    frame.weft.req.h.req_seq = seq;
    frame.weft.req.h.type = type;
    frame.weft.req.h.budget_us = budget_us;
    frame.weft.req.h.alt1 = alternate;
    frame.weft.req.h.hops_left = WEFT_HOPS_MAX;
    packet.action = ROUTE_DELIVER;
    packet.sums = ROUTE_SUMS_UDP_GOOD;
    workers_give(workers, core, table, &packet, NOW);
}

/* Which worker was given something, its number. WORKERS: none. */
static uint32_t given(uint32_t seq)
{
    for (uint32_t i = 0; i < WORKERS; i++) {
        struct ring_slot *slot = ring_peek(&hands[i].in);
        if (slot != NULL) {
            const struct weft_req *req = (const struct weft_req *)(const void *)slot->data;
            ck_assert_uint_eq(req->h.req_seq, seq);
            ring_release(&hands[i].in);
            return i;
        }
    }
    return WORKERS;
}

static void answer(struct hand_worker *h, uint32_t seq)
{
    struct ring_slot *slot = ring_reserve(&h->out);
    ck_assert_ptr_nonnull(slot);
    struct weft_rsp rsp = {
        .h = {.type = WEFT_T_GRANT, .conn_id = CONN, .req_seq = seq, .room = 77, .server = OLD_ID}};
    memcpy(slot->data, &rsp, sizeof(rsp));
    slot->len = sizeof(rsp);
    ring_commit(&h->out);
}

static bool next(void)
{
    memset(&packet, 0, sizeof(packet));
    packet_attach(&packet, (uint8_t *)&frame + ROUTE_START_IPV4, 0);
    return workers_next(workers, table, &packet, NOW);
}

START_TEST(each_gets_its_model)
{
    ck_assert_uint_eq(workers->count, WORKERS);
    give(MODEL_B, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 2);
    give(MODEL_A, 2, WEFT_T_REQ);
    ck_assert_uint_eq(given(2), 1); /* the one with more room */
    set_load(&hands[1], 2, 900);
    give(MODEL_A, 3, WEFT_T_REQ);
    ck_assert_uint_eq(given(3), 0); /* equal room, the shorter queue */
    give(3000, 4, WEFT_T_REQ);
    ck_assert_uint_eq(given(4), WORKERS);
    ck_assert_int_ne(packet.action, ROUTE_DELIVER);
}
END_TEST

START_TEST(a_request_stays_where_it_is)
{
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 1);
    set_load(&hands[1], 0, 0); /* others would be chosen now */
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 1);
    give(0, 1, WEFT_T_ACK); /* names no model, needs none */
    ck_assert_uint_eq(given(1), 1);
    give(MODEL_A, 9, WEFT_T_ACK); /* of a request that nobody has */
    ck_assert_uint_eq(given(9), WORKERS);
}
END_TEST

START_TEST(full_and_lost_ones_are_passed_by)
{
    atomic_store(&hands[1].port->lost, true);
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 0);
    set_load(&hands[0], 0, 0);
    give(MODEL_A, 2, WEFT_T_REQ);
    ck_assert_uint_eq(given(2), WORKERS);
    give(MODEL_B, 3, WEFT_T_REQ);
    ck_assert_uint_eq(given(3), 2);
}
END_TEST

static int refused(void)
{
    const struct weft_reject *why =
        (const struct weft_reject *)(frame.weft.bytes + sizeof(struct weft_rsp));
    ck_assert_uint_eq(frame.weft.rsp.h.type, WEFT_T_REJECT);
    return -(int)why->status;
}

/* A worker that drains ends what it has; another one of its model goes before, and new requests
 * that only it could take are told. */
START_TEST(who_drains_is_not_full)
{
    give(MODEL_B, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 2);
    set_load(&hands[1], 0, WEFT_QUEUE_DRAINING);
    set_load(&hands[2], 0, WEFT_QUEUE_DRAINING);
    give(MODEL_B, 1, WEFT_T_ACK);
    ck_assert_uint_eq(given(1), 2);
    give(MODEL_A, 2, WEFT_T_REQ);
    ck_assert_uint_eq(given(2), 0);
    give(MODEL_B, 3, WEFT_T_REQ);
    ck_assert_uint_eq(given(3), WORKERS);
    ck_assert_int_eq(refused(), WEFT_E_DRAINING);
    set_load(&hands[0], 0, 0);
    give(MODEL_A, 4, WEFT_T_REQ);
    ck_assert_int_eq(refused(), WEFT_E_MESH_FULL);
}
END_TEST

/* Its time would run out in the queue, which the ingress did not know. */
START_TEST(a_queue_longer_than_the_budget_is_no_place)
{
    set_load(&hands[2], 8, 5000);
    budget_us = 4999;
    give(MODEL_B, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), WORKERS);
    ck_assert_int_eq(refused(), WEFT_E_BUDGET_INFEASIBLE);
    budget_us = 5000;
    give(MODEL_B, 2, WEFT_T_REQ);
    ck_assert_uint_eq(given(2), 2);
    set_load(&hands[2], 8, 6000);
    give(MODEL_B, 2, WEFT_T_REQ); /* the rest of one that it has */
    ck_assert_uint_eq(given(2), 2);
}
END_TEST

/* What has gone to an alternate stays there, and no worker here speaks for it. */
START_TEST(who_was_passed_by_is_out)
{
    set_load(&hands[0], 0, 0);
    set_load(&hands[1], 0, 0);
    alternate = 3;
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert(packet.action == ROUTE_SEND && frame.weft.req.h.target == 3);
    set_load(&hands[1], 4, 0);
    alternate = WEFT_NODE_NONE;
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), WORKERS);
    ck_assert(packet.action == ROUTE_SEND && frame.weft.req.h.target == 3);
    for (uint32_t i = 0; i < 2; i++) {
        answer(&hands[i], 1);
        ck_assert(next());
        ck_assert_uint_eq(packet.weft_len, 1);
    }
}
END_TEST

/* The answers of a node's workers say that it drains, whatever room these have. */
START_TEST(a_node_that_drains_has_no_room)
{
    give(MODEL_B, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 2);
    answer(&hands[2], 1);
    ck_assert(next());
    ck_assert_uint_ne(packet.frame->weft.rsp.h.room, 0);
    table->closing = true;
    answer(&hands[2], 1);
    ck_assert(next());
    ck_assert_uint_eq(packet.frame->weft.rsp.h.room, 0);
    ck_assert_uint_eq(packet.frame->weft.rsp.h.queue_us, WEFT_QUEUE_DRAINING);
}
END_TEST

START_TEST(load_is_that_of_all)
{
    const struct route_load *load = &core->loads[table->nodes[table->self].id];
    ck_assert_uint_eq(load->room, 2 + 4 + 8);
    ck_assert_uint_eq(load->free_vram_64mib, 8);
    ck_assert_uint_eq(load->queue_us, 0);
    set_load(&hands[0], 3, 50);
    set_load(&hands[1], 0, 10); /* full: its queue is no offer */
    set_load(&hands[2], 1, 70);
    workers_look(workers, core, table, NOW + 1);
    ck_assert_uint_eq(load->room, 4);
    ck_assert_uint_eq(load->queue_us, 50);
    ck_assert_uint_eq(load->heard_ns, NOW + 1);
    set_load(&hands[0], UINT16_MAX, 0);
    workers_look(workers, core, table, NOW);
    ck_assert_uint_eq(load->room, UINT16_MAX);
    for (uint32_t i = 0; i < WORKERS; i++) {
        set_load(&hands[i], 0, 10 * (i + 1));
    }
    workers_look(workers, core, table, NOW);
    ck_assert_uint_eq(load->room, 0);
    ck_assert_uint_eq(load->queue_us, 10);
    /* What they answer says the same. */
    give(MODEL_A, 1, WEFT_T_REQ);
    set_load(&hands[0], 5, 0);
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 0);
    workers_look(workers, core, table, NOW);
    answer(&hands[0], 1);
    ck_assert(next());
    ck_assert_uint_eq(packet.frame->weft.rsp.h.room, 5);
}
END_TEST

START_TEST(all_take_turns_in_answering)
{
    for (uint32_t seq = 1; seq <= 3; seq++) {
        give(MODEL_A, seq, WEFT_T_REQ);
        ck_assert_uint_eq(given(seq), 1);
        give(MODEL_B, 10 + seq, WEFT_T_REQ);
        ck_assert_uint_eq(given(10 + seq), 2);
        answer(&hands[1], seq);
        answer(&hands[2], 10 + seq);
    }
    uint32_t last = 0;
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert(next());
        uint32_t seq = packet.frame->weft.rsp.h.req_seq;
        ck_assert(i == 0 || (seq > 10) != (last > 10));
        last = seq;
    }
    ck_assert(!next());
    answer(&hands[2], 1); /* it was never asked that one */
    ck_assert(next());
    ck_assert_uint_eq(packet.weft_len, 1);
}
END_TEST

/* Gossip has changed the node's id since the worker was told it. */
START_TEST(answers_come_from_the_node_as_it_is_called_now)
{
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 1);
    answer(&hands[1], 1);
    ck_assert(next());
    ck_assert_uint_eq(packet.frame->weft.rsp.h.server, table->nodes[table->self].id);
    ck_assert_uint_ne(packet.frame->weft.rsp.h.server, OLD_ID);
}
END_TEST

START_TEST(who_goes_leaves_errors_not_silence)
{
    give(MODEL_A, 1, WEFT_T_REQ);
    ck_assert_uint_eq(given(1), 1);
    give(MODEL_A, 2, WEFT_T_REQ);
    ck_assert_uint_eq(given(2), 1);
    give(MODEL_B, 3, WEFT_T_REQ);
    ck_assert_uint_eq(given(3), 2);
    answer(&hands[1], 1); /* said before it went */
    atomic_store(&hands[1].port->lost, true);
    bool seen[4] = {false};
    uint32_t rejects = 0;
    while (next()) {
        const struct weft_rsp *rsp = &packet.frame->weft.rsp;
        seen[rsp->h.req_seq] = true;
        rejects += rsp->h.type == WEFT_T_REJECT;
    }
    ck_assert(seen[1] && seen[2] && !seen[3]);
    ck_assert_uint_eq(rejects, 2);
    ck_assert(atomic_load(&hands[1].port->released));
    ck_assert_uint_eq(workers->count, WORKERS - 1);
    give(MODEL_A, 4, WEFT_T_REQ);
    ck_assert_uint_eq(given(4), 0);
    struct hand_worker again = come(5, MODEL_A, 9); /* in the same slot */
    workers_look(workers, core, table, NOW);
    ck_assert_uint_eq(workers->count, WORKERS);
    free(hands[1].port->shm);
    free(hands[1].port);
    hands[1] = again;
    give(MODEL_A, 5, WEFT_T_REQ);
    ck_assert_uint_eq(given(5), 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("port/workers");
    TCase *t = tcase_create("workers");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, each_gets_its_model);
    tcase_add_test(t, a_request_stays_where_it_is);
    tcase_add_test(t, full_and_lost_ones_are_passed_by);
    tcase_add_test(t, who_drains_is_not_full);
    tcase_add_test(t, a_queue_longer_than_the_budget_is_no_place);
    tcase_add_test(t, who_was_passed_by_is_out);
    tcase_add_test(t, a_node_that_drains_has_no_room);
    tcase_add_test(t, load_is_that_of_all);
    tcase_add_test(t, all_take_turns_in_answering);
    tcase_add_test(t, answers_come_from_the_node_as_it_is_called_now);
    tcase_add_test(t, who_goes_leaves_errors_not_silence);
    suite_add_tcase(s, t);
    return suite_main(s);
}
