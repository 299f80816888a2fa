/* SPDX-License-Identifier: Apache-2.0 */
/* A forward pass over a batch of rows. The heavy parts (products, attention) are split among the
 * pool's threads by output row or by head; what lies between is small and done by the caller's
 * thread. See cpu_impl.h. */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu_impl.h"

struct span {
    uint32_t begin;
    uint32_t end;
};

/* Part `index` of `total` things, in whole units. */
static struct span part_of(uint64_t total, uint64_t unit, uint32_t index, uint32_t threads)
{
    const uint64_t units = (total + unit - 1) / unit;
    const uint64_t end = units * (index + 1) / threads * unit;
    return (struct span){(uint32_t)(units * index / threads * unit),
                         (uint32_t)(end < total ? end : total)};
}

/* Rows [span) of a product over the batch's first `count` rows. Packed matrices take `inputs`, with
 * spans of whole panels, others `x`. */
static void multiply(struct cpu *cpu, const struct matrix *w, struct span span, const float *x,
                     const uint8_t *inputs, size_t count, float *y, uint32_t index)
{
    const size_t cols = w->plain->cols;
    const size_t rows = w->plain->rows;
    if (span.begin >= span.end)
        return;
    if (w->packed.data)
        cpu->kernels->packed(&w->packed, span.begin / PACKED_ROWS,
                             (span.end + PACKED_ROWS - 1) / PACKED_ROWS, inputs,
                             packed_input_bytes(cols), count, y, rows);
    else
        cpu->kernels->matmul(w->plain, span.begin, span.end, x, cols, count, y, rows,
                             cpu->scratch + index * cpu->scratch_stride);
}

/* This thread's share of a product. */
static void share(struct cpu *cpu, const struct matrix *w, const float *x, size_t count, float *y,
                  uint32_t index, uint32_t threads)
{
    multiply(cpu, w, part_of(w->plain->rows, PACKED_ROWS, index, threads), x, cpu->inputs, count, y,
             index);
}

static const struct matrix *layer_matrix(const struct cpu *cpu, enum weights_of_layer which)
{
    return weights_at(&cpu->weights, cpu->layer_index, which);
}

/* Columns [begin, end) of one row of activations for packed matrices. */
static void quantise(const struct cpu *cpu, const float *x, size_t cols, struct span span,
                     uint8_t *inputs, size_t row)
{
    if (cpu->kernels->quantise && cols % PACKED_GROUP == 0)
        cpu->kernels->quantise(x + row * cols, cols, span.begin, span.end,
                               inputs + row * packed_input_bytes(cols));
}

/* Something for each row: by all threads, or at once here if that is not worth waking them. */
static void run_rows(struct cpu *cpu, pool_fn fn)
{
    if (cpu->count == 1)
        fn(cpu, 0, 1);
    else
        pool_run(cpu->pool, fn, cpu);
}

static void phase_norm(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const struct model *m = cpu->model;
    const struct span rows = part_of(cpu->norm_count, 1, index, threads);
    for (size_t i = rows.begin; i < rows.end; i++) {
        cpu->kernels->rms_norm(cpu->x + i * m->width, cpu->norm, m->width, m->norm_epsilon,
                               cpu->normed + i * m->width);
        quantise(cpu, cpu->normed, m->width, (struct span){0, m->width}, cpu->inputs, i);
    }
}

static void phase_qkv(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, layer_matrix(cpu, WEIGHTS_Q), cpu->normed, cpu->count, cpu->q, index, threads);
    share(cpu, layer_matrix(cpu, WEIGHTS_K), cpu->normed, cpu->count, cpu->k, index, threads);
    share(cpu, layer_matrix(cpu, WEIGHTS_V), cpu->normed, cpu->count, cpu->v, index, threads);
}

static void phase_attend(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const struct model *m = cpu->model;
    const float scale = 1.0f / sqrtf((float)m->head_width);
    const size_t items = cpu->count * m->head_count;
    /* Behind a long prompt this is most of a layer, so it looks for the stop by itself. */
    const size_t end = items * (index + 1) / threads;
    for (size_t i = items * index / threads; i < end; i++) {
        if (cpu_is_stopped(cpu)) {
            memset(cpu->mixed + i * m->head_width, 0, (end - i) * m->head_width * sizeof(float));
            return;
        }
        const struct exec_row *row = &cpu->rows[i / m->head_count];
        const uint32_t kv_head = model_kv_head(m, (uint32_t)(i % m->head_count));
        const struct cpu_rows keys = cpu_kv_rows(cpu, row->slot, 0, kv_head);
        const struct cpu_rows values = cpu_kv_rows(cpu, row->slot, 1, kv_head);
        cpu->kernels->attend(cpu->q + i * m->head_width, &keys, &values, (size_t)row->position + 1,
                             m->head_width, scale, cpu->scores + index * cpu->scores_stride,
                             cpu->mixed + i * m->head_width);
    }
}

