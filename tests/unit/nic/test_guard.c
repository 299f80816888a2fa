/* SPDX-License-Identifier: Apache-2.0 */
/* test_guard.c - the socket that keeps the kernel quiet, on this machine's loopback. */
#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dataplane/nic/guard.h"
#include "tests/unit/suite.h"

#define HELD_NS 300000000

static struct in6_addr loopback(void)
{
    struct in6_addr address = {0};
    address.s6_addr[10] = address.s6_addr[11] = 0xff;
    address.s6_addr[12] = 127;
    address.s6_addr[15] = 1;
    return address;
}

/* A socket on a free port of the loopback. */
static int take_port(uint16_t *port)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(self);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&self, size), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&self, &size), 0);
    *port = ntohs(self.sin_port);
    return fd;
}

START_TEST(test_lets_nothing_in)
{
    uint16_t port = 0;
    close(take_port(&port));
    struct in6_addr address = loopback();
    int fd = guard_open(&address, port);
    ck_assert_int_ge(fd, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(sender, (struct sockaddr *)&to, sizeof(to)), 0);
    ck_assert_int_eq(send(sender, "x", 1, 0), 1);
    char byte;
    ck_assert_int_eq(recv(fd, &byte, 1, MSG_DONTWAIT), -1);
    ck_assert_int_eq(errno, EAGAIN);
    ck_assert_int_eq(send(sender, "x", 1, 0), 1); /* and nobody says "unreachable" */
    close(sender);
    close(fd);
}
END_TEST

START_TEST(test_waits_for_one_that_ends)
{
    uint16_t port = 0;
    int held = take_port(&port);
    pid_t holder = fork();
    ck_assert_int_ge(holder, 0);
    if (holder == 0) {
        struct timespec pause = {.tv_nsec = HELD_NS};
        nanosleep(&pause, NULL);
        _exit(0);
    }
    close(held);
    struct in6_addr address = loopback();
    int fd = guard_open(&address, port);
    ck_assert_msg(fd >= 0, "%s", strerror(-fd));
    close(fd);
    ck_assert_int_eq(waitpid(holder, NULL, 0), holder);
}
END_TEST

START_TEST(test_says_what_stays_in_use)
{
    uint16_t port = 0;
    int held = take_port(&port);
    struct in6_addr address = loopback();
    ck_assert_int_eq(guard_open(&address, port), -EADDRINUSE);
    close(held);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guard");
    TCase *tc = tcase_create("guard");
    tcase_add_test(tc, test_lets_nothing_in);
    tcase_add_test(tc, test_waits_for_one_that_ends);
    tcase_add_test(tc, test_says_what_stays_in_use);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
