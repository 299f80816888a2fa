/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cpu_impl.h - the inside of the CPU backend, shared by cpu.c (life, sizes), forward.c (a batch
 * through the layers), cache.c (pages of keys and values) and ranks.c (one of several ranks);
 * nobody else includes it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/collective/shard.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/heads.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/pool.h"
#include "kernels/cpu/weights.h"

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

/* Never becomes false again during a step: what one thread has left out because of it, all know. */
static inline bool cpu_is_stopped(const struct cpu *cpu)
{
    return cpu->watch && atomic_load_explicit(&cpu->watch->stop, memory_order_relaxed);
}

static inline struct collective *cpu_team(const struct cpu *cpu)
{
    return cpu->shard ? cpu->shard->team : NULL;
}

/* ---- cache.c ---- */

static inline size_t cpu_page_floats(const struct cpu *cpu)
{
    return (size_t)EXEC_PAGE_TOKENS * cpu->model->head_width;
}

/* Page 0 of one head of one layer. */
static inline float *cpu_kv_base(const struct cpu *cpu, uint32_t layer, uint32_t is_value,
                                 uint32_t kv_head)
{
    const size_t index = ((size_t)layer * 2 + is_value) * cpu->model->kv_head_count + kv_head;
    return cpu->kv + index * cpu->pages * cpu_page_floats(cpu);
}

static inline const uint32_t *cpu_table(const struct cpu *cpu, uint32_t slot)
{
    return cpu->tables + (size_t)slot * cpu->slot_pages;
}

static inline struct cpu_rows cpu_kv_rows(const struct cpu *cpu, uint32_t slot, uint32_t is_value,
                                          uint32_t kv_head)
{
    return (struct cpu_rows){cpu_kv_base(cpu, cpu->layer_index, is_value, kv_head),
                             cpu_table(cpu, slot), cpu_page_floats(cpu)};
}

/* The cache itself, and each slot to pages of its own, as far as there are any. 0 or -ENOMEM;
 * cpu_cache_destroy() in either case. */
int cpu_cache_create(struct cpu *cpu);
void cpu_cache_destroy(struct cpu *cpu);

/* Of a page outside. */
size_t cpu_page_bytes(const struct cpu *cpu);

/* For exec.h. */
int cpu_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count, uint32_t used);
int cpu_page_out(exec_t *self, uint32_t page, void *out);
int cpu_page_in(exec_t *self, uint32_t page, const void *in);

/* ---- forward.c ---- */

int cpu_forward(exec_t *self, const struct exec_row *rows, size_t count, const struct exec_out *out,
                struct exec_watch *watch);

/* The stream through all layers that are here. Unless it returns 0 the stream is not worth
 * anything. */
int cpu_run_stage(struct cpu *cpu);

/* Logits of the rows that are picked, by the output matrix that is here. */
void cpu_run_logits(struct cpu *cpu, float *logits);

/* ---- ranks.c: only with a shard ---- */

/* What this rank adds to the stream becomes what all of its stage add; a stop goes with it. */
int cpu_ranks_sum(struct cpu *cpu, size_t floats);

/* Stage after stage; behind each of them all ranks have the stream, or know of the stop. */
int cpu_ranks_forward(struct cpu *cpu);

/* Rows of the vocabulary that a shard has at most. */
uint32_t cpu_ranks_rows_max(const struct cpu *cpu);

/* Logits from whoever has them; `logits` is NULL where nobody wants them. */
int cpu_ranks_logits(struct cpu *cpu, float *logits);

/* Of several ranks only the first gives results. True without a shard. */
bool cpu_ranks_answers(const struct cpu *cpu);
