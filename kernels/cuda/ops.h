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

/* Columns of a call: what a launch's second and third dimension take. */
#define OP_COLUMNS_MAX 65535u

/* out[c][i] = w[token of c][i]: expanded rows. tokens: [count]; out: [count][w.cols]. */
struct embed_args {
    struct weights w; /* vocab x width; the width a multiple of 4 */
    const uint32_t *tokens;
    uint32_t count;
    float *out;
};
int op_embed(const struct device *device, const struct embed_args *op);

/* out[r][c] = w[r][c] as halves, beyond the largest the largest: [w.rows][stride]. Columns and the
 * stride are multiples of 4; nothing is written behind the columns. */
int op_expand(const struct device *device, const struct weights *w, uint16_t *out, uint32_t stride);

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

/* Kinds of numbers that activations come in. */
enum op_number {
    OP_F32 = 0,
    OP_F16 = 1,  /* halves; beyond the largest: the largest */
    OP_BF16 = 2, /* bfloat16 */
};

/* As op_matvec() for many columns on the tensor cores: activations as 16-bit numbers, weights as
 * numbers of the same kind, sums in float32. Not the same bits as op_matvec(), but a column's do
 * not depend on the others. OP_BF16: all parts are BF16. x: [columns][x_stride], rows aligned to 16
 * bytes. For OP_SWIGLU the result is `made` [columns][made_stride], numbers of x's kind, with zeros
 * behind rows of an odd number, and no part's y. y is aligned to 8. */
struct gemm_args {
    const uint16_t *x;
    uint16_t *made;
    uint32_t x_stride; /* a multiple of 8, as is made_stride */
    uint32_t made_stride;
    uint32_t columns;
    uint32_t part_count;
    enum op_mode mode;
    enum op_number number; /* OP_F16 or OP_BF16 */
    struct matvec_part parts[OP_PARTS_MAX];
};
int op_gemm(const struct device *device, const struct gemm_args *op);

/* ---- attention --------------------------------------------------------------------------- */

#define OP_PAGE          16u  /* positions of a page of the KV cache */
#define OP_HEAD_MAX      256u /* widest head; a multiple of 4 */
#define OP_SPLIT_LEAST   256u /* positions of a split, at least */
#define OP_SPLITS_MAX    32u  /* of one column */
#define OP_PARTIAL_EXTRA 2u   /* floats of a split's result beyond the head's width */

/* The KV cache of one layer: pages of [keys, values][kv_heads][OP_PAGE][head_width] floats, or
 * halves if is_half. Position p of a slot lies in page tables[slot * table_stride + p / OP_PAGE].
 */
struct kv_view {
    void *pages;
    const uint32_t *tables;
    uint32_t table_stride;
    uint32_t kv_heads;
    uint32_t head_group; /* query heads that look at one KV head */
    uint32_t head_skip;  /* of the first one's that are not there: a part of a model; else 0 */
    uint32_t head_width;
    uint32_t is_half;
};

/* Where a column stands. */
struct op_row {
    uint32_t slot;
    uint32_t position;
};

/* Queries and keys get the norm of their heads (if there is one), turn by the angles of their
 * position, queries in place; keys and values go into the cache. q: [count][heads * head_width],
 * k, v: [count][kv_heads * head_width]; angles: [position][cosines, then sines: rope_pairs each].
 */
struct rope_args {
    float *q;
    const float *k;
    const float *v;
    const float *q_norm; /* [head_width], NULL: none */
    const float *k_norm;
    const float *angles;
    const struct op_row *rows;
    struct kv_view kv;
    float epsilon;
    uint32_t count;
    uint32_t heads;
    uint32_t rope_pairs;
    uint32_t is_halves; /* pair j is j and j + rope_pairs; else 2j and 2j + 1 */
};
int op_rope(const struct device *device, const struct rope_args *op);

