/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kernels/cpu/kernels.h - the arithmetic of the CPU backend as a table of functions, one table per
 * instruction set and kind. forward.c makes a forward pass of them.
 *
 * Exact tables: weights are expanded to float32 in registers (or in a few rows of scratch) and
 * multiplied with float32 activations, so the result differs from a plain float32 implementation
 * only by the order of additions.
 *
 * Fast tables: quantised weights are packed (packed.h) and multiplied as integers with activations
 * quantised to 8 bits for each 32; the rest is float32. All fast tables give the same bits, so a
 * stream may move between processors of different kinds (fast_body.h).
 *
 * In both kinds the order of additions is a function of the row's length alone: a product does not
 * depend, in any bit, on how many columns are computed together or how rows are split among
 * threads.
 *
 * Block formats: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 *
 * Threads: pure functions over the caller's buffers.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/cpu/packed.h"
#include "kernels/exec.h"
#include "kernels/model/model.h"

/* Small functions of a kernel, inlined by force: but not under a sanitizer, whose checks would make
 * that huge. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CPU_INLINE static
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define CPU_INLINE static
#endif
#endif
#ifndef CPU_INLINE
#define CPU_INLINE __attribute__((always_inline)) static inline
#endif

#define CPU_TILE_ROWS 4u /* rows expanded together; scratch holds so many */

/* Keys or values of one head, one row of `width` floats for each position, in pages: position p is
 * row p % CPU_PAGE_ROWS of page p / CPU_PAGE_ROWS, which begins at base + pages[..] * stride. */
#define CPU_PAGE_ROWS EXEC_PAGE_TOKENS
struct cpu_rows {
    const float *base;
    const uint32_t *pages;
    size_t stride; /* floats from page to page */
};

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

    /* One head over `count` >= 1 positions: softmax(q . k * scale) . v. Where the pages lie makes
     * no difference, in any bit. `scores` has room for `count` rounded up to 8. */
    void (*attend)(const float *q, const struct cpu_rows *keys, const struct cpu_rows *values,
                   size_t count, size_t width, float scale, float *scores, float *out);

    /* Fast tables only, else NULL. The part [begin, end) of a column of `cols` activations, all
     * three multiples of 32, to an input as packed.h describes it. */
    void (*quantise)(const float *x, size_t cols, size_t begin, size_t end, uint8_t *input);

    /* As matmul, for panels [begin, end) and inputs `stride` bytes from each other. */
    void (*packed)(const struct packed *w, uint32_t begin, uint32_t end, const uint8_t *inputs,
                   size_t stride, size_t count, float *y, size_t y_stride);
};

/* The rows of positions from `first`, a page's first one, to the page's end or `count`. */
static inline const float *cpu_rows_page(const struct cpu_rows *rows, size_t first, size_t count,
                                         size_t *end)
{
    *end = count - first > CPU_PAGE_ROWS ? first + CPU_PAGE_ROWS : count;
    return rows->base + rows->pages[first / CPU_PAGE_ROWS] * rows->stride;
}

extern const struct cpu_kernels cpu_kernels_portable;

/* NULL if this processor lacks AVX2, FMA or F16C, or the build is for another one. */
const struct cpu_kernels *cpu_kernels_avx2(void);

/* The fast tables; NULL where the processor lacks what they need: AVX2 and F16C; AVX-512 with
 * VNNI. */
extern const struct cpu_kernels cpu_fast_portable;
const struct cpu_kernels *cpu_fast_avx2(void);
const struct cpu_kernels *cpu_fast_avx512(void);

/* The best table, exact or fast. WEFT_CPU in the environment may hold, separated by commas, `exact`
 * (as if asked for) and a table not to go beyond, `portable` or `avx2`. */
const struct cpu_kernels *cpu_kernels_select(int force_portable, int exact);
