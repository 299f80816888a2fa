/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_http.c - http.h against a server in the same thread, which is called by its address and by
 * its name.
 */
#include <check.h>
#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/upstream/http.h"
#include "schemas/base/addr.h"
#include "schemas/base/clock.h"
#include "tests/unit/suite.h"

#define PATIENCE_NS (20 * NS_PER_S) /* bounds a hang, measures nothing */
#define TEXT_MAX    (1u << 20)
#define LONG_BYTES  (8u << 20) /* more than sockets hold */
#define OK          "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"

static const char *const hosts[] = {"127.0.0.1", "localhost"};
#define HOSTS (int)(sizeof(hosts) / sizeof(hosts[0]))

struct heard {
    struct http_call *call;
    int heads, ends, status;
    char type[64];
    char body[256];
    size_t len;
    bool whole, unreachable, refuse;
    char error[256];
    uint64_t retry_after_ns;
};

static struct http *http;
static struct http_peer *peer;
static int listener;
static uint16_t port;
static char url[64];
static char asked[TEXT_MAX];

static void on_head(void *user, int status, const char *type)
{
    struct heard *h = user;
    h->heads++;
    h->status = status;
    (void)snprintf(h->type, sizeof(h->type), "%s", type ? type : "");
}

static int on_data(void *user, const char *data, size_t len)
{
    struct heard *h = user;
    ck_assert_int_eq(h->heads, 1);
    ck_assert_uint_lt(h->len + len, sizeof(h->body));
    memcpy(h->body + h->len, data, len);
    h->len += len;
    return h->refuse ? -EIO : 0;
}

static void on_end(void *user, int status, const struct http_end *end)
{
    struct heard *h = user;
    h->call = NULL;
    h->ends++;
    h->status = status;
    h->whole = end->whole;
    h->unreachable = end->unreachable;
    h->retry_after_ns = end->retry_after_ns;
    (void)snprintf(h->error, sizeof(h->error), "%s", end->error);
}

static const struct http_events events = {on_head, on_data, on_end};

static void open_for(const char *host)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    ck_assert_int_eq(curl_global_init(CURL_GLOBAL_DEFAULT), 0);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(listener, 8), 0);
    ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&at, &size), 0);
    port = ntohs(at.sin_port);
    (void)snprintf(url, sizeof(url), "http://%s:%u/v1/x", host, port);
    ck_assert_int_eq(http_create(&http, true), 0);
    ck_assert_int_eq(http_peer_create(&peer, "secret", NULL), 0);
}

static void close_all(void)
{
    http_destroy(http);
    http_peer_destroy(peer);
    close(listener);
    curl_global_cleanup();
}

static void turn(void)
{
    struct pollfd fd = {.fd = http_fd(http), .events = POLLIN};
    const int ms = http_timeout_ms(http, clock_now_ns());
    (void)poll(&fd, 1, ms >= 0 && ms < 5 ? ms : 5);
    http_process(http, clock_now_ns());
}

/* Gives the calls their turns until then, or until nothing more can come of it. */
#define TURN_UNTIL(condition)                                                                      \
    for (const uint64_t end_ns = clock_now_ns() + PATIENCE_NS;                                     \
         !(condition) && clock_now_ns() < end_ns;)                                                 \
    turn()

static bool has(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLIN};
    return poll(&pollfd, 1, 0) > 0;
}

static int take_connection(void)
{
    TURN_UNTIL(has(listener));
    ck_assert(has(listener));
    const int fd = accept(listener, NULL, NULL);
    ck_assert_int_ge(fd, 0);
    return fd;
}

/* Reads until the request's text has that in it. */
static void expect_asked(int fd, const char *text)
{
    size_t len = 0;
    asked[0] = 0;
    while (!strstr(asked, text)) {
        TURN_UNTIL(has(fd));
        ck_assert_msg(has(fd), "'%s' has no '%s'", asked, text);
        const ssize_t got = read(fd, asked + len, sizeof(asked) - 1 - len);
        ck_assert_int_gt(got, 0);
        len += (size_t)got;
        asked[len] = 0;
    }
}

