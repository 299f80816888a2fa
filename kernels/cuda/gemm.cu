/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gemm.cu - op_gemm(): many columns times quantised matrices on the tensor cores, 16-bit numbers
 * in, float32 sums; bias, residual and SwiGLU at the end.
 *
 *   x [columns][cols], one to three w [rows][cols] -> y [columns][rows]
 *   grid (columns / TILE) x (rows / TILE), columns first, block 128: four warps of TILE/2 x TILE/2
 *   TILE 128, or 64 where tiles of 128 would leave processors without work
 *
 * A step takes 64 of the cols: x, and weights of the file's own 16 bits, come by cp.async into one
 * of three stages (tile.cuh), two steps ahead of the products. Quantised weights are loaded into
 * registers two steps ahead, wait there during a step's products, and are expanded (chunk.cuh) into
 * the stage behind them. A warp takes fragments by ldmatrix and makes TILE/32 x TILE/16 products of
 * 16 x 8 x 16 for each 16 of the cols. One barrier a step. For SwiGLU a tile has eight rows of
 * gate, then eight of up, and so on: gate and up of a row are then sums of one thread.
 *
 * The sums of a result go through the cols in ascending order, 16 at a time, in one register: the
 * same bits whatever the tile, and whatever the other columns. They are not op_matvec()'s: halves
 * carry 11 bits, bfloat16s 8. So a prompt that went this way has other keys and values than one
 * that came token by token: the backend uses it for rows that want no logits, and only if it was
 * created to be fast.
 *
 * By the numbers, TILE 128: a step is 1,048,576 multiply-adds, 1,024 cycles of an A100's processor,
 * about 790 of an H100's (mma.sync reaches five eighths of what wgmma does there); it moves 32 KiB
 * into shared memory (256 cycles) and 64 KiB out of it (512 cycles): below either. 96 KiB of stages
 * let two blocks run on an H100's processor (227 KiB), one on an A100's (163 KiB). Device memory
 * sees each weight once (blocks of all columns run side by side) and x through L2. Registers are
 * 234 to 255 with TILE 128 and 111 to 128 with TILE 64, none spilled. A step of a warp is 128 HMMA
 * among 425 instructions where weights are plain, 567 (Q4_0), 585 (Q8_0), 762 (Q4_K); 800 for Q6_K,
 * half of whose steps expand what the step before has loaded.
 *
 * Variants considered:
 *  1. op_matvec() for prompts: float32 and the same bits as decoding; each weight is expanded once
 *     per eight columns and multiplied on the ordinary units, a twentieth of the tensor cores'
 *     rate. What the backend does unless it was created to be fast.
 *  2. tiles of 64 x 64, weights expanded by all, one buffer, two barriers a step, fragments by
 *     32-bit loads: 4 KiB out of shared memory for 16 products of a warp where this has 4 KiB for
 *     32, and no copy beside the products. What was here before, and the small tile but for that.
 *  3. warps of 64 x 32, eight a block: 128 registers a thread, so twice the warps; but 96 KiB out
 * of shared memory a step (768 cycles): as many as the products take on an H100. No.
 *  4. tiles of 128 x 256, eight warps of 64 x 64, one block a processor: 9% less traffic into
 *     shared memory, but steps of 256 columns then have 16 tiles for a matrix of 4,096 rows.
 *  5. 32 cols a step, four stages: the same bytes, twice the barriers; rows of 64 bytes need
 * another swizzle, and a block of 32 cols of K-quants (64 cols share a chunk) is loaded twice.
 *  6. splitting the cols between blocks, for few columns: fills the device when a step has 64
 *     columns, but sums then depend on how often they are split. That would have to follow from the
 *     matrix alone, and long prompts would pay for it.
 *  7. weights expanded to halves in memory first: for 4 bits 4.5 bytes a weight more are moved, 7%
 *     of 2,048 columns' time, 60% of 256 columns'. Expanding on the way costs about 250 issue slots
 *     a scheduler and step beside 800 cycles of products, a third of which are free.
 *  8. bytes and nibbles into halves two at once (0x6400) and half2 arithmetic: done where it is the
 *     same bits (chunk.cuh, halves()): Q4_0, Q5_0, Q8_0. Types with a minimum or scales of scales
 *     would be rounded otherwise; they take a byte permutation a weight.
 *  9. bfloat16 weights as halves: x keeps three bits more, but each weight needs registers on the
 *     way, and x is clamped at 65,504. Only where a layer mixes types (op_gemm() takes that, too).
 * 10. wgmma (sm_90a), tcgen05 (sm_100a): the rate above five eighths is theirs alone. The stages
 *     lie as their descriptors want them. Until there is one: cublaslt.h, `--gemm auto`.
 */
