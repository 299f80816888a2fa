/* SPDX-License-Identifier: Apache-2.0 */
/* stages.c - see stages.h. Read the four stage_* functions first. */
#include "dataplane/route/stages.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#define NODE_IDS 65536u

int route_core_create(struct route_core **out, const struct route_host *host,
                      const struct seal_master *master, uint64_t now_ns)
{
    *out = NULL;
    struct route_core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        return -ENOMEM;
    }
    core->host = *host;
    core->loads = calloc(NODE_IDS, sizeof(*core->loads));
    core->pins = calloc(ROUTE_PINS, sizeof(*core->pins));
    core->scan = aligned_alloc(_Alignof(struct scan), sizeof(*core->scan));
    if (core->loads == NULL || core->pins == NULL || core->scan == NULL) {
        route_core_destroy(core);
        return -ENOMEM;
    }
    seal_init(&core->seal, master, now_ns);
    *out = core;
    return 0;
}

void route_core_destroy(struct route_core *core)
{
    if (core != NULL) {
        free(core->loads);
        free(core->pins);
        free(core->scan);
        free(core);
    }
}

/* Counts a reason: of letting go, or of an answer instead of what was asked for. */
static void note_why(struct route_core *core, struct route_packet *p, enum route_drop why)
{
    p->why = (uint8_t)(why + 1);
    route_count(&core->counters.drops[why]);
}

void route_drop(struct route_core *core, struct route_packet *p, enum route_drop why)
{
    p->action = ROUTE_LET_GO;
    note_why(core, p, why);
}

struct route_query route_query_of(const struct weft_req_hdr *h)
{
    uint64_t lot = (h->conn_id ^ h->req_seq) * UINT64_C(0x9e3779b97f4a7c15);
    return (struct route_query){
        .lot = (uint32_t)(lot >> 32),
        .model = h->model,
        .tags = h->req_tags,
        .budget_us = h->budget_us,
        .prompt_bytes = h->msg_len,
        .max_tokens = h->max_tokens,
        .vram_64mib = h->vram_64mib,
        .radius_km = h->radius_km,
        .x = h->x,
        .y = h->y,
        .tier_min = h->tiers >> 4,
        .tier_max = h->tiers & 0x0f,
        .has_position = (h->want & WEFT_WANT_POSITION) != 0,
        .end_to_end = (h->want & WEFT_WANT_E2E) != 0,
    };
}

/* ---- parse ---- */

/* Is the datagram one of this protocol's, towards the worker, and sound in itself? */
static enum route_drop check_request(const struct weft_req *req, uint32_t weft_len)
{
    uint32_t header = req->h.hdr_words * 4u;
    if (req->h.hdr_words < WEFT_REQ_WORDS || header > weft_len) {
        return ROUTE_DROP_truncated;
    }
    uint32_t payload = weft_len - header;
    uint8_t tier_min = req->h.tiers >> 4;
    uint8_t tier_max = req->h.tiers & 0x0f;
    if (tier_min > tier_max || tier_max > WEFT_TIER_MAX || req->h.conn_id == 0) {
        return ROUTE_DROP_bad_header;
    }
    switch (req->h.type) {
    case WEFT_T_REQ:
        if (payload == 0 || req->h.msg_len > WEFT_MESSAGE_MAX || req->h.offset > req->h.msg_len ||
            payload > req->h.msg_len - req->h.offset) {
            return ROUTE_DROP_bad_length;
        }
        return ROUTE_DROP_COUNT;
    case WEFT_T_ACK:
        return payload >= sizeof(struct weft_ack) ? ROUTE_DROP_COUNT : ROUTE_DROP_bad_length;
    case WEFT_T_RESEND:
        return payload >= sizeof(struct weft_range) ? ROUTE_DROP_COUNT : ROUTE_DROP_bad_length;
    case WEFT_T_CANCEL:
        return ROUTE_DROP_COUNT;
    default:
        return ROUTE_DROP_bad_type;
    }
}

