/* SPDX-License-Identifier: Apache-2.0 */
/* workers.c - see workers.h. */
#include "dataplane/workers.h"

#include <string.h>
#include <weft/status.h>

/* ---- who is there ---- */

void workers_attach(struct workers *w, struct port *port)
{
    atomic_store_explicit(&w->incoming[port->slot], port, memory_order_release);
    atomic_fetch_add_explicit(&w->arrivals, 1, memory_order_release);
}

static void greet(struct workers *w)
{
    uint32_t arrivals = atomic_load_explicit(&w->arrivals, memory_order_acquire);
    if (arrivals == w->arrivals_seen) {
        return;
    }
    w->arrivals_seen = arrivals;
    for (uint32_t slot = 0; slot < PORT_WORKERS_MAX; slot++) {
        struct port *port =
            atomic_exchange_explicit(&w->incoming[slot], NULL, memory_order_acquire);
        if (port != NULL) {
            w->there[w->count++] = port;
        }
    }
}

static void let_go(struct workers *w, uint32_t index)
{
    struct port *port = w->there[index];
    w->there[index] = w->there[--w->count];
    w->turn = 0;
    atomic_store_explicit(&port->released, true, memory_order_release);
}

static bool is_lost(const struct port *port, memory_order order)
{
    return atomic_load_explicit(&port->lost, order);
}

/* ---- their load ---- */

struct port_load workers_load(struct port *const *ports, uint32_t count)
{
    struct port_load sum = {.queue_us = UINT32_MAX};
    uint32_t any_us = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct port_load one = port_load_now(ports[i]);
        uint32_t room = (uint32_t)sum.room + one.room;
        sum.room = room < UINT16_MAX ? (uint16_t)room : UINT16_MAX;
        any_us = one.queue_us < any_us ? one.queue_us : any_us;
        if (one.room != 0 && one.queue_us < sum.queue_us) {
            sum.queue_us = one.queue_us;
        }
        if (one.free_vram_64mib > sum.free_vram_64mib) {
            sum.free_vram_64mib = one.free_vram_64mib;
        }
    }
    if (sum.room == 0) {
        sum.queue_us = count != 0 ? any_us : 0;
    }
    return sum;
}

/* The load is read where it lies, not learnt from what nodes tell each other. */
void workers_look(struct workers *w, struct route_core *core, const struct route_table *table,
                  uint64_t now_ns)
{
    greet(w);
    for (uint32_t i = 0; i < w->count; i++) {
        (void)port_stalled(w->there[i], now_ns);
    }
    if (w->count == 0) {
        return;
    }
    struct port_load load = workers_load(w->there, w->count);
    if (table == NULL || memcmp(&load, &w->load, sizeof(load)) == 0) {
        return;
    }
    w->load = load;
    core->loads[table->nodes[table->self].id] = (struct route_load){
        .heard_ns = now_ns,
        .queue_us = load.queue_us,
        .room = load.room,
        .free_vram_64mib = load.free_vram_64mib,
    };
}

/* ---- from them ---- */

/* Its client gets an error, never silence: a refusal as if the worker itself had sent it. */
static void compose_lost(const struct route_table *table, const struct inflight_entry *entry,
                         struct route_packet *p)
{
    struct weft_rsp rsp = {
        .h =
            {
                .ver_fmt = WEFT_VER_FMT,
                .type = WEFT_T_REJECT,
                .flags = WEFT_F_RELAYED,
                .hdr_words = WEFT_RSP_WORDS,
                .hops_left = WEFT_HOPS_MAX,
                .conn_id = entry->conn_id,
                .req_seq = entry->req_seq,
                .origin = entry->origin,
                .server = table->nodes[table->self].id,
            },
        .ret = entry->ret,
    };
    struct weft_reject reject = {.status = (uint16_t)-WEFT_E_WORKER_LOST};
    memcpy(p->frame->weft.bytes, &rsp, sizeof(rsp));
    memcpy(p->frame->weft.bytes + sizeof(rsp), &reject, sizeof(reject));
    p->weft_len = sizeof(rsp) + sizeof(reject);
}

/* Of several workers each speaks for itself, the mesh wants the node's load; of a node that takes
 * nothing new, that. */
