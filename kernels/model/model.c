/* SPDX-License-Identifier: Apache-2.0 */
/* Makes a network of a GGUF file: reads the sizes, binds the tensors, refuses what it does not
 * understand. Metadata and tensor names: GGUF's "standardized" names. */
#include "kernels/model/model.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Limits that keep products of sizes within 64 bits and tables within reason. */
#define MODEL_SIDE_MAX    (1u << 24)
#define MODEL_CONTEXT_MAX (1u << 24)
#define MODEL_KEY_BYTES   128u

static const struct family {
    const char *arch;
    bool rope_halves;
    bool head_norms; /* on queries and keys; must be there */
} families[] = {
    {"llama", false, false},
    {"qwen2", true, false},
    {"qwen3", true, true},
};

struct loader {
    struct model *model;
    const struct family *family;
    char *why;
    size_t why_size;
    size_t bound; /* tensors of the file that have found their place */
};

__attribute__((format(printf, 3, 4))) static int loader_fail(struct loader *l, int rc,
                                                             const char *format, ...)
{
    if (l->why && l->why_size) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(l->why, l->why_size, format, args);
        va_end(args);
    }
    return rc;
}

struct key {
    char name[MODEL_KEY_BYTES];
};

/* The family's own key: "llama.block_count". */
static struct key key_of(const struct loader *l, const char *suffix)
{
    struct key key;
    (void)snprintf(key.name, sizeof(key.name), "%s.%s", l->family->arch, suffix);
    return key;
}

static int read_size(struct loader *l, const char *suffix, uint32_t max, uint32_t *out)
{
    const struct key key = key_of(l, suffix);
    uint32_t value = 0;
    int rc = gguf_get_u32(l->model->file, key.name, &value);
    if (rc == -ENOENT && *out)
        return 0; /* the caller's default */
    if (rc || value == 0 || value > max)
        return loader_fail(l, -EINVAL, "%s is missing or not usable", key.name);
    *out = value;
    return 0;
}

/* A number above zero. */
static int read_positive(struct loader *l, const char *suffix, float *out)
{
    const struct key key = key_of(l, suffix);
    int rc = gguf_get_f32(l->model->file, key.name, out);
    if ((rc && rc != -ENOENT) || !(*out > 0.0f) || !isfinite(*out))
        return loader_fail(l, -EINVAL, "%s is missing or not usable", key.name);
    return 0;
}

static int read_scaling(struct loader *l)
{
    struct model_rope *rope = &l->model->rope;
    struct gguf_str type;
    const struct key key = key_of(l, "rope.scaling.type");
    rope->factor = 1.0f;
    rope->attention = 1.0f;
    rope->original_context = l->model->context;
    if (gguf_get_str(l->model->file, key.name, &type) || gguf_str_equal(type, "none"))
        return 0;
    if (gguf_str_equal(type, "linear"))
        rope->scaling = MODEL_ROPE_LINEAR;
    else if (gguf_str_equal(type, "yarn"))
        rope->scaling = MODEL_ROPE_YARN;
    else
        return loader_fail(l, -ENOTSUP, "RoPE scaling of type %.*s is not supported",
                           type.len > 32 ? 32 : (int)type.len, type.data);
    int rc = read_positive(l, "rope.scaling.factor", &rope->factor);
    if (!rc)
        rc = read_positive(l, "rope.scaling.attn_factor", &rope->attention);
    if (!rc)
        rc = read_size(l, "rope.scaling.original_context_length", MODEL_CONTEXT_MAX,
                       &rope->original_context);
    return rc;
}

static int read_scalars(struct loader *l)
{
    struct model *m = l->model;
    m->rope.base = 10000.0f;
    m->rope.is_halves = l->family->rope_halves;
    int rc = read_positive(l, "rope.freq_base", &m->rope.base);
    if (!rc)
        rc = read_positive(l, "attention.layer_norm_rms_epsilon", &m->norm_epsilon);
    return rc ? rc : read_scaling(l);
}

static int find_family(struct loader *l)
{
    struct gguf_str arch;
    if (gguf_get_str(l->model->file, "general.architecture", &arch))
        return loader_fail(l, -EINVAL, "general.architecture is missing");
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++) {
        if (gguf_str_equal(arch, families[i].arch)) {
            l->family = &families[i];
            l->model->arch = families[i].arch;
            return 0;
        }
    }
    return loader_fail(l, -ENOTSUP, "architecture %.*s is not supported (llama, qwen2, qwen3 are)",
                       arch.len > 32 ? 32 : (int)arch.len, arch.data);
}

