/* SPDX-License-Identifier: Apache-2.0 */
/* A JSON Schema, or a list of tools, to the nodes of a grammar; see grammar.h. First a node for
 * each schema that is met (so that $ref may go in circles), then needs and costs by iteration. */
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/grammar_disjoint.h"
#include "kernels/model/grammar_impl.h"
#include "schemas/base/json_write.h"

#define SCHEMA_DEPTH_MAX 96u      /* schemas within schemas, references followed */
#define ENTRIES_MAX      65536u   /* keys, alternatives, literals */
#define BYTES_MAX        1048576u /* of their texts */

struct compiler {
    struct grammar *g;
    const json_t *document;
    const json_t **schemas; /* of each node; NULL: made for another reason */
    uint16_t any;           /* NODE_NONE until it is needed */
    unsigned depth;
    bool lenient; /* what is not supported is passed over */
    int rc;
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static uint16_t fail(struct compiler *c, int rc,
                                                           const char *format, ...)
{
    if (c->rc == 0 && c->why && c->why_size) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(c->why, c->why_size, format, args);
        va_end(args);
    }
    c->rc = c->rc ? c->rc : rc;
    return NODE_NONE;
}

/* ---- nodes ---- */

static void *grown(void *array, uint32_t count, size_t size)
{
    if (count & (count - 1))
        return array; /* room for a power of two */
    return realloc(array, (count ? (size_t)count * 2 : 1) * size);
}

static uint16_t node_add(struct compiler *c, enum node_kind kind, const json_t *schema)
{
    struct grammar *g = c->g;
    if (g->node_count == GRAMMAR_NODES_MAX)
        return fail(c, -E2BIG, "The schema has more than %u parts.", GRAMMAR_NODES_MAX);
    struct node *nodes = grown(g->nodes, g->node_count, sizeof(*nodes));
    g->nodes = nodes ? nodes : g->nodes;
    const json_t **schemas = grown(c->schemas, g->node_count, sizeof(*schemas));
    c->schemas = schemas ? schemas : c->schemas;
    if (!nodes || !schemas)
        return fail(c, -ENOMEM, "There is no memory for the schema.");
    nodes[g->node_count] = (struct node){
        .kind = (uint8_t)kind, .max = NO_LIMIT, .child = NODE_NONE, .first = g->entry_count};
    schemas[g->node_count] = schema;
    return (uint16_t)g->node_count++;
}

/* Entries of a node lie together: begin with none, add, and nothing else in between. */
static bool entry_add(struct compiler *c, uint16_t node, const char *text, size_t len,
                      uint16_t value, bool required)
{
    struct grammar *g = c->g;
    if (c->rc || g->entry_count == ENTRIES_MAX || len > UINT16_MAX ||
        g->byte_count + len > BYTES_MAX) {
        fail(c, -E2BIG, "The schema's names and values are too long.");
        return false;
    }
    struct entry *entries = grown(g->entries, g->entry_count, sizeof(*entries));
    g->entries = entries ? entries : g->entries;
    if (!entries) {
        fail(c, -ENOMEM, "There is no memory for the schema.");
        return false;
    }
    if (len)
        memcpy(g->bytes + g->byte_count, text, len);
    entries[g->entry_count++] = (struct entry){
        .text = g->byte_count, .len = (uint16_t)len, .node = value, .required = required};
    g->byte_count += (uint32_t)len;
    g->nodes[node].count++;
    return true;
}

static void entries_begin(struct compiler *c, uint16_t node)
{
    c->g->nodes[node].first = c->g->entry_count;
    c->g->nodes[node].count = 0;
}

/* `before` and `after` around the text of a value. */
static bool entry_add_json(struct compiler *c, uint16_t node, const char *before,
                           const json_t *value, const char *after, uint16_t child, bool required)
{
    char *text = json_write(value);
    const size_t size = text ? strlen(before) + strlen(text) + strlen(after) + 1 : 0;
    char *all = text ? malloc(size) : NULL;
    if (all)
        (void)snprintf(all, size, "%s%s%s", before, text, after);
    else
        fail(c, -ENOMEM, "There is no memory for the schema.");
    const bool added = all && entry_add(c, node, all, size - 1, child, required);
    free(all);
    free(text);
    return added;
}

static bool key_add(struct compiler *c, uint16_t node, const char *name, uint16_t value,
                    bool required)
{
    json_t *key = json_string(name);
    const bool added = entry_add_json(c, node, "", key, "", value, required);
    json_decref(key);
    return added;
}

