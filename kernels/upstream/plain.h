/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plain.h - HTTP/1.1 without TLS to a server whose address is known: what most calls of
 * weft-upstream are, for a fifth of what libcurl takes for one. A call is written the moment it
 * begins, its connection stays registered with epoll between calls, and nothing is allocated for
 * one but the first. http.c decides which calls come here; everything that needs names, TLS or a
 * proxy goes to libcurl.
 *
 * A connection that was kept may have been closed by the server meanwhile: a call that got no byte
 * of a reply there is made once more on a new one.
 *
 * Threads: one struct plain belongs to one.
 */
#pragma once

#include <netinet/in.h>
#include <stdint.h>

#include "kernels/upstream/http_impl.h"

struct plain;

/* Where a URL leads; texts are in the URL. */
struct plain_target {
    struct in6_addr addr;
    uint16_t port;
    const char *authority;
    int authority_len;
    const char *path;
};

/* False: this is not for plain.h. */
bool plain_target_of(struct plain_target *target, const char *url);

/* Connections are registered with `epoll`, which is the caller's; their events have a pointer that
 * is not NULL. */
int plain_create(struct plain **plain, int epoll, bool local_only);
/* Drops open calls without telling. NULL is fine. */
void plain_destroy(struct plain *plain);

/* As http_start(); `lines` are the peer's headers. */
struct http_call *plain_start(struct plain *plain, const struct plain_target *target,
                              const char *lines, const char *body, const struct http_trace *trace,
                              long timeout_ms, const struct http_events *events, void *user);
void plain_cancel(struct http_call *call);

/* What epoll says of a connection: its pointer and its events. */
void plain_ready(struct plain *plain, void *pointer, uint32_t events);
/* After those: what has failed, whose time is over. */
void plain_tick(struct plain *plain, uint64_t now_ns);
/* When plain_tick() is due; UINT64_MAX = never. */
uint64_t plain_due_ns(const struct plain *plain);
