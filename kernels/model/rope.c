/* SPDX-License-Identifier: Apache-2.0 */
/* See rope.h. */
#include "kernels/model/rope.h"

#include <math.h>

#include "kernels/model/fixed.h"

#define PI 3.14159265358979323846
/* Turns within the original context from which a pair keeps its frequency, and below which it is
 * stretched wholly (YaRN, 3.2: the values for the llama family). */
#define YARN_FAST 32.0
#define YARN_SLOW 1.0

/* The pair, as a fraction, that turns `turns` times within the original context. */
static double yarn_pair(const struct model *m, double turns)
{
    const double positions = (double)m->rope.original_context / (turns * 2 * PI);
    return (double)m->rope_width * fixed_log(positions) / (2 * fixed_log((double)m->rope.base));
}

/* 1: keep the frequency, 0: divide it, in between both. */
static double yarn_keep(const struct model *m, uint32_t pair)
{
    const double low = fmax(floor(yarn_pair(m, YARN_FAST)), 0.0);
    const double high = fmin(ceil(yarn_pair(m, YARN_SLOW)), (double)m->rope_width - 1);
    const double ramp = ((double)pair - low) / fmax(high - low, 0.001);
    return 1.0 - fmin(fmax(ramp, 0.0), 1.0);
}

void rope_frequencies(const struct model *model, double *out)
{
    const float *divisors = (const float *)(const void *)model->rope_factors.data;
    const double log_base = fixed_log((double)model->rope.base);
    for (uint32_t j = 0; j < model->rope_width / 2; j++) {
        double frequency = fixed_exp(-2.0 * (double)j / (double)model->rope_width * log_base);
        if (divisors)
            frequency /= (double)divisors[j];
        if (model->rope.scaling != MODEL_ROPE_PLAIN) {
            const double keep = model->rope.scaling == MODEL_ROPE_YARN ? yarn_keep(model, j) : 0.0;
            frequency = frequency / (double)model->rope.factor * (1.0 - keep) + frequency * keep;
        }
        out[j] = frequency;
    }
}

float rope_magnitude(const struct model *model)
{
    if (model->rope.scaling != MODEL_ROPE_YARN)
        return 1.0f;
    return model->rope.attention * (float)(1.0 + 0.1 * fixed_log((double)model->rope.factor));
}

void rope_angles(const double *frequencies, uint32_t pairs, float magnitude, uint32_t position,
                 float *out)
{
    for (uint32_t j = 0; j < pairs; j++) {
        double sine;
        double cosine;
        fixed_sin_cos((double)position * frequencies[j], &sine, &cosine);
        out[j] = (float)cosine * magnitude;
        out[pairs + j] = (float)sine * magnitude;
    }
}

void rope_turn(float *head, const float *angles, uint32_t pairs, bool is_halves)
{
    for (uint32_t j = 0; j < pairs; j++) {
        float *a = is_halves ? head + j : head + 2 * j;
        float *b = is_halves ? head + pairs + j : head + 2 * j + 1;
        const float x = *a;
        const float y = *b;
        *a = x * angles[j] - y * angles[pairs + j];
        *b = x * angles[pairs + j] + y * angles[j];
    }
}
