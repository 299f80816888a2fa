/* SPDX-License-Identifier: Apache-2.0 */
/* json_read.c - see json_read.h. Each value_*() returns a new value, or NULL: not sure, no memory.
 */
#include "schemas/base/json_read.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/json.h"
#include "schemas/base/utf8.h"

#define DEPTH_MAX   64u
#define KEY_MAX     256u
#define DIGITS_MAX  18u /* always fit int64_t */
#define NUMBER_CHAR "+-.0123456789Ee"

struct reader {
    const char *at;
    const char *end;
    uint32_t depth;
    char *scratch; /* heap: strings without their escapes; NULL until there are some */
};

static json_t *value_read(struct reader *r);

/* ---- strings ---- */

/* Over characters that stand for themselves. Stops at a quote or a backslash; NULL: at something
 * that must not be there. */
static const char *text_skip(const char *at, const char *end)
{
    for (;;) {
        at = json_skip_plain(at, end);
        for (int i = 0; i < 8; i++) { /* what is odd about these eight */
            if (at == end || (unsigned char)*at < ' ') {
                return NULL;
            }
            if (*at == '"' || *at == '\\') {
                return at;
            }
            int step = 1;
            if ((unsigned char)*at >= 0x80) {
                step = utf8_step((const uint8_t *)at, (size_t)(end - at));
            }
            if (step <= 0) {
                return NULL;
            }
            at += step;
        }
    }
}

/* Four hexadecimal digits, or -1. */
static int32_t hex_read(const char *at, const char *end)
{
    int32_t value = 0;
    if (end - at < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

static char *utf8_put(char *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (char)code;
        return out;
    }
    if (code < 0x800) {
        *out++ = (char)(0xc0 | (code >> 6));
    } else {
        if (code < 0x10000) {
            *out++ = (char)(0xe0 | (code >> 12));
        } else {
            *out++ = (char)(0xf0 | (code >> 18));
            *out++ = (char)(0x80 | ((code >> 12) & 0x3f));
        }
        *out++ = (char)(0x80 | ((code >> 6) & 0x3f));
    }
    *out++ = (char)(0x80 | (code & 0x3f));
    return out;
}

/* Behind "\u": one code unit, or two that belong together. Half a pair is none of Unicode's. */
static char *unicode_read(struct reader *r, char *out)
{
    int32_t code = hex_read(r->at, r->end);
    if (code < 0 || (code >= 0xdc00 && code <= 0xdfff)) {
        return NULL;
    }
    r->at += 4;
    if (code >= 0xd800 && code <= 0xdbff) {
        bool more = r->end - r->at >= 2 && r->at[0] == '\\' && r->at[1] == 'u';
        int32_t second = more ? hex_read(r->at + 2, r->end) : -1;
        if (second < 0xdc00 || second > 0xdfff) {
            return NULL;
        }
        r->at += 6;
        code = 0x10000 + ((code - 0xd800) << 10) + (second - 0xdc00);
    }
    return utf8_put(out, (uint32_t)code);
}

/* At a backslash. Returns where the next character goes. */
static char *escape_read(struct reader *r, char *out)
{
    static const char shorts[128] = {['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
                                     ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};
    if (r->end - r->at < 2) {
        return NULL;
    }
    unsigned char c = (unsigned char)r->at[1];
    r->at += 2;
    if (c == 'u') {
        return unicode_read(r, out);
    }
    if (c >= sizeof(shorts) || shorts[c] == '\0') {
        return NULL;
    }
    *out = shorts[c];
    return out + 1;
}

/* `stop` is the first backslash of the string at `r->at`. */
static json_t *escaped_read(struct reader *r, const char *stop)
{
    if (r->scratch == NULL) { /* an escape is longer than what it stands for */
        r->scratch = malloc((size_t)(r->end - r->at));
    }
    char *out = r->scratch;
    while (out != NULL && stop != NULL) {
        size_t len = (size_t)(stop - r->at);
        memcpy(out, r->at, len);
        out += len;
        r->at = stop;
        if (*stop == '"') {
            r->at++;
            return json_stringn_nocheck(r->scratch, (size_t)(out - r->scratch));
        }
        out = escape_read(r, out);
        stop = text_skip(r->at, r->end);
    }
    return NULL;
}

/* Behind its first quote. */
static json_t *string_read(struct reader *r)
{
    const char *stop = text_skip(r->at, r->end);
    if (stop == NULL || *stop == '\\') {
        return stop != NULL ? escaped_read(r, stop) : NULL;
    }
    json_t *value = json_stringn_nocheck(r->at, (size_t)(stop - r->at));
    r->at = stop + 1;
    return value;
}

/* ---- what is short ---- */

static void space_skip(struct reader *r)
{
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t')) {
        r->at++;
    }
}

static bool char_take(struct reader *r, char c)
{
    bool is = r->at < r->end && *r->at == c;
    r->at += is;
    return is;
}

static json_t *word_read(struct reader *r, const char *word, json_t *value)
{
    size_t len = strlen(word);
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, word, len) != 0) {
        return NULL;
    }
    r->at += len;
    return value; /* true, false and null are not counted */
}

