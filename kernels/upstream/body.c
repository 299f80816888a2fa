/* SPDX-License-Identifier: Apache-2.0 */
/* body.c - see body.h. */
#include "kernels/upstream/body.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/json.h"
#include "schemas/base/json_write.h"

#define PIECE_BYTES 16384u /* of a text, at a time */
#define ROOM_FIRST  1024u  /* a short question needs no more */

bool body_is_chat(const weft_job_view_t *view)
{
    return !view->tokens && view->part_count && view->parts[0].role != 0;
}

bool body_has_tools(const weft_job_view_t *view)
{
    return body_is_chat(view) && view->parts[0].role == WEFT_ROLE_TOOLS;
}

/* ---- tools ---- */

/* Calls so far, and those of the last answer whose results are still to come. */
struct calls {
    unsigned count;
    json_t *waiting; /* [{"id": ..., "name": of the result, if it has one}] */
    size_t next;
};

/* As it was given, else by its number. */
static json_t *call_id(const json_t *given, unsigned number)
{
    return json_string_length(given) ? json_copy((json_t *)(uintptr_t)given)
                                     : json_sprintf("call_%u", number);
}

static int wait_for(struct calls *calls, json_t *id, json_t *result)
{
    json_t *entry = json_pack("{s:O}", "id", id);
    if (json_is_string(result) && entry)
        (void)json_object_set(entry, "name", result);
    return json_array_append_new(calls->waiting, entry);
}

static json_t *call_of(const json_t *call, struct calls *calls)
{
    const json_t *arguments = json_object_get(call, "arguments");
    json_t *result = json_object_get(call, "result");
    char *text = arguments ? json_write(arguments) : NULL;
    json_t *id = call_id(json_object_get(call, "id"), calls->count++);
    json_t *made = NULL;
    if (json_is_false(result) || wait_for(calls, id, result) == 0)
        made = json_pack("{s:O, s:s, s:{s:O, s:s}}", "id", id, "type", "function", "function",
                         "name", json_object_get(call, "name"), "arguments", text);
    json_decref(id);
    free(text);
    return made;
}

/* {"content": ..., "calls": [{"name": ..., "arguments": {...}}]} */
static json_t *called(const weft_job_part_t *part, struct calls *calls)
{
    json_t *root = json_loadb(part->text, part->len, JSON_ALLOW_NUL, NULL);
    const json_t *list = json_object_get(root, "calls");
    json_t *made = json_array();
    int rc = json_array_size(list) ? 0 : -1;
    (void)json_array_clear(calls->waiting);
    calls->next = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++)
        rc = json_array_append_new(made, call_of(json_array_get(list, i), calls));
    json_t *message = rc == 0 ? json_pack("{s:s, s:O, s:O}", "role", "assistant", "content",
                                          json_object_get(root, "content"), "tool_calls", made)
                              : NULL;
    json_decref(made);
    json_decref(root);
    return message;
}

/* One that no call waits for is numbered behind all calls: the server has to make something of it.
 */
static json_t *result(const weft_job_part_t *part, struct calls *calls)
{
    const json_t *entry = json_array_get(calls->waiting, calls->next++);
    json_t *name = json_object_get(entry, "name");
    json_t *message = json_pack("{s:s, s:o, s:o}", "role", "tool", "tool_call_id",
                                call_id(json_object_get(entry, "id"), calls->count), "content",
                                json_stringn(part->text, part->len));
    if (message && name)
        (void)json_object_set(message, "name", name);
    return message;
}

/* The functions, and which of them if not any or none. */
static int put_tools(json_t *root, const weft_job_view_t *view)
{
    const weft_job_part_t *part = view->parts;
    if (!body_has_tools(view))
        return 0;
    json_t *list = json_loadb(part->text, part->len, JSON_ALLOW_NUL, NULL);
    int rc = json_is_array(list) ? json_object_set(root, "tools", list) : -1;
    json_decref(list);
    if (rc || view->format != WEFT_FORMAT_CALL)
        return rc;
    json_t *choice = view->format_len ? json_pack("{s:s, s:{s:s%}}", "type", "function", "function",
                                                  "name", view->format_text, view->format_len)
                                      : json_string("required");
    return json_object_set_new(root, "tool_choice", choice);
}

/* ---- messages ---- */

/* JSON that grows. A prompt may have megabytes: it is written once, from the job's own bytes. */
struct out {
    char *data; /* heap */
    size_t len;
    size_t room;
    int status; /* 0, or why it is not whole: WEFT_E_BAD_REQUEST, WEFT_E_WORKER_FAILED */
};

