/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tokenizer.h - text to tokens and back: byte-level BPE as GPT-2 introduced it, with the tokens,
 * merges and pre-tokenizer that the model's file names. chat.h builds prompts with it.
 *
 * Encoding: text is cut into pieces by the pre-tokenizer's patterns, each piece is a row of bytes,
 * and the neighbouring pair with the best merge is joined until none is left. Time is
 * O(n log n) in the length of a piece, whatever the text. Bytes that are no UTF-8 are encoded too
 * (as pieces of their own), so any text survives a round trip.
 *
 * Threads: immutable once created; any number of users. Errors: 0 or a negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/model/gguf.h"

#define TOKENIZER_NONE UINT32_MAX

/* Flags of tokenizer_encode(). */
#define TOKENIZER_PARSE_SPECIAL 1u /* "<|im_end|>" in the text becomes that token */

typedef struct tokenizer tokenizer_t;

/* Builds from an open file, which must outlive it. `why` (may be NULL) gets a sentence on failure.
 * Returns 0, -ENOTSUP for another kind of tokenizer, -EINVAL for unsound tables, -ENOMEM. */
int tokenizer_create(tokenizer_t **out, const gguf_t *file, char *why, size_t why_size);

/* NULL is fine. */
void tokenizer_destroy(tokenizer_t *tokenizer);

/* Encodes `len` bytes of text; no token is added at either end. Writes at most `capacity` ids and
 * sets *count. Returns 0, -ENOBUFS if they do not fit (with hardly any work done for texts that
 * never could), -ENOMEM, -EINVAL if the file lacks a token for a byte of the text. */
int tokenizer_encode(const tokenizer_t *tokenizer, const char *text, size_t len, unsigned flags,
                     uint32_t *out, size_t capacity, size_t *count);

/* The bytes of one token: may be part of a UTF-8 character; control tokens have none. Valid as
 * long as the tokenizer. An unknown id has none. */
struct gguf_str tokenizer_token_bytes(const tokenizer_t *tokenizer, uint32_t token);

/* Writes the bytes of the tokens one after the other. Returns the bytes needed; what does not fit
 * into `capacity` is left out. */
size_t tokenizer_decode(const tokenizer_t *tokenizer, const uint32_t *tokens, size_t count,
                        char *out, size_t capacity);

/* Id of a token by its name in the file ("<|im_start|>"), TOKENIZER_NONE if there is none or it is
 * no control or user-defined token. */
uint32_t tokenizer_special(const tokenizer_t *tokenizer, const char *name);

uint32_t tokenizer_vocab(const tokenizer_t *tokenizer);

/* The token to put before a plain prompt, TOKENIZER_NONE if the model wants none. */
uint32_t tokenizer_bos(const tokenizer_t *tokenizer);

/* Does this token end an answer? End of text, end of turn, as the file says. */
bool tokenizer_is_stop(const tokenizer_t *tokenizer, uint32_t token);
