/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.h - three nodes, one core and frames by hand, for the tests of the stages. */
#pragma once

#include <arpa/inet.h>
#include <string.h>

#include "dataplane/route/stages.h"

#define MODEL_A     1000u
#define PORT_DATA   7400u
#define CLIENT_PORT 40000u
#define CONN        UINT64_C(0x1122334455667788)

/* Which family the nodes speak among themselves, and which the client. Every node has both. */
static bool fixture_ip6_nodes, fixture_ip6_client;

static inline struct in6_addr fixture_addr(uint16_t host, bool ip6)
{
    struct in6_addr addr = {
        .s6_addr = {0x20, 0x01, 0x0d, 0xb8, [14] = (uint8_t)(host >> 8), [15] = (uint8_t)host}};
    return ip6 ? addr : addr_of_v4(htonl(0x0a4d0000u | host));
}

static inline struct in6_addr node_addr(uint16_t id)
{
    return fixture_addr(id, fixture_ip6_nodes);
}

static inline struct in6_addr client_addr(void)
{
    return fixture_addr(0xc8, fixture_ip6_client);
}

/* A host with one address. */
static inline struct route_host fixture_host(struct in6_addr addr, uint16_t port)
{
    struct route_host host = {.port_be = htons(port)};
    if (addr_is_v4(&addr)) {
        host.addr = addr_v4(&addr);
    } else {
        host.addr6 = addr;
    }
    return host;
}

static inline bool goes_to(const struct route_packet *p, struct in6_addr addr)
{
    struct in6_addr to = packet_destination(p);
    return addr_equal(&to, &addr);
}

static inline bool comes_from(const struct route_packet *p, struct in6_addr addr)
{
    struct in6_addr from = packet_source(p);
    return addr_equal(&from, &addr);
}

static inline struct route_node fixture_node(uint16_t id, double lat, double lon, uint8_t tier)
{
    return (struct route_node){
        .id = id,
        .tier = tier,
        .alive = true,
        .reachable = true,
        .mac = {2, 0, 0, 0, 0, (uint8_t)id},
        .x = weft_cell_x(lon),
        .y = weft_cell_y(lat),
        .addr = node_addr(id),
        .at = geo_point_at(lat, lon),
        .load_ns = 1,
        .room = 4,
        .free_vram_64mib = 128,
        .rtt_us = 2000,
        .prefill_per_second = 1000,
        .decode_per_second = 100,
        .model_count = id == 1 ? 0 : 1, /* Tokyo has no worker */
        .models = {MODEL_A},
    };
}

/* Tokyo (1, no worker), Frankfurt (2), New York (3), seen from `self_id`. */
static inline struct route_table *fixture_table(uint16_t self_id)
{
    struct route_node nodes[3] = {
        fixture_node(1, 35.68, 139.69, 1),
        fixture_node(2, 50.11, 8.68, 3),
        fixture_node(3, 40.71, -74.01, 5),
    };
    struct route_table *table = NULL;
    (void)route_table_create(&table, nodes, 3, self_id, 7, false);
    return table;
}

static inline struct route_core *fixture_core(uint16_t self_id)
{
    struct in6_addr four = fixture_addr(self_id, false);
    struct route_host host = {
        .mac = {2, 0, 0, 0, 0, (uint8_t)self_id},
        .port_be = htons(PORT_DATA),
        .addr = addr_v4(&four),
        .addr6 = fixture_addr(self_id, true),
    };
    struct route_core *core = NULL;
    static const struct seal_master master = {{1, 2, 3}}; /* tests are repeatable */
    (void)route_core_create(&core, &host, &master, 1);
    return core;
}