#include <errno.h>

#include "kernels/cuda/chunk.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/tile.cuh"

#define THREADS 128u
#define STAGES  3u
#define WIDE    128u /* cols of whose chunks some reach over a step: Q6_K */

/* Parts of one type, as a launch has them. */
struct gemm_job {
    gemm_args op;
    uint32_t column_tiles;
};

/* What a block makes. */
struct gemm_block {
    weights w;
    const uint8_t *second; /* data of the other matrix of a SwiGLU */
    uint32_t first_column;
    uint32_t first_row;
    bool is_joined;
};

/* The row of the matrix that row r of the tile is. */
static DEVICE_INLINE unsigned matrix_row(const gemm_block &b, unsigned r)
{
    return b.first_row + (b.is_joined ? r / 16 * 8 + r % 8 : r);
}

/* Row r of the tile, if the matrix has it. */
static DEVICE_INLINE bool find_row(const gemm_block &b, unsigned r, row_view *out)
{
    const unsigned row = matrix_row(b, r);
    weights w = b.w;
    if (b.is_joined && r & 8u)
        w.data = b.second;
    *out = row_of(w, row < w.rows ? row : 0);
    return row < w.rows;
}

/* ---- into the stages ----------------------------------------------------------------------- */

/* `rows` rows of x from `begin` on; zeros behind the last column and behind the cols. */
template <unsigned TILE>
static DEVICE_INLINE void take_x(async_copies &copies, const gemm_args &op, const gemm_block &b,
                                 unsigned begin, uint4 *to)
{
    const unsigned piece = threadIdx.x % TILE_PIECES;
    const unsigned at = begin + piece * PIECE_COLS;
    const unsigned left = at < b.w.cols ? b.w.cols - at : 0;
    const unsigned bytes = left < PIECE_COLS ? left * 2 : 16u;
    UNROLL_ALL
    for (unsigned n = 0; n < TILE * TILE_PIECES / THREADS; n++) {
        const unsigned row = threadIdx.x / TILE_PIECES + n * (THREADS / TILE_PIECES);
        const bool is_there = b.first_column + row < op.columns && bytes;
        const uint16_t *from =
            is_there ? op.x + (size_t)(b.first_column + row) * op.x_stride + at : op.x;
        copies.copy(to + tile_at(row, piece), from, is_there ? bytes : 0);
    }
}

/* Weights that are what is multiplied. Their rows end with zeros (weights.h). */
template <unsigned TILE>
static DEVICE_INLINE void take_plain(async_copies &copies, const gemm_block &b, unsigned begin,
                                     uint4 *to)
{
    const unsigned piece = threadIdx.x % TILE_PIECES;
    const unsigned at = begin / PIECE_COLS + piece;
    const bool is_within = at * 16u < b.w.quants_stride;
    UNROLL_ALL
    for (unsigned n = 0; n < TILE * TILE_PIECES / THREADS; n++) {
        const unsigned r = threadIdx.x / TILE_PIECES + n * (THREADS / TILE_PIECES);
        row_view row;
        const bool is_there = find_row(b, r, &row) && is_within;
        copies.copy(to + tile_at(r, piece), row.quants + (is_there ? at : 0), is_there ? 16u : 0);
    }
}

