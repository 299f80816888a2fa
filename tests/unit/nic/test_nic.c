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
#include "dataplane/nic/numa.h"
#include "dataplane/nic/publish.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

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
        "ip addr add 10.9.0.1/24 dev w0 && ip addr add 2001:db8:9::1/64 dev w0 nodad && "
        "ip route add 10.8.0.0/16 via 10.9.0.2 && "
        "ip -6 route add 2001:db8:8::/48 via fe80::2 dev w0";
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

/* The kernel keeps a tag beside the frame; the stages get it in its place, and it goes out again.
 */
START_TEST(tags_stay_in_the_frame)
{
    static const uint8_t tagged[64] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2,    0,    0, 0,
                                       0,    9,    0x81, 0x00, 0x20, 0x05, 0x88, 0xb5, 7};
    struct route_packet packets[BURST];
    bool came = false;
    ck_assert_int_eq(send(peer_fd, tagged, sizeof(tagged), 0), sizeof(tagged));
    for (int tries = 0; tries < 2000 && !came; tries++) {
        uint32_t count = nic_rx(nic, 0, packets, BURST);
        for (uint32_t i = 0; i < count; i++) {
            packets[i].action = ROUTE_LET_GO;
            came |= packets[i].len == sizeof(tagged) &&
                    memcmp(packet_ether(&packets[i]), tagged, sizeof(tagged)) == 0;
        }
        nic_tx(nic, 0, packets, count);
        usleep(1000);
    }
    ck_assert(came);
    ck_assert_uint_eq(nic_buffers_in_use(nic), 0);
}
END_TEST

