/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cuda_runtime.h (emulated) - what the kernels and the backend use of CUDA, for a C++ compiler of
 * the host: qualifiers, built-in variables, vector types, intrinsics, and the runtime's functions
 * over tests/emu/runtime.h. Found before the toolkit's header of the same name only by the tests'
 * builds. Semantics as in the CUDA C++ programming guide.
 *
 * Static __shared__ variables are not offered: kernels use SHARED_ARRAY of
 * kernels/cuda/device.cuh, which the emulator can guard.
 */
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "tests/emu/emu.h"
#include "tests/emu/runtime.h"

#define WEFT_EMULATED 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

#define threadIdx (emu_self->thread_idx)
#define blockIdx  (emu_self->block_idx)
#define blockDim  (emu_self->block_dim)
#define gridDim   (emu_self->grid_dim)
#define warpSize  32

#define EMU_TEXT_(x) #x
#define EMU_TEXT(x)  EMU_TEXT_(x)
#define EMU_SITE     __FILE__ ":" EMU_TEXT(__LINE__)

/* ---- vectors ------------------------------------------------------------------------------- */

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned ax = 1, unsigned ay = 1, unsigned az = 1) : x(ax), y(ay), z(az)
    {
    }
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y)
{
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

/* ---- meeting ------------------------------------------------------------------------------- */

#define __syncthreads()                  ((void)emu_barrier(EMU_SITE, 0))
#define __syncthreads_count(p)           emu_barrier(EMU_SITE, (p))
#define __syncthreads_or(p)              (emu_barrier(EMU_SITE, (p)) != 0)
#define __syncwarp(...)                  emu_syncwarp(EMU_SITE, emu_mask(__VA_ARGS__))
#define __shfl_sync(mask, v, lane, ...)  emu_shfl(EMU_SITE, mask, v, emu_from(lane))
#define __shfl_xor_sync(mask, v, x, ...) emu_shfl(EMU_SITE, mask, v, emu_lane() ^ (unsigned)(x))
#define __shfl_down_sync(mask, v, d, ...)                                                          \
    emu_shfl(EMU_SITE, mask, v,                                                                    \
             emu_lane() + (unsigned)(d) < EMU_WARP ? emu_lane() + (unsigned)(d) : emu_lane())
#define __shfl_up_sync(mask, v, d, ...)                                                            \
    emu_shfl(EMU_SITE, mask, v,                                                                    \
             emu_lane() >= (unsigned)(d) ? emu_lane() - (unsigned)(d) : emu_lane())
#define __ballot_sync(mask, p) emu_ballot(EMU_SITE, mask, (p) != 0)
#define __any_sync(mask, p)    (emu_ballot(EMU_SITE, mask, (p) != 0) != 0)
#define __all_sync(mask, p)    (emu_ballot(EMU_SITE, mask, (p) != 0) == (mask))

static inline unsigned emu_lane(void)
{
    return emu_self->index % EMU_WARP;
}

static inline unsigned emu_from(int lane)
{
    return (unsigned)lane % EMU_WARP;
}

static inline uint32_t emu_mask(uint32_t mask = 0xffffffffu)
{
    return mask;
}

template <typename T>
static inline T emu_shfl(const char *site, uint32_t mask, T value, unsigned from)
{
    const uint8_t *all = emu_exchange(site, mask, &value, sizeof(value));
    if (!(mask >> from & 1))
        emu_fail("%s: lane %u takes from lane %u, which is not in the mask", site, emu_lane(),
                 from);
    memcpy(&value, all + from * sizeof(value), sizeof(value));
    return value;
}

/* What all lanes of the warp give, [lane][sizeof(T)]: for the twins of instructions that work on a
 * whole warp. Not CUDA's. */
#define emu_all_lanes(value) emu_exchange(EMU_SITE, 0xffffffffu, &(value), sizeof(value))

static inline uint32_t emu_ballot(const char *site, uint32_t mask, bool vote)
{
    const uint8_t mine = vote;
    const uint8_t *all = emu_exchange(site, mask, &mine, sizeof(mine));
    uint32_t votes = 0;
    for (unsigned lane = 0; lane < EMU_WARP; lane++)
        if (mask >> lane & 1 && all[lane])
            votes |= UINT32_C(1) << lane;
    return votes;
}

static inline void __threadfence(void)
{
}

/* ---- atomics ------------------------------------------------------------------------------- */

static inline unsigned atomicAdd(unsigned *at, unsigned value)
{
    return emu_atomic_add_u32(at, value);
}
static inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value)
{
    return emu_atomic_add_u64(at, value);
}
static inline unsigned atomicMax(unsigned *at, unsigned value)
{
    return emu_atomic_max_u32(at, value);
}
static inline unsigned long long atomicMax(unsigned long long *at, unsigned long long value)
{
    return emu_atomic_max_u64(at, value);
}
static inline unsigned atomicExch(unsigned *at, unsigned value)
{
    return emu_atomic_exch_u32(at, value);
}
static inline unsigned atomicCAS(unsigned *at, unsigned expected, unsigned value)
{
    return emu_atomic_cas_u32(at, expected, value);
}

/* ---- numbers ------------------------------------------------------------------------------- */

static inline float __uint_as_float(unsigned bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}
static inline unsigned __float_as_uint(float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}
static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((unsigned long long)a * b >> 32);
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const uint64_t both = (uint64_t)y << 32 | x;
    unsigned out = 0;
    for (unsigned i = 0; i < 4; i++)
        out |= (unsigned)(both >> (selector >> 4 * i & 7u) * 8 & 0xffu) << 8 * i;
    return out;
}
static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}
static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}
static inline int __clz(int x)
{
    return x ? __builtin_clz((unsigned)x) : 32;
}
template <typename T> static inline T __ldg(const T *at)
{
    return *at;
}
template <typename T> static inline T min(T a, T b)
{
    return b < a ? b : a;
}
template <typename T> static inline T max(T a, T b)
{
    return a < b ? b : a;
}

