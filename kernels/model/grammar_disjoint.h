/* SPDX-License-Identifier: Apache-2.0 */
/* grammar_disjoint.h - do two schemas visibly exclude each other, so that `oneOf` of them is the
 * same as `anyOf`? By their types, by their constants, or by a property that both require.
 * Conservative: false where it cannot be seen. */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/* Types as bits; integers are numbers here. */
enum disjoint_type {
    DISJOINT_NULL = 1,
    DISJOINT_BOOLEAN = 2,
    DISJOINT_NUMBER = 4,
    DISJOINT_INTEGER = 8, /* set together with NUMBER for values, alone for types */
    DISJOINT_STRING = 16,
    DISJOINT_ARRAY = 32,
    DISJOINT_OBJECT = 64,
    DISJOINT_ANY = 127,
};

/* Of a value: the types it meets. Of a schema's `type`: those it allows, all without one. */
unsigned disjoint_type_of(const json_t *value);
unsigned disjoint_types(const json_t *type);

/* What a `$ref` means: "#" and a JSON pointer (RFC 6901), or NULL. */
const json_t *disjoint_resolve(const json_t *document, const char *reference);

bool disjoint_schemas(const json_t *document, const json_t *a, const json_t *b);