static enum route_drop check_reply(const struct weft_rsp *rsp, uint32_t weft_len)
{
    uint32_t header = rsp->h.hdr_words * 4u;
    if (rsp->h.hdr_words < WEFT_RSP_WORDS || header > weft_len) {
        return ROUTE_DROP_truncated;
    }
    /* Cookies go straight from an ingress to its client and are never relayed. */
    if (rsp->h.type < WEFT_T_RESP || rsp->h.type > WEFT_T_UNKNOWN || rsp->h.type == WEFT_T_COOKIE) {
        return ROUTE_DROP_bad_type;
    }
    return ROUTE_DROP_COUNT;
}

/* ROUTE_DROP_COUNT: nothing wrong. */
static enum route_drop check_weft(const struct route_frame *f, uint32_t weft_len)
{
    if (weft_len < sizeof(struct weft_hdr)) {
        return ROUTE_DROP_truncated;
    }
    if (weft_len > WEFT_DATAGRAM_MAX) {
        return ROUTE_DROP_oversized;
    }
    if (f->weft.common.ver_fmt != WEFT_VER_FMT) {
        return ROUTE_DROP_bad_version;
    }
    bool down = (f->weft.common.type & WEFT_TYPE_DOWN) != 0;
    if (weft_len < (down ? sizeof(struct weft_rsp) : sizeof(struct weft_req))) {
        return ROUTE_DROP_truncated;
    }
    return down ? check_reply(&f->weft.rsp, weft_len) : check_request(&f->weft.req, weft_len);
}

/* What follows the IP header: a UDP datagram of at most `room` bytes. */
static inline enum route_drop check_udp(struct route_packet *p, uint32_t room, bool from_host)
{
    const struct route_frame *f = p->frame;
    uint32_t udp_len = ntohs(f->udp.len);
    if (udp_len < sizeof(struct route_udp) || udp_len > room) {
        return ROUTE_DROP_truncated;
    }
    if (f->udp.src_port == 0 || !from_host) {
        return ROUTE_DROP_bad_header; /* nobody to answer */
    }
    p->weft_len = (uint16_t)(udp_len - sizeof(struct route_udp));
    p->len = ROUTE_WEFT_OFFSET - p->start + p->weft_len;
    return check_weft(f, p->weft_len);
}

/* Puts the view where the IP header behind `link` bytes is in its place. */
static inline void view_ip(struct route_packet *p, uint32_t link, uint32_t ip_offset)
{
    uint8_t *first = (uint8_t *)packet_ether(p);
    p->start = (uint8_t)(ip_offset - link);
    p->frame = (struct route_frame *)(void *)(first - p->start);
}

static inline enum route_drop check_ipv4(const struct route_core *core, struct route_packet *p,
                                         uint32_t link)
{
    const struct route_frame *f = p->frame;
    uint32_t room = p->len - link;
    if (room < sizeof(f->ip) + sizeof(f->udp) || f->ip.version_ihl != 0x45 ||
        f->ip.protocol != ROUTE_IP_PROTOCOL_UDP || f->ip.dst != core->host.addr || f->ip.dst == 0) {
        return ROUTE_DROP_not_ours;
    }
    if ((f->ip.fragment & htons(0x3fff)) != 0) {
        return ROUTE_DROP_fragmented;
    }
    if (f->udp.dst_port != core->host.port_be) {
        return ROUTE_DROP_not_ours;
    }
    uint32_t ip_len = ntohs(f->ip.total_len);
    if (ip_len > room || ip_len < sizeof(f->ip)) {
        return ROUTE_DROP_truncated;
    }
    return check_udp(p, ip_len - (uint32_t)sizeof(f->ip), addr_v4_is_host(f->ip.src));
}

