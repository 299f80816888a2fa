/* SPDX-License-Identifier: Apache-2.0 */
/* test_grammar.c - kernels/model/grammar.h and grammar_mask.h: whatever comes out meets the schema
 * (schema_check.h is the oracle), everything a grammar allows can be ended, masks are what trying
 * each token gives, what is not supported is refused by name. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/grammar.h"
#include "kernels/model/grammar_mask.h"
#include "tests/unit/kernels/schema_check.h"
#include "tests/unit/kernels/tiny_model.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define TEXT_MAX 8192u
#define WALKS    (SANITIZED ? 50u : 300u) /* of a schema */
#define MASKS    (SANITIZED ? 5u : 20u)
#define OFTEN    (SANITIZED ? 41u : 13u) /* of the real vocabulary: compared one time in so many */

/* Each with a text that meets it in the form that grammars write. */
static const struct {
    const char *schema;
    const char *good;
    const char *bad;
} schemas[] = {
    {"{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
     "\"integer\"}},\"required\":[\"name\",\"age\"],\"additionalProperties\":false}",
     "{\"name\": \"Z\\u00fc \\\"\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\", \"age\": -12}",
     "{\"age\": 1, \"name\": \"\"}"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":3},\"ab\":{"
     "\"type\":\"boolean\"},\"c\":{\"type\":\"null\"}},\"required\":[\"c\"]}",
     "{\n  \"ab\": true,\n  \"c\": null\n}", "{\"a\": \"four\", \"c\": null}"},
    {"{\"type\":\"array\",\"items\":{\"type\":\"number\"},\"minItems\":2,\"maxItems\":4}",
     "[0.5, -1e10,7]", "[1]"},
    {"{\"enum\":[\"red\",\"green\",\"reddish\",1,12,null,{\"a\":[1]}]}", "\"reddish\"", "\"redd\""},
    {"{\"type\":\"string\",\"enum\":[\"a\",1]}", "\"a\"", "1"},
    {"{\"const\":12}", "12", "1"},
    {"{\"type\":[\"integer\",\"null\",\"string\"],\"minLength\":2}", "\"ab\"", "\"a\""},
    {"{\"anyOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"cat\"},\"lives\":{"
     "\"type\":\"integer\"}},\"required\":[\"kind\",\"lives\"]},{\"type\":\"object\","
     "\"properties\":{\"kind\":{\"const\":\"car\"},\"doors\":{\"enum\":[3,5]}},\"required\":["
     "\"kind\",\"doors\"]},{\"type\":\"string\"}]}",
     "{\"kind\": \"car\", \"doors\": 5}", "{\"kind\": \"cat\", \"doors\": 5}"},
    {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"t\":{\"const\":\"x\"}},\"required\":["
     "\"t\"]},{\"type\":\"object\",\"properties\":{\"t\":{\"enum\":[\"y\",\"z\"]}},\"required\":["
     "\"t\"]},{\"type\":\"integer\"}]}",
     "{\"t\": \"z\"}", "{\"t\": \"w\"}"},
    {"{\"$ref\":\"#/$defs/tree\",\"$defs\":{\"tree\":{\"type\":\"object\",\"properties\":{\"v\":{"
     "\"type\":\"integer\"},\"kids\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/tree\"}}},"
     "\"required\":[\"v\",\"kids\"],\"additionalProperties\":false}}}",
     "{\"v\": 1, \"kids\": [{\"v\": 2, \"kids\": []}]}", "{\"v\": 1}"},
    {"{\"type\":\"object\",\"properties\":{\"next\":{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":"
     "\"null\"}]}},\"required\":[\"next\"]}",
     "{\"next\": {\"next\": null}}", "{\"next\": {}}"},
    {"{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"}}",
     "{\"x\": 1, \"y\": 2}", "{\"x\": \"1\"}"},
    {"{\"type\":\"object\",\"required\":[\"q\"]}", "{\"q\": [1, {}]}", "{}"},
    {"{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}", "{}", "{\"a\": 1}"},
    {"{\"allOf\":[{\"type\":\"string\",\"minLength\":1,\"maxLength\":2}],\"title\":\"t\"}",
     "\"\xc3\xbc\xc3\xbc\"", "\"\""},
    {"{\"type\":\"array\",\"items\":{\"anyOf\":[{\"anyOf\":[{\"type\":\"integer\"},{\"type\":"
     "\"null\"}]},{\"type\":\"boolean\"}]},\"minItems\":1}",
     "[null, true, 3]", "[\"\"]"},
    {"{\"type\":\"object\",\"properties\":{\"a\\\"b/~\":{\"type\":\"integer\"},\"p\":{\"$ref\":"
     "\"#/properties/a\\\"b~1~0\"}},\"required\":[\"p\"]}",
     "{\"a\\\"b/~\": 1, \"p\": 2}", "{\"p\": null}"},
    {"{\"type\":\"integer\",\"minimum\":-7,\"maximum\":1234}", "-7", "1235"},
    {"{\"type\":\"array\",\"items\":{\"exclusiveMinimum\":0,\"exclusiveMaximum\":1},\"minItems\":"
     "3}",
     "[0.1, 0.00001,0.99999]", "[0.5, 1, 0.5]"},
    {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\",\"minimum\":98.6,\"maximum\":"
     "98.6},\"b\":{\"type\":[\"integer\",\"null\"],\"exclusiveMaximum\":-99.5}},\"required\":["
     "\"a\",\"b\"]}",
     "{\"a\": 98.60, \"b\": -100}", "{\"a\": 98.6, \"b\": -99}"},
    {"{\"anyOf\":[{\"type\":\"integer\",\"minimum\":100,\"maximum\":199},{\"type\":\"number\","
     "\"maximum\":-5e9}]}",
     "-6000000000.5", "99"},
    {"true", "[{\"a\": \"b\"}, 1.5, null]", "[1"},
    {"{}", "{\"a\": {\"b\": [[]]}}", "{\"a\"}"},
};
#define SCHEMAS (sizeof(schemas) / sizeof(schemas[0]))

