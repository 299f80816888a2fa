/* SPDX-License-Identifier: Apache-2.0 */
/* agree.h - weft-bench exec --agreement; see agree.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/model/model.h"

/* Prints. `prompts` of the 200 there are, over and over beyond. Returns 0 or a negative errno. */
int agree_run(const struct model *model, uint32_t prompts, uint32_t threads, bool json);
