/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels in plain C: what runs where there is no better table, and what the better ones are
 * tested against. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/kernels.h"

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
        expand_row(w->type, w->data + r * w->row_bytes, w->cols, scratch);
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

static void portable_attend(const float *q, const struct cpu_rows *keys,
                            const struct cpu_rows *values, size_t count, size_t width, float scale,
                            float *scores, float *out)
{
    float max = -INFINITY;
    float sum = 0.0f;
    for (size_t j = 0, end; j < count;) {
        const float *row = cpu_rows_page(keys, j, count, &end);
        for (; j < end; j++, row += width) {
            scores[j] = dot(q, row, width) * scale;
            max = scores[j] > max ? scores[j] : max;
        }
    }
    memset(out, 0, width * sizeof(*out));
    for (size_t j = 0, end; j < count;) {
        const float *row = cpu_rows_page(values, j, count, &end);
        for (; j < end; j++, row += width) {
            const float p = expf(scores[j] - max);
            sum += p;
            for (size_t i = 0; i < width; i++)
                out[i] += p * row[i];
        }
    }
    for (size_t i = 0; i < width; i++)
        out[i] /= sum;
}

const struct cpu_kernels cpu_kernels_portable = {
    .name = "portable",
    .expand = expand_row,
    .matmul = portable_matmul,
    .rms_norm = portable_rms_norm,
    .swiglu = portable_swiglu,
    .attend = portable_attend,
};
