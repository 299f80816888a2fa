/* SPDX-License-Identifier: Apache-2.0 */
/* realtime.c - see realtime.h. Events are built in `event` and framed when they are whole. */
#include "dataplane/gateway/realtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#include "dataplane/gateway/ws.h"
#include "schemas/base/json_write.h"
#include "schemas/base/text.h"

/* ---- events out ---- */

static struct buf *begin(struct realtime *r, const char *type)
{
    r->event.at = 0;
    r->event.end = 0;
    buf_add_format(&r->event, "{\"type\":\"%s\",\"event_id\":\"event_%" PRIu64 "\"", type,
                   ++r->events);
    return &r->event;
}

static void end(struct realtime *r)
{
    buf_add_text(&r->event, "}");
    r->out->failed = r->out->failed || r->event.failed;
    ws_frame(r->out, WS_OP_TEXT, r->event.data, buf_len(&r->event));
}

static void error_say(struct realtime *r, const struct api_error *e, const json_t *about)
{
    struct buf *out = begin(r, "error");
    const char *event_id = json_string_value(json_object_get(about, "event_id"));
    buf_add_format(out, ",\"error\":{\"type\":\"%s\",\"code\":\"%s\",\"message\":", e->type,
                   e->code);
    buf_add_quoted(out, e->message);
    buf_add_text(out, ",\"param\":");
    if (e->param[0] != '\0') {
        buf_add_quoted(out, e->param);
    } else {
        buf_add_text(out, "null");
    }
    buf_add_text(out, ",\"event_id\":");
    if (event_id != NULL) {
        buf_add_quoted(out, event_id);
    } else {
        buf_add_text(out, "null");
    }
    buf_add_text(out, "}");
    end(r);
}

static void refuse(struct realtime *r, const json_t *about, const char *param, const char *code,
                   const char *message)
{
    struct api_error error = {.http_status = 0};
    error_set(&error, 400, "invalid_request_error", code, false, message);
    snprintf(error.param, sizeof(error.param), "%s", param != NULL ? param : "");
    error_say(r, &error, about);
}

static void text_or_null(struct buf *out, const char *name, const json_t *value)
{
    char *text = value != NULL ? json_write(value) : NULL;
    buf_add_format(out, ",\"%s\":", name);
    buf_add_text(out, text != NULL ? text : "null");
    free(text);
}

static void session_say(struct realtime *r, const char *type)
{
    struct buf *out = begin(r, type);
    buf_add_format(out,
                   ",\"session\":{\"type\":\"realtime\",\"object\":\"realtime.session\","
                   "\"id\":\"sess_%s\",\"output_modalities\":[\"text\"],\"model\":",
                   r->id);
    buf_add_quoted(out, r->model);
    text_or_null(out, "instructions", json_object_get(r->session, "instructions"));
    text_or_null(out, "temperature", json_object_get(r->session, "temperature"));
    text_or_null(out, "max_output_tokens", json_object_get(r->session, "max_output_tokens"));
    buf_add_text(out, "}");
    end(r);
}

/* `,"item":{...}` of a message whose text is JSON's inside already. */
static void item_add(struct buf *out, const char *id, const char *role, const char *status,
                     const char *text, size_t len)
{
    bool answer = strcmp(role, "assistant") == 0;
    buf_add_text(out, ",\"item\":{\"id\":");
    buf_add_quoted(out, id);
    buf_add_format(out,
                   ",\"object\":\"realtime.item\",\"type\":\"message\",\"role\":\"%s\","
                   "\"status\":\"%s\",\"content\":[",
                   role, status);
    if (text != NULL) {
        buf_add_format(out, "{\"type\":\"%s\",\"text\":\"", answer ? "output_text" : "input_text");
        buf_add(out, text, len);
        buf_add_text(out, "\"}");
    }
    buf_add_text(out, "]}");
}

bool realtime_init(struct realtime *r, const char *id, const char *model, struct buf *out)
{
    *r = (struct realtime){.out = out, .session = json_object(), .items = json_array()};
    snprintf(r->id, sizeof(r->id), "%s", id);
    snprintf(r->model, sizeof(r->model), "%s", model);
    session_say(r, "session.created");
    return r->session != NULL && r->items != NULL && !out->failed;
}

void realtime_deinit(struct realtime *r)
{
    json_decref(r->session);
    json_decref(r->items);
    json_decref(r->asked);
    buf_deinit(&r->text);
    buf_deinit(&r->event);
}

/* ---- settings ---- */

