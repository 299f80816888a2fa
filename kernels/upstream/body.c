/* SPDX-License-Identifier: Apache-2.0 */
/* body.c - see body.h. */
#include "kernels/upstream/body.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <weft/wire.h>

bool body_is_chat(const weft_job_view_t *view)
{
    return !view->tokens && view->part_count && view->parts[0].role != 0;
}

bool body_has_tools(const weft_job_view_t *view)
{
    return body_is_chat(view) && view->parts[0].role == WEFT_ROLE_TOOLS;
}

/* ---- tools ---- */

/* Calls so far, and whose result comes next. */
struct calls {
    unsigned count;
    unsigned next;
};

static json_t *call_id(unsigned number)
{
    return json_sprintf("call_%u", number);
}

static json_t *call_of(const json_t *call, struct calls *calls)
{
    const json_t *arguments = json_object_get(call, "arguments");
    char *text = arguments ? json_dumps(arguments, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    json_t *made =
        json_pack("{s:o, s:s, s:{s:O, s:s}}", "id", call_id(calls->count), "type", "function",
                  "function", "name", json_object_get(call, "name"), "arguments", text);
    calls->count++;
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
    calls->next = calls->count;
    for (size_t i = 0; rc == 0 && i < json_array_size(list); i++)
        rc = json_array_append_new(made, call_of(json_array_get(list, i), calls));
    json_t *message = rc == 0 ? json_pack("{s:s, s:O, s:O}", "role", "assistant", "content",
                                          json_object_get(root, "content"), "tool_calls", made)
                              : NULL;
    json_decref(made);
    json_decref(root);
    return message;
}

static json_t *result(const weft_job_part_t *part, struct calls *calls)
{
    json_t *message =
        json_pack("{s:s, s:o, s:o}", "role", "tool", "tool_call_id", call_id(calls->next),
                  "content", json_stringn(part->text, part->len));
    calls->next++;
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

static json_t *message(uint32_t role, const char *text, size_t len)
{
    static const char *const roles[] = {[WEFT_ROLE_SYSTEM] = "system",
                                        [WEFT_ROLE_USER] = "user",
                                        [WEFT_ROLE_ASSISTANT] = "assistant"};
    if (role < WEFT_ROLE_SYSTEM || role > WEFT_ROLE_ASSISTANT)
        return NULL;
    /* NULL, and so a failure, if the text is no UTF-8 */
    return json_pack("{s:s, s:o}", "role", roles[role], "content", json_stringn(text, len));
}

/* All of these return 0, or -1 where something is no UTF-8 or there is no memory. */
static int put_chat(json_t *root, const struct body_options *options, const weft_job_view_t *view,
                    const char *given, size_t given_len)
{
    json_t *messages = json_array();
    struct calls calls = {0, 0};
    int rc = json_object_set_new(root, "messages", messages);
    for (size_t i = body_has_tools(view); rc == 0 && i < view->part_count; i++) {
        const weft_job_part_t *part = &view->parts[i];
        rc = json_array_append_new(messages, part->role == WEFT_ROLE_CALLS ? called(part, &calls)
                                             : part->role == WEFT_ROLE_TOOL
                                                 ? result(part, &calls)
                                                 : message(part->role, part->text, part->len));
    }
    if (rc || given_len == 0)
        return rc;
    rc = json_array_append_new(messages, message(WEFT_ROLE_ASSISTANT, given, given_len));
    if (rc == 0 && options->resume == BODY_RESUME_VLLM)
        rc = json_object_set_new(root, "continue_final_message", json_true()) |
             json_object_set_new(root, "add_generation_prompt", json_false());
    return rc;
}

static int put_text(json_t *root, const weft_job_view_t *view, const char *given, size_t given_len)
{
    const weft_job_part_t *part = view->parts;
    json_t *text = json_pack("s%+%", part->text, part->len, given_len ? given : "", given_len);
    return json_object_set_new(root, "prompt", text);
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

char *body_write(const struct body_options *options, const weft_job_view_t *view, const char *given,
                 size_t given_len, uint32_t max_tokens, int *status)
{
    const bool chat = body_is_chat(view);
    if (given_len && chat && options->resume == BODY_RESUME_NONE) {
        *status = WEFT_E_NO_CAPABLE_NODE;
        return NULL;
    }
    json_t *root = json_pack("{s:s, s:b, s:{s:b}}", "model", options->model, "stream", 1,
                             "stream_options", "include_usage", 1);
    *status = root ? WEFT_E_BAD_REQUEST : WEFT_E_WORKER_FAILED;
    int rc = root && (view->tokens || view->part_count) ? 0 : -1;
    if (rc == 0 && view->tokens)
        rc = put_tokens(root, view);
    else if (rc == 0)
        rc = chat ? put_chat(root, options, view, given, given_len)
                  : put_text(root, view, given, given_len);
    if (rc == 0)
        rc = put_sampling(root, view, max_tokens);
    if (rc == 0)
        rc = put_stops(root, view) | put_switches(root, view) | put_format(root, view) |
             put_tools(root, view);
    char *body = rc == 0 ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    return body;
}
