/* SPDX-License-Identifier: Apache-2.0 */
/* response.c - the Responses API: a message with one part of text, and calls of tools, whole or as
 * the events of OpenAI's API reference, "Responses: Streaming". See reply.h. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/reply.h"
#include "schemas/base/json_write.h"

static bool cut(const struct reply *r)
{
    return strcmp(r->choices[0].finish, "length") == 0;
}

/* ---- parts that the events share ---- */

static void event_begin(struct reply *r, const char *type)
{
    buf_add_format(&r->out, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%llu", type,
                   type, (unsigned long long)r->sequence++);
}

static void event_end(struct reply *r)
{
    buf_add(&r->out, "}\n\n", 3);
}

/* Which text an event is about. */
static void place_add(struct reply *r)
{
    buf_add_format(&r->out, ",\"item_id\":\"msg_%s\",\"output_index\":%u,\"content_index\":0",
                   r->id, r->message_at);
}

static void text_add(struct reply *r, bool all)
{
    const struct buf *text = &r->choices[0].text;
    if (all && buf_len(text) != 0) {
        buf_add(&r->out, text->data + text->at, buf_len(text));
    }
    r->out.failed = r->out.failed || text->failed;
}

static void part_add(struct reply *r, bool all)
{
    buf_add_text(&r->out,
                 "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[],\"text\":\"");
    text_add(r, all);
    buf_add_text(&r->out, "\"}");
}

static void item_add(struct reply *r, bool all)
{
    buf_add_format(
        &r->out,
        "{\"id\":\"msg_%s\",\"type\":\"message\",\"role\":\"assistant\",\"status\":\"%s\","
        "\"content\":[",
        r->id,
        !all     ? "in_progress"
        : cut(r) ? "incomplete"
                 : "completed");
    if (all) {
        part_add(r, true);
    }
    buf_add_text(&r->out, "]}");
}

/* ---- calls ---- */

static const json_t *call_at(const struct reply *r, size_t index)
{
    return json_array_get(r->choices[0].calls.list, index);
}

static void arguments_add(struct reply *r, size_t index)
{
    const json_t *text = json_object_get(call_at(r, index), "arguments");
    buf_add_json(&r->out, json_string_value(text), json_string_length(text));
}

static void call_item_add(struct reply *r, size_t index, bool all)
{
    const char *id = json_string_value(json_object_get(call_at(r, index), "id"));
    buf_add_format(&r->out,
                   "{\"id\":\"fc_%s_%zu\",\"type\":\"function_call\",\"status\":\"%s\","
                   "\"call_id\":",
                   r->id, index, all ? "completed" : "in_progress");
    if (id != NULL) {
        buf_add_quoted(&r->out, id);
    } else {
        buf_add_format(&r->out, "\"call_%s_%zu\"", r->id, index);
    }
    buf_add_text(&r->out, ",\"name\":");
    buf_add_quoted(&r->out, json_string_value(json_object_get(call_at(r, index), "name")));
    buf_add_text(&r->out, ",\"arguments\":\"");
    if (all) {
        arguments_add(r, index);
    }
    buf_add_text(&r->out, "\"}");
}

/* Which item of the output a call is. */
static size_t call_place(const struct reply *r, size_t index)
{
    return index + (r->message && index >= r->message_at);
}

/* All items, in the order in which they began. */
static void output_add(struct reply *r)
{
    const size_t calls = calls_count(&r->choices[0].calls);
    const size_t start = r->out.end - r->out.at;
    for (size_t i = 0; i <= calls; i++) {
        if (r->message && r->message_at == i) {
            buf_add_text(&r->out, r->out.end - r->out.at != start ? "," : "");
            item_add(r, true);
        }
        if (i < calls) {
            buf_add_text(&r->out, r->out.end - r->out.at != start ? "," : "");
            call_item_add(r, i, true);
        }
    }
}

/* ---- the object ---- */

