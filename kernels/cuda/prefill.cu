/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefill.cu - op_prefill(): causal attention of pieces of prompts over the paged KV cache on the
 * tensor cores, halves in, float32 sums (the running softmax of FlashAttention-2,
 * https://arxiv.org/abs/2307.08691).
 *
 *   q [columns][heads][width], pages -> out [columns][heads][width]
 *   grid (kv_heads x chunks of 16 query heads, tiles), block 128: four warps of 16 queries
 *
 * A query is a column and one of the heads that share a KV head; a tile's are 64 of them, so that
 * keys and values are read once for all. The block goes through the positions 64 at a time (32 for
 * heads wider than 128): keys and values become halves in shared memory, as they lie in the cache;
 * a warp makes 16 x 64 scores by mma (mma.cuh) from fragments by ldmatrix, masks what lies behind
 * the query, keeps maximum and denominator going, and multiplies the weights, as they lie in its
 * registers, with the values, which ldmatrix turns. Scores are exponents of two: log2(e) is in the
 * queries.
 *
 * Rounds begin at multiples of 64 from position 0, and a round that is all behind a query changes
 * nothing of it: so its result depends on its own position alone, in every bit, not on the tile it
 * is in nor on how a prompt was cut. It is not op_attend()'s: halves carry 11 bits.
 *
 * In shared memory 16 bytes are left out behind every row: what ldmatrix takes at a time, eight
 * rows' pieces of 16 bytes, then meets different banks.
 *
 * By the numbers, heads of 128 in float32: a round of a warp is 1,440 instructions, 650 to bring
 * keys and values and 790 for 128 HMMA; 64 ldmatrix. 168 registers let three blocks run on a
 * processor, 34 KiB of shared memory each, so that while one waits for memory two multiply; of what
 * spills (20 bytes) nothing belongs to a round.
 *
 * Variants considered:
 *  1. op_attend() for prompts: every query reads all keys for itself, no reuse between columns.
 *  2. splits along positions for short prompts behind long prefixes: fills the device, costs a
 *     second launch. A piece of 64 columns and 8 KV heads has as many blocks as groups of 4 heads
 *     times 8; a device of 132 processors wants 256 columns, which is what a step has.
 *  3. keys and values by cp.async, twice buffered: only where the cache holds halves, which no
 * worker asks for yet. Floats would go through shared memory twice: 64 KiB a round for what 32 KiB
 * of halves are, beside 128 KiB that the warps' fragments take.
 *  4. wgmma with 128 queries: needs keys in the layout of its descriptors, pages fit that as
 *     they are 16 positions; twice the rate on sm_90. After variant 3.
 *  5. tiles of one head: no reads are shared between heads; grouped heads read them 1 / group as
 *     often.
 *  6. weights (of softmax) as float32 split in two halves: twice the second products, for sums that
 *     the keys' rounding has spoilt already.
 *  7. values turned on their way into shared memory and fragments by 32-bit loads: two loads for an
 *     HMMA where ldmatrix is half of one, each value's four halves to four rows. What was here
 *     before, with expf() and four rows in flight: 1,300 instructions for the products of a round
 * and 850 for what they need.
 *  8. more of the next round in flight, in registers: at 255 of them two blocks are left.
 */
#include <errno.h>

#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/tile.cuh"

#define THREADS 128u
#define WARPS   (THREADS / WARP)
#define SPARE   8u /* numbers behind a row */
#define LOG2_E  1.44269504f

static_assert(OP_PREFILL_QUERIES == WARPS * 16, "a warp has 16 of them");

/* Positions of a round for heads of up to `width`. */
static constexpr __host__ __device__ unsigned round_of(unsigned width)
{
    return width > 128 ? 32 : 64;
}

/* What a block works on. */
struct prefill_block {
    kv_view kv;
    const uint32_t *table;
    uint32_t kv_head;
    uint32_t end; /* positions that its last column sees */
};

/* Pieces of 16 bytes from one row in shared memory to the next. */
static constexpr __host__ __device__ unsigned pieces_of(unsigned width)
{
    return (width + SPARE) / PIECE_COLS;
}

/* What a turn of the block's threads brings of keys or values: a row each of so many threads, four
 * numbers a thread; the rows lie in one page of the cache. */
template <unsigned WIDTH> struct turns {
    static constexpr unsigned THREADS_A_ROW = WIDTH / 4;
    static constexpr unsigned ROWS = THREADS / THREADS_A_ROW;
    static constexpr unsigned OF_PAGE = OP_PAGE / ROWS;
    static constexpr unsigned PAGES = WIDTH > 128 ? 1 : 2; /* in flight */
};

/* Keys or values of the positions from `begin` on as halves, zeros behind the end and the head. */
template <unsigned WIDTH, bool IS_HALF>
static __device__ __forceinline__ void take_rows(const prefill_block &b, uint32_t begin,
                                                 uint32_t is_value, uint4 *to)
{
    using turn = turns<WIDTH>;
    const unsigned d = threadIdx.x % turn::THREADS_A_ROW * 4;
    const unsigned first = threadIdx.x / turn::THREADS_A_ROW;
    uint4 *piece = to + first * pieces_of(WIDTH) + d / PIECE_COLS;
    uint2 *half_piece = reinterpret_cast<uint2 *>(piece) + d / 4 % 2;
    if (d >= (b.kv.head_width + 15u) / 16u * 16u)
        return;
    for (unsigned page = 0; page < round_of(WIDTH) / OP_PAGE; page += turn::PAGES) {
        float4 loaded[turn::PAGES][turn::OF_PAGE];
        UNROLL_ALL
        for (unsigned p = 0; p < turn::PAGES; p++) {
            const uint32_t at = begin + (page + p) * OP_PAGE;
            const bool is_there = at < b.end && d < b.kv.head_width;
            size_t index = 0;
            if (is_there)
                index =
                    kv_index(b.kv, b.table, at, is_value, b.kv_head) + first * b.kv.head_width + d;
            UNROLL_ALL
            for (unsigned n = 0; n < turn::OF_PAGE; n++) {
                loaded[p][n] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
                if (is_there && at + n * turn::ROWS + first < b.end)
                    loaded[p][n] =
                        kv_four_of<IS_HALF>(b.kv, index + n * turn::ROWS * b.kv.head_width);
            }
        }
        UNROLL_ALL
        for (unsigned i = 0; i < turn::PAGES * turn::OF_PAGE; i++) {
            const float4 &v = loaded[i / turn::OF_PAGE][i % turn::OF_PAGE];
            uint2 four;
            four.x = to_halves(v.x, v.y);
            four.y = to_halves(v.z, v.w);
            half_piece[(page * turn::OF_PAGE + i) * turn::ROWS * pieces_of(WIDTH) * 2] = four;
        }
    }
}

/* 2^x; what is below a float's normal numbers becomes 0. */
static __device__ __forceinline__ float power_of_two(float x)
{
#ifdef __CUDACC__
    float out;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(out) : "f"(x));
    return out;
#else
    return exp2f(x);
#endif
}

