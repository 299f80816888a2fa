/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat.h - messages to a prompt the way the model was taught. The family is recognised from the
 * template in the model's file; the template itself (a Jinja program) is not run. Uses tokenizer.h.
 *
 * Family ChatML: <|im_start|>ROLE\nTEXT<|im_end|>\n for each message, then the beginning of the
 * assistant's. If the template puts a system prompt of its own before a chat that has none, so does
 * this (Qwen2.5). If it has a thinking switch (Qwen3), earlier answers lose their thoughts, and
 * `no_thinking` begins the answer with empty ones.
 *
 * Family Llama 3: <|begin_of_text|>, then
 * <|start_header_id|>ROLE<|end_header_id|>\n\nTEXT<|eot_id|> for each message, its text trimmed;
 * from 3.1 on two lines with dates before the system prompt.
 *
 * What users write never becomes a special token.
 *
 * Threads: immutable once made. Errors: 0 or a negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/model/gguf.h"
#include "kernels/model/tokenizer.h"

/* Same numbers as WEFT_ROLE_* of weft/wire.h. */
enum chat_role {
    CHAT_SYSTEM = 1,
    CHAT_USER = 2,
    CHAT_ASSISTANT = 3,
    CHAT_TOOL = 4, /* Llama 3 only, after chat_tools.h, which takes the others */
    CHAT_CALLS = 5,
    CHAT_TOOLS = 6,
};

struct chat_message {
    uint32_t role; /* enum chat_role */
    const char *text;
    size_t len;
};

enum chat_family { CHAT_CHATML, CHAT_LLAMA3 };

/* Plain data; the file and the tokenizer must outlive it. */
struct chat {
    const tokenizer_t *tokenizer;
    enum chat_family family;
    uint32_t begin;         /* <|im_start|>, <|start_header_id|> */
    uint32_t end;           /* <|im_end|>, <|eot_id|> */
    uint32_t first;         /* Llama 3: <|begin_of_text|> */
    uint32_t headed;        /* Llama 3: <|end_header_id|> */
    bool has_dates;         /* Llama 3.1 */
    bool has_tools;         /* Llama 3: it says so before the dates */
    bool must_call;         /* the caller's to set: ChatML: the answer is inside of a call */
    struct gguf_str system; /* ChatML: default system prompt, len 0 without one */
    bool can_think;         /* ChatML: the template has the switch */
    bool no_thinking;       /* the caller's to set; false is the templates' default */
    uint32_t think;         /* <think> */
    uint32_t think_end;     /* </think> */
};

/* Recognises the file's template. Returns 0, -ENOENT if the file has none, -ENOTSUP with a sentence
 * in `why` (may be NULL) for a family not known here. */
int chat_init(struct chat *chat, const gguf_t *file, const tokenizer_t *tokenizer, char *why,
              size_t why_size);

/* Writes the prompt's tokens. Returns as tokenizer_encode(), and -EINVAL for no messages or an
 * unknown role. */
int chat_encode(const struct chat *chat, const struct chat_message *messages, size_t message_count,
                uint32_t *out, size_t capacity, size_t *count);
