/* SPDX-License-Identifier: Apache-2.0 */
/* greedy.h - compares the engine's greedy output with reference.h, token by token. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/cpu.h"
#include "kernels/engine/engine.h"
#include "reference.h"

/* Runs all prompts through one engine at once, then each through the reference, and asserts equal
 * tokens. Returns the smallest margin by which a token was chosen. `tokenizer` may be NULL; with it
 * answers end at a stop token. */
float greedy_compare(const struct model *model, const tokenizer_t *tokenizer,
                     const struct cpu_options *options, uint32_t *const *prompts,
                     const size_t *counts, size_t prompt_count, uint32_t new_tokens);
