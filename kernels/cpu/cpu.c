/* SPDX-License-Identifier: Apache-2.0 */
/* A forward pass over a batch of rows. The heavy parts (products, attention)
 * are split among the pool's threads by output row or by head; what lies between is small and done
 * by the caller's thread. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/heads.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/pool.h"

#define CPU_BATCH_DEFAULT 64u
#define CPU_BATCH_MAX     4096u
#define CPU_SLOTS_MAX     4096u

struct cpu {
    struct exec base; /* first: exec.h */
    const struct model *model;
    const struct cpu_kernels *kernels;
    struct pool *pool;
    uint32_t slots;
    uint32_t context;
    uint32_t batch_max;

    float *kv; /* [slot][layer][key, value][kv head][position][head_width] */
    size_t kv_bytes;
    uint32_t *used; /* positions of each slot that hold something */

    float *work; /* one allocation for the buffers below, each batch_max rows */
    size_t work_bytes;
    float *x;       /* residual stream, width */
    float *normed;  /* width */
    float *q;       /* heads * head_width */
    float *k;       /* kv heads * head_width */
    float *v;       /* kv heads * head_width */
    float *mixed;   /* what attention gives, as q */
    float *added;   /* what goes onto the stream, width */
    float *gate;    /* ffn_width */
    float *up;      /* ffn_width */
    float *angles;  /* cosines, then sines, rope_width / 2 each */
    float *scratch; /* per thread, not per row */
    size_t scratch_stride;
    float *scores; /* per thread */
    size_t scores_stride;
    struct heads heads;

    /* The step in hand. */
    const struct exec_row *rows;
    size_t count;
    uint32_t layer_index;
    const struct model_layer *layer;
    float *logits;
    size_t logits_count;
    struct exec_watch *watch; /* or NULL */
};

static float *kv_base(const struct cpu *cpu, uint32_t slot, uint32_t layer, uint32_t is_value,
                      uint32_t kv_head)
{
    const struct model *m = cpu->model;
    size_t index = ((size_t)slot * m->layer_count + layer) * 2 + is_value;
    index = index * m->kv_head_count + kv_head;
    return cpu->kv + index * cpu->context * m->head_width;
}

/* Never becomes false again during a step: what one thread has left out because of it, all know. */
static bool is_stopped(const struct cpu *cpu)
{
    return cpu->watch && atomic_load_explicit(&cpu->watch->stop, memory_order_relaxed);
}

/* This thread's share of a product over all rows of the batch. */
static void share(struct cpu *cpu, const struct model_tensor *w, const float *x, size_t count,
                  float *y, uint32_t index, uint32_t threads)
{
    const uint64_t tiles = (w->rows + CPU_TILE_ROWS - 1) / CPU_TILE_ROWS;
    const uint32_t begin = (uint32_t)(tiles * index / threads) * CPU_TILE_ROWS;
    uint32_t end = (uint32_t)(tiles * (index + 1) / threads) * CPU_TILE_ROWS;
    if (end > w->rows)
        end = w->rows;
    if (begin < end)
        cpu->kernels->matmul(w, begin, end, x, w->cols, count, y, w->rows,
                             cpu->scratch + index * cpu->scratch_stride);
}

static void phase_qkv(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, &cpu->layer->q, cpu->normed, cpu->count, cpu->q, index, threads);
    share(cpu, &cpu->layer->k, cpu->normed, cpu->count, cpu->k, index, threads);
    share(cpu, &cpu->layer->v, cpu->normed, cpu->count, cpu->v, index, threads);
}

static void phase_attend(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const struct model *m = cpu->model;
    const uint32_t group = m->head_count / m->kv_head_count;
    const float scale = 1.0f / sqrtf((float)m->head_width);
    const size_t items = cpu->count * m->head_count;
    /* Behind a long prompt this is most of a layer, so it looks for the stop by itself. */
    for (size_t i = items * index / threads; i < items * (index + 1) / threads && !is_stopped(cpu);
         i++) {
        const struct exec_row *row = &cpu->rows[i / m->head_count];
        const uint32_t kv_head = (uint32_t)(i % m->head_count) / group;
        cpu->kernels->attend(
            cpu->q + i * m->head_width, kv_base(cpu, row->slot, cpu->layer_index, 0, kv_head),
            kv_base(cpu, row->slot, cpu->layer_index, 1, kv_head), (size_t)row->position + 1,
            m->head_width, scale, cpu->scores + index * cpu->scores_stride,
            cpu->mixed + i * m->head_width);
    }
}

static void phase_attn_out(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, &cpu->layer->o, cpu->mixed, cpu->count, cpu->added, index, threads);
}