/* Headers that grow on the way begin in front of where the frame came in. */
START_TEST(frames_grow_at_the_head)
{
    struct route_packet p;
    uint8_t echo[2048];
    struct sockaddr_ll from;
    socklen_t size = sizeof(from);
    send_frame(9, 100);
    receive_frame(&p);
    uint8_t *data = (uint8_t *)packet_ether(&p) - 20;
    memmove(data, data + 20, 14);
    p.start = (uint8_t)(p.start - 20);
    p.len += 20;
    p.action = ROUTE_SEND;
    ck_assert_uint_eq(nic_tx(nic, 0, &p, 1), 0);
    do {
        ck_assert_int_eq(recvfrom(peer_fd, echo, sizeof(echo), 0, (struct sockaddr *)&from, &size),
                         from.sll_pkttype == PACKET_OUTGOING ? 100 : 120);
    } while (from.sll_pkttype == PACKET_OUTGOING);
    ck_assert_uint_eq(echo[34], 9);
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

/* While there is none frames wait or are lost, and counted; afterwards they come again. */
START_TEST(no_buffer_is_counted_and_passes)
{
    struct route_packet *packets = calloc(8192, sizeof(*packets));
    struct route_packet p;
    uint32_t count = 0;
    ck_assert_ptr_nonnull(packets);
    while (count < 8192 && nic_alloc(nic, &packets[count])) {
        packets[count++].action = ROUTE_LET_GO;
    }
    uint64_t before = nic_losses(nic).no_buffer;
    send_frame(5, 100);
    for (int tries = 0; nic_losses(nic).no_buffer == before; tries++) {
        ck_assert_int_lt(tries, 2000);
        ck_assert_uint_eq(nic_rx(nic, 0, &p, 1), 0);
        nic_sleep_begin(nic, 0);
        nic_sleep_end(nic, 0);
        usleep(1000);
    }
    nic_tx(nic, 0, packets, count);
    do { /* the first one may have waited; what comes with it is let go of */
        send_frame(6, 100);
        receive_frame(&p);
        count = ((uint8_t *)packet_ether(&p))[14];
        p.action = ROUTE_LET_GO;
        nic_tx(nic, 0, &p, 1);
    } while (count != 6);
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
    static const char *const addresses[] = {
        "10.9.0.2",      "10.8.1.1" /* behind the gateway 10.9.0.2 */,
        "2001:db8:9::2", "2001:db8:8::1" /* behind the gateway fe80::2 */,
        "10.9.0.77",     "2001:db8:9::77",
    };
    struct neighbour list[6] = {0};
    for (int i = 0; i < 6; i++) {
        ck_assert(addr_parse(addresses[i], &list[i].address));
    }
    /* Only now: starting the port may give the interface a fresh table. */
    ck_assert_int_eq(
        system("ip neigh replace 10.9.0.2 lladdr 02:00:00:00:00:02 dev w0 nud permanent && "
               "ip neigh replace 2001:db8:9::2 lladdr 02:00:00:00:00:03 dev w0 nud permanent && "
               "ip neigh replace fe80::2 lladdr 02:00:00:00:00:04 dev w0 nud permanent"),
        0);
    ck_assert_int_eq(neighbours_create(&neighbours, "w0", 0), 0);
    ck_assert_int_eq(neighbours_refresh(neighbours, list, 6), 4);
    for (int i = 0; i < 6; i++) {
        static const uint8_t marks[6] = {2, 2, 3, 4, 0, 0};
        ck_assert(list[i].known == (marks[i] != 0));
        ck_assert_uint_eq(list[i].mac[5], marks[i]);
    }
    ck_assert_int_eq(neighbours_refresh(neighbours, list, 6), 0);
    neighbours_destroy(neighbours);
    ck_assert_int_eq(neighbours_create(&neighbours, "nosuch", 0), -ENODEV);
    ck_assert_int_eq(neighbours_create(&neighbours, "w0", 6), -ENODEV); /* no such VLAN device */
    neighbours_destroy(neighbours);                                     /* NULL now, and fine */
}
END_TEST

/* Those of the VLAN's own device. Not every kernel can make one. */
START_TEST(neighbours_of_a_vlan)
{
    struct neighbours *neighbours;
    struct neighbour node = {.known = false};
    if (system("ip link add link w0 name upper type vlan id 5 2>/dev/null") != 0) {
        return;
    }
    ck_assert_int_eq(
        system("ip link set upper up && ip addr add 10.7.0.1/24 dev upper && "
               "ip neigh replace 10.7.0.2 lladdr 02:00:00:00:00:05 dev upper nud permanent"),
        0);
    ck_assert(addr_parse("10.7.0.2", &node.address));
    ck_assert_int_eq(neighbours_create(&neighbours, "w0", 6), -ENODEV);
    ck_assert_int_eq(neighbours_create(&neighbours, "w0", 5), 0);
    ck_assert_int_eq(neighbours_refresh(neighbours, &node, 1), 1);
    ck_assert(node.known && node.mac[5] == 5);
    neighbours_destroy(neighbours);
    ck_assert_int_eq(neighbours_create(&neighbours, "w0", 0), 0);
    ck_assert_int_eq(neighbours_refresh(neighbours, &node, 1), 0);
    neighbours_destroy(neighbours);
}
END_TEST

START_TEST(guard_keeps_the_port)
{
    static const char *const own[] = {"10.9.0.1", "2001:db8:9::1"};
    static const char *const other[] = {"10.9.0.99", "2001:db8:9::99"};
    struct in6_addr self;
    int fds[2];
    for (int i = 0; i < 2; i++) {
        ck_assert(addr_parse(own[i], &self));
        fds[i] = guard_open(&self, 7400);
        ck_assert_int_ge(fds[i], 0);
        ck_assert_int_eq(guard_open(&self, 7400), -EADDRINUSE);
        ck_assert(addr_parse(other[i], &self));
        ck_assert_int_eq(guard_open(&self, 7400), -EADDRNOTAVAIL);
    }
    close(fds[0]);
    close(fds[1]);
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
        const struct object *object = publish_get(publish, 0);
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
    ck_assert_ptr_null(publish_get(publish, 0));
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

/* ---- a copy for each place ---- */

static unsigned copies, copies_freed, objects_freed;
static unsigned no_copy_for = UINT32_MAX;

static void *copy_number(const void *object, uint32_t place)
{
    int *copy = place == no_copy_for ? NULL : numa_alloc(sizeof(int), place);
    if (copy != NULL) {
        *copy = *(const int *)object;
        copies++;
    }
    return copy;
}

static void free_copy(void *copy)
{
    copies_freed++;
    numa_free(copy);
}

static void free_object(void *object)
{
    objects_freed++;
    free(object);
}

static int *number(int value)
{
    int *object = malloc(sizeof(*object));
    *object = value;
    return object;
}

/* As on a machine with four NUMA nodes, one without lcores. */
START_TEST(each_place_has_its_copy)
{
    const uint32_t places[] = {2, 0, 2, 3, 0};
    struct publish *publish;
    struct publish_options options = {
        .readers = 5,
        .places = places,
        .copy = copy_number,
        .destroy = free_object,
        .destroy_copy = free_copy,
    };
    copies = copies_freed = objects_freed = 0;
    ck_assert_int_eq(publish_create_placed(&publish, &options), 0);
    ck_assert_ptr_null(publish_get(publish, 3));
    for (int value = 1; value <= 5; value++) {
        no_copy_for = value == 4 ? 3 : UINT32_MAX; /* no memory there: shared */
        int *object = number(value);
        publish_set(publish, object);
        for (uint32_t i = 0; i < 5; i++) {
            const int *seen = publish_get(publish, i);
            ck_assert_int_eq(*seen, value);
            ck_assert_int_eq(seen == object, places[i] == 0 || places[i] == no_copy_for);
            ck_assert_int_eq(seen == publish_get(publish, 0), places[i] == 2);
        }
        ck_assert_uint_eq(objects_freed, (unsigned)value - 1);
    }
    ck_assert_uint_eq(copies, 9);
    publish_destroy(publish);
    ck_assert_uint_eq(copies_freed, 9);
    ck_assert_uint_eq(objects_freed, 5);
    options.readers = PUBLISH_READERS_MAX + 1;
    ck_assert_int_eq(publish_create_placed(&publish, &options), -EINVAL);
}
END_TEST

START_TEST(memory_of_a_place_is_memory)
{
    uint32_t places[NIC_LCORES_MAX];
    numa_places(places, NIC_LCORES_MAX);
    ck_assert_uint_lt(places[0], PUBLISH_PLACES_MAX);
    for (uint32_t place = 0; place < 70; place += 23) { /* nodes that are not there, too */
        uint8_t *memory = numa_alloc(3000000, place);
        ck_assert_ptr_nonnull(memory);
        ck_assert_uint_eq((uintptr_t)memory % 64, 0);
        ck_assert_uint_eq(memory[2999999], 0);
        memset(memory, 1, 3000000);
        numa_free(memory);
    }
    numa_free(NULL);
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
    tcase_add_test(tc, tags_stay_in_the_frame);
    tcase_add_test(tc, frames_grow_at_the_head);
    tcase_add_test(tc, buffers_run_out_and_return);
    tcase_add_test(tc, no_buffer_is_counted_and_passes);
    tcase_add_test(tc, a_frame_ends_the_sleep);
    tcase_add_test(tc, neighbours_come_from_the_kernel);
    tcase_add_test(tc, neighbours_of_a_vlan);
    tcase_add_test(tc, guard_keeps_the_port);
    tcase_add_test(tc, no_reader_sees_what_was_destroyed);
    tcase_add_test(tc, each_place_has_its_copy);
    tcase_add_test(tc, memory_of_a_place_is_memory);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    nic_destroy(nic);
    return status;
}
