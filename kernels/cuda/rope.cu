/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.cu - op_rope(): norm of heads, rotation, and the way into the paged KV cache.
 *
 *   q [count][heads][width] in place, k, v [count][kv_heads][width] -> pages
 *   grid ((heads + 2 kv_heads) / 4, count), block 128: a warp a head.
 *
 * Variants considered:
 *  1. three kernels (norm, rotation, write): two more launches a layer for the same bytes.
 *  2. at the end of the products for Q, K and V: a warp there has two rows of a head, not a head;
 *     the norm of Qwen3's heads would need a second pass.
 *  3. angles computed here: float sine of a large angle is wrong in the third digit at 100,000
 *     positions; the table is made in float64 once and read from L2.
 */
#include <errno.h>

#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/mma.cuh"

#define THREADS 128u
#define WARPS   (THREADS / WARP)

static __device__ __forceinline__ void kv_put(const kv_view &kv, size_t index, float value)
{
    if (kv.is_half)
        static_cast<uint16_t *>(kv.pages)[index] = __half_as_ushort(__float2half_rn(value));
    else
        static_cast<float *>(kv.pages)[index] = value;
}

/* Norms and turns a head that lies in shared memory, this warp's alone. */
static __device__ __forceinline__ void turn_head(const rope_args &op, const float *norm,
                                                 const float *angles, float *head)
{
    const uint32_t width = op.kv.head_width;
    const uint32_t lane = threadIdx.x % WARP;
    if (norm) {
        float squares = 0.0f;
        for (uint32_t i = lane; i < width; i += WARP)
            squares = fmaf(head[i], head[i], squares);
        const float scale = 1.0f / sqrtf(warp_sum(squares) / (float)width + op.epsilon);
        for (uint32_t i = lane; i < width; i += WARP)
            head[i] *= scale * norm[i];
        __syncwarp();
    }
    for (uint32_t j = lane; j < op.rope_pairs; j += WARP) {
        const uint32_t first = op.is_halves ? j : 2 * j;
        const uint32_t second = op.is_halves ? j + op.rope_pairs : 2 * j + 1;
        const float cosine = angles[j];
        const float sine = angles[op.rope_pairs + j];
        const float a = head[first];
        const float b = head[second];
        head[first] = a * cosine - b * sine;
        head[second] = a * sine + b * cosine;
    }
    __syncwarp();
}

static __global__ void __launch_bounds__(THREADS) rope_kernel(rope_args op)
{
    SHARED_ARRAY(float, heads, [WARPS][OP_HEAD_MAX]);
    const uint32_t width = op.kv.head_width;
    const uint32_t kv_heads = op.kv.kv_heads;
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t column = blockIdx.y;
    const uint32_t which = blockIdx.x * WARPS + threadIdx.x / WARP;
    const op_row row = op.rows[column];
    const float *angles = op.angles + (size_t)row.position * 2 * op.rope_pairs;
    float *head = heads[threadIdx.x / WARP];
    if (which >= op.heads + 2 * kv_heads)
        return;
    const bool is_query = which < op.heads;
    const bool is_value = which >= op.heads + kv_heads;
    const uint32_t kv_head = is_query ? 0 : (which - op.heads) % kv_heads;
    float *q = op.q + ((size_t)column * op.heads + which) * width;
    const float *from = (is_value ? op.v : op.k) + ((size_t)column * kv_heads + kv_head) * width;
    for (uint32_t i = lane; i < width; i += WARP)
        head[i] = is_query ? q[i] : from[i];
    __syncwarp();
    if (!is_value)
        turn_head(op, is_query ? op.q_norm : op.k_norm, angles, head);
    const size_t index =
        is_query ? 0 : kv_index(op.kv, kv_table(op.kv, row.slot), row.position, is_value, kv_head);
    for (uint32_t i = lane; i < width; i += WARP) {
        if (is_query)
            q[i] = head[i];
        else
            kv_put(op.kv, index + i, head[i]);
    }
}

int op_rope(const struct device *device, const struct rope_args *op)
{
    const uint32_t heads = op->heads + 2 * op->kv.kv_heads;
    if (op->count == 0 || op->kv.head_width > OP_HEAD_MAX || 2 * op->rope_pairs > op->kv.head_width)
        return -EINVAL;
    const dim3 grid(divide_up(heads, WARPS), op->count);
    return LAUNCH(rope_kernel, grid, dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
}

/* ---- op_swiglu(): where gate and up were made apart ---------------------------------------- */

static __global__ void __launch_bounds__(THREADS) swiglu_kernel(swiglu_args op)
{
    const size_t column = blockIdx.y;
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= op.width)
        return;
    const float gate = op.gate[column * op.width + i];
    const float value = gate / (1.0f + expf(-gate)) * op.up[column * op.width + i];
    put_number(op.out, column * op.out_stride + i, value, op.number);
}

int op_swiglu(const struct device *device, const struct swiglu_args *op)
{
    if (op->columns == 0 || op->columns > OP_COLUMNS_MAX || op->width == 0 ||
        op->out_stride < op->width)
        return -EINVAL;
    const dim3 grid(divide_up(op->width, THREADS), op->columns);
    return LAUNCH(swiglu_kernel, grid, dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
}