static int entry_compare(const void *a, const void *b, void *bytes)
{
    const struct entry *x = a;
    const struct entry *y = b;
    const size_t len = x->len < y->len ? x->len : y->len;
    const int order =
        memcmp((const uint8_t *)bytes + x->text, (const uint8_t *)bytes + y->text, len);
    return order ? order : x->len - y->len;
}

/* Sorted, each text once. */
static void entries_sort(struct grammar *g, uint16_t node)
{
    struct node *n = &g->nodes[node];
    if (n->count == 0)
        return;
    struct entry *list = g->entries + n->first;
    uint32_t kept = 0;
    qsort_r(list, n->count, sizeof(*list), entry_compare, g->bytes);
    for (uint32_t i = 0; i < n->count; i++)
        if (kept == 0 || entry_compare(&list[i], &list[kept - 1], g->bytes) != 0)
            list[kept++] = list[i];
    n->count = kept;
}

static uint16_t literals(struct compiler *c, const json_t *schema, const json_t *values,
                         unsigned types)
{
    const uint16_t node = node_add(c, NODE_LITERALS, schema);
    for (size_t i = 0; node != NODE_NONE && i < json_array_size(values); i++) {
        const json_t *value = json_array_get(values, i);
        if (types & disjoint_type_of(value))
            entry_add_json(c, node, "", value, "", NODE_NONE, false);
    }
    if (c->rc)
        return NODE_NONE;
    entries_sort(c->g, node);
    return node;
}

/* ---- any value ---- */

static uint16_t any_value(struct compiler *c)
{
    if (c->any != NODE_NONE || c->rc)
        return c->any;
    const uint16_t any = node_add(c, NODE_CHOICE, NULL);
    const uint16_t number = node_add(c, NODE_NUMBER, NULL);
    const uint16_t map = node_add(c, NODE_MAP, NULL);
    const uint16_t array = node_add(c, NODE_ARRAY, NULL);
    json_t *words = json_pack("[n,b,b]", 0, 1);
    const uint16_t word = words ? literals(c, NULL, words, DISJOINT_ANY) : NODE_NONE;
    json_decref(words);
    if (word == NODE_NONE || c->rc)
        return fail(c, -ENOMEM, "There is no memory for the schema.");
    c->g->nodes[map].child = any;
    c->g->nodes[array].child = any;
    entries_begin(c, any);
    const uint16_t all[] = {number, c->g->key, word, array, map};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        entry_add(c, any, NULL, 0, all[i], false);
    return c->any = any;
}

/* ---- keywords ---- */

static uint16_t compile(struct compiler *c, const json_t *schema);

/* Keywords that say nothing about what is valid. */
static bool is_annotation(const char *key)
{
    static const char *const keys[] = {
        "title",           "description",      "default",      "examples", "example",
        "deprecated",      "readOnly",         "$schema",      "$id",      "$comment",
        "$defs",           "definitions",      "writeOnly",    "format",   "$anchor",
        "contentEncoding", "contentMediaType", "discriminator"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    return strncmp(key, "x-", 2) == 0;
}

/* Only these besides annotations; NULL ends the list. */
static bool only(struct compiler *c, const json_t *schema, const char *beside,
                 const char *const *allowed)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)schema, key, value)
    {
        bool known = is_annotation(key);
        for (size_t i = 0; !known && allowed[i]; i++)
            known = strcmp(key, allowed[i]) == 0;
        if (!known && !c->lenient) {
            fail(c, -EINVAL, "The schema keyword `%.64s` is not supported%s%s%s.", key,
                 beside ? " beside `" : "", beside ? beside : "", beside ? "`" : "");
            return false;
        }
    }
    return true;
}

/* A count, or `absent`. What is beyond 65,534 is as good as that for a maximum. */
static uint16_t limit(struct compiler *c, const json_t *schema, const char *key, uint16_t absent)
{
    const json_t *value = json_object_get(schema, key);
    const json_int_t number = json_integer_value(value);
    if (!value)
        return absent;
    if (!json_is_integer(value) || number < 0 || (absent == 0 && number >= NO_LIMIT)) {
        fail(c, -EINVAL, "`%s` must be a whole number from 0 to 65534.", key);
        return absent;
    }
    return number < NO_LIMIT ? (uint16_t)number : NO_LIMIT - 1;
}