static struct grammar *made(const char *schema)
{
    char why[256];
    struct grammar *g;
    const struct grammar_spec spec = {
        .kind = GRAMMAR_SCHEMA, .text = schema, .len = strlen(schema)};
    ck_assert_msg(grammar_compile(&g, &spec, why, sizeof(why)) == 0, "%s: %s", schema, why);
    return g;
}

static bool accepts(const struct grammar *g, const char *text)
{
    struct grammar_state state;
    grammar_begin(g, &state);
    for (; *text; text++)
        if (!grammar_step(g, &state, (uint8_t)*text))
            return false;
    return grammar_may_end(g, &state);
}

static uint8_t random_byte(void *user)
{
    return (uint8_t)(tiny_random(user) >> 32);
}

START_TEST(known_texts)
{
    struct grammar *g = made(schemas[_i].schema);
    ck_assert_msg(accepts(g, schemas[_i].good), "%s", schemas[_i].good);
    ck_assert_msg(!accepts(g, schemas[_i].bad), "%s", schemas[_i].bad);
    grammar_destroy(g);
}
END_TEST

START_TEST(whatever_comes_out_is_valid)
{
    const char *text = schemas[_i].schema;
    char out[TEXT_MAX];
    struct grammar *g = made(text);
    json_t *schema = json_loads(text, JSON_DECODE_ANY, NULL);
    for (uint64_t seed = 0; seed < WALKS; seed++) {
        uint64_t random = suite_seed(seed * 7919 + (uint64_t)_i);
        const char *why = "";
        json_error_t error;
        const size_t len =
            grammar_walk(g, random_byte, &random, seed % 97 * 3, out, sizeof(out), &why);
        ck_assert_msg(len != SIZE_MAX, "%s: %s, seed %llu", text, why, (unsigned long long)seed);
        json_t *value = json_loadb(out, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
        ck_assert_msg(value != NULL, "%s: %.*s: %s", text, (int)len, out, error.text);
        ck_assert_msg(schema_check(schema, schema, value), "%s: %.*s", text, (int)len, out);
        json_decref(value);
    }
    json_decref(schema);
    grammar_destroy(g);
}
END_TEST

START_TEST(unsound_json_is_not_allowed)
{
    static const char *const bad[] = {"\"\\ud800\"",
                                      "\"\\uD8\"",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "\"\xed\xa0\x80\"",
                                      "\"\n\"",
                                      "\"\\x\"",
                                      "01",
                                      "+1",
                                      ".5",
                                      "1.",
                                      "1e",
                                      "-",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "[1 2]",
                                      "tru",
                                      "{\"a\" 1}",
                                      "nul",
                                      "\"\xf4\x90\x80\x80\"",
                                      "[[",
                                      "1e999",
                                      "1234567890123456",
                                      "\"\xe0\x80\x80\"",
                                      " 1",
                                      "{\"a\":1} ",
                                      "[]]",
                                      "\"\xf0\x80\x80\x80\"",
                                      "--1",
                                      "\"\\u0000\"",
                                      "{\"a\\u0000\":1}"};
    struct grammar *g = made("true");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!accepts(g, bad[i]), "%s", bad[i]);
    ck_assert(accepts(g, "\"\\uD7FF\\uE000\\u0041\\u0001\\u0100\\u0010\\u1000\\u0d00\""));
    ck_assert(accepts(g, "-0.0e+10"));
    grammar_destroy(g);
}
END_TEST

