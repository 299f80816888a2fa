/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_churn.c - bursts of every kind of packet while members leave, come back with another
 * address, change their models and lose their neighbours, and tables are swapped in between. Every
 * packet is accounted for and checked against churn.h. WEFT_CHURN_PACKETS sets how many.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft/status.h>

#include "churn.h"
#include "tests/unit/suite.h"

#define BURST           32u
#define PACKETS_DEFAULT 1000000u
#define RECORDS         64u
#define DELIVERED       64u
#define STEP_NS         UINT64_C(20000000) /* of time between two bursts: keys change on the way */
#define STEADY_PERCENT  2u                 /* of repetitions that may have lost their pin */

enum kind {
    KIND_REQUEST,   /* of a proven client: first sight, or again */
    KIND_NAMED,     /* the client names its node */
    KIND_ACK,       /* of a proven client, for a request seen before */
    KIND_NO_COOKIE, /* of an unproven one */
    KIND_RELAYED,   /* from another member, or from where one has been */
    KIND_REPLY,     /* the same, towards one of this node's clients */
    KIND_WORKER,    /* out of the local ring */
    KIND_STRAY,     /* right address and wrong port, and the like */
    KIND_COUNT,
};

/* A request of one of the clients. */
struct record {
    struct churn_filter filter;
    uint64_t conn_id;
    uint32_t client;
    uint32_t generation; /* of the target when it was chosen */
    uint16_t target;     /* 0 = not placed yet */
    struct weft_return ret;
};

struct shot {
    enum kind kind;
    struct record *record;
    uint16_t named;    /* KIND_NAMED: id; KIND_RELAYED: origin */
    bool from_member;  /* its source address is a member's */
    bool forged;       /* its tag, or it is for another node */
    bool passed_on;    /* the local worker was full */
    uint32_t weft_len; /* as it came */
    uint32_t header;   /* bytes before the payload */
    uint8_t payload;   /* bytes of it */
    uint8_t last_byte; /* of it */
};

static struct {
    struct churn_world world;
    struct route_core *core;
    struct route_table *table;
    struct rng rng;
    uint64_t now_ns;
    struct record records[RECORDS];
    struct weft_req delivered[DELIVERED]; /* conn_id 0 = none */
    struct route_frame frames[BURST];
    struct route_packet packets[BURST];
    struct shot shots[BURST];
    /* What the counters must come to. */
    uint64_t received, relayed, returned, delivered_count, drops;
    /* What was seen, so that the test knows that it tests something. */
    uint64_t kinds[KIND_COUNT], placed, repeated, moved, refused, swaps;
} t;

static uint32_t below(uint32_t bound)
{
    return rng_below(&t.rng, bound);
}

/* The one address of a host that has one. */
static struct in6_addr addr_of(const struct route_host *host)
{
    return host->addr != 0 ? addr_of_v4(host->addr) : host->addr6;
}

/* ---- making packets ---- */

static struct route_host client_host(uint32_t client)
{
    struct in6_addr addr = fixture_addr((uint16_t)(0x6300 | client), client % 3 == 0);
    struct route_host host = fixture_host(addr, (uint16_t)(CLIENT_PORT + client));
    host.mac[0] = 2;
    host.mac[5] = (uint8_t)client;
    return host;
}

static void record_renew(struct record *r)
{
    memset(r, 0, sizeof(*r));
    r->conn_id = rng_next(&t.rng) | 1;
    r->client = below(200);
    r->filter.model = MODEL_A + below(CHURN_MODELS + 1); /* the last one does not exist */
    r->filter.tags = below(4) == 0 ? below(8) : 0;
    r->filter.tier_min = (uint8_t)(below(3) == 0 ? below(WEFT_TIER_MAX + 1) : 0);
    r->filter.tier_max = WEFT_TIER_MAX;
    if (below(4) == 0) {
        r->filter.tier_max =
            (uint8_t)(r->filter.tier_min + below(WEFT_TIER_MAX + 1u - r->filter.tier_min));
    }
}

