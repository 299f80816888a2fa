/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mma.cuh - one product of 16 x 16 by 16 x 8 halves by a warp, sums in float32: PTX's
 * mma.sync.m16n8k16 on the device, and the same by a gathering of all lanes' words on the emulator,
 * so that what is built on it runs there too.
 *
 * Who holds what (PTX ISA, "Matrix Fragments for mma.m16n8k16"), with g = lane / 4, t = lane % 4
 * and two neighbouring k in a word: a[0]: row g,     k 2t    a[1]: row g + 8, k 2t    a[2], a[3]:
 * the same at k 2t + 8 b[0]: column g,  k 2t    b[1]: column g, k 2t + 8 d[0], d[1]: row g, columns
 * 2t and 2t + 1          d[2], d[3]: row g + 8
 */
#pragma once

#include "kernels/cuda/device.cuh"

static __device__ __forceinline__ float low_half(uint32_t word)
{
    return half_value((uint16_t)word);
}

static __device__ __forceinline__ float high_half(uint32_t word)
{
    return half_value((uint16_t)(word >> 16));
}

/* To the nearest half; beyond the largest: the largest. */
static __device__ __forceinline__ uint16_t to_half(float value)
{
    const float clamped = fminf(fmaxf(value, -65504.0f), 65504.0f);
    return __half_as_ushort(__float2half_rn(clamped));
}

static __device__ __forceinline__ uint32_t to_halves(float a, float b)
{
    return to_half(a) | (uint32_t)to_half(b) << 16;
}

#ifndef __CUDACC__
struct mma_words {
    uint32_t a[4];
    uint32_t b[2];
};
#endif

/* d = d + a b. All lanes of the warp come here. */
static __device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4],
                                                   const uint32_t (&b)[2])
{
#ifdef __CUDACC__
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
        d[0] += low_half(upper) * low_half(left) + high_half(upper) * high_half(left);
        d[1] += low_half(upper) * low_half(right) + high_half(upper) * high_half(right);
        d[2] += low_half(lower) * low_half(left) + high_half(lower) * high_half(left);
        d[3] += low_half(lower) * low_half(right) + high_half(lower) * high_half(right);
    }
#endif
}
