/* SPDX-License-Identifier: Apache-2.0 */
/* An answer that is cut and resumed is the answer that was never cut: tokens, bytes, end, account.
 * Over the small random model; test_greedy_model.c does the same with the real one. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "kernels/cpu/cpu.h"
#include "resume.h"
#include "schema_check.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define CONTEXT 120u
#define ROUNDS  6u

static uint8_t *data;
static struct model *model;
static tokenizer_t *tokenizer;

static void setup(void)
{
    size_t size;
    char why[128];
    gguf_t *file;
    data = tiny_write(&tiny_default, &size);
    ck_assert_int_eq(gguf_open_memory(&file, data, size, why, sizeof(why)), 0);
    ck_assert_int_eq(model_create(&model, file, why, sizeof(why)), 0);
    ck_assert_int_eq(tokenizer_create(&tokenizer, file, why, sizeof(why)), 0);
}

static void teardown(void)
{
    tokenizer_destroy(tokenizer);
    model_destroy(model);
    free(data);
}

static size_t check_round(uint64_t seed, const struct sampler_params *sampling)
{
    uint32_t prompt[40];
    uint64_t rng = seed;
    const size_t count = 1 + tiny_random(&rng) % 40;
    for (size_t i = 0; i < count; i++)
        prompt[i] = (uint32_t)(tiny_random(&rng) % 256);
    const struct resume_case c = {
        .prompt = prompt, .prompt_count = count, .sampling = *sampling, .max_tokens = 60};
    return resume_check(model, tokenizer, CONTEXT, &c, NULL);
}

START_TEST(test_every_cut)
{
    size_t cuts = 0;
    size_t stopped = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        const struct sampler_params kinds[] = {
            {.temperature = 0.0f},
            {.temperature = 0.8f, .top_p = 0.9f, .top_k = 40, .seed = round + 1},
            {.temperature = 1.5f, .min_p = 0.01f, .seed = UINT64_MAX - round},
        };
        const size_t length = check_round(round + 1, &kinds[round % 3]);
        cuts += length;
        stopped += length < 60;
    }
    ck_assert_uint_gt(cuts, 100);
    ck_assert_uint_gt(stopped, 0); /* ends by the model are among them */
}
END_TEST

/* Penalties count resumed tokens, and a string may have begun in them. */
START_TEST(test_every_cut_with_controls)
{
    static const uint32_t prompt[] = {70, 71, 72, 73};
    struct resume_text plain;
    struct resume_text text;
    size_t held_back = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        struct resume_case c = {
            .prompt = prompt,
            .prompt_count = 4,
            .sampling = {.temperature = 0.7f,
                         .seed = round,
                         .repetition = round % 2 ? 1.3f : 0.0f,
                         .presence = round % 3 ? 0.5f : 0.0f,
                         .frequency = 0.25f},
            .max_tokens = 40,
            .logprobs = 1 + (uint32_t)round % 4,
        };
        (void)resume_check(model, tokenizer, CONTEXT, &c, &plain);
        if (plain.len < 8)
            continue;
        /* One that occurs, one that nearly does to the last byte, one that never does. */
        char nearly[6];
        memcpy(nearly, plain.bytes + plain.len - 5, 5);
        nearly[5] = '!';
        const size_t at = plain.len / 2;
        const struct gguf_str stops[] = {{plain.bytes + at, 4}, {nearly, 6}, {"never there", 11}};
        c.stops = stops;
        c.stop_count = 3;
        (void)resume_check(model, tokenizer, CONTEXT, &c, &text);
        ck_assert_int_eq(text.finish, ENGINE_STOP);
        ck_assert_uint_le(text.len, at);
        ck_assert_mem_eq(text.bytes, plain.bytes, text.len);
        ck_assert(memmem(text.bytes, text.len, stops[0].data, 4) == NULL);
        c.stops = stops + 1;
        c.stop_count = 2; /* what was held back comes with the end */
        (void)resume_check(model, tokenizer, CONTEXT, &c, &text);
        ck_assert_int_eq(text.finish, plain.finish);
        ck_assert_uint_eq(text.len, plain.len);
        ck_assert_mem_eq(text.bytes, plain.bytes, plain.len);
        held_back++;
    }
    ck_assert_uint_ge(held_back, ROUNDS / 2);
}
END_TEST

