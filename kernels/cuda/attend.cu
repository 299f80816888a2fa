/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend.cu - op_attend(): attention of single positions over the paged KV cache, split along the
 * positions (flash-decoding, https://crfm.stanford.edu/2023/10/12/flashdecoding.html), and the sum
 * of the splits.
 *
 *   q [count][heads][width], pages -> partial [count][heads][split][width + 2] -> out
 *   attend: grid (kv_heads x groups of 8 query heads, count, splits), block 128
 *   combine: grid (heads, count), block 32..256
 *
 * A block takes up to eight query heads that share a KV head, so that keys and values are read once
 * for all of them. It goes through its split 256 positions at a time: scores (eight threads a key,
 * 16 bytes each, a page per round), a softmax with running maximum, then values (a thread four
 * dimensions of some positions). A split's result is the sum without its denominator, the maximum,
 * the denominator.
 *
 * How positions are split follows from the column's own position alone (split_length()), and so do
 * all sums: neither neighbours nor the size of the launch change a bit.
 *
 * Variants considered:
 *  1. a block a head: keys and values are read as often as query heads share them. No.
 *  2. splits as long as fill the device: fastest for one stream, but then the order of additions
 *     depends on the number of streams. No; a fixed least length of 256 gives 32 blocks a KV head
 * at 8,192 positions.
 *  3. the last block of a column combines (atomic counter): saves a launch of 2 us, costs a fence
 *     in every block. With a graph the launch costs less. No.
 *  4. scores by mma on 8 heads x 16 positions: decoding is bound by memory; worth it only for
 *     groups beyond 8.
 */
#include <errno.h>

#include "kernels/cuda/kv.cuh"

#define THREADS   128u
#define WARPS     (THREADS / WARP)
#define GROUP_MAX 8u   /* query heads of a block */
#define KEY_LANES 8u   /* threads of a key */
#define TILE      256u /* positions of a round */

static_assert(THREADS / KEY_LANES == OP_PAGE, "a round of keys is a page");
static_assert(OP_SPLIT_LEAST % TILE == 0, "a split is whole rounds");

/* Positions of a split for a column of `length` positions: a power of two. */
static __host__ __device__ __forceinline__ uint32_t split_length(uint32_t length)
{
    uint32_t split = OP_SPLIT_LEAST;
    while ((length - 1) / split >= OP_SPLITS_MAX)
        split *= 2;
    return split;
}

static __device__ __forceinline__ float dot4(float4 a, float4 b, float sum)
{
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

/* What a block works on. */
struct attend_block {
    kv_view kv;
    const uint32_t *table; /* the slot's pages */
    uint32_t kv_head;
    uint32_t group; /* query heads */
    float (*q)[OP_HEAD_MAX];
    float (*scores)[TILE];
    float *maxima; /* [GROUP_MAX] so far */
    float *sums;
    float *factors; /* of what was there before this round */

    __device__ __forceinline__ size_t index(uint32_t position, uint32_t is_value) const
    {
        return kv_index(kv, table, position, is_value, kv_head);
    }

    /* Scores of the `count` positions from `begin` on; those behind the end of a page too, as
     * anything. */
    __device__ __forceinline__ void score(uint32_t begin, uint32_t count) const
    {
        const uint32_t sub = threadIdx.x % KEY_LANES;
        for (uint32_t page = 0; page < count; page += OP_PAGE) {
            const uint32_t at = page + threadIdx.x / KEY_LANES;
            float sum[GROUP_MAX] = {};
            const size_t key = at < count ? index(begin + at, 0) : 0;
            for (uint32_t d = sub * 4; at < count && d < kv.head_width; d += KEY_LANES * 4) {
                const float4 k = kv_four(kv, key + d);
                UNROLL_ALL
                for (uint32_t g = 0; g < GROUP_MAX; g++)
                    if (g < group)
                        sum[g] = dot4(*reinterpret_cast<const float4 *>(&q[g][d]), k, sum[g]);
            }
            UNROLL_ALL
            for (uint32_t g = 0; g < GROUP_MAX; g++) {
                if (g >= group)
                    break;
                for (uint32_t distance = KEY_LANES / 2; distance; distance /= 2)
                    sum[g] += __shfl_xor_sync(WARP_MASK, sum[g], distance);
                if (sub == 0 && at < count)
                    scores[g][at] = sum[g];
            }
        }
    }

    /* Scores to weights, a warp a head; keeps maximum and denominator going. */
    __device__ __forceinline__ void soften(uint32_t count) const
    {
        const uint32_t lane = threadIdx.x % WARP;
        for (uint32_t g = threadIdx.x / WARP; g < group; g += WARPS) {
            float most = maxima[g];
            for (uint32_t i = lane; i < count; i += WARP)
                most = fmaxf(most, scores[g][i]);
            most = warp_max(most);
            float sum = 0.0f;
            for (uint32_t i = lane; i < count; i += WARP) {
                const float weight = expf(scores[g][i] - most);
                scores[g][i] = weight;
                sum += weight;
            }
            sum = warp_sum(sum);
            __syncwarp(); /* all have read the old maximum */
            if (lane == 0) {
                factors[g] = expf(maxima[g] - most);
                sums[g] = fmaf(sums[g], factors[g], sum);
                maxima[g] = most;
            }
        }
    }
};

/* A thread's share of the values: four dimensions, every so many positions. */
struct value_sums {
    uint32_t quads;  /* of a head */
    uint32_t slices; /* threads that share a quad */
    uint32_t quad;
    uint32_t slice;
    float4 sum[GROUP_MAX];

    __device__ __forceinline__ void init(uint32_t width)
    {
        quads = width / 4;
        slices = THREADS / quads;
        quad = threadIdx.x % quads;
        slice = threadIdx.x / quads;
        for (uint32_t g = 0; g < GROUP_MAX; g++)
            sum[g] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    }

    __device__ __forceinline__ void add(const attend_block &b, uint32_t begin, uint32_t count)
    {
        UNROLL_ALL
        for (uint32_t g = 0; g < GROUP_MAX; g++) {
            const float f = g < b.group ? b.factors[g] : 0.0f;
            sum[g] = make_float4(sum[g].x * f, sum[g].y * f, sum[g].z * f, sum[g].w * f);
        }
        if (slice >= slices)
            return;
        for (uint32_t i = slice; i < count; i += slices) {
            const float4 v = kv_four(b.kv, b.index(begin + i, 1) + quad * 4);
            UNROLL_ALL
            for (uint32_t g = 0; g < GROUP_MAX; g++) {
                const float w = g < b.group ? b.scores[g][i] : 0.0f;
                sum[g] = make_float4(fmaf(w, v.x, sum[g].x), fmaf(w, v.y, sum[g].y),
                                     fmaf(w, v.z, sum[g].z), fmaf(w, v.w, sum[g].w));
            }
        }
    }
};

/* Sums the slices of one head in ascending order; all threads come here. */
static __device__ __forceinline__ void put_head(const value_sums &v, float4 mine, float4 *scratch,
                                                float *out)
{
    __syncthreads();
    scratch[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x >= v.quads)
        return;
    float4 sum = scratch[threadIdx.x];
    for (uint32_t s = 1; s < v.slices; s++) {
        const float4 other = scratch[s * v.quads + threadIdx.x];
        sum = make_float4(sum.x + other.x, sum.y + other.y, sum.z + other.z, sum.w + other.w);
    }
    float *at = out + threadIdx.x * 4;
    at[0] = sum.x;
    at[1] = sum.y;
    at[2] = sum.z;
    at[3] = sum.w;
}

static __device__ __forceinline__ float *partial_of(const attend_args &op, uint32_t column,
                                                    uint32_t head, uint32_t split)
{
    const size_t index = ((size_t)column * op.heads + head) * OP_SPLITS_MAX + split;
    return op.partial + index * (op.kv.head_width + OP_PARTIAL_EXTRA);
}

static __global__ void __launch_bounds__(THREADS) attend_kernel(attend_args op)
{
    SHARED_ARRAY(float, q, [GROUP_MAX][OP_HEAD_MAX]);
    SHARED_ARRAY(float, scores, [GROUP_MAX][TILE]);
    SHARED_ARRAY(float4, scratch, [THREADS]);
    SHARED_ARRAY(float, maxima, [GROUP_MAX]);
    SHARED_ARRAY(float, sums, [GROUP_MAX]);
    SHARED_ARRAY(float, factors, [GROUP_MAX]);
    const uint32_t width = op.kv.head_width;
    const uint32_t groups = (op.kv.head_group + GROUP_MAX - 1) / GROUP_MAX;
    const uint32_t column = blockIdx.y;
    const op_row row = op.rows[column];
    const uint32_t length = row.position + 1;
    const uint32_t split = split_length(length);
    const uint32_t begin = blockIdx.z * split;
    if (begin >= length)
        return;
    const uint32_t end = begin + split < length ? begin + split : length;
    const uint32_t kv_head = blockIdx.x / groups;
    const kv_sharers sharers = kv_heads_of(op.kv, kv_head, op.heads);
    const uint32_t head = sharers.begin + blockIdx.x % groups * GROUP_MAX;
    if (head >= sharers.end)
        return;
    const uint32_t group = sharers.end - head < GROUP_MAX ? sharers.end - head : GROUP_MAX;
    for (uint32_t i = threadIdx.x; i < group * width; i += THREADS)
        q[i / width][i % width] = op.q[((size_t)column * op.heads + head) * width + i] * op.scale;
    if (threadIdx.x < GROUP_MAX) {
        maxima[threadIdx.x] = -INFINITY;
        sums[threadIdx.x] = 0.0f;
    }
    const attend_block block = {
        op.kv, kv_table(op.kv, row.slot), kv_head, group, q, scores, maxima, sums, factors};
    value_sums values;
    values.init(width);
    for (uint32_t at = begin; at < end; at += TILE) {
        const uint32_t count = end - at < TILE ? end - at : TILE;
        __syncthreads();
        block.score(at, count);
        __syncthreads();
        block.soften(count);
        __syncthreads();
        values.add(block, at, count);
    }
    UNROLL_ALL
    for (uint32_t g = 0; g < GROUP_MAX; g++) {
        if (g >= group)
            break;
        float *out = partial_of(op, column, head + g, blockIdx.z);
        put_head(values, values.sum[g], scratch, out);
        if (threadIdx.x == 0) {
            out[width] = maxima[g];
            out[width + 1] = sums[g];
        }
    }
}

static __global__ void combine_kernel(attend_args op)
{
    const uint32_t width = op.kv.head_width;
    const uint32_t head = blockIdx.x;
    const uint32_t column = blockIdx.y;
    const uint32_t length = op.rows[column].position + 1;
    const uint32_t split = split_length(length);
    const uint32_t splits = (length + split - 1) / split;
    const float *from = partial_of(op, column, head, 0);
    const uint32_t step = width + OP_PARTIAL_EXTRA;
    float most = -INFINITY;
    for (uint32_t s = 0; s < splits; s++)
        most = fmaxf(most, from[s * step + width]);
    for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
        float value = 0.0f;
        float sum = 0.0f;
        for (uint32_t s = 0; s < splits; s++) {
            const float factor = expf(from[s * step + width] - most);
            value = fmaf(from[s * step + i], factor, value);
            sum = fmaf(from[s * step + width + 1], factor, sum);
        }
        op.out[((size_t)column * op.heads + head) * width + i] = value / sum;
    }
}

int op_attend(const struct device *device, const struct attend_args *op)
{
    const uint32_t width = op->kv.head_width;
    if (op->count == 0 || width == 0 || width % 4 || width > OP_HEAD_MAX || op->length_max == 0 ||
        !kv_fits(op->kv, op->heads))
        return -EINVAL;
    const uint32_t groups = divide_up(op->kv.head_group, GROUP_MAX);
    /* A shorter column of the launch may have more splits than the longest one. */
    uint32_t splits = divide_up(op->length_max, OP_SPLIT_LEAST);
    if (splits > OP_SPLITS_MAX)
        splits = OP_SPLITS_MAX;
    const dim3 grid(op->kv.kv_heads * groups, op->count, splits);
    if (LAUNCH(attend_kernel, grid, dim3(THREADS), 0, device->stream, *op))
        return -EIO;
    const dim3 heads(op->heads, op->count);
    return LAUNCH(combine_kernel, heads, dim3(divide_up(width, WARP) * WARP), 0, device->stream,
                  *op)
               ? -EIO
               : 0;
}
