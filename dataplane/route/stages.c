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
    core->loads = aligned_alloc(_Alignof(struct route_load), NODE_IDS * sizeof(*core->loads));
    core->pins = calloc(ROUTE_PINS, sizeof(*core->pins));
    core->scan = aligned_alloc(_Alignof(struct scan), sizeof(*core->scan));
    core->looks = calloc(ROUTE_LOOKS_MAX, sizeof(*core->looks));
    if (core->loads == NULL || core->pins == NULL || core->scan == NULL || core->looks == NULL) {
        route_core_destroy(core);
        return -ENOMEM;
    }
    memset(core->loads, 0, NODE_IDS * sizeof(*core->loads));
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
        free(core->looks);
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
    route_load_assign(&core->loads[node->id], node);
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

/* A request that no node has been chosen for yet; false: its time is up, and it has been told. */
static bool select_begin(struct route_core *core, const struct route_table *table,
                         struct route_packet *p, struct route_look *look)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    const struct weft_first_hop *first = &p->frame->weft.req.first;
    if (h->budget_us == 0) {
        struct route_choice late = {.constraint = WEFT_C_BUDGET};
        note_why(core, p, ROUTE_DROP_expired);
        answer_reject(core, table, p, WEFT_E_BUDGET_EXPIRED, &late);
        return false;
    }
    look->query = route_query_of(h);
    look->query.avoid_count =
        first->avoid_count < WEFT_AVOID_MAX ? first->avoid_count : WEFT_AVOID_MAX;
    memcpy(look->query.avoid, first->avoid, sizeof(look->query.avoid));
    return true;
}

static void select_new(struct route_core *core, const struct route_table *table,
                       struct route_packet *p, struct route_look *look, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    struct route_choice choice;
    route_choose_looked(table, core->loads, core->scan, look, &choice);
    if (choice.node == ROUTE_INDEX_NONE) {
        note_why(core, p, ROUTE_DROP_refused);
        answer_reject(core, table, p, route_constraint_status(choice.constraint), &choice);
        return;
    }
    route_count(&core->counters.chosen);
    note_assigned(core, table, choice.node);
    stamp(core, table, p, pin_make(core, table, h, &choice, now_ns), choice.node);
}

/* True: the packet is a new request, and its look is begun. */
static bool select_known(struct route_core *core, const struct route_table *table,
                         struct route_packet *p, struct route_look *look, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    if (h->target != WEFT_NODE_NONE) {
        select_named(core, table, p);
        return false;
    }
    const struct route_pin *pin = pin_find(core, table, h, now_ns);
    if (pin != NULL) {
        stamp(core, table, p, pin, route_table_find(table, pin->node));
        return false;
    }
    if (h->type != WEFT_T_REQ) {
        answer_unknown(core, table, p);
        return false;
    }
    return select_begin(core, table, p, look);
}

static void select_burst(struct route_core *core, const struct route_table *table,
                         struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    struct route_packet *waiting[ROUTE_LOOKS_MAX];
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        /* What is left undecided are datagrams of proven clients. */
        if (p->action == ROUTE_UNDECIDED &&
            select_known(core, table, p, &core->looks[used], now_ns)) {
            waiting[used++] = p;
        }
    }
    route_look(table, core->loads, core->scan, core->looks, used);
    for (uint32_t i = 0; i < used; i++) {
        const struct weft_req_hdr *h = &waiting[i]->frame->weft.req.h;
        /* One before it in this burst may have been of the same request. */
        const struct route_pin *pin = pin_find(core, table, h, now_ns);
        if (pin != NULL) {
            stamp(core, table, waiting[i], pin, route_table_find(table, pin->node));
        } else {
            select_new(core, table, waiting[i], &core->looks[i], now_ns);
        }
    }
}

void stage_select(struct route_core *core, const struct route_table *table,
                  struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i += ROUTE_LOOKS_MAX) {
        uint32_t left = count - i;
        select_burst(core, table, packets + i, left < ROUTE_LOOKS_MAX ? left : ROUTE_LOOKS_MAX,
                     now_ns);
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
