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
 * heads wider than 128): keys and values become halves in shared memory, values transposed; a warp
 * makes 16 x 64 scores by mma (mma.cuh), masks what lies behind the query, keeps maximum and
 * denominator going, and multiplies the weights, as they lie in its registers, with the values.
 *
 * Rounds begin at multiples of 64 from position 0, and a round that is all behind a query changes
 * nothing of it: so its result depends on its own position alone, in every bit, not on the tile it
 * is in nor on how a prompt was cut. It is not op_attend()'s: halves carry 11 bits.
 *
 * In shared memory four words are left out behind every row: fragments of eight rows then meet
 * different banks.
 *
 * Variants considered:
 *  1. op_attend() for prompts: every query reads all keys for itself, no reuse between columns.
 *  2. splits along positions for short prompts behind long prefixes: fills the device, costs a
 *     second launch. A piece of 64 columns and 8 KV heads has as many blocks as groups of 4 heads
 *     times 8; a device of 132 processors wants 256 columns, which is what a step has.
 *  3. keys and values by cp.async, twice buffered: only where the cache holds halves, and then
 *     values must be turned by ldmatrix.trans. The next step if gpu-check shows it to be worth it.
 *  4. wgmma with 128 queries: needs keys in the layout of its descriptors, pages fit that as
 *     they are 16 positions; twice the rate on sm_90. After variant 3.
 *  5. tiles of one head: no reads are shared between heads; grouped heads read them 1 / group as
 *     often.
 *  6. weights (of softmax) as float32 split in two halves: twice the second products, for sums that
 *     the keys' rounding has spoilt already.
 */
#include <errno.h>

#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/mma.cuh"

#define THREADS 128u
#define WARPS   (THREADS / WARP)
#define SPARE   4u /* words behind a row */

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

/* Keys of the positions from `begin` on, zeros behind the end and behind the head. */
template <unsigned WIDTH>
static __device__ __forceinline__ void take_keys(const prefill_block &b, uint32_t begin,
                                                 uint32_t (*to)[WIDTH / 2 + SPARE])
{
    const unsigned quads = WIDTH / 4;
    const unsigned used = (b.kv.head_width + 15u) / 16u * 16u;
    for (unsigned i = threadIdx.x; i < round_of(WIDTH) * quads; i += THREADS) {
        const unsigned row = i / quads;
        const unsigned d = i % quads * 4;
        if (d >= used)
            continue;
        float4 k = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (begin + row < b.end && d < b.kv.head_width)
            k = kv_four(b.kv, kv_index(b.kv, b.table, begin + row, 0, b.kv_head) + d);
        to[row][d / 2] = to_halves(k.x, k.y);
        to[row][d / 2 + 1] = to_halves(k.z, k.w);
    }
}

static __device__ __forceinline__ float4 value_four(const prefill_block &b, uint32_t position,
                                                    unsigned d)
{
    if (position >= b.end)
        return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return kv_four(b.kv, kv_index(b.kv, b.table, position, 1, b.kv_head) + d);
}

/* Values of the same positions, two neighbouring positions a word: a warp takes eight such pairs
 * times 16 dimensions, so that it reads whole sectors and writes to most banks. */
template <unsigned WIDTH>
static __device__ __forceinline__ void take_values(const prefill_block &b, uint32_t begin,
                                                   uint32_t (*to)[round_of(WIDTH) / 2 + SPARE])
{
    const unsigned eights = round_of(WIDTH) / 16; /* of pairs */
    for (unsigned i = threadIdx.x; i < round_of(WIDTH) / 2 * WIDTH / 4; i += THREADS) {
        const unsigned pair = i / WARP % eights * 8 + i % 8;
        const unsigned d = (i / WARP / eights * 4 + i / 8 % 4) * 4;
        if (d >= b.kv.head_width)
            continue;
        const float4 v = value_four(b, begin + pair * 2, d);
        const float4 w = value_four(b, begin + pair * 2 + 1, d);
        to[d][pair] = to_halves(v.x, w.x);
        to[d + 1][pair] = to_halves(v.y, w.y);
        to[d + 2][pair] = to_halves(v.z, w.z);
        to[d + 3][pair] = to_halves(v.w, w.w);
    }
}

