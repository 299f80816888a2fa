/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_stages.c - bursts of arbitrary packets through the whole packet path of one node, with
 * tables swapped and time passing in between (steps.h has the form of an input). Cookies and return
 * tags are put in where the input asks for it, so that it gets past them.
 *
 * Checked of every packet: it is decided; it never grows; nothing is read past its end (poisoned
 * memory); it goes to a member, to its sender or to a client whose block this node has sealed; its
 * checksum is as good as before; the counters add up.
 */
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft/status.h>

#include "steps.h"
#include "tests/unit/route/fixture.h"

#define BURST    8u
#define KEPT     8u /* requests delivered, for STEP_WORKER */
#define SELF     2u
#define MANY     140u
#define NS_PER_S UINT64_C(1000000000)

/* Coverage counts the code under test alone: faster, and no input is kept for what it does here. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((no_sanitize("coverage"))), apply_to = function)
#endif

static const struct seal_master master = {{1, 2, 3}};
static struct route_core *core;
static struct route_table *tables[2][STEP_TABLES]; /* over IPv4, over IPv6 */

/* One input's world. */
static struct {
    const struct route_table *table;
    enum step_table table_number;
    uint16_t tag_be; /* of frames that come */
    uint64_t now_ns;
    uint32_t net, worker; /* packets waiting for their burst */
    uint32_t kept;
    struct weft_req delivered[KEPT];
    uint64_t received, sent, drops, from_worker;
} w;

/* A packet and what it was. */
struct item {
    struct route_packet packet;
    uint32_t weft_len;
    uint8_t mode;
    bool sum_ok;
    bool ip6;
    struct in6_addr from;
};
static struct item net[BURST], worker[BURST];

/* A packet buffer: room in front, as a driver's has it. */
struct place {
    uint8_t room[64];
    struct route_frame frame;
};
static _Alignas(64) struct place net_places[BURST], worker_places[BURST];

#define require(what)                                                                              \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "not so: %s\n", #what);                                                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* ---- the world ---- */

static struct in6_addr member_addr(uint32_t who)
{
    return node_addr((uint16_t)(who != STEP_DEPARTED ? who : 77));
}

static void make_tables(struct route_table **to)
{
    static struct route_node nodes[MANY];
    nodes[0] = fixture_node(1, 35.68, 139.69, 1);
    nodes[1] = fixture_node(2, 50.11, 8.68, 3);
    nodes[2] = fixture_node(3, 40.71, -74.01, 5);
    for (uint16_t i = 3; i < MANY; i++) {
        nodes[i] = fixture_node((uint16_t)(i + 1), i % 90, i, i % 8);
        nodes[i].tags = i % 4;
    }
    int rc = route_table_create(&to[STEP_TABLE_ALL], nodes, 3, SELF, 7, false);
    rc |= route_table_create(&to[STEP_TABLE_GONE], nodes, 2, SELF, 8, false);
    rc |= route_table_create(&to[STEP_TABLE_MANY], nodes, MANY, SELF, 65535, false);
    rc |= route_table_create(&to[STEP_TABLE_ABSTRACT], nodes, 3, SELF, 0, true);
    nodes[2].addr = member_addr(STEP_DEPARTED);
    rc |= route_table_create(&to[STEP_TABLE_MOVED], nodes, 3, SELF, 9, false);
    nodes[2].alive = nodes[0].reachable = false;
    rc |= route_table_create(&to[STEP_TABLE_DEAD], nodes, 3, SELF, 10, false);
    require(rc == 0);
}

static void use_table(enum step_table number)
{
    w.table_number = number;
    w.table = tables[fixture_ip6_nodes][number];
}

static void use_network(uint8_t mode)
{
    fixture_ip6_nodes = (mode & STEP_NODES_IP6) != 0;
    fixture_ip6_client = (mode & STEP_CLIENTS_IP6) != 0;
    core->host.vlan_be = (mode & STEP_OWN_VLAN) != 0 ? htons(5) : 0;
    w.tag_be = (mode & STEP_OTHER_TAG) != 0 ? htons(6) : (mode & STEP_TAGGED) != 0 ? htons(5) : 0;
    use_table(w.table_number);
}

static void make_world(void)
{
    core = fixture_core(SELF);
    for (int family = 0; family < 2; family++) {
        fixture_ip6_nodes = family != 0;
        make_tables(tables[family]);
    }
}

