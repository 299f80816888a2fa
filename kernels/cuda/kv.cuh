/* SPDX-License-Identifier: Apache-2.0 */
/* kv.cuh - the paged KV cache of ops.h as kernels see it: where a position's values lie, four of
 * them at a time, and which query heads look at a KV head. */
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.h"

static __device__ __forceinline__ const uint32_t *kv_table(const kv_view &kv, uint32_t slot)
{
    return kv.tables + (size_t)slot * kv.table_stride;
}

/* The index of the first value of a position's key or value. */
static __device__ __forceinline__ size_t kv_index(const kv_view &kv, const uint32_t *table,
                                                  uint32_t position, uint32_t is_value,
                                                  uint32_t kv_head)
{
    const size_t page = table[position / OP_PAGE];
    return (((page * 2 + is_value) * kv.kv_heads + kv_head) * OP_PAGE + position % OP_PAGE) *
           kv.head_width;
}

template <bool IS_HALF>
static __device__ __forceinline__ float4 kv_four_of(const kv_view &kv, size_t index)
{
    if (!IS_HALF)
        return *reinterpret_cast<const float4 *>(static_cast<const float *>(kv.pages) + index);
    const uint2 both =
        *reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(kv.pages) + index);
    return make_float4(half_value((uint16_t)both.x), half_value((uint16_t)(both.x >> 16)),
                       half_value((uint16_t)both.y), half_value((uint16_t)(both.y >> 16)));
}

static __device__ __forceinline__ float4 kv_four(const kv_view &kv, size_t index)
{
    return kv.is_half ? kv_four_of<true>(kv, index) : kv_four_of<false>(kv, index);
}

/* Query heads [begin, end) look at a KV head. */
struct kv_sharers {
    uint32_t begin;
    uint32_t end;
};

static __device__ __forceinline__ kv_sharers kv_heads_of(const kv_view &kv, uint32_t kv_head,
                                                         uint32_t heads)
{
    const uint32_t from = kv_head * kv.head_group;
    const uint32_t to = from + kv.head_group - kv.head_skip;
    return {from > kv.head_skip ? from - kv.head_skip : 0, to < heads ? to : heads};
}

/* Every query head has its KV head, and every KV head is looked at. */
static inline bool kv_fits(const kv_view &kv, uint32_t heads)
{
    return kv.head_group && kv.head_skip < kv.head_group && heads &&
           kv.kv_heads == (kv.head_skip + heads + kv.head_group - 1) / kv.head_group;
}
