/* SPDX-License-Identifier: Apache-2.0 */
/* buf.c - see buf.h. */
#include "dataplane/gateway/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/json.h"
#include "schemas/base/utf8.h"

#define BUF_FIRST 512u

void buf_deinit(struct buf *b)
{
    free(b->data);
    *b = (struct buf){.data = NULL};
}

/* Makes room for `len` bytes and a zero. False: there is none. */
static bool buf_reserve(struct buf *b, size_t len)
{
    if (b->failed) {
        return false;
    }
    if (len < b->room - b->end) {
        return true;
    }
    if (b->at > 0) {
        memmove(b->data, b->data + b->at, b->end - b->at);
        b->end -= b->at;
        b->at = 0;
        if (len < b->room - b->end) {
            return true;
        }
    }
    size_t room = b->room != 0 ? b->room : BUF_FIRST;
    while (room - b->end <= len) {
        if (room > SIZE_MAX / 2) {
            b->failed = true;
            return false;
        }
        room *= 2;
    }
    char *grown = realloc(b->data, room);
    if (grown == NULL) {
        b->failed = true;
        return false;
    }
    b->data = grown;
    b->room = room;
    return true;
}

void buf_expect(struct buf *b, size_t len)
{
    if (b->data == NULL && !b->failed) {
        b->data = malloc(len + 1);
        b->room = b->data != NULL ? len + 1 : 0;
    }
}

char *buf_give(struct buf *b, size_t *len)
{
    char *data = NULL;
    *len = 0;
    if (buf_reserve(b, 0)) {
        *len = buf_len(b);
        memmove(b->data, b->data + b->at, *len);
        b->data[*len] = '\0';
        data = b->data;
        b->data = NULL;
    }
    buf_deinit(b);
    return data;
}

void buf_add(struct buf *b, const void *data, size_t len)
{
    if (len != 0 && buf_reserve(b, len)) {
        memcpy(b->data + b->end, data, len);
        b->end += len;
    }
}

void buf_add_text(struct buf *b, const char *text)
{
    buf_add(b, text, strlen(text));
}

void buf_add_format(struct buf *b, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int wanted = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    if (wanted < 0 || (size_t)wanted >= sizeof(text)) {
        b->failed = true; /* formats are for figures and names of bounded length */
        return;
    }
    buf_add(b, text, (size_t)wanted);
}

/* ---- JSON ---- */

static bool is_plain(unsigned char c)
{
    return c >= ' ' && c < 0x7f && c != '"' && c != '\\';
}

void buf_add_json(struct buf *b, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t i = 0;
    while (i < len) {
        size_t plain = i;
        while (plain < len && is_plain(p[plain])) {
            plain++;
        }
        buf_add(b, p + i, plain - i);
        i = plain;
        if (i == len) {
            break;
        }
        if (p[i] < 0x80) {
            char escape[JSON_GROWTH_MAX];
            buf_add(b, escape, (size_t)(json_put_escape(escape, p[i]) - escape));
            i++;
            continue;
        }
        int step = utf8_step(p + i, len - i);
        if (step > 0) {
            buf_add(b, p + i, (size_t)step);
        } else {
            buf_add(b, UTF8_REPLACEMENT, sizeof(UTF8_REPLACEMENT) - 1);
        }
        i += step > 0 ? (size_t)step : 1;
    }
}

void buf_add_quoted(struct buf *b, const char *text)
{
    buf_add(b, "\"", 1);
    buf_add_json(b, text, strlen(text));
    buf_add(b, "\"", 1);
}

size_t buf_take(struct buf *b, void *out, size_t max)
{
    size_t len = buf_len(b) < max ? buf_len(b) : max;
    if (len != 0) {
        memcpy(out, b->data + b->at, len);
        b->at += len;
    }
    if (b->at == b->end) {
        b->at = b->end = 0;
    }
    return len;
}

/* ---- characters that are not whole ---- */

/* Length of what may become a character, at the end of the text. */
static size_t partial_len(const uint8_t *p, size_t len)
{
    for (size_t tail = 1; tail <= 3 && tail <= len; tail++) {
        if (p[len - tail] >= 0xc0) {
            return utf8_step(p + len - tail, tail) == UTF8_PARTIAL ? tail : 0;
        }
        if (p[len - tail] < 0x80) {
            return 0;
        }
    }
    return 0;
}

void buf_add_held(struct buf *b, struct utf8_hold *hold, const char *text, size_t len)
{
    while (hold->len > 0 && len > 0) {
        hold->bytes[hold->len] = (uint8_t)*text;
        int step = utf8_step(hold->bytes, hold->len + 1u);
        if (step == UTF8_INVALID) {
            buf_add_rest(b, hold); /* the new byte may begin a character of its own */
            break;
        }
        hold->len++;
        text++;
        len--;
        if (step > 0) {
            buf_add_rest(b, hold);
        }
    }
    size_t tail = partial_len((const uint8_t *)text, len);
    buf_add_json(b, text, len - tail);
    if (tail > 0) {
        memcpy(hold->bytes, text + len - tail, tail);
        hold->len = (uint8_t)tail;
    }
}

void buf_add_rest(struct buf *b, struct utf8_hold *hold)
{
    buf_add_json(b, (const char *)hold->bytes, hold->len);
    hold->len = 0;
}
