/* SPDX-License-Identifier: Apache-2.0 */
/* test_socket_file.c - socket_file.h: what is taken away before a socket is made there, and what
 * never is; text.h. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "schemas/base/socket_file.h"
#include "schemas/base/text.h"
#include "tests/unit/suite.h"

static struct sockaddr_un address;

static void setup(void)
{
    address = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/weft-socket-file-%d", (int)getpid());
    unlink(address.sun_path);
}

static void teardown(void)
{
    unlink(address.sun_path);
}

static bool is_there(void)
{
    struct stat st;
    return lstat(address.sun_path, &st) == 0;
}

static int listen_at(int type)
{
    int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    return fd;
}

START_TEST(one_left_behind_goes)
{
    static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
    int type = types[_i];
    ck_assert_int_eq(socket_file_clear(&address, type), 0); /* nothing is there */
    int fd = listen_at(type);
    ck_assert_int_eq(socket_file_clear(&address, type), -EADDRINUSE);
    ck_assert(is_there());
    close(fd);
    ck_assert(is_there());
    ck_assert_int_eq(socket_file_clear(&address, type), 0);
    ck_assert(!is_there());
}
END_TEST

/* Who listens and is too busy to say so is there all the same. */
START_TEST(one_with_a_full_backlog_stays)
{
    int fd = listen_at(SOCK_SEQPACKET);
    for (int i = 0; i < 8; i++) {
        int client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(client, (struct sockaddr *)&address, sizeof(address));
    }
    ck_assert_int_eq(socket_file_clear(&address, SOCK_SEQPACKET), -EADDRINUSE);
    ck_assert(is_there());
    close(fd);
}
END_TEST

/* A path that was meant for another key: connect() says of a file, too, that it refuses. */
START_TEST(what_is_no_socket_stays)
{
    int fd = open(address.sun_path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(socket_file_clear(&address, SOCK_SEQPACKET), -EEXIST);
    ck_assert(is_there());
    unlink(address.sun_path);
    ck_assert_int_eq(symlink("/nowhere", address.sun_path), 0);
    ck_assert_int_eq(socket_file_clear(&address, SOCK_STREAM), -EEXIST);
    ck_assert(is_there());
}
END_TEST

START_TEST(words)
{
    ck_assert(text_is_word("smollm2-135m:q4~!", 17));
    ck_assert(text_is_word("", 0));
    ck_assert(text_is_word("ab cd", 2));
    ck_assert(!text_is_word("ab cd", 3));
    ck_assert(!text_is_word("a\x7f", 2));
    ck_assert(!text_is_word("a\n", 2));
    ck_assert(!text_is_word("\xc3\xb6", 2));
    ck_assert(!text_is_word("a\0b", 3));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("socket_file");
    TCase *tc = tcase_create("all");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, one_left_behind_goes, 0, 2);
    tcase_add_test(tc, one_with_a_full_backlog_stays);
    tcase_add_test(tc, what_is_no_socket_stays);
    tcase_add_test(tc, words);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