/* A frame from the client to node `to`, request header filled in, `payload` bytes behind it. */
static inline void fixture_request(struct route_packet *p, struct route_frame *f, uint16_t to,
                                   uint32_t payload)
{
    struct route_host client = fixture_host(client_addr(), CLIENT_PORT);
    client.mac[0] = 2;
    client.mac[5] = 0xc8;
    struct route_hop hop = {
        .mac = {2, 0, 0, 0, 0, (uint8_t)to},
        .port_be = htons(PORT_DATA),
        .addr = fixture_addr(to, fixture_ip6_client),
    };
    memset(f, 0, sizeof(*f));
    struct weft_req *req = &f->weft.req;
    req->h.ver_fmt = WEFT_VER_FMT;
    req->h.type = WEFT_T_REQ;
    req->h.flags = WEFT_F_FIRST | WEFT_F_LAST;
    req->h.hdr_words = WEFT_REQ_WORDS;
    req->h.conn_id = CONN;
    req->h.req_seq = 1;
    req->h.msg_len = payload;
    req->h.model = MODEL_A;
    req->h.budget_us = WEFT_BUDGET_NONE;
    req->h.tiers = WEFT_TIER_MAX;
    req->h.want = WEFT_WANT_POSITION;
    req->h.x = weft_cell_x(8.0);
    req->h.y = weft_cell_y(50.0);
    req->h.origin = req->h.target = req->h.alt1 = req->h.alt2 = WEFT_NODE_NONE;
    for (uint32_t i = 0; i < payload; i++) {
        f->weft.bytes[sizeof(*req) + i] = (uint8_t)i;
    }
    *p = (struct route_packet){.frame = f, .weft_len = (uint16_t)(sizeof(*req) + payload)};
    packet_compose(p, &client, &hop);
}

/* Gives the request a valid cookie. */
static inline void fixture_cookie(const struct route_core *core, const struct route_packet *p)
{
    struct route_frame *f = p->frame;
    struct in6_addr from = packet_source(p);
    uint64_t cookie = seal_cookie(&core->seal, &from, f->udp.src_port, f->weft.req.h.conn_id);
    packet_set(f, &f->weft.req.first.cookie, &cookie, sizeof(cookie));
}

/* The sum of an IPv4 header that a test has changed, right again. */
static inline void fixture_end_ip(struct route_packet *p)
{
    struct route_ipv4 *ip = &p->frame->ip;
    uint8_t bytes[sizeof(*ip)];
    uint32_t sum = 0;
    if (packet_is_ip6(p)) {
        return;
    }
    ip->checksum = 0;
    memcpy(bytes, ip, sizeof(bytes));
    for (uint32_t i = 0; i < sizeof(bytes); i += 2) {
        sum += (uint32_t)bytes[i] << 8 | bytes[i + 1];
    }
    sum = (sum & 0xffffu) + (sum >> 16);
    ip->checksum = htons((uint16_t) ~((sum & 0xffffu) + (sum >> 16)));
}

/* All stages over one packet, as the core does them; delivery is left to the caller. */
static inline void run_stages(struct route_core *core, const struct route_table *table,
                              struct route_packet *p, uint64_t now_ns)
{
    if (p->from_worker) {
        stage_parse_worker(core, p, 1);
    } else {
        stage_parse(core, p, 1);
    }
    stage_classify(core, table, p, 1, now_ns);
    stage_select(core, table, p, 1, now_ns);
    stage_rewrite(core, table, p, 1);
}

/* The frame as it arrives at the next host. */
static inline void arrive(struct route_packet *to, const struct route_packet *from,
                          struct route_frame *f)
{
    memcpy(f, from->frame, from->start + from->len);
    *to = (struct route_packet){.frame = f, .start = from->start, .len = from->len};
}

/* A reply of the worker at node `server`, echoing what `request` (as delivered) carried. */
static inline void fixture_reply(struct route_packet *p, struct route_frame *f,
                                 const struct weft_req *request, uint16_t server, uint8_t type)
{
    memset(f, 0, sizeof(*f));
    f->weft.rsp.h.ver_fmt = WEFT_VER_FMT;
    f->weft.rsp.h.type = type;
    f->weft.rsp.h.flags = WEFT_F_RELAYED;
    f->weft.rsp.h.hdr_words = WEFT_RSP_WORDS;
    f->weft.rsp.h.conn_id = request->h.conn_id;
    f->weft.rsp.h.req_seq = request->h.req_seq;
    f->weft.rsp.h.room = 3;
    f->weft.rsp.h.free_vram_64mib = 9;
    f->weft.rsp.h.queue_us = 77;
    f->weft.rsp.h.origin = request->h.origin;
    f->weft.rsp.h.server = server;
    f->weft.rsp.ret = request->ret;
    memcpy(f->weft.bytes + sizeof(struct weft_rsp), "hello", 5);
    *p = (struct route_packet){
        .frame = f,
        .weft_len = sizeof(struct weft_rsp) + 5,
        .from_worker = true,
        .own = true,
    };
}
