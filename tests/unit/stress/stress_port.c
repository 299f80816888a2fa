/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress_port.c - dataplane/port/port.c between three threads, as in weftd: the control thread
 * opens ports, sees workers go and destroys what the lcore has released; the lcore hands out
 * requests and takes answers; a worker answers and dies at any moment. Each request must end
 * exactly once. The worker uses the node's own mapping, so that the thread sanitizer sees both as
 * one memory.
 */
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "dataplane/port/port.h"
#include "stress.h"

#define ANSWERS_MAX 2000u /* of one worker's life */
#define BURST       32u
#define QUIET_MS    200

static const struct port_self self = {.node_id = 2, .tier = 3, .node_name = "frankfurt"};

/* The lcore, as far as dataplane/core.c has to do with a port. */
static struct {
    struct port *_Atomic incoming;
    struct port *port;
    int wake_fd;
    uint64_t asked, answered, lost, refused;
} lcore;

static struct {
    struct port *_Atomic port; /* for the worker thread; NULL = none yet */
    _Atomic bool gone;         /* its socket is closed */
    _Atomic bool stop;
    uint64_t taken;
} worker;

/* ---- the worker ---- */

/* A full ring holds answers back; it loses none. */
static struct ring_slot *place_for_answer(struct ring_end *out, int wake_fd)
{
    struct ring_slot *slot;
    while ((slot = ring_reserve(out)) == NULL && !atomic_load(&worker.stop)) {
        if (ring_must_wake(out)) {
            stress_wake(wake_fd);
        }
        sched_yield();
    }
    return slot;
}

static void answer(struct ring_end *out, int wake_fd, const struct weft_req *req, bool last)
{
    struct ring_slot *slot = place_for_answer(out, wake_fd);
    struct weft_rsp rsp = {.h = {.ver_fmt = WEFT_VER_FMT, .type = WEFT_T_RESP}};
    rsp.h.flags = last ? WEFT_F_LAST : 0;
    rsp.h.conn_id = req->h.conn_id;
    rsp.h.req_seq = req->h.req_seq;
    if (slot != NULL) {
        slot->len = sizeof(rsp);
        memcpy(slot->data, &rsp, sizeof(rsp));
        ring_commit(out);
    }
}

static void serve(struct port *port, struct rng *rng)
{
    struct ring_end in, out;
    uint32_t left = 1 + rng_below(rng, ANSWERS_MAX);
    ring_end_init(&in, &port->shm->to_worker, port->shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&out, &port->shm->to_node, port->shm->to_node_slots, PORT_SLOTS);
    while (left > 0 && !atomic_load(&worker.stop)) {
        struct ring_slot *slot = ring_peek(&in);
        if (slot != NULL) {
            struct weft_req req;
            memcpy(&req, slot->data, sizeof(req));
            ring_release(&in);
            worker.taken++;
            left--;
            for (uint32_t parts = rng_below(rng, 3); parts > 0; parts--) {
                answer(&out, port->wake_node_fd, &req, false);
            }
            answer(&out, port->wake_node_fd, &req, true);
            struct port_load load = {.room = (uint16_t)(1 + rng_below(rng, 64))};
            uint64_t word;
            memcpy(&word, &load, sizeof(word));
            atomic_store_explicit(&port->shm->load, word, memory_order_relaxed);
        } else if (ring_must_wake(&out)) {
            stress_wake(port->wake_node_fd);
        } else if (ring_sleep_begin(&in)) {
            struct pollfd p = {.fd = port->wake_worker_fd, .events = POLLIN};
            poll(&p, 1, 20); /* also ends when the test does */
            uint64_t ignored;
            ssize_t got = read(port->wake_worker_fd, &ignored, sizeof(ignored));
            (void)got;
            ring_sleep_end(&in);
        }
    }
    /* Half of them die without a last word. */
    if (rng_below(rng, 2) == 0 && ring_must_wake(&out)) {
        stress_wake(port->wake_node_fd);
    }
}

