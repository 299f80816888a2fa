/* SPDX-License-Identifier: Apache-2.0 */
/* A forward pass over a batch of rows. The heavy parts (products, attention)
 * are split among the pool's threads by output row or by head; what lies between is small and done
 * by the caller's thread. With a shard (collective/shard.h) this is one of several ranks. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/collective/shard.h"
#include "kernels/cpu/heads.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/weights.h"

#define CPU_BATCH_DEFAULT 64u
#define CPU_BATCH_MAX     4096u
#define CPU_SLOTS_MAX     4096u

struct cpu {
    struct exec base; /* first: exec.h */
    const struct model *model;
    const struct shard *shard; /* NULL: alone */
    const struct cpu_kernels *kernels;
    struct pool *pool;
    uint32_t slots;
    uint32_t context;
    uint32_t batch_max;

    float *kv; /* [layer][key, value][kv head][page][position][head_width] */
    size_t kv_bytes;
    uint32_t pages;      /* of the cache */
    uint32_t slot_pages; /* that a slot's context takes */
    uint32_t *tables;    /* [slot][slot_pages] */
    uint32_t *positions; /* of each slot that its pages hold, at most `context` */
    uint32_t *used;      /* positions of each slot that hold something */

    float *work; /* one allocation for the buffers below, each batch_max rows */
    size_t work_bytes;
    float *x;             /* residual stream, width; a float behind it for shards */
    float *normed;        /* width */
    float *q;             /* heads * head_width */
    float *k;             /* kv heads * head_width */
    float *v;             /* kv heads * head_width */
    float *mixed;         /* what attention gives, as q */
    float *added;         /* what goes onto the stream, width; a float behind it for shards */
    float *gate;          /* ffn_width */
    float *up;            /* ffn_width */
    uint8_t *inputs;      /* what is multiplied next, quantised: packed_input_bytes() a row */
    uint8_t *gate_inputs; /* the same of gate * up, while `inputs` is still in use */
    float *angles;        /* cosines, then sines, rope_width / 2 each */
    float *scratch;       /* per thread, not per row */
    size_t scratch_stride;
    float *scores; /* per thread */
    size_t scores_stride;
    float *part_logits; /* shards: of this rank's rows of the vocabulary, a row each */
    float *gathered;    /* of all shards, one row */
    float *row_logits;  /* one row, whole */
    struct heads heads;
    struct weights weights;

    /* The step in hand. */
    const struct exec_row *rows;
    size_t count;
    uint32_t layer_index;
    const struct model_layer *layer;
    float *logits;
    const float *norm;        /* the next norm's weights */
    size_t norm_count;        /* its rows */
    struct exec_watch *watch; /* or NULL */
    bool agreed_stop;         /* all shards know of the stop */
};

struct span {
    uint32_t begin;
    uint32_t end;
};

static size_t page_floats(const struct cpu *cpu)
{
    return (size_t)EXEC_PAGE_TOKENS * cpu->model->head_width;
}

/* Page 0 of one head of one layer. */
static float *kv_base(const struct cpu *cpu, uint32_t layer, uint32_t is_value, uint32_t kv_head)
{
    const size_t index = ((size_t)layer * 2 + is_value) * cpu->model->kv_head_count + kv_head;
    return cpu->kv + index * cpu->pages * page_floats(cpu);
}

static const uint32_t *table_of(const struct cpu *cpu, uint32_t slot)
{
    return cpu->tables + (size_t)slot * cpu->slot_pages;
}

static struct cpu_rows kv_rows(const struct cpu *cpu, uint32_t slot, uint32_t is_value,
                               uint32_t kv_head)
{
    return (struct cpu_rows){kv_base(cpu, cpu->layer_index, is_value, kv_head), table_of(cpu, slot),
                             page_floats(cpu)};
}

/* Never becomes false again during a step: what one thread has left out because of it, all know. */
static bool is_stopped(const struct cpu *cpu)
{
    return cpu->watch && atomic_load_explicit(&cpu->watch->stop, memory_order_relaxed);
}

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
        if (is_stopped(cpu)) {
            memset(cpu->mixed + i * m->head_width, 0, (end - i) * m->head_width * sizeof(float));
            return;
        }
        const struct exec_row *row = &cpu->rows[i / m->head_count];
        const uint32_t kv_head = model_kv_head(m, (uint32_t)(i % m->head_count));
        const struct cpu_rows keys = kv_rows(cpu, row->slot, 0, kv_head);
        const struct cpu_rows values = kv_rows(cpu, row->slot, 1, kv_head);
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

