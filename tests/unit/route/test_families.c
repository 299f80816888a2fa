/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_families.c - what differs between IPv4, IPv6 and tagged frames: headers made and taken
 * apart, checksums across a change of family, every length, sources that may not be, VLANs. What
 * the stages do with them is test_stages.c, for every pair of families.
 */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "fixture.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define VLAN 5u

static struct route_core *tokyo;
static struct route_table *at_tokyo;
/* A buffer as a driver has it: the frame is put somewhere behind the room. */
static struct {
    uint8_t room[64];
    struct route_frame frame;
} buffer;
static struct route_packet a;

static void setup(void)
{
    fixture_ip6_nodes = fixture_ip6_client = false;
    tokyo = fixture_core(1);
    at_tokyo = fixture_table(1);
}

static void teardown(void)
{
    route_core_destroy(tokyo);
    route_table_destroy(at_tokyo);
}

static uint64_t dropped(enum route_drop why)
{
    return atomic_load(&tokyo->counters.drops[why]);
}

/* A proven request of a client of that family, its frame tagged or not (0). */
static void make(bool ip6, uint16_t vlan, uint32_t payload)
{
    fixture_ip6_client = ip6;
    fixture_request(&a, &buffer.frame, 1, payload);
    fixture_cookie(tokyo, &a);
    struct route_host from = fixture_host(client_addr(), CLIENT_PORT);
    struct route_hop to = {.port_be = htons(PORT_DATA), .addr = fixture_addr(1, ip6)};
    memcpy(from.mac, packet_ether(&a)->src, sizeof(from.mac));
    from.vlan_be = htons((uint16_t)vlan);
    packet_compose(&a, &from, &to);
}

/* As the shell has it: bytes, and where they begin. */
static void come_in_at(const struct route_table *table)
{
    packet_attach(&a, packet_ether(&a), a.len);
    run_stages(tokyo, table, &a, 10);
}

static void come_in(void)
{
    come_in_at(at_tokyo);
}

/* ---- headers ---- */

START_TEST(headers_end_where_the_datagram_begins)
{
    bool ip6 = (_i & 1) != 0;
    bool tagged = (_i & 2) != 0;
    make(ip6, tagged ? VLAN : 0, 100);
    const uint8_t *wire = (const uint8_t *)packet_ether(&a);
    uint32_t headers = 14u + (tagged ? 4u : 0u) + (ip6 ? 40u : 20u) + 8u;
    ck_assert_uint_eq(a.len, headers + sizeof(struct weft_req) + 100);
    ck_assert_ptr_eq(wire + headers, buffer.frame.weft.bytes);
    wire += 12;
    if (tagged) {
        ck_assert_uint_eq(wire[0] << 8 | wire[1], ROUTE_ETHER_TYPE_VLAN);
        ck_assert_uint_eq(wire[2] << 8 | wire[3], VLAN);
        wire += 4;
    }
    ck_assert_uint_eq(wire[0] << 8 | wire[1], ip6 ? ROUTE_ETHER_TYPE_IPV6 : ROUTE_ETHER_TYPE_IPV4);
    ck_assert_uint_eq(wire[2], ip6 ? 0x60 : 0x45);
    ck_assert_uint_eq(ip6 ? wire[2 + 7] : wire[2 + 8], ROUTE_IP_TTL);
    ck_assert(packet_is_ip6(&a) == ip6);
    ck_assert(packet_udp_ok(&a));
}
END_TEST

/* The sum after a change of addresses and family is the one a computation from scratch gives, and a
 * datagram that was damaged before is damaged after. */