static void begin_request(struct route_frame *f, const struct record *r, uint8_t type)
{
    memset(f, 0, ROUTE_WEFT_OFFSET + sizeof(struct weft_req));
    struct weft_req_hdr *h = &f->weft.req.h;
    h->ver_fmt = WEFT_VER_FMT;
    h->type = type;
    h->hdr_words = WEFT_REQ_WORDS;
    h->conn_id = r->conn_id;
    h->req_seq = 1;
    h->msg_len = 4096;
    h->offset = 64 * below(32);
    h->model = r->filter.model;
    h->req_tags = r->filter.tags;
    h->budget_us = WEFT_BUDGET_NONE;
    h->tiers = (uint8_t)(r->filter.tier_min << 4 | r->filter.tier_max);
    h->want = below(2) == 0 ? WEFT_WANT_POSITION : 0;
    h->x = (uint16_t)below(65536);
    h->y = (uint16_t)below(32768);
    h->origin = h->target = h->alt1 = h->alt2 = WEFT_NODE_NONE;
}

/* Payload and outer headers; the datagram is complete afterwards. */
static void finish(uint32_t i, const struct route_host *from, uint32_t header)
{
    struct route_frame *f = &t.frames[i];
    struct shot *s = &t.shots[i];
    struct route_hop to = {.port_be = t.core->host.port_be};
    to.addr = from->addr != 0 ? addr_of_v4(t.core->host.addr) : t.core->host.addr6;
    memcpy(to.mac, t.core->host.mac, sizeof(to.mac));
    s->header = header;
    s->payload = (uint8_t)(16 + below(48));
    s->last_byte = (uint8_t)below(256);
    memset(f->weft.bytes + header, 0x5a, s->payload);
    f->weft.bytes[header + s->payload - 1] = s->last_byte;
    t.packets[i] = (struct route_packet){.frame = f, .weft_len = (uint16_t)(header + s->payload)};
    packet_compose(&t.packets[i], from, &to);
    s->weft_len = t.packets[i].weft_len;
}

static void make_client(uint32_t i)
{
    struct shot *s = &t.shots[i];
    struct route_host from = client_host(s->record->client);
    struct weft_req *req = &t.frames[i].weft.req;
    begin_request(&t.frames[i], s->record, s->kind == KIND_ACK ? WEFT_T_ACK : WEFT_T_REQ);
    if (s->kind == KIND_NAMED) {
        s->named = (uint16_t)(1 + below(t.world.count));
        req->h.target = s->named;
    }
    if (s->kind != KIND_NO_COOKIE) {
        struct in6_addr addr = addr_of(&from);
        req->first.cookie = seal_cookie(&t.core->seal, &addr, from.port_be, s->record->conn_id);
    }
    finish(i, &from, sizeof(*req));
    if (s->kind == KIND_STRAY) {
        uint16_t port = htons((uint16_t)(PORT_DATA + 1 + below(100)));
        uint32_t addr = htonl(0x0a500001u + below(1000));
        switch (below(4)) {
        case 0:
            packet_set(&t.frames[i], &t.frames[i].udp.dst_port, &port, sizeof(port));
            break;
        case 1:
            packet_set(&t.frames[i],
                       from.addr != 0 ? (void *)&t.frames[i].ip.dst
                                      : (void *)(t.frames[i].ip6.dst.s6_addr + 12),
                       &addr, sizeof(addr));
            break;
        case 2:
            t.packets[i].len = below(t.packets[i].len); /* cut off */
            break;
        default:
            t.frames[i].weft.bytes[0] ^= 0x40; /* another version */
            break;
        }
    }
}

