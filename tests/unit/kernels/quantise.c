/* SPDX-License-Identifier: Apache-2.0 */
/* See quantise.h. Formats: ggml-common.h of https://github.com/ggml-org/ggml. */
#include "quantise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/gguf.h"

#define HALF_SMALLEST 0x1p-14f /* that is normal */
#define HALF_TOO_MUCH 65520.0f /* from here on it is infinite */
#define SUPER         256u

uint16_t quantise_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    const uint32_t sign = bits >> 16 & 0x8000u;
    const float size = fabsf(x);
    if (size >= HALF_TOO_MUCH)
        return (uint16_t)(sign | 0x7c00u);
    if (size < HALF_SMALLEST)
        return (uint16_t)(sign | (uint32_t)lrintf(size * 0x1p24f));
    bits += 0xfffu + (bits >> 13 & 1u);
    return (uint16_t)(sign | (((bits >> 13) - (112u << 10)) & 0x7fffu));
}

static float half_value(uint16_t half)
{
    const int exponent = half >> 10 & 31;
    const float fraction = (float)(half & 1023) / 1024.0f;
    const float size = exponent ? ldexpf(1.0f + fraction, exponent - 15) : ldexpf(fraction, -14);
    return half & 0x8000 ? -size : size;
}

/* Writes a scale and gives back what will be read. */
static float put_half(uint8_t *out, float x)
{
    const uint16_t half = quantise_half(x);
    memcpy(out, &half, sizeof(half));
    return half_value(half);
}

static uint16_t brain(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* The nearest step of `scale`, within the type's. */
static int step_of(float x, float scale, int least, int most)
{
    const int step = scale != 0.0f ? (int)lrintf(x / scale) : 0;
    return step < least ? least : step > most ? most : step;
}

/* The one that is largest without its sign. */
static float largest(const float *x, size_t count)
{
    float most = 0.0f;
    for (size_t i = 0; i < count; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    return most;
}

static void span(const float *x, size_t count, float *least, float *most)
{
    *least = *most = x[0];
    for (size_t i = 1; i < count; i++) {
        *least = fminf(*least, x[i]);
        *most = fmaxf(*most, x[i]);
    }
}

static void block_q8_0(const float *x, uint8_t *out)
{
    const float scale = put_half(out, fabsf(largest(x, 32)) / 127.0f);
    for (size_t i = 0; i < 32; i++)
        out[2 + i] = (uint8_t)step_of(x[i], scale, -127, 127);
}

/* The largest takes the step that only one sign has. */
static void block_q4_0(const float *x, uint8_t *out)
{
    const float scale = put_half(out, largest(x, 32) / -8.0f);
    for (size_t i = 0; i < 16; i++)
        out[2 + i] = (uint8_t)((step_of(x[i], scale, -8, 7) + 8) |
                               (step_of(x[i + 16], scale, -8, 7) + 8) << 4);
}

static void block_q4_1(const float *x, uint8_t *out)
{
    float least;
    float most;
    span(x, 32, &least, &most);
    const float scale = put_half(out, (most - least) / 15.0f);
    const float min = put_half(out + 2, least);
    for (size_t i = 0; i < 16; i++)
        out[4 + i] = (uint8_t)(step_of(x[i] - min, scale, 0, 15) |
                               step_of(x[i + 16] - min, scale, 0, 15) << 4);
}

/* Eight runs of 32, each with six bits of scale and of minimum in steps of the block's. */
static void block_q4_k(const float *x, uint8_t *out)
{
    float scales[8];
    float mins[8];
    int scale_steps[8];
    int min_steps[8];
    for (size_t r = 0; r < 8; r++) {
        float most;
        span(x + 32 * r, 32, &mins[r], &most);
        mins[r] = fmaxf(-mins[r], 0.0f); /* is taken away */
        scales[r] = fmaxf(most + mins[r], 0.0f) / 15.0f;
    }
    const float scale = put_half(out, largest(scales, 8) / 63.0f);
    const float min = put_half(out + 2, largest(mins, 8) / 63.0f);
    uint8_t *packed = out + 4;
    memset(out + 4, 0, 12 + 128);
    for (size_t r = 0; r < 8; r++) {
        scale_steps[r] = step_of(scales[r], scale, 0, 63);
        min_steps[r] = step_of(mins[r], min, 0, 63);
    }
    for (size_t r = 0; r < 4; r++) {
        packed[r] = (uint8_t)(scale_steps[r] | scale_steps[r + 4] >> 4 << 6);
        packed[4 + r] = (uint8_t)(min_steps[r] | min_steps[r + 4] >> 4 << 6);
        packed[8 + r] = (uint8_t)((scale_steps[r + 4] & 15) | (min_steps[r + 4] & 15) << 4);
    }
    for (size_t i = 0; i < SUPER; i++) {
        const size_t r = i / 32;
        const float less = min * (float)min_steps[r];
        const int q = step_of(x[i] + less, scale * (float)scale_steps[r], 0, 15);
        out[16 + r / 2 * 32 + i % 32] |= (uint8_t)(q << (r % 2 * 4));
    }
}

/* Sixteen runs of 16 with a signed byte of scale each; see reference.c for where the bits go. */
static void block_q6_k(const float *x, uint8_t *out)
{
    float scales[16];
    int steps[16];
    for (size_t r = 0; r < 16; r++)
        scales[r] = largest(x + 16 * r, 16) / -32.0f;
    const float scale = put_half(out + 208, largest(scales, 16) / -128.0f);
    memset(out, 0, 192);
    for (size_t r = 0; r < 16; r++) {
        steps[r] = step_of(scales[r], scale, -128, 127);
        out[192 + r] = (uint8_t)steps[r];
    }
    for (size_t i = 0; i < SUPER; i++) {
        const size_t half = i / 128;
        const size_t run = i % 128 / 32;
        const size_t at = i % 32;
        const int q = step_of(x[i], scale * (float)steps[i / 16], -32, 31) + 32;
        out[half * 64 + at + 32 * (run & 1)] |= (uint8_t)((q & 15) << (run & 2 ? 4 : 0));
        out[128 + half * 32 + at] |= (uint8_t)(q >> 4 << (2 * run));
    }
}

void quantise_row(uint32_t type, const float *x, size_t cols, uint8_t *out)
{
    uint32_t elements;
    uint32_t bytes;
    if (!gguf_tensor_block(type, &elements, &bytes) || cols % elements)
        abort();
    for (size_t at = 0; at < cols; at += elements, out += bytes) {
        uint16_t half = type == GGUF_TENSOR_BF16 ? brain(x[at]) : quantise_half(x[at]);
        switch (type) {
        case GGUF_TENSOR_F32:
            memcpy(out, &x[at], sizeof(x[at]));
            break;
        case GGUF_TENSOR_F16:
        case GGUF_TENSOR_BF16:
            memcpy(out, &half, sizeof(half));
            break;
        case GGUF_TENSOR_Q8_0:
            block_q8_0(x + at, out);
            break;
        case GGUF_TENSOR_Q4_0:
            block_q4_0(x + at, out);
            break;
        case GGUF_TENSOR_Q4_1:
            block_q4_1(x + at, out);
            break;
        case GGUF_TENSOR_Q4_K:
            block_q4_k(x + at, out);
            break;
        case GGUF_TENSOR_Q6_K:
            block_q6_k(x + at, out);
            break;
        default:
            abort();
        }
    }
}
