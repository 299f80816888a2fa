/* SPDX-License-Identifier: Apache-2.0 */
/* stages.c - see stages.h. Read the four stage_* functions first. */
#include "dataplane/route/stages.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#define NODE_IDS 65536u

/* A request that has its node: what is written into it once all of a burst have theirs. */
struct stamp {
    struct route_packet *packet;
    uint16_t index; /* where it goes */
    struct route_ingress in;
};

/* What the stages work out for all packets of a burst before they go on with each. */
struct route_burst {
    struct seal_batch proofs[SEAL_KINDS];
    struct route_packet *proving[SEAL_KINDS][ROUTE_BURST_MAX];
    struct route_look looks[ROUTE_BURST_MAX];
    struct stamp stamps[ROUTE_BURST_MAX]; /* as many as there are proofs[SEAL_RETURN] */
};
_Static_assert(ROUTE_BURST_MAX <= SIPHASH_BATCH && ROUTE_BURST_MAX <= ROUTE_LOOKS_MAX, "a burst");

int route_core_create(struct route_core **out, const struct route_host *host,
                      const struct seal_master *master, uint64_t now_ns)
{
    *out = NULL;
    struct route_core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        return -ENOMEM;
    }
    core->host = *host;
    atomic_store_explicit(&core->missed, WEFT_NODE_NONE, memory_order_relaxed);
    route_core_answer(core, true, true);
    core->loads = aligned_alloc(_Alignof(struct route_load), NODE_IDS * sizeof(*core->loads));
    core->pins = calloc(ROUTE_PINS, sizeof(*core->pins));
    core->homes = calloc(1, sizeof(*core->homes));
    core->prefixes = aligned_alloc(_Alignof(struct prefixes), sizeof(*core->prefixes));
    core->scan = aligned_alloc(_Alignof(struct scan), sizeof(*core->scan));
    core->burst = calloc(1, sizeof(*core->burst));
    if (core->loads == NULL || core->pins == NULL || core->homes == NULL ||
        core->prefixes == NULL || core->scan == NULL || core->burst == NULL) {
        route_core_destroy(core);
        return -ENOMEM;
    }
    memset(core->loads, 0, NODE_IDS * sizeof(*core->loads));
    memset(core->prefixes, 0, sizeof(*core->prefixes));
    seal_init(&core->seal, master, now_ns);
    *out = core;
    return 0;
}

void route_core_destroy(struct route_core *core)
{
    if (core != NULL) {
        free(core->loads);
        free(core->pins);
        free(core->homes);
        free(core->prefixes);
        free(core->scan);
        free(core->burst);
        free(core);
    }
}