static uint16_t compile_string(struct compiler *c, const json_t *schema)
{
    const uint16_t node = node_add(c, NODE_STRING, schema);
    if (node == NODE_NONE)
        return node;
    c->g->nodes[node].min = limit(c, schema, "minLength", 0);
    c->g->nodes[node].max = limit(c, schema, "maxLength", NO_LIMIT);
    return node;
}

static uint16_t compile_number(struct compiler *c, const json_t *schema, bool integer)
{
    const uint16_t node = node_add(c, NODE_NUMBER, schema);
    if (node == NODE_NONE)
        return node;
    struct node *n = &c->g->nodes[node];
    n->integer = integer;
    n->ranged = range_is_asked(schema);
    if (n->ranged && !range_of(schema, integer, &n->range))
        return fail(c, -EINVAL, "Bounds of numbers must be numbers.");
    return node;
}

static uint16_t compile_array(struct compiler *c, const json_t *schema)
{
    const json_t *items = json_object_get(schema, "items");
    const uint16_t node = node_add(c, NODE_ARRAY, schema);
    if (node == NODE_NONE)
        return node;
    c->g->nodes[node].min = limit(c, schema, "minItems", 0);
    c->g->nodes[node].max = limit(c, schema, "maxItems", NO_LIMIT);
    const uint16_t child = items ? compile(c, items) : any_value(c);
    c->g->nodes[node].child = child;
    return node;
}

static bool is_required(const json_t *required, const char *name)
{
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *text = json_string_value(json_array_get(required, i));
        if (text && strcmp(text, name) == 0)
            return true;
    }
    return false;
}

/* Required ones that `properties` does not name may be anything that additional ones may. */
static void compile_unnamed(struct compiler *c, json_t *values, const json_t *properties,
                            const json_t *required, const json_t *additional)
{
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (!name || json_object_get(properties, name) || json_object_get(values, name))
            continue;
        if (json_is_false(additional))
            fail(c, -EINVAL, "`%.64s` is required, but no property of the schema.", name);
        const uint16_t value =
            additional && !json_is_true(additional) ? compile(c, additional) : any_value(c);
        json_object_set_new(values, name, json_integer(value));
    }
}

static uint16_t compile_properties(struct compiler *c, uint16_t node, const json_t *properties,
                                   const json_t *required, const json_t *additional)
{
    const char *name;
    json_t *value;
    json_t *values = json_object(); /* node of each; entries have to lie together */
    json_object_foreach((json_t *)(uintptr_t)properties, name, value)
    {
        const uint16_t child = compile(c, value);
        if (c->rc)
            break;
        json_object_set_new(values, name, json_integer(child));
    }
    compile_unnamed(c, values, properties, required, additional);
    if (json_object_size(values) > GRAMMAR_KEYS_MAX)
        fail(c, -E2BIG, "An object may have %u properties.", GRAMMAR_KEYS_MAX);
    entries_begin(c, node);
    json_object_foreach(values, name, value) if (!c->rc)
        key_add(c, node, name, (uint16_t)json_integer_value(value), is_required(required, name));
    json_decref(values);
    return c->rc ? NODE_NONE : node;
}

static uint16_t compile_object(struct compiler *c, const json_t *schema)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const json_t *additional = json_object_get(schema, "additionalProperties");
    if ((properties && !json_is_object(properties)) || (required && !json_is_array(required)))
        return fail(c, -EINVAL, "`properties` must be an object and `required` a list.");
    const bool map = json_object_size(properties) == 0 && json_array_size(required) == 0 &&
                     !json_is_false(additional);
    const uint16_t node = node_add(c, map ? NODE_MAP : NODE_OBJECT, schema);
    if (node == NODE_NONE)
        return node;
    if (!map)
        return compile_properties(c, node, properties, required, additional);
    const uint16_t child =
        additional && !json_is_true(additional) ? compile(c, additional) : any_value(c);
    c->g->nodes[node].child = child;
    return node;
}

