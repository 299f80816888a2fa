/* SPDX-License-Identifier: Apache-2.0 */
/* The KV cache: one reservation of pages that becomes memory as they are first written, and a table
 * of pages for each slot. See cpu_impl.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/cpu/cpu_impl.h"

size_t cpu_kv_slot_bytes(const struct model *model, uint32_t context)
{
    size_t bytes = (size_t)model->kv_head_count * model->head_width * 2 * sizeof(float);
    if (__builtin_mul_overflow(bytes, (size_t)model->layer_count, &bytes) ||
        __builtin_mul_overflow(bytes, (size_t)context, &bytes))
        return SIZE_MAX;
    return bytes;
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

int cpu_cache_create(struct cpu *cpu)
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
    return cpu->used ? place_all(cpu) : -ENOMEM;
}

void cpu_cache_destroy(struct cpu *cpu)
{
    if (cpu->kv)
        munmap(cpu->kv, cpu->kv_bytes);
    free(cpu->used);
    free(cpu->tables);
    free(cpu->positions);
}

int cpu_place(exec_t *self, uint32_t slot, const uint32_t *pages, uint32_t count, uint32_t used)
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
size_t cpu_page_bytes(const struct cpu *cpu)
{
    return (size_t)cpu->model->layer_count * 2 * cpu->model->kv_head_count * cpu_page_floats(cpu) *
           sizeof(float);
}

static int copy_page(struct cpu *cpu, uint32_t page, uint8_t *out, const uint8_t *in)
{
    const size_t bytes = cpu_page_floats(cpu) * sizeof(float);
    const size_t heads = (size_t)cpu->model->layer_count * 2 * cpu->model->kv_head_count;
    if (page >= cpu->pages)
        return -EINVAL;
    for (size_t i = 0; i < heads; i++) {
        float *at = cpu->kv + (i * cpu->pages + page) * cpu_page_floats(cpu);
        if (out)
            memcpy(out + i * bytes, at, bytes);
        else
            memcpy(at, in + i * bytes, bytes);
    }
    return 0;
}

int cpu_page_out(exec_t *self, uint32_t page, void *out)
{
    return copy_page((struct cpu *)self, page, out, NULL);
}

int cpu_page_in(exec_t *self, uint32_t page, const void *in)
{
    return copy_page((struct cpu *)self, page, NULL, in);
}