/* Where a member is, or where one has been. */
static struct route_host somewhere(struct shot *s)
{
    struct churn_member *m = &t.world.members[1 + below(t.world.count - 1)];
    struct in6_addr addr = m->node.addr;
    struct in6_addr retired = t.world.retired[below(CHURN_RETIRED)];
    if (!churn_none(&retired) && below(8) == 0) {
        addr = retired;
    }
    s->from_member = churn_by_addr(&t.world, addr) != NULL;
    return fixture_host(addr, PORT_DATA);
}

static void make_relayed(uint32_t i)
{
    struct shot *s = &t.shots[i];
    struct route_host from = somewhere(s);
    struct weft_req *req = &t.frames[i].weft.req;
    begin_request(&t.frames[i], s->record, WEFT_T_REQ);
    s->forged = below(16) == 0;
    s->named = (uint16_t)(2 + below(t.world.count - 1));
    req->h.flags = WEFT_F_RELAYED;
    req->h.hops_left = (uint8_t)below(WEFT_HOPS_MAX);
    req->h.origin = s->named;
    req->h.target = (uint16_t)(s->forged ? 2 : 1);
    req->h.alt1 = (uint16_t)(below(3) != 0 ? 1 + below(t.world.count) : WEFT_NODE_NONE);
    req->h.alt2 = (uint16_t)(below(3) != 0 ? 1 + below(t.world.count) : WEFT_NODE_NONE);
    memset(&req->ret, 0x77, sizeof(req->ret));
    finish(i, &from, sizeof(*req));
}

static void begin_reply(uint32_t i, uint16_t server, uint16_t origin, const struct weft_return *ret,
                        uint64_t conn_id)
{
    struct weft_rsp rsp = {
        .h =
            {
                .ver_fmt = WEFT_VER_FMT,
                .type = WEFT_T_RESP,
                .flags = WEFT_F_RELAYED,
                .hdr_words = WEFT_RSP_WORDS,
                .conn_id = conn_id,
                .req_seq = 1,
                .room = 60000,
                .free_vram_64mib = 128,
                .origin = origin,
                .server = server,
            },
        .ret = *ret,
    };
    memcpy(t.frames[i].weft.bytes, &rsp, sizeof(rsp));
}

static void make_reply(uint32_t i)
{
    struct shot *s = &t.shots[i];
    struct route_host from = somewhere(s);
    const struct churn_member *m = churn_by_addr(&t.world, addr_of(&from));
    begin_reply(i, m != NULL ? m->node.id : 2, 1, &s->record->ret, s->record->conn_id);
    s->forged = s->record->target == 0 || below(8) == 0;
    t.frames[i].weft.rsp.ret.tag ^= s->forged;
    finish(i, &from, sizeof(struct weft_rsp));
}

/* False: nothing was delivered lately. */
static bool make_worker(uint32_t i)
{
    struct shot *s = &t.shots[i];
    struct weft_req *req = &t.delivered[below(DELIVERED)];
    if (req->h.conn_id == 0) {
        return false;
    }
    struct route_host self = t.core->host;
    begin_reply(i, 1, req->h.origin, &req->ret, req->h.conn_id);
    s->named = req->h.origin;
    finish(i, &self, sizeof(struct weft_rsp));
    return true;
}

static void make_shot(uint32_t i)
{
    static const enum kind mix[16] = {
        KIND_REQUEST, KIND_REQUEST, KIND_REQUEST, KIND_REQUEST,   KIND_REQUEST, KIND_REQUEST,
        KIND_NAMED,   KIND_ACK,     KIND_ACK,     KIND_RELAYED,   KIND_RELAYED, KIND_REPLY,
        KIND_REPLY,   KIND_WORKER,  KIND_STRAY,   KIND_NO_COOKIE,
    };
    struct shot *s = &t.shots[i];
    struct record *r = &t.records[below(RECORDS)];
    *s = (struct shot){.kind = mix[below(16)], .record = r};
    if (r->conn_id == 0 || (s->kind == KIND_REQUEST && below(4) == 0)) {
        for (uint32_t k = 0; k < i; k++) {
            if (t.shots[k].record == r) {
                r = s->record = &t.records[below(RECORDS)]; /* in use in this burst */
                k = UINT32_MAX;
            }
        }
        record_renew(r);
    }
    if (s->kind == KIND_WORKER && !make_worker(i)) {
        s->kind = KIND_NO_COOKIE;
    }
    if (s->kind == KIND_RELAYED) {
        make_relayed(i);
    } else if (s->kind == KIND_REPLY) {
        make_reply(i);
    } else if (s->kind != KIND_WORKER) {
        make_client(i);
    }
    t.kinds[s->kind]++;
}

