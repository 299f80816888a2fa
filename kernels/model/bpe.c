/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair encoding (Sennrich et al., https://arxiv.org/abs/1508.07909) with a linked list of
 * symbols and a heap of joinable pairs: each join costs O(log n). */
#include "kernels/model/bpe.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX

static size_t table_size(uint32_t entries)
{
    size_t size = 16;
    while (size < (size_t)entries * 2)
        size *= 2;
    return size;
}

/* FNV-1a with a final mix, so that the low bits are good. */
static size_t bytes_hash(const char *data, size_t len)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < len; i++)
        h = (h ^ (uint8_t)data[i]) * UINT64_C(0x100000001b3);
    return (size_t)(h ^ h >> 32);
}

static size_t pair_hash(uint64_t pair)
{
    const uint64_t h = pair * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h ^ h >> 32);
}

int bpe_init(struct bpe *bpe, uint32_t tokens)
{
    const size_t size = table_size(tokens);
    memset(bpe, 0, sizeof(*bpe));
    memset(bpe->byte_id, 0xff, sizeof(bpe->byte_id));
    bpe->tokens = calloc(size, sizeof(*bpe->tokens));
    bpe->token_mask = size - 1;
    return bpe->tokens ? 0 : -ENOMEM;
}

int bpe_reserve_merges(struct bpe *bpe, uint32_t merges)
{
    const size_t size = table_size(merges);
    bpe->merges = malloc(size * sizeof(*bpe->merges));
    bpe->merge_mask = size - 1;
    if (!bpe->merges)
        return -ENOMEM;
    for (size_t i = 0; i < size; i++)
        bpe->merges[i].pair = UINT64_MAX;
    return 0;
}

void bpe_deinit(struct bpe *bpe)
{
    free(bpe->tokens);
    free(bpe->merges);
    bpe->tokens = NULL;
    bpe->merges = NULL;
}

/* The token's place, or the empty place where it would go. */
static struct bpe_token *token_place(const struct bpe *bpe, const char *data, size_t len)
{
    for (size_t i = bytes_hash(data, len);; i++) {
        struct bpe_token *t = &bpe->tokens[i & bpe->token_mask];
        if (!t->data || (t->len == len && memcmp(t->data, data, len) == 0))
            return t;
    }
}

static struct bpe_merge *merge_place(const struct bpe *bpe, uint64_t pair)
{
    for (size_t i = pair_hash(pair);; i++) {
        struct bpe_merge *m = &bpe->merges[i & bpe->merge_mask];
        if (m->pair == UINT64_MAX || m->pair == pair)
            return m;
    }
}

void bpe_add_token(struct bpe *bpe, const char *data, size_t len, uint32_t id)
{
    struct bpe_token *place = token_place(bpe, data, len);
    if (len == 0 || place->data)
        return;
    *place = (struct bpe_token){data, len, id};
    if (len == 1)
        bpe->byte_id[(uint8_t)data[0]] = id;
}

uint32_t bpe_find(const struct bpe *bpe, const char *data, size_t len)
{
    const struct bpe_token *place = token_place(bpe, data, len);
    return place->data ? place->id : UINT32_MAX;
}

int bpe_add_merge(struct bpe *bpe, const char *joined, size_t left, size_t right, uint32_t rank)
{
    const struct bpe_token *a = token_place(bpe, joined, left);
    const struct bpe_token *b = token_place(bpe, joined + left, right);
    const struct bpe_token *c = token_place(bpe, joined, left + right);
    if (!left || !right || !a->data || !b->data || !c->data)
        return -EINVAL;
    const uint64_t pair = (uint64_t)a->id << 32 | b->id;
    struct bpe_merge *place = merge_place(bpe, pair);
    if (place->pair == UINT64_MAX)
        *place = (struct bpe_merge){pair, rank, c->id};
    return 0;
}

