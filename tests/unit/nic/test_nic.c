/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_nic.c - the DPDK port on a real veth pair in a network namespace of its own, and table
 * publishing between two threads. EAL starts once per process and does not survive fork: one
 * binary, CK_FORK=no. Skipped (77) where a namespace may not be made.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/nic/guard.h"
#include "dataplane/nic/neighbour.h"
#include "dataplane/nic/nic.h"
#include "dataplane/nic/publish.h"

#define SKIPPED        77
#define BURST          32u
#define TEST_ETHERTYPE 0x88b5 /* IEEE's for local experiments */

static struct nic *nic;
static int epoll_fd;
static int peer_fd; /* packet socket on the other end of the pair */

static int make_network(void)
{
    static const char *const commands =
        "ip link add w0 type veth peer name w1 && ip link set w0 up && ip link set w1 up && "
        "ip addr add 10.9.0.1/24 dev w0 && "
        "ip route add 10.8.0.0/16 via 10.9.0.2";
    return unshare(CLONE_NEWNET) == 0 && system(commands) == 0 ? 0 : -EPERM;
}

static int open_peer(void)
{
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(TEST_ETHERTYPE),
        .sll_ifindex = (int)if_nametoindex("w1"),
    };
    peer_fd = socket(AF_PACKET, SOCK_RAW, htons(TEST_ETHERTYPE));
    return peer_fd < 0 ? -errno : bind(peer_fd, (struct sockaddr *)&addr, sizeof(addr));
}

static void send_frame(uint8_t mark, size_t len)
{
    uint8_t frame[1514] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 0x88, 0xb5, mark};
    ck_assert_int_eq(send(peer_fd, frame, len, 0), (ssize_t)len);
}

/* Receives until a test frame comes; other traffic of a fresh interface is let go of. */
static void receive_frame(struct route_packet *out)
{
    struct route_packet packets[BURST];
    for (int tries = 0; tries < 2000; tries++) {
        uint32_t count = nic_rx(nic, 0, packets, BURST);
        for (uint32_t i = 0; i < count; i++) {
            packets[i].action = ROUTE_LET_GO;
            if (packet_ether(&packets[i])->type == htons(TEST_ETHERTYPE)) {
                *out = packets[i];
                ck_assert_uint_eq(nic_tx(nic, 0, packets, i), 0);
                ck_assert_uint_eq(nic_tx(nic, 0, packets + i + 1, count - i - 1), 0);
                return;
            }
        }
        nic_tx(nic, 0, packets, count);
        usleep(1000);
    }
    ck_abort_msg("no frame came");
}

START_TEST(frames_come_and_go)
{
    struct route_packet p;
    send_frame(7, 100);
    receive_frame(&p);
    ck_assert_uint_eq(p.len, 100);
    ck_assert_uint_eq(((uint8_t *)packet_ether(&p))[14], 7);
    ck_assert_uint_eq(nic_buffers_in_use(nic), 1);
    p.action = ROUTE_SEND;
    p.len = 60;
    ck_assert_uint_eq(nic_tx(nic, 0, &p, 1), 0);
    ck_assert_uint_eq(nic_buffers_in_use(nic), 0);
    uint8_t echo[2048];
    struct sockaddr_ll from;
    socklen_t size = sizeof(from);
    do { /* the socket sees its own frame too */
        ck_assert_int_gt(recvfrom(peer_fd, echo, sizeof(echo), 0, (struct sockaddr *)&from, &size),
                         0);
    } while (from.sll_pkttype == PACKET_OUTGOING);
    ck_assert_uint_eq(echo[14], 7);
}
END_TEST

START_TEST(buffers_run_out_and_return)
{
    struct route_packet *packets = calloc(8192, sizeof(*packets));
    uint32_t count = 0;
    while (count < 8192 && nic_alloc(nic, &packets[count])) {
        packets[count++].action = ROUTE_LET_GO;
    }
    ck_assert_uint_gt(count, 1000);
    ck_assert_uint_lt(count, 8192);
    ck_assert_uint_eq(nic_buffers_in_use(nic), count);
    nic_tx(nic, 0, packets, count);
    ck_assert_uint_eq(nic_buffers_in_use(nic), 0);
    free(packets);
}
END_TEST

START_TEST(a_frame_ends_the_sleep)
{
    struct epoll_event event;
    struct route_packet p;
    for (int i = 0; i < 3; i++) {
        send_frame(8, 64);
        nic_sleep_begin(nic, 0);
        ck_assert_int_eq(epoll_wait(epoll_fd, &event, 1, 2000), 1);
        nic_sleep_end(nic, 0);
        receive_frame(&p);
        p.action = ROUTE_LET_GO;
        nic_tx(nic, 0, &p, 1);
    }
}
END_TEST

