/* SPDX-License-Identifier: Apache-2.0 */
/*
 * embed.cu - op_embed(): rows of the embedding, expanded.
 *
 *   w [vocab][width], tokens [count] -> out [count][width]
 *   grid (count), block 128: a thread a chunk.
 *
 * Variants considered:
 *  1. a block a token: what is done; a few KiB are read, nothing to gain.
 *  2. into the first layer's norm: saves one launch a step, and a whole other norm kernel.
 */
#include <errno.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/ops.h"

#define THREADS 128u

struct expand_row {
    row_view row;
    float *out;
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
                    *reinterpret_cast<float4 *>(out + at) = loaded.quad(i);
            }
        }
    }
};

static __global__ void embed_kernel(embed_args op)
{
    expand_row e;
    e.row = row_of(op.w, op.tokens[blockIdx.x]);
    e.out = op.out + (size_t)blockIdx.x * op.w.cols;
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
