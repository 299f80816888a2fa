/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embed.cu - op_embed(): rows of the embedding, expanded. op_expand(): a whole matrix as halves,
 * for products by a library.
 *
 *   w [vocab][width], tokens [count] -> out [count][width]
 *   w [rows][cols] -> out [rows][stride]
 *   grid (count) or (rows), block 128: a thread a chunk.
 *
 * Variants considered:
 *  1. a block a token: what is done; a few KiB are read, nothing to gain.
 *  2. into the first layer's norm: saves one launch a step, and a whole other norm kernel.
 */
#include <errno.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/ops.h"

#define THREADS 128u

struct expand_row {
    row_view row;
    float *out;       /* floats, */
    uint16_t *halves; /* or halves if that is NULL */
    uint32_t cols;
    uint32_t first;
    uint32_t step;

    template <uint32_t TYPE> DEVICE_INLINE void run()
    {
        const unsigned chunks = (cols + chunk_columns(TYPE) - 1) / chunk_columns(TYPE);
        for (unsigned c = first; c < chunks; c += step) {
            chunk<TYPE> loaded;
            loaded.load(row, c);
            for (unsigned i = 0; i < chunk<TYPE>::QUADS; i++) {
                const unsigned at = chunk<TYPE>::column(c, i);
                if (at < cols)
                    put(at, loaded.quad(i));
            }
        }
    }

    DEVICE_INLINE void put(unsigned at, float4 v) const
    {
        if (out) {
            *reinterpret_cast<float4 *>(out + at) = v;
            return;
        }
        uint2 four;
        four.x = to_halves(v.x, v.y);
        four.y = to_halves(v.z, v.w);
        *reinterpret_cast<uint2 *>(halves + at) = four;
    }
};

static __global__ void embed_kernel(embed_args op)
{
    expand_row e;
    e.row = row_of(op.w, op.tokens[blockIdx.x]);
    e.out = op.out + (size_t)blockIdx.x * op.w.cols;
    e.halves = NULL;
    e.cols = op.w.cols;
    e.first = threadIdx.x;
    e.step = THREADS;
    for_type(op.w.type, e);
}

int op_embed(const struct device *device, const struct embed_args *op)
{
    if (op->count == 0 || op->w.cols % 4)
        return -EINVAL;
    return LAUNCH(embed_kernel, dim3(op->count), dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
}

static __global__ void expand_kernel(weights w, uint16_t *out, uint32_t stride)
{
    expand_row e;
    e.row = row_of(w, blockIdx.x);
    e.out = NULL;
    e.halves = out + (size_t)blockIdx.x * stride;
    e.cols = w.cols;
    e.first = threadIdx.x;
    e.step = THREADS;
    for_type(w.type, e);
}

int op_expand(const struct device *device, const struct weights *w, uint16_t *out, uint32_t stride)
{
    if (w->rows == 0 || w->cols % 4 || stride % 4 || stride < w->cols)
        return -EINVAL;
    return LAUNCH(expand_kernel, dim3(w->rows), dim3(THREADS), 0, device->stream, *w, out, stride)
               ? -EIO
               : 0;
}
