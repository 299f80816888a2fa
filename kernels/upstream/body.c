/* SPDX-License-Identifier: Apache-2.0 */
/* body.c - see body.h. */
#include "kernels/upstream/body.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "schemas/base/json.h"

#define PIECE_BYTES 16384u /* of a text, at a time */

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
    char *text = arguments ? json_dumps(arguments, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
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
        const size_t room = (out->len + more) * 2;
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
    while (len && out_reserve(out, JSON_GROWTH_MAX * PIECE_BYTES)) {
        const size_t piece = piece_len(text, len, PIECE_BYTES);
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
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
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

/* All of these return 0, or -1 where something is no UTF-8 or there is no memory. */
static int put_resume(json_t *root, enum body_resume resume)
{
    if (resume != BODY_RESUME_VLLM)
        return 0;
    return json_object_set_new(root, "continue_final_message", json_true()) |
           json_object_set_new(root, "add_generation_prompt", json_false());
}

static int put_tokens(json_t *root, const weft_job_view_t *view)
{
    json_t *ids = json_array();
    int rc = json_object_set_new(root, "prompt", ids);
    for (size_t i = 0; rc == 0 && i < view->token_count; i++)
        rc = json_array_append_new(ids, json_integer(view->tokens[i]));
    return rc;
}

/* A float as people write it: 0.7, not 0.699999988079071. */
static json_t *shown(float value)
{
    char text[32];
    (void)snprintf(text, sizeof(text), "%.7g", (double)value);
    return json_real(strtod(text, NULL));
}

static int put_sampling(json_t *root, const weft_job_view_t *view, uint32_t max_tokens)
{
    int rc = json_object_set_new(root, "max_tokens", json_integer(max_tokens)) |
             json_object_set_new(root, "temperature", shown(view->temperature));
    if (view->top_p < 1.0f)
        rc |= json_object_set_new(root, "top_p", shown(view->top_p));
    if (view->min_p > 0.0f)
        rc |= json_object_set_new(root, "min_p", shown(view->min_p));
    if (view->top_k)
        rc |= json_object_set_new(root, "top_k", json_integer(view->top_k));
    if (view->repetition_penalty > 0.0f && view->repetition_penalty != 1.0f)
        rc |= json_object_set_new(root, "repetition_penalty", shown(view->repetition_penalty));
    if (view->presence_penalty != 0.0f)
        rc |= json_object_set_new(root, "presence_penalty", shown(view->presence_penalty));
    if (view->frequency_penalty != 0.0f)
        rc |= json_object_set_new(root, "frequency_penalty", shown(view->frequency_penalty));
    if (view->temperature > 0.0f && view->seed)
        rc |= json_object_set_new(root, "seed", json_integer((json_int_t)(view->seed >> 1)));
    return rc;
}

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

static int put_switches(json_t *root, const weft_job_view_t *view)
{
    if (!view->no_thinking)
        return 0;
    return json_object_set_new(root, "chat_template_kwargs",
                               json_pack("{s:b}", "enable_thinking", 0));
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

/* The prompt, and behind it what stands in `root`, which is not empty. NULL: as body_write(). */
static char *join(struct out *prompt, const json_t *root)
{
    char *rest = json_dumps(root, JSON_COMPACT);
    if (rest && prompt->len) {
        out_word(prompt, ",");
        out_add(prompt, rest + 1, strlen(rest)); /* with its zero */
        free(rest);
        return prompt->status ? NULL : prompt->data;
    }
    return rest;
}

/* All but the prompt, unless that is token ids. */
static json_t *settings(const struct body_options *options, const weft_job_view_t *view,
                        bool goes_on, uint32_t max_tokens)
{
    json_t *root = json_pack("{s:s, s:b, s:{s:b}}", "model", options->model, "stream", 1,
                             "stream_options", "include_usage", 1);
    int rc = root ? put_sampling(root, view, max_tokens) : -1;
    if (rc == 0)
        rc = put_stops(root, view) | put_switches(root, view) | put_format(root, view) |
             put_tools(root, view);
    if (rc == 0 && goes_on)
        rc = put_resume(root, options->resume);
    if (rc == 0 && view->tokens)
        rc = put_tokens(root, view);
    if (rc == 0)
        return root;
    json_decref(root);
    return NULL;
}

char *body_write(const struct body_options *options, const weft_job_view_t *view, const char *given,
                 size_t given_len, uint32_t max_tokens, int *status)
{
    const bool chat = body_is_chat(view);
    struct out prompt = {0};
    if (given_len && chat && options->resume == BODY_RESUME_NONE) {
        *status = WEFT_E_NO_CAPABLE_NODE;
        return NULL;
    }
    *status = WEFT_E_BAD_REQUEST;
    if (!view->tokens && !view->part_count)
        return NULL;
    out_word(&prompt, view->tokens ? "" : "{");
    if (chat)
        put_chat(&prompt, view, given, given_len);
    else if (!view->tokens)
        put_text(&prompt, view->parts, given, given_len);
    json_t *root = settings(options, view, chat && given_len, max_tokens);
    char *body = root && prompt.status == 0 ? join(&prompt, root) : NULL;
    json_decref(root);
    *status = prompt.status ? prompt.status : WEFT_E_BAD_REQUEST;
    if (body != prompt.data)
        free(prompt.data);
    return body;
}
