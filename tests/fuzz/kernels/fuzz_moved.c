/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes pages of a KV cache that come from outside: moved.c checks them, and what it takes is read
 * to the end. The sums are put right first where the first byte says so, to get past them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/engine/moved.h"

#define PAGE_BYTES 24u
#define MODEL      UINT64_C(7)
#define VOCAB      256u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void repair(uint8_t *data, size_t size)
{
    struct moved_head head;
    struct moved_page page;
    if (size < sizeof(head))
        return;
    memcpy(&head, data, sizeof(head));
    head.magic = MOVED_MAGIC;
    head.version = MOVED_VERSION;
    head.page_tokens = EXEC_PAGE_TOKENS;
    head.model = MODEL;
    head.page_bytes = PAGE_BYTES;
    head.vocab = VOCAB;
    moved_head_seal(&head);
    memcpy(data, &head, sizeof(head));
    for (size_t at = sizeof(head); size - at >= sizeof(page) + PAGE_BYTES;
         at += sizeof(page) + PAGE_BYTES) {
        memcpy(&page, data + at, sizeof(page));
        moved_page_seal(&page, data + at + sizeof(page), PAGE_BYTES);
        memcpy(data + at, &page, sizeof(page));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct moved_head expected = {
        .page_tokens = EXEC_PAGE_TOKENS, .model = MODEL, .page_bytes = PAGE_BYTES, .vocab = VOCAB};
    struct moved_head head;
    if (size == 0)
        return 0;
    uint8_t *copy = malloc(size);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, size - 1);
    if (data[0] & 1)
        repair(copy, size - 1);
    if (moved_check(copy, size - 1, &expected, &head) == 0) {
        for (uint32_t i = 0; i < head.pages; i++) {
            struct moved_page page;
            const uint8_t *bytes = moved_page_at(copy, &head, i, &page);
            if (bytes + PAGE_BYTES > copy + size - 1 || page.tokens[0] >= VOCAB ||
                (page.parent != MOVED_NONE && page.parent >= i))
                abort();
        }
    }
    free(copy);
    return 0;
}
