/* SPDX-License-Identifier: Apache-2.0 */
/* See grammar_disjoint.h. */
#include "kernels/model/grammar_disjoint.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FOLLOW_MAX 16u
#define PART_MAX   256u

unsigned disjoint_type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
        return DISJOINT_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return DISJOINT_BOOLEAN;
    case JSON_INTEGER:
        return DISJOINT_NUMBER | DISJOINT_INTEGER;
    case JSON_REAL:
        return DISJOINT_NUMBER;
    case JSON_STRING:
        return DISJOINT_STRING;
    case JSON_ARRAY:
        return DISJOINT_ARRAY;
    default:
        return DISJOINT_OBJECT;
    }
}

static unsigned type_bit(const char *name)
{
    static const struct {
        const char *name;
        unsigned bit;
    } types[] = {{"null", DISJOINT_NULL},     {"boolean", DISJOINT_BOOLEAN},
                 {"number", DISJOINT_NUMBER}, {"integer", DISJOINT_INTEGER},
                 {"string", DISJOINT_STRING}, {"array", DISJOINT_ARRAY},
                 {"object", DISJOINT_OBJECT}};
    for (size_t i = 0; name && i < sizeof(types) / sizeof(types[0]); i++)
        if (strcmp(name, types[i].name) == 0)
            return types[i].bit;
    return 0;
}

unsigned disjoint_types(const json_t *type)
{
    unsigned bits = 0;
    if (!type)
        return DISJOINT_ANY;
    for (size_t i = 0; i < json_array_size(type); i++)
        bits |= type_bit(json_string_value(json_array_get(type, i)));
    return bits | type_bit(json_string_value(type));
}

/* One part of a pointer: ~1 is a slash, ~0 a tilde. */
static const json_t *member(const json_t *value, const char *part, size_t len)
{
    char name[PART_MAX];
    size_t used = 0;
    if (len >= sizeof(name))
        return NULL;
    for (size_t i = 0; i < len; i++) {
        const bool escaped = part[i] == '~' && i + 1 < len;
        name[used++] = !escaped ? part[i] : part[++i] == '1' ? '/' : '~';
    }
    name[used] = 0;
    if (json_is_array(value)) {
        char *end;
        const unsigned long index = strtoul(name, &end, 10);
        return used && *end == 0 ? json_array_get(value, index) : NULL;
    }
    return json_object_get(value, name);
}

const json_t *disjoint_resolve(const json_t *document, const char *reference)
{
    const json_t *value = document;
    if (!reference || reference[0] != '#')
        return NULL;
    for (const char *at = reference + 1; value && *at;) {
        if (*at != '/')
            return NULL;
        const size_t len = strcspn(++at, "/");
        value = member(value, at, len);
        at += len;
    }
    return value;
}

static const json_t *follow(const json_t *document, const json_t *schema)
{
    for (unsigned i = 0; i < FOLLOW_MAX && schema; i++) {
        const json_t *reference = json_object_get(schema, "$ref");
        const json_t *all = json_object_get(schema, "allOf");
        if (reference)
            schema = disjoint_resolve(document, json_string_value(reference));
        else if (json_array_size(all) == 1)
            schema = json_array_get(all, 0);
        else
            return schema;
    }
    return NULL;
}

/* Integers are numbers here. */
static unsigned types_of(const json_t *schema)
{
    const json_t *values = json_object_get(schema, "enum");
    const json_t *value = json_object_get(schema, "const");
    unsigned bits = 0;
    if (value)
        bits = disjoint_type_of(value);
    else if (json_is_array(values))
        for (size_t i = 0; i < json_array_size(values); i++)
            bits |= disjoint_type_of(json_array_get(values, i));
    else if (!json_object_get(schema, "anyOf") && !json_object_get(schema, "oneOf"))
        bits = disjoint_types(json_object_get(schema, "type"));
    else
        bits = DISJOINT_ANY;
    return bits & DISJOINT_INTEGER ? bits | DISJOINT_NUMBER : bits;
}

static bool has_value(const json_t *schema, const json_t *value)
{
    const json_t *values = json_object_get(schema, "enum");
    const json_t *only = json_object_get(schema, "const");
    if (only)
        return json_equal(only, value);
    for (size_t i = 0; i < json_array_size(values); i++)
        if (json_equal(json_array_get(values, i), value))
            return true;
    return false;
}

/* Both name their values (no numbers: 1 and 1.0 are the same), and none is common. */
static bool values_exclude(const json_t *a, const json_t *b)
{
    const json_t *values = json_object_get(a, "enum");
    const json_t *only = json_object_get(a, "const");
    if ((!only && !json_is_array(values)) ||
        (!json_object_get(b, "const") && !json_is_array(json_object_get(b, "enum"))))
        return false;
    if ((types_of(a) & types_of(b)) & ~(unsigned)(DISJOINT_STRING | DISJOINT_BOOLEAN))
        return false;
    if (only)
        return !has_value(b, only);
    for (size_t i = 0; i < json_array_size(values); i++)
        if (has_value(b, json_array_get(values, i)))
            return false;
    return true;
}

static bool requires(const json_t *schema, const char *name)
{
    const json_t *list = json_object_get(schema, "required");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

bool disjoint_schemas(const json_t *document, const json_t *a, const json_t *b)
{
    const char *name;
    json_t *value;
    a = follow(document, a);
    b = follow(document, b);
    if (!json_is_object(a) || !json_is_object(b))
        return false;
    if ((types_of(a) & types_of(b)) == 0 || values_exclude(a, b))
        return true;
    if ((types_of(a) & types_of(b)) != DISJOINT_OBJECT)
        return false;
    const json_t *others = json_object_get(b, "properties");
    json_object_foreach((json_t *)(uintptr_t)json_object_get(a, "properties"), name, value)
    {
        const json_t *mine = follow(document, value);
        const json_t *other = follow(document, json_object_get(others, name));
        if (other && requires(a, name) && requires(b, name) &&
            ((types_of(mine) & types_of(other)) == 0 || values_exclude(mine, other)))
            return true;
    }
    return false;
}
