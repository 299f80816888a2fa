/* SPDX-License-Identifier: Apache-2.0 */
/* A step of the CUDA backend: inputs over, the layers, logits back. Batches of nothing but decoding
 * rows run as a graph that was captured the first time; others layer by layer, one layer ahead of
 * the device, so that a stop is obeyed after two layers at most. */
#include <errno.h>
#include <math.h>

#include "kernels/cuda/backend.h"

static struct kv_view view_of(const struct cuda *cuda, uint32_t layer)
{
    return (struct kv_view){
        .pages = cuda->kv + layer * cuda->kv_layer_bytes,
        .tables = cuda->tables,
        .table_stride = cuda->pages.stride,
        .kv_heads = cuda->model->kv_head_count,
        .head_width = cuda->model->head_width,
        .is_half = cuda->half_kv,
    };
}

static int run_embed(const struct cuda *cuda, uint32_t count)
{
    const struct embed_args op = {
        .w = cuda->embedding, .tokens = cuda->inputs_dev.tokens, .count = count, .out = cuda->x};
    return op_embed(&cuda->device, &op);
}

static struct matvec_part part(struct weights w, const float *bias, float *y)
{
    return (struct matvec_part){.w = w, .bias = bias, .y = y, .y_stride = w.rows};
}

static int run_qkv(const struct cuda *cuda, const struct cuda_layer *l, uint32_t count)
{
    const struct matvec_args op = {.x = cuda->x,
                                   .norm = l->attn_norm,
                                   .epsilon = cuda->model->norm_epsilon,
                                   .x_stride = cuda->model->width,
                                   .columns = count,
                                   .part_count = 3,
                                   .parts = {part(l->q, l->q_bias, cuda->q),
                                             part(l->k, l->k_bias, cuda->k),
                                             part(l->v, l->v_bias, cuda->v)}};
    return op_matvec(&cuda->device, &op);
}

static int run_attention(const struct cuda *cuda, uint32_t index, uint32_t count,
                         uint32_t length_max)
{
    const struct model *m = cuda->model;
    const struct cuda_layer *l = &cuda->layers[index];
    const struct rope_args rope = {.q = cuda->q,
                                   .k = cuda->k,
                                   .v = cuda->v,
                                   .q_norm = l->q_norm,
                                   .k_norm = l->k_norm,
                                   .angles = cuda->angles,
                                   .rows = cuda->inputs_dev.rows,
                                   .kv = view_of(cuda, index),
                                   .epsilon = m->norm_epsilon,
                                   .count = count,
                                   .heads = m->head_count,
                                   .rope_pairs = m->rope_width / 2,
                                   .is_halves = m->rope.is_halves};
    const struct attend_args attend = {.q = cuda->q,
                                       .out = cuda->mixed,
                                       .partial = cuda->partial,
                                       .rows = cuda->inputs_dev.rows,
                                       .kv = view_of(cuda, index),
                                       .scale = 1.0f / sqrtf((float)m->head_width),
                                       .count = count,
                                       .heads = m->head_count,
                                       .length_max = length_max};
    const struct matvec_args out = {.x = cuda->mixed,
                                    .x_stride = m->head_count * m->head_width,
                                    .columns = count,
                                    .part_count = 1,
                                    .mode = OP_ADD,
                                    .parts = {part(l->o, NULL, cuda->x)}};
    int rc = op_rope(&cuda->device, &rope);
    if (!rc)
        rc = op_attend(&cuda->device, &attend);
    return rc ? rc : op_matvec(&cuda->device, &out);
}

static int run_mlp(const struct cuda *cuda, const struct cuda_layer *l, uint32_t count)
{
    const struct model *m = cuda->model;
    const bool joined = l->gate.type == l->up.type;
    const struct matvec_args in = {
        .x = cuda->x,
        .norm = l->ffn_norm,
        .epsilon = m->norm_epsilon,
        .x_stride = m->width,
        .columns = count,
        .part_count = 2,
        .mode = joined ? OP_SWIGLU : OP_STORE,
        .parts = {part(l->gate, NULL, cuda->gate), part(l->up, NULL, cuda->up)}};
    const struct matvec_args out = {.x = cuda->gate,
                                    .x_stride = m->ffn_width,
                                    .columns = count,
                                    .part_count = 1,
                                    .mode = OP_ADD,
                                    .parts = {part(l->down, NULL, cuda->x)}};
    int rc = op_matvec(&cuda->device, &in);
    if (!rc && !joined)
        rc = op_swiglu(&cuda->device, cuda->gate, cuda->up, (size_t)count * m->ffn_width);
    return rc ? rc : op_matvec(&cuda->device, &out);
}

static int run_layer(const struct cuda *cuda, uint32_t index, uint32_t count, uint32_t length_max)
{
    int rc = run_qkv(cuda, &cuda->layers[index], count);
    if (!rc)
        rc = run_attention(cuda, index, count, length_max);
    return rc ? rc : run_mlp(cuda, &cuda->layers[index], count);
}

static int run_logits(const struct cuda *cuda, uint32_t picked)
{
    const struct matvec_args op = {.x = cuda->x,
                                   .x_rows = cuda->inputs_dev.picks,
                                   .norm = cuda->output_norm,
                                   .epsilon = cuda->model->norm_epsilon,
                                   .x_stride = cuda->model->width,
                                   .columns = picked,
                                   .part_count = 1,
                                   .parts = {part(cuda->output, NULL, cuda->logits)}};
    return picked ? op_matvec(&cuda->device, &op) : 0;
}

