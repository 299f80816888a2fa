/* SPDX-License-Identifier: Apache-2.0 */
/*
 * moved.h - pages of a KV cache outside an engine: in a file, or on their way. A head, then pages,
 * each behind the one it continues; little-endian. Pure: the reader takes bytes nobody vouches for.
 *
 * What is damaged is found by CRC32C, of the head and of each page; it is no protection against
 * who wants to deceive. Bytes that are meant for another model, another arithmetic or another
 * version are refused by the head.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/exec.h"

#define MOVED_MAGIC   UINT64_C(0x31564b5446455700) /* "\0WEFTKV1" */
#define MOVED_VERSION 1u
#define MOVED_NONE    UINT32_MAX

struct moved_head {
    uint64_t magic;
    uint32_t version;
    uint32_t page_tokens;
    uint64_t model;      /* engine_export() */
    uint64_t page_bytes; /* behind each struct moved_page */
    uint32_t vocab;
    uint32_t pages;
    uint32_t reserved;
    uint32_t crc; /* of what is before it */
};
_Static_assert(sizeof(struct moved_head) == 48, "head is 48 bytes");

struct moved_page {
    uint32_t parent; /* which of the pages before it; MOVED_NONE: it begins a prompt */
    uint32_t tokens[EXEC_PAGE_TOKENS];
    uint32_t crc; /* of what is before it in here, then of the page's bytes */
};
_Static_assert(sizeof(struct moved_page) == 72, "page is 72 bytes");

void moved_head_seal(struct moved_head *head);
void moved_page_seal(struct moved_page *page, const void *bytes, size_t page_bytes);

/* Is it whole, and what `expected` says (but for the number of pages)? Returns 0, or as
 * engine_import(); `head` is its head then. */
int moved_check(const void *data, size_t size, const struct moved_head *expected,
                struct moved_head *head);

/* Page `index` of what was checked: a copy of its head; its bytes, not aligned. */
const uint8_t *moved_page_at(const void *data, const struct moved_head *head, uint32_t index,
                             struct moved_page *page);