static uint16_t compile_type(struct compiler *c, const json_t *schema, const char *type)
{
    if (strcmp(type, "object") == 0)
        return compile_object(c, schema);
    if (strcmp(type, "array") == 0)
        return compile_array(c, schema);
    if (strcmp(type, "string") == 0)
        return compile_string(c, schema);
    if (strcmp(type, "number") == 0 || strcmp(type, "integer") == 0)
        return compile_number(c, schema, type[0] == 'i');
    json_t *values = strcmp(type, "boolean") == 0 ? json_pack("[b,b]", 0, 1)
                     : strcmp(type, "null") == 0  ? json_pack("[n]")
                                                  : NULL;
    if (!values)
        return fail(c, -EINVAL, "`%.64s` is no type of JSON Schema.", type);
    const uint16_t node = literals(c, schema, values, DISJOINT_ANY);
    json_decref(values);
    return node;
}

static uint16_t compile_choice(struct compiler *c, const json_t *schema, const json_t *list,
                               bool types)
{
    const uint16_t node = node_add(c, NODE_CHOICE, schema);
    const size_t count = json_array_size(list);
    if (node == NODE_NONE || count == 0 || count > GRAMMAR_NODES_MAX)
        return fail(c, -EINVAL, "A list of alternatives is empty, or is none.");
    uint16_t *values = calloc(count, sizeof(*values));
    if (!values)
        return fail(c, -ENOMEM, "There is no memory for the schema.");
    for (size_t i = 0; i < count && !c->rc; i++) {
        const json_t *item = json_array_get(list, i);
        const char *type = json_string_value(item);
        values[i] = !types ? compile(c, item)
                    : type ? compile_type(c, schema, type)
                           : fail(c, -EINVAL, "`type` must be a text or a list of texts.");
    }
    entries_begin(c, node);
    for (size_t i = 0; i < count && !c->rc; i++)
        entry_add(c, node, NULL, 0, values[i], false);
    free(values);
    return c->rc ? NODE_NONE : node;
}

static uint16_t compile_one_of(struct compiler *c, const json_t *schema, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list) && !c->lenient; i++)
        for (size_t j = 0; j < i; j++)
            if (!disjoint_schemas(c->document, json_array_get(list, i), json_array_get(list, j)))
                return fail(c, -EINVAL,
                            "The schema keyword `oneOf` is only supported for alternatives that "
                            "exclude each other; `anyOf` is for others.");
    return compile_choice(c, schema, list, false);
}

/* Schemas without what combines or names values: by type. */
static uint16_t compile_typed(struct compiler *c, const json_t *schema)
{
    static const char *const keys[] = {
        "type",      "properties",       "required", "additionalProperties",
        "items",     "minItems",         "maxItems", "minLength",
        "maxLength", "uniqueItems",      "minimum",  "exclusiveMinimum",
        "maximum",   "exclusiveMaximum", NULL};
    const json_t *type = json_object_get(schema, "type");
    const json_t *unique = json_object_get(schema, "uniqueItems");
    if (unique && json_is_true(unique) && !c->lenient)
        return fail(c, -EINVAL, "The schema keyword `uniqueItems` is not supported.");
    if (!only(c, schema, NULL, keys))
        return NODE_NONE;
    if (json_is_array(type))
        return compile_choice(c, schema, type, true);
    if (json_is_string(type))
        return compile_type(c, schema, json_string_value(type));
    if (type)
        return fail(c, -EINVAL, "`type` must be a text or a list of texts.");
    for (size_t i = 1; i < 9; i++)
        if (json_object_get(schema, keys[i]))
            return compile_type(c, schema, i < 4 ? "object" : i < 7 ? "array" : "string");
    return range_is_asked(schema) ? compile_type(c, schema, "number") : any_value(c);
}

static uint16_t compile_object_schema(struct compiler *c, const json_t *schema)
{
    static const char *const combining[] = {"$ref", "anyOf", "oneOf", "allOf", "enum", "const"};
    size_t at = 0;
    while (at < 6 && !json_object_get(schema, combining[at]))
        at++;
    if (at == 6)
        return compile_typed(c, schema);
    const json_t *value = json_object_get(schema, combining[at]);
    const char *const beside[] = {combining[at], at >= 4 ? "type" : NULL, NULL};
    if (!only(c, schema, combining[at], beside))
        return NODE_NONE;
    if (at == 0) {
        const json_t *target = disjoint_resolve(c->document, json_string_value(value));
        return target ? compile(c, target)
                      : fail(c, -EINVAL, "`$ref` leads nowhere within the schema: %.100s",
                             json_is_string(value) ? json_string_value(value) : "");
    }
    if (at == 1)
        return compile_choice(c, schema, value, false);
    if (at == 2)
        return compile_one_of(c, schema, value);
    if (at == 3)
        return json_array_size(value) == 1
                   ? compile(c, json_array_get(value, 0))
                   : fail(c, -EINVAL, "The schema keyword `allOf` is only supported for one.");
    if (at == 4 && !json_is_array(value))
        return fail(c, -EINVAL, "`enum` must be a list.");
    json_t *values = at == 4 ? json_incref((json_t *)(uintptr_t)value) : json_pack("[O]", value);
    const uint16_t node =
        literals(c, schema, values, disjoint_types(json_object_get(schema, "type")));
    json_decref(values);
    return node;
}

