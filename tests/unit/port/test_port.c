/* SPDX-License-Identifier: Apache-2.0 */
/* test_port.c - the worker port over a real socket pair and a real memfd; requests in flight. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/port/port.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static const struct port_self self = {.node_id = 2, .tier = 3, .node_name = "frankfurt"};

/* The worker's end, as libweft has it, in its smallest form. */
struct peer {
    struct port_welcome welcome;
    int fds[PORT_FDS];
    struct port_shm *shm;
    struct ring_end from_node;
    struct ring_end to_node;
};

static struct port_hello good_hello(void)
{
    struct port_hello hello = {
        .magic = PORT_MAGIC,
        .version = PORT_VERSION,
        .size = sizeof(hello),
        .prefill_per_second = 400,
        .decode_per_second = 40,
        .load = {.room = 2, .queue_us = 9},
        .model = "tiny",
        .backend = "cpu",
        .arithmetic = 77,
    };
    return hello;
}

static void receive_welcome(int fd, struct peer *peer)
{
    char control[CMSG_SPACE(PORT_FDS * sizeof(int))];
    struct iovec iov = {.iov_base = &peer->welcome, .iov_len = sizeof(peer->welcome)};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control,
        .msg_controllen = sizeof(control),
    };
    ck_assert_int_eq(recvmsg(fd, &msg, 0), sizeof(peer->welcome));
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    ck_assert_ptr_nonnull(cmsg);
    memcpy(peer->fds, CMSG_DATA(cmsg), sizeof(peer->fds));
    peer->shm = mmap(NULL, peer->welcome.shm_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
                     peer->fds[PORT_FD_SHM], 0);
    ck_assert_ptr_ne(peer->shm, MAP_FAILED);
    ring_end_init(&peer->from_node, &peer->shm->to_worker, peer->shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&peer->to_node, &peer->shm->to_node, peer->shm->to_node_slots, PORT_SLOTS);
}

static struct port *open_port(struct peer *peer, int *peer_fd)
{
    int pair[2];
    struct port *port;
    struct port_hello hello = good_hello();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    ck_assert_int_eq(port_open(&port, pair[0], &self), -EAGAIN);
    ck_assert_int_eq(send(pair[1], &hello, sizeof(hello), 0), sizeof(hello));
    ck_assert_int_eq(port_open(&port, pair[0], &self), 0);
    receive_welcome(pair[1], peer);
    *peer_fd = pair[1];
    return port;
}

START_TEST(worker_attaches_and_exchanges)
{
    struct peer peer;
    int fd;
    struct port *port = open_port(&peer, &fd);
    ck_assert_str_eq(peer.welcome.node_name, "frankfurt");
    ck_assert_uint_eq(peer.welcome.tier, 3);
    ck_assert_uint_eq(port_load_now(port).queue_us, 9);
    ck_assert_uint_eq(port_rates_now(port).decode_per_second, 40); /* of the hello */
    struct port_rates rates = {.decode_per_second = 50};
    uint64_t word;
    memcpy(&word, &rates, sizeof(word));
    atomic_store(&peer.shm->rates, word);
    ck_assert_uint_eq(port_rates_now(port).decode_per_second, 50);
    ck_assert_uint_eq(port_rates_now(port).prefill_per_second, 400);
    ck_assert(port_push(port, "0123456789012345678901234567890123456789", 40));
    struct ring_slot *slot = ring_peek(&peer.from_node);
    ck_assert_ptr_nonnull(slot);
    ck_assert_uint_eq(slot->len, 40);
    ring_release(&peer.from_node);
    /* The other way, one good and three that are garbage. */
    uint32_t lengths[] = {100, 5, RING_DATA_MAX + 1, 0xffffffffu};
    uint8_t out[WEFT_DATAGRAM_MAX];
    for (int i = 0; i < 4; i++) {
        slot = ring_reserve(&peer.to_node);
        slot->len = lengths[i];
        ring_commit(&peer.to_node);
        ck_assert_uint_eq(port_pop(port, out, sizeof(out)), i == 0 ? 100 : 1);
    }
    ck_assert_uint_eq(port_pop(port, out, sizeof(out)), 0);
    /* Indexes out of any order: nothing is read, nothing is written. */
    atomic_store(&peer.shm->to_node.head, 0x80000000u);
    ck_assert_uint_eq(port_pop(port, out, sizeof(out)), 0);
    atomic_store(&peer.shm->to_worker.tail, 0x80000000u);
    ck_assert(!port_push(port, out, 40));
    port_destroy(port);
    close(fd);
}
END_TEST