/* ---- checking ---- */

/* Like ck_assert(), which however writes to a file each time: too slow for millions. */
#define expect_msg(what, ...)                                                                      \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            ck_abort_msg(__VA_ARGS__);                                                             \
        }                                                                                          \
    } while (0)
#define expect(what) expect_msg(what, "not so: %s", #what)

static uint64_t drops_now(void)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < ROUTE_DROP_COUNT; i++) {
        sum += atomic_load(&t.core->counters.drops[i]);
    }
    return sum;
}

static bool ipv4_checksum_ok(const struct route_ipv4 *ip)
{
    uint16_t words[10];
    uint32_t sum = 0;
    memcpy(words, ip, sizeof(words));
    for (int i = 0; i < 10; i++) {
        sum += words[i];
    }
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16) == 0xffff;
}

/* What holds for every frame that leaves. */
static void check_sent(const struct route_packet *p, const struct shot *s)
{
    const struct route_frame *f = p->frame;
    expect(p->weft_len <= s->weft_len);
    expect(p->start + p->len == ROUTE_WEFT_OFFSET + p->weft_len);
    expect(f->udp.checksum != 0);
    expect(packet_udp_ok(p));
    if (packet_is_ip6(p)) {
        expect(p->start == ROUTE_START_IPV6);
        expect(packet_ether(p)->type == htons(ROUTE_ETHER_TYPE_IPV6));
        expect(ntohs(f->ip6.payload_len) == sizeof(f->udp) + p->weft_len);
        expect(comes_from(p, t.core->host.addr6));
    } else {
        expect(p->start == ROUTE_START_IPV4);
        expect(packet_ether(p)->type == htons(ROUTE_ETHER_TYPE_IPV4));
        expect(ntohs(f->ip.total_len) + sizeof(struct route_ether) == p->len);
        expect(ipv4_checksum_ok(&f->ip));
        expect(f->ip.src == t.core->host.addr);
    }
    expect(f->udp.src_port == t.core->host.port_be);
    expect(memcmp(packet_ether(p)->src, t.core->host.mac, 6) == 0);
    if (p->to == ROUTE_TO_NODE) {
        const struct churn_member *m = churn_by_addr(&t.world, packet_destination(p));
        expect_msg(m != NULL, "sent to an address that no member has now");
        expect(memcmp(packet_ether(p)->dst, m->node.mac, 6) == 0);
        expect(f->udp.dst_port == t.core->host.port_be);
        expect(m->node.reachable);
    }
}

static void check_payload(const struct route_packet *p, const struct shot *s)
{
    const uint8_t *payload = p->frame->weft.bytes + s->header;
    expect(p->weft_len == s->weft_len);
    expect(payload[0] == 0x5a);
    expect(payload[s->payload - 1] == s->last_byte);
}

static void check_to_client(const struct route_packet *p, const struct shot *s, unsigned type)
{
    struct route_host client = client_host(s->record->client);
    expect(p->action == ROUTE_SEND);
    expect(p->to != ROUTE_TO_NODE);
    expect(p->frame->weft.common.type == type);
    expect(p->frame->weft.common.conn_id == s->record->conn_id);
    expect(goes_to(p, addr_of(&client)));
    expect(p->frame->udp.dst_port == client.port_be);
    expect(memcmp(packet_ether(p)->dst, client.mac, 6) == 0);
}

