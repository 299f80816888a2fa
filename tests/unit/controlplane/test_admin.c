/* SPDX-License-Identifier: Apache-2.0 */
/* test_admin.c - controlplane/admin over a real socket: answers, limits, clients that misbehave,
 * and what happens to the socket file. */
#include "controlplane/admin/admin.h"
#include "tests/unit/loop_suite.h"

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[64];
static char path[96];
static struct loop *loop;
static struct admin *admin;
static pthread_t thread;
static _Atomic size_t answer_bytes; /* extra text of an answer */
static _Atomic uint64_t answer_ns;  /* how long one takes */

/* Runs in the loop's thread. */
static json_t *answer(const char *command, void *user)
{
    (void)user;
    if (strcmp(command, "status") != 0) {
        return NULL;
    }
    size_t len = answer_bytes;
    char *text = malloc(len + 1);
    memset(text, 'x', len);
    text[len] = '\0';
    for (uint64_t end_ns = clock_now_ns() + answer_ns; clock_now_ns() < end_ns;) {
        usleep(1000);
    }
    json_t *json = json_pack("{s:s, s:s}", "node", "a", "text", text);
    free(text);
    return json;
}

static void *loop_thread(void *user)
{
    (void)user;
    loop_run(loop);
    return NULL;
}

static void setup(void)
{
    strcpy(folder, "/tmp/weft-admin-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/admin.sock", folder);
    answer_bytes = 0;
    answer_ns = 0;
    ck_assert_int_eq(loop_create(&loop), 0);
}

static void start(void)
{
    ck_assert_int_eq(admin_create(&admin, loop, path, answer, NULL), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, loop_thread, NULL), 0);
}

static void stop(void)
{
    loop_stop(loop);
    pthread_join(thread, NULL);
    admin_destroy(admin);
}

static void teardown(void)
{
    loop_destroy(loop);
    unlink(path);
    rmdir(folder);
}

static int client_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_ge(fd, 0);
    return fd;
}

