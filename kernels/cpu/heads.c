/* SPDX-License-Identifier: Apache-2.0 */
/* See heads.h. */
#include "kernels/cpu/heads.h"

#include <errno.h>
#include <stdlib.h>

#include "kernels/model/rope.h"

int heads_init(struct heads *heads, const struct model *model, const struct cpu_kernels *kernels)
{
    heads->model = model;
    heads->kernels = kernels;
    heads->magnitude = rope_magnitude(model);
    heads->frequencies = calloc(model->rope_width / 2, sizeof(*heads->frequencies));
    if (!heads->frequencies)
        return -ENOMEM;
    rope_frequencies(model, heads->frequencies);
    return 0;
}

void heads_deinit(struct heads *heads)
{
    free(heads->frequencies);
}

void heads_angles(const struct heads *heads, uint32_t position, float *angles)
{
    rope_angles(heads->frequencies, heads->model->rope_width / 2, heads->magnitude, position,
                angles);
}

static const float *floats(const struct model_tensor *vector)
{
    return (const float *)(const void *)vector->data;
}

static void add_bias(float *row, const struct model_tensor *bias)
{
    const float *b = floats(bias);
    for (uint32_t i = 0; b && i < bias->cols; i++)
        row[i] += b[i];
}

static void turn(const struct heads *heads, const struct model_tensor *norm, const float *angles,
                 float *row, uint32_t count)
{
    const struct model *m = heads->model;
    for (uint32_t h = 0; h < count; h++) {
        float *head = row + (size_t)h * m->head_width;
        if (norm->data)
            heads->kernels->rms_norm(head, floats(norm), m->head_width, m->norm_epsilon, head);
        rope_turn(head, angles, m->rope_width / 2, m->rope.is_halves);
    }
}

void heads_prepare(const struct heads *heads, const struct model_layer *layer, const float *angles,
                   float *q, float *k, float *v)
{
    add_bias(q, &layer->q_bias);
    add_bias(k, &layer->k_bias);
    add_bias(v, &layer->v_bias);
    turn(heads, &layer->q_norm, angles, q, heads->model->head_count);
    turn(heads, &layer->k_norm, angles, k, heads->model->kv_head_count);
}