static void usage_add(struct reply *r)
{
    struct reply_usage usage = reply_usage(r);
    buf_add_format(&r->out,
                   "{\"input_tokens\":%llu,\"input_tokens_details\":{\"cached_tokens\":%llu},"
                   "\"output_tokens\":%llu,\"output_tokens_details\":{\"reasoning_tokens\":0},"
                   "\"total_tokens\":%llu}",
                   (unsigned long long)usage.prompt_tokens, (unsigned long long)usage.cached_tokens,
                   (unsigned long long)usage.new_tokens,
                   (unsigned long long)(usage.prompt_tokens + usage.new_tokens));
}

static void asked_add(struct reply *r)
{
    const weft_query_t *q = &r->request->query;
    const char *instructions = json_string_value(json_object_get(r->request->root, "instructions"));
    buf_add_text(&r->out, ",\"instructions\":");
    if (instructions != NULL) {
        buf_add_quoted(&r->out, instructions);
    } else {
        buf_add_text(&r->out, "null");
    }
    buf_add_text(&r->out, ",\"model\":");
    buf_add_quoted(&r->out, q->model);
    buf_add_format(&r->out, ",\"max_output_tokens\":%u,\"temperature\":%g,\"top_p\":%g",
                   q->max_tokens, (double)q->temperature, q->top_p > 0 ? (double)q->top_p : 1.0);
}

/* A value as it was asked with, or what stands for its lack. */
static void value_add(struct reply *r, const json_t *value, const char *lack)
{
    bool given = value != NULL && !json_is_null(value);
    char *dumped = given ? json_write(value) : NULL;
    buf_add_text(&r->out, dumped != NULL ? dumped : lack);
    free(dumped);
}

static void tools_add(struct reply *r)
{
    const json_t *root = r->request->root;
    bool tools = r->request->tools;
    buf_add_format(&r->out, ",\"parallel_tool_calls\":%s,\"tool_choice\":",
                   tools && !r->request->one_call ? "true" : "false");
    value_add(r, tools ? json_object_get(root, "tool_choice") : NULL,
              tools ? "\"auto\"" : "\"none\"");
    buf_add_text(&r->out, ",\"tools\":");
    value_add(r, tools ? json_object_get(root, "tools") : NULL, "[]");
}

/* The object `response`: as it stands at the beginning, or with `all`. */
static void response_add(struct reply *r, bool all)
{
    buf_add_format(&r->out, "{\"id\":\"%s\",\"object\":\"response\",\"created_at\":%llu", r->id,
                   (unsigned long long)r->created_s);
    buf_add_format(&r->out, ",\"status\":\"%s\",\"error\":null,\"incomplete_details\":%s",
                   !all     ? "in_progress"
                   : cut(r) ? "incomplete"
                            : "completed",
                   all && cut(r) ? "{\"reason\":\"max_output_tokens\"}" : "null");
    asked_add(r);
    buf_add_text(&r->out, ",\"output\":[");
    if (all) {
        output_add(r);
    }
    buf_add_text(&r->out, "],\"usage\":");
    if (all) {
        usage_add(r);
    } else {
        buf_add_text(&r->out, "null");
    }
    tools_add(r);
    buf_add_text(&r->out, ",\"metadata\":");
    value_add(r, json_object_get(r->request->root, "metadata"), "{}");
    buf_add_text(&r->out, ",\"previous_response_id\":null,\"store\":false,\"text\":{\"format\":");
    value_add(r, json_object_get(json_object_get(r->request->root, "text"), "format"),
              "{\"type\":\"text\"}");
    buf_add_text(&r->out, "},\"truncation\":\"disabled\"}");
}

static void response_event(struct reply *r, const char *type, bool all)
{
    event_begin(r, type);
    buf_add_text(&r->out, ",\"response\":");
    response_add(r, all);
    event_end(r);
}

/* ---- the stream ---- */

static void response_begin(struct reply *r, uint32_t choice)
{
    (void)choice;
    response_event(r, "response.created", false);
    response_event(r, "response.in_progress", false);
}

static void message_begin(struct reply *r)
{
    if (r->message) {
        return;
    }
    r->message = true;
    r->message_at = (uint32_t)r->choices[0].told;
    event_begin(r, "response.output_item.added");
    buf_add_format(&r->out, ",\"output_index\":%u,\"item\":", r->message_at);
    item_add(r, false);
    event_end(r);
    event_begin(r, "response.content_part.added");
    place_add(r);
    buf_add_text(&r->out, ",\"part\":");
    part_add(r, false);
    event_end(r);
}

