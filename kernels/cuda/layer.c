/* SPDX-License-Identifier: Apache-2.0 */
/* What a step of the CUDA backend is made of: the operations of a layer, for columns that go the
 * fast way and for the others, and what ranks add up. Only puts work on the stream. */
#include <math.h>

#include "kernels/cuda/backend.h"

/* Columns of a step, one after the other. */
struct span {
    uint32_t first;
    uint32_t count;
};

static struct span fast_of(const struct cuda_step *step)
{
    return (struct span){0, step->fast};
}

static struct span exact_of(const struct cuda_step *step)
{
    return (struct span){step->fast, step->count - step->fast};
}

/* `width` floats a column. */
static float *at(float *columns, struct span span, uint32_t width)
{
    return columns + (size_t)span.first * width;
}

static struct kv_view view_of(const struct cuda *cuda, uint32_t layer)
{
    const struct model *m = cuda->model;
    return (struct kv_view){
        .pages = cuda->kv + layer * cuda->kv_layer_bytes,
        .tables = cuda->tables,
        .table_stride = cuda->pages.stride,
        .kv_heads = m->kv_head_count,
        .head_group = m->head_group,
        .head_skip = m->head_skip,
        .head_width = m->head_width,
        .is_half = cuda->half_kv,
    };
}

/* Ranks add what they have to the stream of the first one. */
static enum op_mode onto_stream(const struct cuda *cuda)
{
    return cuda_gives_results(cuda) ? OP_ADD : OP_STORE;
}

int cuda_run_embed(const struct cuda *cuda, const struct cuda_step *step)
{
    const struct embed_args op = {.w = cuda->embedding,
                                  .tokens = cuda->inputs_dev.tokens,
                                  .count = step->count,
                                  .out = cuda->x};
    return op_embed(&cuda->device, &op);
}

/* ---- products of the fast way: norm, then 16-bit numbers ---------------------------------------
 */

static int fast_norm(const struct cuda *cuda, const float *weight, struct span span)
{
    const uint32_t width = cuda->model->width;
    const struct norm_args op = {.x = at(cuda->x, span, width),
                                 .weight = weight,
                                 .out = cuda->fast_normed,
                                 .epsilon = cuda->model->norm_epsilon,
                                 .width = width,
                                 .count = span.count,
                                 .out_stride = cuda_number_stride(width),
                                 .number = cuda->number};
    return op_norm(&cuda->device, &op);
}

static struct matvec_part part(struct weights w, const float *bias, float *y, struct span span)
{
    return (struct matvec_part){.w = w, .bias = bias, .y = at(y, span, w.rows), .y_stride = w.rows};
}

/* Each part by whom it was given to (choose.c). */
static int fast_product(const struct cuda *cuda, const struct gemm_args *op)
{
    struct gemm_args own = *op;
    int rc = 0;
    own.part_count = 0;
    for (uint32_t p = 0; !rc && p < op->part_count; p++) {
        if (cuda_is_librarys(cuda, &op->parts[p], op->columns))
            rc = cuda_library_product(cuda, op, &op->parts[p]);
        else
            own.parts[own.part_count++] = op->parts[p];
    }
    return rc || own.part_count == 0 ? rc : op_gemm(&cuda->device, &own);
}

static int fast_qkv(const struct cuda *cuda, const struct cuda_layer *l, struct span span)
{
    const struct gemm_args op = {.x = cuda->fast_normed,
                                 .x_stride = cuda_number_stride(l->q.cols),
                                 .columns = span.count,
                                 .part_count = 3,
                                 .number = cuda->number,
                                 .parts = {part(l->q, l->q_bias, cuda->q, span),
                                           part(l->k, l->k_bias, cuda->k, span),
                                           part(l->v, l->v_bias, cuda->v, span)}};
    const int rc = fast_norm(cuda, l->attn_norm, span);
    return rc ? rc : fast_product(cuda, &op);
}

/* x times the matrix onto the stream. */
static int fast_out(const struct cuda *cuda, const uint16_t *x, const struct weights *w,
                    struct span span)
{
    const struct gemm_args op = {.x = x,
                                 .x_stride = cuda_number_stride(w->cols),
                                 .columns = span.count,
                                 .part_count = 1,
                                 .mode = onto_stream(cuda),
                                 .number = cuda->number,
                                 .parts = {part(*w, NULL, cuda->x, span)}};
    return fast_product(cuda, &op);
}