START_TEST(updated_sums_equal_computed_ones)
{
    struct rng rng = {.state = 77};
    for (int i = 0; i < 100000; i++) {
        bool to6 = rng_below(&rng, 2) != 0;
        make(rng_below(&rng, 2) != 0, (uint16_t)rng_below(&rng, 2), 1 + rng_below(&rng, 60));
        struct route_host from = {.port_be = (uint16_t)rng_next(&rng)};
        struct route_hop to = {.port_be = (uint16_t)rng_next(&rng)};
        from.vlan_be = (uint16_t)rng_below(&rng, 2);
        from.addr = (uint32_t)rng_next(&rng);
        to.addr = addr_of_v4((uint32_t)rng_next(&rng));
        for (int k = 0; k < 16; k++) {
            from.addr6.s6_addr[k] = (uint8_t)(rng_below(&rng, 3) == 0 ? 0 : rng_next(&rng));
        }
        if (to6) {
            to.addr = from.addr6;
            to.addr.s6_addr[rng_below(&rng, 16)] ^= 0x80;
        }
        bool damaged = rng_below(&rng, 4) == 0;
        if (damaged) {
            buffer.frame.weft.bytes[rng_below(&rng, a.weft_len)] ^= 0x10;
        }
        packet_readdress(&a, &from, &to);
        ck_assert(packet_is_ip6(&a) == !addr_is_v4(&to.addr));
        ck_assert(goes_to(&a, to.addr));
        ck_assert(packet_udp_ok(&a) != damaged);
        uint16_t updated = buffer.frame.udp.checksum;
        packet_compose(&a, &from, &to);
        ck_assert_uint_ne(updated, 0);
        ck_assert((updated == buffer.frame.udp.checksum) != damaged);
    }
}
END_TEST

START_TEST(traffic_class_goes_along)
{
    struct route_host host = tokyo->host;
    struct route_hop four = {.port_be = 1, .addr = fixture_addr(2, false)};
    struct route_hop six = {.port_be = 1, .addr = fixture_addr(2, true)};
    make(false, 0, 10);
    buffer.frame.ip.tos = 0xb9; /* expedited forwarding, and congestion seen */
    packet_readdress(&a, &host, &six);
    ck_assert_uint_eq(ntohl(buffer.frame.ip6.version_class_flow), 0x6b900000u);
    ck_assert_uint_eq(buffer.frame.ip6.hop_limit, ROUTE_IP_TTL);
    packet_readdress(&a, &host, &six);
    ck_assert_uint_eq(ntohl(buffer.frame.ip6.version_class_flow), 0x6b900000u);
    packet_readdress(&a, &host, &four);
    ck_assert_uint_eq(buffer.frame.ip.tos, 0xb9);
    ck_assert(packet_udp_ok(&a));
}
END_TEST

static uint8_t class_of(const struct route_packet *p)
{
    return packet_traffic_class(p);
}

static void set_class(struct route_packet *p, bool ip6, uint8_t traffic_class)
{
    if (ip6) {
        p->frame->ip6.version_class_flow = htonl(6u << 28 | (uint32_t)traffic_class << 20);
    } else {
        p->frame->ip.tos = traffic_class;
        fixture_end_ip(p);
    }
}

/* A request that is marked on its way to the ingress: the mark goes on in both headers, and the
 * worker, who sees no IP header, has it from the Weft header. */
START_TEST(congestion_is_passed_on)
{
    const bool ip6 = (_i & 1) != 0;
    const uint8_t classes[] = {0, 1, 2, 3, 0xb8, 0xbb};
    for (size_t k = 0; k < sizeof(classes); k++) {
        struct route_frame f;
        struct route_packet p;
        fixture_ip6_client = ip6;
        fixture_ip6_nodes = (_i & 2) != 0;
        struct route_table *two = fixture_table(1);
        fixture_request(&p, &f, 1, 100);
        fixture_cookie(tokyo, &p);
        set_class(&p, ip6, classes[k]);
        uint64_t before = tokyo->counters.congestion;
        run_stages(tokyo, two, &p, 100);
        bool marked = (classes[k] & 3) == 3;
        ck_assert_int_eq(p.action, ROUTE_SEND);
        ck_assert_uint_eq(class_of(&p), classes[k]);
        ck_assert_int_eq((f.weft.common.flags & WEFT_F_ECN_ECHO) != 0, marked);
        ck_assert_uint_eq(tokyo->counters.congestion - before, marked);
        ck_assert(packet_udp_ok(&p));
        route_table_destroy(two);
    }
    fixture_ip6_client = fixture_ip6_nodes = false;
}
END_TEST