/* What has been added to the whole text since `from` goes out as an event. */
static void delta_event(struct reply *r, size_t from)
{
    const struct buf *text = &r->choices[0].text;
    if (buf_len(text) == from) {
        return;
    }
    event_begin(r, "response.output_text.delta");
    place_add(r);
    buf_add_text(&r->out, ",\"logprobs\":[],\"delta\":\"");
    buf_add(&r->out, text->data + text->at + from, buf_len(text) - from);
    buf_add_text(&r->out, "\"");
    event_end(r);
}

static void response_text(struct reply *r, uint32_t choice, const char *text, size_t len)
{
    struct reply_choice *c = &r->choices[choice];
    size_t from = buf_len(&c->text);
    message_begin(r);
    buf_add_held(&c->text, &c->hold, text, len);
    delta_event(r, from);
}

static void call_item_event(struct reply *r, size_t index, bool all)
{
    event_begin(r, all ? "response.output_item.done" : "response.output_item.added");
    buf_add_format(&r->out, ",\"output_index\":%zu,\"item\":", call_place(r, index));
    call_item_add(r, index, all);
    event_end(r);
}

static void arguments_event(struct reply *r, size_t index, bool all)
{
    const char *name = json_string_value(json_object_get(call_at(r, index), "name"));
    event_begin(r, all ? "response.function_call_arguments.done"
                       : "response.function_call_arguments.delta");
    buf_add_format(&r->out, ",\"item_id\":\"fc_%s_%zu\",\"output_index\":%zu", r->id, index,
                   call_place(r, index));
    if (all) {
        buf_add_text(&r->out, ",\"name\":");
        buf_add_quoted(&r->out, name);
    }
    buf_add_text(&r->out, all ? ",\"arguments\":\"" : ",\"delta\":\"");
    arguments_add(r, index);
    buf_add_text(&r->out, "\"");
    event_end(r);
}

/* A call comes whole: what looks like one is none before its end. */
static void response_call(struct reply *r, uint32_t choice, size_t index)
{
    (void)choice;
    call_item_event(r, index, false);
    arguments_event(r, index, false);
    arguments_event(r, index, true);
    call_item_event(r, index, true);
}

static void message_finish(struct reply *r, uint32_t choice)
{
    struct reply_choice *c = &r->choices[choice];
    size_t from = buf_len(&c->text);
    buf_add_rest(&c->text, &c->hold);
    delta_event(r, from);
    event_begin(r, "response.output_text.done");
    place_add(r);
    buf_add_text(&r->out, ",\"logprobs\":[],\"text\":\"");
    text_add(r, true);
    buf_add_text(&r->out, "\"");
    event_end(r);
    event_begin(r, "response.content_part.done");
    place_add(r);
    buf_add_text(&r->out, ",\"part\":");
    part_add(r, true);
    event_end(r);
    event_begin(r, "response.output_item.done");
    buf_add_format(&r->out, ",\"output_index\":%u,\"item\":", r->message_at);
    item_add(r, true);
    event_end(r);
}

static void response_finish(struct reply *r, uint32_t choice)
{
    if (calls_count(&r->choices[choice].calls) == 0) {
        message_begin(r);
    }
    if (r->message) {
        message_finish(r, choice);
    }
}

static void response_end(struct reply *r)
{
    char served[256];
    response_event(r, cut(r) ? "response.incomplete" : "response.completed", true);
    reply_served(reply_account(r), served, sizeof(served));
    buf_add_text(&r->out, ": ");
    buf_add_text(&r->out, served);
    buf_add_text(&r->out, "\n\n");
}

static void response_whole(struct reply *r)
{
    r->message = buf_len(&r->choices[0].text) != 0 || calls_count(&r->choices[0].calls) == 0;
    response_add(r, true);
}

const struct reply_format reply_response = {
    .object = "response",
    .chunk_object = "response",
    .begin = response_begin,
    .text = response_text,
    .call = response_call,
    .finish = response_finish,
    .end = response_end,
    .whole = response_whole,
};
