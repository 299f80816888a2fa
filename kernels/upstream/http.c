/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - see http.h: libcurl's part of it, and which calls are plain.h's. */
#include "kernels/upstream/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/upstream/http_impl.h"
#include "kernels/upstream/plain.h"
#include "kernels/upstream/where.h"
#include "schemas/base/addr.h"
#include "schemas/base/clock.h"
#include "schemas/base/tracestate.h"

#define EVENTS_AT_ONCE 64
#define NEVER          UINT64_MAX
#define HEADER_MAX     4096u
#define TRACE_MAX      80u /* "traceparent: " and its 55 digits */
#define STATE_MAX      (16u + TRACESTATE_MAX)
#define IDLE_MAX       64u  /* handles kept for the next calls */
#define CONNECTS_MAX   512L /* connections kept; left to itself libcurl goes by the calls of now */

struct curl_call {
    struct http_call base; /* first member */
    TAILQ_ENTRY(curl_call) link;
    struct http *http;
    CURL *easy;
    struct curl_slist trace;    /* in front of the peer's headers, and between them ... */
    struct curl_slist state;    /* ... this one, if it is one */
    char trace_line[TRACE_MAX]; /* "" = none */
    char state_line[STATE_MAX];
    char error[CURL_ERROR_SIZE];
};

struct http {
    int epoll;           /* connections of `plain`, and `curl_epoll`, which has no pointer */
    struct plain *plain; /* NULL: there is a proxy for all calls */
    CURLM *multi;
    int curl_epoll;
    bool local_only;
    uint64_t due_ns; /* libcurl's timer */
    int left;        /* the socket that was let go of last: nothing more is expected there */
    TAILQ_HEAD(curl_calls, curl_call) calls;
    CURL *idle[IDLE_MAX]; /* without any option: nothing of one call gets into another */
    size_t idle_count;
};

struct http_peer {
    struct curl_slist *headers;
    char *lines; /* the same as they go out, for plain.h */
    char *ca_path;
};

/* ---- libcurl's sockets and timer ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known)
{
    struct http *http = user;
    struct epoll_event event = {.data.fd = fd};
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        http->left = fd;
        (void)epoll_ctl(http->curl_epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) |
                   (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
    if (epoll_ctl(http->curl_epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) &&
        epoll_ctl(http->curl_epoll, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event))
        return -1;
    curl_multi_assign(http->multi, fd, http);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *user)
{
    struct http *http = user;
    (void)multi;
    http->due_ns = timeout_ms < 0 ? NEVER : clock_now_ns() + (uint64_t)timeout_ms * NS_PER_MS;
    return 0;
}

/* The last door before a packet leaves: where the name has led to does not matter, only where the
 * connection would go. */
static curl_socket_t on_open(void *user, curlsocktype purpose, struct curl_sockaddr *peer)
{
    const struct http *http = user;
    (void)purpose;
    if (http->local_only) {
        struct sockaddr_storage from = {0};
        struct in6_addr address;
        if ((peer->family != AF_INET && peer->family != AF_INET6) || peer->addrlen > sizeof(from))
            return CURL_SOCKET_BAD;
        memcpy(&from, &peer->addr, peer->addrlen);
        (void)addr_of_socket(&from, &address);
        if (!where_address_is_local(&address))
            return CURL_SOCKET_BAD;
    }
    return socket(peer->family, peer->socktype | SOCK_CLOEXEC, peer->protocol);
}

/* libcurl's rules for http://; whom no_proxy lets through is left to libcurl as well. */
static bool has_proxy(void)
{
    static const char *const names[] = {"http_proxy", "all_proxy", "ALL_PROXY"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *proxy = getenv(names[i]);
        if (proxy && proxy[0])
            return true;
    }
    return false;
}

static int open_curl(struct http *http)
{
    struct epoll_event event = {.events = EPOLLIN};
    http->multi = curl_multi_init();
    http->curl_epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!http->multi || http->curl_epoll < 0 ||
        epoll_ctl(http->epoll, EPOLL_CTL_ADD, http->curl_epoll, &event))
        return -ENOMEM;
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, CONNECTS_MAX);
    return 0;
}

int http_create(struct http **out, bool local_only)
{
    *out = NULL;
    struct http *http = calloc(1, sizeof(*http));
    if (!http)
        return -ENOMEM;
    TAILQ_INIT(&http->calls);
    http->due_ns = NEVER;
    http->local_only = local_only;
    http->curl_epoll = -1;
    http->epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = http->epoll < 0 ? -errno : open_curl(http);
    if (rc == 0 && (local_only || !has_proxy()))
        rc = plain_create(&http->plain, http->epoll, local_only);
    if (rc)
        http_destroy(http);
    else
        *out = http;
    return rc;
}

