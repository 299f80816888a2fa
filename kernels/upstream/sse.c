/* SPDX-License-Identifier: Apache-2.0 */
/* sse.c - see sse.h. */
#include "kernels/upstream/sse.h"

#include <errno.h>
#include <string.h>

static const char data_name[] = "data";
static const unsigned char mark[] = {0xef, 0xbb, 0xbf};

#define VALUE_STEP  1024u /* looked through for an end that may be near */
#define NAME_LENGTH ((uint32_t)sizeof(data_name) - 1)
#define MARK_LENGTH ((uint32_t)sizeof(mark))

void sse_init(struct sse *sse, char *buffer, size_t capacity)
{
    *sse = (struct sse){.buffer = buffer, .capacity = capacity};
}

static int put(struct sse *sse, const char *data, size_t len)
{
    if (len > sse->capacity - sse->length)
        return -EMSGSIZE;
    memcpy(sse->buffer + sse->length, data, len);
    sse->length += len;
    return 0;
}

/* A data line begins: the one before it ends in LF. */
static int begin_value(struct sse *sse)
{
    const int rc = sse->has_data ? put(sse, "\n", 1) : 0;
    sse->has_data = true;
    return rc;
}

/* The end of a line. Returns 1 if it ends an event with data. */
static int end_line(struct sse *sse)
{
    const enum sse_state state = sse->state;
    sse->state = SSE_LINE;
    if (state == SSE_NAME && sse->name_length == NAME_LENGTH)
        return begin_value(sse); /* "data" without a colon: an empty line of it */
    if (state != SSE_LINE)
        return 0;
    const bool complete = sse->has_data;
    sse->has_data = false;
    sse->given = true; /* dropped, or given out */
    return complete ? 1 : 0;
}

/* One byte that ends no line, outside of a value. */
static int step(struct sse *sse, char c)
{
    if (sse->state == SSE_LINE) {
        sse->state = SSE_NAME;
        sse->name_length = 0;
    }
    if (sse->state != SSE_NAME)
        return 0;
    if (c == ':') {
        const bool is_data = sse->name_length == NAME_LENGTH;
        sse->state = is_data ? SSE_BLANK : SSE_SKIP;
        return is_data ? begin_value(sse) : 0;
    }
    if (sse->name_length == NAME_LENGTH || c != data_name[sse->name_length])
        sse->state = SSE_SKIP;
    else
        sse->name_length++;
    return 0;
}

/* Bytes of a value up to the end of its line, many at once. */
static int take_value(struct sse *sse, const char **at, size_t *len)
{
    size_t count = *len < VALUE_STEP ? *len : VALUE_STEP;
    const char *end = memchr(*at, '\n', count);
    count = end ? (size_t)(end - *at) : count;
    end = memchr(*at, '\r', count);
    count = end ? (size_t)(end - *at) : count;
    const int rc = put(sse, *at, count);
    *at += count;
    *len -= count;
    return rc;
}

/* A byte order mark at the very beginning is not part of the first line. */
static bool is_mark(struct sse *sse, char c)
{
    if (sse->mark_at >= MARK_LENGTH)
        return false;
    if ((unsigned char)c == mark[sse->mark_at]) {
        sse->mark_at++;
        return true;
    }
    if (sse->mark_at != 0) /* half of one: a line that begins with rubbish */
        sse->state = SSE_SKIP;
    sse->mark_at = MARK_LENGTH;
    return false;
}

int sse_next(struct sse *sse, const char **at, size_t *len, struct sse_event *event)
{
    int rc = sse->length > sse->capacity ? -EMSGSIZE : 0;
    if (sse->given && rc == 0) {
        sse->length = 0;
        sse->given = false;
    }
    while (rc == 0 && *len != 0) {
        const char c = **at;
        const bool ends = c == '\n' || c == '\r';
        if (sse->state == SSE_BLANK)
            sse->state = SSE_VALUE;
        else if (sse->state == SSE_VALUE && !ends) {
            rc = take_value(sse, at, len);
            continue;
        }
        if (sse->state == SSE_VALUE && !ends && c != ' ')
            continue; /* the first byte of a value without the blank */
        ++*at;
        --*len;
        if (is_mark(sse, c))
            continue;
        const bool second = sse->after_cr && c == '\n';
        sse->after_cr = c == '\r';
        if (second)
            continue;
        rc = ends ? end_line(sse) : step(sse, c);
        if (rc == 0 && sse->given) {
            sse->length = 0;
            sse->given = false;
        }
    }
    if (rc == 1)
        *event = (struct sse_event){sse->buffer, sse->length};
    if (rc < 0)
        sse->length = sse->capacity + 1; /* for good */
    return rc;
}
