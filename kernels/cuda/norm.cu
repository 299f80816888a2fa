/* SPDX-License-Identifier: Apache-2.0 */
/*
 * norm.cu - op_norm(): RMSNorm of whole rows, where no product follows that could do it on the way
 * (matvec.cu): before products on the tensor cores, and for the states behind the last layer.
 *
 *   x [...][width] -> out [count][width], as floats or what op_gemm() takes
 *   grid count, block 256
 *
 * Variants considered:
 *  1. in op_gemm(), as in op_matvec(): every block of a row of tiles would sum the squares again.
 *  2. the squares alone, a factor a row, and the product with it at the end of op_gemm(): saves a
 *     write and a read of the stream; but the weight would have to go into the matrix.
 *  3. a warp a row: one row's reads then wait for each other; prompts have enough rows for either.
 */
#include <errno.h>

#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/ops.h"

#define THREADS 256u
#define WARPS   (THREADS / WARP)

static __global__ void __launch_bounds__(THREADS) norm_kernel(norm_args op)
{
    SHARED_ARRAY(float, squares, [WARPS]);
    const size_t row = op.x_rows ? op.x_rows[blockIdx.x] : blockIdx.x;
    const float *x = op.x + row * op.width;
    const size_t out = (size_t)blockIdx.x * op.out_stride;
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < op.width; i += THREADS)
        sum = fmaf(x[i], x[i], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        squares[threadIdx.x / WARP] = sum;
    __syncthreads();
    sum = 0.0f;
    for (uint32_t w = 0; w < WARPS; w++)
        sum += squares[w];
    const float scale = 1.0f / sqrtf(sum / (float)op.width + op.epsilon);
    for (uint32_t i = threadIdx.x; i < op.width; i += THREADS)
        put_number(op.out, out + i, x[i] * (scale * op.weight[i]), op.number);
}

int op_norm(const struct device *device, const struct norm_args *op)
{
    if (op->count == 0 || op->width == 0 || op->out_stride < op->width)
        return -EINVAL;
    return LAUNCH(norm_kernel, dim3(op->count), dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
}
