/* SPDX-License-Identifier: Apache-2.0 */
/* An answer that is cut and resumed is the answer that was never cut: tokens, bytes, end, account.
 * Over the small random model; test_greedy_model.c does the same with the real one. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <weft/status.h>

#include "kernels/cpu/cpu.h"
#include "resume.h"
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
    const struct resume_case c = {prompt, count, *sampling, 60};
    return resume_check(model, tokenizer, CONTEXT, &c);
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
    r.max_tokens = 47;
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
    tcase_add_test(tcase, test_refusals);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
