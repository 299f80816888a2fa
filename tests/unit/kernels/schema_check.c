/* SPDX-License-Identifier: Apache-2.0 */
/* See schema_check.h. */
#include "tests/unit/kernels/schema_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool has_type(const json_t *value, const char *type)
{
    switch (json_typeof(value)) {
    case JSON_NULL:
        return strcmp(type, "null") == 0;
    case JSON_TRUE:
    case JSON_FALSE:
        return strcmp(type, "boolean") == 0;
    case JSON_INTEGER:
        return strcmp(type, "integer") == 0 || strcmp(type, "number") == 0;
    case JSON_REAL:
        return strcmp(type, "number") == 0 ||
               (strcmp(type, "integer") == 0 &&
                rint(json_real_value(value)) == json_real_value(value));
    case JSON_STRING:
        return strcmp(type, "string") == 0;
    case JSON_ARRAY:
        return strcmp(type, "array") == 0;
    default:
        return strcmp(type, "object") == 0;
    }
}

static bool check_type(const json_t *type, const json_t *value)
{
    bool found = json_is_string(type) && has_type(value, json_string_value(type));
    for (size_t i = 0; i < json_array_size(type); i++)
        found = found || has_type(value, json_string_value(json_array_get(type, i)));
    return type == NULL || found;
}

/* ~1 is a slash, ~0 a tilde. */
static void unescape(char *part)
{
    for (char *at = part; (at = strchr(at, '~')) != NULL; at++) {
        *at = at[1] == '1' ? '/' : '~';
        memmove(at + 1, at + 2, strlen(at + 2) + 1);
    }
}

static const json_t *pointed(const json_t *document, const char *reference)
{
    char text[8192];
    const json_t *at = document;
    char *save = NULL;
    strncpy(text, reference + 1, sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    for (char *part = strtok_r(text, "/", &save); part && at; part = strtok_r(NULL, "/", &save)) {
        unescape(part);
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(part)) : json_object_get(at, part);
    }
    return at;
}

static size_t count_matches(const json_t *document, const json_t *list, const json_t *value)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(list); i++)
        count += schema_check(document, json_array_get(list, i), value);
    return count;
}

static bool check_values(const json_t *schema, const json_t *value)
{
    const json_t *only = json_object_get(schema, "const");
    const json_t *list = json_object_get(schema, "enum");
    bool found = list == NULL;
    for (size_t i = 0; i < json_array_size(list); i++)
        found = found || json_equal(json_array_get(list, i), value);
    return found && (only == NULL || json_equal(only, value));
}

static bool check_object(const json_t *document, const json_t *schema, const json_t *value)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *additional = json_object_get(schema, "additionalProperties");
    const json_t *required = json_object_get(schema, "required");
    const char *key;
    json_t *member;
    for (size_t i = 0; i < json_array_size(required); i++)
        if (!json_object_get(value, json_string_value(json_array_get(required, i))))
            return false;
    json_object_foreach((json_t *)(uintptr_t)value, key, member)
    {
        const json_t *own = json_object_get(properties, key);
        const json_t *rule = own ? own : additional;
        if (rule && !schema_check(document, rule, member))
            return false;
    }
    return true;
}

static bool in_range(const json_t *schema, const char *least, const char *most, size_t count)
{
    const json_t *max = json_object_get(schema, most);
    return (json_int_t)count >= json_integer_value(json_object_get(schema, least)) &&
           (!max || (json_int_t)count <= json_integer_value(max));
}

static bool check_array(const json_t *document, const json_t *schema, const json_t *value)
{
    const json_t *items = json_object_get(schema, "items");
    for (size_t i = 0; items && i < json_array_size(value); i++)
        if (!schema_check(document, items, json_array_get(value, i)))
            return false;
    return in_range(schema, "minItems", "maxItems", json_array_size(value));
}

static bool check_string(const json_t *schema, const json_t *value)
{
    size_t characters = 0;
    for (size_t i = 0; i < json_string_length(value); i++)
        characters += ((uint8_t)json_string_value(value)[i] & 0xc0) != 0x80;
    return in_range(schema, "minLength", "maxLength", characters);
}