static bool out_reserve(struct out *out, size_t more)
{
    if (out->status == 0 && more > out->room - out->len) {
        const size_t room = (out->len + more) * 2 + ROOM_FIRST;
        char *data = realloc(out->data, room);
        out->status = data ? 0 : WEFT_E_WORKER_FAILED;
        out->data = data ? data : out->data;
        out->room = data ? room : out->room;
    }
    return out->status == 0;
}

static void out_add(struct out *out, const char *text, size_t len)
{
    if (len && out_reserve(out, len))
        out->len = (size_t)((char *)mempcpy(out->data + out->len, text, len) - out->data);
}

static void out_word(struct out *out, const char *word)
{
    out_add(out, word, strlen(word));
}

static void out_format(struct out *out, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Names and numbers: never longer than `text`. */
static void out_format(struct out *out, const char *format, ...)
{
    char text[128];
    va_list args;
    va_start(args, format);
    const int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    out_add(out, text, (size_t)len);
}

/* Where a piece of at most `max` bytes may end: between two characters. */
static size_t piece_len(const char *text, size_t len, size_t max)
{
    size_t cut = max;
    if (len <= max)
        return len;
    while (cut > max - 3 && ((unsigned char)text[cut] & 0xc0) == 0x80)
        cut--;
    return cut;
}

static void out_quoted(struct out *out, const char *text, size_t len)
{
    (void)out_reserve(out, len);
    out_word(out, "\"");
    while (len) {
        const size_t piece = piece_len(text, len, PIECE_BYTES);
        if (!out_reserve(out, JSON_GROWTH_MAX * piece))
            return;
        const char *end = json_put_text(out->data + out->len, text, piece);
        out->status = end ? 0 : WEFT_E_BAD_REQUEST;
        out->len = end ? (size_t)(end - out->data) : out->len;
        text += piece;
        len -= piece;
    }
    out_word(out, "\"");
}

static void out_object(struct out *out, json_t *object)
{
    char *text = object ? json_write(object) : NULL;
    if (text)
        out_word(out, text);
    else
        out->status = WEFT_E_BAD_REQUEST;
    free(text);
    json_decref(object);
}

static void out_message(struct out *out, uint32_t role, const char *text, size_t len)
{
    static const char *const heads[] = {[WEFT_ROLE_SYSTEM] = "{\"role\":\"system\",\"content\":",
                                        [WEFT_ROLE_USER] = "{\"role\":\"user\",\"content\":",
                                        [WEFT_ROLE_ASSISTANT] =
                                            "{\"role\":\"assistant\",\"content\":"};
    if (role < WEFT_ROLE_SYSTEM || role > WEFT_ROLE_ASSISTANT) {
        out->status = WEFT_E_BAD_REQUEST;
        return;
    }
    out_word(out, heads[role]);
    out_quoted(out, text, len);
    out_word(out, "}");
}

static void out_part(struct out *out, const weft_job_part_t *part, struct calls *calls)
{
    if (part->role == WEFT_ROLE_CALLS)
        out_object(out, called(part, calls));
    else if (part->role == WEFT_ROLE_TOOL)
        out_object(out, result(part, calls));
    else
        out_message(out, part->role, part->text, part->len);
}

static void put_chat(struct out *out, const weft_job_view_t *view, const char *given,
                     size_t given_len)
{
    struct calls calls = {.waiting = json_array()};
    const char *comma = "";
    out_word(out, "\"messages\":[");
    for (size_t i = body_has_tools(view); i < view->part_count; i++, comma = ",") {
        out_word(out, comma);
        out_part(out, &view->parts[i], &calls);
    }
    json_decref(calls.waiting);
    if (given_len) {
        out_word(out, comma);
        out_message(out, WEFT_ROLE_ASSISTANT, given, given_len);
    }
    out_word(out, "]");
}

/* A character may have begun in the prompt and end in what was given. */
static void put_text(struct out *out, const weft_job_part_t *part, const char *given,
                     size_t given_len)
{
    struct out whole = {0};
    out_word(out, "\"prompt\":");
    out_add(&whole, part->text, part->len);
    out_add(&whole, given, given_len);
    out_quoted(out, whole.data, whole.len);
    out->status = out->status ? out->status : whole.status;
    free(whole.data);
}

static void put_resume(struct out *out, enum body_resume resume)
{
    if (resume == BODY_RESUME_VLLM)
        out_word(out, ",\"continue_final_message\":true,\"add_generation_prompt\":false");
}

static void put_tokens(struct out *out, const weft_job_view_t *view)
{
    out_word(out, "\"prompt\":[");
    for (size_t i = 0; i < view->token_count; i++)
        out_format(out, i ? ",%" PRIu32 : "%" PRIu32, view->tokens[i]);
    out_word(out, "]");
}

/* A float as people write it: 0.7, not 0.699999988079071; 1.0, since 1 is no float to everybody. */
static void put_float(struct out *out, const char *name, float value)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%.7g", (double)value);
    out_format(out, ",\"%s\":%s%s", name, text, strpbrk(text, ".e") ? "" : ".0");
    if (!isfinite(value))
        out->status = WEFT_E_BAD_REQUEST;
}

