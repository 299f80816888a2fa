/* SPDX-License-Identifier: Apache-2.0 */
/* tools.c - what the answer must be (response_format), functions that it may call (tools,
 * tool_choice), and calls that earlier answers made; see api.h. The schemas themselves are the
 * grammar's concern. */
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"
#include "schemas/base/json_write.h"

#define TOOLS_MAX 128u

static const json_t *given(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static bool is_word(const json_t *value, const char *word)
{
    const char *text = json_string_value(value);
    return text != NULL && strcmp(text, word) == 0;
}

bool api_keep_json(struct api_request *r, const json_t *value, struct api_text *out)
{
    char *text = json_write(value);
    json_t *kept = text != NULL ? json_string_nocheck(text) : NULL;
    free(text);
    if (kept == NULL || json_array_append_new(r->kept, kept) != 0) {
        return false;
    }
    *out = (struct api_text){json_string_value(kept), json_string_length(kept)};
    return true;
}

/* ---- formats ---- */

static bool schema_take(struct api_request *r, const json_t *schema, const char *param,
                        struct api_error *error)
{
    struct api_text text;
    if (schema == NULL) {
        return error_bad(error, param, "`%s` needs a `schema`.", param);
    }
    if (!api_keep_json(r, schema, &text)) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    if (text.len > WEFT_FORMAT_MAX) {
        return error_bad(error, param, "A schema may have %u bytes.", WEFT_FORMAT_MAX);
    }
    r->query.format = WEFT_FORMAT_SCHEMA;
    r->query.format_text = text.text;
    return true;
}

/* Chats have `response_format` with `json_schema` within, responses `text.format`, all in one. */
bool api_format(struct api_request *r, struct api_error *error)
{
    const json_t *format = given(r->root, "response_format");
    const char *param = "response_format";
    if (r->kind == API_RESPONSE) {
        format = given(given(r->root, "text"), "format");
        param = "text.format";
    }
    const json_t *type = given(format, "type");
    if (format == NULL || r->kind == API_EMBEDDING || is_word(type, "text")) {
        return true;
    }
    if (is_word(type, "json_object")) {
        r->query.format = WEFT_FORMAT_JSON;
        return true;
    }
    if (is_word(type, "json_schema")) {
        const json_t *holder = r->kind == API_RESPONSE ? format : given(format, "json_schema");
        return schema_take(r, given(holder, "schema"), param, error);
    }
    error_bad(error, param, "`%s.type` must be text, json_object or json_schema.", param);
    error->code = "unsupported_parameter";
    return false;
}

/* ---- tools ---- */

/* Chats have a function within its tool or choice, responses in one with it. */
static const json_t *function_of(const struct api_request *r, const json_t *tool)
{
    return r->kind == API_RESPONSE ? tool : given(tool, "function");
}

static bool tool_is_fine(const struct api_request *r, const json_t *tool)
{
    const json_t *function = function_of(r, tool);
    const json_t *name = given(function, "name");
    const json_t *parameters = given(function, "parameters");
    size_t len = json_string_length(name);
    return is_word(given(tool, "type"), "function") && len > 0 && len < WEFT_TOOL_NAME_MAX &&
           strspn(json_string_value(name),
                  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == len &&
           (parameters == NULL || json_is_object(parameters));
}

bool api_has_tool(const struct api_request *r, const char *name)
{
    const json_t *tools = json_object_get(r->root, "tools");
    for (size_t i = 0; i < json_array_size(tools); i++) {
        if (is_word(given(function_of(r, json_array_get(tools, i)), "name"), name)) {
            return true;
        }
    }
    return false;
}

/* Which of them, if any: none, auto, required, or one by name. */
static bool choice_take(struct api_request *r, const json_t *choice, struct api_error *error)
{
    const json_t *name = given(function_of(r, choice), "name");
    if (choice == NULL || is_word(choice, "auto")) {
        return true;
    }
    if (is_word(choice, "required")) {
        r->query.format = WEFT_FORMAT_CALL;
        return true;
    }
    if (name != NULL && json_is_string(name) && api_has_tool(r, json_string_value(name))) {
        r->query.format = WEFT_FORMAT_CALL;
        r->query.format_text = json_string_value(name);
        return true;
    }
    return error_bad(error, "tool_choice",
                     "`tool_choice` must be none, auto, required, or the name of a function.");
}

/* As the mesh has them: as chats do. A new reference, or NULL. */
static json_t *tools_of(const struct api_request *r, json_t *tools)
{
    static const char *const keys[] = {"name", "description", "parameters", "strict"};
    json_t *list = json_array();
    if (r->kind != API_RESPONSE) {
        json_decref(list);
        return json_incref(tools);
    }
    for (size_t i = 0; i < json_array_size(tools); i++) {
        json_t *function = json_object();
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            json_t *value = json_object_get(json_array_get(tools, i), keys[k]);
            if (value != NULL && !json_is_null(value)) {
                (void)json_object_set(function, keys[k], value);
            }
        }
        (void)json_array_append_new(
            list, json_pack("{s:s, s:o}", "type", "function", "function", function));
    }
    return list;
}

static bool harmless_list(const json_t *list)
{
    return list == NULL || (json_is_array(list) && json_array_size(list) == 0);
}

bool api_tools(struct api_request *r, struct api_error *error)
{
    struct api_text text;
    json_t *tools = json_object_get(r->root, "tools");
    const json_t *choice = given(r->root, "tool_choice");
    size_t count = json_array_size(tools);
    tools = json_is_null(tools) ? NULL : tools;
    if (is_word(choice, "none") || (count == 0 && choice == NULL && harmless_list(tools))) {
        return true;
    }
    if (tools != NULL && (!json_is_array(tools) || count > TOOLS_MAX)) {
        return error_bad(error, "tools", "`tools` must be a list of %u functions at most.",
                         TOOLS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        if (!tool_is_fine(r, json_array_get(tools, i))) {
            return error_bad(
                error, "tools",
                "`tools[%zu]` must be a function with a name of 1 to %u letters, digits, "
                "_, - and dots.",
                i, WEFT_TOOL_NAME_MAX - 1);
        }
    }
    if (count == 0) {
        return is_word(choice, "auto") ||
               error_bad(error, "tool_choice", "`tool_choice` needs `tools`.");
    }
    if (r->query.format != WEFT_FORMAT_NONE) {
        return error_bad(error, r->kind == API_RESPONSE ? "text.format" : "response_format",
                         "Tools and a format other than text cannot both be asked for; with "
                         "`tool_choice` none they can.");
    }
    json_t *list = tools_of(r, tools);
    bool kept = api_keep_json(r, list, &text);
    json_decref(list);
    if (!kept) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    r->tools = true;
    r->one_call = json_is_false(json_object_get(r->root, "parallel_tool_calls"));
    r->messages[r->message_count++] = (weft_message_t){"tools", text.text, text.len};
    return choice_take(r, choice, error);
}

/* ---- calls that were made ---- */

/* A call as the mesh has it; its id and what becomes of it stand in `holder`. */
static json_t *call_of(const json_t *function, const json_t *holder, const char *id_key)
{
    const char *name = json_string_value(given(function, "name"));
    const char *arguments = json_string_value(given(function, "arguments"));
    arguments = arguments != NULL && arguments[0] == '\0' ? "{}" : arguments; /* of none */
    json_t *parsed = arguments != NULL ? json_loads(arguments, JSON_ALLOW_NUL, NULL) : NULL;
    json_t *call = name != NULL && parsed != NULL
                       ? json_pack("{s:s, s:O}", "name", name, "arguments", parsed)
                       : NULL;
    json_t *id = json_copy((json_t *)(uintptr_t)api_call_id(json_object_get(holder, id_key)));
    json_t *result = json_object_get(holder, API_RESULT_KEY);
    json_decref(parsed);
    if ((id != NULL && json_object_set_new(call, "id", id) != 0) ||
        (result != NULL && json_object_set(call, "result", result) != 0)) {
        json_decref(call);
        return NULL;
    }
    return call;
}

/* An answer with calls as a text; takes `calls`, which may be NULL. False: no memory. */
static bool calls_keep(struct api_request *r, const struct api_text *text, json_t *calls,
                       struct api_text *out)
{
    json_t *whole = json_pack("{s:s%, s:o}", "content", text->text, text->len, "calls", calls);
    bool kept = whole != NULL && api_keep_json(r, whole, out);
    json_decref(whole);
    return kept;
}

bool api_calls(struct api_request *r, const json_t *message, struct api_text *text,
               struct api_error *error)
{
    const json_t *given_calls = given(message, "tool_calls");
    json_t *calls = json_array();
    bool good = json_is_array(given_calls);
    for (size_t i = 0; good && i < json_array_size(given_calls); i++) {
        const json_t *holder = json_array_get(given_calls, i);
        json_t *call = call_of(given(holder, "function"), holder, "id");
        good = call != NULL && json_array_append_new(calls, call) == 0;
    }
    if (!good) {
        json_decref(calls);
        return error_bad(
            error, "messages",
            "`tool_calls` must be a list of functions with a name and arguments, which "
            "are JSON in a text.");
    }
    if (!calls_keep(r, text, calls, text)) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return false;
    }
    return true;
}

size_t api_call_items(struct api_request *r, const json_t *input, size_t at,
                      struct api_error *error)
{
    static const struct api_text nothing = {"", 0};
    const weft_message_t *last = r->message_count != 0 ? &r->messages[r->message_count - 1] : NULL;
    bool said = last != NULL && strcmp(last->role, "assistant") == 0; /* the same answer's text */
    struct api_text text = said ? (struct api_text){last->text, last->len} : nothing;
    json_t *calls = json_array();
    bool good = true;
    size_t count = 0;
    for (; good && is_word(given(json_array_get(input, at + count), "type"), "function_call");
         count++) {
        const json_t *item = json_array_get(input, at + count);
        json_t *call = call_of(item, item, "call_id");
        good = call != NULL && json_array_append_new(calls, call) == 0;
    }
    if (!good || count == 0) {
        json_decref(calls);
        if (!good) {
            error_bad(error, "input",
                      "`input[%zu]` must have a name and arguments, which are JSON in a text.",
                      at + count - 1);
        }
        return 0;
    }
    if (!calls_keep(r, &text, calls, &text)) {
        error_of_status(error, WEFT_E_MESH_FULL);
        return 0;
    }
    r->message_count -= said;
    r->messages[r->message_count++] = (weft_message_t){"calls", text.text, text.len};
    return count;
}
