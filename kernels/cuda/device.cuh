/* SPDX-License-Identifier: Apache-2.0 */
/*
 * device.cuh - what all .cu files here share: launching, shared arrays, sums over a warp or block.
 * The files compile with nvcc and, for the tests, with a C++ compiler over tests/emu, which sees
 * the same code but for the two macros below.
 *
 * Sums have one fixed order that depends on the block's size alone: lanes by halving distance, then
 * warps in ascending order.
 */
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <stdint.h>
#include <string.h>

#define WARP      32u
#define WARP_MASK 0xffffffffu

/* SHARED_ARRAY(float, tile, [8][33]): an array of the block's. SHARED_DYNAMIC(float, x): what the
 * launch has asked for, aligned to 16. */
#ifdef __CUDACC__
#define SHARED_ARRAY(type, name, dims) __shared__ __align__(16) type name dims
#define SHARED_DYNAMIC(type, name)                                                                 \
    extern __shared__ __align__(16) unsigned char shared_dynamic[];                                \
    type *name = reinterpret_cast<type *>(shared_dynamic)
#else
#define SHARED_ARRAY(type, name, dims)                                                             \
    typedef type name##_array dims;                                                                \
    static const char name##_tag = 0;                                                              \
    name##_array &name =                                                                           \
        *static_cast<name##_array *>(emu_shared(&name##_tag, sizeof(name##_array), 16))
#define SHARED_DYNAMIC(type, name) type *name = static_cast<type *>(emu_shared_dynamic())
#endif

/* Before a loop. */
#ifdef __CUDACC__
#define UNROLL_ALL   _Pragma("unroll")
#define UNROLL_TWICE _Pragma("unroll 2")
#else
#define UNROLL_ALL
#define UNROLL_TWICE
#endif

/* Launches kernel<<<grid, block, shared, stream>>>(args...). Returns a cudaError_t, and takes it
 * from the runtime: what is wrong with one launch must not be said of the next. */
#ifdef __CUDACC__
template <typename... P, typename... A>
static inline cudaError_t launch_named(const char *, void (*kernel)(P...), dim3 grid, dim3 block,
                                       size_t shared, void *stream, A... args)
{
    kernel<<<grid, block, shared, static_cast<cudaStream_t>(stream)>>>(static_cast<P>(args)...);
    return cudaGetLastError();
}
#else
template <typename... P, typename... A>
static inline cudaError_t launch_named(const char *name, void (*kernel)(P...), dim3 grid,
                                       dim3 block, size_t shared, void *stream, A... args)
{
    (void)emu_launch_on(static_cast<cudaStream_t>(stream), name, grid, block, shared,
                        [=]() { kernel(static_cast<P>(args)...); });
    return cudaGetLastError();
}
#endif
#define LAUNCH(kernel, ...) launch_named(#kernel, kernel, __VA_ARGS__)

/* A kernel whose launches ask for `bytes` of shared memory; false if no block may have them. */
template <typename K> static inline bool may_share(K *kernel, size_t bytes)
{
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes) ==
        cudaSuccess)
        return true;
    (void)cudaGetLastError();
    return false;
}

static inline unsigned divide_up(unsigned value, unsigned by)
{
    return (value + by - 1) / by;
}

/* ---- on the device ------------------------------------------------------------------------- */

static __device__ __forceinline__ float half_value(uint16_t bits)
{
    return __half2float(__ushort_as_half(bits));
}

static __device__ __forceinline__ float bf16_value(uint16_t bits)
{
    return __uint_as_float((unsigned)bits << 16);
}

/* (pair - less) * by of two halves a word, both rounded. */
static __device__ __forceinline__ uint32_t halves_less_times(uint32_t pair, uint32_t less, float by)
{
#ifdef __CUDACC__
    const __half2 scale = __float2half2_rn(by);
    __half2 a;
    __half2 b;
    uint32_t out;
    memcpy(&a, &pair, sizeof(a));
    memcpy(&b, &less, sizeof(b));
    a = __hmul2(__hsub2(a, b), scale);
    memcpy(&out, &a, sizeof(out));
    return out;
#else
    uint32_t out = 0;
    for (unsigned shift = 0; shift < 32; shift += 16) {
        const float rest =
            half_value((uint16_t)(pair >> shift)) - half_value((uint16_t)(less >> shift));
        const float rounded = __half2float(__float2half_rn(rest));
        const float scale = __half2float(__float2half_rn(by));
        out |= (uint32_t)__half_as_ushort(__float2half_rn(rounded * scale)) << shift;
    }
    return out;
#endif
}

static __device__ __forceinline__ float warp_sum(float value)
{
    for (unsigned distance = WARP / 2; distance; distance /= 2)
        value += __shfl_xor_sync(WARP_MASK, value, distance);
    return value;
}

/* N sums at once, N a power of two up to 32: lane l gets that of value l * N / 32. Halving the
 * values with the distance takes N shuffles instead of 5 N, and adds in the same order as
 * warp_sum(). */
template <unsigned N> static __device__ __forceinline__ float warp_sums(float (&values)[N])
{
    const unsigned lane = threadIdx.x % WARP;
    unsigned distance = WARP / 2;
    UNROLL_ALL
    for (unsigned n = N / 2; n; n /= 2) {
        const bool upper = lane & distance;
        UNROLL_ALL
        for (unsigned i = 0; i < n; i++) {
            const float keep = upper ? values[i + n] : values[i];
            const float give = upper ? values[i] : values[i + n];
            values[i] = keep + __shfl_xor_sync(WARP_MASK, give, distance);
        }
        distance /= 2;
    }
    for (; distance; distance /= 2)
        values[0] += __shfl_xor_sync(WARP_MASK, values[0], distance);
    return values[0];
}

static __device__ __forceinline__ float warp_max(float value)
{
    for (unsigned distance = WARP / 2; distance; distance /= 2)
        value = fmaxf(value, __shfl_xor_sync(WARP_MASK, value, distance));
    return value;
}
