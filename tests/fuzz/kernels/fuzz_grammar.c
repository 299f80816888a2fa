/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes kernels/model/grammar.h: the input up to its first zero byte is a JSON Schema, the rest
 * chooses a walk. Every text that comes out must be JSON and meet the schema, and every state must
 * have a way to the end. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/grammar.h"
#include "tests/unit/kernels/schema_check.h"

#define TEXT_MAX 65536u
#define WALKS    3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
    const uint8_t *data;
    size_t len;
    size_t at;
    uint32_t state;
};

/* The input, then what follows from it. */
static uint8_t next_byte(void *user)
{
    struct bytes *b = user;
    if (b->at < b->len)
        b->state = b->state * 31 + b->data[b->at];
    b->at++;
    b->state = b->state * 1664525u + 1013904223u;
    return (uint8_t)(b->state >> 24);
}

static void walk(const struct grammar *g, const json_t *schema, struct bytes *bytes)
{
    static char out[TEXT_MAX];
    const char *why = "";
    struct grammar_state state;
    grammar_begin(g, &state);
    if (grammar_rest(g, &state) > TEXT_MAX / 4)
        return;
    const size_t len = grammar_walk(g, next_byte, bytes, next_byte(bytes), out, sizeof(out), &why);
    if (len == SIZE_MAX) {
        fprintf(stderr, "%s\n", why);
        abort();
    }
    json_t *value = json_loadb(out, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!value || !schema_check(schema, schema, value)) {
        fprintf(stderr, "not valid: %.*s\n", (int)len, out);
        abort();
    }
    json_decref(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[128];
    struct grammar *g;
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    const size_t len = zero ? (size_t)(zero - data) : size;
    const struct grammar_spec spec = {
        .kind = GRAMMAR_SCHEMA, .text = (const char *)data, .len = len};
    if (grammar_compile(&g, &spec, why, sizeof(why))) {
        if (g || why[0] == 0)
            abort();
        return 0;
    }
    json_t *schema = json_loadb((const char *)data, len, JSON_DECODE_ANY, NULL);
    struct bytes bytes = {.data = data + len, .len = size - len};
    for (unsigned i = 0; i < WALKS; i++)
        walk(g, schema, &bytes);
    json_decref(schema);
    grammar_destroy(g);
    return 0;
}
