/* SPDX-License-Identifier: Apache-2.0 */
/* One product of a prompt, by op_gemm() and by cuBLASLt: what the tensor cores give. The library is
 * measured only. In a step its sums would depend on the number of columns, for which it chooses
 * other tiles, and a prompt's bits on how it was cut. */
#include "tests/gpu/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/ops.h"
#ifdef WEFT_WITH_CUBLASLT
#include <cublasLt.h>
#endif

#define ROWS      14336u
#define COLS      4096u
#define COLUMNS   2048u
#define WARM      3u
#define ROUNDS    10u
#define STRETCH   ((size_t)COLS * 64) /* numbers, repeated until a matrix is full */
#define WORKSPACE ((size_t)32 << 20)

static const double operations = 2.0 * ROWS * COLS * COLUMNS;

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Fills device memory with `count` numbers around 1 of either sign, `size` bytes each: floats or
 * their upper halves. */
static int fill(const struct device *device, void *to, size_t count, size_t size)
{
    uint8_t *stretch = malloc(STRETCH * size);
    uint32_t state = 1;
    int rc = stretch ? 0 : -ENOMEM;
    for (size_t i = 0; !rc && i < STRETCH; i++) {
        state = state * 1664525u + 1013904223u;
        const uint32_t bits = (state & 0x80000000u) | 0x3f000000u | (state >> 9 & 0x7fffffu);
        for (size_t b = 0; b < size; b++)
            stretch[i * size + b] = (uint8_t)(bits >> 8 * (4 - size + b));
    }
    for (size_t at = 0; !rc && at < count; at += STRETCH)
        rc = device_copy(device, (uint8_t *)to + at * size, stretch,
                         (count - at < STRETCH ? count - at : STRETCH) * size);
    if (!rc)
        rc = device_wait(device);
    free(stretch);
    return rc;
}

typedef int (*product_fn)(void *self);

static int measure(const struct device *device, product_fn product, void *self, double *flops)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < WARM; i++)
        rc = product(self);
    rc = rc ? rc : device_wait(device);
    const double begin = now_s();
    for (uint32_t i = 0; !rc && i < ROUNDS; i++)
        rc = product(self);
    rc = rc ? rc : device_wait(device);
    *flops = operations * ROUNDS / (now_s() - begin);
    return rc;
}

struct gemm_product {
    const struct device *device;
    struct gemm_args op;
};

static int run_gemm(void *self)
{
    const struct gemm_product *p = self;
    return op_gemm(p->device, &p->op);
}

static int measure_gemm(const struct device *device, void *x, void *w, void *y, double *flops)
{
    struct gemm_product p = {.device = device,
                             .op = {.x = x,
                                    .y = y,
                                    .x_stride = COLS,
                                    .y_stride = ROWS,
                                    .columns = COLUMNS,
                                    .mode = OP_STORE}};
    int rc = weights_layout(&p.op.w, WEIGHTS_BF16, ROWS, COLS);
    p.op.w.data = w;
    if (!rc)
        rc = fill(device, x, (size_t)COLUMNS * COLS, sizeof(float));
    return rc ? rc : measure(device, run_gemm, &p, flops);
}

#ifdef WEFT_WITH_CUBLASLT

struct library_product {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t how;
    cublasLtMatrixLayout_t w, x, y; /* column after column: w [COLS][ROWS], transposed */
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulHeuristicResult_t best;
    const void *w_data, *x_data;
    void *y_data;
    void *workspace;
    cudaStream_t stream;
};

static int run_library(void *self)
{
    const struct library_product *p = self;
    const float one = 1.0f;
    const float zero = 0.0f;
    return cublasLtMatmul(p->handle, p->how, &one, p->w_data, p->w, p->x_data, p->x, &zero,
                          p->y_data, p->y, p->y_data, p->y, &p->best.algo, p->workspace, WORKSPACE,
                          p->stream) == CUBLAS_STATUS_SUCCESS
               ? 0
               : -EIO;
}

static int prepare_library(struct library_product *p)
{
    const cublasOperation_t turned = CUBLAS_OP_T;
    const size_t workspace = WORKSPACE;
    int found = 0;
    const bool is_ready =
        cublasLtCreate(&p->handle) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulDescCreate(&p->how, CUBLAS_COMPUTE_32F, CUDA_R_32F) ==
            CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulDescSetAttribute(p->how, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                       sizeof(turned)) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&p->w, CUDA_R_16BF, COLS, ROWS, COLS) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&p->x, CUDA_R_16BF, COLS, COLUMNS, COLS) ==
            CUBLAS_STATUS_SUCCESS &&
        cublasLtMatrixLayoutCreate(&p->y, CUDA_R_16BF, ROWS, COLUMNS, ROWS) ==
            CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulPreferenceCreate(&p->wish) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulPreferenceSetAttribute(p->wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace,
                                             sizeof(workspace)) == CUBLAS_STATUS_SUCCESS &&
        cublasLtMatmulAlgoGetHeuristic(p->handle, p->how, p->w, p->x, p->y, p->y, p->wish, 1,
                                       &p->best, &found) == CUBLAS_STATUS_SUCCESS;
    return is_ready && found ? 0 : -EIO;
}

static void end_library(struct library_product *p)
{
    if (p->wish)
        (void)cublasLtMatmulPreferenceDestroy(p->wish);
    if (p->y)
        (void)cublasLtMatrixLayoutDestroy(p->y);
    if (p->x)
        (void)cublasLtMatrixLayoutDestroy(p->x);
    if (p->w)
        (void)cublasLtMatrixLayoutDestroy(p->w);
    if (p->how)
        (void)cublasLtMatmulDescDestroy(p->how);
    if (p->handle)
        (void)cublasLtDestroy(p->handle);
}

static int measure_library(const struct device *device, void *x, void *w, void *y, double *flops)
{
    struct library_product p = {.w_data = w, .x_data = x, .y_data = y, .stream = device->stream};
    int rc = device_alloc(&p.workspace, WORKSPACE);
    if (!rc)
        rc = fill(device, x, (size_t)COLUMNS * COLS, sizeof(uint16_t));
    if (!rc)
        rc = prepare_library(&p);
    if (!rc)
        rc = measure(device, run_library, &p, flops);
    end_library(&p);
    device_free(p.workspace);
    return rc;
}

#else

static int measure_library(const struct device *device, void *x, void *w, void *y, double *flops)
{
    (void)device;
    (void)x;
    (void)w;
    (void)y;
    *flops = 0.0;
    return 0;
}

#endif

int bench_dense(const struct device *device, struct bench_dense *out)
{
    void *x = NULL;
    void *w = NULL;
    void *y = NULL;
    *out = (struct bench_dense){0};
    int rc = device_alloc(&x, (size_t)COLUMNS * COLS * sizeof(float));
    if (!rc)
        rc = device_alloc(&w, (size_t)ROWS * COLS * sizeof(uint16_t));
    if (!rc)
        rc = device_alloc(&y, (size_t)COLUMNS * ROWS * sizeof(float));
    if (!rc)
        rc = fill(device, w, (size_t)ROWS * COLS, sizeof(uint16_t));
    if (!rc)
        rc = measure_gemm(device, x, w, y, &out->gemm_flops);
    if (!rc)
        rc = measure_library(device, x, w, y, &out->library_flops);
    device_free(y);
    device_free(w);
    device_free(x);
    return rc;
}