/* Quad q of a chunk as halves. No file has weights beyond the largest half, unless it is broken or
 * they are not quantised. */
template <uint32_t TYPE> static DEVICE_INLINE uint2 halves_of(const chunk<TYPE> &from, unsigned q)
{
    constexpr bool MAY_BE_LARGE = TYPE == WEIGHTS_F32 || TYPE == WEIGHTS_BF16;
    uint2 four;
    if constexpr (TYPE == WEIGHTS_Q4_0 || TYPE == WEIGHTS_Q5_0 || TYPE == WEIGHTS_Q8_0) {
        four = from.halves(q);
    } else {
        const float4 v = from.quad(q);
        four.x = MAY_BE_LARGE ? to_halves(v.x, v.y) : pack_halves(v.x, v.y);
        four.y = MAY_BE_LARGE ? to_halves(v.z, v.w) : pack_halves(v.z, v.w);
    }
    return four;
}

/* A thread's share of a step's weights, in registers until there is place for them. */
template <uint32_t TYPE, unsigned TILE> struct raw_weights {
    static constexpr unsigned SPAN = TYPE == WEIGHTS_Q6_K ? WIDE : TILE_COLS;
    static constexpr unsigned CHUNKS = SPAN / chunk_columns(TYPE); /* that a row has in a step */
    static constexpr unsigned EACH = TILE * CHUNKS / THREADS;
    chunk<TYPE> loaded[EACH];

    DEVICE_INLINE void load(const gemm_block &b, unsigned begin)
    {
        if (begin % SPAN)
            return; /* it came with the step before */
        const unsigned all = (b.w.cols + chunk_columns(TYPE) - 1) / chunk_columns(TYPE);
        const unsigned c = begin / SPAN * CHUNKS + threadIdx.x % CHUNKS;
        UNROLL_ALL
        for (unsigned n = 0; n < EACH; n++) {
            row_view row;
            const bool is_there =
                find_row(b, (threadIdx.x + n * THREADS) / CHUNKS, &row) && c < all;
            loaded[n] = chunk<TYPE>{}; /* its weights are zeros */
            if (is_there)
                loaded[n].load(row, c);
        }
    }

    DEVICE_INLINE void expand(unsigned begin, uint4 *to) const
    {
        UNROLL_ALL
        for (unsigned n = 0; n < EACH; n++) {
            const unsigned row = (threadIdx.x + n * THREADS) / CHUNKS;
            if constexpr (SPAN == TILE_COLS)
                put<0, chunk<TYPE>::QUADS>(loaded[n], row, 0, to);
            else if (begin % SPAN == 0)
                put<0, chunk<TYPE>::QUADS / 2>(loaded[n], row, 0, to);
            else
                put<chunk<TYPE>::QUADS / 2, chunk<TYPE>::QUADS>(loaded[n], row, TILE_COLS, to);
        }
    }

    /* Quads [FIRST, END) to the columns where they stand in a step of SPAN, less `before`. */
    template <unsigned FIRST, unsigned END>
    static DEVICE_INLINE void put(const chunk<TYPE> &from, unsigned row, unsigned before, uint4 *to)
    {
        const unsigned c = threadIdx.x % CHUNKS;
        UNROLL_ALL
        for (unsigned q = FIRST; q < END; q++) {
            const unsigned at = chunk<TYPE>::column(c, q) - before;
            const uint2 four = halves_of<TYPE>(from, q);
            uint4 *piece = to + tile_at(row, at / PIECE_COLS);
            reinterpret_cast<uint2 *>(piece)[at / 4 % 2] = four;
        }
    }
};

/* ---- out of them ---------------------------------------------------------------------------- */