static int read_sizes(struct loader *l)
{
    struct model *m = l->model;
    /* A layer has tensors of its own, so there cannot be more layers than tensors. */
    uint32_t layers_max = (uint32_t)gguf_tensor_count(m->file);
    int rc = read_size(l, "block_count", layers_max, &m->layer_count);
    if (!rc)
        rc = read_size(l, "context_length", MODEL_CONTEXT_MAX, &m->context);
    if (!rc)
        rc = read_size(l, "embedding_length", MODEL_SIDE_MAX, &m->width);
    if (!rc)
        rc = read_size(l, "feed_forward_length", MODEL_SIDE_MAX, &m->ffn_width);
    if (!rc)
        rc = read_size(l, "attention.head_count", m->width, &m->head_count);
    m->kv_head_count = m->head_count;
    if (!rc)
        rc = read_size(l, "attention.head_count_kv", m->head_count, &m->kv_head_count);
    if (rc)
        return rc;
    m->head_width = m->width / m->head_count;
    rc = read_size(l, "attention.key_length", m->width, &m->head_width);
    m->rope_width = m->head_width;
    if (!rc)
        rc = read_size(l, "rope.dimension_count", m->head_width, &m->rope_width);
    uint32_t value_width = m->head_width;
    if (!rc)
        rc = read_size(l, "attention.value_length", m->width, &value_width);
    if (rc)
        return rc;
    if (m->head_count % m->kv_head_count || m->rope_width % 2 || value_width != m->head_width ||
        (uint64_t)m->head_count * m->head_width > MODEL_SIDE_MAX)
        return loader_fail(l, -EINVAL, "%u heads of %u over %u KV heads do not fit together",
                           m->head_count, m->head_width, m->kv_head_count);
    m->head_group = m->head_count / m->kv_head_count;
    return read_scalars(l);
}

/* Finds `name` and checks its shape; rows 0 = any, returned in out->rows. */
static int bind(struct loader *l, const char *name, uint32_t rows, uint32_t cols,
                struct model_tensor *out)
{
    const struct gguf_tensor *tensor = gguf_tensor_find(l->model->file, name);
    uint32_t elements;
    uint32_t block_bytes;
    if (!tensor)
        return loader_fail(l, -ENOENT, "tensor %s is missing", name);
    if (!gguf_tensor_block(tensor->type, &elements, &block_bytes))
        return loader_fail(l, -ENOTSUP, "tensor %s has type %u, which is not supported", name,
                           tensor->type);
    if (tensor->dim[0] != cols || (rows && tensor->dim[1] != rows) ||
        tensor->dim[1] > MODEL_SIDE_MAX || tensor->dim[2] != 1 || tensor->dim[3] != 1)
        return loader_fail(l, -EINVAL, "tensor %s is %llu x %llu, not %u x %u", name,
                           (unsigned long long)tensor->dim[0], (unsigned long long)tensor->dim[1],
                           cols, rows);
    if ((uintptr_t)tensor->data % sizeof(float))
        return loader_fail(l, -EINVAL, "tensor %s is not aligned in memory", name);
    *out = (struct model_tensor){
        .data = tensor->data,
        .type = tensor->type,
        .rows = (uint32_t)tensor->dim[1],
        .cols = cols,
        .row_bytes = (size_t)(cols / elements) * block_bytes,
    };
    l->model->weight_bytes += tensor->size_bytes;
    l->bound++;
    return 0;
}

/* A vector of float32, as norms are. */
static int bind_vector(struct loader *l, const char *name, uint32_t cols, struct model_tensor *out)
{
    int rc = bind(l, name, 1, cols, out);
    if (rc == 0 && out->type != GGUF_TENSOR_F32)
        rc = loader_fail(l, -ENOTSUP, "tensor %s is %s, not F32", name,
                         gguf_tensor_type_name(out->type));
    return rc;
}

/* The same, but the file need not have it. */
static int bind_optional(struct loader *l, const char *name, uint32_t cols,
                         struct model_tensor *out)
{
    return gguf_tensor_find(l->model->file, name) ? bind_vector(l, name, cols, out) : 0;
}

enum need { MATRIX, VECTOR, OPTIONAL, ABSENT };

