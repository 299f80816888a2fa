/* SPDX-License-Identifier: Apache-2.0 */
/* response.c - the Responses API, text only: one message with one part of text, whole or as the
 * events of OpenAI's API reference, "Responses: Streaming". See reply.h. */
#include <stdlib.h>
#include <string.h>

#include "dataplane/gateway/reply.h"

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
    buf_add_format(&r->out, ",\"item_id\":\"msg_%s\",\"output_index\":0,\"content_index\":0",
                   r->id);
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
        r->id, all ? "completed" : "in_progress");
    if (all) {
        part_add(r, true);
    }
    buf_add_text(&r->out, "]}");
}

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

static bool cut(const struct reply *r)
{
    return strcmp(r->choices[0].finish, "length") == 0;
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

/* As it was asked for. */
static void format_add(struct reply *r)
{
    const json_t *text = json_object_get(r->request->root, "text");
    const json_t *format = json_object_get(text, "format");
    char *dumped = json_is_object(format) ? json_dumps(format, JSON_COMPACT) : NULL;
    buf_add_text(&r->out, dumped != NULL ? dumped : "{\"type\":\"text\"}");
    free(dumped);
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
        item_add(r, true);
    }
    buf_add_text(&r->out, "],\"usage\":");
    if (all) {
        usage_add(r);
    } else {
        buf_add_text(&r->out, "null");
    }
    buf_add_text(&r->out, ",\"metadata\":{},\"parallel_tool_calls\":false,\"tool_choice\":\"none\","
                          "\"tools\":[],\"previous_response_id\":null,\"store\":false,"
                          "\"text\":{\"format\":");
    format_add(r);
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
    event_begin(r, "response.output_item.added");
    buf_add_text(&r->out, ",\"output_index\":0,\"item\":");
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
    buf_add_held(&c->text, &c->hold, text, len);
    delta_event(r, from);
}

static void response_finish(struct reply *r, uint32_t choice)
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
    buf_add_text(&r->out, ",\"output_index\":0,\"item\":");
    item_add(r, true);
    event_end(r);
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
    response_add(r, true);
}

const struct reply_format reply_response = {
    .object = "response",
    .chunk_object = "response",
    .begin = response_begin,
    .text = response_text,
    .finish = response_finish,
    .end = response_end,
    .whole = response_whole,
};
