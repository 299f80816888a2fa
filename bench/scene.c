/* SPDX-License-Identifier: Apache-2.0 */
/* scene.c - see scene.h. */
#include "bench/scene.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/route/fixture.h"

const char *scene_kind_name(enum scene_kind kind)
{
    static const char *const names[SCENE_KINDS] = {
        [SCENE_NEW] = "new request",
        [SCENE_HERE] = "new request, node's own place",
        [SCENE_SESSION] = "new request of a session",
        [SCENE_PINNED] = "later datagram, pinned",
        [SCENE_COOKIE] = "unproven client, cookie",
        [SCENE_REPLY] = "reply through the ingress",
    };
    return kind < SCENE_KINDS ? names[kind] : "?";
}

struct route_table *scene_table(struct rng *rng, uint32_t count)
{
    struct route_node *nodes = calloc(count, sizeof(*nodes));
    struct route_table *table = NULL;
    for (uint32_t i = 0; nodes != NULL && i < count; i++) {
        double lat = rng_unit(rng) * 140 - 60;
        double lon = rng_unit(rng) * 360 - 180;
        nodes[i] = fixture_node((uint16_t)(i + 1), lat, lon, (uint8_t)rng_below(rng, 8));
        nodes[i].model_count = i == 0 ? 0 : 1;
        nodes[i].models[0] = MODEL_A;
        nodes[i].room = UINT16_MAX;
        nodes[i].rtt_us = 1000 + rng_below(rng, 100000);
        nodes[i].queue_us = rng_below(rng, 20000);
    }
    if (nodes != NULL) {
        (void)route_table_create(&table, nodes, count, 1, 1, false);
    }
    free(nodes);
    return table;
}

/* A request of client `i`, at a place of its own. */
static uint32_t make_request(struct scene *s, struct rng *rng, uint32_t i, uint32_t payload)
{
    struct route_frame *f = &s->templates[i];
    struct route_packet p;
    fixture_request(&p, f, 1, payload);
    uint16_t port_be = htons((uint16_t)(CLIENT_PORT + i));
    uint64_t conn_id = rng_next(rng);
    uint16_t place[2] = {(uint16_t)rng_next(rng), (uint16_t)(rng_next(rng) & 0x7fff)};
    packet_set(f, &f->udp.src_port, &port_be, sizeof(port_be));
    packet_set(f, &f->weft.req.h.conn_id, &conn_id, sizeof(conn_id));
    packet_set(f, &f->weft.req.h.x, &place[0], sizeof(place[0]));
    packet_set(f, &f->weft.req.h.y, &place[1], sizeof(place[1]));
    if (s->kind == SCENE_HERE) {
        uint8_t want = f->weft.req.h.want & (uint8_t)~WEFT_WANT_POSITION;
        packet_set_u8(f, &f->weft.req.h.want, want);
    }
    if (s->kind == SCENE_SESSION) {
        uint32_t session = (uint32_t)conn_id | 1u;
        packet_set(f, &f->weft.req.h.session, &session, sizeof(session));
    }
    if (s->kind != SCENE_COOKIE) {
        fixture_cookie(s->core, &p);
    }
    s->start = p.start;
    s->head_len = ROUTE_WEFT_OFFSET - p.start + (uint32_t)sizeof(struct weft_req);
    return p.len;
}

/* A reply of node 2 + i % candidates to client `i`, with the return block that this node gave. */
static uint32_t make_reply(struct scene *s, struct rng *rng, uint32_t i, uint32_t payload)
{
    struct route_frame *f = &s->templates[i];
    struct route_packet p;
    uint16_t server = (uint16_t)(2 + i % (s->table->node_count - 1));
    struct weft_req request = {.h = {.conn_id = rng_next(rng), .req_seq = i, .origin = 1}};
    struct route_host from = fixture_host(node_addr(server), PORT_DATA);
    struct route_hop to = {.addr = node_addr(1), .port_be = htons(PORT_DATA)};
    struct in6_addr addr = client_addr();
    memcpy(request.ret.addr, &addr, sizeof(addr));
    request.ret.port = (uint16_t)(CLIENT_PORT + i);
    seal_return(&s->core->seal, &request.ret, request.h.conn_id);
    fixture_reply(&p, f, &request, server, WEFT_T_RESP);
    f->weft.rsp.h.room = UINT16_MAX;
    p.weft_len = (uint16_t)(sizeof(struct weft_rsp) + payload);
    packet_compose(&p, &from, &to);
    s->start = p.start;
    s->head_len = ROUTE_WEFT_OFFSET - p.start + (uint32_t)sizeof(struct weft_rsp);
    return p.len;
}

void scene_use_ip6(bool ip6)
{
    fixture_ip6_nodes = fixture_ip6_client = ip6;
}

int scene_create(struct scene **out, enum scene_kind kind, uint32_t candidates, uint32_t payload,
                 uint64_t seed, uint64_t now_ns)
{
    struct rng rng = {.state = seed};
    struct scene *s = calloc(1, sizeof(*s));
    *out = NULL;
    if (s == NULL) {
        return -ENOMEM;
    }
    s->kind = kind;
    s->now_ns = now_ns;
    s->core = fixture_core(1);
    s->table = scene_table(&rng, candidates + 1);
    if (s->core == NULL || s->table == NULL) {
        scene_destroy(s);
        return -ENOMEM;
    }
    seal_tick(&s->core->seal, now_ns);
    for (uint32_t i = 0; i < SCENE_TEMPLATES; i++) {
        s->frame_len = kind == SCENE_REPLY ? make_reply(s, &rng, i, payload)
                                           : make_request(s, &rng, i, payload);
    }
    *out = s;
    return 0;
}

void scene_destroy(struct scene *s)
{
    if (s != NULL) {
        route_core_destroy(s->core);
        route_table_destroy(s->table);
        free(s);
    }
}

/* New requests have numbers of their own, or a pin would fit. */
static inline void fill(struct scene *s, uint8_t *data, uint32_t size)
{
    const struct route_frame *template = &s->templates[s->next++ % SCENE_TEMPLATES];
    memcpy(data, (const uint8_t *)template + s->start, size);
    if (s->kind == SCENE_NEW || s->kind == SCENE_HERE || s->kind == SCENE_SESSION) {
        struct route_frame *f = (struct route_frame *)(void *)(data - s->start);
        uint32_t seq = s->req_seq++;
        packet_set(f, &f->weft.req.h.req_seq, &seq, sizeof(seq));
    }
}

void scene_fill_whole(struct scene *s, void *data)
{
    fill(s, data, s->frame_len);
}

void scene_fill(struct scene *s, void *data)
{
    fill(s, data, s->head_len);
}

void scene_run(struct scene *s, struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    stage_parse(s->core, packets, count);
    stage_classify(s->core, s->table, packets, count, now_ns);
    stage_select(s->core, s->table, packets, count, now_ns);
    stage_rewrite(s->core, s->table, packets, count);
    seal_tick(&s->core->seal, now_ns);
}

void scene_refresh(struct scene *s)
{
    for (uint32_t i = 0; i < s->table->node_count; i++) {
        s->core->loads[s->table->nodes[i].id] = (struct route_load){.heard_ns = 0};
    }
}