/* ---- steps --------------------------------------------------------------------------------- */

static bool is_stopped(const struct exec_watch *watch)
{
    return watch && atomic_load_explicit(&watch->stop, memory_order_relaxed);
}

static void add_progress(struct exec_watch *watch, uint32_t layers)
{
    if (watch)
        atomic_fetch_add_explicit(&watch->progress, layers, memory_order_relaxed);
}

/* Layer by layer, the host one ahead of the device. */
static int run_eager(const struct cuda *cuda, uint32_t count, uint32_t picked, uint32_t length_max,
                     struct exec_watch *watch)
{
    int rc = run_embed(cuda, count);
    for (uint32_t i = 0; !rc && i < cuda->model->layer_count; i++) {
        if (is_stopped(watch)) {
            rc = device_wait(&cuda->device);
            return rc ? rc : -ECANCELED;
        }
        rc = run_layer(cuda, i, count, length_max);
        if (!rc)
            rc = device_mark(&cuda->device, i % DEVICE_MARKS);
        if (!rc && i)
            rc = device_wait_mark(&cuda->device, (i - 1) % DEVICE_MARKS);
        add_progress(watch, 1);
    }
    return rc ? rc : run_logits(cuda, picked);
}

static int capture(const struct cuda *cuda, uint32_t count, uint32_t length_max,
                   struct device_graph **out)
{
    int rc = device_capture_begin(&cuda->device);
    if (rc)
        return rc;
    rc = run_embed(cuda, count);
    for (uint32_t i = 0; !rc && i < cuda->model->layer_count; i++)
        rc = run_layer(cuda, i, count, length_max);
    if (!rc)
        rc = run_logits(cuda, count);
    const int ended = device_capture_end(&cuda->device, out);
    return rc ? rc : ended;
}

/* The graph of so many columns of at most such a length, made when it is first needed. */
static int run_graph(struct cuda *cuda, uint32_t count, uint32_t length)
{
    uint32_t bucket = 0;
    while (bucket + 1 < CUDA_GRAPH_LENGTHS && length > OP_SPLIT_LEAST << bucket)
        bucket++;
    struct device_graph **graph = &cuda->graphs[count - 1][bucket];
    if (!*graph) {
        const int rc = capture(cuda, count, OP_SPLIT_LEAST << bucket, graph);
        if (rc)
            return rc;
    }
    return device_graph_launch(&cuda->device, *graph);
}

/* Rows to the device, and the pages' tables if they have changed. Returns the rows that want
 * logits. */
static int send_inputs(struct cuda *cuda, const struct exec_row *rows, uint32_t count,
                       uint32_t *picked, uint32_t *length)
{
    *picked = 0;
    *length = 0;
    for (uint32_t i = 0; i < count; i++) {
        cuda->inputs.rows[i] = (struct op_row){rows[i].slot, rows[i].position};
        cuda->inputs.tokens[i] = rows[i].token;
        if (rows[i].want_logits)
            cuda->inputs.picks[(*picked)++] = i;
        if (rows[i].position >= *length)
            *length = rows[i].position + 1;
    }
    int rc = device_copy(&cuda->device, cuda->inputs_copy, cuda->inputs_memory, cuda->inputs_bytes);
    if (!rc && cuda->pages.is_changed) {
        rc = device_copy(&cuda->device, cuda->tables, cuda->pages.tables,
                         (size_t)cuda->slots * cuda->pages.stride * sizeof(uint32_t));
        cuda->pages.is_changed = rc != 0;
    }
    return rc;
}

/* One row of each of its slots, all of which want logits. */
static bool is_decoding(const struct exec_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!rows[i].want_logits || (i && rows[i].slot == rows[i - 1].slot))
            return false;
    return count <= CUDA_GRAPH_COLUMNS;
}

int cuda_forward(exec_t *self, const struct exec_row *rows, size_t count,
                 const struct exec_out *out, struct exec_watch *watch)
{
    struct cuda *cuda = (struct cuda *)self;
    uint32_t picked;
    uint32_t length;
    if (count == 0 || count > cuda->batch_max)
        return -EINVAL;
    for (size_t i = 0; i < count; i++)
        if (rows[i].token >= cuda->model->vocab || rows[i].want_state ||
            (rows[i].want_logits && !out->logits))
            return -EINVAL;
    int rc = device_use(&cuda->device);
    if (!rc)
        rc = pages_take(&cuda->pages, rows, count);
    if (rc)
        return rc;
    rc = send_inputs(cuda, rows, (uint32_t)count, &picked, &length);
    if (!rc && is_stopped(watch)) {
        rc = device_wait(&cuda->device);
        rc = rc ? rc : -ECANCELED;
    } else if (!rc && is_decoding(rows, count)) {
        rc = run_graph(cuda, (uint32_t)count, length);
        add_progress(watch, cuda->model->layer_count);
    } else if (!rc) {
        rc = run_eager(cuda, (uint32_t)count, picked, length, watch);
    }
    if (!rc && picked)
        rc = device_copy(&cuda->device, out->logits, cuda->logits,
                         (size_t)picked * cuda->model->vocab * sizeof(float));
    if (!rc)
        rc = device_wait(&cuda->device);
    if (rc)
        pages_forget(&cuda->pages, rows, count);
    return rc;
}
