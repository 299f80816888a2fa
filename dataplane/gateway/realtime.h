/* SPDX-License-Identifier: Apache-2.0 */
/*
 * realtime.h - a conversation over a WebSocket: events in, events out, after OpenAI's Realtime API,
 * text only. Pure: no socket, no mesh; realtime_io.c has these.
 *
 *   session.update, conversation.item.create, conversation.item.delete, response.create,
 *   response.cancel
 *     -> session.created, session.updated, conversation.item.added, conversation.item.deleted,
 *        response.created, response.output_item.added, response.content_part.added,
 *        response.output_text.delta and .done, response.content_part.done,
 *        response.output_item.done, response.done, error
 *
 * All of a conversation's questions carry one session key, by which the mesh may know them for one
 * conversation. A response that was cancelled or failed stays in the conversation as far
 * as it came. What cannot be honoured (audio, tools) is an error event, never ignored; the session
 * goes on after any error.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "dataplane/gateway/buf.h"
#include "dataplane/gateway/error.h"

#define REALTIME_MESSAGE_MAX (1u << 20) /* bytes of an event */
#define REALTIME_ITEMS_MAX   1024u
#define REALTIME_TEXT_MAX    (8u << 20) /* bytes of a conversation */
#define REALTIME_MODEL_MAX   64u

/* What the caller has to do after an event. */
enum realtime_action {
    REALTIME_NOTHING,
    REALTIME_ASK,    /* realtime_question() has what to ask; then realtime_asked() or _done() */
    REALTIME_CANCEL, /* give up the answer under way; realtime_done() tells of its end */
};

struct realtime {
    struct buf *out; /* frames to the client */
    char id[32];
    char model[REALTIME_MODEL_MAX];
    json_t *session; /* what session.update has set: instructions, temperature, max_output_tokens */
    json_t *items;   /* the conversation: {id, role, text, status} */
    size_t text_bytes;
    uint64_t events; /* counters of ids */
    uint64_t item_count;
    uint64_t response_count;
    /* the response under way */
    bool running;
    bool cancelled;
    json_t *asked; /* its own instructions and limits; may be NULL */
    char item_id[64];
    struct buf text; /* of it, as the inside of a JSON string */
    struct utf8_hold hold;
    struct buf event; /* being made */
};

/* Says session.created. `id` is copied. False: no memory. */
bool realtime_init(struct realtime *r, const char *id, const char *model, struct buf *out);
void realtime_deinit(struct realtime *r);

/* One event of the client's. */
enum realtime_action realtime_event(struct realtime *r, const char *text, size_t len);

/* The chat to ask for, as api_read() takes it: a new string, `*len` bytes; NULL without memory. */
char *realtime_question(const struct realtime *r, size_t *len);

/* The answer's text as it comes, and its end; `error` NULL: it was not refused before it began. */
void realtime_text(struct realtime *r, const char *text, size_t len);
void realtime_done(struct realtime *r, const weft_result_t *result, const struct api_error *error);