/* Every input finds the same world. */
static void reset(void)
{
    struct route_counters *c = &core->counters;
    if (atomic_load_explicit(&c->chosen, memory_order_relaxed) != 0) {
        memset(core->pins, 0, ROUTE_PINS * sizeof(*core->pins));
    }
    if (w.received != 0) {
        memset(core->loads, 0, (MANY + 2) * sizeof(*core->loads));
    }
    memset(c, 0, sizeof(*c));
    if (w.now_ns != 1) {
        seal_init(&core->seal, &master, 1);
    }
    memset(&w, 0, sizeof(w));
    w.now_ns = 1;
    use_network(0);
}

/* ---- making packets ---- */

/* Of all but the frame and the room in front of it. */
static void poison_rest(const struct route_packet *p, struct place *place)
{
    uint8_t *end = (uint8_t *)packet_ether(p) + p->len;
    ASAN_POISON_MEMORY_REGION(end, (size_t)((uint8_t *)(place + 1) - end));
}

/* In words: a loop over bytes would cost more than the code under test. */
static void xor_over(uint8_t *to, size_t room, const uint8_t *data, size_t size)
{
    size = size < room ? size : room;
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t)) {
        uint64_t a, b;
        memcpy(&a, to, sizeof(a));
        memcpy(&b, data, sizeof(b));
        a ^= b;
        memcpy(to, &a, sizeof(a));
        to += sizeof(a);
        data += sizeof(b);
    }
    for (size_t i = 0; i < size; i++) {
        to[i] ^= data[i];
    }
}

/* Bytes of a datagram or frame of `base` bytes after a step: bytes that the input does not have are
 * zero, so that a short input can make a long packet. */
static uint32_t length_of(const struct step *s, uint32_t base, uint32_t max)
{
    uint32_t len = s->len < max ? s->len : max;
    return (s->mode & STEP_CUT) != 0 || len > base ? len : base;
}

static void base_request(struct route_frame *f, struct route_packet *p, uint32_t from, bool relayed)
{
    fixture_request(p, f, SELF, 32);
    if (relayed) {
        struct weft_req *req = &f->weft.req;
        req->h.flags |= WEFT_F_RELAYED;
        req->h.hops_left = 2;
        req->h.origin = (uint16_t)from;
        req->h.target = SELF;
        req->h.alt1 = 3;
        req->h.alt2 = 1;
    }
}

static void base_reply(struct route_frame *f, struct route_packet *p, uint16_t server)
{
    struct weft_req *req = &w.delivered[0];
    struct weft_req blank = {.h = {.conn_id = CONN, .req_seq = 1, .origin = SELF}};
    blank.ret.port = CLIENT_PORT;
    struct in6_addr addr = client_addr();
    memcpy(blank.ret.addr, &addr, sizeof(addr));
    fixture_reply(p, f, w.kept != 0 ? req : &blank, server, WEFT_T_RESP);
    f->weft.rsp.h.origin = SELF;
}

static void prove(struct route_frame *f, const struct step *s, const struct in6_addr *addr,
                  uint16_t port_be)
{
    uint64_t conn_id = f->weft.common.conn_id;
    if ((s->mode & STEP_PROVEN) == 0) {
        return;
    }
    if (s->op % STEP_OPS == STEP_CLIENT) {
        f->weft.req.first.cookie = seal_cookie(&core->seal, addr, port_be, conn_id);
    } else if ((f->weft.common.type & WEFT_TYPE_DOWN) != 0) {
        seal_return(&core->seal, &f->weft.rsp.ret, conn_id);
    } else {
        seal_return(&core->seal, &f->weft.req.ret, conn_id);
    }
}

/* The packet as the shell hands it over: a piece of memory, and what it is remembered as. */
static void finish(struct item *it, struct place *place, const struct step *s, uint32_t len)
{
    struct route_packet *p = &it->packet;
    it->mode = s->mode;
    it->ip6 = packet_is_ip6(p);
    it->from = packet_source(p);
    it->weft_len = len > ROUTE_WEFT_OFFSET - p->start ? len + p->start - ROUTE_WEFT_OFFSET : 0;
    it->sum_ok = p->frame->udp.checksum != 0 && s->op % STEP_OPS != STEP_FRAME;
    packet_attach(p, packet_ether(p), len);
    poison_rest(p, place);
}