/* The place in a grammar follows from the resumed tokens; what comes meets the schema, cut or not,
 * and is whole although so few tokens are left. */
START_TEST(test_every_cut_with_a_grammar)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\"},\"b\":{\"type\":"
        "\"array\",\"items\":{\"type\":[\"integer\",\"null\"]}}},\"required\":[\"a\",\"b\"]}";
    static const uint32_t prompt[] = {70, 71, 72, 73};
    const struct grammar_spec spec = {
        .kind = GRAMMAR_SCHEMA, .text = schema, .len = sizeof(schema) - 1};
    struct resume_text text;
    struct grammar *grammar;
    json_t *document = json_loads(schema, 0, NULL);
    ck_assert_int_eq(grammar_compile(&grammar, &spec, NULL, 0), 0);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        const struct resume_case c = {
            .prompt = prompt,
            .prompt_count = 4,
            .sampling = {.temperature = round % 2 ? 1.2f : 0.0f, .seed = round, .presence = 0.2f},
            .max_tokens = 50,
            .logprobs = round % 3 ? 0 : 3,
            .grammar = grammar,
        };
        (void)resume_check(model, tokenizer, CONTEXT, &c, &text);
        ck_assert_int_eq(text.finish, ENGINE_STOP);
        json_t *value = json_loadb(text.bytes, text.len, JSON_ALLOW_NUL, NULL);
        ck_assert_msg(value && schema_check(document, document, value), "%.*s", (int)text.len,
                      text.bytes);
        json_decref(value);
    }
    json_decref(document);
    grammar_destroy(grammar);
}
END_TEST

START_TEST(test_refusals)
{
    static const uint32_t prompt[] = {1, 2, 3};
    static const uint32_t fine[] = {4, 5, 6};
    static const uint32_t outside[] = {4, TINY_VOCAB, 6};
    static const uint32_t ended[] = {4, TINY_IM_END, 6};
    const struct cpu_options options = {.slots = 2, .context = 50};
    exec_t *exec;
    engine_t *engine;
    ck_assert_int_eq(cpu_create(&exec, model, &options), 0);
    ck_assert_int_eq(engine_create(&engine, exec, tokenizer, NULL), 0);
    struct engine_request r = {
        .id = 1, .tokens = prompt, .token_count = 3, .resume = outside, .resume_count = 3};
    r.max_tokens = 10;
    ck_assert_int_eq(engine_submit(engine, &r, 1), -EINVAL);
    r.resume = ended;
    ck_assert_int_eq(engine_submit(engine, &r, 1), -EINVAL);
    r.resume = fine;
    r.max_tokens = 2; /* fewer than have been given */
    ck_assert_int_eq(engine_submit(engine, &r, 1), -EINVAL);
    r.max_tokens = 48; /* counts the resumed ones: 3 + 48 exceeds the context, 3 + 47 fills it */
    ck_assert_int_eq(engine_submit(engine, &r, 1), WEFT_E_TOO_LONG);
    static const struct gguf_str none = {"", 0};
    r.max_tokens = 47;
    r.stops = &none;
    r.stop_count = 1;
    ck_assert_int_eq(engine_submit(engine, &r, 1), -EINVAL);
    const struct gguf_str first = tokenizer_token_bytes(tokenizer, fine[0]);
    r.stops = &first; /* ended before the last resumed token */
    ck_assert_int_eq(engine_submit(engine, &r, 1), -EINVAL);
    r.stop_count = 0;
    r.logprobs = ENGINE_LOGPROBS_MAX + 1;
    ck_assert_int_eq(engine_submit(engine, &r, 1), -EINVAL);
    r.logprobs = 0;
    ck_assert_int_eq(engine_submit(engine, &r, 1), 0);
    engine_destroy(engine);
    exec_destroy(exec);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resume");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 300);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_every_cut);
    tcase_add_test(tcase, test_every_cut_with_controls);
    tcase_add_test(tcase, test_every_cut_with_a_grammar);
    tcase_add_test(tcase, test_refusals);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