static uint16_t compile(struct compiler *c, const json_t *schema)
{
    if (c->rc)
        return NODE_NONE;
    if (json_is_true(schema))
        return any_value(c);
    if (json_is_false(schema))
        return node_add(c, NODE_CHOICE, NULL); /* of nothing */
    if (!json_is_object(schema))
        return fail(c, -EINVAL, "A schema must be an object, true or false.");
    for (uint32_t i = 0; i < c->g->node_count; i++)
        if (c->schemas[i] == schema)
            return (uint16_t)i;
    if (c->depth == SCHEMA_DEPTH_MAX)
        return fail(c, -E2BIG, "The schema is nested too deeply, or `$ref` goes in a circle.");
    c->depth++;
    const uint16_t node = compile_object_schema(c, schema);
    c->depth--;
    return node;
}

/* ---- tools ---- */

static uint16_t compile_tools(struct compiler *c, const struct grammar_spec *spec)
{
    char behind[64];
    size_t found = 0;
    const json_t *tools = c->document;
    const uint16_t node = node_add(c, NODE_CALL, NULL);
    const uint16_t empty =
        node_add(c, NODE_OBJECT, NULL); /* the arguments of one without parameters */
    const size_t count = json_is_array(tools) ? json_array_size(tools) : 0;
    uint16_t *values = calloc(count + 1, sizeof(*values));
    (void)snprintf(behind, sizeof(behind), ", \"%.32s\": ", spec->arguments);
    for (size_t i = 0; values && i < count && !c->rc; i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const json_t *schema = json_object_get(function, "parameters");
        if (!json_is_string(json_object_get(function, "name")))
            fail(c, -EINVAL, "A tool must be a function with a name.");
        c->document = schema;
        c->lenient = !json_is_true(json_object_get(function, "strict"));
        values[i] = schema && !json_is_null(schema) ? compile(c, schema) : empty;
    }
    if (values && node != NODE_NONE)
        entries_begin(c, node);
    for (size_t i = 0; values && i < count && !c->rc; i++) {
        const json_t *function = json_object_get(json_array_get(tools, i), "function");
        const json_t *name = json_object_get(function, "name");
        if (spec->tool && spec->tool[0] && strcmp(json_string_value(name), spec->tool) != 0)
            continue;
        entry_add_json(c, node, "{\"name\": ", name, behind, values[i], false);
        found++;
    }
    c->document = tools;
    c->lenient = false;
    free(values);
    if (!c->rc && found == 0)
        return fail(c, -EINVAL, "There is no such tool.");
    if (c->rc)
        return NODE_NONE;
    entries_sort(c->g, node);
    return node;
}

/* ---- what is left to do when all nodes are there ---- */

/* A choice among choices is one among their alternatives, each once, itself left out. */
static void choice_gather(const struct grammar *g, uint16_t node, uint8_t *seen, uint16_t *out,
                          size_t *count)
{
    uint16_t todo[GRAMMAR_NODES_MAX];
    size_t left = 0;
    todo[left++] = node;
    seen[node] = 1;
    while (left) {
        const struct node *n = &g->nodes[todo[--left]];
        for (uint32_t i = n->count; i-- > 0;) {
            const uint16_t child = entry_at(g, n, i)->node;
            if (seen[child])
                continue;
            seen[child] = 1;
            if (g->nodes[child].kind == NODE_CHOICE)
                todo[left++] = child;
            else
                out[(*count)++] = child;
        }
    }
}

