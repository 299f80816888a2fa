/* SPDX-License-Identifier: Apache-2.0 */
/* See expand.h. One function for each kind of block. */
#include "kernels/cpu/expand.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/model/gguf.h"

float cpu_half_to_float(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu;
    uint32_t mantissa = half & 0x3ffu;
    uint32_t bits;
    float out;
    if (exponent == 0x1fu) {
        bits = sign | 0x7f800000u | (mantissa << 13);
    } else if (exponent == 0) {
        out = (float)mantissa * 0x1p-24f;
        return sign ? -out : out;
    } else {
        bits = sign | ((exponent + 112u) << 23) | (mantissa << 13);
    }
    memcpy(&out, &bits, sizeof(out));
    return out;
}

static float half_at(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof(half));
    return cpu_half_to_float(half);
}

/* The upper half of a float32. */
static void expand_bf16(const uint8_t *row, size_t cols, float *out)
{
    for (size_t i = 0; i < cols; i++) {
        const uint32_t bits = (uint32_t)row[2 * i] << 16 | (uint32_t)row[2 * i + 1] << 24;
        memcpy(&out[i], &bits, sizeof(bits));
    }
}

static void expand_q4(const uint8_t *row, size_t cols, float *out, int has_min)
{
    const size_t block_bytes = has_min ? 20 : 18;
    for (size_t b = 0; b < cols / 32; b++, row += block_bytes, out += 32) {
        const float scale = half_at(row);
        const float min = has_min ? half_at(row + 2) : -8.0f * scale;
        const uint8_t *q = row + (has_min ? 4 : 2);
        for (size_t i = 0; i < 16; i++) {
            out[i] = (float)(q[i] & 15) * scale + min;
            out[i + 16] = (float)(q[i] >> 4) * scale + min;
        }
    }
}

/* As Q4, with a word of fifth bits, weight i's at bit i. */
static void expand_q5(const uint8_t *row, size_t cols, float *out, int has_min)
{
    const size_t block_bytes = has_min ? 24 : 22;
    for (size_t b = 0; b < cols / 32; b++, row += block_bytes, out += 32) {
        const float scale = half_at(row);
        const float min = has_min ? half_at(row + 2) : -16.0f * scale;
        const uint8_t *q = row + (has_min ? 8 : 6);
        uint32_t high;
        memcpy(&high, q - 4, sizeof(high));
        for (size_t i = 0; i < 16; i++) {
            out[i] = (float)((q[i] & 15u) | (high >> i & 1u) << 4) * scale + min;
            out[i + 16] = (float)(q[i] >> 4 | (high >> (i + 16) & 1u) << 4) * scale + min;
        }
    }
}

static void expand_q8_0(const uint8_t *row, size_t cols, float *out)
{
    for (size_t b = 0; b < cols / 32; b++, row += 34, out += 32) {
        const float scale = half_at(row);
        for (size_t i = 0; i < 32; i++)
            out[i] = (float)(int8_t)row[2 + i] * scale;
    }
}

void expand_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
{
    for (size_t i = 0; i < 4; i++) {
        scales[i] = packed[i] & 63u;
        mins[i] = packed[4 + i] & 63u;
        scales[4 + i] = (uint8_t)((packed[8 + i] & 15u) | ((uint32_t)packed[i] >> 6) << 4);
        mins[4 + i] = (uint8_t)(packed[8 + i] >> 4 | (packed[4 + i] >> 6) << 4);
    }
}

/* Q4_K and Q5_K: 256 weights in eight runs of 32: a half for the scales, a half for the minima, the
 * runs' own 6-bit scales and minima, for Q5_K 32 bytes of fifth bits (run r's at bit r), then for
 * each pair of runs 32 bytes of nibbles, the first run's low. */
static void expand_k(const uint8_t *row, size_t cols, float *out, int has_fifth)
{
    const size_t block_bytes = has_fifth ? 176 : 144;
    for (size_t b = 0; b < cols / 256; b++, row += block_bytes, out += 256) {
        const float scale = half_at(row);
        const float min = half_at(row + 2);
        const uint8_t *high = row + 16;
        const uint8_t *q = row + (has_fifth ? 48 : 16);
        uint8_t scales[8];
        uint8_t mins[8];
        expand_k_scales(row + 4, scales, mins);
        for (size_t r = 0; r < 8; r++) {
            const float run_scale = scale * (float)scales[r];
            const float run_min = min * (float)mins[r];
            for (size_t i = 0; i < 32; i++) {
                const uint32_t both = q[r / 2 * 32 + i];
                uint32_t value = both >> (r % 2 * 4) & 15u;
                if (has_fifth)
                    value |= ((uint32_t)high[i] >> r & 1u) << 4;
                out[r * 32 + i] = (float)value * run_scale - run_min;
            }
        }
    }
}

/* 256 weights: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, a half. Each half of
 * the block holds four runs of 32 weights; run r takes its scales at 2r. */
static void expand_q6_k(const uint8_t *row, size_t cols, float *out)
{
    for (size_t b = 0; b < cols / 256; b++, row += 210, out += 256) {
        const float scale = half_at(row + 208);
        for (size_t h = 0; h < 2; h++) {
            const uint8_t *low = row + h * 64;
            const uint8_t *high = row + 128 + h * 32;
            const uint8_t *scales = row + 192 + h * 8;
            for (size_t i = 0; i < 128; i++) {
                const size_t run = i / 32;
                const size_t at = i % 32;
                const uint32_t nibble = (low[at + 32 * (run & 1)] >> (run & 2 ? 4 : 0)) & 15u;
                const uint32_t pair = (high[at] >> (2 * run)) & 3u;
                const int32_t q = (int32_t)(nibble | pair << 4) - 32;
                out[h * 128 + i] = scale * (float)(int8_t)scales[i / 16] * (float)q;
            }
        }
    }
}

void expand_row(uint32_t type, const uint8_t *row, size_t cols, float *out)
{
    switch (type) {
    case GGUF_TENSOR_F32:
        memcpy(out, row, cols * sizeof(*out));
        break;
    case GGUF_TENSOR_F16:
        for (size_t i = 0; i < cols; i++)
            out[i] = half_at(row + 2 * i);
        break;
    case GGUF_TENSOR_Q4_0:
        expand_q4(row, cols, out, 0);
        break;
    case GGUF_TENSOR_Q4_1:
        expand_q4(row, cols, out, 1);
        break;
    case GGUF_TENSOR_Q8_0:
        expand_q8_0(row, cols, out);
        break;
    case GGUF_TENSOR_BF16:
        expand_bf16(row, cols, out);
        break;
    case GGUF_TENSOR_Q5_0:
        expand_q5(row, cols, out, 0);
        break;
    case GGUF_TENSOR_Q5_1:
        expand_q5(row, cols, out, 1);
        break;
    case GGUF_TENSOR_Q4_K:
        expand_k(row, cols, out, 0);
        break;
    case GGUF_TENSOR_Q5_K:
        expand_k(row, cols, out, 1);
        break;
    case GGUF_TENSOR_Q6_K:
        expand_q6_k(row, cols, out);
        break;
    default: /* the loader lets no other type through */
        abort();
    }
}