static struct collective *team_of(const struct cpu *cpu)
{
    return cpu->shard ? cpu->shard->team : NULL;
}

/* Shards stop where all of them do: at the sum that tells them. */
static bool has_to_stop(const struct cpu *cpu)
{
    return team_of(cpu) ? cpu->agreed_stop : is_stopped(cpu);
}

/* What this rank adds to the stream becomes what all of its stage add; a stop goes with it. */
static int sum_added(struct cpu *cpu, size_t floats)
{
    cpu->added[floats] = is_stopped(cpu) ? 1.0f : 0.0f;
    const int rc = collective_allreduce(team_of(cpu), cpu->added, floats + 1);
    cpu->agreed_stop = rc == 0 && cpu->added[floats] > 0.0f;
    return rc;
}

static int add_rows(struct cpu *cpu)
{
    const size_t floats = cpu->count * cpu->model->width;
    const int rc = team_of(cpu) ? sum_added(cpu, floats) : 0;
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
        const uint32_t page = table_of(cpu, row->slot)[row->position / EXEC_PAGE_TOKENS];
        const size_t at = page * page_floats(cpu) + row->position % EXEC_PAGE_TOKENS * width;
        for (uint32_t h = 0; h < m->kv_head_count; h++) {
            memcpy(kv_base(cpu, cpu->layer_index, 0, h) + at, keys + h * width,
                   width * sizeof(*keys));
            memcpy(kv_base(cpu, cpu->layer_index, 1, h) + at, values + h * width,
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

static int run_stage(struct cpu *cpu)
{
    int rc = 0;
    cpu->agreed_stop = false;
    for (uint32_t l = 0; rc == 0 && l < cpu->model->layer_count; l++)
        rc = run_layer(cpu, l);
    return rc;
}

/* Stage after stage; behind each of them all ranks have the stream, or know of the stop. */
static int run_stages(struct cpu *cpu)
{
    const struct model_place *place = &cpu->shard->place;
    const size_t floats = cpu->count * cpu->model->width;
    int rc = 0;
    for (uint32_t stage = 0; rc == 0 && stage < place->stages; stage++) {
        if (stage == place->stage)
            rc = run_stage(cpu);
        else if (cpu->watch)
            atomic_fetch_add_explicit(&cpu->watch->progress, 1, memory_order_relaxed);
        if (rc && rc != -ECANCELED)
            break;
        cpu->x[floats] = rc ? 1.0f : 0.0f;
        rc = collective_broadcast(cpu->shard->line, cpu->x, (floats + 1) * sizeof(*cpu->x),
                                  stage * place->shards);
        if (rc == 0 && cpu->x[floats] > 0.0f)
            rc = -ECANCELED;
    }
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

static void run_logits(struct cpu *cpu, float *logits)
{
    cpu->logits = logits;
    if (cpu->norm_count == 0)
        return;
    run_rows(cpu, phase_norm);
    pool_run(cpu->pool, phase_logits, cpu);
}

/* Rows of the vocabulary that a shard has at most. */
static uint32_t part_rows_max(const struct cpu *cpu)
{
    const struct shard *s = cpu->shard;
    uint32_t most = 0;
    for (uint32_t r = 0; r < s->place.shards; r++) {
        const struct model_rows rows = model_vocab_rows(s->whole, r, s->place.shards);
        most = rows.end - rows.begin > most ? rows.end - rows.begin : most;
    }
    return most;
}

/* Row `index` of the logits, from all shards of the last stage. */
static int gather_row(struct cpu *cpu, size_t index)
{
    const struct shard *s = cpu->shard;
    const float *mine = cpu->part_logits + index * cpu->model->output.rows;
    const size_t most = part_rows_max(cpu);
    if (!s->team) {
        memcpy(cpu->row_logits, mine, cpu->model->vocab * sizeof(*mine));
        return 0;
    }
    const int rc = collective_allgather(s->team, mine, most * sizeof(*mine), cpu->gathered);
    for (uint32_t r = 0; rc == 0 && r < s->place.shards; r++) {
        const struct model_rows rows = model_vocab_rows(s->whole, r, s->place.shards);
        memcpy(cpu->row_logits + rows.begin, cpu->gathered + r * most,
               (rows.end - rows.begin) * sizeof(*mine));
    }
    return rc;
}

/* Logits from whoever has them; `logits` is NULL where nobody wants them. */
static int run_shared_logits(struct cpu *cpu, float *logits)
{
    const struct model_place *place = &cpu->shard->place;
    const size_t row_bytes = cpu->model->vocab * sizeof(*logits);
    const bool is_last = place->stage + 1 == place->stages;
    int rc = 0;
    if (is_last)
        run_logits(cpu, cpu->part_logits);
    for (size_t i = 0; rc == 0 && i < cpu->norm_count; i++) {
        rc = is_last ? gather_row(cpu, i) : 0;
        if (rc == 0 && cpu->shard->line)
            rc = collective_broadcast(cpu->shard->line, cpu->row_logits, row_bytes,
                                      (place->stages - 1) * place->shards);
        if (rc == 0 && logits)
            memcpy(logits + i * cpu->model->vocab, cpu->row_logits, row_bytes);
    }
    return rc;
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

/* Of several ranks only the first gives results. */
static bool gives_results(const struct cpu *cpu)
{
    return !cpu->shard || (cpu->shard->place.stage == 0 && cpu->shard->place.shard == 0);
}

static bool rows_are_valid(const struct cpu *cpu, const struct exec_row *rows, size_t count,
                           const struct exec_out *out)
{
    if (count == 0 || count > cpu->batch_max)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!row_is_valid(cpu, rows, i) ||
            (gives_results(cpu) &&
             ((rows[i].want_logits && !out->logits) || (rows[i].want_state && !out->states))))
            return false;
    return true;
}

static int cpu_forward(exec_t *self, const struct exec_row *rows, size_t count,
                       const struct exec_out *out, struct exec_watch *watch)
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
    const int rc = cpu->shard && cpu->shard->line ? run_stages(cpu) : run_stage(cpu);
    if (rc) {
        forget_rows(cpu);
        return rc;
    }
    copy_states(cpu, gives_results(cpu) ? out->states : NULL);
    pick_rows(cpu);
    if (cpu->shard)
        return run_shared_logits(cpu, gives_results(cpu) ? out->logits : NULL);
    run_logits(cpu, out->logits);
    return 0;
}

static int cpu_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count,
                     uint32_t used)
{
    struct cpu *cpu = (struct cpu *)self;
    if (slot >= cpu->slots || count > cpu->slot_pages || used > count * EXEC_PAGE_TOKENS)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++)
        if (pages[i] >= cpu->pages)
            return -EINVAL;
    memcpy(cpu->tables + (size_t)slot * cpu->slot_pages, pages, count * sizeof(*pages));
    const uint32_t positions = count * EXEC_PAGE_TOKENS;
    cpu->positions[slot] = positions < cpu->context ? positions : cpu->context;
    cpu->used[slot] = used;
    return 0;
}

/* A page outside: [layer][key, value][kv head][position][head_width], as it lies here but for the
 * other pages. */
static size_t page_bytes(const struct cpu *cpu)
{
    return (size_t)cpu->model->layer_count * 2 * cpu->model->kv_head_count * page_floats(cpu) *
           sizeof(float);
}

static int copy_page(struct cpu *cpu, uint32_t page, uint8_t *out, const uint8_t *in)
{
    const size_t bytes = page_floats(cpu) * sizeof(float);
    const size_t heads = (size_t)cpu->model->layer_count * 2 * cpu->model->kv_head_count;
    if (page >= cpu->pages)
        return -EINVAL;
    for (size_t i = 0; i < heads; i++) {
        float *at = cpu->kv + (i * cpu->pages + page) * page_floats(cpu);
        if (out)
            memcpy(out + i * bytes, at, bytes);
        else
            memcpy(at, in + i * bytes, bytes);
    }
    return 0;
}

static int cpu_page_out(exec_t *self, uint32_t page, void *out)
{
    return copy_page((struct cpu *)self, page, out, NULL);
}

static int cpu_page_in(exec_t *self, uint32_t page, const void *in)
{
    return copy_page((struct cpu *)self, page, NULL, in);
}

/* MemAvailable; 0 if the kernel does not say. */
static size_t available_bytes(void)
{
    char line[128];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            break;
    fclose(file);
    return (size_t)kib * 1024;
}

static void cpu_info(const exec_t *self, struct exec_info *out)
{
    const struct cpu *cpu = (const struct cpu *)self;
    *out = (struct exec_info){
        .backend = "cpu",
        .detail = cpu->kernels->name,
        .slots = cpu->slots,
        .context = cpu->context,
        .pages = cpu->pages,
        .batch_max = cpu->batch_max,
        .vocab = cpu->model->vocab,
        .width = cpu->model->width,
        .weight_bytes = cpu->model->weight_bytes,
        .kv_bytes = cpu->kv_bytes,
        .work_bytes = cpu->work_bytes + cpu->weights.memory_bytes,
        .free_bytes = available_bytes(),
        .page_bytes = page_bytes(cpu),
        /* Integers are the same bits everywhere (kernels.h); float32 follows the instructions. */
        .mode = cpu->kernels->quantise ? "cpu/fast" : NULL,
    };
}

static void cpu_destroy(exec_t *self)
{
    struct cpu *cpu = (struct cpu *)self;
    pool_destroy(cpu->pool);
    if (cpu->kv)
        munmap(cpu->kv, cpu->kv_bytes);
    free(cpu->used);
    free(cpu->tables);
    free(cpu->positions);
    free(cpu->work);
    heads_deinit(&cpu->heads);
    weights_deinit(&cpu->weights);
    free(cpu);
}

static size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

/* Lays the buffers out in one allocation: first with base NULL to find the size. */
static size_t lay_out(struct cpu *cpu, float *base)
{
    const struct model *m = cpu->model;
    const size_t attn = (size_t)m->head_count * m->head_width;
    const size_t kv = (size_t)m->kv_head_count * m->head_width;
    const size_t threads = pool_threads(cpu->pool);
    const size_t input_floats =
        packed_input_bytes(m->width > attn ? m->width : attn) / sizeof(float);
    const size_t gate_floats = packed_input_bytes(m->ffn_width) / sizeof(float);
    size_t longest = m->width > m->ffn_width ? m->width : m->ffn_width;
    longest = attn > longest ? attn : longest;
    cpu->scratch_stride = round_up(CPU_TILE_ROWS * longest, 16);
    cpu->scores_stride = round_up(cpu->context, 16);
    /* Room to read a whole share behind the last row. */
    const size_t share = cpu->shard ? part_rows_max(cpu) : 0;
    const size_t shares = cpu->shard ? cpu->shard->place.shards : 0;
    float *inputs = NULL;
    float *gate_inputs = NULL;
    const struct {
        float **at;
        size_t floats;
    } parts[] = {
        {&cpu->x, cpu->batch_max * (size_t)m->width + 1},
        {&cpu->normed, cpu->batch_max * (size_t)m->width},
        {&cpu->added, cpu->batch_max * (size_t)m->width + 1},
        {&cpu->q, cpu->batch_max * attn},
        {&cpu->mixed, cpu->batch_max * attn},
        {&cpu->k, cpu->batch_max * kv},
        {&cpu->v, cpu->batch_max * kv},
        {&cpu->gate, cpu->batch_max * (size_t)m->ffn_width},
        {&cpu->up, cpu->batch_max * (size_t)m->ffn_width},
        {&inputs, cpu->batch_max * input_floats},
        {&gate_inputs, cpu->batch_max * gate_floats},
        {&cpu->angles, cpu->batch_max * (size_t)m->rope_width},
        {&cpu->scratch, threads * cpu->scratch_stride},
        {&cpu->scores, threads * cpu->scores_stride},
        {&cpu->part_logits, cpu->shard ? cpu->batch_max * (size_t)m->output.rows + share : 0},
        {&cpu->gathered, share * shares},
        {&cpu->row_logits, cpu->shard ? m->vocab : 0},
    };
    size_t total = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (base)
            *parts[i].at = base + total;
        total += round_up(parts[i].floats, 16);
    }
    cpu->inputs = (uint8_t *)(void *)inputs;
    cpu->gate_inputs = (uint8_t *)(void *)gate_inputs;
    return total * sizeof(float);
}

