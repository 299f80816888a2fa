/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sse.h - takes an event stream apart: bytes in any portions in, the data of one event at a time
 * out. delta.h reads what is in it.
 *
 * Format: WHATWG HTML, section 9.2.6 "Interpreting an event stream". Lines end in CR, LF or CRLF;
 * data lines of an event are joined by LF; a blank line ends the event. An event that the end of
 * the stream cuts off is never given out. Names, ids and retry times are skipped: nobody here
 * needs them.
 *
 * The bytes are not trusted. Nothing is allocated; an event that does not fit the caller's buffer
 * ends the stream with an error. Threads: one parser belongs to one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sse_state {
    SSE_LINE,  /* at the start of a line */
    SSE_NAME,  /* in the name of a field */
    SSE_BLANK, /* behind "data:", where one blank is not part of the value */
    SSE_VALUE, /* in the value of data */
    SSE_SKIP,  /* in a line of no interest */
};

struct sse {
    char *buffer; /* the caller's */
    size_t capacity;
    size_t length; /* of the event so far */
    enum sse_state state;
    uint32_t name_length; /* letters of "data" that matched */
    uint32_t mark_at;     /* bytes of a byte order mark seen; beyond it = no longer looked for */
    bool has_data;        /* the event has a data line */
    bool after_cr;        /* an LF that follows belongs to the line before */
    bool given;           /* the buffer's event was given out */
};

/* One event's data: `len` bytes in the parser's buffer, valid until the next call. */
struct sse_event {
    const char *data;
    size_t len;
};

/* `buffer` must outlive the parser. */
void sse_init(struct sse *sse, char *buffer, size_t capacity);

/* Reads on at *at, of *len bytes, and moves both. Returns 1 with an event, 0 when all is read, or
 * -EMSGSIZE (from then on always) when an event is longer than the buffer. */
int sse_next(struct sse *sse, const char **at, size_t *len, struct sse_event *event);
