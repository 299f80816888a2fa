/* SPDX-License-Identifier: Apache-2.0 */
/*
 * grammar.h - what an answer may be, byte by byte: compiled from a JSON Schema, from a list of
 * tools, or for any JSON object. A grammar is a pushdown automaton; its state is plain data, so
 * that a state can be copied, tried and thrown away, and follows from the bytes of the answer
 * alone: an answer that is resumed elsewhere from its tokens goes on under the same rules.
 * grammar_mask.h lays it over a model's vocabulary.
 *
 * Everything that comes out is JSON (RFC 8259) of sound UTF-8 and meets the schema. The reverse
 * does not hold, on purpose: keys come in the schema's order, between tokens of JSON stand no
 * spaces, one, or a new line with up to 20, numbers have 15 digits before and behind the point and
 * 2 of exponent, properties that the schema only allows (additionalProperties) are left out where
 * it names others, nesting ends at GRAMMAR_DEPTH_MAX, and of alternatives that begin alike
 * GRAMMAR_THREADS_MAX are followed.
 *
 * Keywords (JSON Schema 2020-12; others are refused by name): type, enum, const, properties,
 * required, additionalProperties, items, minItems, maxItems, minLength, maxLength, minimum,
 * maximum, exclusiveMinimum, exclusiveMaximum (such numbers have no exponent, see grammar_range.h),
 * anyOf, oneOf (of alternatives that visibly exclude each other), allOf (of one), $ref (within the
 * document), and annotations, of which `format` is one. Of a tool that does not say "strict": true
 * other keywords are passed over: its arguments need not meet them.
 *
 * From every state that can be reached there is a way to the end: schemas without one are refused,
 * and grammar_rest() says how long the shortest is.
 *
 * Threads: a grammar is immutable once compiled; a state belongs to one answer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRAMMAR_TEXT_MAX    262144u /* bytes of a schema, or of a list of tools */
#define GRAMMAR_NODES_MAX   8192u
#define GRAMMAR_DEPTH_MAX   32u /* values within values, the answer itself included */
#define GRAMMAR_THREADS_MAX 8u
#define GRAMMAR_KEYS_MAX    64u /* properties of one object */

enum grammar_kind {
    GRAMMAR_OBJECT = 1, /* any JSON object */
    GRAMMAR_SCHEMA = 2, /* text: a JSON Schema */
    GRAMMAR_CALL = 3,   /* text: tools as OpenAI's API lists them; the answer is a call of one */
};

struct grammar_spec {
    enum grammar_kind kind;
    const char *text;
    size_t len;
    const char *tool;      /* CALL: this one only; NULL or "" = any */
    const char *arguments; /* CALL: the key of the arguments: {"name": "f", KEY: {...}} */
};

struct grammar;

/* One value that has begun. */
struct grammar_frame {
    uint16_t node;
    uint8_t phase;
    uint8_t space;  /* how much of it stands here already */
    uint16_t at;    /* bytes of a key or a literal */
    uint16_t count; /* characters, digits, items, or the next property */
    union {
        uint64_t keys; /* that may still be meant: a bit each */
        struct {
            uint32_t first;
            uint32_t end;
        } range; /* the same of literals, which are sorted */
    };
};

struct grammar_thread {
    uint32_t depth;
    struct grammar_frame frames[GRAMMAR_DEPTH_MAX];
};

/* What may be going on; only the first `threads` and their first `depth` frames are set. */
struct grammar_state {
    uint32_t threads;
    struct grammar_thread thread[GRAMMAR_THREADS_MAX];
};

/* Compiles. Returns 0, -EINVAL with a sentence in `why` (may be NULL) that names what is not
 * supported or cannot be met, -E2BIG (with a sentence, too) beyond the limits above, -ENOMEM. Heap;
 * time and memory are proportional to the text. */
int grammar_compile(struct grammar **out, const struct grammar_spec *spec, char *why,
                    size_t why_size);
/* NULL is fine. */
void grammar_destroy(struct grammar *g);

void grammar_begin(const struct grammar *g, struct grammar_state *state);

/* Takes a byte. False: it is not allowed here; the state is of no use then. */
bool grammar_step(const struct grammar *g, struct grammar_state *state, uint8_t byte);

/* May the answer end here? Must it? */
bool grammar_may_end(const struct grammar *g, const struct grammar_state *state);
bool grammar_must_end(const struct grammar_state *state);

/* Bytes of a short way to the end, 0 where it may end. There is always a byte that makes it less.
 */
uint32_t grammar_rest(const struct grammar *g, const struct grammar_state *state);

/* Copies what is set. */
void grammar_copy(struct grammar_state *to, const struct grammar_state *from);
bool grammar_equal(const struct grammar_state *a, const struct grammar_state *b);

/* If some way goes on inside a string that may get at least so many more characters, whatever they
 * are: that number, UINT32_MAX for no limit; else 0. */
uint32_t grammar_free_text(const struct grammar *g, const struct grammar_state *state);