static void phase_gate_up(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, &cpu->layer->gate, cpu->normed, cpu->count, cpu->gate, index, threads);
    share(cpu, &cpu->layer->up, cpu->normed, cpu->count, cpu->up, index, threads);
}

static void phase_swiglu(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    const size_t width = cpu->model->ffn_width;
    for (size_t i = cpu->count * index / threads; i < cpu->count * (index + 1) / threads; i++)
        cpu->kernels->swiglu(cpu->gate + i * width, cpu->up + i * width, width);
}

static void phase_down(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, &cpu->layer->down, cpu->gate, cpu->count, cpu->added, index, threads);
}

static void phase_logits(void *arg, uint32_t index, uint32_t threads)
{
    struct cpu *cpu = arg;
    share(cpu, &cpu->model->output, cpu->normed, cpu->logits_count, cpu->logits, index, threads);
}

static void norm_rows(struct cpu *cpu, const struct model_tensor *weight)
{
    const struct model *m = cpu->model;
    for (size_t i = 0; i < cpu->count; i++)
        cpu->kernels->rms_norm(cpu->x + i * m->width, (const float *)(const void *)weight->data,
                               m->width, m->norm_epsilon, cpu->normed + i * m->width);
}

static void add_rows(struct cpu *cpu)
{
    for (size_t i = 0; i < cpu->count * cpu->model->width; i++)
        cpu->x[i] += cpu->added[i];
}

static void find_angles(struct cpu *cpu)
{
    for (size_t i = 0; i < cpu->count; i++)
        heads_angles(&cpu->heads, cpu->rows[i].position, cpu->angles + i * cpu->model->rope_width);
}

/* Makes queries and keys ready, and puts keys and values into the cache. */
static void place_rows(struct cpu *cpu)
{
    const struct model *m = cpu->model;
    const size_t width = m->head_width;
    for (size_t i = 0; i < cpu->count; i++) {
        const struct exec_row *row = &cpu->rows[i];
        float *keys = cpu->k + i * m->kv_head_count * width;
        float *values = cpu->v + i * m->kv_head_count * width;
        heads_prepare(&cpu->heads, cpu->layer, cpu->angles + i * m->rope_width,
                      cpu->q + i * m->head_count * width, keys, values);
        for (uint32_t h = 0; h < m->kv_head_count; h++) {
            const size_t at = row->position * width;
            memcpy(kv_base(cpu, row->slot, cpu->layer_index, 0, h) + at, keys + h * width,
                   width * sizeof(*keys));
            memcpy(kv_base(cpu, row->slot, cpu->layer_index, 1, h) + at, values + h * width,
                   width * sizeof(*values));
        }
    }
}

/* False if it was stopped: the stream is then not worth anything. */
static bool run_layer(struct cpu *cpu, uint32_t index)
{
    cpu->layer_index = index;
    cpu->layer = &cpu->model->layers[index];
    if (is_stopped(cpu))
        return false;
    norm_rows(cpu, &cpu->layer->attn_norm);
    pool_run(cpu->pool, phase_qkv, cpu);
    place_rows(cpu);
    pool_run(cpu->pool, phase_attend, cpu);
    if (is_stopped(cpu))
        return false;
    pool_run(cpu->pool, phase_attn_out, cpu);
    add_rows(cpu);
    norm_rows(cpu, &cpu->layer->ffn_norm);
    pool_run(cpu->pool, phase_gate_up, cpu);
    if (is_stopped(cpu))
        return false;
    pool_run(cpu->pool, phase_swiglu, cpu);
    pool_run(cpu->pool, phase_down, cpu);
    add_rows(cpu);
    if (cpu->watch)
        atomic_fetch_add_explicit(&cpu->watch->progress, 1, memory_order_relaxed);
    return true;
}

/* Layers above the stop have not seen the batch's rows: its slots must not count them. */
static void forget_rows(struct cpu *cpu)
{
    for (size_t i = cpu->count; i-- > 0;)
        cpu->used[cpu->rows[i].slot] = cpu->rows[i].position;
}

static void run_logits(struct cpu *cpu, float *logits)
{
    const struct model *m = cpu->model;
    const float *weight = (const float *)(const void *)m->output_norm.data;
    cpu->logits = logits;
    cpu->logits_count = 0;
    for (size_t i = 0; i < cpu->count; i++)
        if (cpu->rows[i].want_logits)
            cpu->kernels->rms_norm(cpu->x + i * m->width, weight, m->width, m->norm_epsilon,
                                   cpu->normed + cpu->logits_count++ * m->width);
    if (cpu->logits_count)
        pool_run(cpu->pool, phase_logits, cpu);
}

