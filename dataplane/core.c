/* SPDX-License-Identifier: Apache-2.0 */
/* core.c - the packet path's loop. Read core_run() first: it is the architecture. See core.h. */
#include "dataplane/core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <weft/status.h>

#include "schemas/base/clock.h"
#include "schemas/base/cpu.h"

#define CORE_BURST 32u
/* Empty polls before the lcore sleeps: long enough to catch the packets of one burst, short enough
 * that idle nodes leave the CPU to their workers. */
#define CORE_IDLE_POLLS 32u
#define CORE_SLEEP_MS   1000 /* keys are changed at least this punctually */
#define CORE_EVENTS     8

static int open_fds(struct core *core)
{
    core->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    core->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (core->epoll_fd < 0 || core->wake_fd < 0) {
        return -errno;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.fd = core->wake_fd};
    if (epoll_ctl(core->epoll_fd, EPOLL_CTL_ADD, core->wake_fd, &event) != 0) {
        return -errno;
    }
    int rc = nic_watch(core->nic, core->index, core->epoll_fd);
    core->sleep_ms = rc == -ENOTSUP ? NIC_BLIND_SLEEP_MS : CORE_SLEEP_MS;
    return rc == -ENOTSUP ? 0 : rc;
}

static int open_handoff(struct core *core, struct core *owner)
{
    size_t size = (sizeof(struct handoff) + 63) / 64 * 64;
    core->to_owner = aligned_alloc(64, size);
    if (core->to_owner == NULL) {
        return -ENOMEM;
    }
    memset(core->to_owner, 0, size);
    core->owner = owner;
    owner->handed[owner->handed_count++] = core->to_owner;
    return 0;
}

int core_create(struct core **out, const struct core_options *options, uint32_t index,
                struct core *owner)
{
    *out = NULL;
    struct core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        return -ENOMEM;
    }
    core->nic = options->nic;
    core->tables = options->tables;
    core->index = index;
    core->tap = tap_hub_lcore(options->taps, index);
    core->epoll_fd = core->wake_fd = -1;
    int rc = open_fds(core);
    if (rc == 0 && owner != NULL) {
        rc = open_handoff(core, owner);
    }
    if (rc == 0) {
        rc = route_core_create(&core->route, &options->host, &options->master, clock_now_ns());
    }
    if (rc != 0) {
        core_destroy(core);
        return rc;
    }
    *out = core;
    return 0;
}

void core_destroy(struct core *core)
{
    if (core == NULL) {
        return;
    }
    route_core_destroy(core->route);
    free(core->to_owner);
    if (core->wake_fd >= 0) {
        close(core->wake_fd);
    }
    if (core->epoll_fd >= 0) {
        close(core->epoll_fd);
    }
    free(core);
}

void core_wake(struct core *core)
{
    uint64_t one = 1;
    ssize_t written = write(core->wake_fd, &one, sizeof(one));
    (void)written; /* full counter: it is awake */
}

void core_stop(struct core *core)
{
    atomic_store(&core->stop, true);
    core_wake(core);
}

int core_attach(struct core *core, struct port *port)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = port->wake_node_fd};
    if (epoll_ctl(core->epoll_fd, EPOLL_CTL_ADD, port->wake_node_fd, &event) != 0) {
        return -errno;
    }
    atomic_store_explicit(&core->incoming, port, memory_order_release);
    core_wake(core);
    return 0;
}

void core_detach(struct core *core, struct port *port)
{
    epoll_ctl(core->epoll_fd, EPOLL_CTL_DEL, port->wake_node_fd, NULL);
}

/* ---- the worker's side ---- */

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

static uint32_t poll_worker(struct core *core, const struct route_table *table,
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

static void pass_on(struct core *core, const struct route_table *table, struct route_packet *p,
                    enum route_drop why, int status, uint64_t now_ns)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    struct inflight *inflight = core->port != NULL ? &core->port->inflight : NULL;
    uint64_t conn_id = h->conn_id;
    uint32_t req_seq = h->req_seq;
    stage_second_chance(core->route, table, p, why, status);
    if (inflight == NULL || p->action != ROUTE_SEND || p->own ||
        inflight_find(inflight, conn_id, req_seq) != NULL) {
        return;
    }
    struct inflight_entry *entry =
        inflight_add(inflight, conn_id, req_seq, INFLIGHT_FORWARDED, now_ns);
    if (entry != NULL) {
        entry->forwarded_to = h->target;
    }
}

/* The worker has been given this request and reads nothing: somebody else may do better. Should it
 * wake up after all, the client cancels the second one to answer. */
