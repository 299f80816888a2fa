/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm.cu - op_gemm(): many columns times a quantised matrix on the tensor cores, halves in,
 * float32 sums.
 *
 *   x [columns][cols], w [rows][cols] -> y [columns][rows]
 *   grid (rows / 64, columns / 64), block 128: four warps of 32 x 32
 *
 * A step takes 64 of the cols: the columns' values are rounded to halves, the rows' weights
 * expanded (chunk.cuh) and rounded to halves, both into shared memory; every warp then makes 2 x 4
 * tiles by mma (mma.cuh). A row of 72 halves, 36 words, keeps fragments that are eight rows apart
 * in different banks.
 *
 * A column's sums do not depend on its neighbours, but they are not op_matvec()'s: halves carry 11
 * bits. So a prompt that went this way has other keys and values than one that came token by token:
 * the backend uses it for rows that want no logits, and only if it was created to be fast.
 *
 * Variants considered:
 *  1. op_matvec() for prompts: float32 and the same bits as decoding; each weight is expanded once
 *     per eight columns and multiplied on the ordinary units, a twentieth of the tensor cores'
 * rate. What the backend does unless it was created to be fast.
 *  2. bf16 instead of halves: a wider range, 8 bits. Activations beyond 65,504 are clamped here.
 *  3. weights expanded to halves in memory once and cuBLASLt: for 4 bits it reads four times the
 *     bytes, which long prompts hide. But it chooses tiles, and with them the order of sums, by the
 *     number of columns: a prompt that is cut otherwise would be other bits. gpu-check measures its
 *     rate beside this kernel's.
 *  4. cp.async and a second buffer: the expansion of the next step would hide behind the products.
 *     To be measured first.
 *  5. wgmma (sm_90): twice the rate of mma.sync; the tile then wants 64 x 256 and a warp group.
 */
#include <errno.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/ops.h"

#define THREADS 128u
#define TILE    64u  /* columns, rows, and cols of a step */
#define PADDED  36u  /* words of two halves */
#define WIDE    128u /* cols of whose chunks some reach over a step: Q6_K */

struct tile_memory {
    uint32_t (*x)[PADDED];
    uint32_t (*w)[PADDED];
};

/* Expands the cols from `begin` on of 64 rows. */
struct expand_tile {
    weights w;
    uint32_t (*to)[PADDED];
    unsigned first_row;
    unsigned begin;

    template <uint32_t TYPE> DEVICE_INLINE void run()
    {
        const unsigned span = TYPE == WEIGHTS_Q6_K ? WIDE : TILE;
        const unsigned width = chunk_columns(TYPE);
        const unsigned chunks = span / width; /* that a row has in this step */
        const unsigned first = begin / span * chunks;
        const unsigned all = (w.cols + width - 1) / width;
        for (unsigned i = threadIdx.x; i < TILE * chunks; i += THREADS) {
            const unsigned row = i / chunks;
            const unsigned c = first + i % chunks;
            const bool is_there = first_row + row < w.rows && c < all;
            chunk<TYPE> loaded;
            if (is_there)
                loaded.load(row_of(w, first_row + row), c);
            UNROLL_ALL
            for (unsigned q = 0; q < chunk<TYPE>::QUADS; q++) {
                const unsigned at = chunk<TYPE>::column(c, q) - begin;
                if (at >= TILE) /* the other half of a wide chunk */
                    continue;
                const float4 v = is_there ? loaded.quad(q) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                to[row][at / 2] = to_halves(v.x, v.y);
                to[row][at / 2 + 1] = to_halves(v.z, v.w);
            }
        }
    }
};

