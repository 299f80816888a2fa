/* SPDX-License-Identifier: Apache-2.0 */
/* reply_format.c - how chats and completions look, whole and as events; see reply.h. The form is
 * that of OpenAI's API reference, "Chat Completions" and "Completions (legacy)". */
#include <string.h>

#include "dataplane/gateway/reply.h"

/* ---- shared ---- */

static void usage_add(struct reply *r)
{
    struct reply_usage usage = reply_usage(r);
    buf_add_format(&r->out,
                   "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,"
                   "\"total_tokens\":%llu,\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
                   (unsigned long long)usage.prompt_tokens, (unsigned long long)usage.new_tokens,
                   (unsigned long long)(usage.prompt_tokens + usage.new_tokens),
                   (unsigned long long)usage.cached_tokens);
}

static void event_begin(struct reply *r)
{
    buf_add(&r->out, "data: ", 6);
    buf_add(&r->out, r->prefix, r->prefix_len);
}

static void event_end(struct reply *r)
{
    if (r->request->include_usage) {
        buf_add_text(&r->out, ",\"usage\":null"); /* on each event but the one that has it */
    }
    buf_add(&r->out, "}\n\n", 3);
}

static void finish_add(struct reply *r, uint32_t choice)
{
    reply_logprobs_add(r, choice);
    buf_add_format(&r->out, ",\"finish_reason\":\"%s\"}", r->choices[choice].finish);
}

/* Usage if asked for, who served as a comment that clients skip, and the mark of completeness. */
static void stream_end(struct reply *r)
{
    char served[256];
    if (r->request->include_usage) {
        event_begin(r);
        buf_add_text(&r->out, ",\"choices\":[],");
        usage_add(r);
        buf_add(&r->out, "}\n\n", 3);
    }
    reply_served(reply_account(r), served, sizeof(served));
    buf_add_text(&r->out, ": ");
    buf_add_text(&r->out, served);
    buf_add_text(&r->out, "\n\ndata: [DONE]\n\n");
}

/* All of an answer, and what `echo` puts before it. */
static void content_add(struct reply *r, uint32_t choice)
{
    struct buf *text = &r->choices[choice].text;
    if (r->request->echo) {
        const struct api_text *prompt = &r->request->prompts[choice / r->request->n];
        buf_add_json(&r->out, prompt->text, prompt->len);
    }
    if (buf_len(text) != 0) {
        buf_add(&r->out, text->data + text->at, buf_len(text));
    }
    r->out.failed = r->out.failed || text->failed;
}

static void whole_begin(struct reply *r)
{
    buf_add(&r->out, r->prefix, r->prefix_len);
    buf_add_text(&r->out, ",\"choices\":[");
}

static void whole_end(struct reply *r)
{
    buf_add_text(&r->out, "],");
    usage_add(r);
    buf_add_text(&r->out, ",\"system_fingerprint\":null}");
}

/* Adds a piece of text with what goes before it; takes that back if no character is whole yet. */
static bool piece_add(struct reply *r, uint32_t choice, const char *before, const char *text,
                      size_t len)
{
    size_t start = r->out.end - r->out.at;
    event_begin(r);
    buf_add_format(&r->out, ",\"choices\":[{\"index\":%u,%s\"", choice, before);
    size_t empty = r->out.end - r->out.at;
    buf_add_held(&r->out, &r->choices[choice].hold, text, len);
    if (r->out.end - r->out.at == empty) {
        r->out.end = r->out.at + start;
        return false;
    }
    return true;
}

static void piece_end(struct reply *r, uint32_t choice, const char *after)
{
    buf_add_text(&r->out, after);
    reply_logprobs_add(r, choice);
    buf_add_text(&r->out, ",\"finish_reason\":null}]");
    event_end(r);
}

/* ---- chats ---- */

static void chat_begin(struct reply *r, uint32_t choice)
{
    bool silent =
        calls_count(&r->choices[choice].calls) != 0; /* text before it has its turn first */
    event_begin(r);
    buf_add_format(&r->out,
                   ",\"choices\":[{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":"
                   "%s},\"logprobs\":null,\"finish_reason\":null}]",
                   choice, silent ? "null" : "\"\"");
    event_end(r);
}

static void chat_text(struct reply *r, uint32_t choice, const char *text, size_t len)
{
    if (piece_add(r, choice, "\"delta\":{\"content\":", text, len)) {
        piece_end(r, choice, "\"},");
    }
}

/* What is held cannot become whole any more. */
static void rest_add(struct reply *r, uint32_t choice, const char *before, const char *after)
{
    struct utf8_hold *hold = &r->choices[choice].hold;
    if (hold->len == 0) {
        return;
    }
    event_begin(r);
    buf_add_format(&r->out, ",\"choices\":[{\"index\":%u,%s\"", choice, before);
    buf_add_rest(&r->out, hold);
    piece_end(r, choice, after);
}