/* Only text; nothing that the mesh cannot do. Says what is wrong. */
static bool settings_good(struct realtime *r, const json_t *event, const json_t *settings)
{
    static const char *const lists[] = {"output_modalities", "modalities"};
    const json_t *tools = json_object_get(settings, "tools");
    const json_t *instructions = json_object_get(settings, "instructions");
    const json_t *limit = json_object_get(settings, "max_output_tokens");
    const json_t *heat = json_object_get(settings, "temperature");
    double temperature = json_number_value(heat);
    bool infinite = json_is_string(limit) && strcmp(json_string_value(limit), "inf") == 0;
    for (size_t i = 0; i < 2; i++) {
        const json_t *list = json_object_get(settings, lists[i]);
        const char *only = json_string_value(json_array_get(list, 0));
        if (list != NULL &&
            (json_array_size(list) != 1 || only == NULL || strcmp(only, "text") != 0)) {
            refuse(r, event, lists[i], "unsupported_parameter", "Only text can be had.");
            return false;
        }
    }
    if (json_array_size(tools) != 0) {
        refuse(r, event, "tools", "unsupported_parameter", "Tools are not possible here.");
    } else if (instructions != NULL && !json_is_null(instructions) &&
               (!json_is_string(instructions) ||
                json_string_length(instructions) > REALTIME_MESSAGE_MAX)) {
        refuse(r, event, "instructions", "invalid_value", "'instructions' must be a text.");
    } else if (limit != NULL && !json_is_null(limit) && !infinite &&
               (!json_is_integer(limit) || json_integer_value(limit) < 1 ||
                json_integer_value(limit) > UINT32_MAX)) {
        refuse(r, event, "max_output_tokens", "invalid_value",
               "'max_output_tokens' must be a number from 1 or \"inf\".");
    } else if (heat != NULL && !json_is_null(heat) &&
               (!json_is_number(heat) || !(temperature >= 0 && temperature <= 2))) {
        refuse(r, event, "temperature", "invalid_value", "'temperature' must be 0 to 2.");
    } else {
        return true;
    }
    return false;
}

static const char *const settings_kept[] = {"instructions", "temperature", "max_output_tokens"};
#define SETTINGS (sizeof(settings_kept) / sizeof(settings_kept[0]))

static void session_update(struct realtime *r, const json_t *event)
{
    const json_t *settings = json_object_get(event, "session");
    const json_t *model = json_object_get(settings, "model");
    const char *name = json_string_value(model);
    if (!json_is_object(settings)) {
        refuse(r, event, "session", "invalid_value", "'session' must be an object.");
        return;
    }
    if (model != NULL && (name == NULL || strcmp(name, r->model) != 0)) {
        refuse(r, event, "session.model", "invalid_value", "A session's model does not change.");
        return;
    }
    if (!settings_good(r, event, settings)) {
        return;
    }
    for (size_t i = 0; i < SETTINGS; i++) {
        json_t *value = json_object_get(settings, settings_kept[i]);
        if (json_is_null(value)) {
            json_object_del(r->session, settings_kept[i]);
        } else if (value != NULL) {
            json_object_set(r->session, settings_kept[i], value);
        }
    }
    session_say(r, "session.updated");
}

/* ---- the conversation ---- */

static bool id_good(const char *id)
{
    size_t len = strlen(id);
    return len > 0 && len < 64 && text_is_word(id, len);
}

