/* SPDX-License-Identifier: Apache-2.0 */
/* The default model: the engine's greedy answers equal a plain float32 implementation's, token by
 * token, and an answer resumed behind any cut is the uncut one. Skipped (77) without the model's
 * file. Needs about 600 MB of memory. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greedy.h"
#include "kernels/model/chat.h"
#include "resume.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define PROMPTS 4u
#define TOLD    (SANITIZED ? 1u : PROMPTS) /* of them, from one that the seed names */
#define NEW     (SANITIZED ? 6u : 48u)
#define RESUMED (NEW / 3) /* each cut is a run of its own */
#define CONTEXT 128u

static struct model *model;
static tokenizer_t *tokenizer;
static struct chat chat;

static void setup(void)
{
    char why[128];
    ck_assert_msg(model_open(&model, tiny_real_model(), why, sizeof(why)) == 0, "%s", why);
    ck_assert_int_eq(tokenizer_create(&tokenizer, model->file, why, sizeof(why)), 0);
    ck_assert_int_eq(chat_init(&chat, model->file, tokenizer, why, sizeof(why)), 0);
}

static void teardown(void)
{
    tokenizer_destroy(tokenizer);
    model_destroy(model);
}

static size_t encode(const char *question, uint32_t *tokens)
{
    const struct chat_message message = {CHAT_USER, question, strlen(question)};
    size_t count;
    ck_assert_int_eq(chat_encode(&chat, &message, 1, tokens, CONTEXT - NEW, &count), 0);
    return count;
}

START_TEST(test_answers)
{
    static const char *const questions[PROMPTS] = {
        "What is the capital of France?",
        "Count from 1 to 12.",
        "Name three rivers and say where each one ends.",
        "Write a C function that adds two numbers.",
    };
    const struct cpu_options options = {
        .exact = true, .slots = TOLD, .context = CONTEXT, .batch_max = 64};
    uint32_t tokens[PROMPTS][CONTEXT];
    uint32_t *prompts[PROMPTS];
    size_t counts[PROMPTS];
    for (size_t i = 0; i < TOLD; i++) {
        prompts[i] = tokens[i];
        counts[i] = encode(questions[(suite_seed(0) + i) % PROMPTS], tokens[i]);
    }
    const float margin = greedy_compare(model, tokenizer, &options, prompts, counts, TOLD, NEW);
    printf("smallest margin of a chosen token: %g\n", (double)margin);
}
END_TEST

START_TEST(test_resumed)
{
    static const struct sampler_params kinds[] = {
        {.temperature = 0.0f},
        {.temperature = 0.8f, .top_p = 0.9f, .top_k = 40, .seed = 4711},
    };
    uint32_t tokens[CONTEXT];
    const size_t count = encode("Count from 1 to 12.", tokens);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct resume_case c = {
            .prompt = tokens, .prompt_count = count, .sampling = kinds[i], .max_tokens = RESUMED};
        printf("resumed at every cut of %zu tokens\n",
               resume_check(model, tokenizer, CONTEXT, &c, NULL));
    }
}
END_TEST

int main(void)
{
    if (!tiny_real_model()) {
        printf("skipped: no model file (scripts/model-fetch gets it)\n");
        return 77;
    }
    Suite *suite = suite_create("greedy_model");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 600);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_answers);
    tcase_add_test(tcase, test_resumed);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
