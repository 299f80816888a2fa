/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - a network as a backend needs it: sizes from the file's metadata, and each weight
 * matrix found, its shape checked, its bytes still in the mapped file. Between gguf.h and the
 * backends (kernels/exec.h).
 *
 * Families, all with GQA, RMSNorm and SwiGLU: llama (RoPE over neighbouring pairs, as GGUF stores Q
 * and K for this family), qwen2 (RoPE over halves, biases on Q, K and V) and qwen3 (RoPE over
 * halves, a norm on each head of Q and K before it). rope.h has the angles. A file with tensors or
 * settings that this code would not honour is refused: a model that runs wrongly but fluently is
 * worse than one that does not run.
 *
 * Threads: immutable once loaded. Errors: 0 or a negative errno, with a sentence in `why`.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/model/gguf.h"

/* A matrix of rows x cols, row by row; a vector has one row. Points into the file. Of a part
 * (part.h) the rows may be further from each other than they are long. */
struct model_tensor {
    const uint8_t *data;
    uint32_t type; /* enum gguf_tensor_type */
    uint32_t rows;
    uint32_t cols;
    size_t row_bytes;
};

struct model_layer {
    struct model_tensor attn_norm;
    struct model_tensor q;
    struct model_tensor k;
    struct model_tensor v;
    struct model_tensor o;
    struct model_tensor q_bias; /* vectors of F32; data NULL without them */
    struct model_tensor k_bias;
    struct model_tensor v_bias;
    struct model_tensor q_norm; /* head_width each, of every head; data NULL without them */
    struct model_tensor k_norm;
    struct model_tensor ffn_norm;
    struct model_tensor gate;
    struct model_tensor up;
    struct model_tensor down;
};

/* How angles grow beyond the context that a model was trained with; see rope.h. */
enum model_rope_scaling { MODEL_ROPE_PLAIN, MODEL_ROPE_LINEAR, MODEL_ROPE_YARN };

struct model_rope {
    float base;
    bool is_halves; /* value i turns with i + width / 2; else with its neighbour */
    enum model_rope_scaling scaling;
    float factor;              /* of the scaling */
    float attention;           /* YaRN: factor of its own on the magnitude */
    uint32_t original_context; /* YaRN: before scaling */
};

struct model {
    gguf_t *file;     /* owned */
    const char *arch; /* "llama", "qwen2", "qwen3"; static */
    uint32_t layer_count;
    uint32_t context; /* tokens the model was made for */
    uint32_t width;   /* of the residual stream */
    uint32_t ffn_width;
    uint32_t head_count;
    uint32_t kv_head_count; /* divides head_count, unless this is a part (part.h) */
    uint32_t head_group;    /* query heads that look at one KV head */
    uint32_t head_skip;     /* of the first KV head's group that are not here: 0 but in a part */
    uint32_t head_width;
    uint32_t rope_width; /* leading values of a head that are rotated; even */
    uint32_t vocab;
    struct model_rope rope;
    float norm_epsilon;
    struct model_tensor embedding; /* vocab x width */
    struct model_tensor output;    /* the same one if the file ties them */
    struct model_tensor output_norm;
    struct model_tensor rope_factors; /* divisors of the frequencies; data NULL without them */
    struct model_layer *layers;
    size_t weight_bytes; /* read for one token */
};

/* The KV head that a query head looks at. */
static inline uint32_t model_kv_head(const struct model *model, uint32_t head)
{
    return (model->head_skip + head) / model->head_group;
}

/* Opens `path` and loads. Heap; free with model_destroy(). */
int model_open(struct model **out, const char *path, char *why, size_t why_size);

/* Loads from an open file, which the model owns from then on, also when this fails. */
int model_create(struct model **out, gguf_t *file, char *why, size_t why_size);

/* NULL is fine. */
void model_destroy(struct model *model);
