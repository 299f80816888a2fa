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
    struct matrix q_bias, k_bias, v_bias, q_norm, k_norm; /* w NULL without them */
    float *keys;                                          /* [position][kv head * head_width] */
    float *values;                                        /* same */
};

struct reference {
    const struct model *model;
    struct matrix embedding, output, output_norm, rope_factors;
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

/* Five bits of weight j: a nibble and a bit of a word. */
static int fifth(const uint8_t *nibbles, const uint8_t *word, size_t j)
{
    const int low = j < 16 ? nibbles[j] & 15 : nibbles[j - 16] >> 4;
    return low + 16 * (word[j / 8] >> (j % 8) & 1);
}

/* Six bits at place `n` of the 16 scales and minima: the first four of each kind stand in bytes of
 * their own, of the others the low four bits stand behind them and the high two in their tops. */
static float k_weight(const uint8_t *block, int value, size_t run)
{
    const uint8_t *s = block + 4;
    int scale;
    int min;
    if (run < 4) {
        scale = s[run] % 64;
        min = s[run + 4] % 64;
    } else {
        scale = s[run + 4] % 16 + s[run - 4] / 64 * 16;
        min = s[run + 4] / 16 + s[run] / 64 * 16;
    }
    return half_at(block) * (float)scale * (float)value - half_at(block + 2) * (float)min;
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
    case GGUF_TENSOR_BF16: {
        const uint8_t bytes[4] = {0, 0, row[2 * i], row[2 * i + 1]};
        memcpy(&value, bytes, 4);
        return value;
    }
    case GGUF_TENSOR_Q5_0:
        b = row + i / 32 * 22;
        return half_at(b) * (float)(fifth(b + 6, b + 2, j) - 16);
    case GGUF_TENSOR_Q5_1:
        b = row + i / 32 * 24;
        return half_at(b) * (float)fifth(b + 8, b + 4, j) + half_at(b + 2);
    case GGUF_TENSOR_Q4_K:
        b = row + i / 256 * 144;
        return k_weight(b, (b[16 + i % 256 / 64 * 32 + j] >> (i % 64 / 32 * 4)) & 15, i % 256 / 32);
    case GGUF_TENSOR_Q5_K: {
        b = row + i / 256 * 176;
        const size_t run = i % 256 / 32;
        const int low = (b[48 + run / 2 * 32 + j] >> (run % 2 * 4)) & 15;
        return k_weight(b, low + 16 * (b[16 + j] >> run & 1), run);
    }
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
    if (!t->data)
        return (struct matrix){0};
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
    r->rope_factors = expand(&model->rope_factors);
    const size_t kv = (size_t)model->kv_head_count * model->head_width;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const struct model_layer *from = &model->layers[i];
        r->layers[i] = (struct layer){
            expand(&from->attn_norm), expand(&from->q),      expand(&from->k),
            expand(&from->v),         expand(&from->o),      expand(&from->ffn_norm),
            expand(&from->gate),      expand(&from->up),     expand(&from->down),
            expand(&from->q_bias),    expand(&from->k_bias), expand(&from->v_bias),
            expand(&from->q_norm),    expand(&from->k_norm), floats(context * kv),
            floats(context * kv),
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
        float *const all[] = {l->attn_norm.w, l->q.w,        l->k.w,      l->v.w,
                              l->o.w,         l->ffn_norm.w, l->gate.w,   l->up.w,
                              l->down.w,      l->keys,       l->values,   l->q_bias.w,
                              l->k_bias.w,    l->v_bias.w,   l->q_norm.w, l->k_norm.w};
        for (size_t j = 0; j < sizeof(all) / sizeof(all[0]); j++)
            free(all[j]);
    }
    if (r->output.w != r->embedding.w)
        free(r->output.w);
    float *const rest[] = {r->embedding.w, r->output_norm.w, r->rope_factors.w, r->x,  r->h,
                           r->q,           r->mixed,         r->gate,           r->up, r->scores,
                           r->logits};
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

static void add(const struct matrix *bias, float *x)
{
    for (size_t i = 0; i < bias->cols; i++)
        x[i] += bias->w[i];
}

/* Angle of a pair by YaRN as its paper gives it (3.2): r is how often the pair turns within the
 * original context; pairs with r > 32 stay, those with r < 1 are interpolated. The usual programs
 * ramp over pairs' numbers between the two instead of over r, and so does this. */
static float yarn(const struct model *m, float angle, uint32_t pair)
{
    const float width = (float)m->rope_width;
    const float context = (float)m->rope.original_context;
    const float log_base = logf(m->rope.base);
    float low = floorf(width * logf(context / (32 * 6.2831853f)) / (2 * log_base));
    float high = ceilf(width * logf(context / 6.2831853f) / (2 * log_base));
    low = low < 0 ? 0 : low;
    high = high > width - 1 ? width - 1 : high;
    float t = ((float)pair - low) / (high - low > 0.001f ? high - low : 0.001f);
    t = t < 0 ? 0 : t > 1 ? 1 : t;
    return t * angle / m->rope.factor + (1 - t) * angle;
}

static void turn(const struct reference *r, float *heads, uint32_t count)
{
    const struct model *m = r->model;
    const uint32_t halves = m->rope_width / 2;
    for (uint32_t h = 0; h < count; h++) {
        float *head = heads + (size_t)h * m->head_width;
        for (uint32_t i = 0; i < halves; i++) {
            const float frequency = powf(m->rope.base, -2.0f * (float)i / (float)m->rope_width);
            const uint32_t at = m->rope.is_halves ? i : 2 * i;
            const uint32_t other = m->rope.is_halves ? i + halves : 2 * i + 1;
            float angle = (float)r->position * frequency;
            float size = 1;
            if (r->rope_factors.w)
                angle /= r->rope_factors.w[i];
            if (m->rope.scaling == MODEL_ROPE_LINEAR)
                angle /= m->rope.factor;
            if (m->rope.scaling == MODEL_ROPE_YARN) {
                angle = yarn(m, angle, i);
                size = m->rope.attention * (0.1f * logf(m->rope.factor) + 1);
            }
            const float a = head[at] * size;
            const float b = head[other] * size;
            head[at] = a * cosf(angle) - b * sinf(angle);
            head[other] = a * sinf(angle) + b * cosf(angle);
        }
    }
}

static void normalise_heads(const struct reference *r, const struct matrix *weight, float *heads,
                            uint32_t count)
{
    for (uint32_t h = 0; weight->w && h < count; h++)
        normalise(r, weight, heads + h * weight->cols, heads + h * weight->cols);
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
        add(&l->q_bias, r->q);
        add(&l->k_bias, key);
        add(&l->v_bias, l->values + r->position * kv);
        normalise_heads(r, &l->q_norm, r->q, m->head_count);
        normalise_heads(r, &l->k_norm, key, m->kv_head_count);
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