static size_t item_at(const struct realtime *r, const char *id)
{
    size_t count = json_array_size(r->items);
    for (size_t i = 0; i < count; i++) {
        const char *known = json_string_value(json_object_get(json_array_get(r->items, i), "id"));
        if (known != NULL && strcmp(known, id) == 0) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* Room for one more of so many bytes? */
static bool item_fits(const struct realtime *r, size_t len)
{
    return json_array_size(r->items) < REALTIME_ITEMS_MAX &&
           len <= REALTIME_TEXT_MAX - r->text_bytes;
}

static void item_keep(struct realtime *r, const char *id, const char *role, json_t *text)
{
    r->text_bytes += json_string_length(text);
    json_array_append_new(r->items,
                          json_pack("{s:s, s:s, s:o}", "id", id, "role", role, "text", text));
}

/* All parts of a message put together, a new reference; NULL: there are others than texts. */
static json_t *parts_join(const json_t *content)
{
    struct buf text = {.data = NULL};
    json_t *joined = NULL;
    bool good = json_array_size(content) > 0;
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_array_get(content, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *value = json_object_get(part, "text");
        good = good && type != NULL && json_is_string(value) &&
               (strcmp(type, "input_text") == 0 || strcmp(type, "output_text") == 0 ||
                strcmp(type, "text") == 0);
        if (good) {
            buf_add(&text, json_string_value(value), json_string_length(value));
        }
    }
    if (good && !text.failed) {
        joined = json_stringn(text.data != NULL ? text.data : "", buf_len(&text));
    }
    buf_deinit(&text);
    return joined;
}

static const char *role_of(const json_t *item)
{
    static const char *const roles[] = {"user", "system", "assistant"};
    const char *role = json_string_value(json_object_get(item, "role"));
    for (size_t i = 0; role != NULL && i < 3; i++) {
        if (strcmp(role, roles[i]) == 0) {
            return roles[i];
        }
    }
    return NULL;
}

static void item_say(struct realtime *r, const char *type, const char *id, const char *role,
                     const json_t *text)
{
    struct buf inside = {.data = NULL};
    struct buf *out = begin(r, type);
    buf_add_json(&inside, json_string_value(text), json_string_length(text));
    item_add(out, id, role, "completed", inside.data != NULL ? inside.data : "", buf_len(&inside));
    r->out->failed = r->out->failed || inside.failed;
    buf_deinit(&inside);
    end(r);
}

static void item_create(struct realtime *r, const json_t *event)
{
    const json_t *item = json_object_get(event, "item");
    const char *type = json_string_value(json_object_get(item, "type"));
    const char *given = json_string_value(json_object_get(item, "id"));
    const char *role = role_of(item);
    char id[64];
    json_t *text = NULL;
    if (type == NULL || strcmp(type, "message") != 0 || role == NULL) {
        refuse(r, event, "item", "unsupported_parameter",
               "'item' must be a message of user, system or assistant.");
        return;
    }
    if (given != NULL && (!id_good(given) || item_at(r, given) != SIZE_MAX)) {
        refuse(r, event, "item.id", "invalid_value", "That id cannot be, or is there already.");
        return;
    }
    text = parts_join(json_object_get(item, "content"));
    if (text == NULL) {
        refuse(r, event, "item.content", "unsupported_parameter",
               "'content' must be a list of texts.");
        return;
    }
    if (!item_fits(r, json_string_length(text))) {
        refuse(r, event, "item", "conversation_full", "The conversation has no room for more.");
        json_decref(text);
        return;
    }
    if (given != NULL) {
        snprintf(id, sizeof(id), "%s", given);
    } else {
        snprintf(id, sizeof(id), "item_%s_%" PRIu64, r->id, ++r->item_count);
    }
    item_say(r, "conversation.item.added", id, role, text);
    item_keep(r, id, role, text);
}

static void item_delete(struct realtime *r, const json_t *event)
{
    const char *id = json_string_value(json_object_get(event, "item_id"));
    size_t at = id != NULL ? item_at(r, id) : SIZE_MAX;
    if (at == SIZE_MAX) {
        refuse(r, event, "item_id", "item_not_found", "The conversation has no such item.");
        return;
    }
    r->text_bytes -= json_string_length(json_object_get(json_array_get(r->items, at), "text"));
    struct buf *out = begin(r, "conversation.item.deleted");
    buf_add_text(out, ",\"item_id\":");
    buf_add_quoted(out, id);
    end(r);
    json_array_remove(r->items, at);
}

/* ---- responses ---- */

static void response_head(struct realtime *r, struct buf *out, const char *status)
{
    buf_add_format(out,
                   ",\"response\":{\"object\":\"realtime.response\",\"id\":\"resp_%s_%" PRIu64
                   "\",\"status\":\"%s\",\"output_modalities\":[\"text\"]",
                   r->id, r->response_count, status);
}

/* Fields that say what a delta belongs to. */
static struct buf *part_begin(struct realtime *r, const char *type)
{
    struct buf *out = begin(r, type);
    buf_add_format(out,
                   ",\"response_id\":\"resp_%s_%" PRIu64 "\",\"item_id\":\"%s\",\"output_index\":0",
                   r->id, r->response_count, r->item_id);
    return out;
}

static enum realtime_action response_create(struct realtime *r, const json_t *event)
{
    json_t *own = json_object_get(event, "response");
    if (r->running) {
        refuse(r, event, NULL, "conversation_already_has_active_response",
               "A response is under way; cancel it or wait for its end.");
        return REALTIME_NOTHING;
    }
    if (own != NULL && !json_is_null(own) && !json_is_object(own)) {
        refuse(r, event, "response", "invalid_value", "'response' must be an object.");
        return REALTIME_NOTHING;
    }
    if (json_is_object(own) && !settings_good(r, event, own)) {
        return REALTIME_NOTHING;
    }
    if (json_array_size(r->items) == 0 || !item_fits(r, 0)) {
        refuse(r, event, NULL, "invalid_value",
               json_array_size(r->items) == 0 ? "There is nothing to answer yet."
                                              : "The conversation has no room for an answer.");
        return REALTIME_NOTHING;
    }
    json_decref(r->asked);
    r->asked = json_is_object(own) ? json_deep_copy(own) : NULL;
    r->running = true;
    r->cancelled = false;
    r->response_count++;
    r->text.at = r->text.end = 0;
    r->hold.len = 0;
    snprintf(r->item_id, sizeof(r->item_id), "item_%s_%" PRIu64, r->id, ++r->item_count);
    struct buf *out = begin(r, "response.created");
    response_head(r, out, "in_progress");
    buf_add_text(out, ",\"output\":[]}");
    end(r);
    out = begin(r, "response.output_item.added");
    buf_add_format(out, ",\"response_id\":\"resp_%s_%" PRIu64 "\",\"output_index\":0", r->id,
                   r->response_count);
    item_add(out, r->item_id, "assistant", "in_progress", NULL, 0);
    end(r);
    out = part_begin(r, "response.content_part.added");
    buf_add_text(out, ",\"content_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"\"}");
    end(r);
    return REALTIME_ASK;
}

static enum realtime_action response_cancel(struct realtime *r, const json_t *event)
{
    if (!r->running) {
        refuse(r, event, NULL, "response_cancel_not_active", "No response is under way.");
        return REALTIME_NOTHING;
    }
    r->cancelled = true;
    return REALTIME_CANCEL;
}

/* A setting of this response, or else of the session. */
static json_t *setting(const struct realtime *r, const char *name)
{
    json_t *own = json_object_get(r->asked, name);
    return own != NULL && !json_is_null(own) ? own : json_object_get(r->session, name);
}

char *realtime_question(const struct realtime *r, size_t *len)
{
    json_t *messages = json_array();
    json_t *instructions = setting(r, "instructions");
    json_t *limit = setting(r, "max_output_tokens");
    json_t *heat = setting(r, "temperature");
    if (json_string_length(instructions) > 0) {
        json_array_append_new(messages,
                              json_pack("{s:s, s:O}", "role", "system", "content", instructions));
    }
    for (size_t i = 0; i < json_array_size(r->items); i++) {
        const json_t *item = json_array_get(r->items, i);
        json_array_append_new(messages,
                              json_pack("{s:O, s:O}", "role", json_object_get(item, "role"),
                                        "content", json_object_get(item, "text")));
    }
    json_t *body = json_pack("{s:s, s:b, s:o, s:{s:s}}", "model", r->model, "stream", 1, "messages",
                             messages, "weft", "session", r->id);
    if (json_is_integer(limit)) {
        json_object_set(body, "max_tokens", limit);
    }
    if (json_is_number(heat)) {
        json_object_set(body, "temperature", heat);
    }
    char *text = json_write(body);
    json_decref(body);
    *len = text != NULL ? strlen(text) : 0;
    return text;
}

void realtime_text(struct realtime *r, const char *text, size_t len)
{
    size_t before = buf_len(&r->text);
    if (!r->running) {
        return;
    }
    buf_add_held(&r->text, &r->hold, text, len);
    if (buf_len(&r->text) > before) {
        struct buf *out = part_begin(r, "response.output_text.delta");
        buf_add_text(out, ",\"content_index\":0,\"delta\":\"");
        buf_add(out, r->text.data + before, buf_len(&r->text) - before);
        buf_add_text(out, "\"");
        end(r);
    }
}

/* What was said belongs to the conversation from now on. */
static void answer_keep(struct realtime *r)
{
    struct buf quoted = {.data = NULL};
    buf_add_text(&quoted, "\"");
    buf_add(&quoted, r->text.data, buf_len(&r->text));
    buf_add_text(&quoted, "\"");
    json_t *text =
        json_loadb(quoted.data, buf_len(&quoted), JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    buf_deinit(&quoted);
    if (text != NULL && item_fits(r, json_string_length(text))) {
        item_keep(r, r->item_id, "assistant", text);
    } else {
        json_decref(text);
    }
}

/* The last of an answer's events; `status` is the response's. */
static void response_end(struct realtime *r, const char *status, const weft_result_t *result,
                         const struct api_error *error)
{
    const char *item = strcmp(status, "completed") == 0 ? "completed" : "incomplete";
    const char *text = r->text.data != NULL ? r->text.data : "";
    size_t len = buf_len(&r->text);
    struct buf *out = part_begin(r, "response.output_text.done");
    buf_add_text(out, ",\"content_index\":0,\"text\":\"");
    buf_add(out, text, len);
    buf_add_text(out, "\"");
    end(r);
    out = part_begin(r, "response.content_part.done");
    buf_add_text(out, ",\"content_index\":0,\"part\":{\"type\":\"output_text\",\"text\":\"");
    buf_add(out, text, len);
    buf_add_text(out, "\"}");
    end(r);
    out = begin(r, "response.output_item.done");
    buf_add_format(out, ",\"response_id\":\"resp_%s_%" PRIu64 "\",\"output_index\":0", r->id,
                   r->response_count);
    item_add(out, r->item_id, "assistant", item, text, len);
    end(r);
    out = begin(r, "response.done");
    response_head(r, out, status);
    if (error != NULL) {
        buf_add_format(out,
                       ",\"status_details\":{\"type\":\"failed\",\"error\":{\"type\":\"%s\","
                       "\"code\":\"%s\",\"message\":",
                       error->type, error->code);
        buf_add_quoted(out, error->message);
        buf_add_text(out, "}}");
    }
    buf_add_format(out,
                   ",\"output\":[{\"id\":\"%s\",\"type\":\"message\",\"role\":\"assistant\","
                   "\"status\":\"%s\"}]",
                   r->item_id, item);
    if (result != NULL) {
        buf_add_format(out,
                       ",\"usage\":{\"total_tokens\":%u,\"input_tokens\":%u,\"output_tokens\":%u,"
                       "\"input_token_details\":{\"cached_tokens\":%u}},\"weft\":{\"node\":",
                       result->prompt_tokens + result->new_tokens, result->prompt_tokens,
                       result->new_tokens, result->cached_tokens);
        buf_add_quoted(out, result->node);
        buf_add_format(out, ",\"first_token_us\":%" PRIu64 ",\"prefill_us\":%" PRIu64 "}",
                       result->first_token_us, result->prefill_us);
    }
    buf_add_text(out, "}");
    end(r);
}

void realtime_done(struct realtime *r, const weft_result_t *result, const struct api_error *error)
{
    struct api_error failed = {.http_status = 0};
    if (!r->running) {
        return;
    }
    size_t before = buf_len(&r->text);
    buf_add_rest(&r->text, &r->hold);
    if (buf_len(&r->text) > before) {
        struct buf *out = part_begin(r, "response.output_text.delta");
        buf_add_text(out, ",\"content_index\":0,\"delta\":\"");
        buf_add(out, r->text.data + before, buf_len(&r->text) - before);
        buf_add_text(out, "\"");
        end(r);
    }
    if (error == NULL && result->status != 0 && !r->cancelled) {
        error_of_result(&failed, result);
        error = &failed;
    }
    bool whole = error == NULL && result->status == 0;
    response_end(r,
                 error != NULL                          ? "failed"
                 : !whole                               ? "cancelled"
                 : result->finish == WEFT_FINISH_LENGTH ? "incomplete"
                                                        : "completed",
                 error == NULL ? result : NULL, error);
    r->running = false;
    if (buf_len(&r->text) > 0) {
        answer_keep(r);
    }
}

/* ---- events in ---- */

enum realtime_action realtime_event(struct realtime *r, const char *text, size_t len)
{
    json_t *event = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const char *type = json_string_value(json_object_get(event, "type"));
    enum realtime_action action = REALTIME_NOTHING;
    if (type == NULL) {
        refuse(r, NULL, "type", "invalid_value", "An event is a JSON object with a type.");
    } else if (strcmp(type, "session.update") == 0) {
        session_update(r, event);
    } else if (strcmp(type, "conversation.item.create") == 0) {
        item_create(r, event);
    } else if (strcmp(type, "conversation.item.delete") == 0) {
        item_delete(r, event);
    } else if (strcmp(type, "response.create") == 0) {
        action = response_create(r, event);
    } else if (strcmp(type, "response.cancel") == 0) {
        action = response_cancel(r, event);
    } else {
        refuse(r, event, "type", "unsupported_event",
               "This session takes session.update, conversation.item.create and .delete, "
               "response.create and response.cancel.");
    }
    json_decref(event);
    return action;
}