/* ---- the runtime --------------------------------------------------------------------------- */

typedef int cudaError_t;
typedef struct emu_stream *cudaStream_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;
enum {
    cudaSuccess = EMU_SUCCESS,
    cudaErrorInvalidValue = EMU_INVALID_VALUE,
    cudaErrorMemoryAllocation = EMU_OUT_OF_MEMORY,
};
enum cudaMemcpyKind { cudaMemcpyDefault = 4 };
enum { cudaStreamCaptureModeThreadLocal = 1, cudaStreamNonBlocking = 1 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem;
    size_t sharedMemPerBlockOptin;
    int multiProcessorCount;
    int major;
    int minor;
};

static inline cudaError_t cudaGetDeviceCount(int *count)
{
    return *count = 1, cudaSuccess;
}
static inline cudaError_t cudaSetDevice(int device)
{
    return emu_note_error(device ? cudaErrorInvalidValue : cudaSuccess);
}
/* Few processors, so that kernels whose grid depends on them go round more than once. */
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *out, int device)
{
    *out = cudaDeviceProp{"emulated", (size_t)1 << 30, EMU_SHARED_MAX, 3, 8, 0};
    return cudaSetDevice(device);
}
static inline cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *total_bytes = (size_t)1 << 30;
    *free_bytes = *total_bytes - emu_allocated_bytes();
    return cudaSuccess;
}
static inline cudaError_t cudaMalloc(void **out, size_t size)
{
    *out = emu_is_to_fail(EMU_CALL_ALLOC) ? NULL : emu_alloc(size);
    return emu_note_error(*out ? cudaSuccess : cudaErrorMemoryAllocation);
}
static inline cudaError_t cudaFree(void *memory)
{
    return emu_free(memory), cudaSuccess;
}
static inline cudaError_t cudaMallocHost(void **out, size_t size)
{
    return cudaMalloc(out, size);
}
static inline cudaError_t cudaFreeHost(void *memory)
{
    return cudaFree(memory);
}
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind,
                                          cudaStream_t stream)
{
    return emu_copy(stream, to, from, size);
}
static inline cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream)
{
    return emu_fill(stream, to, value, size);
}
static inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned)
{
    return emu_stream_create(out);
}
static inline cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    return emu_stream_destroy(stream);
}
static inline cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    return emu_stream_wait(stream);
}
static inline cudaError_t cudaGetLastError(void)
{
    return emu_last_error(1);
}
static inline cudaError_t cudaPeekAtLastError(void)
{
    return emu_last_error(0);
}
static inline const char *cudaGetErrorString(cudaError_t error)
{
    return error ? "emulated failure" : "no error";
}
static inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, int)
{
    return emu_capture_begin(stream);
}
static inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    return emu_capture_end(stream, out);
}
/* The graph becomes its executable form, and nothing is left of it. */
static inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph,
                                               unsigned long long)
{
    const bool fails = emu_is_to_fail(EMU_CALL_GRAPH);
    *out = fails ? NULL : emu_graph_take(graph);
    return emu_note_error(*out ? cudaSuccess : cudaErrorMemoryAllocation);
}
static inline cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    return emu_graph_destroy(graph);
}
static inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
    return emu_graph_destroy(graph);
}
static inline cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t)
{
    return emu_graph_launch(graph);
}
template <typename K> static inline cudaError_t cudaFuncSetAttribute(K *, cudaFuncAttribute, int)
{
    return cudaSuccess;
}

/* Events: when something was done is not of interest here. */
typedef struct emu_op *cudaEvent_t;
enum { cudaEventDefault = 0 };
static inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    static struct emu_op any;
    *out = emu_is_to_fail(EMU_CALL_STREAM) ? NULL : &any;
    return emu_note_error(*out ? cudaSuccess : cudaErrorMemoryAllocation);
}
static inline cudaError_t cudaEventDestroy(cudaEvent_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    return cudaSuccess;
}
static inline cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t)
{
    return *ms = 0.0f, cudaSuccess;
}
static inline cudaError_t cudaRuntimeGetVersion(int *version)
{
    return *version = 0, cudaSuccess;
}
static inline cudaError_t cudaDriverGetVersion(int *version)
{
    return *version = 0, cudaSuccess;
}

/* A launch with its arguments, as an operation of a stream. */
template <typename F> struct emu_launch {
    F body;
    const char *name;
    dim3 grid;
    dim3 block;
    size_t shared;

    static void thread(void *closure)
    {
        static_cast<emu_launch *>(closure)->body();
    }
    static int run(void *closure)
    {
        emu_launch *l = static_cast<emu_launch *>(closure);
        const struct emu_dim grid = {l->grid.x, l->grid.y, l->grid.z};
        const struct emu_dim block = {l->block.x, l->block.y, l->block.z};
        const int rc = emu_run(l->name, grid, block, l->shared, thread, closure);
        return rc ? EMU_LAUNCH_FAILED : EMU_SUCCESS;
    }
    static void destroy(void *closure)
    {
        delete static_cast<emu_launch *>(closure);
    }
};

template <typename F>
static inline int emu_launch_on(cudaStream_t stream, const char *name, dim3 grid, dim3 block,
                                size_t shared, F body)
{
    auto *closure = new emu_launch<F>{body, name, grid, block, shared};
    const struct emu_op op = {emu_launch<F>::run, emu_launch<F>::destroy, closure};
    return emu_enqueue(stream, &op);
}