/* out[c][h] = softmax(q . k * scale) . v over the column's positions 0 .. its own, which the cache
 * holds. q, out: [count][heads * head_width]. `partial` has op_partial_floats() for `count`
 * columns. Work is launched for positions below `length_max`, which all columns' are. */
struct attend_args {
    const float *q;
    float *out;
    float *partial;
    const struct op_row *rows;
    struct kv_view kv;
    float scale;
    uint32_t count;
    uint32_t heads; /* head h looks at KV head (kv.head_skip + h) / kv.head_group */
    uint32_t length_max;
};
int op_attend(const struct device *device, const struct attend_args *op);

static inline size_t op_partial_floats(uint32_t count, uint32_t heads, uint32_t head_width)
{
    return (size_t)count * heads * OP_SPLITS_MAX * (head_width + OP_PARTIAL_EXTRA);
}

/* Neighbouring columns of one slot, positions rising by one. */
struct op_tile {
    uint32_t first;
    uint32_t count; /* op_tile_columns() at most */
};

#define OP_PREFILL_QUERIES 64u /* columns times heads of a tile, at most */
#define OP_PREFILL_HEADS   16u /* of one KV head that a tile has, at most */

/* As op_attend(), for pieces of prompts on the tensor cores: queries, keys, values and weights as
 * halves, sums in float32. Not the same bits as op_attend(). Every column is in one tile. out:
 * [columns][out_stride] numbers. */
struct prefill_args {
    const float *q;
    void *out;
    const struct op_row *rows;
    const struct op_tile *tiles;
    struct kv_view kv;
    float scale;
    uint32_t tile_count;
    uint32_t heads;
    uint32_t out_stride;
    enum op_number number;
};
int op_prefill(const struct device *device, const struct prefill_args *op);

static inline uint32_t op_tile_columns(uint32_t head_group)
{
    return OP_PREFILL_QUERIES / (head_group < OP_PREFILL_HEADS ? head_group : OP_PREFILL_HEADS);
}

/* ---- sampling ------------------------------------------------------------------------------ */

/* What kernels/model/sampler.h wants to know of one row. */
struct sample_params {
    float temperature; /* 0 or less, or NaN: greedy */
    float top_p;
    float min_p;
    uint32_t top_k;
    uint64_t seed;
    uint64_t position; /* the one the token will have */
};

#define OP_VOCAB_MAX (1u << 20)

/* tokens[c] = what sampler_pick() gives for row c of logits [count][vocab]; UINT32_MAX if no logit
 * is a number above minus infinity. Sums are whole numbers of 2^-44, so their order does not
 * matter; the draw is another one than sampler_pick()'s only if a float64 sum is that close to a
 * border. */
struct sample_args {
    const float *logits;
    const struct sample_params *params;
    uint32_t *tokens;
    uint32_t count;
    uint32_t vocab;
};
int op_sample(const struct device *device, const struct sample_args *op);

/* ---- the rest ------------------------------------------------------------------------------ */

/* out[c] = x / sqrt(mean(x^2) + epsilon) * weight, of x's row x_rows[c], or c if that is NULL.
 * x: [...][width], out: [count][out_stride] numbers. */
struct norm_args {
    const float *x;
    const uint32_t *x_rows;
    const float *weight; /* [width] */
    void *out;
    float epsilon;
    uint32_t width;
    uint32_t count;
    uint32_t out_stride;
    enum op_number number;
};
int op_norm(const struct device *device, const struct norm_args *op);

/* out[c][i] = gate[c][i] / (1 + exp(-gate[c][i])) * up[c][i]; gate, up: [columns][width], out:
 * [columns][out_stride] numbers. `out` may be `gate`. */
struct swiglu_args {
    const float *gate;
    const float *up;
    void *out;
    uint32_t width;
    uint32_t columns;
    uint32_t out_stride;
    enum op_number number;
};
int op_swiglu(const struct device *device, const struct swiglu_args *op);

#ifdef __cplusplus
}
#endif
