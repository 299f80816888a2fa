/* SPDX-License-Identifier: Apache-2.0 */
/* delta.c - see delta.h. */
#include "kernels/upstream/delta.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/json_read.h"

#define TOKENS_MAX (1u << 30)

static const struct {
    const char *word;
    enum delta_finish finish;
} finishes[] = {
    {"stop", DELTA_STOP},         {"length", DELTA_LENGTH},      {"content_filter", DELTA_FILTERED},
    {"tool_calls", DELTA_STOP},   {"function_call", DELTA_STOP}, {"eos", DELTA_STOP},
    {"eos_token", DELTA_STOP},    {"stop_sequence", DELTA_STOP}, {"end_turn", DELTA_STOP},
    {"max_tokens", DELTA_LENGTH},
};

static int read_finish(const json_t *value, enum delta_finish *out)
{
    *out = DELTA_GOES_ON;
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value))
        return -EBADMSG;
    *out = DELTA_BROKEN;
    for (size_t i = 0; i < sizeof(finishes) / sizeof(finishes[0]); i++)
        if (strcmp(json_string_value(value), finishes[i].word) == 0)
            *out = finishes[i].finish;
    return 0;
}

static int read_count(const json_t *usage, const char *key, uint32_t *out)
{
    const json_t *value = json_object_get(usage, key);
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) > TOKENS_MAX)
        return -EBADMSG;
    *out = (uint32_t)json_integer_value(value);
    return 0;
}

static int read_usage(struct delta *delta, const json_t *usage)
{
    if (!usage || json_is_null(usage))
        return 0;
    if (!json_is_object(usage))
        return -EBADMSG;
    delta->has_usage = true;
    const json_t *details = json_object_get(usage, "prompt_tokens_details");
    int rc = read_count(usage, "prompt_tokens", &delta->prompt_tokens);
    if (rc == 0)
        rc = read_count(usage, "completion_tokens", &delta->completion_tokens);
    return rc ? rc : read_count(details, "cached_tokens", &delta->cached_tokens);
}

static int read_text(struct delta *delta, const json_t *text)
{
    if (!text || json_is_null(text))
        return 0;
    if (!json_is_string(text))
        return -EBADMSG;
    delta->text = json_string_value(text);
    delta->text_len = json_string_length(text);
    return 0;
}

static bool is_name(const json_t *value)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    const size_t len = json_string_length(value);
    return len && len <= DELTA_NAME_MAX && strspn(json_string_value(value), letters) == len;
}

/* What can stand between quotes, in JSON and in text that is searched for calls. */
static bool is_id(const json_t *value)
{
    const size_t len = json_string_length(value);
    const char *text = json_string_value(value);
    for (size_t i = 0; i < len; i++)
        if (text[i] <= ' ' || text[i] > '~' || strchr("\"\\<", text[i]))
            return false;
    return len && len <= WEFT_CALL_ID_MAX;
}

/* Where whole answers leave the index out it is the place in the list. */
static int read_call(struct delta_call *call, const json_t *value, size_t at)
{
    const json_t *index = json_object_get(value, "index");
    const json_t *function = json_object_get(value, "function");
    const json_t *name = json_object_get(function, "name");
    const json_t *arguments = json_object_get(function, "arguments");
    const json_int_t number = json_is_integer(index) ? json_integer_value(index) : (json_int_t)at;
    if (!json_is_object(function) || number < 0 || number >= UINT16_MAX)
        return -EBADMSG;
    *call = (struct delta_call){.index = (uint32_t)number};
    if (json_string_length(name)) {
        if (!is_name(name))
            return -EBADMSG;
        call->name = json_string_value(name);
    }
    if (is_id(json_object_get(value, "id")))
        call->id = json_string_value(json_object_get(value, "id"));
    if (arguments && !json_is_null(arguments) && !json_is_string(arguments))
        return -EBADMSG;
    call->arguments = json_string_value(arguments);
    call->arguments_len = json_string_length(arguments);
    return 0;
}

static int read_calls(struct delta *delta, const json_t *calls)
{
    const size_t count = json_array_size(calls);
    if (!calls || json_is_null(calls))
        return 0;
    if (!json_is_array(calls) || count > DELTA_CALLS_MAX)
        return -EBADMSG;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = read_call(&delta->calls[i], json_array_get(calls, i), i);
    delta->call_count = rc ? 0 : count;
    return rc;
}

