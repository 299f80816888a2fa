/* SPDX-License-Identifier: Apache-2.0 */
/* See synthetic.h. All matrices point into one buffer, the embedding's; a short stretch of random
 * blocks is repeated until it is full. */
#include "tests/gpu/synthetic.h"

#include <stdlib.h>
#include <string.h>

#include "tests/gpu/lab.h"

#define STRETCH_BLOCKS 65536u

/* What model_destroy() does not know of: in front of the model. */
struct synthetic {
    struct model model;
    uint8_t *blocks;
    float *ones;
};

static struct model_tensor matrix(const struct synthetic *s, uint32_t type, uint32_t rows,
                                  uint32_t cols)
{
    uint32_t elements = 1;
    uint32_t bytes = 0;
    (void)gguf_tensor_block(type, &elements, &bytes);
    return (struct model_tensor){s->blocks, type, rows, cols, (size_t)cols / elements * bytes};
}

static struct model_tensor vector(const struct synthetic *s, uint32_t cols)
{
    return (struct model_tensor){(const uint8_t *)s->ones, GGUF_TENSOR_F32, 1, cols,
                                 cols * sizeof(float)};
}

static size_t bytes_of(const struct model_tensor *t)
{
    return t->row_bytes * t->rows;
}

static void fill(uint8_t *data, size_t size, uint32_t type, uint32_t block_bytes, uint64_t seed)
{
    struct lab lab;
    size_t done = (size_t)STRETCH_BLOCKS * block_bytes;
    done = done < size ? done : size;
    lab_init(&lab, NULL, seed);
    lab_blocks(&lab, type, 0.02f, data, done);
    while (done < size) {
        const size_t more = done < size - done ? done : size - done;
        memcpy(data + done, data, more);
        done += more;
    }
}

static void make_layers(struct synthetic *s, const struct synthetic_shape *shape)
{
    struct model *m = &s->model;
    const uint32_t attn = shape->heads * shape->head_width;
    const uint32_t kv = shape->kv_heads * shape->head_width;
    for (uint32_t i = 0; i < shape->layers; i++) {
        struct model_layer *l = &m->layers[i];
        l->attn_norm = l->ffn_norm = vector(s, shape->width);
        l->q = matrix(s, shape->type, attn, shape->width);
        l->k = l->v = matrix(s, shape->type, kv, shape->width);
        l->o = matrix(s, shape->type, shape->width, attn);
        l->gate = l->up = matrix(s, shape->type, shape->ffn_width, shape->width);
        l->down = matrix(s, shape->type, shape->width, shape->ffn_width);
        m->weight_bytes +=
            bytes_of(&l->q) + 2 * bytes_of(&l->k) + bytes_of(&l->o) + 3 * bytes_of(&l->gate);
    }
    m->weight_bytes += bytes_of(&m->output);
}

struct model *synthetic_create(const struct synthetic_shape *shape, uint64_t seed)
{
    uint32_t elements;
    uint32_t block_bytes;
    struct synthetic *s = calloc(1, sizeof(*s));
    if (!s || !gguf_tensor_block(shape->type, &elements, &block_bytes)) {
        free(s);
        return NULL;
    }
    struct model *m = &s->model;
    m->arch = "llama";
    m->layer_count = shape->layers;
    m->context = shape->context;
    m->width = shape->width;
    m->ffn_width = shape->ffn_width;
    m->head_count = shape->heads;
    m->kv_head_count = shape->kv_heads;
    m->head_group = shape->heads / shape->kv_heads;
    m->head_width = shape->head_width;
    m->rope_width = shape->head_width;
    m->vocab = shape->vocab;
    m->rope.base = 500000.0f;
    m->rope.factor = 1.0f;
    m->norm_epsilon = 1e-5f;
    m->layers = calloc(shape->layers, sizeof(*m->layers));
    const uint32_t rows = shape->vocab > shape->ffn_width ? shape->vocab : shape->ffn_width;
    const size_t size = (size_t)rows * shape->width / elements * block_bytes;
    s->blocks = aligned_alloc(64, (size + 63) / 64 * 64);
    s->ones = calloc(shape->width, sizeof(*s->ones));
    if (!m->layers || !s->blocks || !s->ones) {
        synthetic_destroy(m);
        return NULL;
    }
    for (uint32_t i = 0; i < shape->width; i++)
        s->ones[i] = 1.0f;
    fill(s->blocks, size, shape->type, block_bytes, seed);
    m->embedding = m->output = matrix(s, shape->type, shape->vocab, shape->width);
    m->output_norm = vector(s, shape->width);
    make_layers(s, shape);
    return m;
}

void synthetic_destroy(struct model *model)
{
    struct synthetic *s = (struct synthetic *)model;
    if (!s)
        return;
    free(s->model.layers);
    free(s->blocks);
    free(s->ones);
    free(s);
}
