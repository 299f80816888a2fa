/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - the CUDA backend's own state, shared by cuda.c (life), load.c (weights) and forward.c
 * (a step). Nothing outside this folder includes it. */
#pragma once

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/pages.h"

#define CUDA_GRAPH_COLUMNS 32u /* batches of so many decoding rows have a graph */
#define CUDA_GRAPH_LENGTHS 6u  /* 1, 2, 4 ... OP_SPLITS_MAX splits */

/* A layer's weights on the device; vectors are NULL where the model has none. */
struct cuda_layer {
    struct weights q, k, v, o, gate, up, down;
    const float *attn_norm, *ffn_norm;
    const float *q_bias, *k_bias, *v_bias;
    const float *q_norm, *k_norm;
};

/* What a step is told, in one piece so that one copy brings it over: [batch_max] each. */
struct cuda_inputs {
    struct op_row *rows;
    uint32_t *tokens;
    uint32_t *picks; /* rows that want logits */
};

struct cuda {
    struct exec base; /* first: exec.h */
    const struct model *model;
    struct device device;
    uint32_t slots;
    uint32_t context;
    uint32_t batch_max;
    bool half_kv;

    struct weights embedding;
    struct weights output; /* the same planes if the model ties them */
    const float *output_norm;
    const float *angles; /* [context][cosines, sines] */
    struct cuda_layer *layers;
    uint8_t *weight_memory; /* one allocation for all of the above */
    size_t weight_bytes;

    struct pages pages;
    uint8_t *kv; /* [layer][page][keys, values][kv head][position][width] */
    size_t kv_bytes;
    size_t kv_layer_bytes;
    uint32_t *tables; /* the device's copy of pages.tables */

    void *inputs_memory; /* pinned, and its copy on the device */
    void *inputs_copy;
    size_t inputs_bytes;
    struct cuda_inputs inputs;     /* into inputs_memory */
    struct cuda_inputs inputs_dev; /* into inputs_copy */

    uint8_t *work; /* one allocation for the buffers below, batch_max columns each */
    size_t work_bytes;
    float *x;       /* residual stream, width */
    float *q;       /* heads * head_width */
    float *k, *v;   /* kv heads * head_width */
    float *mixed;   /* what attention gives, as q */
    float *gate;    /* ffn_width */
    float *up;      /* ffn_width */
    float *partial; /* op_partial_floats() */
    float *logits;  /* vocab */

    struct device_graph *graphs[CUDA_GRAPH_COLUMNS][CUDA_GRAPH_LENGTHS];
};

/* load.c: brings the weights over. -ENOTSUP with a sentence for a type without a kernel. */
int cuda_load(struct cuda *cuda, char *why, size_t why_size);

/* forward.c: exec_ops.forward. */
int cuda_forward(exec_t *self, const struct exec_row *rows, size_t count,
                 const struct exec_out *out, struct exec_watch *watch);