/* Where the text is: delta.content of a stream, message.content of a whole chat, text of both
 * kinds of completion. */
static int read_choice(struct delta *delta, const json_t *choice)
{
    const json_t *index = json_object_get(choice, "index");
    if (!json_is_object(choice))
        return -EBADMSG;
    if (json_is_integer(index) && json_integer_value(index) != 0)
        return 0;
    const json_t *holder = json_object_get(choice, "delta");
    if (!holder || json_is_null(holder))
        holder = json_object_get(choice, "message");
    if (holder && !json_is_null(holder) && !json_is_object(holder))
        return -EBADMSG;
    const json_t *text = json_is_object(holder) ? json_object_get(holder, "content")
                                                : json_object_get(choice, "text");
    int rc = read_text(delta, text);
    if (rc == 0)
        rc = read_calls(delta, json_object_get(holder, "tool_calls"));
    enum delta_finish finish = DELTA_GOES_ON;
    if (rc == 0)
        rc = read_finish(json_object_get(choice, "finish_reason"), &finish);
    delta->finish = finish;
    return rc;
}

static int read_choices(struct delta *delta, const json_t *choices)
{
    if (!choices || json_is_null(choices))
        return 0;
    if (!json_is_array(choices))
        return -EBADMSG;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(choices); i++) {
        const json_t *choice = json_array_get(choices, i);
        const json_t *index = json_object_get(choice, "index");
        if (i == 0 || (json_is_integer(index) && json_integer_value(index) == 0))
            rc = read_choice(delta, choice);
    }
    return rc;
}

/* Text for a log line: no control characters. */
static void note(struct delta *delta, const json_t *text)
{
    if (!json_is_string(text))
        return;
    (void)snprintf(delta->message, sizeof(delta->message), "%s", json_string_value(text));
    for (char *c = delta->message; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = ' ';
}

static void read_error(struct delta *delta, const json_t *error)
{
    static const char *const signs[] = {"context length", "context_length",
                                        "context window", "context size",
                                        "too long",       "exceeds the available"};
    delta->error = true;
    note(delta, json_is_object(error) ? json_object_get(error, "message") : error);
    const char *code = json_string_value(json_object_get(error, "code"));
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (strstr(delta->message, signs[i]) || (code && strstr(code, signs[i])))
            delta->too_long = true;
}

/* {"error": ...}, {"object": "error", "message": ...}, FastAPI's {"detail": ...}. */
static bool find_error(struct delta *delta, const json_t *root)
{
    const json_t *error = json_object_get(root, "error");
    const char *object = json_string_value(json_object_get(root, "object"));
    if (error && !json_is_null(error))
        read_error(delta, error);
    else if (object && strcmp(object, "error") == 0)
        read_error(delta, root);
    return delta->error;
}

static bool is_done(const char *data, size_t len)
{
    while (len && (data[len - 1] == ' ' || data[len - 1] == '\n'))
        len--;
    return len == 6 && memcmp(data, "[DONE]", 6) == 0;
}

int delta_parse(struct delta *delta, const char *data, size_t len)
{
    memset(delta, 0, sizeof(*delta));
    if (is_done(data, len)) {
        delta->done = true;
        return 0;
    }
    json_t *root = json_read(data, len, NULL);
    delta->root = root;
    if (!json_is_object(root))
        return -EBADMSG;
    if (find_error(delta, root))
        return 0;
    const int rc = read_choices(delta, json_object_get(root, "choices"));
    return rc ? rc : read_usage(delta, json_object_get(root, "usage"));
}

void delta_parse_error(struct delta *delta, const char *data, size_t len)
{
    memset(delta, 0, sizeof(*delta));
    delta->error = true;
    json_t *root = json_loadb(data, len, 0, NULL);
    delta->root = root;
    if (json_is_object(root) && !find_error(delta, root))
        read_error(delta, json_is_string(json_object_get(root, "detail"))
                              ? json_object_get(root, "detail")
                              : root);
}

void delta_deinit(struct delta *delta)
{
    json_decref(delta->root);
    delta->root = NULL;
    delta->text = NULL;
    delta->text_len = 0;
}
