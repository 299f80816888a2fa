/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matvec.cu - op_matvec(): RMSNorm, products with quantised matrices, bias, residual and SwiGLU in
 * one kernel.
 *
 *   x [columns][cols] -> y [columns][rows] for one to three matrices [rows][cols]
 *   grid (some blocks a processor, columns / COLUMNS), block 256
 *
 * A block takes its columns into shared memory as float32, normed if asked for, and keeps them
 * while it goes through its rows. A warp takes two rows at a time; its lanes load 16 bytes of
 * either (chunk.cuh), 32 chunks apart, and multiply them with every column. The order of additions
 * of one product is: each lane its chunks in ascending order, then warp_sum(). So it depends on the
 * row's length alone.
 *
 * In shared memory four floats are left out behind every 32, so that lanes that read 32 columns
 * apart meet different banks.
 *
 * Variants considered:
 *  1. x from global memory through L1: every lane reads another 128-byte line, one line a cycle.
 *     L1 becomes the limit at a third of the memory's speed. No.
 *  2. a block per few rows: each block takes x in and norms it, as many bytes as its weights have.
 *     No; blocks stay and go on to other rows.
 *  3. one row a warp: 32 reads of x per 16 bytes of weights, above what shared memory gives at the
 *     memory's full speed (26). Two rows halve it; four take registers that eight columns need.
 *  4. split of a row over warps: for short matrices; a second sum, and more blocks do as well.
 *  5. cp.async of weights into shared memory: they are used once and by the thread that loads them;
 *     registers are the better place. The compiler keeps two chunks of each row in flight.
 */
#include <errno.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/ops.h"

#define THREADS            256u
#define WARPS              (THREADS / WARP)
#define COLUMNS_MAX        8u
#define BLOCKS_A_PROCESSOR 2u

/* Where column i of x lies in shared memory. */
static __host__ DEVICE_INLINE unsigned padded(unsigned i)
{
    return i + i / 32 * 4;
}

/* Two rows times COLUMNS columns. */
template <unsigned COLUMNS> struct pair_product {
    row_view rows[2];
    const float *x;
    unsigned x_stride;
    unsigned cols;
    unsigned lane;
    float sums[2 * COLUMNS]; /* first row's, second row's */

    template <uint32_t TYPE> DEVICE_INLINE void run()
    {
        const unsigned chunks = (cols + chunk_columns(TYPE) - 1) / chunk_columns(TYPE);
        UNROLL_TWICE
        for (unsigned c = lane; c < chunks; c += WARP) {
            chunk<TYPE> a;
            chunk<TYPE> b;
            a.load(rows[0], c);
            b.load(rows[1], c);
            UNROLL_ALL
            for (unsigned i = 0; i < chunk<TYPE>::QUADS; i++)
                add_quad(a.quad(i), b.quad(i), x + padded(chunk<TYPE>::column(c, i)));
        }
    }

    DEVICE_INLINE void add_quad(float4 a, float4 b, const float *at)
    {
        UNROLL_ALL
        for (unsigned c = 0; c < COLUMNS; c++) {
            const float4 v = *reinterpret_cast<const float4 *>(at + c * x_stride);
            sums[c] = fmaf(a.w, v.w, fmaf(a.z, v.z, fmaf(a.y, v.y, fmaf(a.x, v.x, sums[c]))));
            sums[COLUMNS + c] =
                fmaf(b.w, v.w, fmaf(b.z, v.z, fmaf(b.y, v.y, fmaf(b.x, v.x, sums[COLUMNS + c]))));
        }
    }
};

/* One column into shared memory, zeros behind its end. Returns the thread's share of the squares.
 */
static DEVICE_INLINE float take_column(const matvec_args &op, unsigned column, float *x,
                                       unsigned whole)
{
    const uint32_t cols = op.parts[0].w.cols;
    const size_t row = op.x_rows ? op.x_rows[column] : column;
    const float *from = op.x + row * op.x_stride;
    float squares = 0.0f;
    for (unsigned i = threadIdx.x; i < whole; i += THREADS) {
        const float value = i < cols ? from[i] : 0.0f;
        x[padded(i)] = value;
        squares = fmaf(value, value, squares);
    }
    return squares;
}

/* All columns of the block, normed; the rest of COLUMNS as zeros. */
template <unsigned COLUMNS>
static DEVICE_INLINE void take_columns(const matvec_args &op, unsigned first, float *x,
                                       unsigned x_stride)
{
    SHARED_ARRAY(float, squares, [COLUMNS][WARPS]);
    const uint32_t cols = op.parts[0].w.cols;
    const unsigned whole = (cols + 31u) / 32u * 32u;
    const unsigned warp = threadIdx.x / WARP;
    for (unsigned c = 0; c < COLUMNS; c++) {
        float mine = 0.0f;
        if (first + c < op.columns)
            mine = take_column(op, first + c, x + c * x_stride, whole);
        else
            for (unsigned i = threadIdx.x; i < whole; i += THREADS)
                x[c * x_stride + padded(i)] = 0.0f;
        if (op.norm) {
            mine = warp_sum(mine);
            if (threadIdx.x % WARP == 0)
                squares[c][warp] = mine;
        }
    }
    __syncthreads();
    if (!op.norm)
        return;
    for (unsigned c = 0; c < COLUMNS; c++) {
        float sum = 0.0f;
        for (unsigned w = 0; w < WARPS; w++)
            sum += squares[c][w];
        const float scale = 1.0f / sqrtf(sum / (float)cols + op.epsilon);
        for (unsigned i = threadIdx.x; i < cols; i += THREADS)
            x[c * x_stride + padded(i)] *= scale * op.norm[i];
    }
    __syncthreads();
}

static DEVICE_INLINE float swiglu(float gate, float up)
{
    return gate / (1.0f + expf(-gate)) * up;
}