static void say(int fd, const char *text)
{
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void expect_end(struct heard *h)
{
    TURN_UNTIL(h->ends);
    ck_assert_int_eq(h->ends, 1);
    h->body[h->len] = 0;
}

static void ask(struct heard *h, const char *body, long timeout_ms)
{
    *h = (struct heard){0};
    h->call = http_start(http, peer, url, body, NULL, timeout_ms, &events, h);
    ck_assert_ptr_nonnull(h->call);
}

START_TEST(asks_and_reads)
{
    static const char state[] = "a=1,b=2";
    const struct http_trace trace = {"00-1-2-01", state, strlen(state)};
    struct heard h = {0};
    open_for(hosts[_i]);
    ck_assert_ptr_nonnull(http_start(http, peer, url, "{\"a\":1}", &trace, 0, &events, &h));
    const int fd = take_connection();
    expect_asked(fd, "{\"a\":1}");
    static const char *const lines[] = {"POST /v1/x HTTP/1.1\r\n",
                                        "\r\nContent-Type: application/json\r\n",
                                        "\r\nAuthorization: Bearer secret\r\n",
                                        "\r\ntraceparent: 00-1-2-01\r\n",
                                        "\r\ntracestate: a=1,b=2\r\n",
                                        "\r\nUser-Agent: weft-upstream\r\n",
                                        "\r\nContent-Length: 7\r\n",
                                        "\r\n\r\n{\"a\":1}"};
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
        ck_assert_msg(strstr(asked, lines[i]) != NULL, "%s", lines[i]);
    char host[64];
    (void)snprintf(host, sizeof(host), "\r\nHost: %s:%u\r\n", hosts[_i], port);
    ck_assert_ptr_nonnull(strstr(asked, host));
    ck_assert_ptr_null(strcasestr(asked, "expect"));
    say(fd, OK "Transfer-Encoding: chunked\r\n\r\n5\r\nhel");
    TURN_UNTIL(h.len >= 3);
    ck_assert_uint_eq(h.len, 3); /* as it comes */
    say(fd, "lo\r\n0\r\n\r\n");
    expect_end(&h);
    ck_assert(h.whole && h.status == 200 && h.heads == 1);
    ck_assert_str_eq(h.body, "hello");
    ck_assert_str_eq(h.type, "text/event-stream");
    ck_assert_str_eq(h.error, "");
    close(fd);
    close_all();
}
END_TEST

/* The connection is used again; one that the server has closed in between costs no call. */
START_TEST(keeps_connections)
{
    struct heard h;
    open_for(hosts[_i]);
    ask(&h, NULL, 0);
    const int fd = take_connection();
    for (int i = 0; i < 3; i++) {
        expect_asked(fd, "GET /v1/x HTTP/1.1\r\n");
        say(fd, OK "Content-Length: 2\r\n\r\nok");
        expect_end(&h);
        ck_assert(h.whole && !has(listener));
        ask(&h, NULL, 0);
    }
    expect_asked(fd, "\r\n\r\n");
    close(fd); /* instead of an answer: it may have been on its way when the call came */
    const int second = take_connection();
    expect_asked(second, "\r\n\r\n");
    close(second); /* a new one that brings nothing is a failure */
    expect_end(&h);
    ck_assert(!h.whole && !h.unreachable && h.status == 0 && h.heads == 0);
    ck_assert_str_ne(h.error, "");
    close_all();
}
END_TEST

START_TEST(closed_while_idle)
{
    struct heard h;
    open_for(hosts[_i]);
    for (int i = 0; i < 2; i++) {
        ask(&h, "x", 0);
        const int fd = take_connection();
        expect_asked(fd, "\r\n\r\nx");
        say(fd, OK "Content-Length: 2\r\n\r\nok");
        expect_end(&h);
        ck_assert(h.whole);
        close(fd);
        turn();
    }
    close_all();
}
END_TEST

START_TEST(cut_and_refused)
{
    struct heard h;
    open_for(hosts[_i]);
    ask(&h, "x", 0);
    int fd = take_connection();
    expect_asked(fd, "\r\n\r\nx");
    say(fd, OK "Content-Length: 20\r\n\r\nhalf");
    close(fd);
    expect_end(&h);
    ck_assert(!h.whole && h.status == 200);
    ck_assert_str_eq(h.body, "half");
    ask(&h, "x", 0);
    h.refuse = true;
    fd = take_connection();
    expect_asked(fd, "\r\n\r\nx");
    say(fd, OK "Content-Length: 20\r\n\r\nhalf");
    expect_end(&h);
    ck_assert(!h.whole && h.status == 200);
    close(fd);
    close_all();
}
END_TEST

START_TEST(waits_as_told)
{
    static const struct {
        const char *line;
        double least_s, most_s;
    } lines[] = {{"Retry-After: 3", 3, 3},
                 {"retry-after-ms: 250", 0.25, 0.25},
                 {"Retry-After: 3\r\nRetry-After-Ms: 100", 0.1, 0.1},
                 {"Retry-After: soon", 0, 0},
                 {"Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", 0, 0}};
    struct heard h;
    char text[256];
    open_for(hosts[_i]);
    ask(&h, NULL, 0);
    const int fd = take_connection();
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        expect_asked(fd, "\r\n\r\n");
        (void)snprintf(text, sizeof(text), "HTTP/1.1 429 No\r\n%s\r\nContent-Length: 0\r\n\r\n",
                       lines[i].line);
        say(fd, text);
        expect_end(&h);
        ck_assert(h.whole && h.status == 429 && h.heads == 1);
        ck_assert_double_ge((double)h.retry_after_ns / 1e9, lines[i].least_s);
        ck_assert_double_le((double)h.retry_after_ns / 1e9, lines[i].most_s);
        ask(&h, NULL, 0);
    }
    close(fd);
    close_all(); /* with a call under way */
    ck_assert_int_eq(h.ends, 0);
}
END_TEST

