/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delta.h - reads the JSON that an OpenAI-compatible server sends: one event of a stream, a whole
 * answer where the server does not stream, or an error.
 *
 * Shapes: "Chat completion chunk", "Completion" and "Error" of the OpenAI API reference, and what
 * vLLM, llama.cpp and others make of them: an error as an event, as an object or a bare text;
 * reasoning beside the content; usage in the last chunk or in each. Of several choices only number
 * 0 counts: more are never asked for.
 *
 * The JSON is not trusted: a wrong type is an error, a number out of range too. Threads: none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DELTA_MESSAGE_MAX 200u
#define DELTA_CALLS_MAX   32u /* of one event or whole answer */
#define DELTA_NAME_MAX    64u /* bytes of a tool's name */

enum delta_finish {
    DELTA_GOES_ON,
    DELTA_STOP,
    DELTA_LENGTH,
    DELTA_FILTERED, /* the server's own censor cut it */
    DELTA_BROKEN,   /* the server gave up, or a word that is not known */
};

/* A call of a tool, or a part of one: texts are in `root`. */
struct delta_call {
    uint32_t index;        /* which of the answer's calls */
    const char *name;      /* NULL: told before; letters, digits, _, -, . */
    const char *id;        /* NULL: told before, or none; fit for JSON as it is */
    const char *arguments; /* the next piece of their JSON; NULL = none */
    size_t arguments_len;
};

struct delta {
    const char *text; /* of the answer; in `root`, may hold zero bytes */
    size_t text_len;
    struct delta_call calls[DELTA_CALLS_MAX];
    size_t call_count;
    enum delta_finish finish;
    bool done;  /* [DONE]: the end of the stream */
    bool error; /* `message` says what the server says */
    bool too_long;
    bool has_usage;
    uint32_t prompt_tokens;
    uint32_t completion_tokens;
    uint32_t cached_tokens; /* of the prompt's */
    char message[DELTA_MESSAGE_MAX];
    void *root; /* the JSON that text points into */
};

/* Reads one event or body. Free it with delta_deinit() in any case. Returns 0 or -EBADMSG. */
int delta_parse(struct delta *delta, const char *data, size_t len);
void delta_deinit(struct delta *delta);

/* Reads the body of an answer that is no success; what cannot be read leaves `message` empty. */
void delta_parse_error(struct delta *delta, const char *data, size_t len);
