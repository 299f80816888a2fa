/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels in plain C: what runs where there is no better table, and what the better ones are
 * tested against. Also chooses the table. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/kernels.h"

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

static float load_half(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof(half));
    return cpu_half_to_float(half);
}

static void expand_q4(const uint8_t *row, size_t cols, float *out, int has_min)
{
    const size_t block_bytes = has_min ? 20 : 18;
    for (size_t b = 0; b < cols / 32; b++, row += block_bytes, out += 32) {
        const float scale = load_half(row);
        const float min = has_min ? load_half(row + 2) : -8.0f * scale;
        const uint8_t *q = row + (has_min ? 4 : 2);
        for (size_t i = 0; i < 16; i++) {
            out[i] = (float)(q[i] & 15) * scale + min;
            out[i + 16] = (float)(q[i] >> 4) * scale + min;
        }
    }
}

static void expand_q8_0(const uint8_t *row, size_t cols, float *out)
{
    for (size_t b = 0; b < cols / 32; b++, row += 34, out += 32) {
        const float scale = load_half(row);
        for (size_t i = 0; i < 32; i++)
            out[i] = (float)(int8_t)row[2 + i] * scale;
    }
}

/* 256 weights: 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, a half. Each half of
 * the block holds four runs of 32 weights; run r takes its scales at 2r. */
static void expand_q6_k(const uint8_t *row, size_t cols, float *out)
{
    for (size_t b = 0; b < cols / 256; b++, row += 210, out += 256) {
        const float scale = load_half(row + 208);
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

static void portable_expand(uint32_t type, const uint8_t *row, size_t cols, float *out)
{
    switch (type) {
    case GGUF_TENSOR_F32:
        memcpy(out, row, cols * sizeof(*out));
        break;
    case GGUF_TENSOR_F16:
        for (size_t i = 0; i < cols; i++)
            out[i] = load_half(row + 2 * i);
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
    case GGUF_TENSOR_Q6_K:
        expand_q6_k(row, cols, out);
        break;
    default: /* the loader lets no other type through */
        abort();
    }
}

/* Eight running sums: shorter error than one, and a shape that compilers vectorise. */
static float dot(const float *a, const float *b, size_t count)
{
    float sums[8] = {0};
    size_t i = 0;
    for (; i + 8 <= count; i += 8)
        for (size_t j = 0; j < 8; j++)
            sums[j] += a[i + j] * b[i + j];
    for (size_t j = 0; i + j < count; j++)
        sums[j] += a[i + j] * b[i + j];
    return ((sums[0] + sums[4]) + (sums[2] + sums[6])) +
           ((sums[1] + sums[5]) + (sums[3] + sums[7]));
}

static void portable_matmul(const struct model_tensor *w, uint32_t row_begin, uint32_t row_end,
                            const float *x, size_t x_stride, size_t count, float *y,
                            size_t y_stride, float *scratch)
{
    for (uint32_t r = row_begin; r < row_end; r++) {
        portable_expand(w->type, w->data + r * w->row_bytes, w->cols, scratch);
        for (size_t c = 0; c < count; c++)
            y[c * y_stride + r] = dot(scratch, x + c * x_stride, w->cols);
    }
}

static void portable_rms_norm(const float *x, const float *weight, size_t count, float epsilon,
                              float *out)
{
    const float mean = dot(x, x, count) / (float)count;
    const float scale = 1.0f / sqrtf(mean + epsilon);
    for (size_t i = 0; i < count; i++)
        out[i] = x[i] * scale * weight[i];
}

static void portable_swiglu(float *gate, const float *up, size_t count)
{
    for (size_t i = 0; i < count; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

static void portable_attend(const float *q, const float *keys, const float *values, size_t count,
                            size_t width, float scale, float *scores, float *out)
{
    float max = -INFINITY;
    float sum = 0.0f;
    for (size_t j = 0; j < count; j++) {
        scores[j] = dot(q, keys + j * width, width) * scale;
        max = scores[j] > max ? scores[j] : max;
    }
    memset(out, 0, width * sizeof(*out));
    for (size_t j = 0; j < count; j++) {
        const float p = expf(scores[j] - max);
        sum += p;
        for (size_t i = 0; i < width; i++)
            out[i] += p * values[j * width + i];
    }
    for (size_t i = 0; i < width; i++)
        out[i] /= sum;
}

const struct cpu_kernels cpu_kernels_portable = {
    .name = "portable",
    .expand = portable_expand,
    .matmul = portable_matmul,
    .rms_norm = portable_rms_norm,
    .swiglu = portable_swiglu,
    .attend = portable_attend,
};

const struct cpu_kernels *cpu_kernels_select(int force_portable)
{
    const char *wish = getenv("WEFT_CPU");
    const struct cpu_kernels *best = cpu_kernels_avx2();
    if (force_portable || !best || (wish && strcmp(wish, "portable") == 0))
        return &cpu_kernels_portable;
    return best;
}
