/* SPDX-License-Identifier: Apache-2.0 */
/*
 * http_reply.h - an HTTP/1.1 answer of an OpenAI-compatible server, as its bytes come: status,
 * length or chunks, and of an event stream the events that carry text. Pure, and the bytes are not
 * trusted. http.c feeds it. RFC 9112; the events are those of chat completions with `stream`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP_LINE_MAX 2048u /* kept of a line; a header line beyond is an error */

enum http_state {
    HTTP_STATUS,
    HTTP_HEADERS,
    HTTP_BODY,       /* of a known length, or to the end of the connection */
    HTTP_CHUNK_SIZE, /* chunked */
    HTTP_CHUNK_DATA,
    HTTP_CHUNK_END,
    HTTP_TRAILERS,
    HTTP_COMPLETE,
    HTTP_BAD,
};

struct http_line {
    char text[HTTP_LINE_MAX];
    uint32_t len;
    bool cut; /* was longer */
};

struct http_reply {
    enum http_state state;
    uint32_t status;
    bool chunked, has_length, events, close;
    uint64_t left;          /* bytes of the body or of the chunk */
    struct http_line line;  /* of status, headers and chunk sizes */
    struct http_line event; /* chunks end anywhere in one */
    /* Of an event stream: */
    uint32_t pieces; /* events with text */
    bool done;       /* `[DONE]` came */
    bool error;      /* an error event came */
};

void http_reply_init(struct http_reply *r);
/* Takes bytes. Returns how many were used: fewer than there are once the answer is complete or bad.
 */
size_t http_reply_feed(struct http_reply *r, const char *data, size_t len);
/* The connection has ended; completes an answer that lasts until then. */
void http_reply_end(struct http_reply *r);
/* Is it whole and an answer, and not an error or the beginning of a stream? */
bool http_reply_ok(const struct http_reply *r);