START_TEST(memory_cannot_be_shrunk)
{
    struct peer peer;
    int fd;
    struct port *port = open_port(&peer, &fd);
    ck_assert_int_ne(ftruncate(peer.fds[PORT_FD_SHM], 4096), 0);
    ck_assert_uint_eq((unsigned)fcntl(peer.fds[PORT_FD_SHM], F_GET_SEALS) & F_SEAL_SHRINK,
                      F_SEAL_SHRINK);
    port_destroy(port);
    close(fd);
}
END_TEST

START_TEST(ring_fills_and_empties)
{
    struct peer peer;
    int fd;
    uint8_t datagram[40] = {0};
    struct port *port = open_port(&peer, &fd);
    for (uint32_t i = 0; i < PORT_SLOTS; i++) {
        ck_assert(port_push(port, datagram, sizeof(datagram)));
    }
    ck_assert(!port_push(port, datagram, sizeof(datagram)));
    ring_release(&peer.from_node);
    ck_assert(port_push(port, datagram, sizeof(datagram)));
    port_destroy(port);
    close(fd);
}
END_TEST

START_TEST(sleeping_worker_is_woken_once)
{
    struct peer peer;
    int fd;
    uint8_t datagram[40] = {0};
    struct port *port = open_port(&peer, &fd);
    struct pollfd poll_fd = {.fd = peer.fds[PORT_FD_WAKE_WORKER], .events = POLLIN};
    ck_assert(port_push(port, datagram, sizeof(datagram)));
    port_flush(port);
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 0); /* it was not asleep */
    ck_assert(!ring_sleep_begin(&peer.from_node));
    ring_release(&peer.from_node);
    ring_peek(&peer.from_node);
    ck_assert(ring_sleep_begin(&peer.from_node));
    ck_assert(port_push(port, datagram, sizeof(datagram)));
    port_flush(port);
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 1);
    port_destroy(port);
    close(fd);
}
END_TEST

/* Names that no other node takes: refused here, or nobody would ever find the worker. */
START_TEST(names_are_words)
{
    static const char *const names[] = {"two words", "new\nline", "m\xc3\xb6we", "\x7f"};
    for (size_t i = 0; i < 2 * sizeof(names) / sizeof(names[0]); i++) {
        int pair[2];
        struct port *port;
        struct port_hello hello = good_hello();
        const char *name = names[i / 2];
        memcpy(i % 2 == 0 ? hello.model : hello.backend, name, strlen(name) + 1);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
        ck_assert_int_eq(send(pair[1], &hello, sizeof(hello), 0), sizeof(hello));
        ck_assert_int_eq(port_open(&port, pair[0], &self), -EINVAL);
        close(pair[0]);
        close(pair[1]);
    }
}
END_TEST

/* Workers of an older Weft end their hello earlier, and tell no figures. */
START_TEST(an_older_worker_attaches)
{
    int pair[2];
    struct port *port;
    struct peer peer;
    struct port_hello hello = good_hello();
    hello.size = PORT_HELLO_LEAST;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    ck_assert_int_eq(send(pair[1], &hello, PORT_HELLO_LEAST, 0), PORT_HELLO_LEAST);
    ck_assert_int_eq(port_open(&port, pair[0], &self), 0);
    receive_welcome(pair[1], &peer);
    ck_assert_str_eq(port->facts.model, "tiny");
    ck_assert_uint_eq(port->facts.arithmetic, 0);
    const struct port_figures none = {0};
    const struct port_figures told = port_figures_now(port);
    ck_assert_mem_eq(&told, &none, sizeof(none));
    munmap(peer.shm, peer.welcome.shm_bytes);
    port_destroy(port);
    close(pair[1]);
}
END_TEST