static void put_sampling(struct out *out, const weft_job_view_t *view, uint32_t max_tokens)
{
    out_format(out, ",\"max_tokens\":%" PRIu32, max_tokens);
    put_float(out, "temperature", view->temperature);
    if (view->top_p < 1.0f)
        put_float(out, "top_p", view->top_p);
    if (view->min_p > 0.0f)
        put_float(out, "min_p", view->min_p);
    if (view->top_k)
        out_format(out, ",\"top_k\":%" PRIu32, (uint32_t)view->top_k);
    if (view->repetition_penalty > 0.0f && view->repetition_penalty != 1.0f)
        put_float(out, "repetition_penalty", view->repetition_penalty);
    if (view->presence_penalty != 0.0f)
        put_float(out, "presence_penalty", view->presence_penalty);
    if (view->frequency_penalty != 0.0f)
        put_float(out, "frequency_penalty", view->frequency_penalty);
    if (view->temperature > 0.0f && view->seed)
        out_format(out, ",\"seed\":%" PRIu64, (uint64_t)view->seed >> 1);
}

/* ---- what few jobs have ---- */

/* As many as the API takes: relay.c looks for all of them. This saves the server work. One that is
 * no UTF-8 stays here. */
static int put_stops(json_t *root, const weft_job_view_t *view)
{
    json_t *list = json_array();
    int rc = list ? 0 : -1;
    for (size_t i = 0; rc == 0 && i < view->stop_count && i < BODY_STOPS_MAX; i++) {
        json_t *stop = json_stringn(view->stops[i].text, view->stops[i].len);
        rc = stop ? json_array_append_new(list, stop) : 0;
    }
    if (rc == 0 && json_array_size(list))
        rc = json_object_set(root, "stop", list);
    json_decref(list);
    return rc;
}

/* The server holds the answer to it, if it can; what it cannot it refuses itself. */
static int put_format(json_t *root, const weft_job_view_t *view)
{
    json_t *format;
    if (view->format == WEFT_FORMAT_NONE || view->format == WEFT_FORMAT_CALL)
        return 0; /* calls: put_tools() */
    if (view->format == WEFT_FORMAT_JSON)
        format = json_pack("{s:s}", "type", "json_object");
    else
        format = json_pack("{s:s, s:{s:s, s:b, s:o}}", "type", "json_schema", "json_schema", "name",
                           "answer", "strict", 1, "schema",
                           json_loadb(view->format_text, view->format_len, JSON_DECODE_ANY, NULL));
    return json_object_set_new(root, "response_format", format);
}

static void put_rest(struct out *out, const weft_job_view_t *view)
{
    if (!view->stop_count && view->format == WEFT_FORMAT_NONE && !body_has_tools(view))
        return;
    json_t *root = json_object();
    if (!root || put_stops(root, view) || put_format(root, view) || put_tools(root, view))
        out->status = WEFT_E_BAD_REQUEST;
    char *text = json_object_size(root) ? json_write(root) : NULL;
    if (text) {
        text[0] = ',';
        out_add(out, text, strlen(text) - 1);
    }
    free(text);
    json_decref(root);
}

char *body_write(const struct body_options *options, const weft_job_view_t *view, const char *given,
                 size_t given_len, uint32_t max_tokens, int *status)
{
    const bool chat = body_is_chat(view);
    struct out out = {0};
    if (given_len && chat && options->resume == BODY_RESUME_NONE) {
        *status = WEFT_E_NO_CAPABLE_NODE;
        return NULL;
    }
    *status = WEFT_E_BAD_REQUEST;
    if (!view->tokens && !view->part_count)
        return NULL;
    out_word(&out, "{");
    if (chat)
        put_chat(&out, view, given, given_len);
    else if (view->tokens)
        put_tokens(&out, view);
    else
        put_text(&out, view->parts, given, given_len);
    out_word(&out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"model\":");
    out_quoted(&out, options->model, strlen(options->model));
    put_sampling(&out, view, max_tokens);
    if (view->no_thinking)
        out_word(&out, ",\"chat_template_kwargs\":{\"enable_thinking\":false}");
    if (chat && given_len)
        put_resume(&out, options->resume);
    put_rest(&out, view);
    out_add(&out, "}", 2); /* with its zero */
    if (out.status == 0)
        return out.data;
    *status = out.status;
    free(out.data);
    return NULL;
}