/* Each slot to pages of its own, as far as there are any. */
static int place_all(struct cpu *cpu)
{
    cpu->tables = calloc((size_t)cpu->slots * cpu->slot_pages, sizeof(*cpu->tables));
    cpu->positions = calloc(cpu->slots, sizeof(*cpu->positions));
    if (!cpu->tables || !cpu->positions)
        return -ENOMEM;
    for (uint32_t s = 0; s < cpu->slots; s++) {
        for (uint32_t i = 0; i < cpu->slot_pages; i++)
            cpu->tables[(size_t)s * cpu->slot_pages + i] =
                (uint32_t)(((uint64_t)s * cpu->slot_pages + i) % cpu->pages);
        cpu->positions[s] = (uint64_t)(s + 1) * cpu->slot_pages <= cpu->pages ? cpu->context : 0;
    }
    return 0;
}

static int allocate(struct cpu *cpu)
{
    /* SIZE_MAX stands for too much and overflows or fails to map. */
    if (__builtin_mul_overflow(cpu_kv_slot_bytes(cpu->model, EXEC_PAGE_TOKENS), (size_t)cpu->pages,
                               &cpu->kv_bytes))
        return -ENOMEM;
    void *kv = mmap(NULL, cpu->kv_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (kv == MAP_FAILED)
        return -ENOMEM;
    cpu->kv = kv;
    cpu->used = calloc(cpu->slots, sizeof(*cpu->used));
    if (place_all(cpu))
        return -ENOMEM;
    cpu->work_bytes = lay_out(cpu, NULL);
    cpu->work = aligned_alloc(64, cpu->work_bytes);
    if (!cpu->used || !cpu->work)
        return -ENOMEM;
    (void)lay_out(cpu, cpu->work);
    int rc = heads_init(&cpu->heads, cpu->model, cpu->kernels);
    return rc ? rc : weights_init(&cpu->weights, cpu->model, cpu->kernels, cpu->pool);
}

size_t cpu_kv_slot_bytes(const struct model *model, uint32_t context)
{
    size_t bytes = (size_t)model->kv_head_count * model->head_width * 2 * sizeof(float);
    if (__builtin_mul_overflow(bytes, (size_t)model->layer_count, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)context, &bytes))
        return SIZE_MAX;
    return bytes;
}

