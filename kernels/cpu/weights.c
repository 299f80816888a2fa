/* SPDX-License-Identifier: Apache-2.0 */
/* See weights.h. All packed matrices lie in one mapping of large pages where the system has them:
 * weights are read from end to end for every token. */
#include "kernels/cpu/weights.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Everything a thread needs to pack its share of every matrix. */
struct packing {
    struct weights *weights;
    uint32_t count;
};

static uint32_t list_matrices(struct weights *w, const struct model *model)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < model->layer_count; i++) {
        const struct model_layer *l = &model->layers[i];
        const struct model_tensor *const all[WEIGHTS_OF_LAYER] = {
            [WEIGHTS_Q] = &l->q,       [WEIGHTS_K] = &l->k,       [WEIGHTS_V] = &l->v,
            [WEIGHTS_O] = &l->o,       [WEIGHTS_GATE] = &l->gate, [WEIGHTS_UP] = &l->up,
            [WEIGHTS_DOWN] = &l->down,
        };
        for (size_t j = 0; j < WEIGHTS_OF_LAYER; j++)
            w->matrices[n++].plain = all[j];
    }
    w->matrices[n++].plain = &model->output;
    return n;
}

static void pack_share(void *arg, uint32_t index, uint32_t threads)
{
    const struct packing *p = arg;
    for (uint32_t i = 0; i < p->count; i++) {
        const struct matrix *m = &p->weights->matrices[i];
        const uint64_t panels = packed_panels(&m->packed);
        if (m->packed.data)
            packed_write(&m->packed, m->plain, (uint32_t)(panels * index / threads),
                         (uint32_t)(panels * (index + 1) / threads),
                         p->weights->memory + (m->packed.data - p->weights->memory));
    }
}

static int reserve(struct weights *w, uint32_t count)
{
    size_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct matrix *m = &w->matrices[i];
        if (packed_measure(m->plain, &m->packed) &&
            __builtin_add_overflow(total, packed_bytes(&m->packed), &total))
            return -ENOMEM;
    }
    if (total == 0)
        return 0;
    void *memory = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return -ENOMEM;
    (void)madvise(memory, total, MADV_HUGEPAGE); /* slower without */
    w->memory = memory;
    w->memory_bytes = total;
    size_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct packed *p = &w->matrices[i].packed;
        if (p->panel_bytes == 0)
            continue;
        p->data = w->memory + at;
        at += packed_bytes(p);
    }
    return 0;
}

int weights_init(struct weights *weights, const struct model *model,
                 const struct cpu_kernels *kernels, struct pool *pool)
{
    *weights = (struct weights){.layer_count = model->layer_count};
    const size_t count = (size_t)model->layer_count * WEIGHTS_OF_LAYER + 1;
    weights->matrices = calloc(count, sizeof(*weights->matrices));
    if (!weights->matrices)
        return -ENOMEM;
    struct packing packing = {weights, list_matrices(weights, model)};
    if (!kernels->packed)
        return 0;
    int rc = reserve(weights, packing.count);
    if (rc == 0)
        pool_run(pool, pack_share, &packing);
    return rc;
}

void weights_deinit(struct weights *weights)
{
    if (weights->memory)
        munmap(weights->memory, weights->memory_bytes);
    free(weights->matrices);
}