static void choices_flatten(struct compiler *c)
{
    struct grammar *g = c->g;
    const uint32_t nodes = g->node_count;
    uint8_t *seen = malloc(nodes);
    uint16_t *flat = malloc(nodes * sizeof(*flat));
    for (uint32_t i = 0; seen && flat && i < nodes && !c->rc; i++) {
        const struct node *n = &g->nodes[i];
        bool nested = false;
        for (uint32_t j = 0; n->kind == NODE_CHOICE && j < n->count; j++)
            nested = nested || g->nodes[entry_at(g, n, j)->node].kind == NODE_CHOICE;
        if (!nested)
            continue;
        size_t count = 0;
        memset(seen, 0, nodes);
        choice_gather(g, (uint16_t)i, seen, flat, &count);
        entries_begin(c, (uint16_t)i);
        for (size_t j = count; j-- > 0 && !c->rc;)
            entry_add(c, (uint16_t)i, NULL, 0, flat[j], false);
    }
    if (!seen || !flat)
        fail(c, -ENOMEM, "There is no memory for the schema.");
    free(seen);
    free(flat);
}

static uint16_t deeper(uint16_t need)
{
    return need >= GRAMMAR_DEPTH_MAX ? NEED_NEVER : (uint16_t)(need + 1);
}

/* Of what is known of its children. An empty range of lengths cannot be met. */
static uint16_t need_of(const struct grammar *g, const struct node *n)
{
    uint16_t need = n->kind == NODE_CHOICE || n->kind == NODE_CALL ? NEED_NEVER : 0;
    switch (n->kind) {
    case NODE_CHOICE:
    case NODE_CALL:
        for (uint32_t i = 0; i < n->count; i++) {
            const uint16_t child = g->nodes[entry_at(g, n, i)->node].need;
            need = child < need ? child : need;
        }
        return n->kind == NODE_CALL ? deeper(need) : need;
    case NODE_OBJECT:
        for (uint32_t i = 0; i < n->count; i++) {
            const struct entry *e = entry_at(g, n, i);
            const uint16_t child = g->nodes[e->node].need;
            need = e->required && child > need ? child : need;
        }
        return deeper(need);
    case NODE_ARRAY:
        if (n->min > n->max)
            return NEED_NEVER;
        return n->min ? deeper(g->nodes[n->child].need) : 1;
    case NODE_LITERALS:
        return n->count ? 1 : NEED_NEVER;
    case NODE_STRING:
        return n->min > n->max ? NEED_NEVER : 1;
    case NODE_NUMBER:
        return n->ranged && n->range.rest == RANGE_NEVER ? NEED_NEVER : 1;
    default:
        return 1;
    }
}

static uint32_t object_cost(struct grammar *g, const struct node *n)
{
    uint32_t rest = 0;
    for (uint32_t i = n->count; i-- > 0;) {
        struct entry *e = &g->entries[n->first + i];
        if (e->required)
            rest = cost_add(rest, cost_add(e->len + 2u, g->nodes[e->node].cost));
        e->rest = rest;
    }
    return cost_add(rest - (rest != 0), 2);
}

static uint32_t cost_of(struct grammar *g, const struct node *n)
{
    uint32_t cost = COST_MAX;
    switch (n->kind) {
    case NODE_CHOICE:
    case NODE_CALL:
    case NODE_LITERALS:
        for (uint32_t i = 0; i < n->count; i++) {
            const struct entry *e = entry_at(g, n, i);
            const struct node *child = n->kind == NODE_LITERALS ? NULL : &g->nodes[e->node];
            const uint32_t bytes = n->kind == NODE_CHOICE ? child->cost
                                   : child                ? cost_add(e->len + 1u, child->cost)
                                                          : e->len;
            /* Only of the flattest: others may not fit where it matters. */
            const uint16_t own = n->kind == NODE_CALL ? deeper(child ? child->need : 0) : 0;
            if ((n->kind == NODE_CHOICE && child->need != n->need) ||
                (n->kind == NODE_CALL && own != n->need))
                continue;
            cost = bytes < cost ? bytes : cost;
        }
        return cost;
    case NODE_OBJECT:
        return object_cost(g, n);
    case NODE_ARRAY: {
        const uint64_t item = n->min ? (uint64_t)g->nodes[n->child].cost + 1 : 0;
        const uint64_t bytes = n->min * item - (n->min != 0) + 2;
        return bytes < COST_MAX ? (uint32_t)bytes : COST_MAX;
    }
    case NODE_STRING:
        return n->min + 2u;
    case NODE_MAP:
        return 2;
    case NODE_NUMBER:
        return n->ranged && n->need != NEED_NEVER ? n->range.rest : 1;
    default:
        return 1;
    }
}

