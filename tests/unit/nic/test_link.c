/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_link.c - a port and its TAP are one interface. Each of DPDK's virtual devices can be set in
 * some ways only: a ring up and down, the null device to another MTU and link address, and memif
 * has a carrier while somebody is at its other end. EAL starts once per process: a process for
 * each. Skipped (77) where a namespace may not be made.
 */
#include <check.h>
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/nic/kernel.h"
#include "dataplane/nic/nic.h"
#include "tests/unit/suite.h"

#define SKIPPED 77
#define TAP     "wlinkk" /* the kernel's share of the port */
#define TRIES   500      /* of 10 ms */

static struct nic *nic;
static int fd;

static struct ifreq asked(const char *name, unsigned long what)
{
    struct ifreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    ck_assert_int_eq(ioctl(fd, what, &request), 0);
    return request;
}

static bool has_flag(const char *name, int flag)
{
    return (asked(name, SIOCGIFFLAGS).ifr_flags & flag) != 0;
}

static int mtu_of(const char *name)
{
    return asked(name, SIOCGIFMTU).ifr_mtu;
}

/* As kernel_watch would tell it. */
static struct kernel_link shown(void)
{
    struct kernel_link link = {
        .there = true,
        .up = has_flag(TAP, IFF_UP),
        .carrier = has_flag(TAP, IFF_RUNNING),
        .mtu = (uint32_t)mtu_of(TAP),
    };
    memcpy(link.mac, asked(TAP, SIOCGIFHWADDR).ifr_hwaddr.sa_data, sizeof(link.mac));
    return link;
}

static void sh(const char *command)
{
    ck_assert_msg(system(command) == 0, "%s", command);
}

static void follow(void)
{
    struct kernel_link link = shown();
    nic_follow(nic, &link);
}

static void wait_carrier(bool up)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    for (int tries = 0; has_flag(TAP, IFF_RUNNING) != up || nic_facts(nic).carrier != up; tries++) {
        ck_assert_msg(tries < TRIES, "carrier is not %d", up);
        nic_look(nic);
        nanosleep(&pause, NULL);
    }
}

/* ---- a ring: up and down; it has no link address ---- */

START_TEST(up_and_down_are_followed)
{
    ck_assert(has_flag(TAP, IFF_UP));
    sh("ip link set " TAP " down");
    follow();
    nic_look(nic); /* the port has no carrier now, but that is the operator's doing */
    ck_assert(nic_facts(nic).carrier);
    sh("ip link set " TAP " up");
    follow();
    wait_carrier(true);
    nic_look(nic); /* it would be lost if the port were still down */
    ck_assert(nic_facts(nic).carrier);
}
END_TEST

/* ---- the null device: MTU and link address ---- */

START_TEST(the_mtu_is_followed)
{
    sh("ip link set " TAP " mtu 4000");
    follow();
    ck_assert_uint_eq(nic_facts(nic).mtu, 4000);
    sh("ip link set " TAP " mtu 1300"); /* Weft's datagrams still need 1,500 */
    follow();
    ck_assert_uint_eq(nic_facts(nic).mtu, 1500);
    ck_assert_int_eq(mtu_of(TAP), 1300);
}
END_TEST

START_TEST(the_link_address_is_followed)
{
    uint8_t mac[6];
    sh("ip link set " TAP " address 02:00:00:00:55:01");
    follow();
    nic_mac(nic, mac);
    ck_assert_uint_eq(mac[5], 1);
    ck_assert_uint_eq(mac[4], 0x55);
    ck_assert_mem_eq(shown().mac, mac, 6);
}
END_TEST

START_TEST(a_tap_made_anew_is_taken_up)
{
    const struct timespec pause = {.tv_nsec = 10000000};
    struct kernel_link before = shown();
    sh("ip link del " TAP);
    struct kernel_link gone = {.there = false};
    nic_follow(nic, &gone);
    nic_look(nic);
    ck_assert_uint_eq(if_nametoindex(TAP), 0);
    sh("ip tuntap add " TAP " mode tap");
    for (int tries = 0; !has_flag(TAP, IFF_UP) || !has_flag(TAP, IFF_RUNNING); tries++) {
        ck_assert_int_lt(tries, TRIES);
        nic_look(nic);
        nanosleep(&pause, NULL);
    }
    ck_assert_mem_eq(shown().mac, before.mac, 6);
}
END_TEST

/* ---- memif: a cable, and nothing that could be set ---- */