void route_core_answer(struct route_core *core, bool v4, bool v6)
{
    static const struct in6_addr none = IN6ADDR_ANY_INIT;
    core->answers = (struct route_answers){
        .addr = v4 ? core->host.addr : 0,
        .addr6 = v6 ? core->host.addr6 : none,
        .lacks_v4 = !v4 && core->host.addr != 0,
        .lacks_v6 = !v6 && !addr_equal(&core->host.addr6, &none),
    };
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

/* Evenly spread, the same for all datagrams of a request: its lot, and where its pin is. */
static inline uint32_t request_hash(uint64_t conn_id, uint32_t req_seq)
{
    return (uint32_t)((conn_id ^ req_seq) * UINT64_C(0x9e3779b97f4a7c15) >> 32);
}

struct route_query route_query_of(const struct weft_req_hdr *h)
{
    return (struct route_query){
        .lot = request_hash(h->conn_id, h->req_seq),
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

static inline struct route_pin *pin_place(const struct route_core *core, uint64_t conn_id,
                                          uint32_t req_seq)
{
    return &core->pins[request_hash(conn_id, req_seq) & (ROUTE_PINS - 1)];
}

/* ---- answers ---- */

void route_answer(struct route_core *core, const struct route_table *table, struct route_packet *p,
                  enum weft_type type, const void *payload, uint32_t size)
{
    const struct weft_req_hdr h = p->frame->weft.req.h;
    const struct weft_return ret = p->frame->weft.req.ret;
    bool relayed = (h.flags & WEFT_F_RELAYED) != 0;
    uint16_t self_id = table->nodes[table->self].id;
    p->action = ROUTE_SEND;
    p->to = ROUTE_TO_SENDER;
    if (relayed) {
        p->next = route_table_find(table, h.origin);
        p->to = p->next == table->self ? ROUTE_TO_CLIENT : ROUTE_TO_NODE;
        if (p->next == ROUTE_INDEX_NONE) {
            route_drop(core, p, ROUTE_DROP_not_member);
            return;
        }
    }
    p->own = true;
    p->weft_len = (uint16_t)(sizeof(struct weft_rsp) + size);
    p->frame->weft.rsp = (struct weft_rsp){
        .h =
            {
                .ver_fmt = WEFT_VER_FMT,
                .type = (uint8_t)type,
                .flags = relayed ? WEFT_F_RELAYED : 0,
                .hdr_words = WEFT_RSP_WORDS,
                .hops_left = WEFT_HOPS_MAX,
                .conn_id = h.conn_id,
                .req_seq = h.req_seq,
                .session = h.session,
                .origin = relayed ? h.origin : (uint16_t)WEFT_NODE_NONE,
                .server = relayed ? self_id : (uint16_t)WEFT_NODE_NONE,
            },
    };
    if (relayed) {
        p->frame->weft.rsp.ret = ret;
    }
    memcpy(p->frame->weft.bytes + sizeof(struct weft_rsp), payload, size);
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
static void learn_load(struct route_core *core, const struct route_table *table,
                       const struct weft_rsp_hdr *h, uint16_t index, uint64_t now_ns)
{
    const struct route_node *node = &table->nodes[index];
    bool of_node = h->type == WEFT_T_UNKNOWN || h->type == WEFT_T_REJECT;
    if (h->server != node->id || of_node) {
        return; /* what the node itself answers says nothing of its worker's load */
    }
    core->loads[node->id] = (struct route_load){
        .heard_ns = now_ns,
        .queue_us = h->queue_us,
        .generation = now_ns >= node->load_ns ? table->generation : 0,
        .left = h->room,
        .room = h->room,
        .free_vram_64mib = h->free_vram_64mib,
    };
}

/* The first that is heard of a request: who has it is sure now, for its pin and its session. */
static void learn_server(struct route_core *core, const struct weft_rsp_hdr *h)
{
    struct route_pin *pin = pin_place(core, h->conn_id, h->req_seq);
    if (pin->conn_id != h->conn_id || pin->req_seq != h->req_seq) {
        return;
    }
    if (pin->node == h->server) {
        pin->answered = true;
    } else if (h->session != 0) { /* after a second chance */
        homes_correct(core->homes, h->session, h->server);
    }
}

/* The packet's way is known, if its return block turns out to be this node's. */
static void prove_return(struct route_core *core, struct route_packet *p,
                         const struct weft_return *block, uint64_t conn_id)
{
    struct seal_batch *batch = &core->burst->proofs[SEAL_RETURN];
    core->burst->proving[SEAL_RETURN][batch->hash.count] = p;
    seal_add_return(batch, block, conn_id);
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
        learn_load(core, table, &rsp->h, p->from_worker ? table->self : p->sender, now_ns);
        carried_note(&core->carried, &rsp->h, now_ns);
        if (rsp->h.type != WEFT_T_RESP) { /* before its parts come GRANTs */
            learn_server(core, &rsp->h);
        }
        p->to = ROUTE_TO_CLIENT;
        prove_return(core, p, &rsp->ret, rsp->h.conn_id);
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
    } else {
        p->action = ROUTE_DELIVER;
        if (req->h.origin == req->h.target) { /* an answer would go wherever the block says */
            prove_return(core, p, &req->ret, req->h.conn_id);
        }
    }
}

static void classify_first_hop(struct route_core *core, struct route_packet *p)
{
    const struct route_frame *f = p->frame;
    const struct weft_req *req = &f->weft.req;
    struct in6_addr from = packet_source(p);
    enum seal_kind kind = seal_cookie_kind(&from);
    struct seal_batch *batch = &core->burst->proofs[kind];
    route_count(&core->counters.from_clients);
    __builtin_prefetch(pin_place(core, req->h.conn_id, req->h.req_seq));
    core->burst->proving[kind][batch->hash.count] = p;
    seal_add_cookie(batch, &from, f->udp.src_port, req->h.conn_id, req->first.cookie);
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

/* Clients that have not proven their address get their cookie, blocks that this node has not sealed
 * end here. */
static void classify_proofs(struct route_core *core, const struct route_table *table,
                            enum seal_kind kind)
{
    struct seal_batch *batch = &core->burst->proofs[kind];
    seal_check(&core->seal, kind, batch);
    for (uint32_t i = 0; i < batch->hash.count; i++) {
        struct route_packet *p = core->burst->proving[kind][i];
        if ((batch->valid >> i & 1) != 0) {
            continue;
        }
        if (kind == SEAL_RETURN) {
            route_drop(core, p, ROUTE_DROP_bad_return);
        } else {
            note_why(core, p, ROUTE_DROP_no_cookie);
            route_answer(core, table, p, WEFT_T_COOKIE, &batch->hash.hashes[i], sizeof(uint64_t));
        }
    }
}

static void classify_burst(struct route_core *core, const struct route_table *table,
                           struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    for (enum seal_kind kind = 0; kind < SEAL_KINDS; kind++) {
        core->burst->proofs[kind].hash.count = 0;
    }
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
            classify_first_hop(core, p);
        }
    }
    for (enum seal_kind kind = 0; kind < SEAL_KINDS; kind++) {
        if (core->burst->proofs[kind].hash.count != 0) {
            classify_proofs(core, table, kind);
        }
    }
}

static inline uint32_t burst_of(uint32_t count)
{
    return count < ROUTE_BURST_MAX ? count : ROUTE_BURST_MAX;
}

void stage_classify(struct route_core *core, const struct route_table *table,
                    struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i += ROUTE_BURST_MAX) {
        classify_burst(core, table, packets + i, burst_of(count - i), now_ns);
    }
}

/* ---- select ---- */

static uint16_t id_of(const struct route_table *table, uint16_t index)
{
    return index == ROUTE_INDEX_NONE ? (uint16_t)WEFT_NODE_NONE : table->nodes[index].id;
}

/* The pin of this request if it still leads to a node alive that may have it, else NULL. What a
 * node is may have changed with the table: filters are checked again once per epoch. A suspect that
 * has not answered is in `*doubted` then: the request is to go elsewhere (README.md: pins). */
static const struct route_pin *pin_find(struct route_core *core, const struct route_table *table,
                                        const struct weft_req_hdr *h, uint64_t now_ns,
                                        uint16_t *doubted)
{
    struct route_pin *pin = pin_place(core, h->conn_id, h->req_seq);
    if (pin->conn_id != h->conn_id || pin->req_seq != h->req_seq ||
        now_ns - pin->made_ns > ROUTE_PIN_LIFE_NS) {
        return NULL;
    }
    uint16_t index = route_table_find(table, pin->node);
    if (index == ROUTE_INDEX_NONE || !table->nodes[index].alive) {
        return NULL;
    }
    if (h->type == WEFT_T_REQ && !pin->answered) {
        if (__builtin_expect(table->nodes[index].suspect, 0)) {
            *doubted = pin->node;
            return NULL;
        }
        if ((h->flags & WEFT_F_RETX) != 0) { /* is it still there? */
            atomic_store_explicit(&core->missed, pin->node, memory_order_relaxed);
        }
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
    struct route_pin *pin = pin_place(core, h->conn_id, h->req_seq);
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

/* The request goes to the node at `index`, with this pin's ids in its header. */
static void stamp_later(struct route_core *core, const struct route_table *table,
                        struct route_packet *p, const struct route_pin *pin, uint16_t index)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    struct seal_batch *batch = &core->burst->proofs[SEAL_RETURN];
    struct stamp *stamp = &core->burst->stamps[batch->hash.count];
    uint32_t left_us = budget_after_hop(h->budget_us, table->nodes[index].rtt_us);
    stamp->packet = p;
    stamp->index = index;
    stamp->in.budget_us = left_us != 0 ? left_us : 1; /* the worker says that it is too late */
    stamp->in.target = pin->node;
    stamp->in.alternates[0] = pin->alternates[0];
    stamp->in.alternates[1] = pin->alternates[1];
    packet_return_words(p, stamp->in.block);
    seal_add_return_words(batch, stamp->in.block, h->conn_id);
}

static void stamp_all(struct route_core *core, const struct route_table *table)
{
    struct seal_batch *batch = &core->burst->proofs[SEAL_RETURN];
    if (batch->hash.count == 0) {
        return;
    }
    seal_make(&core->seal, SEAL_RETURN, batch);
    for (uint32_t i = 0; i < batch->hash.count; i++) {
        struct stamp *stamp = &core->burst->stamps[i];
        struct route_packet *p = stamp->packet;
        stamp->in.block[3] = batch->hash.hashes[i];
        stamp->in.origin = table->nodes[table->self].id;
        stamp->in.epoch = table->epoch;
        stamp->in.hops_left = WEFT_HOPS_MAX - 1;
        packet_ingress(p->frame, &stamp->in);
        p->next = stamp->index;
        p->to = ROUTE_TO_NODE;
        p->action = stamp->index == table->self ? ROUTE_DELIVER : ROUTE_SEND;
    }
}

/* This node ends what it has: the client of a new request asks the next node that it knows. */
static void answer_draining(struct route_core *core, const struct route_table *table,
                            struct route_packet *p)
{
    struct route_choice none = {.constraint = WEFT_C_NONE};
    note_why(core, p, ROUTE_DROP_draining);
    answer_reject(core, table, p, WEFT_E_DRAINING, &none);
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
    bool begins = h->type == WEFT_T_REQ && h->offset == 0 && (h->flags & WEFT_F_RETX) == 0;
    if (table->closing && begins) { /* named from what an earlier attempt was told */
        answer_draining(core, table, p);
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
    stamp_later(core, table, p, &named, index);
}

/* A request that no node has been chosen for yet, or none but `doubted`; false: it will not be, and
 * it has been told. */
static bool select_begin(struct route_core *core, const struct route_table *table,
                         struct route_packet *p, uint16_t doubted, struct route_look *look)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    const struct weft_first_hop *first = &p->frame->weft.req.first;
    if (h->budget_us == 0) {
        struct route_choice late = {.constraint = WEFT_C_BUDGET};
        note_why(core, p, ROUTE_DROP_expired);
        answer_reject(core, table, p, WEFT_E_BUDGET_EXPIRED, &late);
        return false;
    }
    if (table->closing) {
        answer_draining(core, table, p);
        return false;
    }
    look->query = route_query_of(h);
    look->query.avoid_count =
        first->avoid_count < WEFT_AVOID_MAX ? first->avoid_count : WEFT_AVOID_MAX;
    memcpy(look->query.avoid, first->avoid, sizeof(first->avoid));
    if (__builtin_expect(doubted != WEFT_NODE_NONE, 0)) {
        look->query.avoid[look->query.avoid_count++] = doubted;
    }
    look->query.arithmetic = first->arithmetic;
    return true;
}

/* To who has the beginning of its prompt, if that pays. The way of few requests. */
__attribute__((noinline)) static uint32_t steer_by_prefix(struct route_core *core,
                                                          const struct route_table *table,
                                                          const struct route_query *query,
                                                          uint64_t prefix, uint64_t now_ns,
                                                          struct route_choice *choice)
{
    uint32_t known =
        prefixes_steer(core->prefixes, table, core->loads, query, prefix, now_ns, choice);
    route_count(&core->counters.prefix_told);
    if (known != 0) {
        route_count(&core->counters.prefix_known);
    }
    return known;
}

static void select_new(struct route_core *core, const struct route_table *table,
                       struct route_packet *p, struct route_look *look, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    struct route_choice choice;
    route_choose_looked(table, core->loads, core->scan, look, &choice);
    if (choice.node == ROUTE_INDEX_NONE) {
        note_why(core, p, ROUTE_DROP_refused);
        answer_reject(core, table, p, route_refusal_status(&choice), &choice);
        return;
    }
    uint64_t prefix = p->frame->weft.req.first.prefix;
    uint32_t known = 0;
    if (prefix != 0) {
        known = steer_by_prefix(core, table, &look->query, prefix, now_ns, &choice);
    }
    if (h->session != 0) {
        homes_steer(core->homes, table, core->loads, &look->query, h->session, now_ns, &choice);
    }
    route_count(&core->counters.chosen);
    note_assigned(core, table, choice.node);
    if (prefix != 0) {
        prefixes_placed(core->prefixes, table, core->loads, &look->query, prefix, choice.node,
                        known, now_ns);
    }
    stamp_later(core, table, p, pin_make(core, table, h, &choice, now_ns), choice.node);
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
    uint16_t doubted = WEFT_NODE_NONE;
    const struct route_pin *pin = pin_find(core, table, h, now_ns, &doubted);
    if (pin != NULL) {
        stamp_later(core, table, p, pin, route_table_find(table, pin->node));
        return false;
    }
    if (h->type != WEFT_T_REQ) {
        answer_unknown(core, table, p);
        return false;
    }
    return select_begin(core, table, p, doubted, look);
}

static void select_burst(struct route_core *core, const struct route_table *table,
                         struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    struct route_look *looks = core->burst->looks;
    struct route_packet *waiting[ROUTE_BURST_MAX];
    uint32_t used = 0;
    core->burst->proofs[SEAL_RETURN].hash.count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        /* What is left undecided are datagrams of proven clients. */
        if (p->action == ROUTE_UNDECIDED && select_known(core, table, p, &looks[used], now_ns)) {
            waiting[used++] = p;
        }
    }
    route_look(table, core->loads, core->scan, looks, used);
    uint64_t pinned = 0; /* a bit of the lot of each request that got a pin in this burst */
    uint16_t doubted;
    for (uint32_t i = 0; i < used; i++) {
        const struct weft_req_hdr *h = &waiting[i]->frame->weft.req.h;
        const uint64_t bit = UINT64_C(1) << (looks[i].query.lot & 63u);
        /* One before it in this burst may have been of the same request. */
        const struct route_pin *pin =
            (pinned & bit) != 0 ? pin_find(core, table, h, now_ns, &doubted) : NULL;
        if (pin != NULL) {
            stamp_later(core, table, waiting[i], pin, route_table_find(table, pin->node));
        } else {
            select_new(core, table, waiting[i], &looks[i], now_ns);
            pinned |= bit;
        }
    }
    stamp_all(core, table);
}

void stage_select(struct route_core *core, const struct route_table *table,
                  struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    for (uint32_t i = 0; i < count; i += ROUTE_BURST_MAX) {
        select_burst(core, table, packets + i, burst_of(count - i), now_ns);
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
            table->nodes[index].leaving || !route_allows(table, &query, index)) {
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
                      : status == WEFT_E_DRAINING          ? WEFT_C_ROOM
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

/* Would it leave from an address that is not there? */
static inline bool lacks_address(const struct route_core *core, const struct in6_addr *to)
{
    return (core->answers.lacks_v4 || core->answers.lacks_v6) &&
           (addr_is_v4(to) ? core->answers.lacks_v4 : core->answers.lacks_v6);
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
        if (__builtin_expect(lacks_address(core, &hop.addr), 0)) {
            route_drop(core, p, ROUTE_DROP_no_address);
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
