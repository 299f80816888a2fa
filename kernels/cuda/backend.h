/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - the CUDA backend's own state, shared by cuda.c (life), load.c (weights), forward.c (a
 * step) and layer.c (its operations). Nothing outside this folder includes it. */
#pragma once

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/ops.h"
#include "kernels/cuda/pages.h"

#define CUDA_GRAPH_COLUMNS 32u /* batches of so many decoding rows have a graph */
#define CUDA_GRAPH_LENGTHS 6u  /* 1, 2, 4 ... OP_SPLITS_MAX splits */

/* What takes much memory a column is done for so many at a time: at least a graph's. */
#define CUDA_ATTEND_COLUMNS 64u
#define CUDA_LOGITS_COLUMNS 64u

/* A layer's weights on the device; vectors are NULL where the model has none. */
struct cuda_layer {
    struct weights q, k, v, o, gate, up, down;
    const float *attn_norm, *ffn_norm;
    const float *q_bias, *k_bias, *v_bias;
    const float *q_norm, *k_norm;
};

/* What a step is told, in one piece so that one copy brings it over: [batch_max] each. Columns are
 * the batch's rows, those that go the fast way first, else in their order. */
struct cuda_inputs {
    struct op_row *rows;
    struct op_tile *tiles; /* of the columns that go the fast way */
    uint32_t *tokens;
    uint32_t *picks;       /* columns whose logits are wanted, in the batch's order */
    uint32_t *state_picks; /* columns whose states are */
};

/* How much of it there is. */
struct cuda_step {
    uint32_t count; /* columns */
    uint32_t fast;  /* of them on the tensor cores, as halves: the first ones */
    uint32_t tiles;
    uint32_t picked;
    uint32_t states;
    uint32_t length; /* positions of the longest column */
};

/* Of ranks: whether a step is to be stopped, as it goes through the stream. */
struct cuda_stop {
    float mine;
    float all; /* summed over the ranks */
};

/* Who multiplies matrices of a shape: the library from so many columns on, gemm.cu below. */
#define CUDA_CHOICES 32u
struct cuda_choice {
    uint32_t type;
    uint32_t rows;
    uint32_t cols;
    uint32_t library_from; /* UINT32_MAX: gemm.cu always */
};

struct cuda {
    struct exec base; /* first: exec.h */
    const struct model *model;
    struct device device;
    uint32_t slots;
    uint32_t context;
    uint32_t batch_max;
    bool half_kv;
    bool is_fast;
    bool is_timed;
    bool has_times;            /* the marks stand around the last graph */
    enum op_number number;     /* of the fast way: bfloat16 if that is what all matrices are */
    const struct shard *shard; /* NULL: alone */
    uint32_t vocab_rows;       /* of the output's matrix, at the rank that has most of them */
    char detail[DEVICE_NAME_BYTES + 80];

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
    float *x;          /* residual stream, width; behind all columns one of struct cuda_stop */
    float *q;          /* heads * head_width */
    float *k, *v;      /* kv heads * head_width */
    float *mixed;      /* what attention gives, as q */
    float *gate;       /* ffn_width */
    float *up;         /* ffn_width */
    float *partial;    /* op_partial_floats() of CUDA_ATTEND_COLUMNS */
    float *logits;     /* vocab_rows, of CUDA_LOGITS_COLUMNS */
    float *all_logits; /* [rank][column][vocab_rows]; only where there are ranks */
    float *states;     /* width */
    uint16_t
        *fast_normed; /* what the fast way multiplies: numbers, cuda_number_stride() of width, */
    uint16_t *fast_mixed;    /* of heads * head_width, */
    uint16_t *fast_gate;     /* of ffn_width */
    struct cuda_stop *stops; /* [DEVICE_MARKS], pinned; only where there are ranks */

    struct cublaslt *library; /* NULL: gemm.cu makes all products */
    uint16_t *expanded;       /* a matrix as halves, for the library */
    struct cuda_choice choices[CUDA_CHOICES];
    uint32_t choice_count;

    float *own_x;         /* where x is without memory of the group's */
    uint64_t team_serial; /* of the group that x and the graphs below are for; 0 = none */
    struct device_graph *graphs[CUDA_GRAPH_COLUMNS][CUDA_GRAPH_LENGTHS];
    /* 1: its kernels are loaded, 2: it is there, or not to be had. */
    uint8_t tries[CUDA_GRAPH_COLUMNS][CUDA_GRAPH_LENGTHS];
};

/* Numbers from one column of the fast way to the next. */
static inline uint32_t cuda_number_stride(uint32_t width)
{
    return (width + 7u) / 8u * 8u;
}

/* load.c: brings the weights over. -ENOTSUP with a sentence for a type without a kernel. */
int cuda_load(struct cuda *cuda, char *why, size_t why_size);

/* choose.c: decides at creation; `detail` gets what. 0, or what cublaslt_open() returned. */
int cuda_choose(struct cuda *cuda, enum cuda_gemm gemm, char *why, size_t why_size);

/* Is the library to make this product, and makes it. */
bool cuda_is_librarys(const struct cuda *cuda, const struct matvec_part *part, uint32_t columns);
int cuda_library_product(const struct cuda *cuda, const struct gemm_args *op,
                         const struct matvec_part *part);

/* layer.c: the parts of a step, put on the stream. */
int cuda_run_embed(const struct cuda *cuda, const struct cuda_step *step);
int cuda_run_layer(const struct cuda *cuda, uint32_t index, const struct cuda_step *step,
                   struct cuda_stop *stop);
/* Of `count` of the columns that want them, CUDA_LOGITS_COLUMNS at most. */
int cuda_run_logits(const struct cuda *cuda, uint32_t first, uint32_t count);
int cuda_run_states(const struct cuda *cuda, const struct cuda_step *step);

/* The ranks of this one's stage; NULL: alone. */
static inline struct collective *cuda_team(const struct cuda *cuda)
{
    return cuda->shard ? cuda->shard->team : NULL;
}

/* Of several ranks only the first gives results. */
static inline bool cuda_gives_results(const struct cuda *cuda)
{
    return !cuda->shard || cuda->shard->place.shard == 0;
}

/* forward.c: exec_ops.forward, and the end of its graphs. */
void cuda_forget_graphs(struct cuda *cuda);

int cuda_forward(exec_t *self, const struct exec_row *rows, size_t count,
                 const struct exec_out *out, struct exec_watch *watch);