static int fast_mlp(const struct cuda *cuda, const struct cuda_layer *l, struct span span)
{
    const struct matvec_part gate = part(l->gate, NULL, cuda->gate, span);
    const struct matvec_part up = part(l->up, NULL, cuda->up, span);
    const bool joined = l->gate.type == l->up.type && !cuda_is_librarys(cuda, &gate, span.count) &&
                        !cuda_is_librarys(cuda, &up, span.count);
    const struct gemm_args in = {.x = cuda->fast_normed,
                                 .made = cuda->fast_gate,
                                 .x_stride = cuda_number_stride(l->gate.cols),
                                 .made_stride = cuda_number_stride(l->gate.rows),
                                 .columns = span.count,
                                 .part_count = 2,
                                 .mode = joined ? OP_SWIGLU : OP_STORE,
                                 .number = cuda->number,
                                 .parts = {gate, up}};
    const struct swiglu_args apart = {.gate = gate.y,
                                      .up = up.y,
                                      .out = cuda->fast_gate,
                                      .width = l->gate.rows,
                                      .columns = span.count,
                                      .out_stride = in.made_stride,
                                      .number = cuda->number};
    int rc = fast_norm(cuda, l->ffn_norm, span);
    if (!rc)
        rc = joined ? op_gemm(&cuda->device, &in) : fast_product(cuda, &in);
    if (!rc && !joined)
        rc = op_swiglu(&cuda->device, &apart);
    return rc ? rc : fast_out(cuda, cuda->fast_gate, &l->down, span);
}

/* ---- the same in float32 ----------------------------------------------------------------------
 */

static int exact_qkv(const struct cuda *cuda, const struct cuda_layer *l, struct span span)
{
    const struct matvec_args op = {.x = at(cuda->x, span, cuda->model->width),
                                   .norm = l->attn_norm,
                                   .epsilon = cuda->model->norm_epsilon,
                                   .x_stride = cuda->model->width,
                                   .columns = span.count,
                                   .part_count = 3,
                                   .parts = {part(l->q, l->q_bias, cuda->q, span),
                                             part(l->k, l->k_bias, cuda->k, span),
                                             part(l->v, l->v_bias, cuda->v, span)}};
    return op_matvec(&cuda->device, &op);
}

/* x, `w.cols` floats a column, times the matrix onto the stream. */
static int exact_out(const struct cuda *cuda, float *x, const struct weights *w, struct span span)
{
    const struct matvec_args op = {.x = at(x, span, w->cols),
                                   .x_stride = w->cols,
                                   .columns = span.count,
                                   .part_count = 1,
                                   .mode = onto_stream(cuda),
                                   .parts = {part(*w, NULL, cuda->x, span)}};
    return op_matvec(&cuda->device, &op);
}

static int exact_mlp(const struct cuda *cuda, const struct cuda_layer *l, struct span span)
{
    const bool joined = l->gate.type == l->up.type;
    const struct matvec_args in = {
        .x = at(cuda->x, span, cuda->model->width),
        .norm = l->ffn_norm,
        .epsilon = cuda->model->norm_epsilon,
        .x_stride = cuda->model->width,
        .columns = span.count,
        .part_count = 2,
        .mode = joined ? OP_SWIGLU : OP_STORE,
        .parts = {part(l->gate, NULL, cuda->gate, span), part(l->up, NULL, cuda->up, span)}};
    const struct swiglu_args apart = {.gate = in.parts[0].y,
                                      .up = in.parts[1].y,
                                      .out = in.parts[0].y,
                                      .width = l->gate.rows,
                                      .columns = span.count,
                                      .out_stride = l->gate.rows};
    int rc = op_matvec(&cuda->device, &in);
    if (!rc && !joined)
        rc = op_swiglu(&cuda->device, &apart);
    return rc ? rc : exact_out(cuda, cuda->gate, &l->down, span);
}

/* ---- attention --------------------------------------------------------------------------------
 */

static int run_rope(const struct cuda *cuda, uint32_t index, const struct cuda_step *step)
{
    const struct model *m = cuda->model;
    const struct cuda_layer *l = &cuda->layers[index];
    const struct rope_args op = {.q = cuda->q,
                                 .k = cuda->k,
                                 .v = cuda->v,
                                 .q_norm = l->q_norm,
                                 .k_norm = l->k_norm,
                                 .angles = cuda->angles,
                                 .rows = cuda->inputs_dev.rows,
                                 .kv = view_of(cuda, index),
                                 .epsilon = m->norm_epsilon,
                                 .count = step->count,
                                 .heads = m->head_count,
                                 .rope_pairs = m->rope_width / 2,
                                 .is_halves = m->rope.is_halves};
    return op_rope(&cuda->device, &op);
}

static int fast_attend(const struct cuda *cuda, uint32_t index, const struct cuda_step *step)
{
    const struct model *m = cuda->model;
    const uint32_t width = m->head_count * m->head_width;
    const struct prefill_args op = {.q = cuda->q,
                                    .out = cuda->fast_mixed,
                                    .rows = cuda->inputs_dev.rows,
                                    .tiles = cuda->inputs_dev.tiles,
                                    .kv = view_of(cuda, index),
                                    .scale = 1.0f / sqrtf((float)m->head_width),
                                    .tile_count = step->tiles,
                                    .heads = m->head_count,
                                    .out_stride = cuda_number_stride(width),
                                    .number = cuda->number};
    return op_prefill(&cuda->device, &op);
}

