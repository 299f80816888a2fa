/* SPDX-License-Identifier: Apache-2.0 */
/* calls.c - see calls.h. */
#include "dataplane/gateway/calls.h"

#include <stdlib.h>
#include <string.h>

#include "schemas/base/json_write.h"

#define MARK     "<tool_call>"
#define MARK_END "</tool_call>"
#define SPACES   " \t\r\n"

/* Space that is held back because a call may follow; with more of it, it is text like any other. */
#define SPACES_HELD 256u

void calls_deinit(struct calls *c)
{
    buf_deinit(&c->held);
    json_decref(c->list);
    c->list = NULL;
}

void calls_drop(struct calls *c, size_t len)
{
    c->held.at += len;
    c->begin_at -= c->begin_at < len ? c->begin_at : len;
    c->end_at -= c->end_at < len ? c->end_at : len;
}

static const char *held(const struct calls *c)
{
    return c->held.data != NULL ? c->held.data + c->held.at : "";
}

/* Who made the call may have given it an id, which no other call of the answer has. */
static bool id_is_new(const struct calls *c, const json_t *id)
{
    for (size_t i = 0; id != NULL && i < calls_count(c); i++) {
        if (json_equal(json_object_get(json_array_get(c->list, i), "id"), id)) {
            return false;
        }
    }
    return id != NULL;
}

/* Is it one? Then it is in the list. */
static bool call_take(struct calls *c, const struct api_request *request, const char *text,
                      size_t len)
{
    json_t *root = json_loadb(text, len, JSON_ALLOW_NUL, NULL);
    const char *name = json_string_value(json_object_get(root, "name"));
    const json_t *id = api_call_id(json_object_get(root, "id"));
    const json_t *value = json_object_get(root, "arguments");
    value = value != NULL ? value : json_object_get(root, "parameters");
    char *arguments = json_is_object(value) ? json_write(value) : NULL;
    bool good = name != NULL && arguments != NULL && api_has_tool(request, name);
    if (good && (!request->one_call || calls_count(c) == 0)) {
        c->list = c->list != NULL ? c->list : json_array();
        json_t *call = json_pack("{s:s, s:s}", "name", name, "arguments", arguments);
        if (id_is_new(c, id)) {
            (void)json_object_set(call, "id", (json_t *)(uintptr_t)id);
        }
        (void)json_array_append_new(c->list, call);
    }
    free(arguments);
    json_decref(root);
    return good;
}

/* Where `mark` begins in the text behind `from`, or where it may begin at its end, or `len`. */
static size_t find_mark(const char *text, size_t len, size_t from, const char *mark)
{
    size_t mark_len = strlen(mark);
    for (size_t at = from; at < len; at++) {
        size_t left = len - at < mark_len ? len - at : mark_len;
        if (memcmp(text + at, mark, left) == 0) {
            return at;
        }
    }
    return len;
}

static size_t spaces(const char *text, size_t len)
{
    size_t count = 0;
    while (count < len && strchr(SPACES, text[count]) != NULL && text[count] != '\0') {
        count++;
    }
    return count;
}

/* May all of it be one object? Not decided as long as there is nothing but space. */
static bool is_object(const struct calls *c)
{
    const char *text = held(c);
    size_t len = buf_len(&c->held);
    size_t skip = spaces(text, len < SPACES_HELD + 1 ? len : SPACES_HELD + 1);
    return !c->text_seen && skip <= SPACES_HELD && (skip == len || text[skip] == '{');
}

/* The text up to what may be a call; takes those that are complete. Space before a mark is none of
 * the text. Looks at each byte once, however small the pieces are that it comes in. */
static size_t settle(struct calls *c, const struct api_request *request)
{
    for (;;) {
        const char *text = held(c);
        size_t len = buf_len(&c->held);
        size_t at = find_mark(text, len, c->begin_at, MARK);
        size_t lead = at;
        c->begin_at = at;
        while (lead > 0 && at - lead < SPACES_HELD && spaces(text + lead - 1, 1) == 1) {
            lead--;
        }
        if (lead != 0 || len - at < strlen(MARK)) {
            return lead;
        }
        size_t body = at + strlen(MARK);
        size_t end = find_mark(text, len, c->end_at > body ? c->end_at : body, MARK_END);
        c->end_at = end;
        if (len - end < strlen(MARK_END)) {
            return 0;
        }
        end += strlen(MARK_END);
        if (!call_take(c, request, text + body, end - strlen(MARK_END) - body)) {
            return end;
        }
        calls_drop(c, end);
        c->text_seen = true;
    }
}

size_t calls_feed(struct calls *c, const struct api_request *request, const char *text, size_t len)
{
    buf_add(&c->held, text, len);
    if (is_object(c)) {
        return 0;
    }
    size_t ready = settle(c, request);
    c->text_seen = c->text_seen || ready != 0;
    return ready;
}

size_t calls_end(struct calls *c, const struct api_request *request)
{
    size_t len = buf_len(&c->held);
    size_t skip = spaces(held(c), len);
    size_t body = skip + strlen(MARK);
    if (is_object(c)) {
        body = 0;
    } else if (len < body || memcmp(held(c) + skip, MARK, strlen(MARK)) != 0) {
        body = len;
    }
    /* The end of it may have been a token without text, or was cut. */
    if (body < len && call_take(c, request, held(c) + body, len - body)) {
        calls_drop(c, len);
    }
    len = buf_len(&c->held);
    if (calls_count(c) != 0 && spaces(held(c), len) == len) {
        calls_drop(c, len);
    }
    return buf_len(&c->held);
}