/* What the worker streams can be marked; a cookie, which is answered to anybody, cannot. */
START_TEST(replies_can_carry_marks)
{
    struct route_frame f, reply;
    struct route_packet p, r;
    fixture_ip6_client = fixture_ip6_nodes = _i != 0;
    struct route_table *table = fixture_table(2);
    struct route_core *frankfurt = fixture_core(2);
    fixture_request(&p, &f, 2, 100);
    run_stages(frankfurt, table, &p, 100);
    ck_assert_int_eq(f.weft.common.type, WEFT_T_COOKIE);
    ck_assert_uint_eq(class_of(&p), 0);
    struct weft_req request = {.h = {.conn_id = CONN, .req_seq = 1, .origin = 1}};
    const uint8_t types[] = {WEFT_T_RESP, WEFT_T_GRANT, WEFT_T_BUSY};
    for (size_t i = 0; i < sizeof(types); i++) {
        fixture_reply(&r, &reply, &request, 2, types[i]);
        run_stages(frankfurt, table, &r, 100);
        ck_assert_int_eq(r.action, ROUTE_SEND);
        ck_assert_uint_eq(class_of(&r), types[i] == WEFT_T_RESP ? ROUTE_ECN_ECT0 : 0);
        ck_assert(packet_udp_ok(&r));
    }
    route_core_destroy(frankfurt);
    route_table_destroy(table);
    fixture_ip6_client = fixture_ip6_nodes = false;
}
END_TEST

START_TEST(ipv6_gets_the_checksum_that_ipv4_may_lack)
{
    fixture_ip6_nodes = true;
    struct route_table *over_ipv6 = fixture_table(1);
    make(false, 0, 100);
    buffer.frame.udp.checksum = 0;
    run_stages(tokyo, over_ipv6, &a, 10);
    ck_assert_uint_eq(a.action, ROUTE_SEND);
    ck_assert(packet_is_ip6(&a) && packet_udp_ok(&a));
    make(true, 0, 100);
    buffer.frame.udp.checksum = 0; /* must not be, over IPv6 */
    run_stages(tokyo, over_ipv6, &a, 10);
    ck_assert_uint_eq(dropped(ROUTE_DROP_bad_checksum), 1);
    route_table_destroy(over_ipv6);
}
END_TEST

/* IPv6 leaves 20 bytes less of Ethernet's MTU. */
START_TEST(longest_datagrams)
{
    const uint32_t most = WEFT_DATAGRAM_MAX - (uint32_t)sizeof(struct weft_req);
    fixture_ip6_nodes = true;
    struct route_table *over_ipv6 = fixture_table(1);
    make(false, 0, most);
    run_stages(tokyo, at_tokyo, &a, 10);
    ck_assert_uint_eq(a.len, ROUTE_FRAME_MAX);
    make(false, 0, most);
    run_stages(tokyo, over_ipv6, &a, 10);
    ck_assert_uint_eq(a.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(ROUTE_DROP_oversized), 1);
    make(false, 0, most - 20);
    run_stages(tokyo, over_ipv6, &a, 10);
    ck_assert_uint_eq(a.action, ROUTE_SEND);
    ck_assert_uint_eq(a.len, ROUTE_FRAME_MAX);
    make(true, 0, most - 19);
    run_stages(tokyo, over_ipv6, &a, 10);
    ck_assert_uint_eq(dropped(ROUTE_DROP_oversized), 2);
    route_table_destroy(over_ipv6);
}
END_TEST

/* ---- what may not come ---- */