static bool row_is_valid(const struct cpu *cpu, const struct exec_row *rows, size_t i)
{
    const struct exec_row *row = &rows[i];
    if (row->slot >= cpu->slots || row->position >= cpu->context || row->token >= cpu->model->vocab)
        return false;
    if (i && rows[i - 1].slot == row->slot)
        return row->position == rows[i - 1].position + 1;
    for (size_t j = 0; j < i; j++)
        if (rows[j].slot == row->slot)
            return false; /* a slot's rows are not together */
    return row->position <= cpu->used[row->slot];
}

static int cpu_forward(exec_t *self, const struct exec_row *rows, size_t count, float *logits,
                       struct exec_watch *watch)
{
    struct cpu *cpu = (struct cpu *)self;
    const struct model *m = cpu->model;
    if (count == 0 || count > cpu->batch_max)
        return -EINVAL;
    for (size_t i = 0; i < count; i++)
        if (!row_is_valid(cpu, rows, i) || (rows[i].want_logits && !logits))
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
    for (uint32_t l = 0; l < m->layer_count; l++) {
        if (!run_layer(cpu, l)) {
            forget_rows(cpu);
            return -ECANCELED;
        }
    }
    run_logits(cpu, logits);
    return 0;
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
        .batch_max = cpu->batch_max,
        .vocab = cpu->model->vocab,
        .weight_bytes = cpu->model->weight_bytes,
        .kv_bytes = cpu->kv_bytes,
        .work_bytes = cpu->work_bytes,
        .free_bytes = available_bytes(),
    };
}

static void cpu_destroy(exec_t *self)
{
    struct cpu *cpu = (struct cpu *)self;
    pool_destroy(cpu->pool);
    if (cpu->kv)
        munmap(cpu->kv, cpu->kv_bytes);
    free(cpu->used);
    free(cpu->work);
    heads_deinit(&cpu->heads);
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
    size_t longest = m->width > m->ffn_width ? m->width : m->ffn_width;
    longest = attn > longest ? attn : longest;
    cpu->scratch_stride = round_up(CPU_TILE_ROWS * longest, 16);
    cpu->scores_stride = round_up(cpu->context, 16);
    const struct {
        float **at;
        size_t floats;
    } parts[] = {
        {&cpu->x, cpu->batch_max * (size_t)m->width},
        {&cpu->normed, cpu->batch_max * (size_t)m->width},
        {&cpu->added, cpu->batch_max * (size_t)m->width},
        {&cpu->q, cpu->batch_max * attn},
        {&cpu->mixed, cpu->batch_max * attn},
        {&cpu->k, cpu->batch_max * kv},
        {&cpu->v, cpu->batch_max * kv},
        {&cpu->gate, cpu->batch_max * (size_t)m->ffn_width},
        {&cpu->up, cpu->batch_max * (size_t)m->ffn_width},
        {&cpu->angles, cpu->batch_max * (size_t)m->rope_width},
        {&cpu->scratch, threads * cpu->scratch_stride},
        {&cpu->scores, threads * cpu->scores_stride},
    };
    size_t total = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (base)
            *parts[i].at = base + total;
        total += round_up(parts[i].floats, 16);
    }
    return total * sizeof(float);
}

static int allocate(struct cpu *cpu)
{
    /* SIZE_MAX stands for too much and overflows or fails to map. */
    if (__builtin_mul_overflow(cpu_kv_slot_bytes(cpu->model, cpu->context), (size_t)cpu->slots,
                               &cpu->kv_bytes))
        return -ENOMEM;
    void *kv = mmap(NULL, cpu->kv_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (kv == MAP_FAILED)
        return -ENOMEM;
    cpu->kv = kv;
    cpu->used = calloc(cpu->slots, sizeof(*cpu->used));
    cpu->work_bytes = lay_out(cpu, NULL);
    cpu->work = aligned_alloc(64, cpu->work_bytes);
    if (!cpu->used || !cpu->work)
        return -ENOMEM;
    (void)lay_out(cpu, cpu->work);
    return heads_init(&cpu->heads, cpu->model, cpu->kernels);
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
    cpu->kernels = cpu_kernels_select(options->force_portable);
    cpu->slots = options->slots ? options->slots : 1;
    cpu->context = options->context;
    if (cpu->context == 0 || cpu->context > model->context)
        cpu->context = model->context;
    cpu->batch_max = options->batch_max ? options->batch_max : CPU_BATCH_DEFAULT;
    int rc = -EINVAL;
    if (cpu->slots <= CPU_SLOTS_MAX && cpu->batch_max <= CPU_BATCH_MAX)
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
