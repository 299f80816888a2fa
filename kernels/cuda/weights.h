/* SPDX-License-Identifier: Apache-2.0 */
/*
 * weights.h - how a weight matrix lies in the device's memory, and how to bring one of a file
 * there. Plain C without any of the toolkit's types; used by cuda.c, the kernels and their
 * references.
 *
 * A file's blocks mix scales and quants (a Q4_1 block has 20 bytes), so that a thread could not
 * load 16 aligned bytes of quants. On the device every matrix is up to three planes, each row by
 * row, each beginning at 16 bytes:
 *
 *   type   quants plane, bytes a row      high plane        scales plane
 *   F32    4 cols, padded to 16           -                 -
 *   F16    2 cols, padded to 16           -                 -
 *   BF16   2 cols, padded to 16           -                 -
 *   Q8_0   cols                           -                 half d per 32
 *   Q4_0   cols / 2                       -                 half d per 32
 *   Q4_1   cols / 2                       -                 half d, m per 32
 *   Q5_0   cols / 2                       cols / 8          half d per 32
 *   Q5_1   cols / 2                       cols / 8          half d, m per 32
 *   Q4_K   cols / 2                       -                 half d, dmin, 12 scale bytes per 256
 *   Q5_K   cols / 2                       cols / 8          as Q4_K
 *   Q6_K   cols / 2                       cols / 4          16 int8, half d per 256
 *
 * No bit is lost or added; padding is zeros. Within a plane the bytes of a block stay in the
 * file's order: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 *
 * Threads: pure functions. Errors: 0 or a negative errno.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct model_tensor; /* model.h: a matrix in the file */

#ifdef __cplusplus
extern "C" {
#endif

#define WEIGHTS_ALIGN 16u

/* Numbers of the types as in the file (enum gguf_tensor_type), those missing there included. */
enum weights_type {
    WEIGHTS_F32 = 0,
    WEIGHTS_F16 = 1,
    WEIGHTS_Q4_0 = 2,
    WEIGHTS_Q4_1 = 3,
    WEIGHTS_Q5_0 = 6,
    WEIGHTS_Q5_1 = 7,
    WEIGHTS_Q8_0 = 8,
    WEIGHTS_Q4_K = 12,
    WEIGHTS_Q5_K = 13,
    WEIGHTS_Q6_K = 14,
    WEIGHTS_BF16 = 30,
};

/* A matrix on the device: `data` is the device's address, the rest plain numbers. */
struct weights {
    const uint8_t *data; /* aligned to WEIGHTS_ALIGN */
    uint32_t type;       /* enum weights_type */
    uint32_t rows;
    uint32_t cols;
    uint32_t quants_stride; /* bytes of a row in each plane */
    uint32_t high_stride;
    uint32_t scales_stride;
    uint64_t high_at; /* where the planes begin, from `data` */
    uint64_t scales_at;
    uint64_t size_bytes; /* of all planes */
};

/* Everything but `data`, which becomes NULL. Returns -ENOTSUP for a type that is not in the table,
 * -EINVAL for rows of broken blocks. */
int weights_layout(struct weights *out, uint32_t type, uint32_t rows, uint32_t cols);

/* Writes the planes of the file's rows [begin, end) where they belong; `out` has size_bytes of
 * `layout` and is wholly written once every row has been. */
void weights_pack(const struct weights *layout, const struct model_tensor *tensor, uint32_t begin,
                  uint32_t end, uint8_t *out);

#ifdef __cplusplus
}
#endif
