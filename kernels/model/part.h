/* SPDX-License-Identifier: Apache-2.0 */
/*
 * part.h - what one of several ranks has of a network: some of its layers (pipeline stages), and of
 * each of them some heads, some rows of the MLP, some of the vocabulary (tensor parallel). The part
 * is a struct model of its own whose matrices are views into the same mapped file: nothing is
 * copied. Backends compute it like a whole one, and add up over the ranks of a stage where shard.h
 * says so.
 *
 * Rows of Q, K, V, gate, up and of the output are cut by rows; the attention's and the MLP's second
 * matrix by columns, at whole blocks of the file's types. Heads are dealt as evenly as blocks
 * allow; a rank has the KV heads that its heads look at, so that one may lie at two ranks.
 *
 * Threads: pure functions. Errors: 0 or a negative errno, with a sentence in `why`.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/model/model.h"

/* Which rank it is: shard `shard` of `shards` in stage `stage` of `stages`. */
struct model_place {
    uint32_t stage;
    uint32_t stages;
    uint32_t shard;
    uint32_t shards;
};

/* Which rows of the output's matrix a shard has. */
struct model_rows {
    uint32_t begin;
    uint32_t end;
};

struct model_rows model_vocab_rows(const struct model *whole, uint32_t shard, uint32_t shards);

/* Which layers and KV heads a rank has. Returns 0 or -EINVAL. */
struct model_share {
    struct model_rows layers;
    struct model_rows kv_heads;
};
int model_share(const struct model *whole, const struct model_place *place,
                struct model_share *out);

/* The part at `place`; `whole` must outlive it. Heap; free with model_destroy(). Returns -EINVAL if
 * the network cannot be cut so often. */
int model_part(struct model **out, const struct model *whole, const struct model_place *place,
               char *why, size_t why_size);
