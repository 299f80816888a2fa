/* SPDX-License-Identifier: Apache-2.0 */
/* json_write.c - see json_write.h. */
#include "schemas/base/json_write.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/json.h"

#define PIECE 4096u /* bytes of a string at a time: each may become six */

struct writer {
    char *data;
    size_t len;
    size_t room;
    bool failed;
};

/* Where `size` more bytes may be written; NULL: there is no memory. */
static char *room_for(struct writer *w, size_t size)
{
    if (!w->failed && w->room - w->len < size) {
        size_t room = w->room * 2 > w->len + size ? w->room * 2 : w->len + size;
        char *data = realloc(w->data, room);
        w->failed = data == NULL;
        w->data = data != NULL ? data : w->data;
        w->room = data != NULL ? room : w->room;
    }
    return w->failed ? NULL : w->data + w->len;
}

static void put(struct writer *w, const char *text, size_t len)
{
    char *out = room_for(w, len);
    if (out != NULL) {
        memcpy(out, text, len);
        w->len += len;
    }
}

static void put_string(struct writer *w, const char *text, size_t len)
{
    put(w, "\"", 1);
    for (size_t at = 0, step; at < len; at += step) {
        step = len - at < PIECE ? len - at : PIECE;
        while (at + step < len && ((unsigned char)text[at + step] & 0xc0) == 0x80) {
            step--; /* not within a character */
        }
        char *out = room_for(w, step * JSON_GROWTH_MAX);
        char *end = out != NULL ? json_put_text(out, text + at, step) : NULL;
        if (end == NULL) {
            w->failed = true;
            return;
        }
        w->len += (size_t)(end - out);
    }
    put(w, "\"", 1);
}

static void put_real(struct writer *w, double number)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof(text) - 2, "%.*g", digits, number);
        if (strtod(text, NULL) == number) {
            break;
        }
    }
    if (strpbrk(text, ".e") == NULL) {
        strcat(text, ".0"); /* it shall not become an integer */
    }
    put(w, text, strlen(text));
}

static void put_value(struct writer *w, const json_t *value);

static void put_list(struct writer *w, const json_t *list)
{
    put(w, "[", 1);
    for (size_t i = 0; i < json_array_size(list) && !w->failed; i++) {
        put(w, ",", i != 0);
        put_value(w, json_array_get(list, i));
    }
    put(w, "]", 1);
}

static void put_object(struct writer *w, const json_t *object)
{
    const char *key;
    json_t *value;
    bool first = true;
    put(w, "{", 1);
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        put(w, ",", !first);
        put_string(w, key, strlen(key));
        put(w, ":", 1);
        put_value(w, value);
        first = false;
    }
    put(w, "}", 1);
}

static void put_value(struct writer *w, const json_t *value)
{
    char number[24];
    if (value == NULL || w->failed) {
        w->failed = true;
        return;
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        put_object(w, value);
        break;
    case JSON_ARRAY:
        put_list(w, value);
        break;
    case JSON_STRING:
        put_string(w, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER:
        put(w, number,
            (size_t)snprintf(number, sizeof(number), "%lld", (long long)json_integer_value(value)));
        break;
    case JSON_REAL:
        put_real(w, json_real_value(value));
        break;
    case JSON_TRUE:
        put(w, "true", 4);
        break;
    case JSON_FALSE:
        put(w, "false", 5);
        break;
    case JSON_NULL:
        put(w, "null", 4);
        break;
    }
}

char *json_write(const json_t *value)
{
    struct writer w = {.data = NULL};
    put_value(&w, value);
    put(&w, "", 1);
    if (w.failed) {
        free(w.data);
        return NULL;
    }
    return w.data;
}
