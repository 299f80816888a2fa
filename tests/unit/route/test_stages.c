/* SPDX-License-Identifier: Apache-2.0 */
/* test_stages.c - the packet path from frame to frame, without a network port. */
#include <check.h>
#include <stdlib.h>
#include <weft/status.h>

#include "fixture.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static struct route_core *tokyo;
static struct route_core *frankfurt;
static struct route_table *at_tokyo;
static struct route_table *at_frankfurt;
static struct route_frame frame_a, frame_b;
static struct route_packet a, b;

/* Every test but those of IPv4's own headers runs for each pair of families. */
static void setup(bool ip6_nodes, bool ip6_client)
{
    fixture_ip6_nodes = ip6_nodes;
    fixture_ip6_client = ip6_client;
    tokyo = fixture_core(1);
    frankfurt = fixture_core(2);
    at_tokyo = fixture_table(1);
    at_frankfurt = fixture_table(2);
    ck_assert_ptr_nonnull(at_tokyo);
}

static void setup_44(void)
{
    setup(false, false);
}
static void setup_46(void)
{
    setup(false, true);
}
static void setup_64(void)
{
    setup(true, false);
}
static void setup_66(void)
{
    setup(true, true);
}

static void teardown(void)
{
    route_core_destroy(tokyo);
    route_core_destroy(frankfurt);
    route_table_destroy(at_tokyo);
    route_table_destroy(at_frankfurt);
}

static uint64_t dropped(const struct route_core *core, enum route_drop why)
{
    return atomic_load(&core->counters.drops[why]);
}

static const struct weft_reject *reject_of(const struct route_packet *p)
{
    ck_assert_uint_eq(p->action, ROUTE_SEND);
    ck_assert_uint_eq(p->frame->weft.rsp.h.type, WEFT_T_REJECT);
    ck_assert_uint_eq(p->weft_len, sizeof(struct weft_rsp) + sizeof(struct weft_reject));
    return (const struct weft_reject *)(p->frame->weft.bytes + sizeof(struct weft_rsp));
}

/* A source address of the same family as before; the checksum follows. */
static void set_source(struct route_packet *p, struct in6_addr addr)
{
    struct route_frame *f = p->frame;
    if (packet_is_ip6(p)) {
        packet_set(f, f->ip6.src.s6_addr, &addr, sizeof(addr));
    } else {
        packet_set(f, &f->ip.src, &addr.s6_addr32[3], sizeof(f->ip.src));
        fixture_end_ip(p);
    }
}

/* Client -> Tokyo -> Frankfurt, as Frankfurt's worker would get it: in `b`. */
static void relay_to_frankfurt(void)
{
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    run_stages(tokyo, at_tokyo, &a, 10);
    arrive(&b, &a, &frame_b);
    run_stages(frankfurt, at_frankfurt, &b, 20);
}

START_TEST(unproven_client_gets_a_cookie)
{
    fixture_request(&a, &frame_a, 1, 100);
    uint32_t sent = a.len;
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(a.action, ROUTE_SEND);
    ck_assert_uint_eq(frame_a.weft.rsp.h.type, WEFT_T_COOKIE);
    ck_assert_uint_le(a.len, sent);
    ck_assert(goes_to(&a, client_addr()));
    ck_assert_uint_eq(frame_a.udp.dst_port, htons(CLIENT_PORT));
    ck_assert_uint_eq(packet_ether(&a)->dst[5], 0xc8);
    ck_assert(packet_udp_ok(&a));
    uint64_t cookie;
    memcpy(&cookie, frame_a.weft.bytes + sizeof(struct weft_rsp), sizeof(cookie));
    fixture_request(&a, &frame_a, 1, 100);
    packet_set(&frame_a, &frame_a.weft.req.first.cookie, &cookie, sizeof(cookie));
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(frame_a.weft.common.type, WEFT_T_REQ);
    ck_assert_uint_eq(dropped(tokyo, ROUTE_DROP_no_cookie), 1);
}
END_TEST