/* A warp's 16 queries. A lane holds of rows g and g + 8 what mma.cuh says. */
template <unsigned WIDTH> struct query_rows {
    static constexpr unsigned ROUND = round_of(WIDTH);
    uint32_t q[WIDTH / 16][4];
    float out[WIDTH / 8][4];
    float most[2];
    float sum[2];
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
        UNROLL_ALL
        for (unsigned k = 0; k < WIDTH / 16; k++)
            UNROLL_ALL
        for (unsigned i = 0; i < 4; i++) {
            const unsigned r = i % 2;
            const unsigned d = k * 16 + i / 2 * 8 + t * 2;
            const bool is_value = is_there[r] && d < op.kv.head_width;
            const float *from = op.q + at[r] + d;
            q[k][i] =
                is_value ? to_halves(from[0] * op.scale, from[1] * op.scale) : to_halves(0, 0);
        }
    }

    /* One round. All lanes of the warp come here. */
    __device__ __forceinline__ void add(uint32_t (*keys)[WIDTH / 2 + SPARE],
                                        uint32_t (*values)[ROUND / 2 + SPARE], uint32_t begin,
                                        uint32_t width)
    {
        const unsigned g = threadIdx.x % WARP / 4;
        const unsigned t = threadIdx.x % 4;
        float scores[ROUND / 8][4];
        UNROLL_ALL
        for (unsigned n = 0; n < ROUND / 8; n++) {
            scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0.0f;
            UNROLL_ALL
            for (unsigned k = 0; k < WIDTH / 16; k++) {
                if (k * 16 >= width)
                    continue;
                const uint32_t *key = keys[n * 8 + g] + k * 8 + t;
                const uint32_t b[2] = {key[0], key[4]};
                mma_16x8x16(scores[n], q[k], b);
            }
        }
        soften(scores, begin, 0);
        soften(scores, begin, 1);
        UNROLL_ALL
        for (unsigned k = 0; k < ROUND / 16; k++) {
            const float(&low)[4] = scores[2 * k];
            const float(&high)[4] = scores[2 * k + 1];
            const uint32_t a[4] = {to_halves(low[0], low[1]), to_halves(low[2], low[3]),
                                   to_halves(high[0], high[1]), to_halves(high[2], high[3])};
            UNROLL_ALL
            for (unsigned n = 0; n < WIDTH / 8; n++) {
                if (n * 8 >= width)
                    continue;
                const uint32_t *value = values[n * 8 + g] + k * 8 + t;
                const uint32_t b[2] = {value[0], value[4]};
                mma_16x8x16(out[n], a, b);
            }
        }
    }

    /* Scores of row g + 8 r to weights; maximum, denominator and sums go along. */
    __device__ __forceinline__ void soften(float (&scores)[ROUND / 8][4], uint32_t begin,
                                           unsigned r)
    {
        const uint32_t first = begin + threadIdx.x % 4 * 2;
        float best = most[r];
        UNROLL_ALL
        for (unsigned i = 0; i < ROUND / 4; i++) {
            float &score = scores[i / 2][r * 2 + i % 2];
            if (first + i / 2 * 8 + i % 2 > limit[r])
                score = -INFINITY;
            best = fmaxf(best, score);
        }
        best = fmaxf(best, __shfl_xor_sync(WARP_MASK, best, 1));
        best = fmaxf(best, __shfl_xor_sync(WARP_MASK, best, 2));
        float total = 0.0f;
        UNROLL_ALL
        for (unsigned i = 0; i < ROUND / 4; i++) {
            float &score = scores[i / 2][r * 2 + i % 2];
            score = expf(score - best);
            total += score;
        }
        total += __shfl_xor_sync(WARP_MASK, total, 1);
        total += __shfl_xor_sync(WARP_MASK, total, 2);
        const float factor = expf(most[r] - best);
        sum[r] = fmaf(sum[r], factor, total);
        most[r] = best;
        UNROLL_ALL
        for (unsigned n = 0; n < WIDTH / 8; n++) {
            out[n][r * 2] *= factor;
            out[n][r * 2 + 1] *= factor;
        }
    }

    __device__ __forceinline__ void put(const prefill_args &op) const
    {
        const unsigned t = threadIdx.x % 4;
        UNROLL_ALL
        for (unsigned n = 0; n < WIDTH / 8; n++)
            UNROLL_ALL
        for (unsigned r = 0; r < 2; r++) {
            const unsigned d = n * 8 + t * 2;
            if (!is_there[r] || d >= op.kv.head_width)
                continue;
            put_number(op.out, out_at[r] + d, out[n][r * 2] / sum[r], op.number);
            put_number(op.out, out_at[r] + d + 1, out[n][r * 2 + 1] / sum[r], op.number);
        }
    }
};

template <unsigned WIDTH>
static __global__ void __launch_bounds__(THREADS) prefill_kernel(prefill_args op)
{
    SHARED_ARRAY(uint32_t, keys, [round_of(WIDTH)][WIDTH / 2 + SPARE]);
    SHARED_ARRAY(uint32_t, values, [WIDTH][round_of(WIDTH) / 2 + SPARE]);
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
        take_keys<WIDTH>(block, begin, keys);
        take_values<WIDTH>(block, begin, values);
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
    return LAUNCH(prefill_kernel<WIDTH>, grid, dim3(THREADS), 0, device->stream, *op) ? -EIO : 0;
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
