/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answer.h - what one HTTP reply of a server amounts to: its text as it comes, and in the end one
 * verdict. relay.h acts on the verdict.
 *
 * An answer is complete only if the server gave a reason why it ended (finish_reason). A stream
 * that ends in any other way is cut, whatever HTTP says of it, and also if it ends in [DONE]:
 * proxies write that behind streams that broke.
 *
 * Calls of tools become text as ChatML's models write them: <tool_call>, one JSON object of name
 * and arguments, </tool_call>. Whoever asked looks for them there. A call that the answer's length
 * cut is not closed.
 *
 * Sans-I/O: status, header fields and bytes in, text out through a function. The bytes are not
 * trusted; memory is the caller's buffer, which bounds one event, one unstreamed answer and one
 * error. Threads: none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/upstream/delta.h"
#include "kernels/upstream/sse.h"

#define ANSWER_BUFFER     (256u << 10) /* bytes; a good size for the caller's buffer */
#define ANSWER_TOTAL_MAX  (64u << 20)  /* bytes of one reply */
#define ANSWER_ERROR_READ 4096u        /* of the body of an error */

enum answer_verdict {
    ANSWER_COMPLETE,
    ANSWER_CUT,         /* ended without a reason, malformed, too long, or the connection broke */
    ANSWER_FAILED,      /* the server says that it failed: 5xx, or an error in the stream */
    ANSWER_BUSY,        /* 429, 503, 529: later */
    ANSWER_DENIED,      /* it lets nobody in, or has no such model: 401, 403, 404, 3xx ... */
    ANSWER_BAD_REQUEST, /* it is the request: 400, 422 */
    ANSWER_TOO_LONG,    /* it is the request's length */
    ANSWER_FILTERED,    /* the server's own censor cut it */
};

enum answer_kind { ANSWER_HEAD, ANSWER_STREAM, ANSWER_WHOLE, ANSWER_ERROR };

/* Takes text; not 0 ends the answer. */
typedef int (*answer_text_fn)(const char *text, size_t len, void *user);

struct answer {
    char *buffer;
    size_t capacity;
    size_t length; /* of a whole answer or an error */
    uint64_t total;
    int http_status;
    enum answer_kind kind;
    struct sse sse;
    enum delta_finish finish;
    bool calling;        /* a call has begun and is not closed */
    bool has_arguments;  /* some of its were there */
    uint32_t call_index; /* which one it is */
    bool spoiled;        /* malformed, or more than is taken */
    bool done;           /* nothing of interest follows */
    bool error;          /* told by an event */
    bool too_long;
    bool has_usage;
    uint32_t prompt_tokens;
    uint32_t completion_tokens;
    uint32_t cached_tokens;
    char message[DELTA_MESSAGE_MAX]; /* what the server says is wrong; "" */
};

/* `buffer` must outlive the answer. */
void answer_init(struct answer *answer, char *buffer, size_t capacity);

/* The head of the reply. `content_type` may be NULL. */
void answer_head(struct answer *answer, int http_status, const char *content_type);

/* Bytes of the body. Returns 0, what text() returned, or -EBADMSG or -EMSGSIZE: it is pointless to
 * read on. */
int answer_data(struct answer *answer, const char *data, size_t len, answer_text_fn text,
                void *user);

/* The reply has ended, properly or (`whole` false) because the connection broke. */
enum answer_verdict answer_end(struct answer *answer, bool whole, answer_text_fn text, void *user);

const char *answer_verdict_name(enum answer_verdict verdict);