START_TEST(cookie_is_bound_to_address_port_and_connection)
{
    for (int i = 0; i < 3; i++) {
        fixture_request(&a, &frame_a, 1, 100);
        fixture_cookie(tokyo, &a);
        struct in6_addr addr = client_addr();
        addr.s6_addr[15] ^= 1;
        uint16_t port = htons(CLIENT_PORT + 1);
        uint64_t conn = CONN + 1;
        if (i == 0) {
            set_source(&a, addr);
        } else if (i == 1) {
            packet_set(&frame_a, &frame_a.udp.src_port, &port, sizeof(port));
        } else {
            packet_set(&frame_a, &frame_a.weft.req.h.conn_id, &conn, sizeof(conn));
        }
        run_stages(tokyo, at_tokyo, &a, 10);
        ck_assert_uint_eq(frame_a.weft.rsp.h.type, WEFT_T_COOKIE);
    }
}
END_TEST

START_TEST(request_is_stamped_and_relayed)
{
    fixture_request(&a, &frame_a, 1, 101); /* odd length: the checksum's last byte */
    fixture_cookie(tokyo, &a);
    uint32_t sent = a.weft_len;
    run_stages(tokyo, at_tokyo, &a, 10);
    const struct weft_req *req = &frame_a.weft.req;
    ck_assert_uint_eq(a.action, ROUTE_SEND);
    ck_assert_uint_eq(a.weft_len, sent); /* never grows */
    ck_assert(goes_to(&a, node_addr(2)));
    ck_assert(comes_from(&a, node_addr(1)));
    ck_assert_uint_eq(frame_a.udp.dst_port, htons(PORT_DATA));
    ck_assert_uint_eq(packet_ether(&a)->dst[5], 2);
    ck_assert_uint_eq(req->h.origin, 1);
    ck_assert_uint_eq(req->h.target, 2);
    ck_assert_uint_eq(req->h.alt1, 3);
    ck_assert_uint_eq(req->h.alt2, WEFT_NODE_NONE);
    ck_assert_uint_eq(req->h.route_epoch, 7);
    ck_assert_uint_eq(req->h.hops_left, WEFT_HOPS_MAX - 1);
    ck_assert_uint_ne(req->h.flags & WEFT_F_RELAYED, 0);
    ck_assert(packet_udp_ok(&a)); /* updated, not recomputed */
    ck_assert_uint_eq(tokyo->loads[2].assigned, 1);
    run_stages(frankfurt, at_frankfurt, &a, 20);
    ck_assert_uint_eq(a.action, ROUTE_DELIVER);
}
END_TEST

START_TEST(damage_on_the_way_stays_visible)
{
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    frame_a.weft.bytes[150] ^= 4;
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(a.action, ROUTE_SEND);
    ck_assert(!packet_udp_ok(&a));
}
END_TEST

START_TEST(absent_checksum_stays_absent)
{
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    frame_a.udp.checksum = 0;
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(frame_a.udp.checksum, 0);
    ck_assert(packet_udp_ok(&a));
}
END_TEST

START_TEST(reply_returns_through_the_ingress)
{
    relay_to_frankfurt();
    ck_assert_uint_eq(b.action, ROUTE_DELIVER);
    struct weft_req request = frame_b.weft.req;
    fixture_reply(&a, &frame_a, &request, 2, WEFT_T_GRANT);
    run_stages(frankfurt, at_frankfurt, &a, 30);
    ck_assert_uint_eq(a.action, ROUTE_SEND);
    ck_assert(goes_to(&a, node_addr(1)));
    ck_assert(packet_udp_ok(&a));
    arrive(&b, &a, &frame_b);
    run_stages(tokyo, at_tokyo, &b, 40);
    ck_assert_uint_eq(b.action, ROUTE_SEND);
    ck_assert(goes_to(&b, client_addr()));
    ck_assert_uint_eq(frame_b.udp.dst_port, htons(CLIENT_PORT));
    ck_assert_uint_eq(frame_b.udp.src_port, htons(PORT_DATA));
    ck_assert_uint_eq(packet_ether(&b)->dst[5], 0xc8);
    ck_assert(packet_udp_ok(&b));
    /* The load word replaces what was believed. */
    ck_assert_uint_eq(tokyo->loads[2].room, 3);
    ck_assert_uint_eq(tokyo->loads[2].queue_us, 77);
    ck_assert_uint_eq(tokyo->loads[2].assigned, 0);
}
END_TEST

