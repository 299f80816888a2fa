/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_buffers.c - AF_XDP shares the packet buffers with the kernel: each of them carries a frame
 * out, and each one in, again and again. EAL starts once per process and does not survive fork: one
 * binary, CK_FORK=no. Skipped (77) where a namespace or AF_XDP sockets may not be made.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/nic/nic.h"
#include "tests/unit/suite.h"

#define SKIPPED  77
#define BURST    32u
#define PORT     7400
#define FRAMES   30016u /* several times the buffers, a multiple of BURST */
#define HELD_MIN 3000u
#define HELD_MAX 16384u
#define WAIT_MS  2000
#define LEN      100u
#define NUMBER   42u /* in the frame: its number behind the headers */
#define PEER_MIB 8

/* For the leak checker: the driver never gives back what libbpf and libxdp gave it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libbpf.so\nleak:libxdp.so\n";
}

static struct nic *nic;
static struct route_packet packets[HELD_MAX];
static int peer_fd; /* packet socket on the other end of the pair */

static int open_peer(void)
{
    struct timeval limit = {.tv_sec = WAIT_MS / 1000};
    int bytes = PEER_MIB << 20;
    struct sockaddr_ll addr = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETHERTYPE_IP),
        .sll_ifindex = (int)if_nametoindex("w1"),
    };
    peer_fd = socket(AF_PACKET, SOCK_RAW, htons(ETHERTYPE_IP));
    if (peer_fd < 0 || bind(peer_fd, (struct sockaddr *)&addr, sizeof(addr)) != 0) {
        return -errno;
    }
    setsockopt(peer_fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
    return setsockopt(peer_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ? -errno : 0;
}

static void write_frame(uint8_t *frame, uint32_t number)
{
    memset(frame, 0, LEN);
    frame[12] = 0x08;
    frame[14] = 0x45;
    frame[17] = LEN - 14;
    frame[23] = 17;
    frame[36] = PORT >> 8;
    frame[37] = PORT & 0xff;
    frame[39] = LEN - 34;
    memcpy(frame + NUMBER, &number, sizeof(number));
}

static uint32_t number_of(const void *frame)
{
    uint32_t number;
    memcpy(&number, (const uint8_t *)frame + NUMBER, sizeof(number));
    return number;
}

/* All buffers that there are, taken first: an lcore's cache would give the same few again. */
START_TEST(each_buffer_goes_out)
{
    uint8_t frame[2048];
    uint32_t held = 0;
    while (held < HELD_MAX && nic_alloc(nic, &packets[held])) {
        write_frame((uint8_t *)packet_ether(&packets[held]), held);
        packets[held].len = LEN;
        packets[held++].action = ROUTE_SEND;
    }
    ck_assert_uint_gt(held, HELD_MIN);
    for (uint32_t sent = 0; sent < held; sent += BURST) {
        uint32_t count = held - sent < BURST ? held - sent : BURST;
        ck_assert_uint_eq(nic_tx(nic, 0, packets + sent, count), 0);
        for (uint32_t i = 0; i < count; i++) {
            ck_assert_int_eq(recv(peer_fd, frame, sizeof(frame), 0), LEN);
            ck_assert_uint_eq(number_of(frame), sent + i);
        }
    }
}
END_TEST

/* Received ones are kept for a while, so that the driver has to take others in their place. */
START_TEST(each_buffer_comes_in)
{
    uint8_t frame[LEN];
    uint32_t held = 0;
    for (uint32_t sent = 0; sent < FRAMES; sent += BURST) {
        for (uint32_t i = 0; i < BURST; i++) {
            write_frame(frame, sent + i);
            ck_assert_int_eq(send(peer_fd, frame, LEN, 0), LEN);
        }
        uint32_t came = 0;
        for (int ms = 0; came < BURST && ms < WAIT_MS; ms++) {
            uint32_t count = nic_rx(nic, 0, packets + held, BURST);
            for (uint32_t i = 0; i < count; i++) {
                ck_assert_uint_eq(number_of(packet_ether(&packets[held])), sent + came++);
                packets[held++].action = ROUTE_LET_GO;
            }
            if (count == 0) {
                usleep(1000);
            }
        }
        ck_assert_uint_eq(came, BURST);
        if (held >= HELD_MIN) {
            nic_tx(nic, 0, packets, held);
            held = 0;
        }
    }
    nic_tx(nic, 0, packets, held);
}
END_TEST

int main(void)
{
    struct nic_options options = {
        .name = "buffers",
        .runtime_dir = "/tmp",
        .driver = NIC_AF_XDP,
        .interface = "w0",
        .data_port = PORT,
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = 64,
        .lcores = 1,
    };
    int probe = socket(AF_XDP, SOCK_RAW, 0);
    if (probe < 0 || unshare(CLONE_NEWNET) != 0 ||
        system("ip link add w0 type veth peer name w1 && ip link set w0 up && ip link set w1 up") !=
            0) {
        fputs("skipped: needs root, iproute2 and AF_XDP sockets\n", stderr);
        return SKIPPED;
    }
    close(probe);
    if (nic_create(&nic, &options) != 0 || open_peer() != 0) {
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("buffers");
    TCase *tc = tcase_create("buffers");
    tcase_add_test(tc, each_buffer_goes_out);
    tcase_add_test(tc, each_buffer_comes_in);
    tcase_set_timeout(tc, 60);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    nic_destroy(nic);
    close(peer_fd);
    return status;
}
