/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_sums.c - UDP checksums left to a port that offers to end them: DPDK's TAP device, whose
 * other end is the kernel's own UDP, which takes nothing with a wrong sum. One EAL per process,
 * CK_FORK=no. Skipped (77) where a namespace may not be made.
 */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/nic/nic.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

#define SKIPPED 77
#define PORT    7400u

static struct nic *nic;

/* Of the kernel's end of the TAP. */
static const char *const addrs[] = {"::ffff:10.9.1.1", "2001:db8:91::1"};
static const char *const ours[] = {"::ffff:10.9.1.2", "2001:db8:91::2"};

static struct in6_addr address(const char *text)
{
    struct in6_addr addr;
    ck_assert_int_eq(inet_pton(AF_INET6, text, &addr), 1);
    return addr;
}

static int open_socket(void)
{
    struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(PORT)};
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&any, sizeof(any)), 0);
    return fd;
}

static void kernel_mac(int fd, uint8_t mac[6])
{
    struct ifreq request = {.ifr_name = "wsum0"};
    ck_assert_int_eq(ioctl(fd, SIOCGIFHWADDR, &request), 0);
    memcpy(mac, request.ifr_hwaddr.sa_data, 6);
}

/* A datagram of this node's own, composed for the host; its sum is wrong on purpose if `host` does
 * not say that the port ends it although the stages would. */
static void send_own(const struct route_host *host, const struct route_hop *to, uint8_t mark,
                     bool own)
{
    struct route_packet p;
    ck_assert(nic_alloc(nic, &p));
    p.from_worker = true;
    p.weft_len = (uint16_t)(sizeof(struct weft_rsp) + mark % 90);
    memset(p.frame->weft.bytes, mark, p.weft_len);
    packet_compose(&p, host, to);
    p.own = own;
    p.action = ROUTE_SEND;
    ck_assert_uint_eq(nic_tx(nic, 0, &p, 1), 0);
}

static int next_mark(int fd)
{
    uint8_t bytes[2048];
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, 2000) == 1 && recv(fd, bytes, sizeof(bytes), 0) > 0 ? bytes[40] : -1;
}

START_TEST(the_port_ends_the_sums)
{
    int fd = open_socket();
    struct route_host host = {.port_be = htons(PORT), .port_sums = true};
    struct route_hop to = {.port_be = htons(PORT), .addr = address(addrs[_i])};
    struct in6_addr here = address(ours[_i]);
    if (_i == 0) {
        host.addr = addr_v4(&here);
    } else {
        host.addr6 = here;
    }
    nic_mac(nic, host.mac);
    kernel_mac(fd, to.mac);
    ck_assert(nic_sums(nic));
    ck_assert_str_eq(nic_facts(nic).sums, "port");
    uint64_t before = nic_facts(nic).summed;
    for (uint8_t mark = 1; mark < 200; mark++) {
        send_own(&host, &to, mark, true);
        ck_assert_int_eq(next_mark(fd), mark);
    }
    ck_assert_uint_eq(nic_facts(nic).summed - before, 199);
    /* What is relayed has its sum and keeps it: unfinished, the kernel refuses it, */
    send_own(&host, &to, 200, false);
    host.port_sums = false; /* and finished by software it takes it. */
    send_own(&host, &to, 201, false);
    ck_assert_int_eq(next_mark(fd), 201);
    ck_assert_uint_eq(nic_facts(nic).summed - before, 199);
    close(fd);
}
END_TEST

static int start(void)
{
    if (unshare(CLONE_NEWNET) != 0 || system("ip tuntap add wsumk mode tap") != 0) {
        return -EPERM;
    }
    struct nic_options options = {
        .name = "test-sums",
        .runtime_dir = "/tmp",
        .driver = NIC_DPDK,
        .device = "net_tap0,iface=wsum0",
        .interface = "wsumk", /* the kernel's share of a port taken whole; unused here */
        .data_port = PORT,
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = 64,
        .lcores = 1,
    };
    int rc = nic_create(&nic, &options);
    return rc != 0 ? rc
                   : system("ip link set wsum0 up && ip addr add 10.9.1.1/24 dev wsum0 && "
                            "ip addr add 2001:db8:91::1/64 dev wsum0 nodad");
}

int main(void)
{
    int rc = start();
    if (rc == -EPERM || rc == -ENOTSUP) {
        puts("skipped: needs a network namespace and a TAP with the kernel's flower classifier");
        return SKIPPED;
    }
    if (rc != 0) {
        fprintf(stderr, "cannot start: %s\n", strerror(-rc));
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create("sums");
    TCase *tc = tcase_create("sums");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, the_port_ends_the_sums, 0, 2);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    nic_destroy(nic);
    return status;
}
