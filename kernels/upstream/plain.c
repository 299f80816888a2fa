/* SPDX-License-Identifier: Apache-2.0 */
/* plain.c - see plain.h. */
#include "kernels/upstream/plain.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "kernels/upstream/h1.h"
#include "kernels/upstream/where.h"
#include "schemas/base/addr.h"
#include "schemas/base/clock.h"
#include "schemas/base/tracestate.h"

#define NEVER       UINT64_MAX
#define IN_BYTES    (64u << 10) /* of a reply at a time */
#define HEAD_MAX    8192u       /* of a request: URL, key, trace */
#define TRACE_MAX   (128u + TRACESTATE_MAX)
#define IDLE_MAX    512u             /* connections kept */
#define IDLE_NS     (118 * NS_PER_S) /* as long as libcurl keeps one */
#define SPARE_MAX   64u              /* calls kept for the next ones */
#define KEEPALIVE_S 60
#define RETRY_MAX_S 1000000

static const char not_in_time[] = "no reply in time";
static const char no_connection_in_time[] = "no connection in time";
static const char not_local[] = "the address is not local";
static const char not_http[] = "this is no reply of HTTP/1.1";
static const char not_taken[] = "the reply was not taken";
static const char ended[] = "the connection ended before the reply did";

enum connection_state { CONNECTING, BUSY, IDLE, DEAD };

struct connection {
    TAILQ_ENTRY(connection) link; /* of the idle or the dead ones */
    enum connection_state state;
    int fd;
    bool used;    /* it has brought a reply before */
    bool writing; /* waits for room, or to be connected */
    struct in6_addr addr;
    uint16_t port;
    uint64_t idle_ns; /* since when */
    struct plain_call *call;
};

struct plain_call {
    struct http_call base; /* first member */
    TAILQ_ENTRY(plain_call) link;
    struct plain *plain;
    struct connection *connection; /* NULL: it failed at once, for plain_tick() to tell */
    struct in6_addr addr;
    uint16_t port;
    bool unreachable;
    bool spoiled; /* not all could be written: the connection is for no other call */
    const char *error;
    uint64_t connect_due_ns, due_ns; /* NEVER = no bound */
    bool posts;
    const char *body; /* the caller's; "" = none */
    size_t body_len;
    size_t sent; /* of head and body */
    struct h1 reply;
    size_t head_len;
    char head[HEAD_MAX];
};

struct plain {
    int epoll;
    bool local_only;
    bool failing;    /* a call has no connection */
    uint64_t due_ns; /* the earliest bound, or earlier */
    uint32_t idle_count, spare_count;
    TAILQ_HEAD(, connection) idle; /* the latest first */
    TAILQ_HEAD(, connection) dead; /* until no event can name them any more */
    TAILQ_HEAD(, plain_call) calls;
    TAILQ_HEAD(, plain_call) spare;
    char in[IN_BYTES];
};

/* ---- where ---- */

static bool port_of(const char *text, const char *end, uint16_t *port)
{
    uint32_t value = 0;
    for (; text < end && *text >= '0' && *text <= '9' && value <= UINT16_MAX; text++)
        value = value * 10 + (uint32_t)(*text - '0');
    *port = (uint16_t)value;
    return text == end && value > 0 && value <= UINT16_MAX;
}

bool plain_target_of(struct plain_target *target, const char *url)
{
    static const char scheme[] = "http://";
    char host[ADDR_TEXT_MAX];
    if (strncmp(url, scheme, sizeof(scheme) - 1) != 0)
        return false;
    const char *at = url + sizeof(scheme) - 1;
    const char *end = at + strcspn(at, "/?#");
    const bool six = *at == '[';
    const char *host_end = six ? memchr(at, ']', (size_t)(end - at)) : at + strcspn(at, ":/?#");
    *target = (struct plain_target){
        .port = 80, .authority = at, .authority_len = (int)(end - at), .path = end};
    if (!host_end || *end != '/' || host_end - at - six >= (ptrdiff_t)sizeof(host))
        return false;
    (void)snprintf(host, sizeof(host), "%.*s", (int)(host_end - at - six), at + six);
    const char *rest = host_end + six;
    return addr_parse(host, &target->addr) && addr_is_v4(&target->addr) != six &&
           (rest == end || (*rest == ':' && port_of(rest + 1, end, &target->port)));
}

