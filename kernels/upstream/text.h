/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - pieces of text as the tokens that a Weft answer consists of, and back.
 *
 * An OpenAI-compatible server sends text, Weft's streams are tokens: clients keep the ids they were
 * given, and who goes on with a cut answer gets nothing but them. So the ids have to lead back to
 * the text, in another process too. With a vocabulary (a GGUF file, at best the model's own) pieces
 * are encoded with it, and the text of a cut answer is what the ids decode to; whoever has the same
 * vocabulary can go on, also a weft-worker with that model. Without one each piece is numbered with
 * the mark TEXT_MARK on it, which no vocabulary reaches: nobody can go on behind such an answer,
 * everybody sees that, and the client is told that its answer is incomplete.
 *
 * A server may report more tokens than it sent pieces. The rest is made up for with empty ones
 * (TEXT_EMPTY), so that the client's count is the server's.
 *
 * Threads: a struct text is immutable once open.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEXT_MARK  0x80000000u
#define TEXT_EMPTY UINT32_MAX

struct gguf;
struct tokenizer;

struct text {
    struct gguf *file;
    struct tokenizer *tokenizer; /* NULL: no vocabulary */
};

/* Gives one token out; not 0 stops. */
typedef int (*text_emit_fn)(uint32_t token, const char *bytes, size_t len, void *user);

/* `path` NULL: no vocabulary. `why` gets a sentence on failure. Returns 0 or a negative errno. */
int text_open(struct text *text, const char *path, char *why, size_t why_size);
void text_close(struct text *text);

/* Gives a piece of text out as tokens; *count is how many came before and is moved on. Returns what
 * emit() returned, or 0. */
int text_tokens(const struct text *text, const char *bytes, size_t len, uint32_t *count,
                text_emit_fn emit, void *user);

/* The text of tokens. Heap, zero-terminated, *len bytes; free() it. Of these *begun at the end,
 * three at most, are the beginning of a character. NULL if one of the tokens leads to no text, if
 * the rest is no UTF-8, or if there is no memory. */
char *text_of(const struct text *text, const uint32_t *tokens, size_t count, size_t *len,
              size_t *begun);