/* For this node, but not with UDP right behind the IPv6 header. */
static enum route_drop check_next_header(uint8_t next_header)
{
    switch (next_header) {
    case IPPROTO_FRAGMENT:
        return ROUTE_DROP_fragmented;
    case IPPROTO_HOPOPTS:
    case IPPROTO_ROUTING:
    case IPPROTO_AH:
    case IPPROTO_DSTOPTS:
    case IPPROTO_MH:
        return ROUTE_DROP_ip_extension;
    default:
        return ROUTE_DROP_not_ours;
    }
}

static enum route_drop check_ipv6(const struct route_core *core, struct route_packet *p,
                                  uint32_t link)
{
    static const struct in6_addr none = IN6ADDR_ANY_INIT;
    const struct route_frame *f = p->frame;
    uint32_t room = p->len - link;
    if (room < sizeof(f->ip6) + sizeof(f->udp)) {
        return ROUTE_DROP_not_ours;
    }
    struct in6_addr dst = f->ip6.dst;
    struct in6_addr src = f->ip6.src;
    if ((ntohl(f->ip6.version_class_flow) >> 28) != 6 || !addr_equal(&dst, &core->host.addr6) ||
        addr_equal(&dst, &none)) {
        return ROUTE_DROP_not_ours;
    }
    if (f->ip6.next_header != ROUTE_IP_PROTOCOL_UDP) {
        return check_next_header(f->ip6.next_header);
    }
    if (f->udp.dst_port != core->host.port_be) {
        return ROUTE_DROP_not_ours;
    }
    uint32_t payload_len = ntohs(f->ip6.payload_len);
    if (payload_len > room - sizeof(f->ip6)) {
        return ROUTE_DROP_truncated;
    }
    if (f->udp.checksum == 0) {
        return ROUTE_DROP_bad_checksum; /* RFC 8200, 8.1 */
    }
    enum route_drop why = check_udp(p, payload_len, addr_v6_is_host(&src));
    return p->weft_len > ROUTE_DATAGRAM_MAX_IP6 && why == ROUTE_DROP_COUNT ? ROUTE_DROP_oversized
                                                                           : why;
}

/* IPv6, and whatever is tagged or ought to be. */
static __attribute__((noinline)) enum route_drop check_rarer(const struct route_core *core,
                                                             struct route_packet *p)
{
    const uint8_t *first = (const uint8_t *)packet_ether(p);
    uint16_t type = packet_ether(p)->type;
    uint32_t link = sizeof(struct route_ether);
    uint16_t vlan_be = 0;
    if (type == htons(ROUTE_ETHER_TYPE_VLAN)) {
        memcpy(&vlan_be, first + link, sizeof(vlan_be));
        memcpy(&type, first + link + sizeof(vlan_be), sizeof(type));
        vlan_be &= htons(ROUTE_VLAN_ID); /* 0: a tag for its priority alone */
        link += (uint32_t)sizeof(struct route_vlan);
    }
    enum route_drop why = ROUTE_DROP_not_ours;
    if (type == htons(ROUTE_ETHER_TYPE_IPV4)) {
        view_ip(p, link, ROUTE_IPV4_OFFSET);
        why = check_ipv4(core, p, link);
    } else if (type == htons(ROUTE_ETHER_TYPE_IPV6)) {
        view_ip(p, link, ROUTE_IPV6_OFFSET);
        why = check_ipv6(core, p, link);
    }
    return why != ROUTE_DROP_not_ours && vlan_be != core->host.vlan_be ? ROUTE_DROP_wrong_vlan
                                                                       : why;
}

static enum route_drop check_frame(const struct route_core *core, struct route_packet *p)
{
    if (p->len < ROUTE_WEFT_OFFSET - ROUTE_START_IPV4) {
        return ROUTE_DROP_not_ours;
    }
    if (__builtin_expect(p->start != ROUTE_START_IPV4 || core->host.vlan_be != 0 ||
                             packet_ether(p)->type != htons(ROUTE_ETHER_TYPE_IPV4),
                         0)) {
        return check_rarer(core, p);
    }
    return check_ipv4(core, p, sizeof(struct route_ether));
}