static void heap_push(uint64_t *heap, size_t *count, uint64_t key)
{
    size_t i = (*count)++;
    while (i && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    const uint64_t top = heap[0];
    const uint64_t last = heap[--*count];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= *count)
            break;
        if (child + 1 < *count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = last;
    return top;
}

static int work_reserve(struct bpe_work *work, size_t len)
{
    if (len <= work->capacity)
        return 0;
    size_t capacity = work->capacity ? work->capacity : 64;
    while (capacity < len)
        capacity *= 2;
    bpe_work_deinit(work);
    work->next = malloc(capacity * sizeof(*work->next));
    work->prev = malloc(capacity * sizeof(*work->prev));
    work->id = malloc(capacity * sizeof(*work->id));
    /* A pair for each neighbour at first, and at most two more for each join. */
    work->heap = malloc(capacity * 3 * sizeof(*work->heap));
    if (!work->next || !work->prev || !work->id || !work->heap)
        return -ENOMEM;
    work->capacity = capacity;
    return 0;
}

void bpe_work_deinit(struct bpe_work *work)
{
    free(work->next);
    free(work->prev);
    free(work->id);
    free(work->heap);
    memset(work, 0, sizeof(*work));
}

static const struct bpe_merge *merge_at(const struct bpe *bpe, const struct bpe_work *work,
                                        uint32_t at)
{
    if (work->next[at] == NONE)
        return NULL;
    const uint64_t pair = (uint64_t)work->id[at] << 32 | work->id[work->next[at]];
    const struct bpe_merge *m = merge_place(bpe, pair);
    return m->pair == pair ? m : NULL;
}

static void offer(const struct bpe *bpe, struct bpe_work *work, size_t *heap_count, uint32_t at)
{
    const struct bpe_merge *m = merge_at(bpe, work, at);
    if (m)
        heap_push(work->heap, heap_count, (uint64_t)m->rank << 32 | at);
}

/* Joins until no pair is left. A heap entry is stale if its symbol is gone or its pair is no longer
 * the one with that rank. */
static void join_pairs(const struct bpe *bpe, struct bpe_work *work, size_t len)
{
    size_t heap_count = 0;
    for (size_t i = 0; i + 1 < len; i++)
        offer(bpe, work, &heap_count, (uint32_t)i);
    while (heap_count) {
        const uint64_t key = heap_pop(work->heap, &heap_count);
        const uint32_t at = (uint32_t)key;
        if (work->id[at] == NONE)
            continue;
        const struct bpe_merge *m = merge_at(bpe, work, at);
        if (!m || m->rank != key >> 32)
            continue;
        const uint32_t gone = work->next[at];
        work->id[at] = m->joined;
        work->id[gone] = NONE;
        work->next[at] = work->next[gone];
        if (work->next[at] != NONE)
            work->prev[work->next[at]] = at;
        offer(bpe, work, &heap_count, at);
        if (work->prev[at] != NONE)
            offer(bpe, work, &heap_count, work->prev[at]);
    }
}

int bpe_encode(const struct bpe *bpe, struct bpe_work *work, const char *text, size_t len,
               uint32_t *out, size_t capacity, size_t *count)
{
    *count = 0;
    if (len == 0)
        return 0;
    if (len >= NONE || work_reserve(work, len))
        return -ENOMEM;
    for (size_t i = 0; i < len; i++) {
        work->id[i] = bpe->byte_id[(uint8_t)text[i]];
        if (work->id[i] == NONE)
            return -EINVAL;
        work->prev[i] = i ? (uint32_t)i - 1 : NONE;
        work->next[i] = i + 1 < len ? (uint32_t)i + 1 : NONE;
    }
    join_pairs(bpe, work, len);
    size_t n = 0;
    for (uint32_t at = 0; at != NONE; at = work->next[at]) {
        if (n == capacity)
            return -ENOBUFS;
        out[n++] = work->id[at];
    }
    *count = n;
    return 0;
}