static void *worker_main(void *arg)
{
    struct rng rng = {.state = 3};
    (void)arg;
    while (!atomic_load(&worker.stop)) {
        struct port *port = atomic_exchange(&worker.port, NULL);
        if (port == NULL) {
            usleep(50);
            continue;
        }
        serve(port, &rng);
        atomic_store(&worker.gone, true);
    }
    return NULL;
}

/* ---- the lcore ---- */

static bool take_answer(uint64_t now_ns)
{
    uint8_t datagram[WEFT_DATAGRAM_MAX];
    struct weft_rsp_hdr h;
    uint32_t len = port_pop(lcore.port, datagram, sizeof(datagram));
    if (len < sizeof(h)) {
        return len != 0;
    }
    memcpy(&h, datagram, sizeof(h));
    struct inflight_entry *e = inflight_find(&lcore.port->inflight, h.conn_id, h.req_seq);
    if (e != NULL && e->state == INFLIGHT_OPEN && (h.flags & WEFT_F_LAST) != 0) {
        e->state = INFLIGHT_FINISHED;
        e->seen_ns = now_ns;
        lcore.answered++;
    }
    return true;
}

/* Answers first, then the news that the worker is gone, then the port itself. */
static uint32_t poll_worker(uint64_t now_ns)
{
    uint32_t count = 0;
    if (lcore.port == NULL) {
        lcore.port = atomic_exchange_explicit(&lcore.incoming, NULL, memory_order_acquire);
    }
    for (; lcore.port != NULL && count < BURST; count++) {
        if (take_answer(now_ns)) {
            continue;
        }
        if (!atomic_load_explicit(&lcore.port->lost, memory_order_acquire)) {
            break;
        }
        struct inflight_entry *e =
            inflight_next_open(&lcore.port->inflight, &lcore.port->lost_cursor, now_ns);
        if (e == NULL) {
            struct port *port = lcore.port;
            lcore.port = NULL;
            atomic_store_explicit(&port->released, true, memory_order_release);
            break;
        }
        e->state = INFLIGHT_FINISHED;
        lcore.lost++;
    }
    return count;
}

static void ask(uint64_t now_ns)
{
    struct port *port = lcore.port;
    struct weft_req req = {.h = {.ver_fmt = WEFT_VER_FMT, .type = WEFT_T_REQ}};
    req.h.conn_id = 1 + lcore.asked / 1000;
    req.h.req_seq = (uint32_t)(lcore.asked++ % 1000);
    if (port == NULL || atomic_load_explicit(&port->lost, memory_order_relaxed) ||
        !port_take(port, now_ns)) {
        lcore.refused++;
        return;
    }
    struct inflight_entry *e =
        inflight_add(&port->inflight, req.h.conn_id, req.h.req_seq, INFLIGHT_OPEN, now_ns);
    if (e == NULL) {
        lcore.refused++;
    } else if (!port_push(port, &req, sizeof(req))) {
        e->state = INFLIGHT_FREE; /* here the client repeats it; there is none */
        lcore.refused++;
    }
}

/* Is there anything that somebody should have woken the lcore for? */
static bool has_work(struct port *port)
{
    return atomic_load_explicit(&lcore.incoming, memory_order_acquire) != NULL ||
           (port != NULL && (ring_peek(&port->to_node) != NULL ||
                             atomic_load_explicit(&port->lost, memory_order_acquire)));
}