static void add_net(const struct step *s, const uint8_t *data, size_t size)
{
    uint32_t who = s->mode & STEP_WHO;
    uint8_t op = s->op % STEP_OPS;
    struct item *it = &net[w.net];
    struct place *place = &net_places[w.net++];
    struct route_frame *f = &place->frame;
    bool ip6 = op == STEP_CLIENT || op == STEP_FRAME ? fixture_ip6_client : fixture_ip6_nodes;
    struct in6_addr source = op == STEP_CLIENT ? client_addr() : member_addr(who);
    uint16_t port = (uint16_t)(op == STEP_CLIENT ? CLIENT_PORT + who : PORT_DATA);
    struct route_host from = fixture_host(source, port);
    struct route_hop to = {.port_be = htons(PORT_DATA), .addr = fixture_addr(SELF, ip6)};
    from.vlan_be = w.tag_be;
    ASAN_UNPOISON_MEMORY_REGION(place, sizeof(*place));
    if (op == STEP_REPLY) {
        base_reply(f, &it->packet, (uint16_t)who);
    } else {
        base_request(f, &it->packet, who, op == STEP_RELAYED);
    }
    struct route_packet *p = &it->packet;
    if (op == STEP_FRAME) {
        uint32_t room = (uint32_t)sizeof(*f) - p->start;
        xor_over((uint8_t *)packet_ether(p), room, data, size);
        if ((s->mode & STEP_NO_SUM) == 0) {
            fixture_end_ip(p);
        }
        finish(it, place, s, length_of(s, p->len, room < ROUTE_FRAME_MAX ? room : ROUTE_FRAME_MAX));
        return;
    }
    p->weft_len = (uint16_t)length_of(s, p->weft_len, WEFT_DATAGRAM_MAX);
    xor_over(f->weft.bytes, sizeof(f->weft.bytes), data, size);
    prove(f, s, &source, from.port_be);
    packet_compose(p, &from, &to);
    if ((s->mode & STEP_NO_SUM) != 0) {
        f->udp.checksum = 0;
    }
    finish(it, place, s, p->len);
}

static void add_worker(const struct step *s, const uint8_t *data, size_t size)
{
    struct item *it = &worker[w.worker];
    struct place *place = &worker_places[w.worker];
    struct route_frame *f = &place->frame;
    if (w.kept == 0) {
        return; /* it has been asked nothing */
    }
    w.worker++;
    const struct weft_req *req = &w.delivered[(s->mode & STEP_WHO) % w.kept % KEPT];
    ASAN_UNPOISON_MEMORY_REGION(place, sizeof(*place));
    fixture_reply(&it->packet, f, req, SELF, WEFT_T_RESP);
    uint32_t len = length_of(s, it->packet.weft_len, WEFT_DATAGRAM_MAX);
    xor_over(f->weft.bytes, sizeof(f->weft.bytes), data, size);
    prove(f, s, NULL, 0);
    it->packet.start = ROUTE_START_IPV4;
    finish(it, place, s, ROUTE_WEFT_OFFSET - ROUTE_START_IPV4 + len);
    it->packet.weft_len = (uint16_t)len;
    it->packet.from_worker = it->packet.own = true;
    w.from_worker++;
}

/* ---- a burst ---- */

static uint64_t drops_now(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < ROUTE_DROP_COUNT; i++) {
        sum += atomic_load_explicit(&core->counters.drops[i], memory_order_relaxed);
    }
    return sum;
}

/* As dataplane/core.c does it: the worker takes it, or it gets its second chance. */
static void deliver(struct route_packet *p, uint8_t mode)
{
    bool request = p->frame->weft.common.type == WEFT_T_REQ;
    if ((mode & (STEP_FULL | STEP_NO_PORT)) == 0) {
        w.delivered[w.kept++ % KEPT] = p->frame->weft.req;
        p->action = ROUTE_GONE;
        return;
    }
    uint64_t before = drops_now();
    if (!request) {
        stage_second_chance(core, w.table, p, ROUTE_DROP_unknown_request, WEFT_OK);
    } else {
        stage_second_chance(core, w.table, p, ROUTE_DROP_refused,
                            (mode & STEP_FULL) != 0 ? WEFT_E_MESH_FULL : WEFT_E_BUDGET_INFEASIBLE);
    }
    w.drops += drops_now() - before;
}

/* The headers that this node has put in front. */
static void check_headers(const struct route_packet *p)
{
    const struct route_frame *f = p->frame;
    bool ip6 = packet_is_ip6(p);
    bool tagged = core->host.vlan_be != 0;
    uint16_t tag[3]; /* type, tag, inner type; or type and what follows */
    memcpy(tag, (const uint8_t *)packet_ether(p) + 12, sizeof(tag));
    require(p->start == (ip6 ? ROUTE_START_IPV6 : ROUTE_START_IPV4) - (tagged ? 4 : 0));
    require(p->start + p->len == ROUTE_WEFT_OFFSET + p->weft_len);
    require(p->weft_len <= (ip6 ? ROUTE_DATAGRAM_MAX_IP6 : WEFT_DATAGRAM_MAX));
    require(!tagged || (tag[0] == htons(ROUTE_ETHER_TYPE_VLAN) && tag[1] == core->host.vlan_be));
    require(tag[tagged ? 2 : 0] == htons(ip6 ? ROUTE_ETHER_TYPE_IPV6 : ROUTE_ETHER_TYPE_IPV4));
    require(ntohs(f->udp.len) == sizeof(f->udp) + p->weft_len);
    require(comes_from(p, fixture_addr(SELF, ip6)) && f->udp.src_port == core->host.port_be);
    if (ip6) {
        require(f->ip6.payload_len == f->udp.len && f->ip6.next_header == ROUTE_IP_PROTOCOL_UDP);
    } else {
        require(ntohs(f->ip.total_len) >= sizeof(f->ip) + ntohs(f->udp.len));
    }
}