/* Whole ones that fit are read here; the others are few, and jansson's. */
static json_t *number_read(struct reader *r)
{
    const char *text = r->at;
    json_int_t value = 0;
    bool digits = true;
    while (r->at < r->end && *r->at != '\0' && strchr(NUMBER_CHAR, *r->at) != NULL) {
        digits = digits && *r->at >= '0' && *r->at <= '9';
        value =
            digits && r->at - text < (ptrdiff_t)DIGITS_MAX ? value * 10 + (*r->at - '0') : value;
        r->at++;
    }
    size_t len = (size_t)(r->at - text);
    if (len != 0 && digits && len <= DIGITS_MAX && (len == 1 || *text != '0')) {
        return json_integer(value);
    }
    return json_loadb(text, len, JSON_DECODE_ANY, NULL);
}

/* ---- what has parts ---- */

static json_t *array_read(struct reader *r)
{
    json_t *array = json_array();
    space_skip(r);
    if (char_take(r, ']')) {
        return array;
    }
    do {
        if (json_array_append_new(array, value_read(r)) != 0) {
            break;
        }
        space_skip(r);
        if (char_take(r, ']')) {
            return array;
        }
    } while (char_take(r, ','));
    json_decref(array);
    return NULL;
}

/* With its colon. */
static bool key_read(struct reader *r, char key[KEY_MAX])
{
    space_skip(r);
    const char *stop = char_take(r, '"') ? text_skip(r->at, r->end) : NULL;
    if (stop == NULL || *stop == '\\' || stop - r->at >= (ptrdiff_t)KEY_MAX) {
        return false;
    }
    size_t len = (size_t)(stop - r->at);
    memcpy(key, r->at, len);
    key[len] = '\0';
    r->at = stop + 1;
    space_skip(r);
    return char_take(r, ':');
}

static json_t *object_read(struct reader *r)
{
    json_t *object = json_object();
    space_skip(r);
    if (char_take(r, '}')) {
        return object;
    }
    do {
        char key[KEY_MAX];
        if (!key_read(r, key) || json_object_set_new_nocheck(object, key, value_read(r)) != 0) {
            break;
        }
        space_skip(r);
        if (char_take(r, '}')) {
            return object;
        }
    } while (char_take(r, ','));
    json_decref(object);
    return NULL;
}

static json_t *parts_read(struct reader *r)
{
    if (r->depth == DEPTH_MAX) {
        return NULL;
    }
    r->depth++;
    json_t *value = *r->at++ == '{' ? object_read(r) : array_read(r);
    r->depth--;
    return value;
}

static json_t *value_read(struct reader *r)
{
    space_skip(r);
    if (r->at == r->end) {
        return NULL;
    }
    switch (*r->at) {
    case '"':
        r->at++;
        return string_read(r);
    case '{':
    case '[':
        return parts_read(r);
    case 't':
        return word_read(r, "true", json_true());
    case 'f':
        return word_read(r, "false", json_false());
    case 'n':
        return word_read(r, "null", json_null());
    default:
        return number_read(r);
    }
}

/* ---- the whole ---- */

json_t *json_read_quick(const char *text, size_t len)
{
    struct reader r = {.at = text, .end = text + len};
    space_skip(&r);
    bool fits = r.at < r.end && (*r.at == '{' || *r.at == '[');
    json_t *root = fits ? value_read(&r) : NULL;
    free(r.scratch);
    space_skip(&r);
    if (r.at != r.end) {
        json_decref(root);
        return NULL;
    }
    return root;
}

json_t *json_read(const char *text, size_t len, json_error_t *error)
{
    json_t *root = json_read_quick(text, len);
    return root != NULL ? root : json_loadb(text, len, JSON_ALLOW_NUL, error);
}
