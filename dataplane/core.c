/* SPDX-License-Identifier: Apache-2.0 */
/* core.c - the packet path's loop. Read core_run() first: it is the architecture. See core.h. */
#include "dataplane/core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

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
    core_place(core, true, true, options->host.mac);
    core->placed = atomic_load(&core->place);
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

void core_place(struct core *core, bool v4, bool v6, const uint8_t mac[6])
{
    uint64_t place = (v4 ? CORE_PLACE_V4 : 0) | (v6 ? CORE_PLACE_V6 : 0);
    memcpy(&place, mac, 6); /* the lower 48 bits: little-endian */
    atomic_store_explicit(&core->place, place, memory_order_relaxed);
}

/* All that changes lies in one word, so that no order of stores matters. */
static __attribute__((noinline)) void take_place(struct core *core, uint64_t place)
{
    core->placed = place;
    memcpy(core->route->host.mac, &place, sizeof(core->route->host.mac));
    route_core_answer(core->route, (place & CORE_PLACE_V4) != 0, (place & CORE_PLACE_V6) != 0);
}

void core_stop(struct core *core)
{
    atomic_store(&core->stop, true);
    core_wake(core);
}

/* The other end may do to this descriptor what it likes, even make it block: nobody reads it. Each
 * write to it is one event (edge-triggered), however much lies there. */
static int watch_port(struct core *core, int wake_fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = wake_fd};
    return epoll_ctl(core->epoll_fd, EPOLL_CTL_ADD, wake_fd, &event) == 0 ? 0 : -errno;
}

int core_attach(struct core *core, struct port *port)
{
    int rc = watch_port(core, port->wake_node_fd);
    if (rc != 0) {
        return rc;
    }
    workers_attach(&core->workers, port);
    core_wake(core);
    return 0;
}

void core_detach(struct core *core, struct port *port)
{
    epoll_ctl(core->epoll_fd, EPOLL_CTL_DEL, port->wake_node_fd, NULL);
}

int core_attach_client(struct core *core, struct client_port *port)
{
    int rc = watch_port(core, port->wake_node_fd);
    if (rc != 0) {
        return rc;
    }
    local_attach(&core->local, port);
    core_wake(core);
    return 0;
}

void core_detach_client(struct core *core, struct client_port *port)
{
    epoll_ctl(core->epoll_fd, EPOLL_CTL_DEL, port->wake_node_fd, NULL);
}

/* ---- between lcores ---- */

/* To the lcore that owns the ports, which takes it from there. */
static void hand_over(struct core *core, struct route_packet *packets, uint32_t count)
{
    bool pushed = false;
    for (uint32_t i = 0; i < count; i++) {
        struct route_packet *p = &packets[i];
        if (p->action != ROUTE_DELIVER && !local_bound(p)) {
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

/* To local workers, and to local clients, also what no worker could take and was answered. */
static void deliver(struct core *core, const struct route_table *table,
                    struct route_packet *packets, uint32_t count, uint64_t now_ns)
{
    if (core->owner != NULL) {
        hand_over(core, packets, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (packets[i].action == ROUTE_DELIVER) {
            workers_give(&core->workers, core->route, table, &packets[i], now_ns);
        }
    }
    workers_flush(&core->workers);
    local_deliver(&core->local, core->route, packets, count, core->tap->current != NULL);
    local_flush(&core->local);
}

/* ---- local workers and clients ---- */

/* What workers answer, each in a buffer of the port's. */
static uint32_t take_answers(struct core *core, const struct route_table *table,
                             struct route_packet *packets, uint32_t max, uint64_t now_ns)
{
    uint32_t count = 0;
    workers_look(&core->workers, core->route, table, now_ns);
    while (core->workers.count != 0 && count < max && nic_alloc(core->nic, &packets[count])) {
        if (!workers_next(&core->workers, table, &packets[count], now_ns)) {
            packets[count].action = ROUTE_LET_GO;
            nic_tx(core->nic, core->index, &packets[count], 1); /* gives the buffer back */
            break;
        }
        count++;
    }
    return count;
}

/* Their datagrams behind the `count` packets of the burst, each in a buffer of the port's. */
static uint32_t take_local(struct core *core, struct route_packet *packets, uint32_t max)
{
    uint32_t wanted = local_waiting(&core->local, max);
    uint32_t count = 0;
    while (count < wanted && nic_alloc(core->nic, &packets[count])) {
        count++;
    }
    uint32_t taken = count != 0 ? local_take(&core->local, core->route, packets, count) : 0;
    for (uint32_t i = taken; i < count; i++) {
        packets[i].action = ROUTE_LET_GO;
    }
    if (taken < count) {
        nic_tx(core->nic, core->index, packets + taken, count - taken); /* gives them back */
    }
    stage_parse_local(core->route, packets, taken);
    return taken;
}

/* ---- sleeping ---- */

static void core_sleep(struct core *core)
{
    struct epoll_event events[CORE_EVENTS];
    publish_offline(core->tables, core->index);
    int count = epoll_wait(core->epoll_fd, events, CORE_EVENTS, core->sleep_ms);
    publish_online(core->tables, core->index);
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == core->wake_fd) { /* the others are left to the driver */
            uint64_t ignored;
            ssize_t got = read(core->wake_fd, &ignored, sizeof(ignored));
            (void)got;
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
        bool armed = workers_sleep_begin(&core->workers);
        if (local_sleep_begin(&core->local) && armed) {
            return idle + 1; /* one more poll, then sleep */
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
        workers_sleep_end(&core->workers);
        local_sleep_end(&core->local);
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
    struct route_packet packets[4 * CORE_BURST];
    struct stopwatch watch;
    uint32_t idle = 0;
    publish_online(core->tables, core->index);
    while (!atomic_load_explicit(&core->stop, memory_order_relaxed)) {
        const struct route_table *table = publish_get(core->tables, core->index);
        uint64_t now_ns = clock_now_ns();
        uint64_t place = atomic_load_explicit(&core->place, memory_order_relaxed);
        if (__builtin_expect(place != core->placed, 0)) {
            take_place(core, place);
        }
        seal_tick(&route->seal, now_ns);
        watch_begin(&watch, core);

        uint32_t count = nic_rx(core->nic, core->index, packets, CORE_BURST);
        watch_mark(&watch, CORE_STAGE_rx);
        tap_in(core->tap, packets, count, now_ns);
        stage_parse(route, packets, count);
        watch_mark(&watch, CORE_STAGE_parse);
        uint32_t replies = take_answers(core, table, packets + count, CORE_BURST, now_ns);
        stage_parse_worker(route, packets + count, replies);
        tap_in_worker(core->tap, packets + count, replies);
        count += replies;
        uint32_t local = take_local(core, packets + count, CORE_BURST);
        tap_in_local(core->tap, packets + count, local);
        count += local;
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