/* The packet went where its header now says, or was let go of because the neighbour is unknown. */
static void check_placed(const struct route_packet *p, const struct shot *s)
{
    const struct weft_req *req = &p->frame->weft.req;
    const struct churn_member *m = churn_by_id(&t.world, req->h.target);
    expect_msg(m != NULL, "placed on node %u, which is no member now", req->h.target);
    expect_msg(m->node.alive, "placed on a node that is not alive");
    check_payload(p, s);
    if (p->action == ROUTE_LET_GO && s->passed_on) {
        return; /* counted by its own reason */
    }
    if (p->action == ROUTE_LET_GO) {
        expect(m == &t.world.members[CHURN_SELF] || !m->node.reachable);
    } else {
        expect(goes_to(p, m->node.addr));
    }
}

static void check_request(const struct route_packet *p, const struct shot *s)
{
    struct record *r = s->record;
    const struct weft_req *req = &p->frame->weft.req;
    const struct churn_member *before = churn_by_id(&t.world, r->target);
    bool steady = before != NULL && before->generation == r->generation && before->node.alive;
    if ((req->h.type & WEFT_TYPE_DOWN) != 0) {
        check_to_client(p, s, WEFT_T_REJECT);
        expect_msg(s->passed_on || !churn_any_capable(&t.world, &r->filter),
                   "refused, yet a node could serve");
        t.refused++;
        return;
    }
    check_placed(p, s);
    const struct churn_member *m = churn_by_id(&t.world, req->h.target);
    expect_msg(churn_capable(m, &r->filter), "node %u does not meet the request's filters",
               req->h.target);
    expect(req->h.route_epoch == t.table->epoch);
    expect(req->h.origin == 1);
    if (s->passed_on) {
        return; /* its pin stays what it was */
    }
    t.repeated += steady;
    t.moved += steady && req->h.target != r->target;
    t.placed++;
    r->target = req->h.target;
    r->generation = m->generation;
    r->ret = req->ret;
}

static void check_named(const struct route_packet *p, const struct shot *s)
{
    const struct churn_member *m = churn_by_id(&t.world, s->named);
    if (m == NULL || !m->node.alive) {
        check_to_client(p, s, WEFT_T_UNKNOWN);
    } else if (s->passed_on || !churn_capable(m, &s->record->filter)) {
        check_to_client(p, s, WEFT_T_REJECT);
    } else {
        check_placed(p, s);
        expect(p->frame->weft.req.h.target == s->named);
    }
}

/* Follows its request, or the client is told that there is none. */
static void check_ack(const struct route_packet *p, const struct shot *s)
{
    if ((p->frame->weft.common.type & WEFT_TYPE_DOWN) != 0) {
        check_to_client(p, s, WEFT_T_UNKNOWN);
    } else {
        check_placed(p, s);
    }
}

static void check_relayed(const struct route_packet *p, const struct shot *s)
{
    const struct churn_member *origin = churn_by_id(&t.world, s->named);
    if (!s->from_member || s->forged) {
        expect(p->action == ROUTE_LET_GO);
    } else if (!s->passed_on) {
        expect(p->action == ROUTE_LET_GO); /* delivered */
    } else if ((p->frame->weft.common.type & WEFT_TYPE_DOWN) == 0) {
        if (p->action == ROUTE_SEND) {
            check_placed(p, s);
            expect(p->frame->weft.req.h.target != 1);
        }
    } else if (p->action == ROUTE_SEND) { /* refused, through the origin */
        expect(origin != NULL);
        expect(p->frame->weft.common.type == WEFT_T_REJECT);
        expect(goes_to(p, origin->node.addr));
    }
    if (s->passed_on && p->action == ROUTE_LET_GO) {
        const struct churn_member *next = churn_by_id(&t.world, p->frame->weft.req.h.target);
        expect(origin == NULL || !origin->node.reachable ||
               (next != NULL && !next->node.reachable));
    }
}

