/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chat.h - messages to a prompt the way the model was taught. The family is recognised from the
 * template in the model's file; the template itself (a Jinja program) is not run. Uses tokenizer.h.
 *
 * Family ChatML: <|im_start|>ROLE\nTEXT<|im_end|>\n for each message, then the beginning of the
 * assistant's. If the template puts a system prompt of its own before a chat that has none, so does
 * this. What users write never becomes a special token.
 *
 * Threads: immutable once made. Errors: 0 or a negative errno.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/model/gguf.h"
#include "kernels/model/tokenizer.h"

/* Same numbers as WEFT_ROLE_* of weft/wire.h. */
enum chat_role { CHAT_SYSTEM = 1, CHAT_USER = 2, CHAT_ASSISTANT = 3 };

struct chat_message {
    uint32_t role; /* enum chat_role */
    const char *text;
    size_t len;
};

/* Plain data; the file and the tokenizer must outlive it. */
struct chat {
    const tokenizer_t *tokenizer;
    uint32_t begin;         /* <|im_start|> */
    uint32_t end;           /* <|im_end|> */
    struct gguf_str system; /* default system prompt, len 0 without one */
};

/* Recognises the file's template. Returns 0, -ENOENT if the file has none, -ENOTSUP with a sentence
 * in `why` (may be NULL) for a family not known here. */
int chat_init(struct chat *chat, const gguf_t *file, const tokenizer_t *tokenizer, char *why,
              size_t why_size);

/* Writes the prompt's tokens. Returns as tokenizer_encode(), and -EINVAL for no messages or an
 * unknown role. */
int chat_encode(const struct chat *chat, const struct chat_message *messages, size_t message_count,
                uint32_t *out, size_t capacity, size_t *count);
