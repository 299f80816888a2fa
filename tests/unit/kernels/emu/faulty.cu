/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels that break the rules on purpose. */
#include "tests/unit/kernels/emu/faulty.h"

#include "kernels/cuda/device.cuh"

static __global__ void correct_kernel(uint32_t *out)
{
    SHARED_ARRAY(uint32_t, tile, [FAULTY_THREADS]);
    SHARED_DYNAMIC(uint32_t, more);
    const unsigned i = threadIdx.x;
    const unsigned lane = i % WARP;
    tile[i] = i * 3 + blockIdx.x;
    __syncthreads();
    more[i] = tile[FAULTY_THREADS - 1 - i];
    __syncwarp();
    const uint32_t in_warp = more[i / WARP * WARP + (lane + 1) % WARP];
    const uint32_t below = __shfl_xor_sync(WARP_MASK, in_warp, 5);
    const uint32_t votes = __ballot_sync(WARP_MASK, lane % 3 == 0);
    const int count = __syncthreads_count(i < 10);
    out[blockIdx.x * FAULTY_THREADS + i] = below + votes + (uint32_t)count;
    atomicAdd(&out[FAULTY_BLOCKS * FAULTY_THREADS], 1u);
}

static __global__ void barrier_skip_kernel(uint32_t *out)
{
    if (threadIdx.x != 7)
        __syncthreads();
    out[threadIdx.x] = 1;
}

static __global__ void barrier_other_kernel(uint32_t *out)
{
    if (threadIdx.x < WARP) {
        __syncthreads();
        out[threadIdx.x] = 1;
    } else {
        __syncthreads();
        out[threadIdx.x] = 2;
    }
}

static __global__ void shuffle_lanes_kernel(uint32_t *out)
{
    if (threadIdx.x % WARP != 3)
        out[threadIdx.x] = __shfl_xor_sync(WARP_MASK, threadIdx.x, 1);
}

static __global__ void shared_race_kernel(uint32_t *out)
{
    SHARED_ARRAY(uint32_t, tile, [FAULTY_THREADS]);
    tile[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = tile[(threadIdx.x + WARP) % FAULTY_THREADS];
}

static __global__ void warp_race_kernel(uint32_t *out)
{
    SHARED_ARRAY(uint32_t, tile, [FAULTY_THREADS]);
    tile[threadIdx.x] = threadIdx.x;
    out[threadIdx.x] = tile[threadIdx.x ^ 1u];
}

static __global__ void device_race_kernel(uint32_t *out)
{
    if (threadIdx.x == 0)
        out[0] += 1;
}

static __global__ void shared_beyond_kernel(uint32_t *out)
{
    SHARED_ARRAY(uint32_t, tile, [FAULTY_THREADS]);
    tile[threadIdx.x + 1] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = tile[threadIdx.x];
}

static __global__ void shared_too_big_kernel(uint32_t *out)
{
    SHARED_ARRAY(uint32_t, tile, [50000]);
    SHARED_ARRAY(uint32_t, tile2, [50000]);
    tile[threadIdx.x] = 1;
    out[threadIdx.x] = tile[threadIdx.x] + tile2[0];
}

int faulty_run(enum faulty which, uint32_t *out)
{
    const dim3 grid(which == FAULTY_NOTHING || which == FAULTY_DEVICE_RACE ? FAULTY_BLOCKS : 1);
    dim3 block(FAULTY_THREADS);
    void (*kernel)(uint32_t *) = correct_kernel;
    switch (which) {
    case FAULTY_BARRIER_SKIP:
        kernel = barrier_skip_kernel;
        break;
    case FAULTY_BARRIER_OTHER:
        kernel = barrier_other_kernel;
        break;
    case FAULTY_SHUFFLE_LANES:
        kernel = shuffle_lanes_kernel;
        break;
    case FAULTY_SHARED_RACE:
        kernel = shared_race_kernel;
        break;
    case FAULTY_WARP_RACE:
        kernel = warp_race_kernel;
        break;
    case FAULTY_DEVICE_RACE:
        kernel = device_race_kernel;
        break;
    case FAULTY_SHARED_BEYOND:
        kernel = shared_beyond_kernel;
        break;
    case FAULTY_SHARED_TOO_BIG:
        kernel = shared_too_big_kernel;
        break;
    case FAULTY_BLOCK_TOO_BIG:
        block = dim3(1024, 2);
        break;
    case FAULTY_NOTHING:
        break;
    }
    return LAUNCH(kernel, grid, block, FAULTY_THREADS * sizeof(uint32_t), nullptr, out);
}

float faulty_half(float value)
{
    return __half2float(__float2half_rn(value));
}

static __global__ void add_kernel(uint32_t *total, const uint32_t *step)
{
    *total += *step;
}

uint32_t faulty_graph(uint32_t times)
{
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    uint32_t *words;
    if (cudaMalloc(reinterpret_cast<void **>(&words), 2 * sizeof(*words)) != cudaSuccess ||
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess)
        return 0;
    words[0] = 0;
    words[1] = 5;
    (void)cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    (void)LAUNCH(add_kernel, dim3(1), dim3(1), 0, stream, words, words + 1);
    (void)cudaStreamEndCapture(stream, &graph);
    (void)cudaGraphInstantiate(&executable, graph, 0);
    (void)cudaGraphDestroy(graph);
    words[1] = 7; /* the capture has not run anything */
    for (uint32_t i = 0; i < times; i++)
        (void)cudaGraphLaunch(executable, stream);
    const uint32_t total = words[0];
    (void)cudaGraphExecDestroy(executable);
    (void)cudaStreamDestroy(stream);
    (void)cudaFree(words);
    return total;
}