START_TEST(nobody_there)
{
    struct heard h;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(at);
    open_for(hosts[_i]);
    /* Bound, so that it is nobody else's either. */
    const int silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(silent, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(getsockname(silent, (struct sockaddr *)&at, &size), 0);
    (void)snprintf(url, sizeof(url), "http://%s:%u/v1/x", hosts[_i], ntohs(at.sin_port));
    ask(&h, NULL, 0);
    expect_end(&h);
    ck_assert(h.unreachable && !h.whole && h.status == 0);
    ck_assert_str_ne(h.error, "");
    (void)snprintf(url, sizeof(url), "http://203.0.113.9:9/"); /* only local ones are dialled */
    ask(&h, NULL, 0);
    expect_end(&h);
    ck_assert(h.unreachable);
    close(silent);
    close_all();
}
END_TEST

START_TEST(no_reply_in_time)
{
    struct heard h;
    open_for(hosts[_i]);
    ask(&h, NULL, 50); /* which may be over before it is connected: nobody takes it */
    expect_end(&h);
    ck_assert(!h.whole && h.status == 0);
    ck_assert_msg(strstr(h.error, "time") != NULL, "%s", h.error); /* timed out, timeout */
    close_all();
}
END_TEST

START_TEST(cancelled)
{
    struct heard h;
    char byte;
    open_for(hosts[_i]);
    ask(&h, NULL, 0);
    const int fd = take_connection();
    expect_asked(fd, "\r\n\r\n");
    say(fd, OK "Content-Length: 20\r\n\r\nhalf");
    TURN_UNTIL(h.len >= 4);
    http_cancel(h.call);
    ck_assert(has(fd)); /* at once */
    ck_assert_int_le(read(fd, &byte, 1), 0);
    turn();
    ck_assert_int_eq(h.ends, 0);
    close(fd);
    close_all();
}
END_TEST

/* A long prompt goes out as the server reads it; one refused before its end ends at once. */
START_TEST(long_body)
{
    struct heard h;
    char *body = malloc(LONG_BYTES + 1);
    memset(body, 'x', LONG_BYTES);
    body[LONG_BYTES] = 0;
    open_for(hosts[_i]);
    ask(&h, body, 0);
    int fd = take_connection();
    size_t len = 0;
    for (ssize_t got = 1; got > 0 && len < LONG_BYTES; len += (size_t)got) {
        TURN_UNTIL(has(fd));
        got = read(fd, asked, sizeof(asked));
        ck_assert_int_gt(got, 0);
    }
    say(fd, OK "Content-Length: 2\r\n\r\nok");
    expect_end(&h);
    ck_assert(h.whole);
    close(fd);
    turn();
    ask(&h, body, 0);
    fd = take_connection();
    expect_asked(fd, "\r\n\r\nx");
    say(fd, "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
    expect_end(&h);
    ck_assert(h.status == 413);
    ck_assert_str_eq(h.body, "no");
    close(fd);
    close_all();
    free(body);
}
END_TEST

static struct heard second;

/* What a caller does when a call has ended: asks again, breaks another one off. */
static void on_end_go_on(void *user, int status, const struct http_end *end)
{
    on_end(user, status, end);
    if (!second.call)
        return; /* it was read first */
    http_cancel(second.call);
    second.call = http_start(http, peer, url, "again", NULL, 0, &events, &second);
}

START_TEST(callers_go_on_at_the_end)
{
    static const struct http_events go_on = {on_head, on_data, on_end_go_on};
    struct heard h = {0};
    open_for(hosts[_i]);
    h.call = http_start(http, peer, url, "one", NULL, 0, &go_on, &h);
    const int first = take_connection();
    expect_asked(first, "\r\n\r\none");
    ask(&second, "two", 0);
    const int other = take_connection();
    expect_asked(other, "\r\n\r\ntwo");
    say(other, OK "Content-Length: 3\r\n\r\ntwo"); /* both may be read in one turn */
    say(first, OK "Content-Length: 3\r\n\r\none");
    expect_end(&h);
    if (second.call) {
        expect_asked(first, "\r\n\r\nagain");
        say(first, OK "Content-Length: 5\r\n\r\nagain");
    }
    expect_end(&second);
    close(first);
    close(other);
    close_all();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_http");
    TCase *tests = tcase_create("http");
    tcase_set_timeout(tests, 150);
    tcase_add_loop_test(tests, asks_and_reads, 0, HOSTS);
    tcase_add_loop_test(tests, keeps_connections, 0, HOSTS);
    tcase_add_loop_test(tests, closed_while_idle, 0, HOSTS);
    tcase_add_loop_test(tests, cut_and_refused, 0, HOSTS);
    tcase_add_loop_test(tests, waits_as_told, 0, HOSTS);
    tcase_add_loop_test(tests, nobody_there, 0, HOSTS);
    tcase_add_loop_test(tests, no_reply_in_time, 0, HOSTS);
    tcase_add_loop_test(tests, cancelled, 0, HOSTS);
    tcase_add_loop_test(tests, long_body, 0, HOSTS);
    tcase_add_loop_test(tests, callers_go_on_at_the_end, 0, HOSTS);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