static void restate_load(const struct workers *w, const struct route_table *table,
                         struct weft_rsp_hdr *h)
{
    if (table != NULL && table->closing) {
        h->room = 0;
        h->queue_us = WEFT_QUEUE_DRAINING;
    } else if (w->count > 1 || WEFT_DRAINS(w->load.room, w->load.queue_us)) {
        h->room = w->load.room;
        h->free_vram_64mib = w->load.free_vram_64mib;
        h->queue_us = w->load.queue_us;
    }
}

/* One datagram of the worker's into the packet. False: there is none. */
static bool pop_reply(const struct workers *w, const struct route_table *table, struct port *port,
                      struct route_packet *p, uint64_t now_ns)
{
    uint32_t len = port_pop(port, p->frame->weft.bytes, WEFT_DATAGRAM_MAX);
    if (len == 0) {
        return false;
    }
    p->weft_len = (uint16_t)len;
    if (len < sizeof(struct weft_rsp)) {
        return true; /* stage_parse_worker() counts it */
    }
    struct weft_rsp *rsp = &p->frame->weft.rsp;
    struct inflight_entry *entry = inflight_find(&port->inflight, rsp->h.conn_id, rsp->h.req_seq);
    if (entry == NULL || entry->state == INFLIGHT_FORWARDED) {
        p->weft_len = 1; /* it answers what it was never asked */
        return true;
    }
    entry->seen_ns = now_ns;
    if (table != NULL) { /* the worker knows the id from when it came; gossip may change it */
        rsp->h.server = table->nodes[table->self].id;
    }
    if (rsp->h.type == WEFT_T_REJECT ||
        (rsp->h.type == WEFT_T_RESP && (rsp->h.flags & WEFT_F_LAST) != 0)) {
        entry->state = INFLIGHT_FINISHED;
    }
    restate_load(w, table, &rsp->h);
    return true;
}

/* The worker has gone: what it still had in the ring went out, now every open request is told. */
static bool next_loss(struct workers *w, uint32_t index, const struct route_table *table,
                      struct route_packet *p, uint64_t now_ns)
{
    struct port *port = w->there[index];
    struct inflight_entry *entry =
        table == NULL ? NULL : inflight_next_open(&port->inflight, &port->lost_cursor, now_ns);
    if (entry == NULL) {
        let_go(w, index);
        return false;
    }
    compose_lost(table, entry, p);
    return true;
}

bool workers_next(struct workers *w, const struct route_table *table, struct route_packet *p,
                  uint64_t now_ns)
{
    for (uint32_t asked = 0, all = w->count; asked < all && w->count != 0; asked++) {
        uint32_t index = w->turn % w->count;
        struct port *port = w->there[index];
        bool lost = is_lost(port, memory_order_acquire); /* before its ring */
        if (pop_reply(w, table, port, p, now_ns) ||
            (lost && next_loss(w, index, table, p, now_ns))) {
            w->turn = index + 1;
            return true;
        }
        w->turn++;
    }
    return false;
}

/* ---- to them ---- */

static void remember(struct inflight_entry *entry, const struct weft_req *req, uint64_t now_ns)
{
    entry->seen_ns = now_ns;
    entry->origin = req->h.origin;
    entry->ret = req->ret;
}

/* Somebody else is to take it: its next alternate, or nobody. `entry` is the request's, `inflight`
 * NULL where nothing is kept of it. Where it has gone its later datagrams follow. */
static void pass_on(struct route_core *core, const struct route_table *table,
                    struct route_packet *p, struct inflight *inflight, struct inflight_entry *entry,
                    enum route_drop why, int status, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    uint64_t conn_id = h->conn_id;
    uint32_t req_seq = h->req_seq;
    stage_second_chance(core, table, p, why, status);
    if (inflight == NULL || p->action != ROUTE_SEND || p->own) {
        return;
    }
    if (entry == NULL) {
        entry = inflight_add(inflight, conn_id, req_seq, INFLIGHT_FORWARDED, now_ns);
    }
    if (entry != NULL) {
        entry->state = INFLIGHT_FORWARDED;
        entry->forwarded_to = h->target;
    }
}

