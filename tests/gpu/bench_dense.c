/* SPDX-License-Identifier: Apache-2.0 */
/* One product of a prompt, by op_gemm() and by cuBLASLt: what the tensor cores give. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/ops.h"
#include "tests/gpu/bench.h"

#define WARM    3u
#define ROUNDS  10u
#define STRETCH ((size_t)1 << 18) /* numbers, repeated until a matrix is full */

static double now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Fills device memory with `count` bfloat16s of 1/2 to 1 of either sign. */
static int fill(const struct device *device, void *to, size_t count)
{
    const size_t size = sizeof(uint16_t);
    uint16_t *stretch = malloc(STRETCH * size);
    uint32_t state = 1;
    int rc = stretch ? 0 : -ENOMEM;
    for (size_t i = 0; !rc && i < STRETCH; i++) {
        state = state * 1664525u + 1013904223u;
        stretch[i] = (uint16_t)((state >> 16 & 0x8000u) | 0x3f00u | (state >> 9 & 0x7fu));
    }
    for (size_t at = 0; !rc && at < count; at += STRETCH)
        rc = device_copy(device, (uint8_t *)to + at * size, stretch,
                         (count - at < STRETCH ? count - at : STRETCH) * size);
    if (!rc)
        rc = device_wait(device);
    free(stretch);
    return rc;
}

struct dense {
    const struct device *device;
    struct cublaslt *library;
    struct gemm_args op;
    struct cublaslt_product product;
};

static int run_gemm(const struct dense *d)
{
    return op_gemm(d->device, &d->op);
}

static int run_library(const struct dense *d)
{
    return cublaslt_run(d->library, &d->product);
}

static int measure(const struct dense *d, int (*run)(const struct dense *), double *flops)
{
    const double operations = 2.0 * d->product.rows * (double)d->product.cols * d->product.columns;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < WARM; i++)
        rc = run(d);
    rc = rc ? rc : device_wait(d->device);
    const double begin = now_s();
    for (uint32_t i = 0; !rc && i < ROUNDS; i++)
        rc = run(d);
    rc = rc ? rc : device_wait(d->device);
    *flops = rc ? 0.0 : operations * ROUNDS / (now_s() - begin);
    return rc;
}

/* Without the library its rate is 0. */
static int measure_both(struct dense *d, struct bench_dense *out)
{
    const int rc = measure(d, run_gemm, &out->gemm_flops);
    if (rc || cublaslt_open(&d->library, d->device, out->why, sizeof(out->why)))
        return rc;
    out->library_version = cublaslt_version(d->library);
    if (measure(d, run_library, &out->library_flops))
        (void)snprintf(out->why, sizeof(out->why), "cuBLASLt %u failed", out->library_version);
    cublaslt_close(d->library);
    return 0;
}

int bench_dense(const struct device *device, const struct bench_plan *plan, struct bench_dense *out)
{
    const size_t rows = plan->dense_rows;
    const size_t cols = plan->dense_cols;
    const size_t columns = plan->dense_columns;
    struct dense d = {.device = device};
    void *x = NULL;
    void *w = NULL;
    void *y = NULL;
    *out = (struct bench_dense){0};
    int rc = device_alloc(&x, columns * cols * sizeof(uint16_t));
    if (!rc)
        rc = device_alloc(&w, rows * cols * sizeof(uint16_t));
    if (!rc)
        rc = device_alloc(&y, columns * rows * sizeof(float));
    if (!rc)
        rc = fill(device, w, rows * cols);
    if (!rc)
        rc = fill(device, x, columns * cols);
    d.product = (struct cublaslt_product){w,
                                          x,
                                          y,
                                          plan->dense_rows,
                                          plan->dense_cols,
                                          plan->dense_columns,
                                          plan->dense_cols,
                                          plan->dense_cols,
                                          plan->dense_rows,
                                          OP_BF16,
                                          false};
    d.op = (struct gemm_args){.x = x,
                              .x_stride = plan->dense_cols,
                              .columns = plan->dense_columns,
                              .part_count = 1,
                              .number = OP_BF16,
                              .parts = {{.y = y, .y_stride = plan->dense_rows}}};
    if (!rc)
        rc = weights_layout(&d.op.parts[0].w, WEIGHTS_BF16, plan->dense_rows, plan->dense_cols);
    d.op.parts[0].w.data = w;
    if (!rc)
        rc = measure_both(&d, out);
    device_free(y);
    device_free(w);
    device_free(x);
    return rc;
}