static void phase_mixed(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const uint32_t width = cpu->model->head_count * cpu->model->head_width;
    const struct span rows = part_of(cpu->count, 1, index, threads);
    for (size_t i = rows.begin; i < rows.end; i++)
        quantise(cpu, cpu->mixed, width, (struct span){0, width}, cpu->inputs, i);
}

static void phase_attn_out(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, layer_matrix(cpu, WEIGHTS_O), cpu->mixed, cpu->count, cpu->added, index, threads);
}

/* The same part of gate and up, so that what follows needs no other thread's. */
static void phase_gate_up(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const uint32_t width = cpu->model->ffn_width;
    const struct span span = part_of(width, PACKED_GROUP, index, threads);
    if (span.begin >= span.end)
        return;
    multiply(cpu, layer_matrix(cpu, WEIGHTS_GATE), span, cpu->normed, cpu->inputs, cpu->count,
             cpu->gate, index);
    multiply(cpu, layer_matrix(cpu, WEIGHTS_UP), span, cpu->normed, cpu->inputs, cpu->count,
             cpu->up, index);
    for (size_t i = 0; i < cpu->count; i++) {
        cpu->kernels->swiglu(cpu->gate + i * width + span.begin, cpu->up + i * width + span.begin,
                             span.end - span.begin);
        quantise(cpu, cpu->gate, width, span, cpu->gate_inputs, i);
    }
}

static void phase_down(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const struct matrix *w = layer_matrix(cpu, WEIGHTS_DOWN);
    multiply(cpu, w, part_of(w->plain->rows, PACKED_ROWS, index, threads), cpu->gate,
             cpu->gate_inputs, cpu->count, cpu->added, index);
}

static void phase_logits(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, weights_output(&cpu->weights), cpu->normed, cpu->norm_count, cpu->logits, index,
          threads);
}

static void norm_rows(struct cpu *cpu, const struct model_tensor *weight)
{
    cpu->norm = (const float *)(const void *)weight->data;
    cpu->norm_count = cpu->count;
    run_rows(cpu, phase_norm);
}

/* Shards stop where all of them do: at the sum that tells them. */
static bool has_to_stop(const struct cpu *cpu)
{
    return cpu_team(cpu) ? cpu->agreed_stop : cpu_is_stopped(cpu);
}

static int add_rows(struct cpu *cpu)
{
    const size_t floats = cpu->count * cpu->model->width;
    const int rc = cpu_team(cpu) ? cpu_ranks_sum(cpu, floats) : 0;
    for (size_t i = 0; rc == 0 && i < floats; i++)
        cpu->x[i] += cpu->added[i];
    return rc;
}

static void find_angles(struct cpu *cpu)
{
    for (size_t i = 0; i < cpu->count; i++)
        heads_angles(&cpu->heads, cpu->rows[i].position, cpu->angles + i * cpu->model->rope_width);
}

/* Makes queries and keys ready, and puts keys and values into the cache. */
static void phase_place(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const struct model *m = cpu->model;
    const size_t width = m->head_width;
    const struct span rows = part_of(cpu->count, 1, index, threads);
    for (size_t i = rows.begin; i < rows.end; i++) {
        const struct exec_row *row = &cpu->rows[i];
        float *keys = cpu->k + i * m->kv_head_count * width;
        float *values = cpu->v + i * m->kv_head_count * width;
        heads_prepare(&cpu->heads, cpu->layer, cpu->angles + i * m->rope_width,
                      cpu->q + i * m->head_count * width, keys, values);
        const uint32_t page = cpu_table(cpu, row->slot)[row->position / EXEC_PAGE_TOKENS];
        const size_t at = page * cpu_page_floats(cpu) + row->position % EXEC_PAGE_TOKENS * width;
        for (uint32_t h = 0; h < m->kv_head_count; h++) {
            memcpy(cpu_kv_base(cpu, cpu->layer_index, 0, h) + at, keys + h * width,
                   width * sizeof(*keys));
            memcpy(cpu_kv_base(cpu, cpu->layer_index, 1, h) + at, values + h * width,
                   width * sizeof(*values));
        }
    }
}

