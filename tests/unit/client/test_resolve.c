/* SPDX-License-Identifier: Apache-2.0 */
/* test_resolve.c - every form in which a node may be named, and what is none of them. Looks nothing
 * up outside this machine. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <weft/wire.h>

#include "dataplane/client/resolve.h"
#include "schemas/base/addr.h"
#include "tests/unit/suite.h"

static const struct {
    const char *node;
    const char *address;
    uint16_t port;
} good[] = {
    {"127.0.0.1", "127.0.0.1", WEFT_PORT_DEFAULT},
    {"127.0.0.2:81", "127.0.0.2", 81},
    {"[127.0.0.1]:65535", "127.0.0.1", 65535},
    {"[::1]", "::1", WEFT_PORT_DEFAULT},
    {"[::1]:82", "::1", 82},
    {"::1", "::1", WEFT_PORT_DEFAULT},
};

START_TEST(nodes)
{
    struct sockaddr_storage peer;
    struct in6_addr address;
    socklen_t size = sizeof(peer);
    char text[ADDR_TEXT_MAX];
    int fd = resolve_connect(good[_i].node);
    if (fd < 0 && good[_i].address[0] == ':') {
        return; /* a machine without IPv6 */
    }
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(getpeername(fd, (struct sockaddr *)&peer, &size), 0);
    ck_assert_uint_eq(addr_of_socket(&peer, &address), good[_i].port);
    ck_assert_str_eq(addr_format(&address, text), good[_i].address);
    close(fd);
}
END_TEST

START_TEST(no_nodes)
{
    static const char *const bad[] = {
        "",
        ":7400",
        "[]",
        "[::1",
        "[::1]x",
        "[::1]7400",
        "[::1]:",
        "[::1]:0",
        "[::1]:70000",
        "[::1]:+1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "[",
        "127.0.0.1:0",
        "127.0.0.1:00000",
        "127.0.0.1: 1",
        "1::2::3",
        "127.0.0.1:123456",
    };
    char longest[600];
    memset(longest, 'a', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_msg(resolve_connect(bad[i]) == -EINVAL, "%s", bad[i]);
    }
    ck_assert_int_eq(resolve_connect(longest), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resolve");
    TCase *tc = tcase_create("resolve");
    tcase_add_loop_test(tc, nodes, 0, sizeof(good) / sizeof(good[0]));
    tcase_add_test(tc, no_nodes);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
