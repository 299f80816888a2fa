/* SPDX-License-Identifier: Apache-2.0 */
/* Brings a model's weights to the device: lays all of them out in one allocation, then packs and
 * copies one after the other through a buffer of the host. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/backend.h"
#include "kernels/model/rope.h"

#define LOAD_ALIGN 256u

/* Goes over everything twice: to find the size, then to copy. */
struct loader {
    struct cuda *cuda;
    uint8_t *base; /* NULL the first time */
    size_t at;
    size_t largest; /* of the pieces */
    uint8_t *buffer;
    int rc;
    char *why;
    size_t why_size;
};

static uint8_t *place(struct loader *l, size_t size)
{
    uint8_t *at = l->base ? l->base + l->at : NULL;
    l->at += (size + LOAD_ALIGN - 1) / LOAD_ALIGN * LOAD_ALIGN;
    l->largest = size > l->largest ? size : l->largest;
    return at;
}

/* The buffer is free again when the copy has been made. */
static void copy(struct loader *l, void *to, const void *from, size_t size)
{
    if (!l->rc)
        l->rc = device_copy(&l->cuda->device, to, from, size);
    if (!l->rc)
        l->rc = device_wait(&l->cuda->device);
}

static void load_matrix(struct loader *l, const struct model_tensor *tensor, struct weights *out)
{
    const int rc = weights_layout(out, tensor->type, tensor->rows, tensor->cols);
    if (rc) {
        if (!l->rc)
            (void)snprintf(l->why, l->why_size, "weights of type %s run on the processor only",
                           gguf_tensor_type_name(tensor->type));
        l->rc = l->rc ? l->rc : rc;
        return;
    }
    uint8_t *to = place(l, out->size_bytes);
    out->data = to;
    if (!to || l->rc)
        return;
    weights_pack(out, tensor, 0, tensor->rows, l->buffer);
    copy(l, to, l->buffer, out->size_bytes);
}

static void load_vector(struct loader *l, const struct model_tensor *tensor, const float **out)
{
    const size_t size = tensor->cols * sizeof(float);
    *out = NULL;
    if (!tensor->data)
        return;
    uint8_t *to = place(l, size);
    *out = (const float *)(const void *)to;
    if (to)
        copy(l, to, tensor->data, size);
}

static void load_layer(struct loader *l, const struct model_layer *from, struct cuda_layer *to)
{
    load_vector(l, &from->attn_norm, &to->attn_norm);
    load_matrix(l, &from->q, &to->q);
    load_matrix(l, &from->k, &to->k);
    load_matrix(l, &from->v, &to->v);
    load_vector(l, &from->q_bias, &to->q_bias);
    load_vector(l, &from->k_bias, &to->k_bias);
    load_vector(l, &from->v_bias, &to->v_bias);
    load_vector(l, &from->q_norm, &to->q_norm);
    load_vector(l, &from->k_norm, &to->k_norm);
    load_matrix(l, &from->o, &to->o);
    load_vector(l, &from->ffn_norm, &to->ffn_norm);
    load_matrix(l, &from->gate, &to->gate);
    load_matrix(l, &from->up, &to->up);
    load_matrix(l, &from->down, &to->down);
}

/* Cosines and sines of every position, as the processor's backend has them. */
static void load_angles(struct loader *l)
{
    struct cuda *cuda = l->cuda;
    const uint32_t pairs = cuda->model->rope_width / 2;
    const size_t size = (size_t)cuda->context * 2 * pairs * sizeof(float);
    const float magnitude = rope_magnitude(cuda->model);
    double *frequencies = calloc(pairs, sizeof(*frequencies));
    uint8_t *to = place(l, size);
    cuda->angles = (const float *)(const void *)to;
    if (!frequencies)
        l->rc = -ENOMEM;
    if (to && !l->rc) {
        float *angles = (float *)(void *)l->buffer;
        rope_frequencies(cuda->model, frequencies);
        for (uint32_t p = 0; p < cuda->context; p++)
            rope_angles(frequencies, pairs, magnitude, p, angles + (size_t)p * 2 * pairs);
        copy(l, to, angles, size);
    }
    free(frequencies);
}

static void load_all(struct loader *l)
{
    struct cuda *cuda = l->cuda;
    const struct model *m = cuda->model;
    l->at = 0;
    load_matrix(l, &m->embedding, &cuda->embedding);
    if (m->output.data == m->embedding.data && m->output.rows == m->embedding.rows)
        cuda->output = cuda->embedding;
    else
        load_matrix(l, &m->output, &cuda->output);
    load_vector(l, &m->output_norm, &cuda->output_norm);
    load_angles(l);
    for (uint32_t i = 0; i < m->layer_count; i++)
        load_layer(l, &m->layers[i], &cuda->layers[i]);
}

/* What x is to be where a product is made of the file's own numbers. */
static enum op_number find_number(const struct cuda *cuda)
{
    for (uint32_t i = 0; i < cuda->model->layer_count; i++) {
        const struct cuda_layer *l = &cuda->layers[i];
        const struct weights *all[] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
        for (size_t n = 0; n < sizeof(all) / sizeof(all[0]); n++)
            if (all[n]->type != WEIGHTS_BF16)
                return OP_F16;
    }
    return OP_BF16;
}

int cuda_load(struct cuda *cuda, char *why, size_t why_size)
{
    struct loader l = {.cuda = cuda, .why = why, .why_size = why_size};
    void *memory = NULL;
    cuda->layers = calloc(cuda->model->layer_count, sizeof(*cuda->layers));
    if (!cuda->layers)
        return -ENOMEM;
    load_all(&l);
    if (l.rc)
        return l.rc;
    l.rc = device_alloc(&memory, l.at);
    if (l.rc) {
        (void)snprintf(why, why_size, "the weights take %zu MiB, more than the device has free",
                       l.at >> 20);
        return l.rc;
    }
    cuda->weight_memory = memory;
    cuda->weight_bytes = l.at;
    l.base = memory;
    l.buffer = malloc(l.largest);
    l.rc = l.buffer ? 0 : -ENOMEM;
    if (!l.rc)
        load_all(&l);
    if (l.rc && !why[0])
        (void)snprintf(why, why_size, "the weights do not get to the device: %s", device_trouble());
    free(l.buffer);
    cuda->number = find_number(cuda);
    return l.rc;
}
