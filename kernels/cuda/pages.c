/* SPDX-License-Identifier: Apache-2.0 */
/* See pages.h. */
#include "kernels/cuda/pages.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int pages_init(struct pages *pages, uint32_t slots, uint32_t context, uint32_t page_size,
               uint32_t count)
{
    const uint32_t stride = context / page_size + (context % page_size != 0);
    *pages = (struct pages){
        .page_size = page_size, .slots = slots, .stride = stride, .context = context};
    pages->tables = calloc((size_t)slots * stride, sizeof(*pages->tables));
    pages->used = calloc(slots, sizeof(*pages->used));
    pages->held = calloc(slots, sizeof(*pages->held));
    pages->stock = calloc(count, sizeof(*pages->stock));
    pages->placed = calloc(slots, sizeof(*pages->placed));
    if (!pages->placed || !pages->tables || !pages->used || !pages->held || !pages->stock)
        return -ENOMEM;
    pages->stock_count = pages->count = count;
    for (uint32_t i = 0; i < count; i++)
        pages->stock[i] = count - 1 - i;
    return 0;
}

void pages_deinit(struct pages *pages)
{
    free(pages->tables);
    free(pages->used);
    free(pages->held);
    free(pages->placed);
    free(pages->stock);
    memset(pages, 0, sizeof(*pages));
}

static bool row_is_valid(const struct pages *p, const struct exec_row *rows, size_t i)
{
    const struct exec_row *row = &rows[i];
    if (row->slot >= p->slots || row->position >= p->context)
        return false;
    if (p->placed[row->slot] && row->position / p->page_size >= p->held[row->slot])
        return false;
    if (i && rows[i - 1].slot == row->slot)
        return row->position == rows[i - 1].position + 1;
    for (size_t j = 0; j < i; j++)
        if (rows[j].slot == row->slot)
            return false; /* a slot's rows are not together */
    return row->position <= p->used[row->slot];
}

static uint32_t pages_for(const struct pages *p, uint32_t positions)
{
    return positions / p->page_size + (positions % p->page_size != 0);
}

/* The last row of the slot whose rows begin at `first`. */
static size_t last_of_slot(const struct exec_row *rows, size_t count, size_t first)
{
    size_t last = first;
    while (last + 1 < count && rows[last + 1].slot == rows[first].slot)
        last++;
    return last;
}

static void give_back(struct pages *p, uint32_t slot, uint32_t keep)
{
    while (!p->placed[slot] && p->held[slot] > keep)
        p->stock[p->stock_count++] = p->tables[(size_t)slot * p->stride + --p->held[slot]];
}

int pages_take(struct pages *pages, const struct exec_row *rows, size_t count)
{
    size_t wanted = 0;
    size_t returned = 0;
    for (size_t i = 0; i < count; i++)
        if (!row_is_valid(pages, rows, i))
            return -EINVAL;
    for (size_t i = 0; i < count; i = last_of_slot(rows, count, i) + 1) {
        const uint32_t end = rows[last_of_slot(rows, count, i)].position + 1;
        const uint32_t held = pages->held[rows[i].slot];
        if (pages->placed[rows[i].slot])
            continue;
        wanted += pages_for(pages, end) > held ? pages_for(pages, end) - held : 0;
        returned += pages_for(pages, end) < held ? held - pages_for(pages, end) : 0;
    }
    if (wanted > pages->stock_count + returned)
        return -ENOSPC;
    for (size_t i = 0; i < count; i = last_of_slot(rows, count, i) + 1)
        give_back(pages, rows[i].slot,
                  pages_for(pages, rows[last_of_slot(rows, count, i)].position + 1));
    for (size_t i = 0; i < count; i++) {
        const uint32_t slot = rows[i].slot;
        while (pages->held[slot] < pages_for(pages, rows[i].position + 1)) {
            pages->tables[(size_t)slot * pages->stride + pages->held[slot]++] =
                pages->stock[--pages->stock_count];
            pages->is_changed = true;
        }
        pages->used[slot] = rows[i].position + 1;
    }
    return 0;
}

int pages_place(struct pages *pages, uint32_t slot, const uint32_t *list, uint32_t count,
                uint32_t used)
{
    if (slot >= pages->slots || count > pages->stride || used > count * pages->page_size)
        return -EINVAL;
    for (uint32_t i = 0; i < count; i++)
        if (list[i] >= pages->count)
            return -EINVAL;
    give_back(pages, slot, 0);
    pages->placed[slot] = true;
    pages->held[slot] = count;
    pages->used[slot] = used;
    memcpy(pages->tables + (size_t)slot * pages->stride, list, count * sizeof(*list));
    pages->is_changed = true;
    return 0;
}

void pages_forget(struct pages *pages, const struct exec_row *rows, size_t count)
{
    for (size_t i = count; i-- > 0;) {
        pages->used[rows[i].slot] = rows[i].position;
        give_back(pages, rows[i].slot, pages_for(pages, rows[i].position));
    }
}
