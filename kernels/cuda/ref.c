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
