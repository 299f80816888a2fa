/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http.h - many HTTP calls at a time over libcurl's multi interface and one epoll descriptor.
 * Connections are kept and used again. The caller waits on http_fd() and calls http_process();
 * nothing blocks (names are looked up on libcurl's own thread).
 *
 * Rules no caller can loosen: certificates are verified; redirects are not followed; http and https
 * only; keys appear in no log line, since no line is written here. With `local_only` every address
 * is looked at before it is dialled, proxies of the environment are not used, and no name server is
 * asked, because where.h lets addresses and localhost through only.
 *
 * Threads: one struct http belongs to one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_CONNECT_MS 5000

struct http;
struct http_call;
struct http_peer;

/* How a call ended. */
struct http_end {
    bool whole;              /* the reply came whole */
    bool unreachable;        /* no connection, or no TLS: nothing was sent */
    const char *error;       /* "" or libcurl's words */
    uint64_t retry_after_ns; /* what the server asks for; 0 = nothing */
};

/* Called from http_process() only. end() may start calls and cancel others; head() and data() may
 * do neither: they come from inside libcurl. */
struct http_events {
    /* The first bytes of the body come; not called if there is no body. */
    void (*head)(void *user, int status, const char *content_type);
    /* Not 0 breaks the call off; `end` follows. */
    int (*data)(void *user, const char *data, size_t len);
    /* The call is gone when it returns. `status` is 0 if there was no reply. */
    void (*end)(void *user, int status, const struct http_end *end);
};

int http_create(struct http **http, bool local_only);
/* Drops open calls without telling. NULL is fine. */
void http_destroy(struct http *http);

/* Whom to call: what all calls to one server share. `key` (may be NULL) becomes the bearer token;
 * `ca_path` (may be NULL) names the authorities to trust in place of the system's. */
int http_peer_create(struct http_peer **peer, const char *key, const char *ca_path);
void http_peer_destroy(struct http_peer *peer);

/* W3C trace context, as headers; copied. */
struct http_trace {
    const char *parent; /* traceparent; "" = none, and no state either */
    const char *state;  /* tracestate, as tracestate_write() writes it */
    size_t state_len;
};

/* Calls; GET if `body` is NULL. `body` is kept by reference until the end. `timeout_ms` bounds the
 * whole call; 0 = no bound. `trace` goes along; NULL = none. NULL: no memory. */
struct http_call *http_start(struct http *http, const struct http_peer *peer, const char *url,
                             const char *body, const struct http_trace *trace, long timeout_ms,
                             const struct http_events *events, void *user);
/* Breaks a call off at once; `end` is not called. */
void http_cancel(struct http_call *call);

int http_fd(const struct http *http);
/* Until http_process() must be called; -1 = never. */
int http_timeout_ms(const struct http *http, uint64_t now_ns);
void http_process(struct http *http, uint64_t now_ns);