/* Unless what the table has is newer still. */
START_TEST(the_newest_load_counts)
{
    struct route_node nodes[2] = {fixture_node(1, 35.68, 139.69, 1),
                                  fixture_node(2, 50.11, 8.68, 3)};
    struct route_table *later = NULL;
    nodes[1].load_ns = 41;
    nodes[1].room = 9;
    ck_assert_int_eq(route_table_create(&later, nodes, 2, 1, 8, false), 0);
    relay_to_frankfurt();
    struct weft_req request = frame_b.weft.req;
    for (uint64_t now_ns = 40; now_ns <= 41; now_ns++) {
        fixture_reply(&a, &frame_a, &request, 2, WEFT_T_GRANT);
        run_stages(frankfurt, at_frankfurt, &a, 30);
        arrive(&b, &a, &frame_b);
        run_stages(tokyo, later, &b, now_ns);
        uint16_t index = route_table_find(later, 2);
        ck_assert_uint_eq(route_load_now(later, index, tokyo->loads)->room, now_ns < 41 ? 9 : 3);
    }
    route_table_destroy(later);
}
END_TEST

/* A node's own UNKNOWN has no load word: it must not make the node look full. */
START_TEST(only_workers_tell_their_load)
{
    relay_to_frankfurt();
    struct weft_req request = frame_b.weft.req;
    fixture_reply(&a, &frame_a, &request, 2, WEFT_T_UNKNOWN);
    frame_a.weft.rsp.h.room = 0;
    run_stages(frankfurt, at_frankfurt, &a, 30);
    arrive(&b, &a, &frame_b);
    uint16_t room = tokyo->loads[2].room;
    run_stages(tokyo, at_tokyo, &b, 40);
    ck_assert_uint_eq(b.action, ROUTE_SEND);
    ck_assert_uint_eq(tokyo->loads[2].room, room);
    ck_assert_uint_eq(tokyo->loads[2].assigned, 1);
}
END_TEST

START_TEST(forged_return_block_goes_nowhere)
{
    relay_to_frankfurt();
    struct weft_req request = frame_b.weft.req;
    for (int i = 0; i < 3; i++) {
        struct weft_req forged = request;
        if (i == 0) {
            forged.ret.addr[15] ^= 1;
        } else if (i == 1) {
            forged.ret.port ^= 1;
        } else {
            forged.h.conn_id ^= 1;
        }
        fixture_reply(&a, &frame_a, &forged, 2, WEFT_T_RESP);
        run_stages(frankfurt, at_frankfurt, &a, 30);
        arrive(&b, &a, &frame_b);
        run_stages(tokyo, at_tokyo, &b, 40);
        ck_assert_uint_eq(b.action, ROUTE_LET_GO);
    }
    ck_assert_uint_eq(dropped(tokyo, ROUTE_DROP_bad_return), 3);
}
END_TEST

/* A member can send a request in this node's name: no answer to it may go where the block says. */
START_TEST(forged_origin_goes_nowhere)
{
    uint16_t server = 2, self = 1;
    relay_to_frankfurt();
    memcpy(&frame_a, &frame_b, sizeof(frame_a));
    packet_set(&frame_a, &frame_a.weft.req.h.target, &self, sizeof(self));
    struct route_host from = fixture_host(node_addr(server), PORT_DATA);
    struct route_hop to = {.port_be = htons(PORT_DATA), .addr = node_addr(self)};
    a = (struct route_packet){.frame = &frame_a, .weft_len = b.weft_len};
    packet_compose(&a, &from, &to);
    run_stages(tokyo, at_tokyo, &a, 20);
    ck_assert_uint_eq(a.action, ROUTE_DELIVER); /* its own block has come back */
    frame_a.weft.req.ret.addr[15] ^= 1;
    packet_compose(&a, &from, &to);
    run_stages(tokyo, at_tokyo, &a, 30);
    ck_assert_uint_eq(a.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(tokyo, ROUTE_DROP_bad_return), 1);
}
END_TEST