/* What a warp makes of a tile. */
template <unsigned TILE, bool IS_BF16> struct gemm_warp {
    static constexpr unsigned SIDE = TILE / 2;
    static constexpr unsigned DOWN = SIDE / 16;
    static constexpr unsigned ACROSS = SIDE / 8;
    float sums[DOWN][ACROSS][4];

    static DEVICE_INLINE unsigned first_column()
    {
        return threadIdx.x / WARP / 2 * SIDE;
    }
    static DEVICE_INLINE unsigned first_row()
    {
        return threadIdx.x / WARP % 2 * SIDE;
    }

    /* One step. All lanes of the warp come here. */
    DEVICE_INLINE void multiply(const uint4 *x, const uint4 *w)
    {
        const unsigned lane = threadIdx.x % WARP;
        UNROLL_ALL
        for (unsigned k = 0; k < TILE_COLS / 16; k++) {
            uint32_t a[DOWN][4];
            uint32_t b[ACROSS / 2][4];
            UNROLL_ALL
            for (unsigned i = 0; i < DOWN; i++)
                take_matrices(a[i],
                              x + tile_at(first_column() + i * 16 + lane % 16, k * 2 + lane / 16));
            UNROLL_ALL
            for (unsigned j = 0; j < ACROSS / 2; j++)
                take_matrices(b[j], w + tile_at(first_row() + j * 16 + lane / 16 * 8 + lane % 8,
                                                k * 2 + lane / 8 % 2));
            UNROLL_ALL
            for (unsigned i = 0; i < DOWN; i++) {
                UNROLL_ALL
                for (unsigned j = 0; j < ACROSS; j++) {
                    const uint32_t two[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
                    mma_16x8x16<IS_BF16>(sums[i][j], a[i], two);
                }
            }
        }
    }
};

/* ---- to where it belongs --------------------------------------------------------------------- */

/* Two neighbouring rows of a column. */
static DEVICE_INLINE void put_two(const gemm_args &op, const matvec_part &part, uint32_t column,
                                  uint32_t row, float a, float b)
{
    if (row >= part.w.rows)
        return;
    const bool has_two = row + 1 < part.w.rows;
    float *y = part.y + (size_t)column * part.y_stride + row;
    if (part.bias) {
        a += part.bias[row];
        b += has_two ? part.bias[row + 1] : 0.0f;
    }
    if (has_two && part.y_stride % 2 == 0) {
        float2 *both = reinterpret_cast<float2 *>(y);
        const float2 old = op.mode == OP_ADD ? *both : make_float2(0.0f, 0.0f);
        *both = op.mode == OP_ADD ? make_float2(old.x + a, old.y + b) : make_float2(a, b);
        return;
    }
    y[0] = op.mode == OP_ADD ? y[0] + a : a;
    if (has_two)
        y[1] = op.mode == OP_ADD ? y[1] + b : b;
}

static DEVICE_INLINE float swiglu_of(const gemm_args &op, uint32_t row, float gate, float up)
{
    if (row >= op.parts[0].w.rows)
        return 0.0f;
    gate += op.parts[0].bias ? op.parts[0].bias[row] : 0.0f;
    up += op.parts[1].bias ? op.parts[1].bias[row] : 0.0f;
    return gate / (1.0f + expf(-gate)) * up;
}

/* The same of two rows, gate and up; behind the last row zeros as far as the stride goes. */
template <bool IS_BF16>
static DEVICE_INLINE void put_joined(const gemm_args &op, uint32_t column, uint32_t row,
                                     const float *gate, const float *up)
{
    if (row >= op.parts[0].w.rows)
        return;
    const uint32_t both = to_numbers<IS_BF16>(swiglu_of(op, row, gate[0], up[0]),
                                              swiglu_of(op, row + 1, gate[1], up[1]));
    *reinterpret_cast<uint32_t *>(op.made + (size_t)column * op.made_stride + row) = both;
}

template <unsigned TILE, bool IS_BF16>
static DEVICE_INLINE void put_tile(const gemm_args &op, const gemm_block &b,
                                   const matvec_part &part, const gemm_warp<TILE, IS_BF16> &warp)
{
    using tile = gemm_warp<TILE, IS_BF16>;
    const unsigned lane = threadIdx.x % WARP;
    UNROLL_ALL
    for (unsigned n = 0; n < tile::DOWN * 2; n++) {
        const unsigned i = n / 2;
        const unsigned h = n % 2 * 2; /* the sums of row g + 8 follow those of g */
        const uint32_t column = b.first_column + tile::first_column() + n * 8 + lane / 4;
        if (column >= op.columns)
            continue;
        UNROLL_ALL
        for (unsigned j = 0; j < tile::ACROSS; j++) {
            const uint32_t row = matrix_row(b, tile::first_row() + j * 8 + lane % 4 * 2);
            const float *sums = warp.sums[i][j] + h;
            if (!b.is_joined)
                put_two(op, part, column, row, sums[0], sums[1]);
            else if (j % 2 == 0)
                put_joined<IS_BF16>(op, column, row, sums, warp.sums[i][j + 1] + h);
        }
    }
}

/* ---- the kernel ----------------------------------------------------------------------------- */

/* Are the file's numbers those that are multiplied? */
static constexpr __host__ __device__ bool is_plain(uint32_t type, bool is_bf16)
{
    return type == (is_bf16 ? WEIGHTS_BF16 : WEIGHTS_F16);
}

template <unsigned TILE>
static __host__ DEVICE_INLINE unsigned row_tiles(const gemm_args &op, unsigned part)
{
    const unsigned rows = op.parts[part].w.rows;
    const unsigned each = op.mode == OP_SWIGLU ? TILE / 2 : TILE;
    return (rows + each - 1) / each;
}

template <uint32_t TYPE, unsigned TILE, bool IS_BF16>
static __global__ void __launch_bounds__(THREADS, TILE == 128 ? 2 : 4) gemm_kernel(gemm_job job)
{
    constexpr bool IS_PLAIN = is_plain(TYPE, IS_BF16);
    constexpr unsigned PIECES = TILE * TILE_PIECES; /* of x or w in a stage */
    SHARED_DYNAMIC(uint4, stages);
    const gemm_args &op = job.op;
    unsigned at = blockIdx.x / job.column_tiles;
    unsigned p = 0;
    while (op.mode != OP_SWIGLU && p + 1 < op.part_count && at >= row_tiles<TILE>(op, p))
        at -= row_tiles<TILE>(op, p++);
    gemm_block b;
    b.is_joined = op.mode == OP_SWIGLU;
    b.w = op.parts[p].w;
    b.second = op.parts[1].w.data;
    b.first_column = blockIdx.x % job.column_tiles * TILE;
    b.first_row = at * (b.is_joined ? TILE / 2 : TILE);

    async_copies copies;
    raw_weights<TYPE, TILE> raw = {};
    gemm_warp<TILE, IS_BF16> warp = {};
    const unsigned steps = (b.w.cols + TILE_COLS - 1) / TILE_COLS;
    for (unsigned step = 0; step < STAGES - 1; step++) {
        uint4 *x = stages + step * 2 * PIECES;
        if (step < steps) {
            take_x<TILE>(copies, op, b, step * TILE_COLS, x);
            if (IS_PLAIN) {
                take_plain<TILE>(copies, b, step * TILE_COLS, x + PIECES);
            } else {
                raw.load(b, step * TILE_COLS);
                raw.expand(step * TILE_COLS, x + PIECES);
            }
        }
        copies.commit();
    }
    for (unsigned step = 0; step < steps; step++) {
        const unsigned ahead = step + STAGES - 1;
        uint4 *x = stages + ahead % STAGES * 2 * PIECES;
        copies.wait<STAGES - 2>();
        __syncthreads(); /* this step is there, and nobody reads the one before any more */
        if (ahead < steps) {
            take_x<TILE>(copies, op, b, ahead * TILE_COLS, x);
            if (IS_PLAIN)
                take_plain<TILE>(copies, b, ahead * TILE_COLS, x + PIECES);
            else
                raw.load(b, ahead * TILE_COLS);
        }
        copies.commit();
        const uint4 *now = stages + step % STAGES * 2 * PIECES;
        warp.multiply(now, now + PIECES);
        if (!IS_PLAIN && ahead < steps)
            raw.expand(ahead * TILE_COLS, x + PIECES);
    }
    put_tile<TILE, IS_BF16>(op, b, op.parts[p], warp);
}

/* ---- launching ------------------------------------------------------------------------------ */

template <uint32_t TYPE, unsigned TILE, bool IS_BF16>
static int launch_tile(const struct device *device, const gemm_args &op)
{
    const size_t shared = (size_t)STAGES * 2 * TILE * TILE_PIECES * sizeof(uint4);
    const gemm_job job = {op, divide_up(op.columns, TILE)};
    unsigned tiles = 0;
    for (unsigned p = 0; p < (op.mode == OP_SWIGLU ? 1 : op.part_count); p++)
        tiles += row_tiles<TILE>(op, p);
    if ((uint64_t)tiles * job.column_tiles > INT32_MAX)
        return -EINVAL;
    const auto kernel = gemm_kernel<TYPE, TILE, IS_BF16>;
    if (!may_share(kernel, shared))
        return -EIO;
    return launch_named("gemm_kernel", kernel, dim3(tiles * job.column_tiles), dim3(THREADS),
                        shared, device->stream, job)
               ? -EIO
               : 0;
}

/* Large tiles, if there are enough of them to go round; F32's chunks would not fit the registers.
 */
template <uint32_t TYPE, bool IS_BF16>
static int launch_type(const struct device *device, const gemm_args &op)
{
    constexpr unsigned LARGE = TYPE == WEIGHTS_F32 ? 64 : 128;
    uint64_t tiles = 0;
    for (unsigned p = 0; p < (op.mode == OP_SWIGLU ? 1 : op.part_count); p++)
        tiles += row_tiles<128>(op, p);
    return tiles * divide_up(op.columns, 128) >= device->processors
               ? launch_tile<TYPE, LARGE, IS_BF16>(device, op)
               : launch_tile<TYPE, 64, IS_BF16>(device, op);
}

struct launch_any {
    const struct device *device;
    const gemm_args *op;
    int rc;
    template <uint32_t TYPE> void run()
    {
        rc = launch_type<TYPE, false>(device, *op);
    }
};

static int check(const struct gemm_args *op)
{
    const uint32_t cols = op->parts[0].w.cols;
    if (op->columns == 0 || op->part_count == 0 || op->part_count > OP_PARTS_MAX ||
        op->number == OP_F32 || op->x_stride % PIECE_COLS || op->x_stride < cols)
        return -EINVAL;
    for (unsigned p = 0; p < op->part_count; p++)
        if (op->parts[p].w.cols != cols ||
            (op->number == OP_BF16 && op->parts[p].w.type != WEIGHTS_BF16))
            return -EINVAL;
    if (op->mode == OP_SWIGLU &&
        (op->part_count != 2 || op->parts[1].w.rows != op->parts[0].w.rows ||
         op->parts[1].w.type != op->parts[0].w.type || op->made_stride % PIECE_COLS ||
         op->made_stride < op->parts[0].w.rows))
        return -EINVAL;
    return 0;
}

/* A launch for every run of parts of one type. */
int op_gemm(const struct device *device, const struct gemm_args *op)
{
    int rc = check(op);
    for (unsigned begin = 0, end; !rc && begin < op->part_count; begin = end) {
        gemm_args some = *op;
        launch_any launch = {device, &some, -EINVAL};
        const uint32_t type = op->parts[begin].w.type;
        some.part_count = 0;
        for (end = begin; end < op->part_count && op->parts[end].w.type == type; end++)
            some.parts[some.part_count++] = op->parts[end];
        if (op->number == OP_BF16)
            launch.rc = launch_type<WEIGHTS_BF16, true>(device, some);
        else
            for_type(type, launch);
        rc = launch.rc;
    }
    return rc;
}