/* Whole numbers are at most of 15 digits here: doubles have them all. */
static bool check_number(const json_t *schema, const json_t *value)
{
    const json_t *least = json_object_get(schema, "minimum");
    const json_t *above = json_object_get(schema, "exclusiveMinimum");
    const json_t *most = json_object_get(schema, "maximum");
    const json_t *below = json_object_get(schema, "exclusiveMaximum");
    const double number = json_number_value(value);
    return (!least || number >= json_number_value(least)) &&
           (!above || number > json_number_value(above)) &&
           (!most || number <= json_number_value(most)) &&
           (!below || number < json_number_value(below));
}

bool schema_check(const json_t *document, const json_t *schema, const json_t *value)
{
    const char *reference = json_string_value(json_object_get(schema, "$ref"));
    const json_t *any = json_object_get(schema, "anyOf");
    const json_t *one = json_object_get(schema, "oneOf");
    const json_t *all = json_object_get(schema, "allOf");
    if (!json_is_object(schema))
        return json_is_true(schema);
    if (reference && !schema_check(document, pointed(document, reference), value))
        return false;
    if ((any && count_matches(document, any, value) == 0) ||
        (one && count_matches(document, one, value) != 1) ||
        (all && count_matches(document, all, value) != json_array_size(all)))
        return false;
    if (!check_type(json_object_get(schema, "type"), value) || !check_values(schema, value))
        return false;
    if (json_is_object(value))
        return check_object(document, schema, value);
    if (json_is_array(value))
        return check_array(document, schema, value);
    if (json_is_number(value))
        return check_number(schema, value);
    return !json_is_string(value) || check_string(schema, value);
}

/* ---- walking ---- */

/* The bytes that may come, and the one that is nearest to the end. */
static size_t choices(const struct grammar *g, const struct grammar_state *state, uint8_t *out,
                      uint8_t *nearest, uint32_t *least)
{
    static struct grammar_state after;
    size_t count = 0;
    *least = UINT32_MAX;
    for (unsigned byte = 0; byte < 256; byte++) {
        grammar_copy(&after, state);
        if (!grammar_step(g, &after, (uint8_t)byte))
            continue;
        out[count++] = (uint8_t)byte;
        const uint32_t rest = grammar_rest(g, &after);
        if (rest < *least) {
            *least = rest;
            *nearest = (uint8_t)byte;
        }
    }
    return count;
}

static bool is_rebuilt(const struct grammar *g, const struct grammar_state *state, const char *text,
                       size_t len)
{
    static struct grammar_state again;
    grammar_begin(g, &again);
    for (size_t i = 0; i < len; i++)
        if (!grammar_step(g, &again, (uint8_t)text[i]))
            return false;
    return grammar_equal(&again, state);
}

size_t grammar_walk(const struct grammar *g, uint8_t (*random)(void *user), void *user, size_t most,
                    char *out, size_t capacity, const char **why)
{
    static struct grammar_state state;
    uint8_t allowed[256];
    size_t len = 0;
    grammar_begin(g, &state);
    while (!grammar_must_end(&state)) {
        uint8_t nearest = 0;
        uint32_t least;
        const uint32_t rest = grammar_rest(g, &state);
        const size_t count = choices(g, &state, allowed, &nearest, &least);
        if (grammar_may_end(g, &state) && (count == 0 || len >= most || random(user) % 4 == 0))
            break;
        *why = "nothing may come, and it may not end";
        if (count == 0)
            return SIZE_MAX;
        *why = "no byte brings the end nearer";
        if ((rest && least >= rest) || (rest == 0) != grammar_may_end(g, &state))
            return SIZE_MAX;
        const uint8_t byte = len < most ? allowed[random(user) % count] : nearest;
        *why = "longer than its shortest way allows";
        if (len == capacity || !grammar_step(g, &state, byte))
            return SIZE_MAX;
        out[len++] = (char)byte;
    }
    *why = "another state from the same text";
    return is_rebuilt(g, &state, out, len) ? len : SIZE_MAX;
}