START_TEST(strangers_cannot_pose_as_nodes)
{
    relay_to_frankfurt(); /* a request already relayed ... */
    set_source(&b, fixture_addr(0xc8, fixture_ip6_nodes));
    b = (struct route_packet){.frame = &frame_b, .start = b.start, .len = b.len};
    run_stages(frankfurt, at_frankfurt, &b, 20); /* ... now from outside the mesh */
    ck_assert_uint_eq(b.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(frankfurt, ROUTE_DROP_not_member), 1);
}
END_TEST

START_TEST(fragments_stay_together)
{
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(frame_a.weft.req.h.target, 2);
    tokyo->loads[2] = (struct route_load){.heard_ns = 11, .room = 0}; /* full by now */
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    run_stages(tokyo, at_tokyo, &a, 12);
    ck_assert_uint_eq(frame_a.weft.req.h.target, 2); /* pinned */
    fixture_request(&a, &frame_a, 1, 100);
    uint32_t other = 2;
    packet_set(&frame_a, &frame_a.weft.req.h.req_seq, &other, sizeof(other));
    fixture_cookie(tokyo, &a);
    run_stages(tokyo, at_tokyo, &a, 13);
    ck_assert_uint_eq(frame_a.weft.req.h.target, 3); /* a new request goes elsewhere */
}
END_TEST

/* Also if they come at once, when no pin is there yet and the node has room for one. */
START_TEST(fragments_of_a_burst_stay_together)
{
    struct route_packet both[2];
    struct route_frame frames[2];
    tokyo->loads[2] = (struct route_load){.heard_ns = 11, .room = 1, .free_vram_64mib = 128};
    for (uint32_t i = 0; i < 2; i++) {
        fixture_request(&both[i], &frames[i], 1, 100);
        fixture_cookie(tokyo, &both[i]);
    }
    stage_parse(tokyo, both, 2);
    stage_classify(tokyo, at_tokyo, both, 2, 12);
    stage_select(tokyo, at_tokyo, both, 2, 12);
    ck_assert_uint_eq(frames[0].weft.req.h.target, 2);
    ck_assert_uint_eq(frames[1].weft.req.h.target, 2);
    ck_assert_uint_eq(atomic_load(&tokyo->counters.chosen), 1);
    ck_assert_uint_eq(tokyo->loads[2].assigned, 1);
}
END_TEST

START_TEST(naming_a_node_does_not_relax_a_filter)
{
    uint16_t target = 2;
    uint8_t tiers = (uint8_t)(4 << 4 | 7); /* Frankfurt is tier 3 */
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    packet_set(&frame_a, &frame_a.weft.req.h.target, &target, sizeof(target));
    packet_set_u8(&frame_a, &frame_a.weft.req.h.tiers, tiers);
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(reject_of(&a)->status, -WEFT_E_NO_CAPABLE_NODE);
}
END_TEST

START_TEST(refusals_reach_the_client)
{
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    uint32_t model = 5;
    packet_set(&frame_a, &frame_a.weft.req.h.model, &model, sizeof(model));
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(reject_of(&a)->status, -WEFT_E_UNKNOWN_MODEL);
    ck_assert(goes_to(&a, client_addr()));
    ck_assert(packet_udp_ok(&a));

    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    uint32_t budget = 0;
    packet_set(&frame_a, &frame_a.weft.req.h.budget_us, &budget, sizeof(budget));
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(reject_of(&a)->status, -WEFT_E_BUDGET_EXPIRED);
}
END_TEST

START_TEST(budget_shrinks_by_the_way)
{
    uint32_t budget = 500000;
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    packet_set(&frame_a, &frame_a.weft.req.h.budget_us, &budget, sizeof(budget));
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(frame_a.weft.req.h.budget_us, budget - 1001);
}
END_TEST

