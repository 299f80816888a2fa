/* SPDX-License-Identifier: Apache-2.0 */
/* h1.c - see h1.h. */
#include "kernels/upstream/h1.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define LENGTH_MAX (UINT64_C(1) << 40)

void h1_init(struct h1 *h)
{
    *h = (struct h1){.state = H1_STATUS};
}

/* ---- lines ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK" */
static enum h1_state take_status(struct h1 *h)
{
    const char *line = h->line;
    if (h->line_len < 12 || memcmp(line, "HTTP/1.", 7) != 0 || !is_digit(line[7]) ||
        line[8] != ' ' || line[9] < '1' || line[9] > '9' || !is_digit(line[10]) ||
        !is_digit(line[11]) || (line[12] && line[12] != ' '))
        return H1_BAD;
    h->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + line[11] - '0';
    h->close = line[7] == '0';
    return H1_HEADERS;
}

/* What follows a header's name, without blanks around; NULL if it is another. */
static const char *value_of(char *line, const char *name)
{
    const size_t len = strlen(name);
    if (strncasecmp(line, name, len) != 0 || line[len] != ':')
        return NULL;
    char *value = line + len + 1;
    value += strspn(value, " \t");
    size_t end = strlen(value);
    while (end && (value[end - 1] == ' ' || value[end - 1] == '\t'))
        value[--end] = 0;
    return value;
}

static void keep(char *out, size_t size, const char *value)
{
    const size_t len = strnlen(value, size - 1);
    memcpy(out, value, len);
    out[len] = 0;
}

/* Digits alone, and one length at most: whoever says two may mean either. */
static bool take_length(struct h1 *h, const char *value)
{
    uint64_t length = 0;
    const char *at = value;
    for (; is_digit(*at) && length < LENGTH_MAX; at++)
        length = length * 10 + (uint64_t)(*at - '0');
    if (at == value || *at || (h->has_length && h->left != length))
        return false;
    h->has_length = true;
    h->left = length;
    return true;
}

/* Does the list have the word? */
static bool lists(const char *list, const char *word)
{
    const size_t len = strlen(word);
    for (const char *at = list; *at; at += strcspn(at, ",")) {
        at += strspn(at, ", \t");
        if (strncasecmp(at, word, len) == 0 && (!at[len] || strchr(", \t", at[len])))
            return true;
    }
    return false;
}

static enum h1_state take_header(struct h1 *h)
{
    const char *value;
    if ((value = value_of(h->line, "content-length")))
        return take_length(h, value) ? H1_HEADERS : H1_BAD;
    if ((value = value_of(h->line, "transfer-encoding"))) {
        h->chunked = strcasecmp(value, "chunked") == 0;
        return h->chunked ? H1_HEADERS : H1_BAD; /* nothing else was asked for */
    }
    if ((value = value_of(h->line, "content-type")))
        keep(h->type, sizeof(h->type), value);
    else if ((value = value_of(h->line, "retry-after-ms")))
        keep(h->retry_after_ms, sizeof(h->retry_after_ms), value);
    else if ((value = value_of(h->line, "retry-after")))
        keep(h->retry_after, sizeof(h->retry_after), value);
    else if ((value = value_of(h->line, "connection")))
        h->close = lists(value, "close") || (h->close && !lists(value, "keep-alive"));
    return H1_HEADERS;
}

static enum h1_state begin_body(struct h1 *h)
{
    if (h->status == 101)
        return H1_BAD;     /* no other protocol was asked for */
    if (h->status < 200) { /* the final one follows */
        const uint32_t head_len = h->head_len;
        h1_init(h);
        h->head_len = head_len;
        return H1_STATUS;
    }
    h->has_head = true;
    if (h->status == 204 || h->status == 304)
        return H1_COMPLETE;
    if (h->chunked) {
        h->close |= h->has_length; /* RFC 9112, 6.3: chunks it is, but who mixes them is odd */
        return H1_CHUNK_SIZE;
    }
    if (h->has_length)
        return h->left ? H1_LENGTH : H1_COMPLETE;
    h->close = true;
    return H1_REST;
}

/* Hexadecimal, maybe with an extension behind. */
static enum h1_state take_chunk_size(struct h1 *h)
{
    static const char digits[] = "0123456789abcdef0123456789ABCDEF";
    uint64_t size = 0;
    const char *at = h->line;
    const char *digit;
    for (; *at && (digit = strchr(digits, *at)) && size < LENGTH_MAX; at++)
        size = size * 16 + (uint64_t)(digit - digits) % 16;
    if (h->line_cut || at == h->line || (*at && !strchr("; \t", *at)))
        return H1_BAD;
    h->left = size;
    return size ? H1_CHUNK : H1_TRAILERS;
}

static enum h1_state take_line(struct h1 *h)
{
    const bool blank = h->line_len == 0;
    if (memchr(h->line, 0, h->line_len))
        return H1_BAD;
    switch (h->state) {
    case H1_STATUS:
        return take_status(h);
    case H1_HEADERS:
        return blank ? begin_body(h) : take_header(h);
    case H1_CHUNK_SIZE:
        return take_chunk_size(h);
    case H1_CHUNK_END:
        return blank ? H1_CHUNK_SIZE : H1_BAD;
    case H1_TRAILERS:
        return blank ? H1_COMPLETE : H1_TRAILERS;
    default:
        return H1_BAD;
    }
}

/* Bytes up to the end of a line, at the most. */
static void feed_line(struct h1 *h, const char **at, size_t *len)
{
    const char *end = memchr(*at, '\n', *len);
    const size_t count = end ? (size_t)(end - *at) : *len;
    const size_t room = H1_LINE_MAX - 1 - h->line_len;
    const size_t kept = count < room ? count : room;
    memcpy(h->line + h->line_len, *at, kept);
    h->line_len += (uint32_t)kept;
    h->line_cut |= kept < count;
    *at += count + (end ? 1 : 0);
    *len -= count + (end ? 1 : 0);
    if (h->state != H1_CHUNK_SIZE && h->state != H1_CHUNK_END)
        h->head_len += (uint32_t)(count < H1_HEAD_MAX ? count + 1 : H1_HEAD_MAX + 1);
    if (h->head_len > H1_HEAD_MAX)
        h->state = H1_BAD;
    if (!end || h->state == H1_BAD)
        return;
    if (h->line_len && h->line[h->line_len - 1] == '\r' && !h->line_cut)
        h->line_len--;
    h->line[h->line_len] = 0;
    h->state = take_line(h);
    h->line_len = 0;
    h->line_cut = false;
}

/* ---- the body ---- */

static void feed_body(struct h1 *h, const char **at, size_t *len, struct h1_body *body)
{
    const size_t count = h->state == H1_REST || h->left > *len ? *len : (size_t)h->left;
    *body = (struct h1_body){*at, count};
    *at += count;
    *len -= count;
    if (h->state == H1_REST)
        return;
    h->left -= count;
    if (h->left == 0)
        h->state = h->state == H1_CHUNK ? H1_CHUNK_END : H1_COMPLETE;
}

int h1_next(struct h1 *h, const char **at, size_t *len, struct h1_body *body)
{
    while (*len && h->state != H1_COMPLETE && h->state != H1_BAD) {
        if (h->state == H1_LENGTH || h->state == H1_REST || h->state == H1_CHUNK) {
            feed_body(h, at, len, body);
            return 1;
        }
        feed_line(h, at, len);
    }
    return h->state == H1_BAD ? -EBADMSG : 0;
}

bool h1_end(struct h1 *h)
{
    if (h->state == H1_REST)
        h->state = H1_COMPLETE;
    return h->state == H1_COMPLETE;
}
