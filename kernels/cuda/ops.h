/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ops.h - the operations a forward pass is made of, as plain C calls. Each puts one or a few
 * kernels on the device's stream and returns. All pointers are the device's unless said otherwise;
 * all matrices are rows one after the other. A column is one row of the batch: one token's
 * activations.
 *
 * The result of a column does not depend, in any bit, on the other columns of the call or their
 * number: sums have orders that follow from the column's own sizes and position alone.
 *
 * Threads: as device.h. Errors: 0, -EINVAL for sizes that a kernel does not take, -EIO.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Columns of a matrix that op_matvec() takes: what fits the shared memory of any device. */
#define OP_COLS_MAX 36864u

/* out[c][i] = w[token of c][i]: expanded rows. tokens: [count]; out: [count][w.cols]. */
struct embed_args {
    struct weights w; /* vocab x width; the width a multiple of 4 */
    const uint32_t *tokens;
    uint32_t count;
    float *out;
};
int op_embed(const struct device *device, const struct embed_args *op);

enum op_mode {
    OP_STORE = 0,  /* y = w x */
    OP_ADD = 1,    /* y = y + w x */
    OP_SWIGLU = 2, /* y = g / (1 + exp(-g)) * u, g = first part's w x, u = second's */
};

struct matvec_part {
    struct weights w;
    const float *bias; /* [w.rows] added to w x; NULL: none */
    float *y;          /* [columns][y_stride] */
    uint32_t y_stride;
};

#define OP_PARTS_MAX 3u

/* Up to three matrices of the same number of columns times the batch's columns, each weight read
 * once for every eight of them. x: [...][x_stride], column c at row x_rows[c], or c if that is
 * NULL. With `norm` ([cols]) each x is first made x / sqrt(mean(x^2) + epsilon) * norm. For
 * OP_SWIGLU: two parts of one shape and type, y of the first. */
struct matvec_args {
    const float *x;
    const uint32_t *x_rows;
    const float *norm;
    float epsilon;
    uint32_t x_stride;
    uint32_t columns;
    uint32_t part_count;
    enum op_mode mode;
    struct matvec_part parts[OP_PARTS_MAX];
};
int op_matvec(const struct device *device, const struct matvec_args *op);

#ifdef __cplusplus
}
#endif