void stage_parse(struct route_core *core, struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        p->action = ROUTE_UNDECIDED;
        p->why = 0;
        p->from_worker = p->own = false;
        p->sender = p->next = ROUTE_INDEX_NONE;
        route_count(&core->counters.received);
        enum route_drop why = check_frame(core, p);
        if (why != ROUTE_DROP_COUNT) {
            route_drop(core, p, why);
        }
    }
}

void stage_parse_worker(struct route_core *core, struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        p->action = ROUTE_UNDECIDED;
        p->why = 0;
        p->from_worker = p->own = true;
        p->start = ROUTE_START_IPV4;
        p->sender = p->next = ROUTE_INDEX_NONE;
        if (check_weft(p->frame, p->weft_len) != ROUTE_DROP_COUNT ||
            (p->frame->weft.common.type & WEFT_TYPE_DOWN) == 0) {
            route_drop(core, p, ROUTE_DROP_worker_garbage);
        }
    }
}

/* ---- answers ---- */

void route_answer(struct route_core *core, const struct route_table *table, struct route_packet *p,
                  enum weft_type type, const void *payload, uint32_t size)
{
    const struct weft_req *req = &p->frame->weft.req;
    bool relayed = (req->h.flags & WEFT_F_RELAYED) != 0;
    struct weft_rsp rsp = {
        .h =
            {
                .ver_fmt = WEFT_VER_FMT,
                .type = (uint8_t)type,
                .hdr_words = WEFT_RSP_WORDS,
                .hops_left = WEFT_HOPS_MAX,
                .conn_id = req->h.conn_id,
                .req_seq = req->h.req_seq,
                .session = req->h.session,
                .origin = relayed ? req->h.origin : (uint16_t)WEFT_NODE_NONE,
                .server = WEFT_NODE_NONE,
            },
    };
    p->action = ROUTE_SEND;
    p->to = ROUTE_TO_SENDER;
    if (relayed) {
        rsp.h.flags = WEFT_F_RELAYED;
        rsp.h.server = table->nodes[table->self].id;
        rsp.ret = req->ret;
        p->next = route_table_find(table, req->h.origin);
        p->to = p->next == table->self ? ROUTE_TO_CLIENT : ROUTE_TO_NODE;
        if (p->next == ROUTE_INDEX_NONE) {
            route_drop(core, p, ROUTE_DROP_not_member);
            return;
        }
    }
    p->own = true;
    p->weft_len = (uint16_t)(sizeof(rsp) + size);
    memcpy(&p->frame->weft.rsp, &rsp, sizeof(rsp));
    memcpy(p->frame->weft.bytes + sizeof(rsp), payload, size);
}

static void answer_unknown(struct route_core *core, const struct route_table *table,
                           struct route_packet *p)
{
    note_why(core, p, ROUTE_DROP_unknown_request);
    route_answer(core, table, p, WEFT_T_UNKNOWN, "", 0);
}

static void answer_reject(struct route_core *core, const struct route_table *table,
                          struct route_packet *p, int status, const struct route_choice *choice)
{
    struct weft_reject reject = {
        .status = (uint16_t)-status,
        .constraint = choice->constraint,
        .best = choice->best,
        .retry_after_us = choice->retry_after_us,
        .candidates = choice->candidates,
    };
    route_answer(core, table, p, WEFT_T_REJECT, &reject, sizeof(reject));
}

/* ---- classify ---- */

