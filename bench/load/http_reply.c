/* SPDX-License-Identifier: Apache-2.0 */
/* http_reply.c - see http_reply.h. */
#include "bench/load/http_reply.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CHUNK_MAX (UINT64_C(1) << 40)

void http_reply_init(struct http_reply *r)
{
    memset(r, 0, sizeof(*r));
}

/* ---- lines ---- */

static void keep(struct http_line *l, char c)
{
    if (l->len < HTTP_LINE_MAX - 1) {
        l->text[l->len++] = c;
    } else {
        l->cut = true;
    }
}

/* Ends the line; without its return. */
static const char *take_line(struct http_line *l)
{
    if (l->len > 0 && l->text[l->len - 1] == '\r') {
        l->len--;
    }
    l->text[l->len] = '\0';
    l->len = 0;
    return l->text;
}

static void on_status(struct http_reply *r, const char *line)
{
    if (strncmp(line, "HTTP/1.", 7) != 0 || strlen(line) < 12) {
        r->state = HTTP_BAD;
        return;
    }
    r->status = (uint32_t)strtoul(line + 9, NULL, 10);
    r->close = line[7] == '0';
    r->state = r->status >= 100 && r->status < 600 ? HTTP_HEADERS : HTTP_BAD;
}

/* What follows a header's name; NULL if it is another. */
static const char *value_of(const char *line, const char *name)
{
    size_t len = strlen(name);
    if (strncasecmp(line, name, len) != 0 || line[len] != ':') {
        return NULL;
    }
    return line + len + 1 + strspn(line + len + 1, " \t");
}

static void on_header(struct http_reply *r, const char *line)
{
    const char *value;
    if ((value = value_of(line, "content-length")) != NULL) {
        char *end;
        r->left = strtoull(value, &end, 10);
        r->has_length = *value >= '0' && *value <= '9' && *end == '\0' && r->left < CHUNK_MAX;
        r->state = r->has_length ? r->state : HTTP_BAD;
    } else if ((value = value_of(line, "transfer-encoding")) != NULL) {
        r->chunked = strcasecmp(value, "chunked") == 0;
    } else if ((value = value_of(line, "content-type")) != NULL) {
        r->events = strncasecmp(value, "text/event-stream", 17) == 0;
    } else if ((value = value_of(line, "connection")) != NULL) {
        r->close =
            strcasecmp(value, "close") == 0 || (r->close && strcasecmp(value, "keep-alive") != 0);
    }
}

static void on_headers_end(struct http_reply *r)
{
    if (r->status < 200) { /* an interim answer: the real one follows */
        http_reply_init(r);
    } else if (r->status == 204 || r->status == 304) {
        r->state = HTTP_COMPLETE;
    } else if (r->chunked) {
        r->state = HTTP_CHUNK_SIZE;
    } else {
        r->state = r->has_length && r->left == 0 ? HTTP_COMPLETE : HTTP_BODY;
        r->close = r->close || !r->has_length;
    }
}

static void on_chunk_size(struct http_reply *r, const char *line)
{
    char *end;
    r->left = strtoull(line, &end, 16);
    if (end == line || *line == '-' || *line == '+' || r->left > CHUNK_MAX) {
        r->state = HTTP_BAD;
    } else {
        r->state = r->left == 0 ? HTTP_TRAILERS : HTTP_CHUNK_DATA;
    }
}

static void on_line(struct http_reply *r, const char *line)
{
    if (r->line.cut) {
        r->state = HTTP_BAD;
        return;
    }
    switch (r->state) {
    case HTTP_STATUS:
        on_status(r, line);
        break;
    case HTTP_HEADERS:
        if (*line == '\0') {
            on_headers_end(r);
        } else {
            on_header(r, line);
        }
        break;
    case HTTP_CHUNK_SIZE:
        on_chunk_size(r, line);
        break;
    case HTTP_CHUNK_END:
        r->state = *line == '\0' ? HTTP_CHUNK_SIZE : HTTP_BAD;
        break;
    default: /* trailers */
        r->state = *line == '\0' ? HTTP_COMPLETE : HTTP_TRAILERS;
        break;
    }
}

/* ---- body ---- */

static void on_event(struct http_reply *r, const char *line)
{
    if (strncmp(line, "data:", 5) != 0) {
        return;
    }
    line += 5 + strspn(line + 5, " ");
    const char *text = strstr(line, "\"content\":");
    if (strcmp(line, "[DONE]") == 0) {
        r->done = true;
    } else if (strncmp(line, "{\"error\"", 8) == 0) {
        r->error = true;
    } else if (text != NULL) {
        text += 10 + strspn(text + 10, " ");
        r->pieces += text[0] == '"' && text[1] != '"';
    }
}

static void on_body(struct http_reply *r, const char *data, size_t len)
{
    for (size_t i = 0; r->events && i < len; i++) {
        if (data[i] == '\n') {
            on_event(r, take_line(&r->event)); /* of a long one its beginning */
        } else {
            keep(&r->event, data[i]);
        }
    }
}

static size_t feed_body(struct http_reply *r, const char *data, size_t len)
{
    size_t used = (r->chunked || r->has_length) && r->left < len ? (size_t)r->left : len;
    on_body(r, data, used);
    r->left -= r->chunked || r->has_length ? used : 0;
    if (r->left == 0 && r->chunked) {
        r->state = HTTP_CHUNK_END;
    } else if (r->left == 0 && r->has_length) {
        r->state = HTTP_COMPLETE;
    }
    return used;
}

size_t http_reply_feed(struct http_reply *r, const char *data, size_t len)
{
    size_t used = 0;
    while (used < len && r->state != HTTP_COMPLETE && r->state != HTTP_BAD) {
        if (r->state == HTTP_BODY || r->state == HTTP_CHUNK_DATA) {
            used += feed_body(r, data + used, len - used);
        } else if (data[used++] == '\n') {
            on_line(r, take_line(&r->line));
        } else {
            keep(&r->line, data[used - 1]);
        }
    }
    return used;
}

void http_reply_end(struct http_reply *r)
{
    bool whole = r->state == HTTP_COMPLETE || (r->state == HTTP_BODY && !r->has_length);
    r->state = whole ? HTTP_COMPLETE : HTTP_BAD;
    r->close = true;
}

bool http_reply_ok(const struct http_reply *r)
{
    return r->state == HTTP_COMPLETE && r->status == 200 && (!r->events || (r->done && !r->error));
}
