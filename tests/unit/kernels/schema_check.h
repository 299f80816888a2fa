/* SPDX-License-Identifier: Apache-2.0 */
/* schema_check.h - the oracle for kernels/model/grammar.h: does a value meet a schema? Written from
 * JSON Schema 2020-12 for the keywords that grammars know, on parsed values, so that it shares
 * nothing with the automaton. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/model/grammar.h"

bool schema_check(const json_t *document, const json_t *schema, const json_t *value);

/* Walks through a grammar by random bytes (`random` gives them) to an end: at most `most` of its
 * own choice, then the shortest way. Checks on each step that there is a way, that it gets shorter,
 * and that a state made again from the text is the same. Writes the text. Returns its length, or
 * SIZE_MAX with a sentence in `why` where the grammar breaks a promise. */
size_t grammar_walk(const struct grammar *g, uint8_t (*random)(void *user), void *user, size_t most,
                    char *out, size_t capacity, const char **why);