/* The load word in a reply is fresher than any beacon. */
static void learn_load(struct route_core *core, const struct weft_rsp_hdr *h, uint16_t node_id,
                       uint64_t now_ns)
{
    bool of_node = h->type == WEFT_T_UNKNOWN || h->type == WEFT_T_REJECT;
    if (h->server != node_id || of_node) {
        return; /* what the node itself answers says nothing of its worker's load */
    }
    core->loads[node_id] = (struct route_load){
        .heard_ns = now_ns,
        .queue_us = h->queue_us,
        .room = h->room,
        .free_vram_64mib = h->free_vram_64mib,
    };
}

static void classify_reply(struct route_core *core, const struct route_table *table,
                           struct route_packet *p, uint64_t now_ns)
{
    const struct weft_rsp *rsp = &p->frame->weft.rsp;
    uint16_t self_id = table->nodes[table->self].id;
    if (!p->from_worker && p->sender == ROUTE_INDEX_NONE) {
        route_drop(core, p, ROUTE_DROP_not_member);
        return;
    }
    if (p->from_worker && rsp->h.server != self_id) {
        route_drop(core, p, ROUTE_DROP_worker_garbage);
        return;
    }
    p->action = ROUTE_SEND;
    if (rsp->h.origin == self_id) {
        learn_load(core, &rsp->h, p->from_worker ? self_id : table->nodes[p->sender].id, now_ns);
        p->to = ROUTE_TO_CLIENT;
        if (!seal_return_ok(&core->seal, &rsp->ret, rsp->h.conn_id)) {
            route_drop(core, p, ROUTE_DROP_bad_return);
        }
        return;
    }
    p->to = ROUTE_TO_NODE;
    p->next = p->from_worker ? route_table_find(table, rsp->h.origin) : ROUTE_INDEX_NONE;
    if (p->next == ROUTE_INDEX_NONE) {
        route_drop(core, p, p->from_worker ? ROUTE_DROP_worker_garbage : ROUTE_DROP_wrong_target);
    }
}

static void classify_relayed(struct route_core *core, const struct route_table *table,
                             struct route_packet *p)
{
    const struct weft_req *req = &p->frame->weft.req;
    if (p->sender == ROUTE_INDEX_NONE) {
        route_drop(core, p, ROUTE_DROP_not_member);
    } else if (req->h.target != table->nodes[table->self].id) {
        route_drop(core, p, ROUTE_DROP_wrong_target);
    } else if (req->h.origin == req->h.target &&
               !seal_return_ok(&core->seal, &req->ret, req->h.conn_id)) {
        route_drop(core, p, ROUTE_DROP_bad_return); /* an answer would go wherever it says */
    } else {
        p->action = ROUTE_DELIVER;
    }
}

static void classify_first_hop(struct route_core *core, const struct route_table *table,
                               struct route_packet *p)
{
    const struct route_frame *f = p->frame;
    const struct weft_req *req = &f->weft.req;
    struct in6_addr from = packet_source(p);
    route_count(&core->counters.from_clients);
    if (!seal_cookie_ok(&core->seal, &from, f->udp.src_port, req->h.conn_id, req->first.cookie)) {
        uint64_t cookie = seal_cookie(&core->seal, &from, f->udp.src_port, req->h.conn_id);
        note_why(core, p, ROUTE_DROP_no_cookie);
        route_answer(core, table, p, WEFT_T_COOKIE, &cookie, sizeof(cookie));
    }
}

/* The member whose address the frame names as its source. */
static inline uint16_t sender_of(const struct route_table *table, const struct route_packet *p)
{
    if (__builtin_expect(!packet_is_ip6(p), 1)) {
        return route_table_find_v4(table, p->frame->ip.src);
    }
    struct in6_addr from = p->frame->ip6.src;
    return route_table_find_addr(table, &from);
}

void stage_classify(struct route_core *core, const struct route_table *table,
                    struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        if (p->action != ROUTE_UNDECIDED) {
            continue;
        }
        if (table == NULL) {
            route_drop(core, p, ROUTE_DROP_no_table);
            continue;
        }
        if (!p->from_worker) {
            p->sender = sender_of(table, p);
        }
        if ((p->frame->weft.common.type & WEFT_TYPE_DOWN) != 0) {
            classify_reply(core, table, p, now_ns);
        } else if ((p->frame->weft.common.flags & WEFT_F_RELAYED) != 0) {
            classify_relayed(core, table, p);
        } else {
            classify_first_hop(core, table, p);
        }
    }
}