/* A handle has its buffers; connections are the multi handle's. */
static CURL *easy_take(struct http *http)
{
    return http->idle_count ? http->idle[--http->idle_count] : curl_easy_init();
}

static void easy_give(struct http *http, CURL *easy)
{
    if (http->idle_count == IDLE_MAX) {
        curl_easy_cleanup(easy);
        return;
    }
    curl_easy_reset(easy);
    http->idle[http->idle_count++] = easy;
}

static void call_free(struct curl_call *call)
{
    TAILQ_REMOVE(&call->http->calls, call, link);
    curl_multi_remove_handle(call->http->multi, call->easy);
    easy_give(call->http, call->easy);
    free(call);
}

void http_destroy(struct http *http)
{
    if (!http)
        return;
    while (!TAILQ_EMPTY(&http->calls))
        call_free(TAILQ_FIRST(&http->calls));
    while (http->idle_count)
        curl_easy_cleanup(http->idle[--http->idle_count]);
    if (http->multi)
        curl_multi_cleanup(http->multi);
    plain_destroy(http->plain);
    if (http->curl_epoll >= 0)
        close(http->curl_epoll);
    if (http->epoll >= 0)
        close(http->epoll);
    free(http);
}

/* ---- whom to call ---- */

static int add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (!longer)
        return -ENOMEM;
    *list = longer;
    return 0;
}

/* What goes to every server. "Expect:" has no value: libcurl must not wait for "100 Continue"
 * before a long prompt. */
static int peer_fill(struct http_peer *peer, const char *key)
{
    char line[HEADER_MAX] = "";
    int rc = add_header(&peer->headers, "Content-Type: application/json");
    if (rc == 0)
        rc = add_header(&peer->headers, "Expect:");
    if (rc == 0 && key) {
        const int len = snprintf(line, sizeof(line), "Authorization: Bearer %s", key);
        rc = len < (int)sizeof(line) ? add_header(&peer->headers, line) : -E2BIG;
    }
    if (rc == 0 && asprintf(&peer->lines, "Content-Type: application/json\r\n%s%s", line,
                            line[0] ? "\r\n" : "") < 0) {
        peer->lines = NULL;
        rc = -ENOMEM;
    }
    explicit_bzero(line, sizeof(line));
    return rc;
}

int http_peer_create(struct http_peer **out, const char *key, const char *ca_path)
{
    *out = NULL;
    struct http_peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        return -ENOMEM;
    int rc = peer_fill(peer, key);
    if (rc == 0 && ca_path && !(peer->ca_path = strdup(ca_path)))
        rc = -ENOMEM;
    if (rc)
        http_peer_destroy(peer);
    else
        *out = peer;
    return rc;
}

void http_peer_destroy(struct http_peer *peer)
{
    if (!peer)
        return;
    for (struct curl_slist *at = peer->headers; at; at = at->next)
        explicit_bzero(at->data, strlen(at->data)); /* a key, maybe */
    if (peer->lines)
        explicit_bzero(peer->lines, strlen(peer->lines));
    curl_slist_free_all(peer->headers);
    free(peer->lines);
    free(peer->ca_path);
    free(peer);
}

/* ---- calls ---- */

static size_t on_data(char *data, size_t one, size_t len, void *user)
{
    struct curl_call *call = user;
    (void)one; /* always 1 */
    if (!call->base.begun) {
        long status = 0;
        char *type = NULL;
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
        call->base.begun = true;
        call->base.events.head(call->base.user, (int)status, type);
    }
    return call->base.events.data(call->base.user, data, len) ? CURL_WRITEFUNC_ERROR : len;
}

static void set_options(struct curl_call *call, const struct http_peer *peer, const char *url,
                        const char *body, long timeout_ms)
{
    CURL *easy = call->easy;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, "weft-upstream");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, call->trace_line[0] ? &call->trace : peer->headers);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)HTTP_CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, call);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, call->http);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, call);
    if (call->http->local_only)
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    if (peer->ca_path)
        curl_easy_setopt(easy, CURLOPT_CAINFO, peer->ca_path);
    if (body) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(body));
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
    }
}

static void set_trace(struct curl_call *call, const struct http_peer *peer,
                      const struct http_trace *trace)
{
    (void)snprintf(call->trace_line, sizeof(call->trace_line), "traceparent: %s", trace->parent);
    call->trace = (struct curl_slist){call->trace_line, peer->headers};
    if (trace->state_len > 0 && trace->state_len <= TRACESTATE_MAX) {
        (void)snprintf(call->state_line, sizeof(call->state_line), "tracestate: %.*s",
                       (int)trace->state_len, trace->state);
        call->state = (struct curl_slist){call->state_line, peer->headers};
        call->trace.next = &call->state;
    }
}