static void take_away(struct core *core, const struct route_table *table, struct route_packet *p,
                      struct inflight_entry *entry)
{
    const struct weft_req_hdr *h = &p->frame->weft.req.h;
    stage_second_chance(core->route, table, p, ROUTE_DROP_refused, WEFT_E_WORKER_LOST);
    if (p->action == ROUTE_SEND && !p->own) {
        entry->state = INFLIGHT_FORWARDED;
        entry->forwarded_to = h->target;
    }
}

static void deliver_one(struct core *core, const struct route_table *table, struct route_packet *p,
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
        pass_on(core, table, p, ROUTE_DROP_unknown_request, is_request ? WEFT_E_MESH_FULL : WEFT_OK,
                now_ns);
        return;
    }
    struct inflight_entry *entry = inflight_find(&port->inflight, req->h.conn_id, req->h.req_seq);
    if (entry == NULL && !is_request) {
        pass_on(core, table, p, ROUTE_DROP_unknown_request, WEFT_OK, now_ns);
        return;
    }
    if (entry != NULL && entry->state == INFLIGHT_FORWARDED) {
        packet_set(p->frame, &req->h.alt1, &entry->forwarded_to, sizeof(entry->forwarded_to));
        pass_on(core, table, p, ROUTE_DROP_refused, WEFT_E_MESH_FULL, now_ns);
        return;
    }
    bool again = entry != NULL && is_request && (req->h.flags & WEFT_F_RETX) != 0;
    if (port_stalled(port, now_ns) && again) {
        take_away(core, table, p, entry);
        return;
    }
    if (entry == NULL && port_load_now(port).queue_us > req->h.budget_us) {
        /* The ingress knew less: its time would run out in the queue. */
        pass_on(core, table, p, ROUTE_DROP_expired, WEFT_E_BUDGET_INFEASIBLE, now_ns);
        return;
    }
    if (entry == NULL) {
        entry = port_take(port, now_ns) ? inflight_add(&port->inflight, req->h.conn_id,
                                                       req->h.req_seq, INFLIGHT_OPEN, now_ns)
                                        : NULL;
        if (entry == NULL) {
            pass_on(core, table, p, ROUTE_DROP_refused, WEFT_E_MESH_FULL, now_ns);
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

/* To the lcore that owns the worker port, which takes it from there. */
static void hand_over(struct core *core, struct route_packet *packets, uint32_t count)
{
    bool pushed = false;
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        if (p->action != ROUTE_DELIVER) {
            continue;
        }
        if (handoff_push(core->to_owner, p)) {
            p->action = ROUTE_GONE;
            pushed = true;
        } else {
            route_drop(core->route, p, ROUTE_DROP_ring_full);
        }
    }
    if (pushed) {
        /* Pairs with the fence in idle_step(): either it sees the packets, or this sees it asleep.
         */
        atomic_thread_fence(memory_order_seq_cst);
        if (atomic_exchange_explicit(&core->owner->asleep, false, memory_order_relaxed)) {
            core_wake(core->owner);
        }
    }
}

static uint32_t collect_handed(struct core *core, struct route_packet *packets, uint32_t max)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < core->handed_count; i++) {
        count += handoff_pop(core->handed[i], packets + count, max - count);
    }
    return count;
}

static void deliver(struct core *core, const struct route_table *table,
                    struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    if (core->owner != NULL) {
        hand_over(core, packets, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].action == ROUTE_DELIVER) {
            deliver_one(core, table, &packets[i], now_ns);
        }
    }
    if (core->port != NULL) {
        port_flush(core->port);
    }
}

/* ---- sleeping ---- */

/* Empties an eventfd; the driver's own descriptors are left to the driver. */
static void drain(int fd)
{
    uint64_t ignored;
    ssize_t got = read(fd, &ignored, sizeof(ignored));
    (void)got;
}

static void core_sleep(struct core *core)
{
    struct epoll_event events[CORE_EVENTS];
    publish_offline(core->tables, core->index);
    int count = epoll_wait(core->epoll_fd, events, CORE_EVENTS, core->sleep_ms);
    publish_online(core->tables, core->index);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == core->wake_fd ||
            (core->port != NULL && events[i].data.fd == core->port->wake_node_fd)) {
            drain(events[i].data.fd);
        }
    }
}