/* ---- select ---- */

static uint32_t pin_slot(uint64_t conn_id, uint32_t req_seq)
{
    uint64_t h = (conn_id ^ req_seq) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(h >> 32) & (ROUTE_PINS - 1);
}

static uint16_t id_of(const struct route_table *table, uint16_t index)
{
    return index == ROUTE_INDEX_NONE ? (uint16_t)WEFT_NODE_NONE : table->nodes[index].id;
}

/* The pin of this request if it still leads to a node alive that may have it, else NULL. What a
 * node is may have changed with the table: filters are checked again once per epoch. */
static const struct route_pin *pin_find(const struct route_core *core,
                                        const struct route_table *table,
                                        const struct weft_req_hdr *h, uint64_t now_ns)
{
    struct route_pin *pin = &core->pins[pin_slot(h->conn_id, h->req_seq)];
    if (pin->conn_id != h->conn_id || pin->req_seq != h->req_seq ||
        now_ns - pin->made_ns > ROUTE_PIN_LIFE_NS) {
        return NULL;
    }
    uint16_t index = route_table_find(table, pin->node);
    if (index == ROUTE_INDEX_NONE || !table->nodes[index].alive) {
        return NULL;
    }
    if (pin->epoch != table->epoch && h->type == WEFT_T_REQ) {
        struct route_query query = route_query_of(h);
        if (!route_allows(table, &query, index)) {
            return NULL;
        }
        pin->epoch = table->epoch;
    }
    return pin;
}

static const struct route_pin *pin_make(struct route_core *core, const struct route_table *table,
                                        const struct weft_req_hdr *h,
                                        const struct route_choice *choice, uint64_t now_ns)
{
    struct route_pin *pin = &core->pins[pin_slot(h->conn_id, h->req_seq)];
    *pin = (struct route_pin){
        .conn_id = h->conn_id,
        .made_ns = now_ns,
        .req_seq = h->req_seq,
        .node = id_of(table, choice->node),
        .epoch = table->epoch,
        .alternates = {id_of(table, choice->alternates[0]), id_of(table, choice->alternates[1])},
    };
    return pin;
}

/* Counts a request sent to a node against the room that it last told of. */
static void note_assigned(struct route_core *core, const struct route_table *table, uint16_t index)
{
    const struct route_node *node = &table->nodes[index];
    struct route_load *overlay = &core->loads[node->id];
    *overlay = route_load_of(node, overlay);
    overlay->assigned++;
}

/* What is left of a budget after the way to a node: half of the round trip, and a microsecond here.
 * 0: it does not last so long. */
static uint32_t budget_after_hop(uint32_t budget_us, uint32_t rtt_us)
{
    uint32_t hop_us = rtt_us / 2 + 1;
    if (budget_us == WEFT_BUDGET_NONE) {
        return budget_us;
    }
    return budget_us > hop_us ? budget_us - hop_us : 0;
}