START_TEST(figures_come_as_they_were_told)
{
    struct peer peer;
    int fd;
    struct port *port = open_port(&peer, &fd);
    const struct port_figures figures = {.decode_tps_2 = 1, .slots = 4, .kv_pages = 7, .loaded = 1};
    uint64_t words[PORT_FIGURE_WORDS];
    memcpy(words, &figures, sizeof(words));
    for (uint32_t i = 0; i < PORT_FIGURE_WORDS; i++) {
        atomic_store(&peer.shm->figures[i], words[i]);
    }
    const struct port_figures told = port_figures_now(port);
    ck_assert_mem_eq(&told, &figures, sizeof(figures));
    ck_assert_uint_eq(port->facts.arithmetic, 77);
    munmap(peer.shm, peer.welcome.shm_bytes);
    port_destroy(port);
    close(fd);
}
END_TEST

START_TEST(bad_hellos_are_refused)
{
    for (int i = 0; i < 6; i++) {
        int pair[2];
        struct port *port;
        struct port_hello hello = good_hello();
        size_t size = sizeof(hello);
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
        switch (i) {
        case 0:
            hello.magic = 0;
            break;
        case 1:
            hello.version++;
            break;
        case 2:
            size = PORT_HELLO_LEAST - 1;
            break;
        case 3:
            memset(hello.model, 'x', sizeof(hello.model));
            break;
        case 4:
            hello.model[0] = '\0';
            break;
        default:
            memset(hello.backend, 'x', sizeof(hello.backend));
            break;
        }
        ck_assert_int_eq(send(pair[1], &hello, size, 0), (ssize_t)size);
        ck_assert_int_eq(port_open(&port, pair[0], &self), -EPROTO);
        ck_assert_ptr_null(port);
        close(pair[0]);
        close(pair[1]);
    }
}
END_TEST

START_TEST(room_is_taken_and_comes_back)
{
    struct peer peer;
    int fd;
    struct port *port = open_port(&peer, &fd); /* room 2 */
    ck_assert(port_take(port, 1000));
    ck_assert(port_take(port, 1001));
    ck_assert(!port_take(port, 1002));
    struct port_load load = {.room = 1};
    uint64_t word;
    memcpy(&word, &load, sizeof(word));
    atomic_store(&peer.shm->load, word); /* the worker speaks */
    ck_assert(port_take(port, 1003));
    ck_assert(!port_take(port, 1004));
    ck_assert(port_take(port, 1005 + PORT_TAKEN_NS)); /* or says nothing for long */
    load.room = 0;
    memcpy(&word, &load, sizeof(word));
    atomic_store(&peer.shm->load, word);
    ck_assert(!port_take(port, 1006 + PORT_TAKEN_NS));
    port_destroy(port);
    close(fd);
}
END_TEST

START_TEST(worker_that_reads_nothing_is_stalled)
{
    struct peer peer;
    int fd;
    uint8_t datagram[100] = {0};
    struct port *port = open_port(&peer, &fd); /* room 2 */
    uint64_t now_ns = 10 * PORT_STALL_NS;
    ck_assert(!port_stalled(port, 0));
    ck_assert(!port_stalled(port, now_ns)); /* nothing to read: however long */
    ck_assert(port_push(port, datagram, sizeof(datagram)));
    ck_assert(port_push(port, datagram, sizeof(datagram)));
    ck_assert(!port_stalled(port, now_ns + PORT_STALL_NS - 1));
    ck_assert_uint_eq(port_load_now(port).room, 2);
    ck_assert(port_stalled(port, now_ns + PORT_STALL_NS));
    ck_assert_uint_eq(port_load_now(port).room, 0);
    ck_assert(!port_take(port, now_ns + PORT_STALL_NS));
    ring_release(&peer.from_node); /* it reads one */
    ck_assert(!port_stalled(port, now_ns + PORT_STALL_NS + 1));
    ck_assert_uint_eq(port_load_now(port).room, 2);
    ck_assert(port_stalled(port, now_ns + 2 * PORT_STALL_NS + 1)); /* and not the other */
    ring_release(&peer.from_node);
    ck_assert(!port_stalled(port, now_ns + 3 * PORT_STALL_NS));
    port_destroy(port);
    close(fd);
}
END_TEST

