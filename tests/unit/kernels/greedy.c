/* SPDX-License-Identifier: Apache-2.0 */
/* Engine against reference. */
#include "greedy.h"

#include <check.h>
#include <stdlib.h>

#define NEW_MAX     256u
#define PROMPTS_MAX 8u

struct answer {
    uint32_t tokens[NEW_MAX];
    size_t count;
    enum engine_finish finish;
};

static void run_engine(const struct model *model, const tokenizer_t *tokenizer,
                       const struct cpu_options *options, uint32_t *const *prompts,
                       const size_t *counts, size_t prompt_count, uint32_t new_tokens,
                       struct answer *answers)
{
    exec_t *exec;
    engine_t *engine;
    uint64_t now = 1;
    ck_assert_int_eq(cpu_create(&exec, model, options), 0);
    ck_assert_int_eq(engine_create(&engine, exec, tokenizer, NULL), 0);
    for (size_t i = 0; i < prompt_count; i++) {
        const struct engine_request request = {
            .id = i, .tokens = prompts[i], .token_count = counts[i], .max_tokens = new_tokens};
        ck_assert_int_eq(engine_submit(engine, &request, now), 0);
    }
    const size_t capacity = engine_events_max(engine);
    struct engine_event *events = calloc(capacity, sizeof(*events));
    ck_assert_ptr_nonnull(events);
    while (engine_busy(engine)) {
        const int count = engine_step(engine, now += 1000, events, capacity);
        ck_assert_int_ge(count, 0);
        for (int i = 0; i < count; i++) {
            struct answer *a = &answers[events[i].id];
            if (events[i].kind == ENGINE_TOKEN)
                a->tokens[a->count++] = events[i].token;
            else
                a->finish = events[i].finish;
        }
    }
    free(events);
    engine_destroy(engine);
    exec_destroy(exec);
}

float greedy_compare(const struct model *model, const tokenizer_t *tokenizer,
                     const struct cpu_options *options, uint32_t *const *prompts,
                     const size_t *counts, size_t prompt_count, uint32_t new_tokens)
{
    static struct answer answers[PROMPTS_MAX];
    float least = 1e30f;
    ck_assert(prompt_count <= PROMPTS_MAX && new_tokens <= NEW_MAX);
    for (size_t i = 0; i < prompt_count; i++)
        answers[i].count = 0;
    run_engine(model, tokenizer, options, prompts, counts, prompt_count, new_tokens, answers);
    struct reference *r = reference_create(model, options->context);
    for (size_t p = 0; p < prompt_count; p++) {
        const struct answer *a = &answers[p];
        reference_reset(r);
        for (size_t i = 0; i < counts[p]; i++)
            (void)reference_forward(r, prompts[p][i]);
        for (size_t i = 0; i < new_tokens; i++) {
            float margin;
            const uint32_t best = reference_best(r, &margin);
            least = margin < least ? margin : least;
            if (tokenizer && tokenizer_is_stop(tokenizer, best)) {
                ck_assert_msg(a->count == i && a->finish == ENGINE_STOP,
                              "prompt %zu: reference stops after %zu, engine after %zu", p, i,
                              a->count);
                break;
            }
            ck_assert_msg(i < a->count && a->tokens[i] == best,
                          "prompt %zu, token %zu: reference %u (margin %g), engine %u", p, i, best,
                          (double)margin, i < a->count ? a->tokens[i] : UINT32_MAX);
            (void)reference_forward(r, best);
        }
    }
    reference_destroy(r);
    return least;
}
