/* SPDX-License-Identifier: Apache-2.0 */
/* ranks.h - what tests of shards have in common, whatever the backend: a small model in a file that
 * ranks can open, it and the whole one computing the same side by side, this process's ranks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernels/exec.h"
#include "kernels/model/model.h"
#include "tiny_model.h"

#define RANKS_SLOTS       3u
#define RANKS_BATCH       32u
#define RANKS_TOLERANCE   1e-4f   /* of the largest logit, in float32 */
#define RANKS_PATIENCE_MS 120000u /* for a rank on a busy machine */

/* The model in use, and its file. */
extern struct model *ranks_model;
extern char ranks_path[];

void ranks_open(const struct tiny_shape *shape);
void ranks_close(void);

/* The largest difference, of the largest number. NaN is one, too. */
void ranks_compare(const char *what, const float *mine, const float *theirs, size_t count,
                   float tolerance);
uint32_t ranks_best(const float *logits);

struct ranks_run {
    uint64_t seed;
    uint32_t steps;
    float tolerance;
    bool same_tokens; /* the likeliest ones are the same, too */
};

/* Steps of all slots, pieces of prompts and single tokens mixed. */
void ranks_run_both(exec_t *mine, exec_t *theirs, const struct ranks_run *run);

/* A prompt for one slot; logits for the last row. Returns `count`. */
size_t ranks_fill(struct exec_row *rows, uint32_t slot, uint32_t count);

/* A prompt of `count` tokens gives the same. `may_seem_lost`: -ESTALE is tried again. */
void ranks_expect_right(exec_t *mine, exec_t *theirs, uint32_t count, bool may_seem_lost);

/* This process's children, at most `max`; returns how many. */
size_t ranks_children(pid_t *out, size_t max);
