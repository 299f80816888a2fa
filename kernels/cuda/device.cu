/* SPDX-License-Identifier: Apache-2.0 */
/* device.h over the CUDA runtime. */
#include "kernels/cuda/device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/device.cuh"

/* What went wrong last on this thread. */
static thread_local cudaError_t trouble = cudaSuccess;

static int to_errno(cudaError_t error)
{
    if (error == cudaSuccess)
        return 0;
    trouble = error;
    (void)cudaGetLastError(); /* or the next launch would report it again */
    return error == cudaErrorMemoryAllocation ? -ENOMEM : -EIO;
}

static cudaStream_t stream_of(const struct device *device)
{
    return static_cast<cudaStream_t>(device->stream);
}

uint32_t device_count(void)
{
    int count = 0;
    return to_errno(cudaGetDeviceCount(&count)) == 0 && count > 0 ? (uint32_t)count : 0;
}

const char *device_trouble(void)
{
    static char text[200];
    int count = 0;
    int runtime = 0;
    int driver = 0;
    (void)to_errno(cudaGetDeviceCount(&count));
    (void)cudaRuntimeGetVersion(&runtime);
    (void)cudaDriverGetVersion(&driver);
    (void)snprintf(text, sizeof(text),
                   "%s; %d devices; built with CUDA %d.%d, the driver takes up to %d.%d",
                   cudaGetErrorString(trouble), count, runtime / 1000, runtime % 1000 / 10,
                   driver / 1000, driver % 1000 / 10);
    return text;
}

int device_open(struct device *device, uint32_t index)
{
    cudaDeviceProp properties;
    cudaStream_t stream;
    memset(device, 0, sizeof(*device));
    if (index >= device_count() || to_errno(cudaSetDevice((int)index)) ||
        to_errno(cudaGetDeviceProperties(&properties, (int)index)))
        return -ENODEV;
    const int rc = to_errno(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    if (rc)
        return rc;
    device->index = index;
    device->stream = stream;
    for (uint32_t i = 0; i < DEVICE_MARKS; i++) {
        cudaEvent_t event;
        const int failed = to_errno(cudaEventCreateWithFlags(&event, cudaEventDefault));
        if (failed) {
            device_close(device);
            return failed;
        }
        device->marks[i] = event;
    }
    device->processors = (uint32_t)properties.multiProcessorCount;
    device->shared_bytes = (uint32_t)properties.sharedMemPerBlockOptin;
    device->capability = (uint32_t)(properties.major * 10 + properties.minor);
    (void)snprintf(device->name, sizeof(device->name), "%.63s", properties.name);
    return 0;
}

int device_use(const struct device *device)
{
    return to_errno(cudaSetDevice((int)device->index));
}

void device_close(struct device *device)
{
    for (uint32_t i = 0; i < DEVICE_MARKS; i++)
        if (device->marks[i])
            (void)cudaEventDestroy(static_cast<cudaEvent_t>(device->marks[i]));
    if (device->stream)
        (void)cudaStreamDestroy(stream_of(device));
    memset(device, 0, sizeof(*device));
}

void device_memory(size_t *free_bytes, size_t *total_bytes)
{
    if (to_errno(cudaMemGetInfo(free_bytes, total_bytes)))
        *free_bytes = *total_bytes = 0;
}

int device_alloc(void **out, size_t size_bytes)
{
    *out = NULL;
    return to_errno(cudaMalloc(out, size_bytes));
}

void device_free(void *memory)
{
    (void)to_errno(cudaFree(memory));
}

int device_alloc_host(void **out, size_t size_bytes)
{
    *out = NULL;
    return to_errno(cudaMallocHost(out, size_bytes));
}

void device_free_host(void *memory)
{
    if (memory)
        (void)to_errno(cudaFreeHost(memory));
}

int device_copy(const struct device *device, void *to, const void *from, size_t size_bytes)
{
    return to_errno(cudaMemcpyAsync(to, from, size_bytes, cudaMemcpyDefault, stream_of(device)));
}

int device_fill(const struct device *device, void *to, int byte, size_t size_bytes)
{
    return to_errno(cudaMemsetAsync(to, byte, size_bytes, stream_of(device)));
}

int device_wait(const struct device *device)
{
    return to_errno(cudaStreamSynchronize(stream_of(device)));
}

int device_mark(const struct device *device, uint32_t mark)
{
    return to_errno(
        cudaEventRecord(static_cast<cudaEvent_t>(device->marks[mark]), stream_of(device)));
}

int device_wait_mark(const struct device *device, uint32_t mark)
{
    return to_errno(cudaEventSynchronize(static_cast<cudaEvent_t>(device->marks[mark])));
}

double device_seconds_between(const struct device *device, uint32_t first, uint32_t second)
{
    float ms = 0.0f;
    const cudaError_t error =
        cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(device->marks[first]),
                             static_cast<cudaEvent_t>(device->marks[second]));
    return to_errno(error) ? 0.0 : (double)ms * 1e-3;
}

/* ---- graphs -------------------------------------------------------------------------------- */

int device_capture_begin(const struct device *device)
{
    return to_errno(cudaStreamBeginCapture(stream_of(device), cudaStreamCaptureModeThreadLocal));
}

int device_capture_end(const struct device *device, struct device_graph **out)
{
    cudaGraph_t graph = NULL;
    cudaGraphExec_t executable = NULL;
    *out = NULL;
    int rc = to_errno(cudaStreamEndCapture(stream_of(device), &graph));
    if (rc == 0)
        rc = to_errno(cudaGraphInstantiate(&executable, graph, 0));
    if (graph)
        (void)cudaGraphDestroy(graph);
    *out = reinterpret_cast<struct device_graph *>(executable);
    return rc;
}

int device_graph_launch(const struct device *device, struct device_graph *graph)
{
    return to_errno(cudaGraphLaunch(reinterpret_cast<cudaGraphExec_t>(graph), stream_of(device)));
}

void device_graph_destroy(struct device_graph *graph)
{
    if (graph)
        (void)cudaGraphExecDestroy(reinterpret_cast<cudaGraphExec_t>(graph));
}