/* ---- connections ---- */

static void watch(struct connection *c, int epoll, int operation, bool writing)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? (uint32_t)EPOLLOUT : 0),
                                .data.ptr = c};
    c->writing = writing;
    (void)epoll_ctl(epoll, operation, c->fd, &event); /* fails for want of memory: time limits */
}

static void want_room(struct connection *c, int epoll, bool writing)
{
    if (c->writing != writing)
        watch(c, epoll, EPOLL_CTL_MOD, writing);
}

/* An event that has been fetched already may name it: it is freed later. */
static void connection_close(struct plain *plain, struct connection *c)
{
    if (c->state == IDLE) {
        TAILQ_REMOVE(&plain->idle, c, link);
        plain->idle_count--;
    }
    c->state = DEAD;
    c->call = NULL;
    close(c->fd);
    TAILQ_INSERT_TAIL(&plain->dead, c, link);
}

static void connection_keep(struct plain *plain, struct connection *c, uint64_t now_ns)
{
    if (plain->idle_count == IDLE_MAX) {
        connection_close(plain, c);
        return;
    }
    c->state = IDLE;
    c->used = true;
    c->call = NULL;
    c->idle_ns = now_ns;
    TAILQ_INSERT_HEAD(&plain->idle, c, link);
    plain->idle_count++;
}

/* One that was kept, to the same server. NULL: there is none. */
static struct connection *connection_again(struct plain *plain, const struct plain_call *call,
                                           uint64_t now_ns)
{
    struct connection *next;
    for (struct connection *c = TAILQ_FIRST(&plain->idle); c; c = next) {
        next = TAILQ_NEXT(c, link);
        if (now_ns - c->idle_ns > IDLE_NS) {
            connection_close(plain, c);
        } else if (c->port == call->port && addr_equal(&c->addr, &call->addr)) {
            TAILQ_REMOVE(&plain->idle, c, link);
            plain->idle_count--;
            c->state = BUSY;
            return c;
        }
    }
    return NULL;
}

static int dial(const struct plain_call *call)
{
    struct sockaddr_storage to;
    const int on = 1, idle_s = KEEPALIVE_S;
    const socklen_t len = addr_to_socket(&call->addr, call->port, &to);
    const int fd = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &idle_s, sizeof(idle_s));
    if (connect(fd, (const struct sockaddr *)&to, len) && errno != EINPROGRESS) {
        const int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static struct connection *connection_open(struct plain *plain, struct plain_call *call)
{
    call->unreachable = true; /* until it is there */
    if (plain->local_only && !where_address_is_local(&call->addr)) {
        call->error = not_local;
        return NULL;
    }
    const int fd = dial(call);
    struct connection *c = fd < 0 ? NULL : calloc(1, sizeof(*c));
    if (!c) {
        call->error = strerror(fd < 0 ? -fd : ENOMEM);
        if (fd >= 0)
            close(fd);
        return NULL;
    }
    *c = (struct connection){.state = CONNECTING, .fd = fd, .addr = call->addr, .port = call->port};
    watch(c, plain->epoll, EPOLL_CTL_ADD, true);
    return c;
}

/* ---- writing ---- */

static bool is_written(const struct plain_call *call)
{
    return call->sent == call->head_len + call->body_len;
}

/* What cannot be written is no end yet: the reply may be here already, and else reading finds what
 * is wrong. */
static void connection_write(struct plain *plain, struct connection *c)
{
    struct plain_call *call = c->call;
    while (!is_written(call)) {
        const size_t head = call->sent < call->head_len ? call->head_len - call->sent : 0;
        const size_t body = call->head_len + call->body_len - call->sent - head;
        struct iovec parts[] = {
            {call->head + call->sent * (head != 0), head},
            {(char *)(uintptr_t)call->body + (call->body_len - body), body},
        };
        const struct msghdr message = {.msg_iov = parts, .msg_iovlen = body ? 2 : 1};
        const ssize_t sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN) {
            call->spoiled = true;
            break;
        }
        if (sent < 0) {
            want_room(c, plain->epoll, true);
            return;
        }
        call->sent += (size_t)sent;
    }
    want_room(c, plain->epoll, false);
}