/* False: there was work, and nobody woke it. A quiet time is none. */
static bool lcore_sleeps(void)
{
    struct port *port = lcore.port;
    if (port != NULL && !ring_sleep_begin(&port->to_node)) {
        return true;
    }
    struct pollfd p[2] = {{.fd = lcore.wake_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    p[1].fd = port != NULL ? port->wake_node_fd : -1;
    int count = poll(p, 2, QUIET_MS);
    if (count == 0 && has_work(port)) {
        count = poll(p, 2, STRESS_LOST_MS);
    }
    for (int i = 0; i < 2; i++) {
        uint64_t ignored;
        ssize_t got = p[i].revents != 0 ? read(p[i].fd, &ignored, sizeof(ignored)) : 0;
        (void)got;
    }
    if (port != NULL) {
        ring_sleep_end(&port->to_node);
    }
    return count > 0 || !has_work(port);
}

static _Atomic bool ending;  /* no more requests */
static _Atomic bool no_more; /* and no more ports */

static void *lcore_main(void *arg)
{
    struct rng rng = {.state = 4};
    (void)arg;
    while (!atomic_load(&no_more)) {
        uint64_t now_ns = clock_now_ns();
        uint32_t count = poll_worker(now_ns);
        bool asks = !atomic_load(&ending);
        for (uint32_t i = asks ? rng_below(&rng, BURST) : 0; i > 0; i--) {
            ask(now_ns);
        }
        if (asks && lcore.port != NULL) {
            port_flush(lcore.port);
        }
        /* Without a request under way nobody would have a reason to wake it. */
        bool waits =
            lcore.port != NULL && lcore.asked != lcore.answered + lcore.lost + lcore.refused;
        /* Once a turn at most, as in core_run(): a sleep uses up the wake-up that only the next
         * poll acts on. */
        bool sleeps = count == 0 && (!asks || (waits && rng_below(&rng, 4) == 0));
        if (sleeps && !lcore_sleeps()) {
            return "the lcore was not woken";
        }
    }
    return NULL;
}

/* ---- the control thread ---- */

static struct port *attach(void)
{
    int pair[2];
    struct port *port;
    struct port_hello hello = {
        .magic = PORT_MAGIC,
        .version = PORT_VERSION,
        .size = sizeof(hello),
        .load = {.room = 16},
        .model = "tiny",
        .backend = "cpu",
    };
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    ck_assert_int_eq(send(pair[1], &hello, sizeof(hello), 0), sizeof(hello));
    ck_assert_int_eq(port_open(&port, pair[0], &self), 0);
    close(pair[1]);
    atomic_store(&worker.gone, false);
    atomic_store(&worker.port, port);
    atomic_store_explicit(&lcore.incoming, port, memory_order_release);
    stress_wake(lcore.wake_fd);
    return port;
}

static void detach(struct port *port)
{
    while (!atomic_load(&worker.gone)) {
        usleep(50);
    }
    atomic_store_explicit(&port->lost, true, memory_order_release);
    stress_wake(lcore.wake_fd);
    uint64_t late_ns = clock_now_ns() + 2 * STRESS_LOST_MS * NS_PER_MS;
    while (!atomic_load_explicit(&port->released, memory_order_acquire)) {
        ck_assert_msg(clock_now_ns() < late_ns, "the lcore does not release its port");
        usleep(50);
    }
    port_destroy(port);
}

START_TEST(workers_come_and_die)
{
    pthread_t threads[2];
    uint64_t end_ns = stress_end_ns();
    uint64_t ports = 0;
    lcore.wake_fd = eventfd(0, EFD_NONBLOCK);
    ck_assert_int_eq(pthread_create(&threads[0], NULL, lcore_main, NULL), 0);
    ck_assert_int_eq(pthread_create(&threads[1], NULL, worker_main, NULL), 0);
    for (; clock_now_ns() < end_ns; ports++) {
        detach(attach());
    }
    struct port *last = attach();
    atomic_store(&ending, true);
    atomic_store(&worker.stop, true);
    stress_join(threads[1]);
    atomic_store(&worker.gone, true); /* it may have stopped before it saw the port */
    detach(last);
    atomic_store(&no_more, true);
    stress_wake(lcore.wake_fd);
    stress_join(threads[0]);
    close(lcore.wake_fd);
    ck_assert_uint_eq(lcore.answered + lcore.lost + lcore.refused, lcore.asked);
    ck_assert_uint_gt(lcore.answered, 0);
    ck_assert_uint_gt(ports, 0);
    printf("port: %lu workers, %lu requests: %lu answered, %lu told of a loss, %lu refused\n",
           (unsigned long)ports, (unsigned long)lcore.asked, (unsigned long)lcore.answered,
           (unsigned long)lcore.lost, (unsigned long)lcore.refused);
}
END_TEST

int main(void)
{
    return stress_main("port", workers_come_and_die);
}