START_TEST(second_chance_goes_to_the_alternate)
{
    relay_to_frankfurt();
    stage_second_chance(frankfurt, at_frankfurt, &b, ROUTE_DROP_refused, WEFT_E_MESH_FULL);
    stage_rewrite(frankfurt, at_frankfurt, &b, 1);
    ck_assert_uint_eq(b.action, ROUTE_SEND);
    ck_assert(goes_to(&b, node_addr(3)));
    ck_assert_uint_eq(frame_b.weft.req.h.target, 3);
    ck_assert_uint_eq(frame_b.weft.req.h.alt1, WEFT_NODE_NONE);
    ck_assert_uint_eq(frame_b.weft.req.h.hops_left, WEFT_HOPS_MAX - 2);
    ck_assert(packet_udp_ok(&b));
    struct route_core *newyork = fixture_core(3);
    struct route_table *at_newyork = fixture_table(3);
    arrive(&a, &b, &frame_a);
    run_stages(newyork, at_newyork, &a, 30);
    ck_assert_uint_eq(a.action, ROUTE_DELIVER);
    /* Nobody left: the refusal goes back through the ingress. */
    stage_second_chance(newyork, at_newyork, &a, ROUTE_DROP_refused, WEFT_E_MESH_FULL);
    stage_rewrite(newyork, at_newyork, &a, 1);
    ck_assert_uint_eq(reject_of(&a)->status, -WEFT_E_MESH_FULL);
    ck_assert(goes_to(&a, node_addr(1)));
    arrive(&b, &a, &frame_b);
    run_stages(tokyo, at_tokyo, &b, 40);
    ck_assert_uint_eq(reject_of(&b)->status, -WEFT_E_MESH_FULL);
    ck_assert(goes_to(&b, client_addr()));
    route_core_destroy(newyork);
    route_table_destroy(at_newyork);
}
END_TEST

/* Nor is an alternate that is leaving one, or that may not have the request. */
START_TEST(second_chance_minds_the_filters)
{
    struct route_table *at = NULL;
    struct route_node nodes[3] = {fixture_node(1, 35.68, 139.69, 1),
                                  fixture_node(2, 50.11, 8.68, 3),
                                  fixture_node(3, 40.71, -74.01, 5)};
    for (uint32_t what = 0; what < 3; what++) {
        nodes[2].leaving = what == 1;
        nodes[2].model_count = what == 2 ? 0 : 1;
        ck_assert_int_eq(route_table_create(&at, nodes, 3, 2, 8, false), 0);
        relay_to_frankfurt();
        stage_second_chance(frankfurt, at, &b, ROUTE_DROP_refused, WEFT_E_MESH_FULL);
        if (what == 0) {
            ck_assert_uint_eq(frame_b.weft.req.h.target, 3);
        } else {
            ck_assert_uint_eq(reject_of(&b)->status, -WEFT_E_MESH_FULL);
        }
        route_table_destroy(at);
    }
}
END_TEST

START_TEST(second_chance_minds_the_budget)
{
    uint32_t budget = 1500;
    relay_to_frankfurt();
    packet_set(&frame_b, &frame_b.weft.req.h.budget_us, &budget, sizeof(budget));
    stage_second_chance(frankfurt, at_frankfurt, &b, ROUTE_DROP_refused, WEFT_E_MESH_FULL);
    ck_assert_uint_eq(b.action, ROUTE_SEND);
    ck_assert_uint_eq(frame_b.weft.req.h.budget_us, 1500 - 1001);
    ck_assert_uint_eq(frame_b.weft.req.h.target, 3);
    relay_to_frankfurt();
    budget = 1001; /* just the way to New York, and nothing left there */
    packet_set(&frame_b, &frame_b.weft.req.h.budget_us, &budget, sizeof(budget));
    stage_second_chance(frankfurt, at_frankfurt, &b, ROUTE_DROP_refused, WEFT_E_MESH_FULL);
    ck_assert_uint_eq(reject_of(&b)->status, -WEFT_E_BUDGET_EXPIRED);
    ck_assert_uint_eq(reject_of(&b)->constraint, WEFT_C_BUDGET);
    ck_assert_uint_eq(dropped(frankfurt, ROUTE_DROP_expired), 1);
}
END_TEST

