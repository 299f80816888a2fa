/* SPDX-License-Identifier: Apache-2.0 */
/* The references: nothing here is fast. */
#include "kernels/cuda/ref.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/cpu/kernels.h"

static void expand(const struct model_tensor *w, uint32_t row, float *out)
{
    cpu_kernels_portable.expand(w->type, w->data + row * w->row_bytes, w->cols, out);
}

void ref_embed(const struct model_tensor *w, const uint32_t *tokens, uint32_t count, float *out)
{
    for (uint32_t c = 0; c < count; c++)
        expand(w, tokens[c], out + (size_t)c * w->cols);
}

void ref_norm(const float *x, const float *weight, uint32_t cols, float epsilon, float *out)
{
    double sum = 0;
    for (uint32_t i = 0; i < cols; i++)
        sum += (double)x[i] * (double)x[i];
    const double scale = 1.0 / sqrt(sum / cols + (double)epsilon);
    for (uint32_t i = 0; i < cols; i++)
        out[i] = (float)((double)x[i] * scale * (double)weight[i]);
}

void ref_product(const struct model_tensor *w, const float *bias, const float *x, uint32_t count,
                 float *y)
{
    float *row = malloc(w->cols * sizeof(*row));
    if (!row)
        abort();
    for (uint32_t r = 0; r < w->rows; r++) {
        expand(w, r, row);
        for (uint32_t c = 0; c < count; c++) {
            double sum = bias ? (double)bias[r] : 0.0;
            for (uint32_t i = 0; i < w->cols; i++)
                sum += (double)row[i] * (double)x[(size_t)c * w->cols + i];
            y[(size_t)c * w->rows + r] = (float)sum;
        }
    }
    free(row);
}

void ref_swiglu(const float *gate, const float *up, uint32_t count, float *out)
{
    for (uint32_t i = 0; i < count; i++)
        out[i] = (float)((double)gate[i] / (1.0 + exp(-(double)gate[i])) * (double)up[i]);
}

void ref_turn(float *head, uint32_t width, const float *norm, float epsilon, const float *angles,
              uint32_t pairs, bool is_halves)
{
    if (norm)
        ref_norm(head, norm, width, epsilon, head);
    for (uint32_t j = 0; j < pairs; j++) {
        float *first = head + (is_halves ? j : 2 * j);
        float *second = is_halves ? first + pairs : first + 1;
        const double a = (double)*first;
        const double b = (double)*second;
        const double cosine = (double)angles[j];
        const double sine = (double)angles[pairs + j];
        *first = (float)(a * cosine - b * sine);
        *second = (float)(a * sine + b * cosine);
    }
}

static double dot(const float *a, const float *b, uint32_t count)
{
    double sum = 0;
    for (uint32_t i = 0; i < count; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

void ref_attend(const float *q, const float *keys, const float *values, uint32_t count,
                uint32_t width, float scale, float *out)
{
    double *sums = calloc(width, sizeof(*sums));
    double most = -INFINITY;
    double weights = 0;
    if (!sums)
        abort();
    for (uint32_t j = 0; j < count; j++)
        most = fmax(most, dot(q, keys + (size_t)j * width, width) * (double)scale);
    for (uint32_t j = 0; j < count; j++) {
        const double weight = exp(dot(q, keys + (size_t)j * width, width) * (double)scale - most);
        weights += weight;
        for (uint32_t i = 0; i < width; i++)
            sums[i] += weight * (double)values[(size_t)j * width + i];
    }
    for (uint32_t i = 0; i < width; i++)
        out[i] = (float)(sums[i] / weights);
    free(sums);
}