/* A warp's 16 queries. A lane holds of rows g and g + 8 what mma.cuh says. */
template <unsigned WIDTH> struct query_rows {
    static constexpr unsigned ROUND = round_of(WIDTH);
    uint32_t q[WIDTH / 16][4];
    float out[WIDTH / 8][4];
    float most[2];
    float sum[2];      /* of this lane's positions */
    uint32_t limit[2]; /* the last position that the row sees */
    size_t at[2];      /* where the row's query is */
    size_t out_at[2];  /* and its result */
    bool is_there[2];
    uint32_t reach; /* of the warp: its last position */
    bool is_idle;   /* the warp has no queries */

    __device__ __forceinline__ void init(const prefill_args &op, const op_tile &tile,
                                         uint32_t first_head, uint32_t heads)
    {
        const unsigned warp = threadIdx.x / WARP;
        const unsigned g = threadIdx.x % WARP / 4;
        const uint32_t last = (warp * 16 + 15) / heads;
        is_idle = warp * 16 / heads >= tile.count;
        reach = op.rows[tile.first + (last < tile.count ? last : tile.count - 1)].position;
        UNROLL_ALL
        for (unsigned r = 0; r < 2; r++) {
            const uint32_t row = warp * 16 + g + r * 8;
            const uint32_t column = row / heads;
            is_there[r] = column < tile.count;
            most[r] = -INFINITY;
            sum[r] = 0.0f;
            limit[r] = is_there[r] ? op.rows[tile.first + column].position : 0;
            const size_t head = first_head + row % heads;
            const size_t place = is_there[r] ? tile.first + column : 0;
            at[r] = is_there[r] ? (place * op.heads + head) * op.kv.head_width : 0;
            out_at[r] = place * op.out_stride + head * op.kv.head_width;
        }
        take_queries(op);
        UNROLL_ALL
        for (unsigned n = 0; n < WIDTH / 8; n++)
            out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
    }

    __device__ __forceinline__ void take_queries(const prefill_args &op)
    {
        const unsigned t = threadIdx.x % 4;
        const float scale = op.scale * LOG2_E; /* scores are exponents of two */
        UNROLL_ALL
        for (unsigned k = 0; k < WIDTH / 16; k++)
            UNROLL_ALL
        for (unsigned i = 0; i < 4; i++) {
            const unsigned r = i % 2;
            const unsigned d = k * 16 + i / 2 * 8 + t * 2;
            const bool is_value = is_there[r] && d < op.kv.head_width;
            const float *from = op.q + at[r] + d;
            q[k][i] = is_value ? to_halves(from[0] * scale, from[1] * scale) : to_halves(0, 0);
        }
    }

    /* One round. All lanes of the warp come here. */
    __device__ __forceinline__ void add(const uint4 *keys, const uint4 *values, uint32_t begin,
                                        uint32_t width)
    {
        const unsigned lane = threadIdx.x % WARP;
        const uint4 *key = keys + (lane / 16 * 8 + lane % 8) * pieces_of(WIDTH) + lane / 8 % 2;
        const uint4 *value = values + lane % 16 * pieces_of(WIDTH) + lane / 16;
        float scores[ROUND / 8][4] = {};
        UNROLL_ALL
        for (unsigned k = 0; k < WIDTH / 16; k++) {
            if (k * 16 >= width)
                continue;
            UNROLL_ALL
            for (unsigned n = 0; n < ROUND / 8; n += 2) {
                uint32_t b[4];
                take_matrices(b, key + n * 8 * pieces_of(WIDTH) + k * 2);
                multiply(scores[n], scores[n + 1], q[k], b);
            }
        }
        soften(scores, begin, 0);
        soften(scores, begin, 1);
        uint32_t a[ROUND / 16][4];
        UNROLL_ALL
        for (unsigned k = 0; k < ROUND / 16; k++)
            UNROLL_ALL
        for (unsigned i = 0; i < 4; i++) {
            const float *two = &scores[2 * k + i / 2][i % 2 * 2];
            a[k][i] = pack_halves(two[0], two[1]);
        }
        UNROLL_ALL
        for (unsigned n = 0; n < WIDTH / 8; n += 2) {
            if (n * 8 >= width)
                continue;
            UNROLL_ALL
            for (unsigned k = 0; k < ROUND / 16; k++) {
                uint32_t b[4];
                take_matrices_turned(b, value + k * 16 * pieces_of(WIDTH) + n);
                multiply(out[n], out[n + 1], a[k], b);
            }
        }
    }

    /* 16 x 16 by two neighbours of 16 x 8. */
    static __device__ __forceinline__ void multiply(float (&left)[4], float (&right)[4],
                                                    const uint32_t (&a)[4], const uint32_t (&b)[4])
    {
        const uint32_t first[2] = {b[0], b[1]};
        const uint32_t second[2] = {b[2], b[3]};
        mma_16x8x16(left, a, first);
        mma_16x8x16(right, a, second);
    }

    /* Scores of row g + 8 r to weights; maximum, denominator and sums go along. */
    __device__ __forceinline__ void soften(float (&scores)[ROUND / 8][4], uint32_t begin,
                                           unsigned r)
    {
        const uint32_t first = begin + threadIdx.x % 4 * 2;
        float best = most[r];
        if (begin + ROUND - 1 > limit[r]) {
            UNROLL_ALL
            for (unsigned i = 0; i < ROUND / 4; i++)
                if (first + i / 2 * 8 + i % 2 > limit[r])
                    scores[i / 2][r * 2 + i % 2] = -INFINITY;
        }
        UNROLL_ALL
        for (unsigned i = 0; i < ROUND / 4; i++)
            best = fmaxf(best, scores[i / 2][r * 2 + i % 2]);
        best = fmaxf(best, __shfl_xor_sync(WARP_MASK, best, 1));
        best = fmaxf(best, __shfl_xor_sync(WARP_MASK, best, 2));
        const float factor = power_of_two(most[r] - best);
        float total = sum[r] * factor;
        UNROLL_ALL
        for (unsigned i = 0; i < ROUND / 4; i++) {
            float &score = scores[i / 2][r * 2 + i % 2];
            score = power_of_two(score - best);
            total += score;
        }
        sum[r] = total;
        most[r] = best;
        UNROLL_ALL
        for (unsigned n = 0; n < WIDTH / 8; n++) {
            out[n][r * 2] *= factor;
            out[n][r * 2 + 1] *= factor;
        }
    }

    /* All lanes of the warp come here. */
    __device__ __forceinline__ void put(const prefill_args &op) const
    {
        const unsigned t = threadIdx.x % 4;
        UNROLL_ALL
        for (unsigned r = 0; r < 2; r++) {
            float whole = sum[r] + __shfl_xor_sync(WARP_MASK, sum[r], 1);
            whole += __shfl_xor_sync(WARP_MASK, whole, 2);
            const float share = 1.0f / whole;
            UNROLL_ALL
            for (unsigned n = 0; n < WIDTH / 8; n++) {
                const unsigned d = n * 8 + t * 2;
                if (!is_there[r] || d >= op.kv.head_width)
                    continue;
                put_number(op.out, out_at[r] + d, out[n][r * 2] * share, op.number);
                put_number(op.out, out_at[r] + d + 1, out[n][r * 2 + 1] * share, op.number);
            }
        }
    }
};