/* Cut off anywhere, it is let go of and nothing behind its end is looked at. */
START_TEST(every_length)
{
    bool ip6 = (_i & 1) != 0;
    uint16_t vlan = (_i & 2) != 0 ? VLAN : 0;
    tokyo->host.vlan_be = htons(vlan);
    make(ip6, vlan, 20);
    uint32_t whole = a.len;
    for (uint32_t len = 0; len <= whole; len++) {
        make(ip6, vlan, 20);
        /* Memory of its own, exactly so long: sanitizers see any step beyond. */
        uint8_t *memory = malloc(ROUTE_START_IPV4 + len);
        ck_assert_ptr_nonnull(memory);
        memcpy(memory + ROUTE_START_IPV4, packet_ether(&a), len);
        a = (struct route_packet){.frame = NULL};
        packet_attach(&a, memory + ROUTE_START_IPV4, len);
        stage_parse(tokyo, &a, 1);
        ck_assert((a.action == ROUTE_UNDECIDED) == (len == whole));
        free(memory);
    }
    /* Padding, as Ethernet adds it, is no part of the datagram. */
    make(ip6, vlan, 20);
    a.len += 9;
    stage_parse(tokyo, &a, 1);
    ck_assert_uint_eq(a.action, ROUTE_UNDECIDED);
    ck_assert_uint_eq(a.len, whole);
}
END_TEST

