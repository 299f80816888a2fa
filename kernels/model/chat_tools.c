/* SPDX-License-Identifier: Apache-2.0 */
/* See chat_tools.h. */
#include "kernels/model/chat_tools.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char chatml_before[] =
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are "
    "provided with function signatures within <tools></tools> XML tags:\n<tools>";
static const char chatml_behind[] =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, "
    "\"arguments\": <args-json-object>}\n</tool_call>";
static const char llama_before[] =
    "Given the following functions, please respond with a JSON for a function call with its proper "
    "arguments that best answers the given prompt.\n\nRespond in the format {\"name\": function "
    "name, \"parameters\": dictionary of argument name and its value}.Do not use variables.\n\n";

/* A text that grows; `failed` sticks. */
struct text {
    FILE *file;
    char *data;
    size_t len;
};

static bool text_begin(struct text *t)
{
    t->data = NULL;
    t->file = open_memstream(&t->data, &t->len);
    return t->file != NULL;
}

static void text_add(struct text *t, const char *data, size_t len)
{
    if (len)
        (void)fwrite(data, 1, len, t->file);
}

static void text_add_json(struct text *t, const json_t *value, size_t flags)
{
    (void)json_dumpf(value, t->file, flags | JSON_ENCODE_ANY);
}

/* The text becomes a message. */
static int text_end(struct text *t, struct chat_tools *tools, uint32_t role)
{
    const bool failed = fclose(t->file) != 0 || !t->data;
    if (failed) {
        free(t->data);
        return -ENOMEM;
    }
    tools->texts[tools->text_count++] = t->data;
    tools->messages[tools->count++] = (struct chat_message){role, t->data, t->len};
    return 0;
}

const char *chat_arguments_key(const struct chat *chat)
{
    return chat->family == CHAT_LLAMA3 ? "parameters" : "arguments";
}

/* ---- ChatML ---- */

static int chatml_system(struct chat_tools *tools, const struct chat *chat, const json_t *functions,
                         const struct chat_message *system)
{
    struct text t;
    if (!text_begin(&t))
        return -ENOMEM;
    if (system)
        text_add(&t, system->text, system->len);
    else
        text_add(&t, chat->system.data, chat->system.len);
    if (system ? system->len : chat->system.len)
        text_add(&t, "\n\n", 2);
    text_add(&t, chatml_before, sizeof(chatml_before) - 1);
    for (size_t i = 0; i < json_array_size(functions); i++) {
        text_add(&t, "\n", 1);
        text_add_json(&t, json_array_get(functions, i), 0);
    }
    text_add(&t, chatml_behind, sizeof(chatml_behind) - 1);
    return text_end(&t, tools, CHAT_SYSTEM);
}

/* Results that follow each other are one message. Returns how many, or an error. */
static int chatml_results(struct chat_tools *tools, const struct chat_message *messages,
                          size_t count)
{
    struct text t;
    int taken = 0;
    if (!text_begin(&t))
        return -ENOMEM;
    for (; (size_t)taken < count && messages[taken].role == CHAT_TOOL; taken++) {
        (void)fprintf(t.file, "%s<tool_response>\n", taken ? "\n" : "");
        text_add(&t, messages[taken].text, messages[taken].len);
        (void)fputs("\n</tool_response>", t.file);
    }
    const int rc = text_end(&t, tools, CHAT_USER);
    return rc ? rc : taken;
}

/* ---- Llama 3 ---- */

static int llama_user(struct chat_tools *tools, const json_t *functions,
                      const struct chat_message *user)
{
    struct text t;
    if (!text_begin(&t))
        return -ENOMEM;
    text_add(&t, llama_before, sizeof(llama_before) - 1);
    for (size_t i = 0; i < json_array_size(functions); i++) {
        text_add_json(&t, json_array_get(functions, i), JSON_INDENT(4));
        text_add(&t, "\n\n", 2);
    }
    text_add(&t, user->text, user->len);
    return text_end(&t, tools, CHAT_USER);
}

static int llama_result(struct chat_tools *tools, const struct chat_message *result)
{
    struct text t;
    json_t *content = json_stringn(result->text, result->len);
    int rc = content ? 0 : -EINVAL;
    if (rc == 0 && !text_begin(&t))
        rc = -ENOMEM;
    if (rc == 0) {
        text_add_json(&t, content, 0);
        rc = text_end(&t, tools, CHAT_TOOL);
    }
    json_decref(content);
    return rc;
}