static void check_reply(const struct route_packet *p, const struct shot *s)
{
    if (!s->from_member || s->forged) {
        expect(p->action == ROUTE_LET_GO);
        return;
    }
    check_to_client(p, s, WEFT_T_RESP);
    check_payload(p, s);
}

static void check_worker(const struct route_packet *p, const struct shot *s)
{
    const struct churn_member *origin = churn_by_id(&t.world, s->named);
    if (p->action == ROUTE_LET_GO) {
        expect(origin == NULL || !origin->node.reachable);
        return;
    }
    expect(origin != NULL);
    check_payload(p, s);
    if (origin != &t.world.members[CHURN_SELF]) {
        expect(goes_to(p, origin->node.addr));
    }
}

static void check_shot(uint32_t i)
{
    const struct route_packet *p = &t.packets[i];
    const struct shot *s = &t.shots[i];
    expect(p->action == ROUTE_SEND || p->action == ROUTE_LET_GO);
    if (p->action == ROUTE_SEND) {
        check_sent(p, s);
        *(p->to == ROUTE_TO_NODE ? &t.relayed : &t.returned) += 1;
    }
    switch (s->kind) {
    case KIND_REQUEST:
        check_request(p, s);
        break;
    case KIND_NAMED:
        check_named(p, s);
        break;
    case KIND_ACK:
        check_ack(p, s);
        break;
    case KIND_NO_COOKIE:
        check_to_client(p, s, WEFT_T_COOKIE);
        break;
    case KIND_RELAYED:
        check_relayed(p, s);
        break;
    case KIND_REPLY:
        check_reply(p, s);
        break;
    case KIND_WORKER:
        check_worker(p, s);
        break;
    default:
        expect(p->action == ROUTE_LET_GO);
        break;
    }
}

/* ---- running ---- */

/* The local worker takes what is for it, or is full. */
static void deliver(uint32_t i)
{
    struct route_packet *p = &t.packets[i];
    struct shot *s = &t.shots[i];
    if (below(4) == 0) {
        uint64_t before = drops_now();
        bool request = p->frame->weft.common.type == WEFT_T_REQ;
        stage_second_chance(t.core, t.table, p,
                            request ? ROUTE_DROP_refused : ROUTE_DROP_unknown_request,
                            request ? WEFT_E_MESH_FULL : WEFT_OK);
        s->passed_on = true;
        /* Sent on: no reason. Refused: one. Refused, but nobody to tell: two. */
        uint64_t reasons = drops_now() - before;
        expect(reasons == (p->action == ROUTE_LET_GO ? 2u : p->own ? 1u : 0u));
        t.drops += reasons;
        return;
    }
    t.delivered[below(DELIVERED)] = p->frame->weft.req;
    t.delivered_count++;
    p->action = ROUTE_LET_GO;
}

/* Counts a reason each for packets let go of and for answers made. */
static void expect_drops(uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++) {
        const struct route_packet *p = &t.packets[i];
        t.drops += p->action == ROUTE_LET_GO;
        t.drops += p->own && !p->from_worker;
    }
}

/* All stages over one burst in the order of the core's loop; worker's datagrams at its end. */
static void run_burst(void)
{
    uint32_t net = 0;
    bool was_sent[BURST];
    for (uint32_t i = 0; i < BURST; i++) {
        make_shot(i);
    }
    while (net < BURST && t.shots[net].kind != KIND_WORKER) {
        net++;
    }
    for (uint32_t i = net; i < BURST; i++) { /* the ring's share of the burst is one stretch */
        if (t.shots[i].kind != KIND_WORKER) {
            struct shot shot = t.shots[i];
            struct route_packet packet = t.packets[i];
            t.shots[i] = t.shots[net];
            t.packets[i] = t.packets[net];
            t.shots[net] = shot;
            t.packets[net++] = packet;
        }
    }
    stage_parse(t.core, t.packets, net);
    stage_parse_worker(t.core, t.packets + net, BURST - net);
    stage_classify(t.core, t.table, t.packets, BURST, t.now_ns);
    stage_select(t.core, t.table, t.packets, BURST, t.now_ns);
    t.received += net;
    expect_drops(0, BURST);
    for (uint32_t i = 0; i < BURST; i++) {
        expect(t.packets[i].action != ROUTE_UNDECIDED);
        if (t.packets[i].action == ROUTE_DELIVER) {
            deliver(i);
        }
        was_sent[i] = t.packets[i].action == ROUTE_SEND;
    }
    stage_rewrite(t.core, t.table, t.packets, BURST);
    for (uint32_t i = 0; i < BURST; i++) {
        t.drops += was_sent[i] && t.packets[i].action == ROUTE_LET_GO;
        check_shot(i);
    }
}