static int bind_layer(struct loader *l, uint32_t index)
{
    struct model *m = l->model;
    struct model_layer *layer = &m->layers[index];
    const uint32_t attn = m->head_count * m->head_width;
    const uint32_t kv = m->kv_head_count * m->head_width;
    const enum need norm = l->family->head_norms ? VECTOR : ABSENT;
    const struct {
        const char *name;
        enum need need;
        uint32_t rows;
        uint32_t cols;
        struct model_tensor *out;
    } wanted[] = {
        {"attn_norm.weight", VECTOR, 1, m->width, &layer->attn_norm},
        {"attn_q.weight", MATRIX, attn, m->width, &layer->q},
        {"attn_k.weight", MATRIX, kv, m->width, &layer->k},
        {"attn_v.weight", MATRIX, kv, m->width, &layer->v},
        {"attn_output.weight", MATRIX, m->width, attn, &layer->o},
        {"attn_q.bias", OPTIONAL, 1, attn, &layer->q_bias},
        {"attn_k.bias", OPTIONAL, 1, kv, &layer->k_bias},
        {"attn_v.bias", OPTIONAL, 1, kv, &layer->v_bias},
        {"attn_q_norm.weight", norm, 1, m->head_width, &layer->q_norm},
        {"attn_k_norm.weight", norm, 1, m->head_width, &layer->k_norm},
        {"ffn_norm.weight", VECTOR, 1, m->width, &layer->ffn_norm},
        {"ffn_gate.weight", MATRIX, m->ffn_width, m->width, &layer->gate},
        {"ffn_up.weight", MATRIX, m->ffn_width, m->width, &layer->up},
        {"ffn_down.weight", MATRIX, m->width, m->ffn_width, &layer->down},
    };
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        char name[64];
        (void)snprintf(name, sizeof(name), "blk.%u.%s", index, wanted[i].name);
        if (wanted[i].need == MATRIX)
            rc = bind(l, name, wanted[i].rows, wanted[i].cols, wanted[i].out);
        else if (wanted[i].need == VECTOR)
            rc = bind_vector(l, name, wanted[i].cols, wanted[i].out);
        else if (wanted[i].need == OPTIONAL)
            rc = bind_optional(l, name, wanted[i].cols, wanted[i].out);
    }
    return rc;
}

static int bind_all(struct loader *l)
{
    struct model *m = l->model;
    int rc = bind(l, "token_embd.weight", 0, m->width, &m->embedding);
    if (rc)
        return rc;
    m->vocab = m->embedding.rows;
    m->output = m->embedding;
    if (gguf_tensor_find(m->file, "output.weight")) {
        m->weight_bytes = 0; /* the embedding is then only looked up, a row a token */
        rc = bind(l, "output.weight", m->vocab, m->width, &m->output);
    }
    if (!rc)
        rc = bind_vector(l, "output_norm.weight", m->width, &m->output_norm);
    if (!rc)
        rc = bind_optional(l, "rope_freqs.weight", m->rope_width / 2, &m->rope_factors);
    m->layers = calloc(m->layer_count, sizeof(*m->layers));
    if (!m->layers)
        return -ENOMEM;
    for (uint32_t i = 0; !rc && i < m->layer_count; i++)
        rc = bind_layer(l, i);
    if (rc)
        return rc;
    if (l->bound != gguf_tensor_count(m->file))
        return loader_fail(l, -ENOTSUP, "the file has %zu tensors of which only %zu are understood",
                           gguf_tensor_count(m->file), l->bound);
    return 0;
}

int model_create(struct model **out, gguf_t *file, char *why, size_t why_size)
{
    struct loader l = {.why = why, .why_size = why_size};
    *out = NULL;
    l.model = calloc(1, sizeof(*l.model));
    if (!l.model) {
        gguf_close(file);
        return -ENOMEM;
    }
    l.model->file = file;
    int rc = find_family(&l);
    if (!rc)
        rc = read_sizes(&l);
    if (!rc)
        rc = bind_all(&l);
    if (rc) {
        model_destroy(l.model);
        return rc;
    }
    *out = l.model;
    return 0;
}

int model_open(struct model **out, const char *path, char *why, size_t why_size)
{
    gguf_t *file;
    *out = NULL;
    int rc = gguf_open(&file, path, why, why_size);
    return rc ? rc : model_create(out, file, why, why_size);
}

void model_destroy(struct model *model)
{
    if (!model)
        return;
    gguf_close(model->file);
    free(model->layers);
    free(model);
}