START_TEST(inflight_agrees_with_a_plain_list)
{
    enum { KEYS = 3000 };
    struct inflight *table = calloc(1, sizeof(*table));
    static bool present[KEYS];
    struct rng rng = {.state = 4};
    ck_assert_ptr_nonnull(table);
    for (int i = 0; i < 60000; i++) {
        uint32_t k = rng_below(&rng, KEYS);
        struct inflight_entry *e = inflight_find(table, 7, k);
        ck_assert_int_eq(e != NULL, present[k]);
        if (e == NULL) {
            e = inflight_add(table, 7, k, INFLIGHT_OPEN, 1);
            present[k] = e != NULL;
        } else {
            ck_assert_uint_eq(e->req_seq, k);
            e->state = INFLIGHT_FREE;
            present[k] = false;
        }
    }
    uint32_t cursor = 0;
    uint32_t open = 0;
    uint32_t expected = 0;
    while (inflight_next_open(table, &cursor, 1) != NULL) {
        open++;
    }
    for (int k = 0; k < KEYS; k++) {
        expected += present[k];
    }
    ck_assert_uint_eq(open, expected);
    free(table);
}
END_TEST

/* Half of the room is taken by clients whose requests have numbers in a row: nobody is turned away,
 * and all are found again. */
START_TEST(half_full_turns_nobody_away)
{
    struct rng rng = {.state = 9};
    for (uint32_t round = 0; round < 4; round++) {
        struct inflight *table = calloc(1, sizeof(*table));
        uint64_t conn_id = rng_next(&rng);
        for (uint32_t k = 1; k <= INFLIGHT_SLOTS / 2; k++) {
            ck_assert_ptr_nonnull(inflight_add(table, conn_id, k, INFLIGHT_OPEN, 1));
        }
        for (uint32_t k = 1; k <= INFLIGHT_SLOTS / 2; k++) {
            ck_assert_ptr_nonnull(inflight_find(table, conn_id, k));
        }
        ck_assert_ptr_null(inflight_find(table, conn_id, 0));
        free(table);
    }
}
END_TEST

START_TEST(open_requests_are_never_pushed_out)
{
    struct inflight *table = calloc(1, sizeof(*table));
    uint32_t added = 0;
    for (uint32_t k = 0; k < 2 * INFLIGHT_SLOTS; k++) {
        added += inflight_add(table, 7, k, INFLIGHT_OPEN, 1) != NULL;
    }
    ck_assert_uint_le(added, INFLIGHT_SLOTS);
    ck_assert_uint_gt(added, INFLIGHT_SLOTS * 3 / 4);
    /* Once they have been silent for long, others may have their place. */
    ck_assert_ptr_nonnull(inflight_add(table, 8, 1, INFLIGHT_OPEN, 2 + INFLIGHT_LIFE_NS));
    inflight_clear(table);
    /* Finished ones go before open ones. */
    for (uint32_t k = 0; k < 2 * INFLIGHT_SLOTS; k++) {
        ck_assert_ptr_nonnull(inflight_add(table, 7, k, INFLIGHT_FINISHED, k));
    }
    free(table);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("port");
    TCase *tc = tcase_create("port");
    tcase_add_test(tc, worker_attaches_and_exchanges);
    tcase_add_test(tc, memory_cannot_be_shrunk);
    tcase_add_test(tc, ring_fills_and_empties);
    tcase_add_test(tc, sleeping_worker_is_woken_once);
    tcase_add_test(tc, names_are_words);
    tcase_add_test(tc, an_older_worker_attaches);
    tcase_add_test(tc, figures_come_as_they_were_told);
    tcase_add_test(tc, bad_hellos_are_refused);
    tcase_add_test(tc, room_is_taken_and_comes_back);
    tcase_add_test(tc, worker_that_reads_nothing_is_stalled);
    tcase_add_test(tc, inflight_agrees_with_a_plain_list);
    tcase_add_test(tc, half_full_turns_nobody_away);
    tcase_add_test(tc, open_requests_are_never_pushed_out);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