/* Two rows' sums to where they belong: every lane whose turn it is writes one of them. */
template <unsigned COLUMNS>
static DEVICE_INLINE void put_pair(const matvec_args &op, const matvec_part &part, unsigned row,
                                   unsigned first, pair_product<COLUMNS> &product)
{
    const unsigned lane = threadIdx.x % WARP;
    const unsigned lanes = WARP / (2 * COLUMNS); /* that have the same sum */
    const unsigned second = lane / (WARP / 2);
    const unsigned column = first + lane / lanes % COLUMNS;
    float value = warp_sums(product.sums);
    const float other = __shfl_xor_sync(WARP_MASK, value, WARP / 2);
    if (lane % lanes || column >= op.columns)
        return;
    float *y = part.y + (size_t)column * part.y_stride + row;
    if (op.mode == OP_SWIGLU) {
        if (second)
            return;
        const float gate = value + (part.bias ? part.bias[row] : 0.0f);
        const float up = other + (op.parts[1].bias ? op.parts[1].bias[row] : 0.0f);
        *y = swiglu(gate, up);
        return;
    }
    if (row + second >= part.w.rows)
        return;
    value += part.bias ? part.bias[row + second] : 0.0f;
    y[second] = op.mode == OP_ADD ? y[second] + value : value;
}

/* Pairs of rows of a part: neighbours, or the same row of two matrices. */
static __host__ DEVICE_INLINE unsigned pairs_of(const matvec_args &op, unsigned part)
{
    const unsigned rows = op.parts[part].w.rows;
    return op.mode == OP_SWIGLU ? rows : (rows + 1) / 2;
}

template <unsigned COLUMNS>
static __global__ void __launch_bounds__(THREADS) matvec_kernel(matvec_args op, unsigned x_stride)
{
    SHARED_DYNAMIC(float, x);
    const unsigned first = blockIdx.y * COLUMNS;
    const unsigned part_count = op.mode == OP_SWIGLU ? 1 : op.part_count;
    unsigned at = blockIdx.x * WARPS + threadIdx.x / WARP;
    unsigned before = 0; /* pairs of the parts before */
    unsigned p = 0;
    take_columns<COLUMNS>(op, first, x, x_stride);
    for (;; at += gridDim.x * WARPS) {
        while (p < part_count && at - before >= pairs_of(op, p))
            before += pairs_of(op, p++);
        if (p == part_count)
            return;
        const matvec_part &part = op.parts[p];
        const bool joined = op.mode == OP_SWIGLU;
        const unsigned row = joined ? at : (at - before) * 2;
        const unsigned next = row + 1 < part.w.rows ? row + 1 : row;
        pair_product<COLUMNS> product;
        product.rows[0] = row_of(part.w, row);
        product.rows[1] = joined ? row_of(op.parts[1].w, row) : row_of(part.w, next);
        product.x = x;
        product.x_stride = x_stride;
        product.cols = part.w.cols;
        product.lane = threadIdx.x % WARP;
        for (unsigned c = 0; c < 2 * COLUMNS; c++)
            product.sums[c] = 0.0f;
        for_type(part.w.type, product);
        put_pair(op, part, row, first, product);
    }
}

template <unsigned COLUMNS>
static int launch_columns(const struct device *device, const struct matvec_args *op,
                          unsigned x_stride)
{
    const size_t shared = (size_t)COLUMNS * x_stride * sizeof(float);
    unsigned pairs = 0;
    for (unsigned p = 0; p < (op->mode == OP_SWIGLU ? 1 : op->part_count); p++)
        pairs += pairs_of(*op, p);
    const unsigned needed = divide_up(pairs, WARPS);
    const unsigned most = device->processors * BLOCKS_A_PROCESSOR;
    const dim3 grid(needed < most ? needed : most, divide_up(op->columns, COLUMNS));
    if (!may_share(matvec_kernel<COLUMNS>, shared))
        return -EINVAL;
    return LAUNCH(matvec_kernel<COLUMNS>, grid, dim3(THREADS), shared, device->stream, *op,
                  x_stride)
               ? -EIO
               : 0;
}

static int check(const struct matvec_args *op)
{
    const struct matvec_part *first = &op->parts[0];
    if (op->columns == 0 || op->part_count == 0 || op->part_count > OP_PARTS_MAX ||
        first->w.cols > OP_COLS_MAX)
        return -EINVAL;
    for (unsigned p = 1; p < op->part_count; p++)
        if (op->parts[p].w.cols != first->w.cols)
            return -EINVAL;
    if (op->mode == OP_SWIGLU && (op->part_count != 2 || op->parts[1].w.rows != first->w.rows ||
                                  op->parts[1].w.type != first->w.type))
        return -EINVAL;
    return 0;
}

/* Columns a block takes: those there are, as many as its shared memory holds. */
int op_matvec(const struct device *device, const struct matvec_args *op)
{
    const int rc = check(op);
    if (rc)
        return rc;
    const unsigned x_stride = padded((op->parts[0].w.cols + 31u) / 32u * 32u);
    /* The array of squares and what the driver keeps come on top. */
    const unsigned fit = (device->shared_bytes - 2048u) / (x_stride * (unsigned)sizeof(float));
    unsigned columns = COLUMNS_MAX;
    while (columns > 1 && (columns > fit || columns / 2 >= op->columns))
        columns /= 2;
    if (fit == 0)
        return -EINVAL;
    switch (columns) {
    case 1:
        return launch_columns<1>(device, op, x_stride);
    case 2:
        return launch_columns<2>(device, op, x_stride);
    case 4:
        return launch_columns<4>(device, op, x_stride);
    default:
        return launch_columns<COLUMNS_MAX>(device, op, x_stride);
    }
}
