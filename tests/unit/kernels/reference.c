/* SPDX-License-Identifier: Apache-2.0 */
/* Plain float32 inference. Formats: ggml-common.h of https://github.com/ggml-org/ggml. */
#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PARTS 8u /* partial sums of a product */

struct matrix {
    float *w;
    size_t rows;
    size_t cols;
};

struct layer {
    struct matrix attn_norm, q, k, v, o, ffn_norm, gate, up, down;
    float *keys;   /* [position][kv head * head_width] */
    float *values; /* same */
};

struct reference {
    const struct model *model;
    struct matrix embedding, output, output_norm;
    struct layer *layers;
    uint32_t context;
    uint32_t position;
    float *x, *h, *q, *k, *v, *mixed, *gate, *up, *scores, *logits;
};

static float half_at(const uint8_t *p)
{
    const int bits = p[0] | p[1] << 8;
    const int exponent = bits >> 10 & 31;
    const float fraction = (float)(bits & 1023) / 1024.0f;
    float value;
    if (exponent == 31)
        value = (bits & 1023) ? NAN : INFINITY;
    else if (exponent)
        value = ldexpf(1.0f + fraction, exponent - 15);
    else
        value = ldexpf(fraction, -14);
    return bits & 0x8000 ? -value : value;
}

/* Weight i of a row. */
static float weight_at(uint32_t type, const uint8_t *row, size_t i)
{
    const size_t j = i % 32;
    const uint8_t *b;
    float value;
    switch (type) {
    case GGUF_TENSOR_F32:
        memcpy(&value, row + 4 * i, 4);
        return value;
    case GGUF_TENSOR_F16:
        return half_at(row + 2 * i);
    case GGUF_TENSOR_Q4_0:
        b = row + i / 32 * 18;
        return half_at(b) * (float)((j < 16 ? b[2 + j] & 15 : b[2 + j - 16] >> 4) - 8);
    case GGUF_TENSOR_Q4_1:
        b = row + i / 32 * 20;
        return half_at(b) * (float)(j < 16 ? b[4 + j] & 15 : b[4 + j - 16] >> 4) + half_at(b + 2);
    case GGUF_TENSOR_Q8_0:
        b = row + i / 32 * 34;
        return half_at(b) * (float)(int8_t)b[2 + j];
    case GGUF_TENSOR_Q6_K: {
        b = row + i / 256 * 210;
        const size_t n = i % 256;
        const size_t half = n / 128;
        const size_t run = n % 128 / 32;
        const int low = b[half * 64 + run % 2 * 32 + j] >> (run / 2 * 4) & 15;
        const int high = b[128 + half * 32 + j] >> (run * 2) & 3;
        return half_at(b + 208) * (float)(int8_t)b[192 + n / 16] * (float)((low | high << 4) - 32);
    }
    default:
        abort();
    }
}

void reference_expand(uint32_t type, const uint8_t *row, size_t cols, float *out)
{
    for (size_t i = 0; i < cols; i++)
        out[i] = weight_at(type, row, i);
}

static float *floats(size_t count)
{
    float *p = calloc(count, sizeof(*p));
    if (!p)
        abort();
    return p;
}

static struct matrix expand(const struct model_tensor *t)
{
    struct matrix m = {floats((size_t)t->rows * t->cols), t->rows, t->cols};
    for (size_t r = 0; r < m.rows; r++)
        reference_expand(t->type, t->data + r * t->row_bytes, m.cols, m.w + r * m.cols);
    return m;
}

struct reference *reference_create(const struct model *model, uint32_t context)
{
    struct reference *r = calloc(1, sizeof(*r));
    if (!r || !(r->layers = calloc(model->layer_count, sizeof(*r->layers))))
        abort();
    r->model = model;
    r->context = context;
    r->embedding = expand(&model->embedding);
    r->output = r->embedding;
    if (model->output.data != model->embedding.data)
        r->output = expand(&model->output);
    r->output_norm = expand(&model->output_norm);
    const size_t kv = (size_t)model->kv_head_count * model->head_width;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const struct model_layer *from = &model->layers[i];
        r->layers[i] = (struct layer){
            expand(&from->attn_norm), expand(&from->q),     expand(&from->k),
            expand(&from->v),         expand(&from->o),     expand(&from->ffn_norm),
            expand(&from->gate),      expand(&from->up),    expand(&from->down),
            floats(context * kv),     floats(context * kv),
        };
    }
    const size_t attn = (size_t)model->head_count * model->head_width;
    r->x = floats(model->width);
    r->h = floats(model->width + attn);
    r->q = floats(attn);
    r->mixed = floats(attn);
    r->gate = floats(model->ffn_width);
    r->up = floats(model->ffn_width);
    r->scores = floats(context);
    r->logits = floats(model->vocab);
    return r;
}

