/* SPDX-License-Identifier: Apache-2.0 */
/* core_worker.c - the lcore's dealings with the local worker: what it answers, what it is given,
 * and who else gets what it cannot take. Lcore 0 alone has a worker port. See core_impl.h. */
#include <string.h>
#include <weft/status.h>

#include "dataplane/core_impl.h"

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

/* One datagram of the worker's into the packet. False: there is none. */
static bool pop_reply(struct core *core, struct route_packet *p, uint64_t now_ns)
{
    uint32_t len = port_pop(core->port, p->frame->weft.bytes, WEFT_DATAGRAM_MAX);
    if (len == 0) {
        return false;
    }
    p->weft_len = (uint16_t)len;
    if (len < sizeof(struct weft_rsp)) {
        return true; /* stage_parse_worker() counts it */
    }
    struct weft_rsp *rsp = &p->frame->weft.rsp;
    struct inflight_entry *entry =
        inflight_find(&core->port->inflight, rsp->h.conn_id, rsp->h.req_seq);
    if (entry == NULL || entry->state == INFLIGHT_FORWARDED) {
        p->weft_len = 1; /* it answers what it was never asked */
        return true;
    }
    entry->seen_ns = now_ns;
    if (rsp->h.type == WEFT_T_REJECT ||
        (rsp->h.type == WEFT_T_RESP && (rsp->h.flags & WEFT_F_LAST) != 0)) {
        entry->state = INFLIGHT_FINISHED;
    }
    return true;
}

/* The worker has gone: what it still had in the ring goes out, then every open request is told. */
static bool next_reply(struct core *core, const struct route_table *table, struct route_packet *p,
                       uint64_t now_ns)
{
    if (pop_reply(core, p, now_ns)) {
        return true;
    }
    if (!atomic_load_explicit(&core->port->lost, memory_order_acquire)) {
        return false;
    }
    struct inflight_entry *entry =
        table == NULL ? NULL
                      : inflight_next_open(&core->port->inflight, &core->port->lost_cursor, now_ns);
    if (entry == NULL) {
        struct port *port = core->port;
        core->port = NULL;
        atomic_store_explicit(&port->released, true, memory_order_release);
        return false;
    }
    compose_lost(table, entry, p);
    return true;
}

/* The local worker's load is read where it lies, not learnt from beacons. */
static void learn_local(struct core *core, const struct route_table *table, uint64_t now_ns)
{
    struct port_load load = port_load_now(core->port);
    uint64_t word;
    memcpy(&word, &load, sizeof(word));
    if (table == NULL || word == core->local_word) {
        return;
    }
    core->local_word = word;
    core->route->loads[table->nodes[table->self].id] = (struct route_load){
        .heard_ns = now_ns,
        .queue_us = load.queue_us,
        .room = load.room,
        .free_vram_64mib = load.free_vram_64mib,
    };
}

uint32_t worker_poll(struct core *core, const struct route_table *table,
                     struct route_packet *packets, uint32_t max, uint64_t now_ns)
{
    if (core->port == NULL) {
        core->port = atomic_exchange_explicit(&core->incoming, NULL, memory_order_acquire);
    }
    if (core->port != NULL) {
        (void)port_stalled(core->port, now_ns);
        learn_local(core, table, now_ns);
    }
    uint32_t count = 0;
    while (core->port != NULL && count < max && nic_alloc(core->nic, &packets[count])) {
        if (!next_reply(core, table, &packets[count], now_ns)) {
            packets[count].action = ROUTE_LET_GO;
            nic_tx(core->nic, core->index, &packets[count], 1); /* gives the buffer back */
            break;
        }
        count++;
    }
    return count;
}

static void remember(struct inflight_entry *entry, const struct weft_req *req, uint64_t now_ns)
{
    entry->seen_ns = now_ns;
    entry->origin = req->h.origin;
    entry->ret = req->ret;
}

/* Somebody else is to take it: its next alternate, or nobody. `entry` is the request's, `inflight`
 * NULL where nothing is kept of it. Where it has gone its later datagrams follow. */
static void pass_on(struct core *core, const struct route_table *table, struct route_packet *p,
                    struct inflight *inflight, struct inflight_entry *entry, enum route_drop why,
                    int status, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    uint64_t conn_id = h->conn_id;
    uint32_t req_seq = h->req_seq;
    stage_second_chance(core->route, table, p, why, status);
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

void worker_give(struct core *core, const struct route_table *table, struct route_packet *p,
                 uint64_t now_ns)
{
    struct weft_req *req = &p->frame->weft.req;
    struct port *port = core->port;
    bool is_request = req->h.type == WEFT_T_REQ;
    if (!packet_udp_ok(p)) {
        route_drop(core->route, p, ROUTE_DROP_bad_checksum);
        return;
    }
    if (port == NULL || atomic_load_explicit(&port->lost, memory_order_relaxed)) {
        pass_on(core, table, p, NULL, NULL, ROUTE_DROP_unknown_request,
                is_request ? WEFT_E_MESH_FULL : WEFT_OK, now_ns);
        return;
    }
    struct inflight *inflight = &port->inflight;
    struct inflight_entry *entry = inflight_find(inflight, req->h.conn_id, req->h.req_seq);
    if (entry == NULL && !is_request) {
        pass_on(core, table, p, inflight, entry, ROUTE_DROP_unknown_request, WEFT_OK, now_ns);
        return;
    }
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
        route_drop(core->route, p, ROUTE_DROP_ring_full); /* the sender repeats it */
        return;
    }
    p->action = ROUTE_LET_GO;
    route_count(&core->route->counters.delivered);
}