static struct http_call *curl_start(struct http *http, const struct http_peer *peer,
                                    const char *url, const char *body,
                                    const struct http_trace *trace, long timeout_ms,
                                    const struct http_events *events, void *user)
{
    struct curl_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    *call = (struct curl_call){.base = {.events = *events, .user = user}, .http = http};
    call->easy = easy_take(http);
    if (!call->easy) {
        free(call);
        return NULL;
    }
    if (trace && trace->parent[0])
        set_trace(call, peer, trace);
    set_options(call, peer, url, body, timeout_ms);
    TAILQ_INSERT_TAIL(&http->calls, call, link);
    if (curl_multi_add_handle(http->multi, call->easy)) {
        call_free(call);
        return NULL;
    }
    return &call->base;
}

struct http_call *http_start(struct http *http, const struct http_peer *peer, const char *url,
                             const char *body, const struct http_trace *trace, long timeout_ms,
                             const struct http_events *events, void *user)
{
    struct plain_target target;
    if (http->plain && plain_target_of(&target, url))
        return plain_start(http->plain, &target, peer->lines, body, trace, timeout_ms, events,
                           user);
    return curl_start(http, peer, url, body, trace, timeout_ms, events, user);
}

void http_cancel(struct http_call *call)
{
    if (!call)
        return;
    if (call->is_plain)
        plain_cancel(call);
    else
        call_free((struct curl_call *)call);
}

static bool was_unreachable(CURLcode code)
{
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return true;
    default:
        return false;
    }
}

static uint64_t retry_after_ns(CURL *easy)
{
    struct curl_header *header;
    curl_off_t seconds = 0;
    if (curl_easy_header(easy, "retry-after-ms", 0, CURLH_HEADER, -1, &header) == CURLHE_OK) {
        const double ms = strtod(header->value, NULL);
        if (ms > 0 && ms < 1e9)
            return (uint64_t)(ms * (double)NS_PER_MS);
    }
    curl_easy_getinfo(easy, CURLINFO_RETRY_AFTER, &seconds);
    return seconds > 0 && seconds < 1000000 ? (uint64_t)seconds * NS_PER_S : 0;
}

static void tell_end(struct curl_call *call, CURLcode code)
{
    long status = 0;
    char *type = NULL;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
    if (!call->base.begun && status)
        call->base.events.head(call->base.user, (int)status, type);
    const char *words = call->error[0] ? call->error : curl_easy_strerror(code);
    const struct http_end end = {
        .whole = code == CURLE_OK,
        .unreachable = was_unreachable(code),
        .error = code == CURLE_OK ? "" : words,
        .retry_after_ns = retry_after_ns(call->easy),
    };
    call->base.events.end(call->base.user, (int)status, &end);
    call_free(call);
}

int http_fd(const struct http *http)
{
    return http->epoll;
}

int http_timeout_ms(const struct http *http, uint64_t now_ns)
{
    const uint64_t plain_ns = http->plain ? plain_due_ns(http->plain) : NEVER;
    const uint64_t due_ns = plain_ns < http->due_ns ? plain_ns : http->due_ns;
    if (due_ns == NEVER)
        return -1;
    const uint64_t ms = due_ns > now_ns ? (due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* Acknowledges at once what has come. Servers that leave Nagle's algorithm on send each further
 * word only then, and the kernel would take its time for that: 40 ms a word. */
static void acknowledge(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on)); /* gone by now, maybe */
}

/* What has come for libcurl. */
static void curl_ready(struct http *http)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int running;
    const int count = epoll_wait(http->curl_epoll, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < count; i++) {
        const int what = (events[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                         (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                         (events[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);
        http->left = -1;
        curl_multi_socket_action(http->multi, events[i].data.fd, what, &running);
        if (http->left != events[i].data.fd)
            acknowledge(events[i].data.fd);
    }
}

/* What its timer asks for, and the calls that are over. */
static void curl_tick(struct http *http, uint64_t now_ns)
{
    int count;
    if (http->due_ns <= now_ns) {
        http->due_ns = NEVER;
        curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &count);
    }
    const CURLMsg *message;
    while ((message = curl_multi_info_read(http->multi, &count))) {
        struct curl_call *call = NULL;
        const CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call) == CURLE_OK && call)
            tell_end(call, code);
    }
}

void http_process(struct http *http, uint64_t now_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    const int count = epoll_wait(http->epoll, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            plain_ready(http->plain, events[i].data.ptr, events[i].events);
        else
            curl_ready(http);
    }
    if (http->due_ns <= now_ns || !TAILQ_EMPTY(&http->calls))
        curl_tick(http, now_ns);
    if (http->plain)
        plain_tick(http->plain, now_ns);
}