/* ---- calls ---- */

static void call_begin(struct plain_call *call, bool again, uint64_t now_ns)
{
    struct plain *plain = call->plain;
    h1_init(&call->reply);
    call->sent = 0;
    call->spoiled = call->unreachable = false;
    call->connect_due_ns = NEVER;
    struct connection *c = again ? connection_again(plain, call, now_ns) : NULL;
    if (c) {
        c->call = call;
        call->connection = c;
        connection_write(plain, c);
        return;
    }
    call->connection = c = connection_open(plain, call);
    if (c) {
        c->call = call;
        call->connect_due_ns = now_ns + HTTP_CONNECT_MS * NS_PER_MS;
    }
    plain->failing |= c == NULL;
    plain->due_ns = call->connect_due_ns < plain->due_ns ? call->connect_due_ns : plain->due_ns;
}

static void call_free(struct plain_call *call)
{
    struct plain *plain = call->plain;
    TAILQ_REMOVE(&plain->calls, call, link);
    explicit_bzero(call->head, call->head_len); /* a key, maybe */
    if (plain->spare_count == SPARE_MAX) {
        free(call);
        return;
    }
    TAILQ_INSERT_HEAD(&plain->spare, call, link);
    plain->spare_count++;
}

static uint64_t wait_ns(const struct h1 *reply)
{
    struct tm date = {0};
    const double ms = strtod(reply->retry_after_ms, NULL);
    if (ms > 0 && ms < 1e9)
        return (uint64_t)(ms * (double)NS_PER_MS);
    char *end;
    long long seconds = strtoll(reply->retry_after, &end, 10);
    if (end == reply->retry_after) {
        end = strptime(reply->retry_after, "%a, %d %b %Y %H:%M:%S GMT", &date);
        seconds = end ? (long long)(timegm(&date) - time(NULL)) : 0;
    }
    return seconds > 0 && seconds < RETRY_MAX_S ? (uint64_t)seconds * NS_PER_S : 0;
}

static void call_end(struct plain_call *call, const char *error)
{
    struct http_call *base = &call->base;
    const bool heard = call->reply.has_head;
    const int status = heard ? call->reply.status : 0;
    const struct http_end end = {
        .whole = !error,
        .unreachable = call->unreachable,
        .error = error ? error : "",
        .retry_after_ns = heard ? wait_ns(&call->reply) : 0,
    };
    if (!base->begun && status)
        base->events.head(base->user, status, call->reply.type[0] ? call->reply.type : NULL);
    base->events.end(base->user, status, &end);
    call_free(call);
}

static void call_fail(struct plain_call *call, const char *error)
{
    struct plain *plain = call->plain;
    struct connection *c = call->connection;
    const bool lost = c && c->used && call->reply.head_len == 0;
    if (c)
        connection_close(plain, c);
    call->connection = NULL;
    if (lost && error != not_in_time)
        call_begin(call, false, clock_now_ns());
    else
        call_end(call, error);
}

static void call_complete(struct plain_call *call, bool more)
{
    struct plain *plain = call->plain;
    struct connection *c = call->connection;
    if (more || call->reply.close || call->spoiled || !is_written(call))
        connection_close(plain, c);
    else
        connection_keep(plain, c, clock_now_ns());
    call->connection = NULL;
    call_end(call, NULL);
}

/* ---- reading ---- */