START_TEST(hops_run_out)
{
    relay_to_frankfurt();
    packet_set_u8(&frame_b, &frame_b.weft.req.h.hops_left, 0);
    stage_second_chance(frankfurt, at_frankfurt, &b, ROUTE_DROP_refused, WEFT_E_MESH_FULL);
    ck_assert_uint_eq(reject_of(&b)->status, -WEFT_E_LOOP);
    ck_assert_uint_eq(dropped(frankfurt, ROUTE_DROP_loop), 1);
}
END_TEST

/* ---- ways to spoil a frame ---- */

static void spoil_short_frame(struct route_packet *p, struct route_frame *f)
{
    (void)f;
    p->len = 30;
}
static void spoil_ip_len(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->ip.total_len = htons(1500);
}
static void spoil_udp_len(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->udp.len = htons(7);
}
static void spoil_udp_len_long(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->udp.len = htons(900);
}
static void spoil_fragment(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->ip.fragment = htons(0x2000);
}
static void spoil_port(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->udp.dst_port = htons(53);
}
static void spoil_source(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->ip.src = 0xffffffffu;
}
static void spoil_version(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.ver_fmt = 0x20;
}
static void spoil_type(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.type = 0x55;
}
static void spoil_down_type(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.type = WEFT_T_COOKIE;
}
static void spoil_words(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.hdr_words = 200;
}
static void spoil_words_low(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.hdr_words = 3;
}
static void spoil_tiers(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.req.h.tiers = 0x53;
}
static void spoil_connection(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.conn_id = 0;
}
static void spoil_offset(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.offset = 0xffffffffu;
}
static void spoil_range(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.offset = 1; /* one byte past the end of the message */
}
static void spoil_message(struct route_packet *p, struct route_frame *f)
{
    (void)p;
    f->weft.common.msg_len = WEFT_MESSAGE_MAX + 1;
}
static void spoil_ack(struct route_packet *p, struct route_frame *f)
{
    f->weft.common.type = WEFT_T_ACK;
    f->ip.total_len = htons(28 + 96 + 4);
    f->udp.len = htons(8 + 96 + 4);
    p->len = ROUTE_WEFT_OFFSET - ROUTE_START_IPV4 + 96 + 4;
}
static void spoil_tiny(struct route_packet *p, struct route_frame *f)
{
    f->ip.total_len = htons(28 + 10);
    f->udp.len = htons(8 + 10);
    p->len = ROUTE_WEFT_OFFSET - ROUTE_START_IPV4 + 10;
}

START_TEST(malformed_frames_are_counted_by_reason)
{
    static const struct {
        void (*spoil)(struct route_packet *p, struct route_frame *f);
        enum route_drop why;
    } cases[] = {
        {spoil_short_frame, ROUTE_DROP_not_ours},  {spoil_ip_len, ROUTE_DROP_truncated},
        {spoil_udp_len, ROUTE_DROP_truncated},     {spoil_udp_len_long, ROUTE_DROP_truncated},
        {spoil_fragment, ROUTE_DROP_fragmented},   {spoil_port, ROUTE_DROP_not_ours},
        {spoil_source, ROUTE_DROP_bad_header},     {spoil_version, ROUTE_DROP_bad_version},
        {spoil_type, ROUTE_DROP_bad_type},         {spoil_down_type, ROUTE_DROP_bad_type},
        {spoil_words, ROUTE_DROP_truncated},       {spoil_words_low, ROUTE_DROP_truncated},
        {spoil_tiers, ROUTE_DROP_bad_header},      {spoil_offset, ROUTE_DROP_bad_length},
        {spoil_message, ROUTE_DROP_bad_length},    {spoil_ack, ROUTE_DROP_bad_length},
        {spoil_tiny, ROUTE_DROP_truncated},        {spoil_range, ROUTE_DROP_bad_length},
        {spoil_connection, ROUTE_DROP_bad_header},
    };
    uint64_t before = dropped(tokyo, cases[_i].why);
    ck_assert_uint_eq(sizeof(cases) / sizeof(cases[0]), 19);
    fixture_request(&a, &frame_a, 1, 100);
    fixture_cookie(tokyo, &a);
    cases[_i].spoil(&a, &frame_a);
    fixture_end_ip(&a);
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(a.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(tokyo, cases[_i].why), before + 1);
}
END_TEST