template <unsigned WIDTH, bool IS_HALF>
static __global__ void __launch_bounds__(THREADS, WIDTH > 128 ? 1 : 3)
    prefill_kernel(prefill_args op)
{
    constexpr unsigned PIECES = round_of(WIDTH) * pieces_of(WIDTH);
    SHARED_DYNAMIC(uint4, keys);
    uint4 *values = keys + PIECES;
    const uint32_t chunks = (op.kv.head_group + OP_PREFILL_HEADS - 1) / OP_PREFILL_HEADS;
    const uint32_t kv_head = blockIdx.x / chunks;
    const kv_sharers sharers = kv_heads_of(op.kv, kv_head, op.heads);
    const uint32_t head = sharers.begin + blockIdx.x % chunks * OP_PREFILL_HEADS;
    if (head >= sharers.end)
        return;
    const uint32_t heads =
        sharers.end - head < OP_PREFILL_HEADS ? sharers.end - head : OP_PREFILL_HEADS;
    const op_tile tile = op.tiles[blockIdx.y];
    const op_row last = op.rows[tile.first + tile.count - 1];
    const prefill_block block = {op.kv, kv_table(op.kv, last.slot), kv_head, last.position + 1};
    query_rows<WIDTH> rows;
    rows.init(op, tile, head, heads);
    for (uint32_t begin = 0; begin < block.end; begin += round_of(WIDTH)) {
        take_rows<WIDTH, IS_HALF>(block, begin, 0, keys);
        take_rows<WIDTH, IS_HALF>(block, begin, 1, values);
        __syncthreads();
        if (!rows.is_idle && begin <= rows.reach)
            rows.add(keys, values, begin, op.kv.head_width);
        __syncthreads();
    }
    rows.put(op);
}

template <unsigned WIDTH>
static int launch_width(const struct device *device, const struct prefill_args *op)
{
    const unsigned chunks = divide_up(op->kv.head_group, OP_PREFILL_HEADS);
    const dim3 grid(op->kv.kv_heads * chunks, op->tile_count);
    const auto kernel = op->kv.is_half ? prefill_kernel<WIDTH, true> : prefill_kernel<WIDTH, false>;
    const size_t shared = 2 * round_of(WIDTH) * pieces_of(WIDTH) * sizeof(uint4);
    return LAUNCH(kernel, grid, dim3(THREADS), shared, device->stream, *op) ? -EIO : 0;
}

int op_prefill(const struct device *device, const struct prefill_args *op)
{
    const uint32_t width = op->kv.head_width;
    if (op->tile_count == 0 || op->tile_count > OP_COLUMNS_MAX || width == 0 || width % 4 ||
        width > OP_HEAD_MAX || op->out_stride < op->heads * width || !kv_fits(op->kv, op->heads))
        return -EINVAL;
    if (width <= 64)
        return launch_width<64>(device, op);
    return width <= 128 ? launch_width<128>(device, op) : launch_width<OP_HEAD_MAX>(device, op);
}
