/* SPDX-License-Identifier: Apache-2.0 */
/* The backend's life: sizes, memory, what it says of itself. See cpu_impl.h for its other parts. */
#include "kernels/cpu/cpu.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/cpu/cpu_impl.h"

#define CPU_BATCH_DEFAULT 64u
#define CPU_BATCH_MAX     4096u
#define CPU_SLOTS_MAX     4096u

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
        .page_bytes = cpu_page_bytes(cpu),
        /* Integers are the same bits everywhere (kernels.h); float32 follows the instructions. */
        .mode = cpu->kernels->quantise ? "cpu/fast" : NULL,
    };
}

static void cpu_destroy(exec_t *self)
{
    struct cpu *cpu = (struct cpu *)self;
    pool_destroy(cpu->pool);
    cpu_cache_destroy(cpu);
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
    const size_t share = cpu->shard ? cpu_ranks_rows_max(cpu) : 0;
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

static int allocate(struct cpu *cpu)
{
    int rc = cpu_cache_create(cpu);
    if (rc)
        return rc;
    cpu->work_bytes = lay_out(cpu, NULL);
    cpu->work = aligned_alloc(64, cpu->work_bytes);
    if (!cpu->work)
        return -ENOMEM;
    (void)lay_out(cpu, cpu->work);
    rc = heads_init(&cpu->heads, cpu->model, cpu->kernels);
    return rc ? rc : weights_init(&cpu->weights, cpu->model, cpu->kernels, cpu->pool);
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
