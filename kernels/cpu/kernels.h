/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels/cpu/kernels.h - the arithmetic of the CPU backend as a table of functions, one table per
 * instruction set. cpu.c makes a forward pass of them.
 *
 * Weights are expanded to float32 in registers (or in a few rows of scratch) and multiplied with
 * float32 activations, so the result differs from a plain float32 implementation only by the order
 * of additions. Within one table that order is a function of the row's length alone: a product does
 * not depend, in any bit, on how many columns are computed together or how rows are split among
 * threads.
 *
 * Block formats: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 *
 * Threads: pure functions over the caller's buffers.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/model/model.h"

#define CPU_TILE_ROWS 4u /* rows expanded together; scratch holds so many */

struct cpu_kernels {
    const char *name;

    /* Expands one row of `cols` weights; `cols` is whole blocks of the type. */
    void (*expand)(uint32_t type, const uint8_t *row, size_t cols, float *out);

    /* y[c * y_stride + r] = row r of w times column c of x, for rows [row_begin, row_end) and
     * columns [0, count). Each weight is read once. `scratch`: CPU_TILE_ROWS * w->cols floats. */
    void (*matmul)(const struct model_tensor *w, uint32_t row_begin, uint32_t row_end,
                   const float *x, size_t x_stride, size_t count, float *y, size_t y_stride,
                   float *scratch);

    /* out = x / sqrt(mean(x^2) + epsilon) * weight; out may be x */
    void (*rms_norm)(const float *x, const float *weight, size_t count, float epsilon, float *out);

    /* gate = gate / (1 + exp(-gate)) * up */
    void (*swiglu)(float *gate, const float *up, size_t count);

    /* One head over `count` >= 1 positions: softmax(q . k * scale) . v. Keys and values are rows of
     * `width` floats; `scores` has room for `count` rounded up to 8. */
    void (*attend)(const float *q, const float *keys, const float *values, size_t count,
                   size_t width, float scale, float *scores, float *out);
};

/* IEEE half to float, exact. */
float cpu_half_to_float(uint16_t half);

extern const struct cpu_kernels cpu_kernels_portable;

/* NULL if this processor lacks AVX2, FMA or F16C, or the build is for another one. */
const struct cpu_kernels *cpu_kernels_avx2(void);

/* The best table; the portable one if `force_portable` or WEFT_CPU=portable in the environment. */
const struct cpu_kernels *cpu_kernels_select(int force_portable);
