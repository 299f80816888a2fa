/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bpe.h - the core of byte-pair encoding: which bytes are which token, which pair joins to which,
 * and the joining of one piece of text. Used by tokenizer.c alone.
 *
 * Threads: a filled struct bpe is immutable; a bpe_work belongs to one call.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct bpe_token {
    const char *data; /* NULL: empty place */
    size_t len;
    uint32_t id;
};

struct bpe_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: empty place */
    uint32_t rank; /* lowest joins first */
    uint32_t joined;
};

struct bpe {
    struct bpe_token *tokens; /* open addressing, by bytes */
    size_t token_mask;
    struct bpe_merge *merges; /* open addressing, by pair */
    size_t merge_mask;
    uint32_t byte_id[256]; /* token of each single byte, UINT32_MAX if there is none */
};

/* Buffers that grow to the longest piece met. Zero-filled to begin with. */
struct bpe_work {
    uint32_t *next;
    uint32_t *prev;
    uint32_t *id;
    uint64_t *heap; /* rank << 32 | position */
    size_t capacity;
};

/* Room for `tokens` tokens. 0 or -ENOMEM; bpe_deinit() in either case. */
int bpe_init(struct bpe *bpe, uint32_t tokens);
int bpe_reserve_merges(struct bpe *bpe, uint32_t merges);
void bpe_deinit(struct bpe *bpe);

/* `data` is kept. The first of two equal tokens counts. */
void bpe_add_token(struct bpe *bpe, const char *data, size_t len, uint32_t id);

/* The token of exactly these bytes, UINT32_MAX if there is none. */
uint32_t bpe_find(const struct bpe *bpe, const char *data, size_t len);

/* `joined` is left and right one after the other. The first of two equal pairs counts. Returns
 * -EINVAL if one of the three is no token. */
int bpe_add_merge(struct bpe *bpe, const char *joined, size_t left, size_t right, uint32_t rank);

/* Encodes one piece, O(n log n). Returns 0, -ENOBUFS beyond `capacity` ids, -ENOMEM, -EINVAL for a
 * byte without a token. */
int bpe_encode(const struct bpe *bpe, struct bpe_work *work, const char *text, size_t len,
               uint32_t *out, size_t capacity, size_t *count);

void bpe_work_deinit(struct bpe_work *work);