/* The body's bytes to whom they are for. Returns 0 or what is wrong. */
static const char *hand_over(struct plain_call *call, const char **at, size_t *len)
{
    struct http_call *base = &call->base;
    struct h1 *reply = &call->reply;
    struct h1_body part;
    int rc;
    while ((rc = h1_next(reply, at, len, &part)) == 1) {
        if (!base->begun) {
            base->begun = true;
            base->events.head(base->user, reply->status, reply->type[0] ? reply->type : NULL);
        }
        if (base->events.data(base->user, part.data, part.len))
            return not_taken;
    }
    return rc ? not_http : NULL;
}

/* Acknowledges at once what has come. Servers that leave Nagle's algorithm on send each further
 * word only then, and the kernel would take its time for that: 40 ms a word. */
static void acknowledge(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
}

static void connection_read(struct plain *plain, struct connection *c)
{
    struct plain_call *call = c->call;
    const char *at = plain->in;
    const ssize_t got = recv(c->fd, plain->in, sizeof(plain->in), 0);
    if (got < 0) {
        if (errno != EAGAIN && errno != EINTR)
            call_fail(call, strerror(errno));
        return;
    }
    if (got == 0) {
        if (h1_end(&call->reply))
            call_complete(call, false);
        else
            call_fail(call, ended);
        return;
    }
    size_t len = (size_t)got;
    const char *error = hand_over(call, &at, &len);
    if (error)
        call_fail(call, error);
    else if (call->reply.state == H1_COMPLETE)
        call_complete(call, len != 0);
    else
        acknowledge(c->fd);
}

static void connection_is_there(struct plain *plain, struct connection *c)
{
    struct plain_call *call = c->call;
    int error = 0;
    socklen_t size = sizeof(error);
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) || error) {
        call_fail(call, strerror(error ? error : errno));
        return;
    }
    c->state = BUSY;
    call->unreachable = false;
    call->connect_due_ns = NEVER;
    connection_write(plain, c);
}

void plain_ready(struct plain *plain, void *pointer, uint32_t events)
{
    struct connection *c = pointer;
    switch (c->state) {
    case CONNECTING:
        connection_is_there(plain, c);
        return;
    case IDLE: /* its end, or bytes that nobody asked for */
        connection_close(plain, c);
        return;
    case BUSY:
        if (events & EPOLLOUT)
            connection_write(plain, c);
        if (events & ~(uint32_t)EPOLLOUT)
            connection_read(plain, c);
        return;
    case DEAD:
        return;
    }
}

/* ---- time ---- */

static uint64_t call_due_ns(const struct plain_call *call)
{
    return call->connect_due_ns < call->due_ns ? call->connect_due_ns : call->due_ns;
}

/* The first call that failed at once, or whose time is over. */
static struct plain_call *next_over(struct plain *plain, uint64_t now_ns)
{
    struct plain_call *call;
    plain->due_ns = NEVER;
    TAILQ_FOREACH(call, &plain->calls, link)
    {
        const uint64_t due_ns = call_due_ns(call);
        if (!call->connection || due_ns <= now_ns)
            return call;
        plain->due_ns = due_ns < plain->due_ns ? due_ns : plain->due_ns;
    }
    return NULL;
}

void plain_tick(struct plain *plain, uint64_t now_ns)
{
    struct plain_call *call;
    while ((plain->failing || plain->due_ns <= now_ns) && (call = next_over(plain, now_ns))) {
        if (!call->connection)
            call_end(call, call->error);
        else
            call_fail(call, call->due_ns <= now_ns ? not_in_time : no_connection_in_time);
        plain->failing = true; /* there may be another one */
    }
    plain->failing = false;
    struct connection *c;
    while ((c = TAILQ_FIRST(&plain->dead))) {
        TAILQ_REMOVE(&plain->dead, c, link);
        free(c);
    }
}

uint64_t plain_due_ns(const struct plain *plain)
{
    return plain->failing ? 0 : plain->due_ns;
}

/* ---- beginning and end ---- */

