/* SPDX-License-Identifier: Apache-2.0 */
/* test_http.c - load over HTTP against a server of this test: whole streams, refusals, ends in the
 * middle, connections that are used again. Real sockets. */
#include <arpa/inet.h>
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/load/account.h"
#include "tests/unit/suite.h"

#define PIECE "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n"
#define STREAM                                                                                     \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNK   "2f\r\n" PIECE "\r\n"
#define END     "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
#define REQUEST 4096

static const struct {
    const char *path;
    const char *answer; /* NULL: the connection is closed at once */
    bool closes;
} answers[] = {
    {"/ok ", STREAM CHUNK CHUNK CHUNK END, false},
    {"/full ", "HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}", false},
    {"/wrong ", "HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}", false},
    {"/cut ", STREAM CHUNK CHUNK, true},
    {"/short ", STREAM CHUNK "0\r\n\r\n", false},
    {"/plain ", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"choices\":[]}", true},
    {"/gone ", NULL, true},
};

static int listener = -1;
static char url[64];
static atomic_uint connections;

/* Reads a request, head and body. False at the end. */
static bool read_request(int fd, char *text)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = recv(fd, text + len, REQUEST - 1 - len, 0);
        if (n <= 0) {
            return false;
        }
        len += (size_t)n;
        text[len] = '\0';
        const char *body = strstr(text, "\r\n\r\n");
        const char *length = strstr(text, "Content-Length: ");
        if (body != NULL && length != NULL && strlen(body + 4) >= strtoul(length + 16, NULL, 10)) {
            return true;
        }
    }
}

static void *serve_one(void *arg)
{
    int fd = *(int *)arg;
    char text[REQUEST];
    bool more = true;
    free(arg);
    while (more && read_request(fd, text)) {
        for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
            if (strstr(text, answers[i].path) != NULL) {
                if (answers[i].answer != NULL) {
                    (void)send(fd, answers[i].answer, strlen(answers[i].answer), MSG_NOSIGNAL);
                }
                more = !answers[i].closes;
            }
        }
    }
    close(fd);
    return NULL;
}

static void *serve(void *arg)
{
    int fd;
    (void)arg;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        pthread_t thread;
        int *copy = malloc(sizeof(*copy));
        *copy = fd;
        atomic_fetch_add(&connections, 1);
        ck_assert_int_eq(pthread_create(&thread, NULL, serve_one, copy), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static void start_server(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    pthread_t thread;
    listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    ck_assert_int_eq(listen(listener, 64), 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u", ntohs(addr.sin_port));
    atomic_store(&connections, 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, serve, NULL), 0);
    pthread_detach(thread);
}

static struct drive drive;
static struct account account;

static void ask(const char *path, uint32_t requests, uint32_t concurrency)
{
    char node[96];
    snprintf(node, sizeof(node), "%s%s", url, path);
    const struct drive_plan plan = {.query = {.model = "m", .max_tokens = 3},
                                    .node = node,
                                    .prompt = "x",
                                    .requests = requests,
                                    .concurrency = concurrency};
    const struct account_plan account_plan = {.intervals = false};
    ck_assert_int_eq(drive_run(&drive, &plan), 0);
    ck_assert_int_eq(account_make(&account, &drive, &account_plan), 0);
    ck_assert_uint_eq(account.requests, requests);
}

static void done(void)
{
    account_deinit(&account);
    drive_deinit(&drive);
}

START_TEST(streams_over_kept_connections)
{
    ask("/ok", 200, 4);
    ck_assert_uint_eq(account.answered, 200);
    ck_assert_uint_eq(account.tokens, 600);
    ck_assert_uint_eq(drive.gaps, 400);
    ck_assert_uint_le(atomic_load(&connections), 4);
    done();
}
END_TEST

static const struct {
    const char *path;
    int status;
} ends[] = {
    {"/full", WEFT_E_MESH_FULL},    {"/wrong", WEFT_E_WORKER_FAILED}, {"/cut", WEFT_E_WORKER_LOST},
    {"/short", WEFT_E_WORKER_LOST}, {"/gone", WEFT_E_UNREACHABLE},    {"/plain", 0},
};

START_TEST(other_ends)
{
    ask(ends[_i].path, 20, 3);
    for (uint32_t i = 0; i < 20; i++) {
        ck_assert_int_eq(drive.samples[i].status, ends[_i].status);
    }
    ck_assert_uint_eq(account.refused, ends[_i].status == WEFT_E_MESH_FULL ? 20 : 0);
    done();
}
END_TEST

START_TEST(nobody_listens)
{
    const struct drive_plan plan = {.query = {.model = "m"},
                                    .prompt = "x",
                                    .requests = 1,
                                    .concurrency = 1,
                                    .node = "http://127.0.0.1:1/"};
    const struct drive_plan wrong = {.query = {.model = "m"},
                                     .prompt = "x",
                                     .requests = 1,
                                     .concurrency = 1,
                                     .node = "http:///path"};
    if (drive_run(&drive, &plan) == 0) {
        ck_assert_int_eq(drive.samples[0].status, WEFT_E_UNREACHABLE);
    }
    drive_deinit(&drive);
    ck_assert_int_lt(drive_run(&drive, &wrong), 0);
    drive_deinit(&drive);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("load_http");
    TCase *t = tcase_create("http");
    tcase_add_checked_fixture(t, start_server, NULL);
    tcase_add_test(t, streams_over_kept_connections);
    tcase_add_loop_test(t, other_ends, 0, sizeof(ends) / sizeof(ends[0]));
    tcase_add_test(t, nobody_listens);
    suite_add_tcase(s, t);
    return suite_main(s);
}