/* Who has the request, and its entry there. NULL: nobody. */
static struct port *holder(const struct workers *w, const struct weft_req_hdr *h,
                           struct inflight_entry **entry)
{
    for (uint32_t i = 0; i < w->count; i++) {
        *entry = inflight_find(&w->there[i]->inflight, h->conn_id, h->req_seq);
        if (*entry != NULL) {
            return w->there[i];
        }
    }
    return NULL;
}

/* Who is to have a new request for the model. NULL: nobody here has it. */
static struct port *pick(const struct workers *w, uint32_t model)
{
    struct port *best = NULL;
    struct port_load most = {0};
    for (uint32_t i = 0; i < w->count; i++) {
        struct port *port = w->there[i];
        if (port->model != model || is_lost(port, memory_order_relaxed)) {
            continue;
        }
        struct port_load load = port_load_now(port);
        if (best == NULL || load.room > most.room ||
            (load.room == most.room && load.queue_us < most.queue_us)) {
            best = port;
            most = load;
        }
    }
    return best;
}

void workers_give(struct workers *w, struct route_core *core, const struct route_table *table,
                  struct route_packet *p, uint64_t now_ns)
{
    struct weft_req *req = &p->frame->weft.req;
    bool is_request = req->h.type == WEFT_T_REQ;
    if (!packet_udp_ok(p)) {
        route_drop(core, p, ROUTE_DROP_bad_checksum);
        return;
    }
    struct inflight_entry *entry = NULL;
    struct port *port = holder(w, &req->h, &entry);
    if (port == NULL && is_request) {
        port = pick(w, req->h.model);
    }
    if (port == NULL || is_lost(port, memory_order_relaxed)) {
        pass_on(core, table, p, NULL, NULL, ROUTE_DROP_unknown_request,
                is_request ? WEFT_E_MESH_FULL : WEFT_OK, now_ns);
        return;
    }
    struct inflight *inflight = &port->inflight;
    if (entry != NULL && entry->state == INFLIGHT_FORWARDED) {
        packet_set(p->frame, &req->h.alt1, &entry->forwarded_to, sizeof(entry->forwarded_to));
        pass_on(core, table, p, inflight, entry, ROUTE_DROP_refused, WEFT_E_MESH_FULL, now_ns);
        return;
    }
    bool again = entry != NULL && is_request && (req->h.flags & WEFT_F_RETX) != 0;
    if (port_stalled(port, now_ns) && again) {
        /* It has been given this request and reads nothing: somebody else may do better. Should it
         * wake up after all, the client cancels the second one to answer. */
        pass_on(core, table, p, inflight, entry, ROUTE_DROP_refused, WEFT_E_WORKER_LOST, now_ns);
        return;
    }
    if (entry == NULL && port_drains(port)) {
        pass_on(core, table, p, inflight, entry, ROUTE_DROP_draining, WEFT_E_DRAINING, now_ns);
        return;
    }
    if (entry == NULL && port_load_now(port).queue_us > req->h.budget_us) {
        /* The ingress knew less: its time would run out in the queue. */
        pass_on(core, table, p, inflight, entry, ROUTE_DROP_expired, WEFT_E_BUDGET_INFEASIBLE,
                now_ns);
        return;
    }
    if (entry == NULL) {
        entry = port_take(port, now_ns)
                    ? inflight_add(inflight, req->h.conn_id, req->h.req_seq, INFLIGHT_OPEN, now_ns)
                    : NULL;
        if (entry == NULL) {
            pass_on(core, table, p, inflight, entry, ROUTE_DROP_refused, WEFT_E_MESH_FULL, now_ns);
            return;
        }
    }
    remember(entry, req, now_ns);
    if (!port_push(port, p->frame->weft.bytes, p->weft_len)) {
        route_drop(core, p, ROUTE_DROP_ring_full); /* the sender repeats it */
        return;
    }
    p->action = ROUTE_LET_GO;
    route_count(&core->counters.delivered);
}

void workers_flush(struct workers *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        port_flush(w->there[i]);
    }
}

bool workers_sleep_begin(struct workers *w)
{
    bool asleep = true;
    for (uint32_t i = 0; i < w->count; i++) {
        asleep = ring_sleep_begin(&w->there[i]->to_node) && asleep;
    }
    return asleep;
}

void workers_sleep_end(struct workers *w)
{
    for (uint32_t i = 0; i < w->count; i++) {
        ring_sleep_end(&w->there[i]->to_node);
    }
}
