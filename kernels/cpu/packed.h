/* SPDX-License-Identifier: Apache-2.0 */
/*
 * packed.h - weights laid out for the integer kernels (fast_*.c), and activations quantised for
 * them. packed.c writes both.
 *
 * A matrix becomes panels of 16 rows, one after the other; row and lane are the same thing. A panel
 * has its scales first, then its weights, group after group of 32 columns:
 *
 *   scales of a group   one half for each row, or halves and then half minima, or, for the types
 *                       with super blocks of 256, 16 bytes of scales and 16 of minima (or of second
 *                       scales) behind a head of {half scale, half minimum} for eight groups
 *   weights of a group  4 bits: 64 bytes for each of 4 quads; byte 4 r + t of quad j has row r's
 *                       columns 4 j + t (low nibble) and 16 + 4 j + t (high)
 *                       8 bits: 64 bytes for each of 8 quads
 *
 * Weights are unsigned here; `offset` is what has to be taken away. Rows beyond the matrix are 0.
 *
 * An input is one column of activations: for each 32 a scale, max|x| / 127, and 32 signed bytes.
 * A product is then, for each row, a sum over groups in ascending order of
 *     (float)(sum of weight * byte) * (weight scale * input scale) + minimum * (input scale * sum)
 * where the sums within a group are integers and so exact: every instruction set gives the same
 * bits. Block formats: see expand.h.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/model/model.h"

#define PACKED_ROWS  16u /* of a panel */
#define PACKED_GROUP 32u /* columns with one scale */
#define PACKED_SUPER 8u  /* groups of a super block */

enum packed_scales {
    PACKED_HALF,     /* half */
    PACKED_HALF_MIN, /* half, half minimum */
    PACKED_RUN_MIN,  /* half * byte, -half * byte */
    PACKED_TWO_RUNS, /* half * signed byte for each 16 columns */
};

struct packed_format {
    uint32_t bits;   /* of storage: 4 or 8 */
    int32_t offset;  /* taken away from each weight */
    int32_t largest; /* stored weight */
    enum packed_scales scales;
};

struct packed {
    const uint8_t *data; /* NULL: not packed; 64-byte aligned */
    uint32_t type;       /* enum gguf_tensor_type of the source */
    uint32_t rows;
    uint32_t cols;
    size_t quants_at; /* of a panel */
    size_t panel_bytes;
};

/* Where things are within an input of `cols` columns. */
struct packed_input {
    const int8_t *bytes;
    const float *scales;   /* of each group */
    const float *sums;     /* scale * sum of bytes, of each group */
    const int32_t *totals; /* sum of bytes, of each half group: two for each group */
};

/* Known at compile time where `type` is. False for types that are not packed. */
static inline bool packed_format_of(uint32_t type, struct packed_format *out)
{
    switch (type) {
    case GGUF_TENSOR_Q4_0:
        *out = (struct packed_format){4, 8, 15, PACKED_HALF};
        return true;
    case GGUF_TENSOR_Q4_1:
        *out = (struct packed_format){4, 0, 15, PACKED_HALF_MIN};
        return true;
    case GGUF_TENSOR_Q5_0:
        *out = (struct packed_format){8, 16, 31, PACKED_HALF};
        return true;
    case GGUF_TENSOR_Q5_1:
        *out = (struct packed_format){8, 0, 31, PACKED_HALF_MIN};
        return true;
    case GGUF_TENSOR_Q8_0:
        *out = (struct packed_format){8, 128, 255, PACKED_HALF};
        return true;
    case GGUF_TENSOR_Q4_K:
        *out = (struct packed_format){4, 0, 15, PACKED_RUN_MIN};
        return true;
    case GGUF_TENSOR_Q5_K:
        *out = (struct packed_format){8, 0, 31, PACKED_RUN_MIN};
        return true;
    case GGUF_TENSOR_Q6_K:
        *out = (struct packed_format){8, 32, 63, PACKED_TWO_RUNS};
        return true;
    default:
        return false;
    }
}

/* Offset of group g's scales within a panel, and of its super block's head. */
static inline size_t packed_scales_at(enum packed_scales scales, size_t group)
{
    if (scales == PACKED_HALF)
        return group * 2 * PACKED_ROWS;
    if (scales == PACKED_HALF_MIN)
        return group * 4 * PACKED_ROWS;
    return (group / PACKED_SUPER * (PACKED_SUPER + 2) + 2 + group % PACKED_SUPER) * 2 * PACKED_ROWS;
}

static inline size_t packed_head_at(size_t group)
{
    return group / PACKED_SUPER * (PACKED_SUPER + 2) * 2 * PACKED_ROWS;
}

static inline size_t packed_group_bytes(uint32_t bits)
{
    return (size_t)PACKED_ROWS * PACKED_GROUP * bits / 8;
}

static inline uint32_t packed_panels(const struct packed *p)
{
    return (p->rows + PACKED_ROWS - 1) / PACKED_ROWS;
}

/* Sizes of the packed form of `source`; data stays NULL. False if its type is not packed. */
bool packed_measure(const struct model_tensor *source, struct packed *out);

/* Bytes of all panels; SIZE_MAX if beyond counting. */
size_t packed_bytes(const struct packed *packed);

/* Writes panels [begin, end) to `data`, which has packed_bytes(). */
void packed_write(const struct packed *packed, const struct model_tensor *source, uint32_t begin,
                  uint32_t end, uint8_t *data);

/* An input's bytes and its parts; `cols` is a multiple of 32 and the place 64-byte aligned. */
static inline size_t packed_input_bytes(size_t cols)
{
    return (cols + cols / PACKED_GROUP * 16 + 63) / 64 * 64;
}

static inline struct packed_input packed_input_at(const uint8_t *place, size_t cols)
{
    const size_t groups = cols / PACKED_GROUP;
    const uint8_t *rest = place + cols;
    return (struct packed_input){
        .bytes = (const int8_t *)place,
        .scales = (const float *)(const void *)rest,
        .sums = (const float *)(const void *)(rest + groups * 4),
        .totals = (const int32_t *)(const void *)(rest + groups * 8),
    };
}
