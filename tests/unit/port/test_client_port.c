/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_port.c - a local client's port over a real socket pair and memory: both ends, and
 * ends that do what they should not. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/port/client_port.h"
#include "tests/unit/suite.h"

static const struct port_self self = {.node_id = 2, .tier = 3, .node_name = "frankfurt"};

/* The client's end in its smallest form. */
struct peer {
    int fd;
    int wake_node;
    struct port_welcome welcome;
    struct port_client_shm *shm;
    struct ring_end in, out;
};

static struct port_client_hello good_hello(void)
{
    return (struct port_client_hello){.magic = PORT_CLIENT_MAGIC,
                                      .version = PORT_CLIENT_VERSION,
                                      .size = sizeof(struct port_client_hello),
                                      .program = "test"};
}

static struct client_port *open_port(struct peer *peer, const char *program)
{
    int pair[2], fds[PORT_CLIENT_FDS];
    char control[CMSG_SPACE(sizeof(fds))];
    struct iovec iov = {.iov_base = &peer->welcome, .iov_len = sizeof(peer->welcome)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct port_client_hello hello = good_hello();
    struct client_port *port;
    memset(hello.program, 0, sizeof(hello.program));
    memcpy(hello.program, program, strnlen(program, sizeof(hello.program)));
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    ck_assert_int_eq(port_kind(pair[0]), -EAGAIN);
    ck_assert_int_eq(client_port_open(&port, pair[0], &self), -EAGAIN);
    ck_assert_int_eq(send(pair[1], &hello, sizeof(hello), 0), sizeof(hello));
    ck_assert_int_eq(port_kind(pair[0]), PORT_KIND_CLIENT);
    ck_assert_int_eq(client_port_open(&port, pair[0], &self), 0);
    ck_assert_int_eq(recvmsg(pair[1], &msg, 0), sizeof(peer->welcome));
    memcpy(fds, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fds));
    peer->fd = pair[1];
    peer->wake_node = fds[PORT_CLIENT_FD_WAKE_NODE];
    ck_assert_uint_eq(peer->welcome.shm_bytes, sizeof(*peer->shm));
    peer->shm = mmap(NULL, sizeof(*peer->shm), PROT_READ | PROT_WRITE, MAP_SHARED,
                     fds[PORT_CLIENT_FD_SHM], 0);
    ck_assert_ptr_ne(peer->shm, MAP_FAILED);
    ck_assert_int_ne(ftruncate(fds[PORT_CLIENT_FD_SHM], 4096), 0);
    close(fds[PORT_CLIENT_FD_SHM]);
    ring_end_init(&peer->in, &peer->shm->to_client, peer->shm->to_client_slots, PORT_CLIENT_SLOTS);
    ring_end_init(&peer->out, &peer->shm->to_node, peer->shm->to_node_slots, PORT_CLIENT_SLOTS);
    return port;
}

static void close_port(struct client_port *port, struct peer *peer)
{
    client_port_destroy(port);
    munmap(peer->shm, sizeof(*peer->shm));
    close(peer->wake_node);
    share_close(peer->fd);
}

static bool readable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, 0) == 1;
}

START_TEST(client_attaches_and_exchanges)
{
    struct peer peer;
    uint8_t data[WEFT_DATAGRAM_MAX] = {1, 2, 3};
    struct client_port *port = open_port(&peer, "a\x1b[31mname\xff");
    ck_assert_str_eq(port->program, "a?[31mname?");
    ck_assert_int_eq(port->pid, getpid());
    ck_assert_uint_eq(port->uid, getuid());
    ck_assert_str_eq(peer.welcome.node_name, "frankfurt");
    ck_assert(client_port_push(port, data, 200));
    struct ring_slot *slot = ring_peek(&peer.in);
    ck_assert_uint_eq(slot->len, 200);
    ck_assert_mem_eq(slot->data, data, 200);
    ring_release(&peer.in);
    /* The other way, one good and three that are garbage. */
    uint32_t lengths[] = {100, 5, WEFT_DATAGRAM_MAX + 1, 0xffffffffu};
    for (int i = 0; i < 4; i++) {
        ring_reserve(&peer.out)->len = lengths[i];
        ring_commit(&peer.out);
        ck_assert_uint_eq(client_port_pop(port, data, sizeof(data)), i == 0 ? 100 : 1);
    }
    ck_assert_uint_eq(client_port_pop(port, data, sizeof(data)), 0);
    ck_assert_uint_eq(atomic_load(&port->taken), 4);
    /* Indexes out of any order: nothing is read, nothing is written. */
    atomic_store(&peer.shm->to_node.head, 0x80000000u);
    ck_assert_uint_eq(client_port_pop(port, data, sizeof(data)), 0);
    atomic_store(&peer.shm->to_client.tail, 0x80000000u);
    ck_assert(!client_port_push(port, data, 40));
    ck_assert_uint_eq(atomic_load(&port->given), 1);
    ck_assert_uint_eq(atomic_load(&port->full), 1);
    close_port(port, &peer);
}
END_TEST