/* ---- either ---- */

static void call_add(struct text *t, const struct chat *chat, const json_t *call)
{
    (void)fputs("{\"name\": ", t->file);
    text_add_json(t, json_object_get(call, "name"), 0);
    (void)fprintf(t->file, ", \"%s\": ", chat_arguments_key(chat));
    text_add_json(t, json_object_get(call, "arguments"), 0);
    (void)fputs("}", t->file);
}

static int calls_take(struct chat_tools *tools, const struct chat *chat,
                      const struct chat_message *message)
{
    struct text t;
    json_t *root = json_loadb(message->text, message->len, 0, NULL);
    const json_t *calls = json_object_get(root, "calls");
    const json_t *content = json_object_get(root, "content");
    int rc = json_array_size(calls) ? 0 : -EINVAL;
    for (size_t i = 0; i < json_array_size(calls); i++)
        if (!json_is_string(json_object_get(json_array_get(calls, i), "name")) ||
            !json_object_get(json_array_get(calls, i), "arguments"))
            rc = -EINVAL;
    if (rc == 0 && !text_begin(&t))
        rc = -ENOMEM;
    if (rc == 0) {
        text_add(&t, json_string_value(content), json_string_length(content));
        for (size_t i = 0; i < json_array_size(calls); i++) {
            if (i || json_string_length(content))
                text_add(&t, "\n", 1);
            if (chat->family == CHAT_CHATML)
                (void)fputs(CHAT_CALL_BEGIN "\n", t.file);
            call_add(&t, chat, json_array_get(calls, i));
            if (chat->family == CHAT_CHATML)
                (void)fputs("\n</tool_call>", t.file);
        }
        rc = text_end(&t, tools, CHAT_ASSISTANT);
    }
    json_decref(root);
    return rc;
}

/* One message, or several results. Returns how many, or an error. */
static int message_take(struct chat_tools *tools, struct chat *chat,
                        const struct chat_message *messages, size_t count)
{
    int rc = 0;
    if (messages->role == CHAT_TOOLS)
        return -EINVAL;
    if (messages->role == CHAT_TOOL && chat->family == CHAT_CHATML)
        return chatml_results(tools, messages, count);
    if (messages->role == CHAT_TOOL)
        rc = llama_result(tools, messages);
    else if (messages->role == CHAT_CALLS)
        rc = calls_take(tools, chat, messages);
    else
        tools->messages[tools->count++] = *messages;
    return rc ? rc : 1;
}

/* The list of functions, and the message that it becomes part of. Returns how many messages that
 * are, or an error. */
static int tools_take(struct chat_tools *tools, struct chat *chat,
                      const struct chat_message *messages, size_t count)
{
    json_t *functions = json_loadb(messages->text, messages->len, 0, NULL);
    const bool system = count > 1 && messages[1].role == CHAT_SYSTEM;
    const size_t user = system ? 2 : 1;
    int rc = json_is_array(functions) ? 0 : -EINVAL;
    chat->has_tools = true;
    if (rc == 0 && chat->family == CHAT_CHATML) {
        rc = chatml_system(tools, chat, functions, system ? &messages[1] : NULL);
        rc = rc ? rc : (int)user;
    } else if (rc == 0) {
        rc = count > user && messages[user].role == CHAT_USER ? 0 : -EINVAL;
        if (system)
            tools->messages[tools->count++] = messages[1];
        rc = rc ? rc : llama_user(tools, functions, &messages[user]);
        rc = rc ? rc : (int)user + 1;
    }
    json_decref(functions);
    return rc;
}

int chat_tools_begin(struct chat_tools *tools, struct chat *chat,
                     const struct chat_message *messages, size_t count)
{
    int taken = 0;
    *tools = (struct chat_tools){.messages = calloc(count + 1, sizeof(*tools->messages)),
                                 .texts = calloc(count + 1, sizeof(*tools->texts))};
    if (!tools->messages || !tools->texts)
        return -ENOMEM;
    for (size_t at = 0; at < count; at += (size_t)taken) {
        taken = at == 0 && messages->role == CHAT_TOOLS
                    ? tools_take(tools, chat, messages, count)
                    : message_take(tools, chat, messages + at, count - at);
        if (taken < 0)
            return taken;
    }
    return 0;
}

void chat_tools_end(struct chat_tools *tools)
{
    for (size_t i = 0; i < tools->text_count; i++)
        free(tools->texts[i]);
    free(tools->texts);
    free(tools->messages);
}
