/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grammar_mask.h - a grammar over a vocabulary: which tokens may come next. The tokens' bytes lie
 * in a trie that is walked with the grammar's state, so that what cannot go on is left out with all
 * that begins alike. Inside strings, where nearly every token may come, those of ordinary text are
 * one prepared mask, and only the others (with quotes, escapes, parts of characters) are walked.
 *
 * A mask is kept with its state: most tokens of a string come from the same one. What a walk costs
 * with 49,152 tokens is in README.md.
 *
 * Threads: a vocabulary is immutable; masks belong to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/model/grammar.h"
#include "kernels/model/tokenizer.h"

#define GRAMMAR_TOKEN_MAX 64u /* bytes; longer tokens never come where a grammar holds */

struct grammar_vocab;
struct grammar_masks;

/* Heap. Returns 0, -ENOMEM, or -ENOTSUP for a tokenizer that lacks a token for a byte of ASCII that
 * can be seen: a grammar could lead where nothing goes on. The tokenizer is not needed afterwards.
 */
int grammar_vocab_create(struct grammar_vocab **out, const tokenizer_t *tokenizer);
void grammar_vocab_destroy(struct grammar_vocab *vocab);

/* Scratch and what is remembered; heap. The vocabulary must outlive it. */
int grammar_masks_create(struct grammar_masks **out, const struct grammar_vocab *vocab);
void grammar_masks_destroy(struct grammar_masks *masks);

/* Takes a token. False: it is not allowed here, and the state is of no use any more. */
bool grammar_take(const struct grammar *g, const struct grammar_vocab *vocab,
                  struct grammar_state *state, uint32_t token);

/* The tokens that may come next, a bit each, so that the answer can still be ended within `left`
 * tokens, this one included; if that is not possible any more, those that bring the end nearer.
 * Tokens that end answers are there if this one may end. Valid until the next call. `id` is the
 * grammar's: another for each, never 0. */
const uint32_t *grammar_mask(struct grammar_masks *masks, const struct grammar *g, uint64_t id,
                             const struct grammar_state *state, uint32_t left);