/* {"id":...,"type":"function","function":{"name":...,"arguments":"...", without its ends. */
static void call_add(struct reply *r, uint32_t choice, size_t index, bool arguments)
{
    const json_t *call = json_array_get(r->choices[choice].calls.list, index);
    const json_t *text = json_object_get(call, "arguments");
    const char *id = json_string_value(json_object_get(call, "id"));
    buf_add_text(&r->out, "\"id\":");
    if (id != NULL) {
        buf_add_quoted(&r->out, id);
    } else {
        buf_add_format(&r->out, "\"call_%s_%u_%zu\"", r->id + strcspn(r->id, "-") + 1, choice,
                       index);
    }
    buf_add_text(&r->out, ",\"type\":\"function\",\"function\":{\"name\":");
    buf_add_quoted(&r->out, json_string_value(json_object_get(call, "name")));
    buf_add_text(&r->out, ",\"arguments\":\"");
    if (arguments) {
        buf_add_json(&r->out, json_string_value(text), json_string_length(text));
    }
    buf_add_text(&r->out, "\"}");
}

static void chat_call(struct reply *r, uint32_t choice, size_t index)
{
    const json_t *call = json_array_get(r->choices[choice].calls.list, index);
    const json_t *text = json_object_get(call, "arguments");
    for (int part = 0; part < 2; part++) {
        event_begin(r);
        buf_add_format(&r->out,
                       ",\"choices\":[{\"index\":%u,\"delta\":{\"tool_calls\":[{\"index\":%zu,",
                       choice, index);
        if (part == 0) {
            call_add(r, choice, index, false);
        } else {
            buf_add_text(&r->out, "\"function\":{\"arguments\":\"");
            buf_add_json(&r->out, json_string_value(text), json_string_length(text));
            buf_add_text(&r->out, "\"}");
        }
        piece_end(r, choice, "}]},");
    }
}

static void chat_finish(struct reply *r, uint32_t choice)
{
    rest_add(r, choice, "\"delta\":{\"content\":", "\"},");
    event_begin(r);
    buf_add_format(&r->out, ",\"choices\":[{\"index\":%u,\"delta\":{},", choice);
    finish_add(r, choice);
    buf_add_text(&r->out, "]");
    event_end(r);
}

static void calls_add(struct reply *r, uint32_t choice)
{
    size_t count = calls_count(&r->choices[choice].calls);
    for (size_t i = 0; i < count; i++) {
        buf_add_text(&r->out, i == 0 ? ",\"tool_calls\":[{" : ",{");
        call_add(r, choice, i, true);
        buf_add_text(&r->out, "}");
    }
    buf_add_text(&r->out, count != 0 ? "]" : "");
}

static void chat_whole(struct reply *r)
{
    whole_begin(r);
    for (uint32_t i = 0; i < r->count; i++) {
        const struct reply_choice *c = &r->choices[i];
        bool silent = calls_count(&c->calls) != 0 && buf_len(&c->text) == 0; /* calls alone */
        buf_add_format(&r->out,
                       "%s{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":%s",
                       i != 0 ? "," : "", i, silent ? "null" : "\"");
        content_add(r, i);
        buf_add_text(&r->out, silent ? "" : "\"");
        buf_add_text(&r->out, ",\"refusal\":null");
        calls_add(r, i);
        buf_add_text(&r->out, "},");
        finish_add(r, i);
    }
    whole_end(r);
}

const struct reply_format reply_chat = {
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .begin = chat_begin,
    .text = chat_text,
    .call = chat_call,
    .finish = chat_finish,
    .end = stream_end,
    .whole = chat_whole,
};

/* ---- completions ---- */

static void completion_begin(struct reply *r, uint32_t choice)
{
    if (r->request->echo) {
        const struct api_text *prompt = &r->request->prompts[choice / r->request->n];
        event_begin(r);
        buf_add_format(&r->out, ",\"choices\":[{\"index\":%u,\"text\":\"", choice);
        buf_add_json(&r->out, prompt->text, prompt->len);
        buf_add_text(&r->out, "\",\"logprobs\":null,\"finish_reason\":null}]");
        event_end(r);
    }
}

static void completion_text(struct reply *r, uint32_t choice, const char *text, size_t len)
{
    if (piece_add(r, choice, "\"text\":", text, len)) {
        piece_end(r, choice, "\",");
    }
}

static void completion_finish(struct reply *r, uint32_t choice)
{
    rest_add(r, choice, "\"text\":", "\",");
    event_begin(r);
    buf_add_format(&r->out, ",\"choices\":[{\"index\":%u,\"text\":\"\",", choice);
    finish_add(r, choice);
    buf_add_text(&r->out, "]");
    event_end(r);
}

static void completion_whole(struct reply *r)
{
    whole_begin(r);
    for (uint32_t i = 0; i < r->count; i++) {
        buf_add_format(&r->out, "%s{\"index\":%u,\"text\":\"", i != 0 ? "," : "", i);
        content_add(r, i);
        buf_add_text(&r->out, "\",");
        finish_add(r, i);
    }
    whole_end(r);
}

const struct reply_format reply_completion = {
    .object = "text_completion",
    .chunk_object = "text_completion",
    .begin = completion_begin,
    .text = completion_text,
    .finish = completion_finish,
    .end = stream_end,
    .whole = completion_whole,
};