static void check_counters(void)
{
    const struct route_counters *c = &t.core->counters;
    expect(c->received == t.received);
    expect(c->relayed == t.relayed);
    expect(c->returned == t.returned);
    expect(drops_now() == t.drops);
}

static void swap_table(uint32_t changes)
{
    for (uint32_t i = 0; i < changes; i++) {
        churn_once(&t.world);
    }
    struct route_table *old = t.table;
    t.table = churn_table(&t.world, t.now_ns);
    expect(t.table != NULL);
    route_table_destroy(old);
    t.swaps++;
}

static void run_churn(uint32_t members, uint64_t packets, uint32_t bursts_per_table, uint64_t seed)
{
    memset(&t, 0, sizeof(t));
    t.rng.state = seed;
    t.now_ns = 1;
    churn_init(&t.world, members, seed);
    t.core = fixture_core(1);
    t.table = churn_table(&t.world, t.now_ns);
    uint16_t first_epoch = t.table->epoch;
    for (uint64_t burst = 0; burst * BURST < packets; burst++) {
        if (burst % bursts_per_table == 0) {
            swap_table(1 + below(3));
        }
        seal_tick(&t.core->seal, t.now_ns);
        run_burst();
        check_counters();
        t.now_ns += STEP_NS;
    }
    for (int kind = 0; kind < KIND_COUNT; kind++) {
        ck_assert_uint_gt(t.kinds[kind], packets / 100);
    }
    ck_assert_uint_gt(t.placed, packets / 8);
    ck_assert_uint_gt(t.refused, 0);
    ck_assert_msg(t.moved * 100 <= t.repeated * STEADY_PERCENT, "%lu of %lu repetitions moved",
                  (unsigned long)t.moved, (unsigned long)t.repeated);
    printf("churn: %u members, %lu packets, %lu tables (epochs %u to %u), %lu placed, "
           "%lu repeated, %lu moved, %lu refused, %lu delivered\n",
           members, (unsigned long)packets, (unsigned long)t.swaps, first_epoch, t.table->epoch,
           (unsigned long)t.placed, (unsigned long)t.repeated, (unsigned long)t.moved,
           (unsigned long)t.refused, (unsigned long)t.delivered_count);
    route_table_destroy(t.table);
    route_core_destroy(t.core);
}

static uint64_t packets_wanted(void)
{
    const char *text = getenv("WEFT_CHURN_PACKETS");
    uint64_t packets = text != NULL ? strtoull(text, NULL, 10) : 0;
    return packets != 0 ? packets : PACKETS_DEFAULT;
}

START_TEST(few_members_come_and_go)
{
    run_churn(24, packets_wanted() * 3 / 4, 8, 1);
}
END_TEST

/* Enough for the rows of precomputed candidates. */
START_TEST(many_members_come_and_go)
{
    run_churn(CHURN_MEMBERS_MAX, packets_wanted() / 4, 16, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("churn");
    TCase *tc = tcase_create("churn");
    tcase_set_timeout(tc, 3600);
    tcase_add_test(tc, few_members_come_and_go);
    tcase_add_test(tc, many_members_come_and_go);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