/* Writes the return block over the first-hop block and the choice into the header. */
static void stamp(struct route_core *core, const struct route_table *table, struct route_packet *p,
                  const struct route_pin *pin, uint16_t index)
{
    struct route_frame *f = p->frame;
    struct weft_req *req = &f->weft.req;
    uint16_t sum = packet_request_sum(f);
    struct weft_return block = {.port = ntohs(f->udp.src_port)};
    struct in6_addr from = packet_source(p);
    memcpy(block.addr, &from, sizeof(block.addr));
    memcpy(block.mac, packet_ether(p)->src, sizeof(block.mac));
    seal_return(&core->seal, &block, req->h.conn_id);
    req->ret = block;

    req->h.origin = table->nodes[table->self].id;
    req->h.target = pin->node;
    req->h.alt1 = pin->alternates[0];
    req->h.alt2 = pin->alternates[1];
    req->h.route_epoch = table->epoch;
    req->h.flags |= WEFT_F_RELAYED;
    req->h.hops_left = WEFT_HOPS_MAX - 1;
    uint32_t left_us = budget_after_hop(req->h.budget_us, table->nodes[index].rtt_us);
    req->h.budget_us = left_us != 0 ? left_us : 1; /* the worker says that it is too late */
    packet_request_changed(f, sum);
    p->next = index;
    p->to = ROUTE_TO_NODE;
    p->action = index == table->self ? ROUTE_DELIVER : ROUTE_SEND;
}

/* The client names the node that has granted or answered: the choice has been made. */
static void select_named(struct route_core *core, const struct route_table *table,
                         struct route_packet *p)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    uint16_t index = route_table_find(table, h->target);
    if (index == ROUTE_INDEX_NONE || !table->nodes[index].alive) {
        answer_unknown(core, table, p);
        return;
    }
    struct route_query query = route_query_of(h);
    if (h->type == WEFT_T_REQ && !route_allows(table, &query, index)) {
        struct route_choice none = {.constraint = WEFT_C_NONE};
        note_why(core, p, ROUTE_DROP_refused);
        answer_reject(core, table, p, WEFT_E_NO_CAPABLE_NODE, &none);
        return;
    }
    struct route_pin named = {
        .node = h->target,
        .alternates = {WEFT_NODE_NONE, WEFT_NODE_NONE},
    };
    stamp(core, table, p, &named, index);
}

static void select_new(struct route_core *core, const struct route_table *table,
                       struct route_packet *p, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    if (h->budget_us == 0) {
        struct route_choice late = {.constraint = WEFT_C_BUDGET};
        note_why(core, p, ROUTE_DROP_expired);
        answer_reject(core, table, p, WEFT_E_BUDGET_EXPIRED, &late);
        return;
    }
    struct route_query query = route_query_of(h);
    const struct weft_first_hop *first = &p->frame->weft.req.first;
    query.avoid_count = first->avoid_count < WEFT_AVOID_MAX ? first->avoid_count : WEFT_AVOID_MAX;
    memcpy(query.avoid, first->avoid, sizeof(query.avoid));
    struct route_choice choice;
    route_choose(table, core->loads, core->scan, &query, &choice);
    if (choice.node == ROUTE_INDEX_NONE) {
        note_why(core, p, ROUTE_DROP_refused);
        answer_reject(core, table, p, route_constraint_status(choice.constraint), &choice);
        return;
    }
    route_count(&core->counters.chosen);
    note_assigned(core, table, choice.node);
    stamp(core, table, p, pin_make(core, table, h, &choice, now_ns), choice.node);
}

void stage_select(struct route_core *core, const struct route_table *table,
                  struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        if (p->action != ROUTE_UNDECIDED) {
            continue; /* what is left undecided are datagrams of proven clients */
        }
        const struct weft_req_hdr *h = &p->frame->weft.req.h;
        if (h->target != WEFT_NODE_NONE) {
            select_named(core, table, p);
            continue;
        }
        const struct route_pin *pin = pin_find(core, table, h, now_ns);
        if (pin != NULL) {
            stamp(core, table, p, pin, route_table_find(table, pin->node));
        } else if (h->type == WEFT_T_REQ) {
            select_new(core, table, p, now_ns);
        } else {
            answer_unknown(core, table, p);
        }
    }
}

