/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cublaslt.h - products by cuBLASLt, for prompts where it is faster than gemm.cu: the tensor cores
 * of sm_90 and sm_100 give their full rate to instructions that gemm.cu does not have. Its sums
 * have another order for another number of columns, so a prompt's bits depend on how it was cut.
 *
 * The library is looked for when it is first wanted: by WEFT_CUBLASLT in the environment (a path),
 * else as libcublasLt.so.13 or .12. Threads: as device.h. Used by layer.c and choose.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/ops.h"

struct cublaslt;

/* y = w x, or y + w x. w: [rows][w_stride], x: [columns][x_stride], numbers of one kind; y:
 * [columns][y_stride] floats. Strides in numbers, memory aligned to 256. */
struct cublaslt_product {
    const void *w;
    const uint16_t *x;
    float *y;
    uint32_t rows;
    uint32_t cols;
    uint32_t columns;
    uint32_t w_stride;
    uint32_t x_stride;
    uint32_t y_stride;
    enum op_number number; /* OP_F16 or OP_BF16 */
    bool is_added;
};

/* The device must outlive it. -ENOTSUP without the library, -ENOMEM, -EIO; `why` gets a sentence.
 */
int cublaslt_open(struct cublaslt **out, const struct device *device, char *why, size_t why_size);
void cublaslt_close(struct cublaslt *library); /* NULL is fine */

/* As cublasLtGetVersion(): 130100 is 13.1. */
uint32_t cublaslt_version(const struct cublaslt *library);

/* Puts the product on the device's stream. -ENOTSUP if the library has nothing for it (nothing is
 * on the stream then), -EIO. */
int cublaslt_run(struct cublaslt *library, const struct cublaslt_product *product);