START_TEST(neighbours_come_from_the_kernel)
{
    struct neighbours *neighbours;
    struct neighbour list[3] = {
        {.address.s_addr = inet_addr("10.9.0.2")},
        {.address.s_addr = inet_addr("10.8.1.1")}, /* behind the gateway 10.9.0.2 */
        {.address.s_addr = inet_addr("10.9.0.77")},
    };
    /* Only now: starting the port may give the interface a fresh table. */
    ck_assert_int_eq(
        system("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev w0 nud permanent"), 0);
    ck_assert_int_eq(neighbours_create(&neighbours, "w0"), 0);
    ck_assert_int_eq(neighbours_refresh(neighbours, list, 3), 2);
    ck_assert(list[0].known && list[0].mac[5] == 2);
    ck_assert(list[1].known && list[1].mac[5] == 2);
    ck_assert(!list[2].known);
    ck_assert_int_eq(neighbours_refresh(neighbours, list, 3), 0);
    neighbours_destroy(neighbours);
    ck_assert_int_eq(neighbours_create(&neighbours, "nosuch"), -ENODEV);
    neighbours_destroy(neighbours); /* NULL now, and fine */
}
END_TEST

START_TEST(guard_keeps_the_port)
{
    struct in_addr self = {.s_addr = inet_addr("10.9.0.1")};
    int fd = guard_open(self, 7400);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(guard_open(self, 7400), -EADDRINUSE);
    self.s_addr = inet_addr("10.9.0.99");
    ck_assert_int_eq(guard_open(self, 7400), -EADDRNOTAVAIL);
    close(fd);
}
END_TEST

/* ---- publishing ---- */

#define PUBLISHED 20000

struct object {
    _Atomic int alive;
    int number;
};
static _Atomic int destroyed;
static _Atomic int stop_reader;

/* Poisoned, not freed, so that a reader that holds it too long is seen. */
static void object_destroy(void *arg)
{
    struct object *object = arg;
    atomic_store(&object->alive, 0);
    atomic_fetch_add(&destroyed, 1);
}

static void *read_objects(void *arg)
{
    struct publish *publish = arg;
    intptr_t bad = 0;
    int last = -1;
    publish_online(publish, 0);
    for (unsigned i = 0; !atomic_load(&stop_reader); i++) {
        const struct object *object = publish_get(publish);
        if (object != NULL) {
            bad += object->number < last;
            last = object->number;
            for (int k = 0; k < 20; k++) {
                bad += atomic_load(&object->alive) != 1;
            }
        }
        publish_quiescent(publish, 0);
        if (i % 64 == 0) { /* sometimes it sleeps */
            publish_offline(publish, 0);
            sched_yield();
            publish_online(publish, 0);
        }
    }
    publish_offline(publish, 0);
    return (void *)bad;
}

START_TEST(no_reader_sees_what_was_destroyed)
{
    struct publish *publish;
    struct object *objects = calloc(PUBLISHED, sizeof(*objects));
    pthread_t reader;
    void *bad;
    ck_assert_int_eq(publish_create(&publish, 1, object_destroy), 0);
    ck_assert_ptr_null(publish_get(publish));
    ck_assert_int_eq(pthread_create(&reader, NULL, read_objects, publish), 0);
    for (int i = 0; i < PUBLISHED; i++) {
        objects[i].number = i;
        atomic_store(&objects[i].alive, 1);
        publish_set(publish, &objects[i]);
        ck_assert_int_eq(atomic_load(&destroyed), i); /* all but the current one */
    }
    atomic_store(&stop_reader, 1);
    pthread_join(reader, &bad);
    ck_assert_ptr_null(bad);
    publish_destroy(publish);
    ck_assert_int_eq(atomic_load(&destroyed), PUBLISHED);
    publish_destroy(NULL);
    free(objects);
}
END_TEST

int main(void)
{
    struct nic_options options = {
        .name = "test",
        .runtime_dir = "/tmp",
        .interface = "w0",
        .data_port = 7400,
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = 64,
        .lcores = 1,
    };
    if (make_network() != 0) {
        fputs("skipped: may not make a network namespace (needs root and iproute2)\n", stderr);
        return SKIPPED;
    }
    if (nic_create(&nic, &options) != 0) {
        return EXIT_FAILURE;
    }
    epoll_fd = epoll_create1(0);
    if (nic_watch(nic, 0, epoll_fd) != 0 || open_peer() != 0) {
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("nic");
    TCase *tc = tcase_create("nic");
    tcase_add_test(tc, frames_come_and_go);
    tcase_add_test(tc, buffers_run_out_and_return);
    tcase_add_test(tc, a_frame_ends_the_sleep);
    tcase_add_test(tc, neighbours_come_from_the_kernel);
    tcase_add_test(tc, guard_keeps_the_port);
    tcase_add_test(tc, no_reader_sees_what_was_destroyed);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    nic_destroy(nic);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
