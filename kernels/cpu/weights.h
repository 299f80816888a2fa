/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.h - the model's matrices as the chosen kernels want them: in the mapped file as they are,
 * or, for fast kernels, a packed copy of those of quantised types (packed.h). Used by this backend
 * only.
 *
 * Threads: weights_init() uses the pool; immutable afterwards.
 */
#pragma once

#include <stdint.h>

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/pool.h"
#include "kernels/model/model.h"

struct matrix {
    const struct model_tensor *plain;
    struct packed packed; /* data NULL: use `plain` */
};

enum weights_of_layer {
    WEIGHTS_Q,
    WEIGHTS_K,
    WEIGHTS_V,
    WEIGHTS_O,
    WEIGHTS_GATE,
    WEIGHTS_UP,
    WEIGHTS_DOWN,
    WEIGHTS_OF_LAYER,
};

struct weights {
    struct matrix *matrices; /* WEIGHTS_OF_LAYER for each layer, then the output */
    uint32_t layer_count;
    uint8_t *memory; /* of all packed ones */
    size_t memory_bytes;
};

/* 0 or -ENOMEM; weights_deinit() in either case. The model must outlive it. */
int weights_init(struct weights *weights, const struct model *model,
                 const struct cpu_kernels *kernels, struct pool *pool);
void weights_deinit(struct weights *weights);

static inline const struct matrix *weights_at(const struct weights *weights, uint32_t layer,
                                              enum weights_of_layer which)
{
    return &weights->matrices[layer * WEIGHTS_OF_LAYER + which];
}

static inline const struct matrix *weights_output(const struct weights *weights)
{
    return &weights->matrices[weights->layer_count * WEIGHTS_OF_LAYER];
}
