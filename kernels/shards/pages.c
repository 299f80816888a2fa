/* SPDX-License-Identifier: Apache-2.0 */
/* See pages.h. */
#include "kernels/shards/pages.h"

#include <stdbool.h>
#include <string.h>

#include "kernels/exec.h"

static size_t head_bytes(const struct model *whole)
{
    return (size_t)EXEC_PAGE_TOKENS * whole->head_width * sizeof(float);
}

size_t shards_page_bytes(const struct model *whole)
{
    return (size_t)whole->layer_count * 2 * whole->kv_head_count * head_bytes(whole);
}

size_t shards_part_bytes(const struct model *whole, const struct model_share *share)
{
    return (size_t)(share->layers.end - share->layers.begin) * 2 *
           (share->kv_heads.end - share->kv_heads.begin) * head_bytes(whole);
}

/* The heads of a layer's keys, or of its values, lie side by side in both. */
static void copy(const struct model *whole, const struct model_share *share, uint8_t *page,
                 uint8_t *part, bool into_page)
{
    const size_t row = (share->kv_heads.end - share->kv_heads.begin) * head_bytes(whole);
    const size_t whole_row = whole->kv_head_count * head_bytes(whole);
    page += share->layers.begin * 2 * whole_row + share->kv_heads.begin * head_bytes(whole);
    for (size_t i = 0; i < (size_t)(share->layers.end - share->layers.begin) * 2; i++) {
        if (into_page)
            memcpy(page + i * whole_row, part + i * row, row);
        else
            memcpy(part + i * row, page + i * whole_row, row);
    }
}

void shards_part_put(const struct model *whole, const struct model_share *share, const void *part,
                     void *page)
{
    copy(whole, share, page, (uint8_t *)(uintptr_t)part, true);
}

void shards_part_take(const struct model *whole, const struct model_share *share, const void *page,
                      void *part)
{
    copy(whole, share, (uint8_t *)(uintptr_t)page, part, false);
}