static char socket_path[64];

static int start(const char *device);

/* The other end, in a process of its own, until it is killed. */
static pid_t plug_in(void)
{
    char device[128];
    pid_t child = fork();
    if (child != 0) {
        return child;
    }
    snprintf(device, sizeof(device), "net_memif0,role=client,socket-abstract=no,socket=%s",
             socket_path);
    _exit(execl("/proc/self/exe", "test_nic_link", "--end", device, (char *)NULL));
}

START_TEST(the_kernel_sees_the_cable)
{
    wait_carrier(false);
    pid_t end = plug_in();
    ck_assert_int_gt(end, 0);
    wait_carrier(true);
    kill(end, SIGKILL);
    ck_assert_int_eq(waitpid(end, NULL, 0), end);
    wait_carrier(false);
}
END_TEST

START_TEST(what_the_port_cannot_is_put_back)
{
    struct kernel_link before = shown();
    sh("ip link set " TAP " mtu 4000");
    follow();
    ck_assert_int_eq(mtu_of(TAP), 1500);
    sh("ip link set " TAP " mtu 1300"); /* that is less than the port has, and no matter */
    follow();
    ck_assert_int_eq(mtu_of(TAP), 1300);
    ck_assert_uint_eq(nic_facts(nic).mtu, 1500);
    sh("ip link set " TAP " address 02:00:00:00:55:01");
    follow();
    ck_assert_mem_eq(shown().mac, before.mac, 6);
    ck_assert_int_eq(mtu_of(TAP), 1300);
    sh("ip link set " TAP " mtu 1500");
    follow();
}
END_TEST

/* ---- */

static int start(const char *device)
{
    if (unshare(CLONE_NEWNET) != 0 || system("ip tuntap add " TAP " mode tap") != 0) {
        return -EPERM;
    }
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    char name[32];
    snprintf(name, sizeof(name), "test-link-%d", (int)getpid());
    struct nic_options options = {
        .name = name,
        .runtime_dir = "/tmp",
        .driver = NIC_DPDK,
        .device = device,
        .interface = TAP,
        .data_port = 7400,
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = 64,
        .lcores = 1,
    };
    return fd < 0 ? -errno : nic_create(&nic, &options);
}

static void add_ring(TCase *tc)
{
    tcase_add_test(tc, up_and_down_are_followed);
}

static void add_null(TCase *tc)
{
    tcase_add_test(tc, the_mtu_is_followed);
    tcase_add_test(tc, the_link_address_is_followed);
    tcase_add_test(tc, a_tap_made_anew_is_taken_up);
}

static void add_memif(TCase *tc)
{
    tcase_add_test(tc, the_kernel_sees_the_cable);
    tcase_add_test(tc, what_the_port_cannot_is_put_back);
}

/* Returns this process's exit status. */
static int run(const char *device, void (*add)(TCase *tc))
{
    int rc = start(device);
    if (rc == -EPERM) {
        return SKIPPED;
    }
    if (rc != 0) {
        fprintf(stderr, "cannot start %s: %s\n", device, strerror(-rc));
        return EXIT_FAILURE;
    }
    Suite *suite = suite_create(device);
    TCase *tc = tcase_create("link");
    tcase_set_timeout(tc, 60);
    add(tc);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    nic_destroy(nic);
    return status;
}

/* In a process of its own. */
static int run_apart(const char *device, void (*add)(TCase *tc))
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        exit(run(device, add));
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)
               ? WEXITSTATUS(status)
               : EXIT_FAILURE;
}

static void wait_for_the_end(void)
{
    for (;;) {
        pause();
    }
}

int main(int argc, char **argv)
{
    if (argc == 3) { /* plug_in() */
        if (start(argv[2]) == 0) {
            wait_for_the_end();
        }
        return EXIT_FAILURE;
    }
    char device[128];
    snprintf(socket_path, sizeof(socket_path), "/tmp/weft-test-link-%d.sock", (int)getpid());
    snprintf(device, sizeof(device), "net_memif0,role=server,socket-abstract=no,socket=%s",
             socket_path);
    int first = run_apart("net_ring0", add_ring);
    if (first == SKIPPED) {
        puts("skipped: needs a network namespace and a TAP");
        return SKIPPED;
    }
    int second = run_apart("net_null0", add_null);
    int third = run_apart(device, add_memif);
    unlink(socket_path);
    return first == 0 && second == 0 && third == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