/* Both fall from the highest value until nothing changes: no more rounds than frames fit, for each
 * value needs one frame more than something in it. */
static void measure(struct grammar *g)
{
    bool changed = true;
    for (uint32_t i = 0; i < g->node_count; i++) {
        g->nodes[i].need = NEED_NEVER;
        g->nodes[i].cost = COST_MAX;
    }
    while (changed) {
        changed = false;
        for (uint32_t i = 0; i < g->node_count; i++) {
            const uint16_t need = need_of(g, &g->nodes[i]);
            changed = changed || need != g->nodes[i].need;
            g->nodes[i].need = need;
        }
    }
    for (changed = true; changed;) {
        changed = false;
        for (uint32_t i = 0; i < g->node_count; i++) {
            const uint32_t cost = cost_of(g, &g->nodes[i]);
            changed = changed || cost != g->nodes[i].cost;
            g->nodes[i].cost = cost;
        }
    }
}

/* The shortest way first: it must never be the one that there is no thread for. */
static void choices_order(struct grammar *g)
{
    for (uint32_t i = 0; i < g->node_count; i++) {
        const struct node *n = &g->nodes[i];
        for (uint32_t j = 1; n->kind == NODE_CHOICE && j < n->count; j++) {
            struct entry *first = &g->entries[n->first];
            struct entry *other = first + j;
            const struct node *a = &g->nodes[first->node];
            const struct node *b = &g->nodes[other->node];
            if (b->need < a->need || (b->need == a->need && b->cost < a->cost)) {
                const struct entry moved = *first;
                *first = *other;
                *other = moved;
            }
        }
    }
}

/* ---- the whole ---- */

static uint16_t compile_root(struct compiler *c, const struct grammar_spec *spec)
{
    c->g->key = node_add(c, NODE_STRING, NULL);
    if (spec->kind == GRAMMAR_SCHEMA)
        return compile(c, c->document);
    if (spec->kind == GRAMMAR_CALL)
        return compile_tools(c, spec);
    const uint16_t node = node_add(c, NODE_MAP, NULL);
    const uint16_t any = any_value(c);
    if (node != NODE_NONE)
        c->g->nodes[node].child = any;
    return node;
}

static int build(struct compiler *c, const struct grammar_spec *spec)
{
    struct grammar *g = c->g;
    g->bytes = malloc(BYTES_MAX);
    if (!g->bytes)
        return -ENOMEM;
    g->root = compile_root(c, spec);
    if (c->rc == 0)
        choices_flatten(c);
    if (c->rc)
        return c->rc;
    uint8_t *bytes = realloc(g->bytes, g->byte_count + 1);
    g->bytes = bytes ? bytes : g->bytes;
    measure(g);
    choices_order(g);
    if (g->nodes[g->root].need >= GRAMMAR_DEPTH_MAX) {
        fail(c, -EINVAL, "No value that is nested %u deep at most meets the schema.",
             GRAMMAR_DEPTH_MAX - 1);
        return c->rc;
    }
    return 0;
}

int grammar_compile(struct grammar **out, const struct grammar_spec *spec, char *why,
                    size_t why_size)
{
    json_error_t at;
    json_t *document = NULL;
    struct compiler c = {.any = NODE_NONE, .why = why, .why_size = why_size};
    *out = NULL;
    if (why && why_size)
        why[0] = 0;
    if (spec->kind != GRAMMAR_OBJECT) {
        document = spec->len <= GRAMMAR_TEXT_MAX
                       ? json_loadb(spec->text, spec->len, JSON_DECODE_ANY, &at)
                       : NULL;
        if (!document) {
            fail(&c, spec->len <= GRAMMAR_TEXT_MAX ? -EINVAL : -E2BIG,
                 spec->len <= GRAMMAR_TEXT_MAX ? "The schema is no valid JSON."
                                               : "The schema is too long.");
            return c.rc;
        }
    }
    c.document = document;
    c.g = calloc(1, sizeof(*c.g));
    const int rc = c.g ? build(&c, spec) : -ENOMEM;
    free(c.schemas);
    json_decref(document);
    if (rc) {
        grammar_destroy(c.g);
        return rc;
    }
    *out = c.g;
    return 0;
}

void grammar_destroy(struct grammar *g)
{
    if (!g)
        return;
    free(g->nodes);
    free(g->entries);
    free(g->bytes);
    free(g);
}