/* A schema, and a word of what is said about it. */
START_TEST(what_is_not_supported_is_named)
{
    static const struct {
        const char *schema;
        const char *word;
    } bad[] = {
        {"{\"type\":\"string\",\"pattern\":\"a\"}", "`pattern`"},
        {"{\"type\":\"integer\",\"multipleOf\":5}", "`multipleOf`"},
        {"{\"type\":\"integer\",\"minimum\":true}", "Bounds"},
        {"{\"type\":\"integer\",\"minimum\":1,\"exclusiveMaximum\":1}", "No value"},
        {"{\"type\":\"number\",\"minimum\":1e30}", "No value"},
        {"{\"minimum\":0,\"maximum\":-0.0000004}", "No value"},
        {"{\"not\":{}}", "`not`"},
        {"{\"if\":{}}", "`if`"},
        {"{\"allOf\":[{},{}]}", "`allOf`"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "`uniqueItems`"},
        {"{\"type\":\"array\",\"prefixItems\":[]}", "`prefixItems`"},
        {"{\"anyOf\":[{}],\"properties\":{}}", "beside `anyOf`"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", "`oneOf`"},
        {"{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"const\":1}}},{\"type\":"
         "\"object\"}]}",
         "`oneOf`"},
        {"{\"$ref\":\"http://example.org/x\"}", "`$ref`"},
        {"{\"$ref\":\"#/$defs/none\"}", "`$ref`"},
        {"{\"$ref\":\"#\"}", "circle"},
        {"{\"type\":\"objct\"}", "objct"},
        {"{\"type\":7}", "`type`"},
        {"{\"type\":\"array\",\"minItems\":3,\"maxItems\":2}", "No value"},
        {"{\"type\":\"string\",\"minLength\":70000}", "`minLength`"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}",
         "No value"},
        {"{\"type\":\"object\",\"properties\":{\"a\":{}},\"required\":[\"b\"],"
         "\"additionalProperties\":false}",
         "`b`"},
        {"false", "No value"},
        {"{\"enum\":[]}", "No value"},
        {"{\"anyOf\":[]}", "empty"},
        {"[]", "object"},
        {"{", "JSON"},
        {"{\"enm\":[1]}", "`enm`"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char why[256];
        struct grammar *g;
        const struct grammar_spec spec = {
            .kind = GRAMMAR_SCHEMA, .text = bad[i].schema, .len = strlen(bad[i].schema)};
        ck_assert_msg(grammar_compile(&g, &spec, why, sizeof(why)) < 0, "%s", bad[i].schema);
        ck_assert_msg(strstr(why, bad[i].word) != NULL, "%s: %s", bad[i].schema, why);
        ck_assert_ptr_null(g);
    }
}
END_TEST

static const char tools[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"add\",\"parameters\":{\"type\":\"object\","
    "\"properties\":{\"a\":{\"$ref\":\"#/$defs/n\"},\"b\":{\"$ref\":\"#/$defs/n\"}},\"required\":["
    "\"a\",\"b\"],\"$defs\":{\"n\":{\"type\":\"integer\"}}}}},{\"type\":\"function\",\"function\":{"
    "\"name\":\"address\",\"parameters\":{\"type\":\"object\",\"properties\":{\"of\":{\"type\":"
    "\"string\"}},\"required\":[\"of\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"now\"}}"
    "]";

START_TEST(calls_of_tools)
{
    struct grammar_spec spec = {
        .kind = GRAMMAR_CALL, .text = tools, .len = sizeof(tools) - 1, .arguments = "arguments"};
    struct grammar *g;
    ck_assert_int_eq(grammar_compile(&g, &spec, NULL, 0), 0);
    ck_assert(accepts(g, "{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 2}}"));
    ck_assert(accepts(g, "{\"name\": \"address\", \"arguments\": {\"of\": \"x\"}}"));
    ck_assert(accepts(g, "{\"name\": \"now\", \"arguments\": {}}"));
    ck_assert(!accepts(g, "{\"name\": \"now\", \"arguments\": {\"of\": \"x\"}}"));
    ck_assert(!accepts(g, "{\"name\": \"sub\", \"arguments\": {}}"));
    grammar_destroy(g);
    spec.tool = "now";
    ck_assert_int_eq(grammar_compile(&g, &spec, NULL, 0), 0);
    ck_assert(!accepts(g, "{\"name\": \"address\", \"arguments\": {\"of\": \"x\"}}"));
    grammar_destroy(g);
    spec.tool = "never";
    ck_assert_int_eq(grammar_compile(&g, &spec, NULL, 0), -EINVAL);
    spec = (struct grammar_spec){.kind = GRAMMAR_OBJECT};
    ck_assert_int_eq(grammar_compile(&g, &spec, NULL, 0), 0);
    ck_assert(accepts(g, "{\"a\": [1, {}]}") && !accepts(g, "[1]"));
    grammar_destroy(g);
}
END_TEST

/* What a schema says that is not supported holds for tools that are strict alone; the others' calls
 * are made as well as it goes. */
START_TEST(tools_that_are_not_strict)
{
    static const char text[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"f\",%s\"parameters\":{\"type\":"
        "\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"multipleOf\":5,\"maximum\":9},"
        "\"s\":{\"type\":\"string\",\"pattern\":\"^a\"}},\"required\":[\"n\",\"s\"]}}}]";
    static const char *const strict[] = {"", "\"strict\":false,", "\"strict\":true,"};
    for (size_t i = 0; i < 3; i++) {
        char list[512];
        char why[256];
        struct grammar *g;
        const int len = snprintf(list, sizeof(list), text, strict[i]);
        const struct grammar_spec spec = {
            .kind = GRAMMAR_CALL, .text = list, .len = (size_t)len, .arguments = "arguments"};
        ck_assert_int_eq(grammar_compile(&g, &spec, why, sizeof(why)), i == 2 ? -EINVAL : 0);
        ck_assert(i != 2 || strstr(why, "`multipleOf`") != NULL);
        ck_assert(i == 2 ||
                  accepts(g, "{\"name\": \"f\", \"arguments\": {\"n\": 3, \"s\": \"b\"}}"));
        ck_assert(i == 2 ||
                  !accepts(g, "{\"name\": \"f\", \"arguments\": {\"n\": 10, \"s\": \"b\"}}"));
        grammar_destroy(g);
    }
}
END_TEST

/* All whole numbers and hundredths of some size, against what a comparison says. */
START_TEST(numbers_between_bounds)
{
    static const struct {
        double low;
        double high;
    } bounds[] = {{0, 0},     {-1, 1},   {7, 13},     {95, 105},    {-1000, -100},
                  {-12, 1},   {1, 1100}, {0.5, 0.75}, {-0.5, 0.01}, {9.99, 10.1},
                  {-3, -2.5}, {-9, -9},  {0.1, 0.3},  {1.005, 1.1}};
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        const double low = bounds[i].low;
        const double high = bounds[i].high;
        for (int integer = 0; integer < 2; integer++) {
            char text[256];
            if (integer && ceil(low) > floor(high))
                continue;
            snprintf(text, sizeof(text), "{\"type\":\"%s\",\"minimum\":%.17g,\"maximum\":%.17g}",
                     integer ? "integer" : "number", low, high);
            struct grammar *g = made(text);
            for (int n = -1200; n <= 1200; n++) {
                const double number = integer ? n : n / 100.0;
                snprintf(text, sizeof(text), "%.*f", integer ? 0 : 2, number);
                if (n != 0 && strcmp(text, "-0.00") != 0)
                    ck_assert_msg(accepts(g, text) == (number >= low && number <= high),
                                  "%s from %g to %g", text, low, high);
            }
            grammar_destroy(g);
        }
    }
}
END_TEST

/* ---- masks ---- */

struct model {
    gguf_t *file;
    tokenizer_t *tokenizer;
    struct grammar_vocab *vocab;
    struct grammar_masks *masks;
    uint8_t *bytes; /* the file's, if it is in memory */
};

static void model_open(struct model *m, const char *path)
{
    size_t size;
    m->bytes = NULL;
    if (path) {
        ck_assert_int_eq(gguf_open(&m->file, path, NULL, 0), 0);
    } else {
        m->bytes = tiny_write(&tiny_default, &size);
        ck_assert_int_eq(gguf_open_memory(&m->file, m->bytes, size, NULL, 0), 0);
    }
    ck_assert_int_eq(tokenizer_create(&m->tokenizer, m->file, NULL, 0), 0);
    ck_assert_int_eq(grammar_vocab_create(&m->vocab, m->tokenizer), 0);
    ck_assert_int_eq(grammar_masks_create(&m->masks, m->vocab), 0);
}

static void model_close(struct model *m)
{
    grammar_masks_destroy(m->masks);
    grammar_vocab_destroy(m->vocab);
    tokenizer_destroy(m->tokenizer);
    gguf_close(m->file);
    free(m->bytes);
}

static bool in_mask(const uint32_t *mask, uint32_t token)
{
    return mask[token / 32] >> token % 32 & 1;
}

/* By trying. */
static bool may_come(const struct model *m, const struct grammar *g,
                     const struct grammar_state *state, uint32_t token, uint32_t left)
{
    static struct grammar_state after;
    const uint32_t rest = grammar_rest(g, state);
    const struct gguf_str bytes = tokenizer_token_bytes(m->tokenizer, token);
    grammar_copy(&after, state);
    if (tokenizer_is_stop(m->tokenizer, token))
        return grammar_may_end(g, state);
    if (bytes.len == 0 || bytes.len > GRAMMAR_TOKEN_MAX)
        return false;
    for (size_t i = 0; i < bytes.len; i++)
        if (!grammar_step(g, &after, (uint8_t)bytes.data[i]))
            return false;
    return grammar_rest(g, &after) < (left > rest ? left : rest ? rest : 1);
}

/* Random tokens of masks until the end; every `often`th mask is compared. */
static void walk_masks(struct model *m, const char *schema, uint64_t seed, uint32_t most,
                       unsigned often)
{
    static struct grammar_state state;
    const uint32_t vocab = tokenizer_vocab(m->tokenizer);
    struct grammar *g = made(schema);
    json_t *document = json_loads(schema, JSON_DECODE_ANY, NULL);
    char text[TEXT_MAX];
    size_t len = 0;
    uint32_t left = most;
    grammar_begin(g, &state);
    ck_assert_msg(grammar_rest(g, &state) <= most, "%s: %u", schema, grammar_rest(g, &state));
    for (; left && !grammar_must_end(&state); left--) {
        const uint32_t *mask = grammar_mask(m->masks, g, seed + 1, &state, left);
        for (uint32_t token = 0; left % often == 0 && token < vocab; token++)
            ck_assert_msg(in_mask(mask, token) == may_come(m, g, &state, token, left),
                          "%s: token %u, %u left, behind %.*s", schema, token, left, (int)len,
                          text);
        uint32_t token = (uint32_t)(tiny_random(&seed) % vocab);
        while (!in_mask(mask, token))
            token = (token + 1) % vocab;
        if (tokenizer_is_stop(m->tokenizer, token))
            break;
        const struct gguf_str bytes = tokenizer_token_bytes(m->tokenizer, token);
        ck_assert(grammar_take(g, m->vocab, &state, token) && len + bytes.len < sizeof(text));
        memcpy(text + len, bytes.data, bytes.len);
        len += bytes.len;
    }
    json_t *value = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    ck_assert_msg(value && schema_check(document, document, value), "%s: %.*s", schema, (int)len,
                  text);
    json_decref(value);
    json_decref(document);
    grammar_destroy(g);
}

START_TEST(masks_are_what_trying_gives)
{
    struct model m;
    model_open(&m, NULL);
    for (uint64_t seed = 0; seed < MASKS; seed++)
        walk_masks(&m, schemas[_i].schema, suite_seed(seed * 100), 48 + (uint32_t)seed * 5, 1);
    model_close(&m);
}
END_TEST

START_TEST(masks_of_a_real_vocabulary)
{
    struct model m;
    if (!tiny_real_model())
        return;
    model_open(&m, tiny_real_model());
    for (uint64_t seed = 0; seed < SCHEMAS * (SANITIZED ? 1 : 4); seed++)
        walk_masks(&m, schemas[seed % SCHEMAS].schema, suite_seed(seed * 100), 60, OFTEN);
    model_close(&m);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("grammar");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, known_texts, 0, (int)SCHEMAS);
    tcase_add_loop_test(tcase, whatever_comes_out_is_valid, 0, (int)SCHEMAS);
    tcase_add_test(tcase, unsound_json_is_not_allowed);
    tcase_add_test(tcase, what_is_not_supported_is_named);
    tcase_add_test(tcase, calls_of_tools);
    tcase_add_test(tcase, tools_that_are_not_strict);
    tcase_add_test(tcase, numbers_between_bounds);
    tcase_add_loop_test(tcase, masks_are_what_trying_gives, 0, (int)SCHEMAS);
    tcase_add_test(tcase, masks_of_a_real_vocabulary);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
