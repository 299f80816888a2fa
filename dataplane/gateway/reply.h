/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.h - from the SDK's events to the bytes of a response body: one JSON object, or a stream of
 * server-sent events as OpenAI's clients expect them. Pure: no HTTP library, no clock, no socket.
 *
 * A reply has one or several answers (choices), each with its text or vector and its end. Nothing
 * goes out before it is known that there is an answer at all, so that a refusal is still an HTTP
 * error: the caller sends the head when `head` is set. After the head, a failure is an event of its
 * own and the stream ends without its mark of completeness ([DONE]): a cut answer never looks
 * whole.
 *
 * reply_format.c has what differs between the APIs, response.c the one that differs most.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "dataplane/gateway/api.h"
#include "dataplane/gateway/buf.h"
#include "dataplane/gateway/calls.h"
#include "dataplane/gateway/error.h"

/* Of tokens whose text has not gone out yet: each list as the inside of a JSON array. */
struct reply_logprobs {
    struct buf tokens; /* chats: objects; completions: texts */
    struct buf values; /* completions only, as the others below */
    struct buf tops;
    struct buf offsets;
    uint64_t at; /* characters of all tokens so far */
};

struct reply_choice {
    struct buf text; /* whole answers, and the Responses API: all of it, as the inside of JSON */
    struct utf8_hold hold;
    struct reply_logprobs logprobs;
    struct calls calls; /* of tools; where they are offered */
    size_t told;        /* of those, as events */
    bool begun;         /* its first event has gone out */
    bool done;
    const char *finish; /* OpenAI's word */
    weft_result_t result;
};

struct reply;
struct reply_format {
    const char *object;       /* of the whole answer */
    const char *chunk_object; /* of an event */
    /* Events of a stream, into `out`. `event` texts are what buf_add_held() takes. */
    void (*begin)(struct reply *r, uint32_t choice);
    void (*text)(struct reply *r, uint32_t choice, const char *text, size_t len);
    /* A call of a tool, by its number in the answer; NULL where there are none. */
    void (*call)(struct reply *r, uint32_t choice, size_t index);
    void (*finish)(struct reply *r, uint32_t choice);
    void (*end)(struct reply *r);
    /* The whole answer as one object. */
    void (*whole)(struct reply *r);
};

struct reply {
    const struct reply_format *format;
    const struct api_request *request; /* not owned; outlives this */
    char id[64];
    uint64_t created_s; /* Unix time */
    char prefix[640];   /* of each event */
    size_t prefix_len;
    uint32_t count; /* answers */
    uint32_t done;
    bool head;  /* the status line may go out: 200, or error.http_status */
    bool ended; /* nothing follows what is in `out` */
    bool failed;
    uint64_t sequence;   /* of the Responses API's events */
    bool message;        /* there: the message has begun ... */
    uint32_t message_at; /* ... behind so many calls */
    struct api_error error;
    struct buf out;
    struct reply_choice *choices; /* heap, `count` */
};

/* `id` without its prefix. The request has been read and checked. False: no memory. */
bool reply_init(struct reply *r, const struct api_request *request, const char *id,
                uint64_t created_s);
void reply_deinit(struct reply *r);
/* Forgets what has come, before any of it was told; the request may name another model now. */
void reply_restart(struct reply *r);

/* A piece of an answer, and the log probabilities of its token if there are any (`count` of them,
 * its own first); nothing once the reply has failed. */
void reply_text(struct reply *r, uint32_t choice, const char *text, size_t len,
                const weft_logprob_t *logprobs, size_t count);
/* The vector of an embedding, before its end. */
void reply_vector(struct reply *r, uint32_t choice, const float *vector, size_t count);
/* The end of an answer. One that failed fails all: the caller cancels the others. */
void reply_done(struct reply *r, uint32_t choice, const weft_result_t *result);
/* It ends here, for that reason. */
void reply_fail(struct reply *r, const struct api_error *error);

/* The answer whose account stands for all: the last to end. */
const weft_result_t *reply_account(const struct reply *r);

/* "served by frankfurt (tier 3, cpu) in 212 ms: net 1.2, queue 0.1, prefill 30.2, decode 180.1" */
void reply_served(const weft_result_t *result, char *out, size_t size);

/* ---- for the formats ---- */
struct reply_usage {
    uint64_t prompt_tokens;
    uint64_t cached_tokens;
    uint64_t new_tokens;
};
struct reply_usage reply_usage(const struct reply *r);

/* reply_logprobs.c: keeps those of a token; adds `"logprobs":...` of what is kept, which is
 * forgotten then; is anything kept? */
void reply_logprobs_keep(struct reply *r, uint32_t choice, const weft_logprob_t *list,
                         size_t count);
void reply_logprobs_add(struct reply *r, uint32_t choice);
bool reply_logprobs_kept(const struct reply *r, uint32_t choice);
void reply_logprobs_deinit(struct reply_logprobs *l);

extern const struct reply_format reply_chat;       /* reply_format.c */
extern const struct reply_format reply_completion; /* reply_format.c */
extern const struct reply_format reply_response;   /* response.c */
extern const struct reply_format reply_embedding;  /* reply_vector.c */