static DEVICE_INLINE void take_x(const gemm_args &op, unsigned first, unsigned begin,
                                 uint32_t (*to)[PADDED])
{
    const uint32_t cols = op.w.cols;
    for (unsigned i = threadIdx.x; i < TILE * TILE / 2; i += THREADS) {
        const unsigned row = i / (TILE / 2);
        const unsigned at = i % (TILE / 2) * 2;
        const float *from = op.x + (size_t)(first + row) * op.x_stride + begin + at;
        const bool is_column = first + row < op.columns;
        const float a = is_column && begin + at < cols ? from[0] : 0.0f;
        const float b = is_column && begin + at + 1 < cols ? from[1] : 0.0f;
        to[row][at / 2] = to_halves(a, b);
    }
}

/* A warp's 32 x 32 of the tile, one step. */
static DEVICE_INLINE void multiply(const tile_memory &m, float (&sums)[2][4][4])
{
    const unsigned lane = threadIdx.x % WARP;
    const unsigned warp = threadIdx.x / WARP;
    const unsigned g = lane / 4;
    const unsigned t = lane % 4;
    for (unsigned k = 0; k < TILE; k += 16) {
        uint32_t a[2][4];
        uint32_t b[4][2];
        UNROLL_ALL
        for (unsigned i = 0; i < 2; i++) {
            const unsigned row = warp / 2 * 32 + i * 16 + g;
            a[i][0] = m.x[row][k / 2 + t];
            a[i][1] = m.x[row + 8][k / 2 + t];
            a[i][2] = m.x[row][k / 2 + t + 4];
            a[i][3] = m.x[row + 8][k / 2 + t + 4];
        }
        UNROLL_ALL
        for (unsigned j = 0; j < 4; j++) {
            const unsigned row = warp % 2 * 32 + j * 8 + g;
            b[j][0] = m.w[row][k / 2 + t];
            b[j][1] = m.w[row][k / 2 + t + 4];
        }
        UNROLL_ALL
        for (unsigned i = 0; i < 2; i++) {
            UNROLL_ALL
            for (unsigned j = 0; j < 4; j++)
                mma_16x8x16(sums[i][j], a[i], b[j]);
        }
    }
}

static DEVICE_INLINE void put(const gemm_args &op, unsigned column, unsigned row, float value)
{
    if (column >= op.columns || row >= op.w.rows)
        return;
    float *y = op.y + (size_t)column * op.y_stride + row;
    value += op.bias ? op.bias[row] : 0.0f;
    *y = op.mode == OP_ADD ? *y + value : value;
}

static __global__ void __launch_bounds__(THREADS) gemm_kernel(gemm_args op)
{
    SHARED_ARRAY(uint32_t, x, [TILE][PADDED]);
    SHARED_ARRAY(uint32_t, w, [TILE][PADDED]);
    const tile_memory memory = {x, w};
    const unsigned lane = threadIdx.x % WARP;
    const unsigned warp = threadIdx.x / WARP;
    float sums[2][4][4] = {};
    expand_tile expand;
    expand.w = op.w;
    expand.to = w;
    expand.first_row = blockIdx.x * TILE;
    for (unsigned begin = 0; begin < op.w.cols; begin += TILE) {
        expand.begin = begin;
        take_x(op, blockIdx.y * TILE, begin, x);
        for_type(op.w.type, expand);
        __syncthreads();
        multiply(memory, sums);
        __syncthreads();
    }
    UNROLL_ALL
    for (unsigned i = 0; i < 2; i++)
        UNROLL_ALL
    for (unsigned j = 0; j < 4; j++)
        UNROLL_ALL
    for (unsigned n = 0; n < 4; n++)
        put(op, blockIdx.y * TILE + warp / 2 * 32 + i * 16 + lane / 4 + n / 2 * 8,
            blockIdx.x * TILE + warp % 2 * 32 + j * 8 + lane % 4 * 2 + n % 2, sums[i][j][n]);
}

int op_gemm(const struct device *device, const struct gemm_args *op)
{
    if (op->columns == 0 || op->mode == OP_SWIGLU)
        return -EINVAL;
    const dim3 grid(divide_up(op->w.rows, TILE), divide_up(op->columns, TILE));
    return LAUNCH(gemm_kernel, grid, dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
}