static void client_connect(int fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static int client_open(void)
{
    int fd = client_socket();
    client_connect(fd);
    return fd;
}

static void client_put(int fd, const void *data, size_t len)
{
    ck_assert_int_eq(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Everything until the other side closes, as JSON; NULL if nothing came. */
static json_t *client_get(int fd)
{
    size_t room = 4u << 20;
    size_t used = 0;
    char *data = malloc(room);
    ck_assert_ptr_nonnull(data);
    for (;;) {
        ssize_t got = recv(fd, data + used, room - used, 0);
        if (got <= 0) {
            break;
        }
        used += (size_t)got;
    }
    close(fd);
    json_t *json = json_loadb(data, used, 0, NULL);
    free(data);
    return json;
}

static json_t *ask(const char *request)
{
    int fd = client_open();
    client_put(fd, request, strlen(request));
    return client_get(fd);
}

static void assert_answered(json_t *json)
{
    ck_assert_ptr_nonnull(json);
    ck_assert_str_eq(json_string_value(json_object_get(json, "node")), "a");
    json_decref(json);
}

static void assert_error(json_t *json, const char *part)
{
    ck_assert_ptr_nonnull(json);
    const char *text = json_string_value(json_object_get(json, "error"));
    ck_assert_ptr_nonnull(text);
    ck_assert_ptr_nonnull(strstr(text, part));
    json_decref(json);
}

static _Atomic uint64_t waiting; /* ticket of whoever has asked last */

static json_t *asked_later(const json_t *request, uint64_t ticket, void *user)
{
    (void)user;
    if (json_is_true(json_object_get(request, "refuse"))) {
        return json_pack("{s:s}", "error", "not now");
    }
    if (json_is_true(json_object_get(request, "now"))) {
        admin_answer(admin, ticket, json_pack("{s:s}", "node", "a"));
        return NULL;
    }
    uint64_t before = waiting;
    waiting = ticket;
    if (before != 0) { /* one question's answer comes with the next one */
        admin_answer(admin, before, json_pack("{s:s}", "node", "a"));
    }
    return NULL;
}

START_TEST(answers_that_come_later)
{
    const struct admin_later later = {.command = "query", .ask = asked_later};
    ck_assert_int_eq(admin_create(&admin, loop, path, answer, NULL), 0);
    ck_assert_int_eq(admin_offer_later(admin, &later), 0);
    for (unsigned i = 1; i < ADMIN_LATERS_MAX; i++) {
        ck_assert_int_eq(admin_offer_later(admin, &later), 0);
    }
    ck_assert_int_eq(admin_offer_later(admin, &later), -ENOSPC);
    ck_assert_int_eq(pthread_create(&thread, NULL, loop_thread, NULL), 0);
    assert_error(ask("{\"cmd\":\"query\",\"refuse\":true}\n"), "not now");
    assert_answered(ask("{\"cmd\":\"query\",\"now\":true}\n"));
    waiting = 0;
    int first = client_open();
    client_put(first, "query\nmore\n", 11);
    while (waiting == 0) {
        usleep(1000);
    }
    assert_answered(ask("status\n")); /* others do not wait for it */
    int second = client_open();
    client_put(second, "query\n", 6);
    assert_answered(client_get(first));
    uint64_t gone = waiting;
    close(second);
    assert_answered(ask("status\n"));
    /* Nobody answers: it is closed when its time is over, and its ticket is worth nothing. */
    int third = client_open();
    client_put(third, "query\n", 6);
    while (waiting == gone) {
        usleep(1000);
    }
    ck_assert_ptr_null(client_get(third));
    assert_answered(ask("status\n"));
    stop();
}
END_TEST

START_TEST(answers)
{
    start();
    assert_answered(ask("status\n"));
    assert_answered(ask("status\r\n"));
    assert_answered(ask("{\"cmd\":\"status\"}\n"));
    assert_answered(ask("status\nrubbish after it"));
    assert_error(ask("reboot\n"), "unknown command");
    assert_error(ask("\n"), "unknown command");
    assert_error(ask("{\"cmd\":3}\n"), "unknown command");
    assert_error(ask("{\"cmd\":\n"), "unknown command");
    assert_error(ask("{}\n"), "unknown command");
    assert_error(ask("[[[[[[[[\n"), "unknown command");
    stop();
}
END_TEST

START_TEST(request_in_pieces)
{
    start();
    int fd = client_open();
    for (const char *c = "status"; *c != '\0'; c++) {
        client_put(fd, c, 1);
        usleep(2000);
    }
    shutdown(fd, SHUT_WR); /* the end of the stream ends the line too */
    assert_answered(client_get(fd));
    stop();
}
END_TEST

START_TEST(oversized_request)
{
    char request[ADMIN_REQUEST_MAX];
    start();
    memset(request, 'x', sizeof(request));
    int fd = client_open();
    client_put(fd, request, sizeof(request));
    assert_error(client_get(fd), "too long");
    /* At the limit, with its end, it is read. */
    request[sizeof(request) - 1] = '\n';
    fd = client_open();
    client_put(fd, request, sizeof(request));
    assert_error(client_get(fd), "unknown command");
    assert_answered(ask("status\n"));
    stop();
}
END_TEST

/* An answer far beyond the socket's buffer, read only after a while: the others are served. Their
 * answers are short, for who reads nothing for ADMIN_TIME_NS is given up. */
START_TEST(slow_reader)
{
    const size_t bytes = 2u << 20;
    char first;
    answer_bytes = bytes;
    start();
    int slow = client_open();
    client_put(slow, "status\n", 7);
    ck_assert_int_eq(recv(slow, &first, 1, MSG_PEEK), 1);
    answer_bytes = 0;
    for (unsigned i = 0; i < 3; i++) {
        assert_answered(ask("status\n"));
    }
    json_t *json = client_get(slow);
    ck_assert_ptr_nonnull(json);
    ck_assert_uint_eq(json_string_length(json_object_get(json, "text")), bytes);
    json_decref(json);
    stop();
}
END_TEST

/* A client has its time to ask and to read in; what the node takes to answer is the node's. */
START_TEST(slow_answer)
{
    answer_ns = ADMIN_TIME_NS + ADMIN_TIME_NS / 10;
    start();
    assert_answered(ask("status\n"));
    stop();
}
END_TEST

START_TEST(gone_before_the_answer)
{
    answer_bytes = 512u << 10; /* more than the socket holds */
    start();
    for (unsigned i = 0; i < 50; i++) {
        int fd = client_open();
        client_put(fd, "status\n", 7);
        close(fd);
    }
    for (unsigned i = 0; i < 20; i++) {
        close(client_open());
    }
    answer_bytes = 0;
    usleep(100000);
    assert_answered(ask("status\n"));
    stop();
}
END_TEST

/* Silent clients take all places: further ones are turned away, and time frees the places. */
START_TEST(silent_clients)
{
    int fds[ADMIN_CLIENTS_MAX];
    char byte;
    start();
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        fds[i] = client_open();
    }
    usleep(50000);
    int late = client_open();
    ck_assert_int_eq(recv(late, &byte, 1, 0), 0);
    close(late);
    for (unsigned i = 0; i < ADMIN_CLIENTS_MAX; i++) {
        ck_assert_int_eq(recv(fds[i], &byte, 1, 0), 0); /* closed by the time limit */
        close(fds[i]);
    }
    assert_answered(ask("status\n"));
    stop();
}
END_TEST

START_TEST(socket_file)
{
    struct stat st;
    struct loop *other_loop;
    struct admin *other;
    start();
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert(S_ISSOCK(st.st_mode));
    ck_assert_uint_eq(st.st_mode & 0777, ADMIN_MODE);
    /* Somebody listens: left alone, also by the failed one's end. */
    ck_assert_int_eq(loop_create(&other_loop), 0);
    ck_assert_int_eq(admin_create(&other, other_loop, path, answer, NULL), -EADDRINUSE);
    ck_assert_ptr_null(other);
    assert_answered(ask("status\n"));
    stop();
    ck_assert_int_eq(lstat(path, &st), -1);
    /* Left behind by a crash: replaced. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    start();
    assert_answered(ask("status\n"));
    /* Replaced under us: not ours to remove. */
    unlink(path);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fclose(file);
    stop();
    ck_assert_int_eq(lstat(path, &st), 0);
    /* No socket: not touched. */
    ck_assert_int_eq(admin_create(&other, other_loop, path, answer, NULL), -EEXIST);
    ck_assert_int_eq(lstat(path, &st), 0);
    ck_assert_int_eq(admin_create(&other, other_loop, "/nonexistent/a.sock", answer, NULL),
                     -ENOENT);
    loop_destroy(other_loop);
    admin_destroy(NULL);
}
END_TEST

static uint64_t thread_used_ns(void)
{
    clockid_t clock;
    struct timespec used;
    ck_assert_int_eq(pthread_getcpuclockid(thread, &clock), 0);
    ck_assert_int_eq(clock_gettime(clock, &used), 0);
    return (uint64_t)used.tv_sec * NS_PER_S + (uint64_t)used.tv_nsec;
}

/* Who comes while no descriptor is left costs no time, and is answered when there is one. The bound
 * is a fifth of what spinning would take. */
START_TEST(no_descriptors)
{
    start();
    int fd = client_socket();
    struct rlimit limit = fds_gone();
    client_connect(fd);
    client_put(fd, "status\n", 7);
    uint64_t before_ns = thread_used_ns();
    ck_assert_int_eq(poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 300), 0);
    ck_assert_uint_lt(thread_used_ns() - before_ns, 60 * NS_PER_MS);
    fds_back(&limit);
    assert_answered(client_get(fd));
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("admin");
    TCase *tcase = tcase_create("admin");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, answers);
    tcase_add_test(tcase, answers_that_come_later);
    tcase_add_test(tcase, request_in_pieces);
    tcase_add_test(tcase, oversized_request);
    tcase_add_test(tcase, slow_reader);
    tcase_add_test(tcase, slow_answer);
    tcase_add_test(tcase, gone_before_the_answer);
    tcase_add_test(tcase, silent_clients);
    tcase_add_test(tcase, socket_file);
    tcase_add_test(tcase, no_descriptors);
    suite_add_tcase(suite, tcase);
    return loop_suite_main(suite);
}
