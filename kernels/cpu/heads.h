/* SPDX-License-Identifier: Apache-2.0 */
/*
 * heads.h - what happens to queries, keys and values between their products and the cache: biases,
 * the norm of each head, rotation. Used by forward.c only; the angles are those of model/rope.h.
 *
 * Threads: immutable after heads_init(); the rest writes to the caller's rows.
 */
#pragma once

#include <stdint.h>

#include "kernels/cpu/kernels.h"
#include "kernels/model/model.h"

struct heads {
    const struct model *model;
    const struct cpu_kernels *kernels;
    double *frequencies; /* rope_width / 2 */
    float magnitude;
};

/* 0 or -ENOMEM; heads_deinit() in either case. */
int heads_init(struct heads *heads, const struct model *model, const struct cpu_kernels *kernels);
void heads_deinit(struct heads *heads);

/* `angles`: rope_width floats for a row at `position`. */
void heads_angles(const struct heads *heads, uint32_t position, float *angles);

/* One row's queries, keys and values, all heads one after the other, in place. */
void heads_prepare(const struct heads *heads, const struct model_layer *layer, const float *angles,
                   float *q, float *k, float *v);