/* Counts empty polls; arms the wakers, polls once more, then sleeps. Returns the new count. */
static uint32_t idle_step(struct core *core, uint32_t idle)
{
    if (idle < CORE_IDLE_POLLS) {
        cpu_pause();
        return idle + 1;
    }
    if (idle == CORE_IDLE_POLLS) {
        nic_sleep_begin(core->nic, core->index);
        atomic_store_explicit(&core->asleep, true, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        if (core->port == NULL || ring_sleep_begin(&core->port->to_node)) {
            return idle + 1; /* armed: one more poll, then sleep */
        }
    } else {
        core_sleep(core);
    }
    return 0;
}

static void idle_end(struct core *core, uint32_t idle)
{
    if (idle >= CORE_IDLE_POLLS) {
        nic_sleep_end(core->nic, core->index);
        atomic_store_explicit(&core->asleep, false, memory_order_relaxed);
        if (core->port != NULL) {
            ring_sleep_end(&core->port->to_node);
        }
    }
}

/* ---- measuring ---- */

/* Times of one burst; `at_ns` is 0 while it is not one of those measured. */
struct stopwatch {
    uint64_t at_ns;
    uint64_t begin_ns;
    uint64_t took_ns[CORE_STAGE_COUNT];
};

static inline void watch_begin(struct stopwatch *watch, const struct core *core)
{
    watch->at_ns = core->bursts % CORE_SAMPLE_EVERY == 0 ? clock_now_ns() : 0;
    watch->begin_ns = watch->at_ns;
}

static inline void watch_mark(struct stopwatch *watch, enum core_stage stage)
{
    if (__builtin_expect(watch->at_ns != 0, 0)) {
        uint64_t now_ns = clock_now_ns();
        watch->took_ns[stage] = now_ns - watch->at_ns;
        watch->at_ns = now_ns;
    }
}

/* Empty bursts are not counted: the next one is measured in their place. */
static inline void watch_end(struct stopwatch *watch, struct core *core, uint32_t count)
{
    if (count == 0) {
        return;
    }
    core->bursts++;
    if (watch->at_ns == 0) {
        return;
    }
    watch->took_ns[CORE_STAGE_residence] = watch->at_ns - watch->begin_ns;
    for (uint32_t stage = 0; stage < CORE_STAGE_COUNT; stage++) {
        hist_add(&core->stages[stage], watch->took_ns[stage]);
    }
}

/* ---- the loop ---- */

void core_run(struct core *core)
{
    struct route_core *route = core->route;
    struct route_packet packets[3 * CORE_BURST];
    struct stopwatch watch;
    uint32_t idle = 0;
    publish_online(core->tables, core->index);
    while (!atomic_load_explicit(&core->stop, memory_order_relaxed)) {
        const struct route_table *table = publish_get(core->tables);
        uint64_t now_ns = clock_now_ns();
        seal_tick(&route->seal, now_ns);
        watch_begin(&watch, core);

        uint32_t count = nic_rx(core->nic, core->index, packets, CORE_BURST);
        watch_mark(&watch, CORE_STAGE_rx);
        tap_in(core->tap, packets, count, now_ns);
        stage_parse(route, packets, count);
        watch_mark(&watch, CORE_STAGE_parse);
        uint32_t replies = poll_worker(core, table, packets + count, CORE_BURST, now_ns);
        stage_parse_worker(route, packets + count, replies);
        tap_in_worker(core->tap, packets + count, replies);
        count += replies;
        watch_mark(&watch, CORE_STAGE_worker);

        stage_classify(route, table, packets, count, now_ns);
        watch_mark(&watch, CORE_STAGE_classify);
        stage_select(route, table, packets, count, now_ns);
        watch_mark(&watch, CORE_STAGE_select);
        count += collect_handed(core, packets + count, CORE_BURST);
        deliver(core, table, packets, count, now_ns);
        watch_mark(&watch, CORE_STAGE_deliver);
        stage_rewrite(route, table, packets, count);
        watch_mark(&watch, CORE_STAGE_rewrite);
        tap_out(core->tap, packets, count);
        for (uint32_t lost = nic_tx(core->nic, core->index, packets, count); lost > 0; lost--) {
            route_count(&route->counters.drops[ROUTE_DROP_tx_full]);
        }
        watch_mark(&watch, CORE_STAGE_tx);
        watch_end(&watch, core, count);
        if (count != 0) {
            uint64_t busy_ns = atomic_load_explicit(&core->busy_ns, memory_order_relaxed);
            atomic_store_explicit(&core->busy_ns, busy_ns + clock_now_ns() - now_ns,
                                  memory_order_relaxed);
        }

        publish_quiescent(core->tables, core->index);
        uint32_t was = idle;
        idle = count != 0 ? 0 : idle_step(core, idle);
        if (idle == 0) {
            idle_end(core, was);
        }
    }
    publish_offline(core->tables, core->index);
}