static int attend_some(const struct cuda *cuda, uint32_t index, const struct cuda_step *step,
                       struct span span)
{
    const struct model *m = cuda->model;
    const uint32_t width = m->head_count * m->head_width;
    const struct attend_args op = {.q = at(cuda->q, span, width),
                                   .out = at(cuda->mixed, span, width),
                                   .partial = cuda->partial,
                                   .rows = cuda->inputs_dev.rows + span.first,
                                   .kv = view_of(cuda, index),
                                   .scale = 1.0f / sqrtf((float)m->head_width),
                                   .count = span.count,
                                   .heads = m->head_count,
                                   .length_max = step->length};
    return op_attend(&cuda->device, &op);
}

/* As many at a time as there is memory for splits. */
static int exact_attend(const struct cuda *cuda, uint32_t index, const struct cuda_step *step)
{
    const struct span all = exact_of(step);
    int rc = 0;
    for (uint32_t done = 0; !rc && done < all.count; done += CUDA_ATTEND_COLUMNS) {
        const uint32_t left = all.count - done;
        const struct span some = {all.first + done,
                                  left < CUDA_ATTEND_COLUMNS ? left : CUDA_ATTEND_COLUMNS};
        rc = attend_some(cuda, index, step, some);
    }
    return rc;
}

/* Queries, keys and values of all columns are in the cache before any of them attends. */
static int run_attention(const struct cuda *cuda, uint32_t index, const struct cuda_step *step)
{
    const struct cuda_layer *l = &cuda->layers[index];
    int rc = step->fast ? fast_qkv(cuda, l, fast_of(step)) : 0;
    if (!rc && exact_of(step).count)
        rc = exact_qkv(cuda, l, exact_of(step));
    if (!rc)
        rc = run_rope(cuda, index, step);
    if (!rc && step->fast)
        rc = fast_attend(cuda, index, step);
    if (!rc && exact_of(step).count)
        rc = exact_attend(cuda, index, step);
    if (!rc && step->fast)
        rc = fast_out(cuda, cuda->fast_mixed, &l->o, fast_of(step));
    if (!rc && exact_of(step).count)
        rc = exact_out(cuda, cuda->mixed, &l->o, exact_of(step));
    return rc;
}

static int run_mlp(const struct cuda *cuda, const struct cuda_layer *l,
                   const struct cuda_step *step)
{
    int rc = step->fast ? fast_mlp(cuda, l, fast_of(step)) : 0;
    if (!rc && exact_of(step).count)
        rc = exact_mlp(cuda, l, exact_of(step));
    return rc;
}

/* ---- ranks ------------------------------------------------------------------------------------
 */

/* The stream becomes the sum of all ranks'. */
static int join_stream(const struct cuda *cuda, const struct cuda_step *step)
{
    return cuda_team(cuda) ? collective_allreduce(cuda_team(cuda), cuda->x,
                                                  (size_t)step->count * cuda->model->width)
                           : 0;
}

/* The same, and whether any rank wants to stop. */
static int join_with_stop(const struct cuda *cuda, const struct cuda_step *step,
                          struct cuda_stop *stop)
{
    const size_t floats = (size_t)step->count * cuda->model->width;
    if (!stop || !cuda_team(cuda))
        return join_stream(cuda, step);
    int rc = device_copy(&cuda->device, cuda->x + floats, &stop->mine, sizeof(stop->mine));
    if (!rc)
        rc = collective_allreduce(cuda_team(cuda), cuda->x, floats + 1);
    return rc ? rc : device_copy(&cuda->device, &stop->all, cuda->x + floats, sizeof(stop->all));
}

int cuda_run_layer(const struct cuda *cuda, uint32_t index, const struct cuda_step *step,
                   struct cuda_stop *stop)
{
    int rc = run_attention(cuda, index, step);
    if (!rc)
        rc = join_stream(cuda, step);
    if (!rc)
        rc = run_mlp(cuda, &cuda->layers[index], step);
    return rc ? rc : join_with_stop(cuda, step, stop);
}

/* ---- what comes out ---------------------------------------------------------------------------
 */

int cuda_run_logits(const struct cuda *cuda, uint32_t first, uint32_t count)
{
    const struct matvec_args op = {
        .x = cuda->x,
        .x_rows = cuda->inputs_dev.picks + first,
        .norm = cuda->output_norm,
        .epsilon = cuda->model->norm_epsilon,
        .x_stride = cuda->model->width,
        .columns = count,
        .part_count = 1,
        .parts = {{.w = cuda->output, .y = cuda->logits, .y_stride = cuda->vocab_rows}}};
    const int rc = op_matvec(&cuda->device, &op);
    if (rc || !cuda_team(cuda))
        return rc;
    return collective_allgather(cuda_team(cuda), cuda->logits,
                                (size_t)count * cuda->vocab_rows * sizeof(float), cuda->all_logits);
}

int cuda_run_states(const struct cuda *cuda, const struct cuda_step *step)
{
    const struct norm_args op = {.x = cuda->x,
                                 .x_rows = cuda->inputs_dev.state_picks,
                                 .weight = cuda->output_norm,
                                 .out = cuda->states,
                                 .epsilon = cuda->model->norm_epsilon,
                                 .width = cuda->model->width,
                                 .count = step->states,
                                 .out_stride = cuda->model->width};
    return step->states ? op_norm(&cuda->device, &op) : 0;
}