START_TEST(worker_garbage_is_counted)
{
    relay_to_frankfurt();
    struct weft_req request = frame_b.weft.req;
    fixture_reply(&a, &frame_a, &request, 3, WEFT_T_RESP); /* poses as another node */
    run_stages(frankfurt, at_frankfurt, &a, 30);
    ck_assert_uint_eq(a.action, ROUTE_LET_GO);
    fixture_reply(&a, &frame_a, &request, 2, WEFT_T_RESP);
    a.weft_len = 20;
    run_stages(frankfurt, at_frankfurt, &a, 30);
    ck_assert_uint_eq(a.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(frankfurt, ROUTE_DROP_worker_garbage), 2);
}
END_TEST

START_TEST(nothing_is_routed_before_a_table)
{
    fixture_request(&a, &frame_a, 1, 100);
    run_stages(tokyo, NULL, &a, 10);
    ck_assert_uint_eq(dropped(tokyo, ROUTE_DROP_no_table), 1);
}
END_TEST

START_TEST(random_frames_do_no_harm)
{
    struct rng rng = {.state = 5};
    for (int i = 0; i < 50000; i++) {
        fixture_request(&a, &frame_a, 1, 60);
        fixture_cookie(tokyo, &a);
        uint32_t flips = 1 + rng_below(&rng, 4);
        while (flips-- > 0) {
            ((uint8_t *)packet_ether(&a))[rng_below(&rng, a.len)] = (uint8_t)rng_next(&rng);
        }
        uint32_t sent = a.weft_len;
        run_stages(tokyo, at_tokyo, &a, (uint64_t)i);
        ck_assert(a.action != ROUTE_UNDECIDED);
        ck_assert_uint_le(a.weft_len, sent);
    }
}
END_TEST

static TCase *pair_case(const char *name, void (*begin)(void))
{
    TCase *tc = tcase_create(name);
    tcase_add_checked_fixture(tc, begin, teardown);
    tcase_add_test(tc, unproven_client_gets_a_cookie);
    tcase_add_test(tc, cookie_is_bound_to_address_port_and_connection);
    tcase_add_test(tc, request_is_stamped_and_relayed);
    tcase_add_test(tc, damage_on_the_way_stays_visible);
    tcase_add_test(tc, reply_returns_through_the_ingress);
    tcase_add_test(tc, the_newest_load_counts);
    tcase_add_test(tc, only_workers_tell_their_load);
    tcase_add_test(tc, forged_return_block_goes_nowhere);
    tcase_add_test(tc, forged_origin_goes_nowhere);
    tcase_add_test(tc, strangers_cannot_pose_as_nodes);
    tcase_add_test(tc, fragments_stay_together);
    tcase_add_test(tc, fragments_of_a_burst_stay_together);
    tcase_add_test(tc, naming_a_node_does_not_relax_a_filter);
    tcase_add_test(tc, refusals_reach_the_client);
    tcase_add_test(tc, budget_shrinks_by_the_way);
    tcase_add_test(tc, second_chance_goes_to_the_alternate);
    tcase_add_test(tc, second_chance_minds_the_filters);
    tcase_add_test(tc, second_chance_minds_the_budget);
    tcase_add_test(tc, hops_run_out);
    tcase_add_test(tc, worker_garbage_is_counted);
    tcase_add_test(tc, nothing_is_routed_before_a_table);
    tcase_add_test(tc, random_frames_do_no_harm);
    return tc;
}

int main(void)
{
    Suite *suite = suite_create("stages");
    TCase *plain = pair_case("IPv4", setup_44);
    tcase_add_test(plain, absent_checksum_stays_absent);
    tcase_add_loop_test(plain, malformed_frames_are_counted_by_reason, 0, 19);
    suite_add_tcase(suite, plain);
    suite_add_tcase(suite, pair_case("IPv4, clients IPv6", setup_46));
    suite_add_tcase(suite, pair_case("IPv6, clients IPv4", setup_64));
    suite_add_tcase(suite, pair_case("IPv6", setup_66));
    return suite_main(suite);
}
