/* SPDX-License-Identifier: Apache-2.0 */
/* resume.h - cuts an answer everywhere and lets the engine go on behind each cut: what comes must
 * be what the uncut run gave. Used by test_resume.c (small model) and test_greedy_model.c (real
 * one). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/engine/engine.h"
#include "kernels/model/model.h"

struct resume_case {
    const uint32_t *prompt;
    size_t prompt_count;
    struct sampler_params sampling;
    uint32_t max_tokens;
    const struct gguf_str *stops;
    size_t stop_count;
    uint32_t logprobs;
    struct grammar *grammar; /* or NULL */
};

struct resume_text {
    char bytes[4096];
    size_t len;
    enum engine_finish finish;
};

/* Asserts it for every cut, in engines that differ in slots, threads and how prompts are divided,
 * with other streams before, beside and behind. `tokenizer` and `text` (what was given uncut) may
 * be NULL. Returns the answer's length. */
size_t resume_check(const struct model *model, const tokenizer_t *tokenizer, uint32_t context,
                    const struct resume_case *c, struct resume_text *text);
