/* SPDX-License-Identifier: Apache-2.0 */
/* test_session.c - sessions of controlplane/admin over a real socket: the descriptor arrives, the
 * end of either side is noticed exactly once, and ordinary questions are answered meanwhile. */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/admin/admin.h"
#include "tests/unit/loop_suite.h"

static char folder[64];
static char path[96];
static struct loop *loop;
static struct admin *admin;
static pthread_t thread;
static _Atomic int opened;
static _Atomic int closed;
static _Atomic int asked; /* `snaplen` of the last request */

static json_t *answer(const char *command, void *user)
{
    (void)user;
    return strcmp(command, "status") == 0 ? json_pack("{s:s}", "node", "a") : NULL;
}

/* Gives the reading end of a pipe with a greeting in it. Refuses while one is open. */
static json_t *session_open(const json_t *request, int *fd, void *user)
{
    int ends[2];
    ck_assert_ptr_eq(user, &opened);
    if (opened > closed) {
        return json_pack("{s:s}", "error", "one at a time");
    }
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(write(ends[1], "hello", 5), 5);
    close(ends[1]);
    asked = (int)json_integer_value(json_object_get(request, "snaplen"));
    *fd = ends[0];
    opened++;
    return json_pack("{s:i}", "lcores", 2);
}

static void session_close(void *user)
{
    ck_assert_ptr_eq(user, &opened);
    closed++;
}

static void *loop_thread(void *user)
{
    (void)user;
    loop_run(loop);
    return NULL;
}

static void setup(void)
{
    struct admin_session tap = {"tap", session_open, session_close, &opened};
    strcpy(folder, "/tmp/weft-session-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/admin.sock", folder);
    ck_assert_int_eq(loop_create(&loop), 0);
    ck_assert_int_eq(admin_create(&admin, loop, path, answer, NULL), 0);
    ck_assert_int_eq(admin_offer(admin, &tap), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, loop_thread, NULL), 0);
}

static void stop(void)
{
    if (admin != NULL) {
        loop_stop(loop);
        pthread_join(thread, NULL);
        admin_destroy(admin);
        admin = NULL;
    }
}

static void teardown(void)
{
    stop();
    loop_destroy(loop);
    rmdir(folder);
}

static int client_open(const char *request)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
    return fd;
}

/* The answer's line into `line`; the descriptor that came with it, or -1. */
static int answer_take(int fd, char line[static 256])
{
    char room[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = line, .iov_len = 255};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)};
    int passed = -1;
    ssize_t got = recvmsg(fd, &message, 0);
    ck_assert_int_gt(got, 0);
    line[got] = '\0';
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL) {
        memcpy(&passed, CMSG_DATA(header), sizeof(passed));
    }
    return passed;
}

static void closed_wait(int count)
{
    for (int i = 0; i < 5000 && closed < count; i++) {
        usleep(1000);
    }
    ck_assert_int_eq(closed, count);
}

START_TEST(descriptor_comes_with_the_answer)
{
    char line[256];
    char greeting[8] = "";
    int fd = client_open("{\"cmd\":\"tap\",\"snaplen\":64}\n");
    int passed = answer_take(fd, line);
    ck_assert_str_eq(line, "{\"lcores\":2}\n");
    ck_assert_int_ge(passed, 0);
    ck_assert_int_eq(read(passed, greeting, sizeof(greeting)), 5);
    ck_assert_str_eq(greeting, "hello");
    ck_assert_int_eq(asked, 64);
    close(passed);
    /* What a session's client says is not listened to, nor does it end the session. */
    ck_assert_int_eq(send(fd, "status\nstatus\n", 14, 0), 14);
    usleep(20000);
    ck_assert_int_eq(closed, 0);
    close(fd);
    closed_wait(1);
    fd = client_open("tap\n"); /* a bare command gives no object */
    passed = answer_take(fd, line);
    ck_assert_int_ge(passed, 0);
    ck_assert_int_eq(asked, 0);
    close(passed);
    close(fd);
    closed_wait(2);
}
END_TEST

START_TEST(refusal_is_an_ordinary_answer)
{
    char line[256];
    int fd = client_open("tap\n");
    close(answer_take(fd, line));
    int second = client_open("tap\n");
    ck_assert_int_eq(answer_take(second, line), -1);
    ck_assert_str_eq(line, "{\"error\":\"one at a time\"}\n");
    ck_assert_int_eq(recv(second, line, 1, 0), 0); /* and closed */
    close(second);
    ck_assert_int_eq(closed, 0);
    close(fd);
    closed_wait(1);
}
END_TEST

/* Longer than a question may take; questions are answered all the while. */
START_TEST(outlives_the_time_limit)
{
    char line[256];
    int fd = client_open("tap\n");
    close(answer_take(fd, line));
    for (int i = 0; i < 5; i++) {
        int other = client_open("status\n");
        ck_assert_int_eq(answer_take(other, line), -1);
        ck_assert_str_eq(line, "{\"node\":\"a\"}\n");
        close(other);
        usleep(500000);
    }
    ck_assert_int_eq(closed, 0);
    stop(); /* the node's own end: the client sees it, the session is closed */
    ck_assert_int_eq(closed, 1);
    ck_assert_int_eq(recv(fd, line, 1, 0), 0);
    close(fd);
}
END_TEST

/* Its client goes before, while or after it is answered. */
START_TEST(gone_at_once)
{
    for (int i = 0; i < 100; i++) {
        close(client_open("tap\n"));
    }
    /* It is one at a time: who gets it comes behind the end of all others. */
    char line[256];
    int passed = -1;
    while (passed < 0) { /* the test's own limit bounds it */
        int fd = client_open("tap\n");
        passed = answer_take(fd, line);
        close(fd);
    }
    close(passed);
    stop();
    ck_assert_int_eq(opened, closed);
}
END_TEST

START_TEST(offers_are_bounded)
{
    struct admin_session session = {"x", session_open, session_close, &opened};
    stop();
    ck_assert_int_eq(admin_create(&admin, loop, path, answer, NULL), 0);
    for (unsigned i = 0; i < ADMIN_SESSIONS_MAX; i++) {
        ck_assert_int_eq(admin_offer(admin, &session), 0);
    }
    ck_assert_int_eq(admin_offer(admin, &session), -ENOSPC);
    ck_assert_int_eq(pthread_create(&thread, NULL, loop_thread, NULL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("admin session");
    TCase *tc = tcase_create("session");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, descriptor_comes_with_the_answer);
    tcase_add_test(tc, refusal_is_an_ordinary_answer);
    tcase_add_test(tc, outlives_the_time_limit);
    tcase_add_test(tc, gone_at_once);
    tcase_add_test(tc, offers_are_bounded);
    suite_add_tcase(suite, tc);
    return loop_suite_main(suite);
}
