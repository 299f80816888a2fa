/* SPDX-License-Identifier: Apache-2.0 */
/* http.c - see http.h. */
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

#include "kernels/upstream/where.h"
#include "schemas/base/addr.h"
#include "schemas/base/clock.h"
#include "schemas/base/tracestate.h"

#define EVENTS_AT_ONCE 32
#define NEVER          UINT64_MAX
#define HEADER_MAX     4096u
#define TRACE_MAX      80u /* "traceparent: " and its 55 digits */
#define STATE_MAX      (16u + TRACESTATE_MAX)
#define IDLE_MAX       64u  /* handles kept for the next calls */
#define CONNECTS_MAX   512L /* connections kept; left to itself libcurl goes by the calls of now */

struct http_call {
    TAILQ_ENTRY(http_call) link;
    struct http *http;
    CURL *easy;
    struct http_events events;
    void *user;
    bool begun;                 /* head() was called */
    struct curl_slist trace;    /* in front of the peer's headers, and between them ... */
    struct curl_slist state;    /* ... this one, if it is one */
    char trace_line[TRACE_MAX]; /* "" = none */
    char state_line[STATE_MAX];
    char error[CURL_ERROR_SIZE];
};

struct http {
    CURLM *multi;
    int epoll;
    bool local_only;
    uint64_t due_ns; /* libcurl's timer */
    int left;        /* the socket that was let go of last: nothing more is expected there */
    TAILQ_HEAD(http_calls, http_call) calls;
    CURL *idle[IDLE_MAX]; /* without any option: nothing of one call gets into another */
    size_t idle_count;
};

struct http_peer {
    struct curl_slist *headers;
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
        (void)epoll_ctl(http->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    event.events = (what & CURL_POLL_IN ? (uint32_t)EPOLLIN : 0) |
                   (what & CURL_POLL_OUT ? (uint32_t)EPOLLOUT : 0);
    if (epoll_ctl(http->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) &&
        epoll_ctl(http->epoll, known ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event))
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

int http_create(struct http **out, bool local_only)
{
    *out = NULL;
    struct http *http = calloc(1, sizeof(*http));
    if (!http)
        return -ENOMEM;
    TAILQ_INIT(&http->calls);
    http->due_ns = NEVER;
    http->local_only = local_only;
    http->epoll = epoll_create1(EPOLL_CLOEXEC);
    http->multi = curl_multi_init();
    if (http->epoll < 0 || !http->multi) {
        http_destroy(http);
        return -ENOMEM;
    }
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    curl_multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, CONNECTS_MAX);
    *out = http;
    return 0;
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

static void call_free(struct http_call *call)
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

int http_peer_create(struct http_peer **out, const char *key, const char *ca_path)
{
    char line[HEADER_MAX];
    *out = NULL;
    struct http_peer *peer = calloc(1, sizeof(*peer));
    if (!peer)
        return -ENOMEM;
    int rc = add_header(&peer->headers, "Content-Type: application/json");
    if (rc == 0) /* no waiting for "100 Continue" before a long prompt */
        rc = add_header(&peer->headers, "Expect:");
    if (rc == 0 && key) {
        const int len = snprintf(line, sizeof(line), "Authorization: Bearer %s", key);
        rc = len < (int)sizeof(line) ? add_header(&peer->headers, line) : -E2BIG;
        explicit_bzero(line, sizeof(line));
    }
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
    curl_slist_free_all(peer->headers);
    free(peer->ca_path);
    free(peer);
}

/* ---- calls ---- */

static size_t on_data(char *data, size_t one, size_t len, void *user)
{
    struct http_call *call = user;
    (void)one; /* always 1 */
    if (!call->begun) {
        long status = 0;
        char *type = NULL;
        curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
        call->begun = true;
        call->events.head(call->user, (int)status, type);
    }
    return call->events.data(call->user, data, len) ? CURL_WRITEFUNC_ERROR : len;
}

static void set_options(struct http_call *call, const struct http_peer *peer, const char *url,
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

static void set_trace(struct http_call *call, const struct http_peer *peer,
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

struct http_call *http_start(struct http *http, const struct http_peer *peer, const char *url,
                             const char *body, const struct http_trace *trace, long timeout_ms,
                             const struct http_events *events, void *user)
{
    struct http_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    *call = (struct http_call){.http = http, .events = *events, .user = user};
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
    return call;
}

void http_cancel(struct http_call *call)
{
    if (call)
        call_free(call);
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

static void tell_end(struct http_call *call, CURLcode code)
{
    long status = 0;
    char *type = NULL;
    curl_easy_getinfo(call->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(call->easy, CURLINFO_CONTENT_TYPE, &type);
    if (!call->begun && status)
        call->events.head(call->user, (int)status, type);
    const char *words = call->error[0] ? call->error : curl_easy_strerror(code);
    const struct http_end end = {
        .whole = code == CURLE_OK,
        .unreachable = was_unreachable(code),
        .error = code == CURLE_OK ? "" : words,
        .retry_after_ns = retry_after_ns(call->easy),
    };
    call->events.end(call->user, (int)status, &end);
    call_free(call);
}

int http_fd(const struct http *http)
{
    return http->epoll;
}

int http_timeout_ms(const struct http *http, uint64_t now_ns)
{
    if (http->due_ns == NEVER)
        return -1;
    const uint64_t ms =
        http->due_ns > now_ns ? (http->due_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* Acknowledges at once what has come. Servers that leave Nagle's algorithm on send each further
 * word only then, and the kernel would take its time for that: 40 ms a word. */
static void acknowledge(int fd)
{
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on)); /* gone by now, maybe */
}

void http_process(struct http *http, uint64_t now_ns)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    int running;
    const int count = epoll_wait(http->epoll, events, EVENTS_AT_ONCE, 0);
    for (int i = 0; i < count; i++) {
        const int what = (events[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                         (events[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                         (events[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);
        http->left = -1;
        curl_multi_socket_action(http->multi, events[i].data.fd, what, &running);
        if (http->left != events[i].data.fd)
            acknowledge(events[i].data.fd);
    }
    if (http->due_ns <= now_ns) {
        http->due_ns = NEVER;
        curl_multi_socket_action(http->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    }
    int left;
    const CURLMsg *message;
    while ((message = curl_multi_info_read(http->multi, &left))) {
        struct http_call *call = NULL;
        const CURLcode code = message->data.result;
        if (message->msg == CURLMSG_DONE &&
            curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &call) == CURLE_OK && call)
            tell_end(call, code);
    }
}