void stage_second_chance(struct route_core *core, const struct route_table *table,
                         struct route_packet *p, enum route_drop why, int status)
{
    struct route_frame *f = p->frame;
    struct weft_req_hdr *h = &f->weft.req.h;
    while (h->type == WEFT_T_REQ && h->alt1 != WEFT_NODE_NONE) {
        uint16_t index = route_table_find(table, h->alt1);
        uint16_t ids[3] = {h->alt1, h->alt2, WEFT_NODE_NONE};
        packet_set(f, &h->target, ids, sizeof(ids));
        struct route_query query = route_query_of(h);
        if (index == ROUTE_INDEX_NONE || !table->nodes[index].alive || index == table->self ||
            !route_allows(table, &query, index)) {
            continue;
        }
        if (h->hops_left == 0) {
            why = ROUTE_DROP_loop;
            status = WEFT_E_LOOP;
            break;
        }
        uint32_t left_us = budget_after_hop(h->budget_us, table->nodes[index].rtt_us);
        if (left_us == 0) {
            why = ROUTE_DROP_expired; /* too far for the time left; another may be nearer */
            status = WEFT_E_BUDGET_EXPIRED;
            continue;
        }
        packet_set(f, &h->budget_us, &left_us, sizeof(left_us));
        packet_set_u8(f, &h->hops_left, (uint8_t)(h->hops_left - 1));
        route_count(&core->counters.second_chance);
        p->action = ROUTE_SEND;
        p->to = ROUTE_TO_NODE;
        p->next = index;
        return;
    }
    note_why(core, p, why);
    if (status == WEFT_OK) {
        route_answer(core, table, p, WEFT_T_UNKNOWN, "", 0);
        return;
    }
    struct route_choice full = {
        .constraint = status == WEFT_E_MESH_FULL           ? WEFT_C_ROOM
                      : status == WEFT_E_BUDGET_EXPIRED    ? WEFT_C_BUDGET
                      : status == WEFT_E_BUDGET_INFEASIBLE ? WEFT_C_BUDGET
                                                           : WEFT_C_NONE,
    };
    answer_reject(core, table, p, status, &full);
}

/* ---- rewrite ---- */

static void client_hop(const struct weft_return *ret, struct route_hop *hop)
{
    memcpy(&hop->addr, ret->addr, sizeof(hop->addr));
    memcpy(hop->mac, ret->mac, sizeof(hop->mac));
    hop->port_be = htons(ret->port);
}

static void sender_hop(const struct route_packet *p, struct route_hop *hop)
{
    hop->addr = packet_source(p);
    memcpy(hop->mac, packet_ether(p)->src, sizeof(hop->mac));
    hop->port_be = p->frame->udp.src_port;
}

static void node_hop(const struct route_core *core, const struct route_node *node,
                     struct route_hop *hop)
{
    hop->addr = node->addr;
    memcpy(hop->mac, node->mac, sizeof(hop->mac));
    hop->port_be = core->host.port_be;
}

void stage_rewrite(struct route_core *core, const struct route_table *table,
                   struct route_packet *packets, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        if (p->action != ROUTE_SEND) {
            continue;
        }
        struct route_hop hop;
        if (p->to == ROUTE_TO_NODE) {
            const struct route_node *node = &table->nodes[p->next];
            if (!node->reachable) {
                route_drop(core, p, ROUTE_DROP_no_neighbour);
                continue;
            }
            node_hop(core, node, &hop);
        } else if (p->to == ROUTE_TO_CLIENT) {
            client_hop(&p->frame->weft.rsp.ret, &hop);
        } else {
            sender_hop(p, &hop);
        }
        if (__builtin_expect(p->weft_len > ROUTE_DATAGRAM_MAX_IP6, 0) && !addr_is_v4(&hop.addr)) {
            route_drop(core, p, ROUTE_DROP_oversized);
            continue;
        }
        route_count(p->to == ROUTE_TO_NODE ? &core->counters.relayed : &core->counters.returned);
        if (p->own) {
            packet_compose(p, &core->host, &hop);
        } else {
            packet_readdress(p, &core->host, &hop);
        }
    }
}
