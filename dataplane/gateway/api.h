/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.h - the body and the headers of an HTTP request become what the SDK asks. Pure: bytes in,
 * a struct out; no HTTP library, no clock, no randomness. place.c has Weft's own constraints.
 *
 * Fields that are not known are tolerated, as OpenAI's clients expect; those that are known and
 * cannot be honoured are an error, never ignored. tools.c has formats, tools and their messages.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/client.h>
#include <weft/wire.h>

#include "dataplane/gateway/error.h"

#define API_CHOICES_MAX 16u   /* n times the number of prompts */
#define API_INPUTS_MAX  2048u /* of embeddings */

#define API_DOWNGRADES_MAX 4u /* models that may answer in place of the one asked for */

enum api_kind { API_CHAT, API_COMPLETION, API_RESPONSE, API_EMBEDDING };
#define API_KINDS 4u

struct api_text {
    const char *text; /* `len` bytes, UTF-8 */
    size_t len;
};

/* Zero-fill it before use. Texts point into `root` and `kept` until api_deinit(). */
struct api_request {
    enum api_kind kind;
    json_t *root; /* the body */
    json_t *kept; /* texts that were put together */
    bool stream;
    bool include_usage;
    bool echo;                /* completions: the prompt comes first */
    bool has_seed;            /* else the caller draws one */
    bool has_budget;          /* by whichever name */
    uint32_t n;               /* answers to each prompt, 1.. */
    uint32_t prompt_count;    /* 1 for chats */
    struct api_text *prompts; /* heap; or NULL */
    weft_message_t *messages; /* heap; or NULL */
    size_t message_count;
    uint32_t tpot_ms; /* wanted between tokens; 0 = not said */
    bool base64;      /* embeddings: not as numbers */
    bool tools;       /* are offered: the answer may call them, so far as it is a chat's */
    bool one_call;    /* at a time */
    bool logprobs;    /* as query.logprobs says, which counts the token's own */
    char tags[256];
    char jurisdiction[3];
    char downgrade[256]; /* the names below, one behind the other */
    const char *downgrades[API_DOWNGRADES_MAX];
    uint32_t downgrade_count;
    char cascade[WEFT_MODEL_NAME_MAX]; /* the draft's model; "" = none */
    weft_query_more_t more;
    const char *stops[WEFT_STOPS_MAX];
    weft_query_t query; /* all but the prompt; max_tokens 0 = not given */
};

/* Reads a body of `len` bytes. Returns false with `error` set if it is no such request. Call
 * api_deinit() either way. */
bool api_read(struct api_request *r, enum api_kind kind, const char *body, size_t len,
              struct api_error *error);
void api_deinit(struct api_request *r);

/* Takes a header, if it is one of Weft's (any case); others are none of its business. After
 * api_read(): headers win. False: it cannot be meant so. */
bool api_header(struct api_request *r, const char *name, const char *value,
                struct api_error *error);
/* After all headers: what must hold between fields. */
bool api_check(const struct api_request *r, struct api_error *error);

/* Of requests that only the model asked for can answer. */
bool api_one_model(const struct api_request *r, struct api_error *error);

/* The query of answer `choice`, 0..n*prompt_count-1; valid as long as `r`. */
weft_query_t api_query(const struct api_request *r, uint32_t choice);
/* The request that the draft of a cascade answers; valid as long as `r`, and not to be ended. */
struct api_request api_draft(const struct api_request *r);

/* tools.c: what the answer must be; tools, before the messages, of which they are the first then;
 * an assistant's message with calls, whose text becomes `text`. False: no memory or nonsense, with
 * `error` set. */
bool api_format(struct api_request *r, struct api_error *error);
bool api_tools(struct api_request *r, struct api_error *error);
bool api_calls(struct api_request *r, const json_t *message, struct api_text *text,
               struct api_error *error);
/* Calls that stand in a response's input from `at` on become one message. Returns how many; 0: none
 * does, or `error` is set. */
size_t api_call_items(struct api_request *r, const json_t *input, size_t at,
                      struct api_error *error);
/* results.c: puts the results of tools in a chat's messages, or a response's items, into the order
 * of the calls that they belong to by their ids; a call that has none, or one with a name, is given
 * API_RESULT_KEY, false or the name. False: no memory. */
#define API_RESULT_KEY "result"
bool api_results_order(json_t *list, bool chat);
/* The id of a call if it can go along, else NULL. */
const json_t *api_call_id(const json_t *value);
/* Keeps a value's JSON until api_deinit(). */
bool api_keep_json(struct api_request *r, const json_t *value, struct api_text *out);
/* Is there a tool of that name? */
bool api_has_tool(const struct api_request *r, const char *name);

/* place.c: the object `weft` of a body. */
bool api_places(struct api_request *r, const json_t *weft, struct api_error *error);
