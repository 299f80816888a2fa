/* SPDX-License-Identifier: Apache-2.0 */
/*
 * model.h - a network as a backend needs it: sizes from the file's metadata, and each weight
 * matrix found, its shape checked, its bytes still in the mapped file. Between gguf.h and the
 * backends (kernels/exec.h).
 *
 * Families: llama (GQA, RMSNorm, SwiGLU, RoPE over neighbouring pairs, as GGUF stores Q and K for
 * this family). A file with tensors or settings that this code would not honour is refused: a
 * model that runs wrongly but fluently is worse than one that does not run.
 *
 * Threads: immutable once loaded. Errors: 0 or a negative errno, with a sentence in `why`.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/model/gguf.h"

/* A matrix of rows x cols, row by row; a vector has one row. Points into the file. */
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
    struct model_tensor ffn_norm;
    struct model_tensor gate;
    struct model_tensor up;
    struct model_tensor down;
};

struct model {
    gguf_t *file; /* owned */
    uint32_t layer_count;
    uint32_t context; /* tokens the model was made for */
    uint32_t width;   /* of the residual stream */
    uint32_t ffn_width;
    uint32_t head_count;
    uint32_t kv_head_count; /* divides head_count */
    uint32_t head_width;
    uint32_t rope_width; /* leading values of a head that are rotated; even */
    uint32_t vocab;
    float rope_base;
    float norm_epsilon;
    struct model_tensor embedding; /* vocab x width */
    struct model_tensor output;    /* the same one if the file ties them */
    struct model_tensor output_norm;
    struct model_tensor rope_factors; /* divisors of the frequencies; data NULL without them */
    struct model_layer *layers;
    size_t weight_bytes; /* read for one token */
};

/* Opens `path` and loads. Heap; free with model_destroy(). */
int model_open(struct model **out, const char *path, char *why, size_t why_size);

/* Loads from an open file, which the model owns from then on, also when this fails. */
int model_create(struct model **out, gguf_t *file, char *why, size_t why_size);

/* NULL is fine. */
void model_destroy(struct model *model);
