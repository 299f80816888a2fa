/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stress_local.c - dataplane/local.c and port/client_port.c between four threads: the control
 * thread opens ports, sees clients go and destroys what the lcore has released; the lcore gives
 * every datagram back to its client; two clients send, sleep, and die at any moment. A client uses
 * the node's own mapping, so that the thread sanitizer sees both as one memory.
 */
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "stress.h"
#include "tests/unit/port/local_fixture.h"

#define CLIENTS    2u
#define ROUNDS_MAX 3000u /* of one client's life */
#define AHEAD      64u   /* datagrams under way */
#define SELF       2u

static const struct port_self self = {.node_id = SELF, .tier = 3, .node_name = "frankfurt"};

static struct local local;
static struct route_core *core;
static int epoll_fd, wake_fd;
static _Atomic bool no_more;

static struct client {
    struct client_port *_Atomic port; /* for its thread; NULL = none yet */
    int fd;                           /* its end of the socket */
    _Atomic bool gone;
    uint64_t exchanged;
    uint64_t slept;
} clients[CLIENTS];
static _Atomic bool stop;

/* ---- a client ---- */

static bool send_one(struct ring_end *out, struct client_port *port, uint64_t number)
{
    struct ring_slot *slot = ring_reserve(out);
    struct weft_req req = {.h = {.conn_id = number}};
    if (slot == NULL) {
        return false;
    }
    memcpy(slot->data, &req, sizeof(req));
    slot->len = (uint32_t)sizeof(req) + (uint32_t)(number % 1000);
    ring_commit(out);
    if (ring_must_wake(out)) {
        stress_wake(port->wake_node_fd);
    }
    return true;
}

/* As libweft does it. False: nobody woke it. */
static bool client_sleeps(struct client *c, struct ring_end *in)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    char byte;
    if (!ring_sleep_begin(in)) {
        return true;
    }
    c->slept++;
    if (poll(&p, 1, STRESS_LOST_MS) != 1) {
        return false;
    }
    ssize_t got = recv(c->fd, &byte, 1, MSG_DONTWAIT);
    (void)got;
    ring_sleep_end(in);
    return true;
}

static const char *live(struct client *c, struct client_port *port, struct rng *rng)
{
    struct ring_end in, out;
    uint64_t sent = 0, heard = 0, rounds = 1 + rng_below(rng, ROUNDS_MAX);
    ring_end_init(&in, &port->shm->to_client, port->shm->to_client_slots, PORT_CLIENT_SLOTS);
    ring_end_init(&out, &port->shm->to_node, port->shm->to_node_slots, PORT_CLIENT_SLOTS);
    while (rounds-- > 0 && !atomic_load(&stop)) {
        for (uint32_t n = rng_below(rng, 8); n > 0 && sent - heard < AHEAD; n--) {
            sent += send_one(&out, port, sent) ? 1 : 0;
        }
        struct ring_slot *slot;
        while ((slot = ring_peek(&in)) != NULL) {
            struct weft_req_hdr h;
            memcpy(&h, slot->data, sizeof(h));
            if (h.conn_id != heard ||
                slot->len != sizeof(struct weft_req) + (uint32_t)(heard % 1000)) {
                return "a datagram was lost, repeated or another client's";
            }
            ring_release(&in);
            heard++;
            c->exchanged++;
        }
        if (sent != heard && rng_below(rng, 4) == 0 && !client_sleeps(c, &in)) {
            return "a client was not woken";
        }
    }
    return NULL; /* with what is under way: dead */
}

static void *client_main(void *arg)
{
    struct client *c = arg;
    struct rng rng = {.state = 5 + (uint64_t)(c - clients)};
    while (!atomic_load(&stop)) {
        struct client_port *port = atomic_exchange(&c->port, NULL);
        if (port == NULL) {
            usleep(50);
            continue;
        }
        const char *failure = live(c, port, &rng);
        atomic_store(&c->gone, true);
        if (failure != NULL) {
            return (void *)(uintptr_t)failure;
        }
    }
    return NULL;
}

/* ---- the lcore ---- */

static uint32_t turn(struct route_packet *packets)
{
    uint32_t count = local_waiting(&local, HAND_BURST);
    for (uint32_t i = 0; i < count; i++) {
        packet_attach(&packets[i], (uint8_t *)&hand_places[i].frame + ROUTE_START_IPV4, 0);
    }
    count = local_take(&local, core, packets, count);
    for (uint32_t i = 0; i < count; i++) {
        packets[i].action = ROUTE_SEND;
        packets[i].to = ROUTE_TO_SENDER;
        packets[i].own = true;
    }
    local_deliver(&local, core, packets, count, false);
    local_flush(&local);
    return count;
}

