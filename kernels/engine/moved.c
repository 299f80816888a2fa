/* SPDX-License-Identifier: Apache-2.0 */
/* See moved.h. */
#include "kernels/engine/moved.h"

#include <string.h>

#include "schemas/base/crc32c.h"

void moved_head_seal(struct moved_head *head)
{
    head->crc = crc32c(0, head, offsetof(struct moved_head, crc));
}

static uint32_t page_crc(const struct moved_page *page, const void *bytes, size_t page_bytes)
{
    return crc32c(crc32c(0, page, offsetof(struct moved_page, crc)), bytes, page_bytes);
}

void moved_page_seal(struct moved_page *page, const void *bytes, size_t page_bytes)
{
    page->crc = page_crc(page, bytes, page_bytes);
}

const uint8_t *moved_page_at(const void *data, const struct moved_head *head, uint32_t index,
                             struct moved_page *page)
{
    const size_t stride = sizeof(*page) + (size_t)head->page_bytes;
    const uint8_t *at = (const uint8_t *)data + sizeof(*head) + index * stride;
    memcpy(page, at, sizeof(*page));
    return at + sizeof(*page);
}

static int check_head(const void *data, size_t size, const struct moved_head *expected,
                      struct moved_head *head)
{
    if (size < sizeof(*head))
        return -EINVAL;
    memcpy(head, data, sizeof(*head));
    if (head->magic != MOVED_MAGIC)
        return -EINVAL;
    if (head->version != MOVED_VERSION)
        return -EPROTO;
    if (head->crc != crc32c(0, head, offsetof(struct moved_head, crc)))
        return -EINVAL;
    if (head->model != expected->model || head->page_tokens != expected->page_tokens ||
        head->page_bytes != expected->page_bytes || head->vocab != expected->vocab)
        return -ESTALE;
    return 0;
}

int moved_check(const void *data, size_t size, const struct moved_head *expected,
                struct moved_head *head)
{
    const int rc = check_head(data, size, expected, head);
    if (rc)
        return rc;
    /* page_bytes is the reader's own by now. */
    const size_t stride = sizeof(struct moved_page) + (size_t)head->page_bytes;
    if ((size - sizeof(*head)) / stride != head->pages || (size - sizeof(*head)) % stride)
        return -EINVAL;
    for (uint32_t i = 0; i < head->pages; i++) {
        struct moved_page page;
        const uint8_t *bytes = moved_page_at(data, head, i, &page);
        if (page.crc != page_crc(&page, bytes, (size_t)head->page_bytes) ||
            (page.parent != MOVED_NONE && page.parent >= i))
            return -EINVAL;
        for (size_t t = 0; t < EXEC_PAGE_TOKENS; t++)
            if (page.tokens[t] >= head->vocab)
                return -EINVAL;
    }
    return 0;
}