START_TEST(sources_that_are_no_hosts)
{
    static const struct {
        const char *text;
        bool taken;
    } cases[] = {
        {"10.1.2.3", true},     {"169.254.7.7", true},
        {"0.0.0.0", false},     {"0.1.2.3", false},
        {"127.0.0.1", false},   {"127.255.0.9", false},
        {"224.0.0.1", false},   {"255.255.255.255", false},
        {"2001:db8::77", true}, {"fe80::1", true},
        {"fd00::1", true},      {"64:ff9b::a01:203", true},
        {"::", false},          {"::1", false},
        {"::10.77.0.2", false}, {"ff02::1", false},
        {"ff0e::7400", false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct in6_addr addr;
        uint64_t before = dropped(ROUTE_DROP_bad_header);
        ck_assert(addr_parse(cases[i].text, &addr));
        make(!addr_is_v4(&addr), 0, 20);
        if (addr_is_v4(&addr)) {
            packet_set(a.frame, &a.frame->ip.src, addr.s6_addr + 12, 4);
            fixture_end_ip(&a);
        } else {
            packet_set(a.frame, a.frame->ip6.src.s6_addr, &addr, sizeof(addr));
        }
        come_in();
        ck_assert_msg((dropped(ROUTE_DROP_bad_header) == before) == cases[i].taken, "%s",
                      cases[i].text);
    }
    /* IPv4 in disguise would be taken for the member that has that address. */
    struct in6_addr disguised = fixture_addr(2, false);
    uint64_t before = dropped(ROUTE_DROP_bad_header);
    make(true, 0, 20);
    packet_set(a.frame, a.frame->ip6.src.s6_addr, &disguised, sizeof(disguised));
    come_in();
    ck_assert_uint_eq(dropped(ROUTE_DROP_bad_header), before + 1);
}
END_TEST

START_TEST(ipv6_headers_in_between)
{
    static const struct {
        uint8_t next_header;
        enum route_drop why;
    } cases[] = {
        {IPPROTO_HOPOPTS, ROUTE_DROP_ip_extension}, {IPPROTO_ROUTING, ROUTE_DROP_ip_extension},
        {IPPROTO_DSTOPTS, ROUTE_DROP_ip_extension}, {IPPROTO_AH, ROUTE_DROP_ip_extension},
        {IPPROTO_FRAGMENT, ROUTE_DROP_fragmented},  {IPPROTO_ICMPV6, ROUTE_DROP_not_ours},
        {IPPROTO_TCP, ROUTE_DROP_not_ours},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = dropped(cases[i].why);
        make(true, 0, 20);
        a.frame->ip6.next_header = cases[i].next_header;
        come_in();
        ck_assert_uint_eq(a.action, ROUTE_LET_GO);
        ck_assert_uint_eq(dropped(cases[i].why), before + 1);
    }
}
END_TEST

START_TEST(ipv6_fields_that_contradict)
{
    make(true, 0, 20);
    a.frame->ip6.version_class_flow = htonl(5u << 28);
    come_in();
    make(true, 0, 20);
    a.frame->ip6.dst.s6_addr[15] ^= 2; /* another host */
    come_in();
    make(true, 0, 20);
    a.frame->udp.dst_port = htons(53);
    come_in();
    ck_assert_uint_eq(dropped(ROUTE_DROP_not_ours), 3);
    make(true, 0, 20);
    a.frame->ip6.payload_len = htons(1400);
    come_in();
    make(true, 0, 20);
    a.frame->ip6.payload_len = htons(7);
    come_in();
    make(true, 0, 20);
    a.frame->udp.len = htons(7);
    come_in();
    make(true, 0, 20);
    a.frame->udp.len = htons(900);
    come_in();
    ck_assert_uint_eq(dropped(ROUTE_DROP_truncated), 4);
}
END_TEST

/* A node without an address of a family takes nothing of that family, least of all to "none". */
START_TEST(one_family_only)
{
    make(true, 0, 20);
    tokyo->host.addr6 = a.frame->ip6.dst = (struct in6_addr){.s6_addr = {0}};
    route_core_answer(tokyo, true, true);
    come_in();
    make(false, 0, 20);
    tokyo->host.addr = a.frame->ip.dst = 0;
    fixture_end_ip(&a);
    route_core_answer(tokyo, true, true);
    come_in();
    ck_assert_uint_eq(dropped(ROUTE_DROP_not_ours), 2);
}
END_TEST

/* What a port has found out of a frame's checksums counts; of what it says nothing they are looked
 * at here, the IPv4 header's at once and UDP's where the datagram ends. */
START_TEST(sums_are_checked)
{
    static const struct {
        bool spoilt;
        uint8_t sums;
        bool taken;
    } cases[] = {
        {false, 0, true},
        {false, ROUTE_SUMS_IP_GOOD | ROUTE_SUMS_UDP_GOOD, true},
        {false, ROUTE_SUMS_BAD, false},
        {false, ROUTE_SUMS_IP_GOOD | ROUTE_SUMS_BAD, false},
        {true, 0, false},
        {true, ROUTE_SUMS_UDP_GOOD, false},
        {true, ROUTE_SUMS_IP_GOOD, true}, /* it is believed */
    };
    bool ip6 = _i != 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = dropped(ROUTE_DROP_bad_checksum);
        make(ip6, 0, 20);
        packet_attach(&a, packet_ether(&a), a.len);
        if (cases[i].spoilt && !ip6) {
            buffer.frame.ip.ttl ^= 1;
        }
        a.sums = cases[i].sums;
        bool taken = ip6 ? (cases[i].sums & ROUTE_SUMS_BAD) == 0 : cases[i].taken;
        run_stages(tokyo, at_tokyo, &a, 10);
        ck_assert_int_eq(a.action, taken ? ROUTE_SEND : ROUTE_LET_GO);
        ck_assert_uint_eq(dropped(ROUTE_DROP_bad_checksum), before + !taken);
    }
    make(ip6, 0, 20);
    buffer.frame.weft.bytes[40] ^= 1;
    ck_assert(!packet_udp_ok(&a));
    a.sums = ROUTE_SUMS_UDP_GOOD;
    ck_assert(packet_udp_ok(&a));
}
END_TEST