void reference_destroy(struct reference *r)
{
    for (uint32_t i = 0; i < r->model->layer_count; i++) {
        struct layer *l = &r->layers[i];
        float *const all[] = {l->attn_norm.w, l->q.w,  l->k.w,    l->v.w,  l->o.w,   l->ffn_norm.w,
                              l->gate.w,      l->up.w, l->down.w, l->keys, l->values};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            free(all[j]);
    }
    if (r->output.w != r->embedding.w)
        free(r->output.w);
    float *const rest[] = {r->embedding.w, r->output_norm.w, r->x,  r->h,      r->q,
                           r->mixed,       r->gate,          r->up, r->scores, r->logits};
    for (size_t j = 0; j < sizeof(rest) / sizeof(rest[0]); j++)
        free(rest[j]);
    free(r->layers);
    free(r);
}

void reference_reset(struct reference *r)
{
    r->position = 0;
}

static void multiply(const struct matrix *m, const float *x, float *y)
{
    for (size_t r = 0; r < m->rows; r++) {
        const float *w = m->w + r * m->cols;
        float sums[PARTS] = {0};
        float sum = 0;
        for (size_t c = 0; c < m->cols; c++)
            sums[c % PARTS] += w[c] * x[c];
        for (size_t p = 0; p < PARTS; p++)
            sum += sums[p];
        y[r] = sum;
    }
}

static void normalise(const struct reference *r, const struct matrix *weight, const float *x,
                      float *out)
{
    float sum = 0;
    for (size_t i = 0; i < weight->cols; i++)
        sum += x[i] * x[i];
    const float scale = 1.0f / sqrtf(sum / (float)weight->cols + r->model->norm_epsilon);
    for (size_t i = 0; i < weight->cols; i++)
        out[i] = x[i] * scale * weight->w[i];
}

static void turn(const struct reference *r, float *heads, uint32_t count)
{
    const struct model *m = r->model;
    for (uint32_t h = 0; h < count; h++) {
        float *head = heads + (size_t)h * m->head_width;
        for (uint32_t i = 0; i < m->rope_width; i += 2) {
            const float frequency = powf(m->rope_base, -(float)i / (float)m->rope_width);
            const float angle = (float)r->position * frequency;
            const float a = head[i];
            const float b = head[i + 1];
            head[i] = a * cosf(angle) - b * sinf(angle);
            head[i + 1] = a * sinf(angle) + b * cosf(angle);
        }
    }
}

static void attend(struct reference *r, const struct layer *l)
{
    const struct model *m = r->model;
    const size_t width = m->head_width;
    const size_t kv = m->kv_head_count * width;
    for (uint32_t h = 0; h < m->head_count; h++) {
        const float *q = r->q + h * width;
        const size_t at = h / (m->head_count / m->kv_head_count) * width;
        float largest = -INFINITY;
        float sum = 0;
        for (uint32_t p = 0; p <= r->position; p++) {
            r->scores[p] = 0;
            for (size_t i = 0; i < width; i++)
                r->scores[p] += q[i] * l->keys[p * kv + at + i];
            r->scores[p] /= sqrtf((float)width);
            largest = fmaxf(largest, r->scores[p]);
        }
        for (uint32_t p = 0; p <= r->position; p++)
            sum += r->scores[p] = expf(r->scores[p] - largest);
        for (size_t i = 0; i < width; i++) {
            float value = 0;
            for (uint32_t p = 0; p <= r->position; p++)
                value += r->scores[p] / sum * l->values[p * kv + at + i];
            r->mixed[h * width + i] = value;
        }
    }
}

const float *reference_forward(struct reference *r, uint32_t token)
{
    const struct model *m = r->model;
    const size_t kv = (size_t)m->kv_head_count * m->head_width;
    if (r->position == r->context)
        abort();
    memcpy(r->x, r->embedding.w + (size_t)token * m->width, m->width * sizeof(float));
    for (uint32_t n = 0; n < m->layer_count; n++) {
        struct layer *l = &r->layers[n];
        float *key = l->keys + r->position * kv;
        normalise(r, &l->attn_norm, r->x, r->h);
        multiply(&l->q, r->h, r->q);
        multiply(&l->k, r->h, key);
        multiply(&l->v, r->h, l->values + r->position * kv);
        turn(r, r->q, m->head_count);
        turn(r, key, m->kv_head_count);
        attend(r, l);
        multiply(&l->o, r->mixed, r->h);
        for (uint32_t i = 0; i < m->width; i++)
            r->x[i] += r->h[i];
        normalise(r, &l->ffn_norm, r->x, r->h);
        multiply(&l->gate, r->h, r->gate);
        multiply(&l->up, r->h, r->up);
        for (uint32_t i = 0; i < m->ffn_width; i++)
            r->gate[i] = r->gate[i] / (1.0f + expf(-r->gate[i])) * r->up[i];
        multiply(&l->down, r->gate, r->h);
        for (uint32_t i = 0; i < m->width; i++)
            r->x[i] += r->h[i];
    }
    normalise(r, &r->output_norm, r->x, r->h);
    multiply(&r->output, r->h, r->logits);
    r->position++;
    return r->logits;
}

uint32_t reference_best(const struct reference *r, float *margin)
{
    uint32_t best = 0;
    float next = -INFINITY;
    for (uint32_t i = 1; i < r->model->vocab; i++) {
        if (r->logits[i] > r->logits[best]) {
            next = r->logits[best];
            best = i;
        } else if (r->logits[i] > next) {
            next = r->logits[i];
        }
    }
    *margin = r->logits[best] - next;
    return best;
}