/* Unless it returns 0 the stream is not worth anything. */
static int run_layer(struct cpu *cpu, uint32_t index)
{
    cpu->layer_index = index;
    cpu->layer = &cpu->model->layers[index];
    if (has_to_stop(cpu))
        return -ECANCELED;
    norm_rows(cpu, &cpu->layer->attn_norm);
    pool_run(cpu->pool, phase_qkv, cpu);
    run_rows(cpu, phase_place);
    pool_run(cpu->pool, phase_attend, cpu);
    if (has_to_stop(cpu))
        return -ECANCELED;
    run_rows(cpu, phase_mixed);
    pool_run(cpu->pool, phase_attn_out, cpu);
    int rc = add_rows(cpu);
    if (rc || has_to_stop(cpu))
        return rc ? rc : -ECANCELED;
    norm_rows(cpu, &cpu->layer->ffn_norm);
    pool_run(cpu->pool, phase_gate_up, cpu);
    if (has_to_stop(cpu))
        return -ECANCELED;
    pool_run(cpu->pool, phase_down, cpu);
    rc = add_rows(cpu);
    if (cpu->watch)
        atomic_fetch_add_explicit(&cpu->watch->progress, 1, memory_order_relaxed);
    return rc;
}

int cpu_run_stage(struct cpu *cpu)
{
    int rc = 0;
    cpu->agreed_stop = false;
    for (uint32_t l = 0; rc == 0 && l < cpu->model->layer_count; l++)
        rc = run_layer(cpu, l);
    return rc;
}

/* Layers above the stop have not seen the batch's rows: its slots must not count them. */
static void forget_rows(struct cpu *cpu)
{
    for (size_t i = cpu->count; i-- > 0;)
        cpu->used[cpu->rows[i].slot] = cpu->rows[i].position;
}

static void copy_states(const struct cpu *cpu, float *states)
{
    const struct model *m = cpu->model;
    const float *norm = (const float *)(const void *)m->output_norm.data;
    for (size_t i = 0; states && i < cpu->count; i++) {
        if (!cpu->rows[i].want_state)
            continue;
        cpu->kernels->rms_norm(cpu->x + i * m->width, norm, m->width, m->norm_epsilon, states);
        states += m->width;
    }
}

/* Rows that want logits move up to the front of the stream. */
static void pick_rows(struct cpu *cpu)
{
    const struct model *m = cpu->model;
    cpu->norm = (const float *)(const void *)m->output_norm.data;
    cpu->norm_count = 0;
    for (size_t i = 0; i < cpu->count; i++)
        if (cpu->rows[i].want_logits)
            memmove(cpu->x + cpu->norm_count++ * m->width, cpu->x + i * m->width,
                    m->width * sizeof(*cpu->x));
}

void cpu_run_logits(struct cpu *cpu, float *logits)
{
    cpu->logits = logits;
    if (cpu->norm_count == 0)
        return;
    run_rows(cpu, phase_norm);
    pool_run(cpu->pool, phase_logits, cpu);
}

static bool row_is_valid(const struct cpu *cpu, const struct exec_row *rows, size_t i)
{
    const struct exec_row *row = &rows[i];
    if (row->slot >= cpu->slots || row->position >= cpu->positions[row->slot] ||
        row->token >= cpu->model->vocab)
        return false;
    if (i && rows[i - 1].slot == row->slot)
        return row->position == rows[i - 1].position + 1;
    for (size_t j = 0; j < i; j++)
        if (rows[j].slot == row->slot)
            return false; /* a slot's rows are not together */
    return row->position <= cpu->used[row->slot];
}

static bool rows_are_valid(const struct cpu *cpu, const struct exec_row *rows, size_t count,
                           const struct exec_out *out)
{
    if (count == 0 || count > cpu->batch_max)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!row_is_valid(cpu, rows, i) ||
            (cpu_ranks_answers(cpu) &&
             ((rows[i].want_logits && !out->logits) || (rows[i].want_state && !out->states))))
            return false;
    return true;
}

int cpu_forward(exec_t *self, const struct exec_row *rows, size_t count, const struct exec_out *out,
                struct exec_watch *watch)
{
    struct cpu *cpu = (struct cpu *)self;
    const struct model *m = cpu->model;
    if (!rows_are_valid(cpu, rows, count, out))
        return -EINVAL;
    cpu->rows = rows;
    cpu->count = count;
    cpu->watch = watch;
    for (size_t i = 0; i < count; i++) {
        cpu->kernels->expand(m->embedding.type,
                             m->embedding.data + rows[i].token * m->embedding.row_bytes, m->width,
                             cpu->x + i * m->width);
        cpu->used[rows[i].slot] = rows[i].position + 1;
    }
    find_angles(cpu);
    const int rc = cpu->shard && cpu->shard->line ? cpu_ranks_forward(cpu) : cpu_run_stage(cpu);
    if (rc) {
        forget_rows(cpu);
        return rc;
    }
    copy_states(cpu, cpu_ranks_answers(cpu) ? out->states : NULL);
    pick_rows(cpu);
    if (cpu->shard)
        return cpu_ranks_logits(cpu, cpu_ranks_answers(cpu) ? out->logits : NULL);
    cpu_run_logits(cpu, out->logits);
    return 0;
}
