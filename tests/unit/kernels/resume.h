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
};

/* Asserts it for every cut, in engines that differ in slots, threads and how prompts are divided,
 * with other streams before, beside and behind. `tokenizer` may be NULL. Returns the answer's
 * length. */
size_t resume_check(const struct model *model, const tokenizer_t *tokenizer, uint32_t context,
                    const struct resume_case *c);
