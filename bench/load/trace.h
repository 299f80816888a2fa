/* SPDX-License-Identifier: Apache-2.0 */
/*
 * trace.h - recorded arrivals, to be replayed. Two formats, told apart by the first byte:
 *   CSV of AzurePublicDataset:  TIMESTAMP,ContextTokens,GeneratedTokens
 *                               2023-11-16 18:17:03.9799600,4808,10
 *   JSON lines of Mooncake:     {"timestamp": ms, "input_length": n, "output_length": n,
 *                                "hash_ids": [...]}   (blocks of 512 prompt tokens, equal ids =
 *                                equal text; may be missing)
 * The bytes are not trusted.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define TRACE_ENTRIES_MAX  10000000u
#define TRACE_LINE_MAX     (1u << 20)
#define TRACE_TOKENS_MAX   (1u << 24)
#define TRACE_BLOCK_TOKENS 512u

struct trace_entry {
    uint64_t at_ns; /* from the first one; never falling */
    uint32_t input_tokens;
    uint32_t output_tokens;
    uint32_t block; /* of trace.blocks: the first ... */
    uint32_t block_count;
};

struct trace {
    struct trace_entry *entries;
    uint32_t count, capacity;
    uint32_t *blocks;
    uint32_t block_count, block_capacity;
};

/* Heap. Returns 0, -ENOMEM, -E2BIG, or -EINVAL with the number of the bad line in *line. Entries
 * are put in order of time. An empty one is -EINVAL too. */
int trace_parse(struct trace *trace, const char *text, size_t len, uint32_t *line);
/* The same from a file; -errno if it cannot be read. */
int trace_load(struct trace *trace, const char *path, uint32_t *line);
void trace_deinit(struct trace *trace);
