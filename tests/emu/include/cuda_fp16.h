/* SPDX-License-Identifier: Apache-2.0 */
/* cuda_fp16.h (emulated) - half precision by bits, rounding to nearest even as the device does. */
#pragma once

#include "cuda_runtime.h"

struct __half {
    unsigned short bits;
};

static inline __half __ushort_as_half(unsigned short bits)
{
    return {bits};
}
static inline unsigned short __half_as_ushort(__half h)
{
    return h.bits;
}

static inline float __half2float(__half h)
{
    const unsigned sign = (unsigned)(h.bits & 0x8000u) << 16;
    const unsigned exponent = h.bits >> 10 & 31u;
    const unsigned mantissa = h.bits & 0x3ffu;
    if (exponent == 31u)
        return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
    if (exponent)
        return __uint_as_float(sign | (exponent + 112u) << 23 | mantissa << 13);
    const float small = (float)mantissa * 0x1p-24f;
    return sign ? -small : small;
}

static inline __half __float2half_rn(float value)
{
    const unsigned bits = __float_as_uint(value);
    const unsigned short sign = (unsigned short)(bits >> 16 & 0x8000u);
    const float size = fabsf(value);
    if (size != size)
        return {(unsigned short)0x7fffu};
    if (size >= 65520.0f)
        return {(unsigned short)(sign | 0x7c00u)};
    if (size < 0x1p-14f) /* the sum's last bit is the half's: the addition rounds */
        return {(unsigned short)(sign | (__float_as_uint(size + 0.5f) - __float_as_uint(0.5f)))};
    const unsigned kept = (bits & 0x7fffffffu) - (112u << 23);
    return {(unsigned short)(sign | ((kept + 0xfffu + (kept >> 13 & 1u)) >> 13))};
}