static const struct exec_ops cpu_ops = {
    .forward = cpu_forward,
    .place = cpu_place,
    .page_out = cpu_page_out,
    .page_in = cpu_page_in,
    .info = cpu_info,
    .destroy = cpu_destroy,
};

int cpu_create(exec_t **out, const struct model *model, const struct cpu_options *options)
{
    *out = NULL;
    struct cpu *cpu = calloc(1, sizeof(*cpu));
    if (!cpu)
        return -ENOMEM;
    cpu->base.ops = &cpu_ops;
    cpu->model = model;
    cpu->shard = options->shard;
    cpu->kernels = cpu_kernels_select(options->force_portable, options->exact);
    cpu->slots = options->slots ? options->slots : 1;
    cpu->context = options->context;
    if (cpu->context == 0 || cpu->context > model->context)
        cpu->context = model->context;
    cpu->slot_pages = cpu->context / EXEC_PAGE_TOKENS + (cpu->context % EXEC_PAGE_TOKENS != 0);
    cpu->pages = options->pages ? options->pages : cpu->slots * cpu->slot_pages;
    cpu->batch_max = options->batch_max ? options->batch_max : CPU_BATCH_DEFAULT;
    int rc = -EINVAL;
    if (cpu->slots <= CPU_SLOTS_MAX && cpu->batch_max <= CPU_BATCH_MAX &&
        cpu->pages >= cpu->slot_pages)
        rc = pool_create(&cpu->pool, options->threads ? options->threads : 1);
    if (!rc)
        rc = allocate(cpu);
    if (rc) {
        cpu_destroy(&cpu->base);
        return rc;
    }
    *out = &cpu->base;
    return 0;
}