static void *lcore_main(void *arg)
{
    static struct route_packet packets[HAND_BURST];
    struct epoll_event events[8];
    (void)arg;
    while (!atomic_load(&no_more)) {
        if (turn(packets) != 0 || !local_sleep_begin(&local)) {
            continue;
        }
        int count = epoll_wait(epoll_fd, events, 8, STRESS_LOST_MS);
        for (int i = 0; i < count; i++) {
            uint64_t ignored;
            ssize_t got =
                events[i].data.fd == wake_fd ? read(wake_fd, &ignored, sizeof(ignored)) : 0;
            (void)got;
        }
        local_sleep_end(&local);
    }
    return NULL;
}

/* ---- the control thread ---- */

static void watch(int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.fd = fd};
    ck_assert_int_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event), 0);
}

static struct client_port *attach(uint32_t slot, uint32_t generation)
{
    int pair[2];
    struct client_port *port;
    struct client *c = &clients[slot];
    struct port_client_hello hello = {.magic = PORT_CLIENT_MAGIC,
                                      .version = PORT_CLIENT_VERSION,
                                      .size = sizeof(hello),
                                      .program = "stress"};
    struct port_welcome welcome;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    ck_assert_int_eq(send(pair[1], &hello, sizeof(hello), 0), sizeof(hello));
    ck_assert_int_eq(client_port_open(&port, pair[0], &self), 0);
    ck_assert_int_eq(recv(pair[1], &welcome, sizeof(welcome), 0), sizeof(welcome));
    port->slot = slot;
    port->generation = generation;
    watch(port->wake_node_fd, EPOLLIN | EPOLLET);
    local_attach(&local, port);
    stress_wake(wake_fd);
    c->fd = pair[1];
    atomic_store(&c->gone, false);
    atomic_store(&c->port, port);
    return port;
}

static void detach(struct client_port *port)
{
    uint64_t late_ns = clock_now_ns() + 2 * STRESS_LOST_MS * NS_PER_MS;
    atomic_store_explicit(&port->lost, true, memory_order_release);
    stress_wake(wake_fd);
    while (!atomic_load_explicit(&port->released, memory_order_acquire)) {
        ck_assert_msg(clock_now_ns() < late_ns, "the lcore does not release a port");
        usleep(50);
    }
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, port->wake_node_fd, NULL);
    close(clients[port->slot].fd);
    client_port_destroy(port);
}

START_TEST(clients_come_and_die)
{
    pthread_t lcore, threads[CLIENTS];
    struct client_port *ports[CLIENTS];
    uint32_t generation = 0;
    uint64_t end_ns = stress_end_ns();
    core = fixture_core(SELF);
    epoll_fd = epoll_create1(0);
    wake_fd = eventfd(0, EFD_NONBLOCK);
    watch(wake_fd, EPOLLIN);
    ck_assert_int_eq(pthread_create(&lcore, NULL, lcore_main, NULL), 0);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        ports[i] = attach(i, ++generation);
        ck_assert_int_eq(pthread_create(&threads[i], NULL, client_main, &clients[i]), 0);
    }
    while (clock_now_ns() < end_ns) {
        for (uint32_t i = 0; i < CLIENTS; i++) {
            if (atomic_load(&clients[i].gone)) {
                detach(ports[i]);
                ports[i] = attach(i, ++generation);
            }
        }
        usleep(50);
    }
    atomic_store(&stop, true);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        stress_join(threads[i]);
        detach(ports[i]);
        ck_assert_uint_gt(clients[i].exchanged, 0);
    }
    atomic_store(&no_more, true);
    stress_wake(wake_fd);
    stress_join(lcore);
    ck_assert_uint_eq(local.count, 0);
    printf("local: %u clients, %lu datagrams there and back, %lu sleeps\n", generation,
           (unsigned long)(clients[0].exchanged + clients[1].exchanged),
           (unsigned long)(clients[0].slept + clients[1].slept));
    route_core_destroy(core);
    close(wake_fd);
    close(epoll_fd);
}
END_TEST

int main(void)
{
    return stress_main("local", clients_come_and_die);
}
