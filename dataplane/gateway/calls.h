/* SPDX-License-Identifier: Apache-2.0 */
/*
 * calls.h - finds calls of tools in the text of an answer, as it comes: in <tool_call> and
 * </tool_call>, or all of the answer as one JSON object, {"name": ..., "arguments" or "parameters":
 * {...}}, with or without an "id". What only looks like a call (no JSON, a tool that nobody
 * offered) is text and comes out as such. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "dataplane/gateway/api.h"
#include "dataplane/gateway/buf.h"

struct calls {
    struct buf held; /* what may be, or is, a call */
    bool text_seen;  /* something else than space has come, so that it is no object as a whole */
    size_t begin_at; /* of `held`: no mark of a call begins before it ... */
    size_t end_at;   /* ... nor, if one begins there, does its end */
    json_t *list;    /* [{"name": ..., "arguments": text, "id": if it has one}]; NULL: none */
};

/* Zero-fill it first. */
void calls_deinit(struct calls *c);

/* Takes a piece of the answer. Returns what is certain to be text now, to be taken from the front
 * of c->held with calls_drop(); complete calls are in the list. What is behind that text has not
 * been looked at: again without a piece, until it returns 0. */
size_t calls_feed(struct calls *c, const struct api_request *request, const char *text, size_t len);
/* The answer is over. */
size_t calls_end(struct calls *c, const struct api_request *request);
void calls_drop(struct calls *c, size_t len);

static inline size_t calls_count(const struct calls *c)
{
    return json_array_size(c->list);
}