static void check_sent(const struct route_packet *p, const struct item *it)
{
    const struct route_frame *f = p->frame;
    bool ip6 = packet_is_ip6(p);
    require(p->weft_len <= it->weft_len);
    check_headers(p);
    require(f->udp.dst_port != 0 || p->to != ROUTE_TO_SENDER);
    require(f->udp.checksum != 0 || !ip6);
    if (p->own || it->sum_ok) {
        require(f->udp.checksum != 0 && packet_udp_ok(p));
    } else if ((it->mode & STEP_NO_SUM) != 0) {
        require(ip6 ? packet_udp_ok(p) : f->udp.checksum == 0);
    }
    switch (p->to) {
    case ROUTE_TO_NODE:
        require(w.table->nodes[p->next].reachable);
        require(goes_to(p, w.table->nodes[p->next].addr));
        break;
    case ROUTE_TO_SENDER:
        require(goes_to(p, it->from) && ip6 == it->ip6);
        break;
    default: /* a client: nowhere but where this node has itself seen one */
        require(seal_return_ok(&core->seal, &f->weft.rsp.ret, f->weft.common.conn_id));
        break;
    }
}

static void run_burst(void)
{
    struct route_packet packets[2 * BURST];
    const struct item *items[2 * BURST];
    uint32_t count = w.net + w.worker;
    for (uint32_t i = 0; i < count; i++) {
        items[i] = i < w.net ? &net[i] : &worker[i - w.net];
        packets[i] = items[i]->packet;
    }
    seal_tick(&core->seal, w.now_ns);
    stage_parse(core, packets, w.net);
    stage_parse_worker(core, packets + w.net, w.worker);
    stage_classify(core, w.table, packets, count, w.now_ns);
    stage_select(core, w.table, packets, count, w.now_ns);
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        w.drops += p->action == ROUTE_LET_GO;
        w.drops += p->own && !p->from_worker;
        if (p->action == ROUTE_DELIVER) {
            deliver(p, items[i]->mode);
        }
        packets[i].buffer = p->action == ROUTE_SEND ? p : NULL;
    }
    stage_rewrite(core, w.table, packets, count);
    for (uint32_t i = 0; i < count; i++) {
        const struct route_packet *p = &packets[i];
        require(p->action == ROUTE_SEND || p->action == ROUTE_LET_GO || p->action == ROUTE_GONE);
        w.drops += p->buffer != NULL && p->action == ROUTE_LET_GO;
        if (p->action == ROUTE_SEND) {
            w.sent++;
            check_sent(p, items[i]);
        }
    }
    w.received += w.net;
    w.net = w.worker = 0;
}

static void check_counters(void)
{
    const struct route_counters *c = &core->counters;
    require(atomic_load(&c->received) == w.received);
    require(atomic_load(&c->relayed) + atomic_load(&c->returned) == w.sent);
    require(drops_now() == w.drops);
}

static void run_step(const struct step *s, const uint8_t *data, size_t size)
{
    switch (s->op % STEP_OPS) {
    case STEP_WORKER:
        add_worker(s, data, size);
        break;
    case STEP_TABLE:
        run_burst();
        use_table(s->mode % STEP_TABLES);
        break;
    case STEP_NETWORK:
        run_burst();
        use_network(s->mode);
        break;
    case STEP_TIME:
        run_burst();
        w.now_ns += s->mode * NS_PER_S;
        seal_tick(&core->seal, w.now_ns);
        break;
    case STEP_BURST:
        run_burst();
        break;
    default:
        add_net(s, data, size);
        break;
    }
    if (w.net == BURST || w.worker == BURST) {
        run_burst();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (core == NULL) {
        make_world();
    }
    reset();
    while (size >= sizeof(struct step)) {
        struct step s;
        memcpy(&s, data, sizeof(s));
        data += sizeof(s);
        size -= sizeof(s);
        size_t len = s.len < size ? s.len : size;
        run_step(&s, data, len);
        data += len;
        size -= len;
    }
    run_burst();
    check_counters();
    return 0;
}

#ifdef __clang__
#pragma clang attribute pop
#endif
