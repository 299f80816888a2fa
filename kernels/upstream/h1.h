/* SPDX-License-Identifier: Apache-2.0 */
/*
 * h1.h - a reply of HTTP/1.1 as its bytes come: status, the headers that matter here, the body's
 * bytes out of their length or their chunks (RFC 9112). plain.c feeds it. The bytes are not
 * trusted: nothing is allocated, and lines and headers are bounded. Threads: none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define H1_LINE_MAX 1024u         /* kept of a line: of a header that is longer, its beginning */
#define H1_HEAD_MAX (256u * 1024) /* bytes of all headers and trailers of a reply */
#define H1_TYPE_MAX 128u
#define H1_WAIT_MAX 40u /* a date has 29 */

enum h1_state {
    H1_STATUS,
    H1_HEADERS,
    H1_LENGTH, /* a body of a known length */
    H1_REST,   /* a body that lasts until the connection ends */
    H1_CHUNK_SIZE,
    H1_CHUNK,
    H1_CHUNK_END,
    H1_TRAILERS,
    H1_COMPLETE,
    H1_BAD,
};

struct h1 {
    enum h1_state state;
    int status;    /* the final one is known once `has_head` is true */
    bool has_head; /* status and headers are here; no 1xx */
    bool chunked;
    bool has_length;
    bool close;                    /* the connection is for no further call */
    uint64_t left;                 /* of the body or the chunk */
    char type[H1_TYPE_MAX];        /* Content-Type; "" = none */
    char retry_after[H1_WAIT_MAX]; /* Retry-After: seconds or a date */
    char retry_after_ms[H1_WAIT_MAX];
    uint32_t head_len;
    uint32_t line_len;
    bool line_cut;
    char line[H1_LINE_MAX];
};

/* A part of the body, in the caller's bytes. */
struct h1_body {
    const char *data;
    size_t len;
};

void h1_init(struct h1 *h);

/* Takes bytes from *at. Returns 1: the next part of the body; 0: all bytes are taken, or the reply
 * is complete and what is left is no part of it; -EBADMSG: this is no reply. */
int h1_next(struct h1 *h, const char **at, size_t *len, struct h1_body *body);

/* The connection has ended. Returns whether the reply is whole. */
bool h1_end(struct h1 *h);