/* False: it is too long. */
static bool write_head(struct plain_call *call, const struct plain_target *target,
                       const char *lines, const struct http_trace *trace)
{
    char traced[TRACE_MAX] = "";
    char length[64] = "";
    if (trace && trace->parent[0]) {
        const bool stated = trace->state_len > 0 && trace->state_len <= TRACESTATE_MAX;
        (void)snprintf(traced, sizeof(traced), "traceparent: %s\r\n%s%.*s%s", trace->parent,
                       stated ? "tracestate: " : "", stated ? (int)trace->state_len : 0,
                       stated ? trace->state : "", stated ? "\r\n" : "");
    }
    if (call->posts)
        (void)snprintf(length, sizeof(length), "Content-Length: %zu\r\n", call->body_len);
    const int len = snprintf(call->head, sizeof(call->head),
                             "%s %s HTTP/1.1\r\nHost: %.*s\r\nUser-Agent: weft-upstream\r\n"
                             "Accept: */*\r\n%s%s%s\r\n",
                             call->posts ? "POST" : "GET", target->path, target->authority_len,
                             target->authority, traced, lines, length);
    call->head_len = len > 0 && len < (int)HEAD_MAX ? (size_t)len : 0;
    return call->head_len != 0;
}

static struct plain_call *call_new(struct plain *plain)
{
    struct plain_call *call = TAILQ_FIRST(&plain->spare);
    if (!call)
        return malloc(sizeof(*call));
    TAILQ_REMOVE(&plain->spare, call, link);
    plain->spare_count--;
    return call;
}

struct http_call *plain_start(struct plain *plain, const struct plain_target *target,
                              const char *lines, const char *body, const struct http_trace *trace,
                              long timeout_ms, const struct http_events *events, void *user)
{
    const uint64_t now_ns = clock_now_ns();
    struct plain_call *call = call_new(plain);
    if (!call)
        return NULL;
    call->base = (struct http_call){.is_plain = true, .events = *events, .user = user};
    call->plain = plain;
    call->addr = target->addr;
    call->port = target->port;
    call->error = NULL;
    call->posts = body != NULL;
    call->body = body ? body : "";
    call->body_len = strlen(call->body);
    call->due_ns = timeout_ms > 0 ? now_ns + (uint64_t)timeout_ms * NS_PER_MS : NEVER;
    plain->due_ns = call->due_ns < plain->due_ns ? call->due_ns : plain->due_ns;
    TAILQ_INSERT_TAIL(&plain->calls, call, link);
    if (!write_head(call, target, lines, trace)) {
        call->head_len = sizeof(call->head);
        call_free(call);
        return NULL;
    }
    call_begin(call, true, now_ns);
    return &call->base;
}

void plain_cancel(struct http_call *base)
{
    struct plain_call *call = (struct plain_call *)base;
    if (call->connection)
        connection_close(call->plain, call->connection);
    call_free(call);
}

int plain_create(struct plain **out, int epoll, bool local_only)
{
    struct plain *plain = calloc(1, sizeof(*plain));
    *out = plain;
    if (!plain)
        return -ENOMEM;
    plain->epoll = epoll;
    plain->local_only = local_only;
    plain->due_ns = NEVER;
    TAILQ_INIT(&plain->idle);
    TAILQ_INIT(&plain->dead);
    TAILQ_INIT(&plain->calls);
    TAILQ_INIT(&plain->spare);
    return 0;
}

void plain_destroy(struct plain *plain)
{
    if (!plain)
        return;
    while (!TAILQ_EMPTY(&plain->calls))
        plain_cancel(&TAILQ_FIRST(&plain->calls)->base);
    while (!TAILQ_EMPTY(&plain->idle))
        connection_close(plain, TAILQ_FIRST(&plain->idle));
    plain_tick(plain, 0);
    struct plain_call *call;
    while ((call = TAILQ_FIRST(&plain->spare))) {
        TAILQ_REMOVE(&plain->spare, call, link);
        free(call);
    }
    free(plain);
}