/* RFC 1071's arithmetic against a plain one. */
START_TEST(header_sums_equal_computed_ones)
{
    struct rng rng = {.state = 5};
    for (int i = 0; i < 200000; i++) {
        make(false, 0, 20);
        struct route_ipv4 *ip = &buffer.frame.ip;
        for (uint32_t k = 0; k < sizeof(*ip); k++) {
            ((uint8_t *)ip)[k] = (uint8_t)(rng_below(&rng, 3) == 0   ? 0xff
                                           : rng_below(&rng, 3) == 0 ? 0
                                                                     : rng_next(&rng));
        }
        fixture_end_ip(&a);
        ck_assert(packet_ip_ok(ip));
        uint32_t bit = rng_below(&rng, 8 * sizeof(*ip));
        ((uint8_t *)ip)[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert(!packet_ip_ok(ip));
    }
}
END_TEST

/* The kernel has lost the address of one family: nothing is taken there, the other one goes on, and
 * what would leave from there stays. */
START_TEST(addresses_that_are_gone)
{
    bool ip6 = _i != 0;
    fixture_ip6_nodes = ip6;
    struct route_table *same = fixture_table(1);
    fixture_ip6_nodes = !ip6; /* the way to the target is of the other family */
    struct route_table *other = fixture_table(1);
    fixture_ip6_nodes = false;
    route_core_answer(tokyo, !ip6, ip6);
    make(ip6, 0, 20);
    come_in_at(same);
    ck_assert_int_eq(a.action, ROUTE_SEND);
    make(!ip6, 0, 20);
    come_in_at(same);
    ck_assert_int_eq(a.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(ROUTE_DROP_not_ours), 1);
    ck_assert_uint_eq(dropped(ROUTE_DROP_no_address), 0);
    make(ip6, 0, 20);
    come_in_at(other);
    ck_assert_int_eq(a.action, ROUTE_LET_GO);
    ck_assert_uint_eq(dropped(ROUTE_DROP_no_address), 1);
    route_core_answer(tokyo, true, true);
    make(ip6, 0, 20);
    come_in_at(other);
    ck_assert_int_eq(a.action, ROUTE_SEND);
    make(!ip6, 0, 20);
    come_in_at(same);
    ck_assert_int_eq(a.action, ROUTE_SEND);
    route_table_destroy(same);
    route_table_destroy(other);
}
END_TEST

/* ---- VLANs ---- */

START_TEST(own_vlan_only)
{
    bool ip6 = _i != 0;
    static const struct {
        uint16_t own, frame;
        bool taken;
    } cases[] = {
        {0, 0, true},      {0, VLAN, false}, {VLAN, VLAN, true},
        {VLAN, 0, false},  {VLAN, 6, false}, {VLAN, 0x6000 | VLAN, true}, /* with a priority */
        {0, 0xa000, true}, /* a tag for the priority alone */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t before = dropped(ROUTE_DROP_wrong_vlan);
        tokyo->host.vlan_be = htons(cases[i].own);
        make(ip6, cases[i].frame, 20);
        come_in();
        ck_assert_uint_eq(a.action, cases[i].taken ? ROUTE_SEND : ROUTE_LET_GO);
        ck_assert_uint_eq(dropped(ROUTE_DROP_wrong_vlan), before + !cases[i].taken);
        if (!cases[i].taken) {
            continue;
        }
        const uint8_t *wire = (const uint8_t *)packet_ether(&a) + 12;
        bool tagged = wire[0] == 0x81 && wire[1] == 0;
        ck_assert(tagged == (cases[i].own != 0));
        ck_assert(!tagged || (wire[2] << 8 | wire[3]) == VLAN);
        ck_assert(packet_udp_ok(&a));
    }
}
END_TEST

/* What is not Weft's at all is not counted as a wrong VLAN. */
START_TEST(other_traffic_of_other_vlans)
{
    make(false, VLAN, 20);
    a.frame->udp.dst_port = htons(53);
    come_in();
    ck_assert_uint_eq(dropped(ROUTE_DROP_not_ours), 1);
    ck_assert_uint_eq(dropped(ROUTE_DROP_wrong_vlan), 0);
}
END_TEST

/* The answer to an unproven client has its tag and is no longer than what came. */
START_TEST(cookie_over_a_vlan)
{
    tokyo->host.vlan_be = htons(VLAN);
    make(_i != 0, VLAN, 20);
    uint64_t none = 0;
    packet_set(a.frame, &a.frame->weft.req.first.cookie, &none, sizeof(none));
    uint32_t came = a.len;
    come_in();
    ck_assert_uint_eq(a.frame->weft.common.type, WEFT_T_COOKIE);
    ck_assert_uint_le(a.len, came);
    ck_assert(goes_to(&a, client_addr()));
    ck_assert_uint_eq(((const uint8_t *)packet_ether(&a))[15], VLAN);
}
END_TEST

/* ---- the table ---- */

START_TEST(members_by_address)
{
    struct rng rng = {.state = 3};
    static struct route_node nodes[2000];
    struct route_table *table;
    for (uint16_t i = 0; i < 2000; i++) {
        nodes[i] = fixture_node((uint16_t)(i + 1), 0, 0, 0);
        nodes[i].addr = fixture_addr(0, true);
        nodes[i].addr.s6_addr32[1 + rng_below(&rng, 3)] ^= htonl(i + 1u);
        if (i % 3 == 0) {
            nodes[i].addr = addr_of_v4(htonl(0x0a000000u + i));
        }
    }
    ck_assert_int_eq(route_table_create(&table, nodes, 2000, 1, 1, false), 0);
    for (uint16_t i = 0; i < 2000; i++) {
        ck_assert_uint_eq(route_table_find_addr(table, &nodes[i].addr), i);
        struct in6_addr other = nodes[i].addr;
        other.s6_addr[4] ^= 0x40;
        ck_assert_uint_eq(route_table_find_addr(table, &other), ROUTE_INDEX_NONE);
    }
    route_table_destroy(table);
    nodes[7].addr = nodes[8].addr;
    ck_assert_int_eq(route_table_create(&table, nodes, 2000, 1, 1, false), -EINVAL);
}
END_TEST

START_TEST(addresses_as_text)
{
    static const char *const good[] = {"10.77.0.1", "2001:db8::1", "fe80::1", "::1"};
    static const char *const bad[] = {"",           "10.77.0", "10.77.0.256",      "[::1]",
                                      "fe80::1%w0", "1::2::3", "::ffff:10.77.0.1", "host"};
    char text[ADDR_TEXT_MAX];
    struct in6_addr addr;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        ck_assert(addr_parse(good[i], &addr));
        ck_assert_str_eq(addr_format(&addr, text), good[i]);
        struct sockaddr_storage socket;
        struct in6_addr back;
        addr_to_socket(&addr, 7400, &socket);
        ck_assert_uint_eq(addr_of_socket(&socket, &back), 7400);
        ck_assert(addr_equal(&addr, &back));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(!addr_parse(bad[i], &addr), "%s", bad[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("families");
    TCase *tc = tcase_create("families");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, headers_end_where_the_datagram_begins, 0, 4);
    tcase_add_test(tc, updated_sums_equal_computed_ones);
    tcase_add_test(tc, traffic_class_goes_along);
    tcase_add_loop_test(tc, congestion_is_passed_on, 0, 4);
    tcase_add_loop_test(tc, replies_can_carry_marks, 0, 2);
    tcase_add_test(tc, ipv6_gets_the_checksum_that_ipv4_may_lack);
    tcase_add_test(tc, longest_datagrams);
    tcase_add_loop_test(tc, every_length, 0, 4);
    tcase_add_test(tc, sources_that_are_no_hosts);
    tcase_add_test(tc, ipv6_headers_in_between);
    tcase_add_test(tc, ipv6_fields_that_contradict);
    tcase_add_test(tc, one_family_only);
    tcase_add_loop_test(tc, addresses_that_are_gone, 0, 2);
    tcase_add_loop_test(tc, sums_are_checked, 0, 2);
    tcase_add_test(tc, header_sums_equal_computed_ones);
    tcase_add_loop_test(tc, own_vlan_only, 0, 2);
    tcase_add_test(tc, other_traffic_of_other_vlans);
    tcase_add_loop_test(tc, cookie_over_a_vlan, 0, 2);
    tcase_add_test(tc, members_by_address);
    tcase_add_test(tc, addresses_as_text);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