START_TEST(long_names_end)
{
    struct peer peer;
    struct client_port *port = open_port(&peer, "a name that is exactly 32 bytes!");
    ck_assert_uint_eq(strlen(port->program), PORT_PROGRAM_MAX - 1);
    close_port(port, &peer);
    port = open_port(&peer, "");
    ck_assert_str_eq(port->program, "?");
    close_port(port, &peer);
}
END_TEST

START_TEST(sleeping_client_is_woken_once)
{
    struct peer peer;
    uint8_t data[40] = {0};
    char byte;
    struct client_port *port = open_port(&peer, "test");
    ck_assert(client_port_push(port, data, sizeof(data)));
    client_port_flush(port);
    ck_assert(!readable(peer.fd)); /* it was not asleep */
    ck_assert(!ring_sleep_begin(&peer.in));
    ring_release(&peer.in);
    ck_assert(ring_sleep_begin(&peer.in));
    client_port_flush(port);
    ck_assert(!readable(peer.fd)); /* nothing to wake it for */
    for (int i = 0; i < 3; i++) {
        ck_assert(client_port_push(port, data, sizeof(data)));
        client_port_flush(port);
    }
    ck_assert_int_eq(recv(peer.fd, &byte, 1, MSG_DONTWAIT), 1);
    ck_assert_int_eq(recv(peer.fd, &byte, 1, MSG_DONTWAIT), -1);
    close_port(port, &peer);
}
END_TEST

/* Whatever a client does to what it shares with the node, waking it never waits, and never kills:
 * the case would hang, or end by SIGPIPE. */
START_TEST(waking_never_waits)
{
    struct peer peer;
    uint8_t data[40] = {0};
    struct client_port *port = open_port(&peer, "test");
    uint64_t most = UINT64_MAX - 1;
    signal(SIGPIPE, SIG_DFL);
    ck_assert_int_eq(fcntl(peer.fd, F_SETFL, 0), 0); /* its own end blocks */
    ck_assert_int_eq(fcntl(peer.wake_node, F_SETFL, 0), 0);
    ck_assert_int_eq(write(peer.wake_node, &most, sizeof(most)), sizeof(most));
    for (int i = 0; i < 5000; i++) { /* says that it sleeps, and never reads its socket */
        atomic_store(&peer.shm->to_client.asleep, 1);
        (void)client_port_push(port, data, sizeof(data));
        port->pushed = true;
        client_port_flush(port);
    }
    ck_assert_uint_eq(atomic_load(&port->given), PORT_CLIENT_SLOTS);
    ck_assert_uint_eq(atomic_load(&port->full), 5000 - PORT_CLIENT_SLOTS);
    close(peer.fd); /* gone */
    peer.fd = -1;
    for (int i = 0; i < 3; i++) {
        atomic_store(&peer.shm->to_client.asleep, 1);
        port->pushed = true;
        client_port_flush(port);
    }
    close_port(port, &peer);
}
END_TEST

START_TEST(bad_hellos_are_refused)
{
    for (int i = 0; i < 5; i++) {
        int pair[2];
        struct client_port *port;
        struct port_client_hello hello = good_hello();
        size_t size = sizeof(hello);
        hello.magic += i == 0;
        hello.version = (uint16_t)(hello.version + (i == 1));
        size -= i == 2 ? 1 : i == 3 ? sizeof(hello) - 3 : 0;
        hello.size = (uint16_t)(hello.size - (i == 4));
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
        ck_assert_int_eq(send(pair[1], &hello, size, 0), (ssize_t)size);
        ck_assert_int_eq(port_kind(pair[0]), i == 0 || i == 3 ? -EPROTO : PORT_KIND_CLIENT);
        ck_assert_int_eq(client_port_open(&port, pair[0], &self), -EPROTO);
        ck_assert_ptr_null(port);
        close(pair[1]);
        ck_assert_int_eq(port_kind(pair[0]), -EPIPE);
        close(pair[0]);
    }
}
END_TEST

/* Whoever is one too many is told so, its hello read or not. */
START_TEST(refusals_arrive)
{
    const struct port_client_hello hello = good_hello();
    struct port_welcome welcome = {0};
    int pair[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    ck_assert_int_eq(send(pair[1], &hello, sizeof(hello), 0), sizeof(hello));
    ck_assert_int_eq(port_kind(pair[0]), PORT_KIND_CLIENT);
    port_refuse(pair[0], -EBUSY);
    ck_assert_int_eq(recv(pair[1], &welcome, sizeof(welcome), 0), sizeof(welcome));
    ck_assert_int_eq(welcome.status, -EBUSY);
    ck_assert_int_eq(recv(pair[1], &welcome, sizeof(welcome), 0), 0);
    close(pair[1]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("client_port");
    TCase *tc = tcase_create("client_port");
    tcase_add_test(tc, client_attaches_and_exchanges);
    tcase_add_test(tc, long_names_end);
    tcase_add_test(tc, sleeping_client_is_woken_once);
    tcase_add_test(tc, waking_never_waits);
    tcase_add_test(tc, bad_hellos_are_refused);
    tcase_add_test(tc, refusals_arrive);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
