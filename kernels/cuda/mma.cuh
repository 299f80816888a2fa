/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mma.cuh - one product of 16 x 16 by 16 x 8 numbers of 16 bits by a warp, sums in float32: PTX's
 * mma.sync.m16n8k16 on the device, and the same by a gathering of all lanes' words on the emulator,
 * so that what is built on it runs there too. And the rounding of floats to such numbers.
 *
 * Who holds what (PTX ISA, "Matrix Fragments for mma.m16n8k16"), with g = lane / 4, t = lane % 4
 * and two neighbouring k in a word:
 *   a[0]: row g, k 2t         a[1]: row g + 8, k 2t    a[2], a[3]: the same at k 2t + 8
 *   b[0]: column g, k 2t      b[1]: column g, k 2t + 8
 *   d[0], d[1]: row g, columns 2t and 2t + 1           d[2], d[3]: row g + 8
 */
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/ops.h"

/* To the nearest halves; beyond the largest: the largest; what is no number stays none. */
static __device__ __forceinline__ uint32_t to_halves(float a, float b)
{
#ifdef __CUDACC__
    uint32_t both;
    asm("cvt.rn.satfinite.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(b), "f"(a));
    return both;
#else
    const float left = a == a ? fminf(fmaxf(a, -65504.0f), 65504.0f) : a;
    const float right = b == b ? fminf(fmaxf(b, -65504.0f), 65504.0f) : b;
    return __half_as_ushort(__float2half_rn(left)) |
           (uint32_t)__half_as_ushort(__float2half_rn(right)) << 16;
#endif
}

static __device__ __forceinline__ uint16_t to_half(float value)
{
    return (uint16_t)to_halves(value, 0.0f);
}

/* The same of two numbers that are not beyond it, or else become infinite. */
static __device__ __forceinline__ uint32_t pack_halves(float a, float b)
{
    return __half_as_ushort(__float2half_rn(a)) | (uint32_t)__half_as_ushort(__float2half_rn(b))
                                                      << 16;
}

/* To the nearest bfloat16, ties to even; what is no number stays none. */
static __device__ __forceinline__ uint16_t to_bf16(float value)
{
    const unsigned bits = __float_as_uint(value);
    const unsigned rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return (uint16_t)(value == value ? rounded : 0x7fffu);
}

template <bool IS_BF16> static __device__ __forceinline__ uint32_t to_numbers(float a, float b)
{
    return IS_BF16 ? to_bf16(a) | (uint32_t)to_bf16(b) << 16 : to_halves(a, b);
}

/* One number of a kind that is known at run time. */
static __device__ __forceinline__ void put_number(void *to, size_t index, float value,
                                                  enum op_number number)
{
    if (number == OP_F32)
        static_cast<float *>(to)[index] = value;
    else
        static_cast<uint16_t *>(to)[index] = number == OP_F16 ? to_half(value) : to_bf16(value);
}

#ifndef __CUDACC__
struct mma_words {
    uint32_t a[4];
    uint32_t b[2];
};

template <bool IS_BF16> static inline float lower_number(uint32_t word)
{
    return IS_BF16 ? bf16_value((uint16_t)word) : half_value((uint16_t)word);
}

template <bool IS_BF16> static inline float dot_words(uint32_t a, uint32_t b)
{
    return lower_number<IS_BF16>(a) * lower_number<IS_BF16>(b) +
           lower_number<IS_BF16>(a >> 16) * lower_number<IS_BF16>(b >> 16);
}
#endif

/* d = d + a b, of halves or of bfloat16s. All lanes of the warp come here. */
template <bool IS_BF16 = false>
static __device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2])
{
#ifdef __CUDACC__
    if (IS_BF16)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    const unsigned lane = threadIdx.x % WARP;
    const unsigned row = lane / 4 * 4;    /* first lane of the rows' holders */
    const unsigned column = lane % 4 * 8; /* of column 2t's; 2t + 1's are four further */
    mma_words mine;
    mma_words rows[4];
    mma_words columns[8];
    memcpy(mine.a, a, sizeof(mine.a));
    memcpy(mine.b, b, sizeof(mine.b));
    const uint8_t *all = emu_all_lanes(mine);
    memcpy(rows, all + row * sizeof(mine), sizeof(rows));
    memcpy(columns, all + column * sizeof(mine), sizeof(columns));
    for (unsigned k = 0; k < 8; k++) { /* words of two */
        const uint32_t upper = rows[k % 4].a[k / 4 * 2];
        const uint32_t lower = rows[k % 4].a[k / 4 * 2 + 1];
        const uint32_t left = columns[k % 4].b[k / 4];
        const uint32_t right = columns[4 + k % 4].b[k / 4];
        d[0] += dot_words<IS_BF16>(upper, left);
        d[1] += dot_words<IS_BF16>(upper, right);
        d[2] += dot_words<IS_BF16>(lower, left);
        d[3] += dot_words<IS_BF16>(lower, right);
    }
#endif
}
