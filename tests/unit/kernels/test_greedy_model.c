/* SPDX-License-Identifier: Apache-2.0 */
/* The default model: the engine's greedy answers equal a plain float32 implementation's, token by
 * token. Skipped (77) without the model's file. Needs about 600 MB of memory. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "greedy.h"
#include "kernels/model/chat.h"
#include "tiny_model.h"

#define PROMPTS 4u
/* The plain loops are many times slower under a sanitizer. */
#if defined(__SANITIZE_ADDRESS__)
#define NEW 8u
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define NEW 8u
#endif
#endif
#ifndef NEW
#define NEW 48u
#endif
#define CONTEXT 128u

START_TEST(test_answers)
{
    static const char *const questions[PROMPTS] = {
        "What is the capital of France?",
        "Count from 1 to 12.",
        "Name three rivers and say where each one ends.",
        "Write a C function that adds two numbers.",
    };
    const struct cpu_options options = {.slots = PROMPTS, .context = CONTEXT, .batch_max = 64};
    char why[128];
    struct model *model;
    tokenizer_t *tokenizer;
    struct chat chat;
    uint32_t tokens[PROMPTS][CONTEXT];
    uint32_t *prompts[PROMPTS];
    size_t counts[PROMPTS];
    ck_assert_msg(model_open(&model, tiny_real_model(), why, sizeof(why)) == 0, "%s", why);
    ck_assert_int_eq(tokenizer_create(&tokenizer, model->file, why, sizeof(why)), 0);
    ck_assert_int_eq(chat_init(&chat, model->file, tokenizer, why, sizeof(why)), 0);
    for (size_t i = 0; i < PROMPTS; i++) {
        const struct chat_message message = {CHAT_USER, questions[i], strlen(questions[i])};
        prompts[i] = tokens[i];
        ck_assert_int_eq(chat_encode(&chat, &message, 1, tokens[i], CONTEXT - NEW, &counts[i]), 0);
    }
    const float margin = greedy_compare(model, tokenizer, &options, prompts, counts, PROMPTS, NEW);
    printf("smallest margin of a chosen token: %g\n", (double)margin);
    tokenizer_destroy(tokenizer);
    model_destroy(model);
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
    tcase_add_test(tcase, test_answers);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
