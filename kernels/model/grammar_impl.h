/* SPDX-License-Identifier: Apache-2.0 */
/* grammar_impl.h - the inside of a grammar: grammar_schema.c makes it, grammar.c goes through it.
 */
#pragma once

#include "kernels/model/grammar.h"
#include "kernels/model/grammar_range.h"

#define NODE_NONE  UINT16_MAX
#define NEED_NEVER UINT16_MAX /* no value of bounded depth */
#define COST_MAX   (1u << 28)
#define NO_LIMIT   UINT16_MAX /* of items, of characters */

enum node_kind {
    NODE_CHOICE,   /* entries: alternatives, none of them a choice */
    NODE_STRING,   /* min, max: characters */
    NODE_NUMBER,   /* integer; ranged: range */
    NODE_ARRAY,    /* child; min, max: items */
    NODE_OBJECT,   /* entries: keys with their quotes, in order, and values */
    NODE_MAP,      /* child: of any key */
    NODE_LITERALS, /* entries: whole texts, sorted */
    NODE_CALL,     /* entries: texts up to the arguments, sorted, and arguments; then a brace */
};

struct node {
    uint8_t kind;
    bool integer;
    bool ranged;
    uint16_t min;
    uint16_t max;
    uint16_t child;
    uint16_t need; /* frames of the flattest value; NEED_NEVER = there is none */
    uint32_t cost; /* bytes of the shortest of the flattest values */
    uint32_t first;
    uint32_t count; /* entries */
    struct grammar_range range;
};

struct entry {
    uint32_t text; /* in grammar.bytes */
    uint16_t len;
    uint16_t node;
    bool required;
    uint32_t rest; /* OBJECT: bytes of this and all later required ones, each with its comma */
};

struct grammar {
    struct node *nodes;
    struct entry *entries;
    uint8_t *bytes;
    uint32_t node_count;
    uint32_t entry_count;
    uint32_t byte_count;
    uint16_t root;
    uint16_t key; /* a string without limits: keys of maps */
};

/* grammar_schema.c */
static inline const struct entry *entry_at(const struct grammar *g, const struct node *n,
                                           uint32_t i)
{
    return &g->entries[n->first + i];
}

static inline uint32_t cost_add(uint32_t a, uint32_t b)
{
    return a + b < COST_MAX ? a + b : COST_MAX;
}

/* Bytes of the required properties from index `next` on. */
static inline uint32_t rest_of(const struct grammar *g, const struct node *n, uint32_t next)
{
    return next < n->count ? entry_at(g, n, next)->rest : 0;
}
