/* SPDX-License-Identifier: Apache-2.0 */
/* Views of tensors, and who gets which. */
#include "kernels/model/part.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define VOCAB_UNIT 16u /* rows: panels of the packed form stay whole */

/* What a rank has of each layer. */
struct cut {
    struct model_rows heads;
    struct model_rows kv_heads;
    struct model_rows ffn;
};

static uint32_t gcd(uint32_t a, uint32_t b)
{
    while (b) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static uint32_t units_of(uint32_t total, uint32_t unit)
{
    return (uint32_t)(((uint64_t)total + unit - 1) / unit);
}

/* Share `index` of `total` things that only come in whole units; the last one may be smaller. */
static struct model_rows share(uint32_t total, uint32_t unit, uint32_t index, uint32_t shares)
{
    const uint64_t units = units_of(total, unit);
    const uint64_t begin = units * index / shares * unit;
    const uint64_t end = units * (index + 1) / shares * unit;
    return (struct model_rows){(uint32_t)(begin < total ? begin : total),
                               (uint32_t)(end < total ? end : total)};
}

static uint32_t block_elements(const struct model_tensor *t)
{
    uint32_t elements = 1;
    uint32_t bytes;
    (void)gguf_tensor_block(t->type, &elements, &bytes);
    return elements;
}

static void keep_rows(struct model_tensor *t, uint32_t begin, uint32_t end)
{
    t->data += (size_t)begin * t->row_bytes;
    t->rows = end - begin;
}

/* `begin` is at a block. */
static void keep_columns(struct model_tensor *t, uint32_t begin, uint32_t end)
{
    uint32_t elements = 1;
    uint32_t bytes = 0;
    if (!t->data || !gguf_tensor_block(t->type, &elements, &bytes))
        return;
    t->data += (size_t)(begin / elements) * bytes;
    t->cols = end - begin;
}

static size_t bytes_of(const struct model_tensor *t)
{
    uint32_t elements = 1;
    uint32_t bytes = 0;
    (void)gguf_tensor_block(t->type, &elements, &bytes);
    return (size_t)t->rows * (t->cols / elements) * bytes;
}

/* Columns between which every layer's second matrices can be cut. */
static void find_units(const struct model *m, uint32_t *head_unit, uint32_t *ffn_unit)
{
    uint32_t attn_block = 1;
    *ffn_unit = 1;
    for (uint32_t i = 0; i < m->layer_count; i++) {
        const uint32_t o = block_elements(&m->layers[i].o);
        const uint32_t down = block_elements(&m->layers[i].down);
        attn_block = attn_block / gcd(attn_block, o) * o;
        *ffn_unit = *ffn_unit / gcd(*ffn_unit, down) * down;
    }
    *head_unit = attn_block / gcd(attn_block, m->head_width);
}

static void cut_layer(struct model_layer *l, const struct cut *cut, uint32_t head_width)
{
    const struct model_rows q = {cut->heads.begin * head_width, cut->heads.end * head_width};
    const struct model_rows kv = {cut->kv_heads.begin * head_width, cut->kv_heads.end * head_width};
    keep_rows(&l->q, q.begin, q.end);
    keep_rows(&l->k, kv.begin, kv.end);
    keep_rows(&l->v, kv.begin, kv.end);
    keep_columns(&l->q_bias, q.begin, q.end);
    keep_columns(&l->k_bias, kv.begin, kv.end);
    keep_columns(&l->v_bias, kv.begin, kv.end);
    keep_columns(&l->o, q.begin, q.end);
    keep_rows(&l->gate, cut->ffn.begin, cut->ffn.end);
    keep_rows(&l->up, cut->ffn.begin, cut->ffn.end);
    keep_columns(&l->down, cut->ffn.begin, cut->ffn.end);
}

static size_t layer_bytes(const struct model_layer *l)
{
    const struct model_tensor *const all[] = {&l->q,    &l->k,  &l->v,   &l->o,
                                              &l->gate, &l->up, &l->down};
    size_t bytes = bytes_of(&l->attn_norm) + bytes_of(&l->ffn_norm);
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        bytes += bytes_of(all[i]);
    return bytes;
}

struct model_rows model_vocab_rows(const struct model *whole, uint32_t shard, uint32_t shards)
{
    return share(whole->vocab, VOCAB_UNIT, shard, shards);
}

static int find_cut(const struct model *whole, const struct model_place *place, struct cut *cut)
{
    uint32_t head_unit;
    uint32_t ffn_unit;
    find_units(whole, &head_unit, &ffn_unit);
    cut->heads = share(whole->head_count, head_unit, place->shard, place->shards);
    cut->ffn = share(whole->ffn_width, ffn_unit, place->shard, place->shards);
    cut->kv_heads.begin = cut->heads.begin / whole->head_group;
    cut->kv_heads.end = (cut->heads.end + whole->head_group - 1) / whole->head_group;
    /* No rank may be without. */
    return units_of(whole->head_count, head_unit) < place->shards ||
                   units_of(whole->ffn_width, ffn_unit) < place->shards ||
                   units_of(whole->vocab, VOCAB_UNIT) < place->shards
               ? -EINVAL
               : 0;
}

static bool is_place(const struct model *whole, const struct model_place *place)
{
    return place->stages && place->stage < place->stages && place->shards &&
           place->shard < place->shards && place->stages <= whole->layer_count;
}

int model_share(const struct model *whole, const struct model_place *place, struct model_share *out)
{
    struct cut cut;
    if (!is_place(whole, place) || find_cut(whole, place, &cut))
        return -EINVAL;
    *out = (struct model_share){share(whole->layer_count, 1, place->stage, place->stages),
                                cut.kv_heads};
    return 0;
}

int model_part(struct model **out, const struct model *whole, const struct model_place *place,
               char *why, size_t why_size)
{
    struct cut cut;
    *out = NULL;
    if (!is_place(whole, place) || find_cut(whole, place, &cut)) {
        (void)snprintf(why, why_size,
                       "%u layers, %u heads and %u rows of the MLP in blocks of the file's types "
                       "cannot be cut into %u stages of %u shards",
                       whole->layer_count, whole->head_count, whole->ffn_width, place->stages,
                       place->shards);
        return -EINVAL;
    }
    const struct model_rows layers = share(whole->layer_count, 1, place->stage, place->stages);
    struct model *m = malloc(sizeof(*m));
    if (!m)
        return -ENOMEM;
    *m = *whole;
    m->file = NULL;
    m->head_count = cut.heads.end - cut.heads.begin;
    m->kv_head_count = cut.kv_heads.end - cut.kv_heads.begin;
    m->head_skip = cut.heads.begin % whole->head_group;
    m->ffn_width = cut.ffn.end - cut.ffn.begin;
    m->layer_count = layers.end - layers.begin;
    m->weight_bytes = bytes_of(&m->output_norm);
    m->layers = calloc(m->layer_count, sizeof(*m->layers));
    if (!m->layers) {
        free(m);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < m->layer_count; i++) {
        m->layers[i] = whole->layers[layers.begin + i];
        cut_layer(&m->layers[i], &cut, whole->head_width);
        m->weight_bytes += layer_bytes(&m->layers[i]);
    }
    struct model_rows vocab = {0, 0}; /* only the last stage gives logits */
    if (place->stage + 1 == place->stages)
        vocab = model_vocab_rows(whole, place->shard, place->shards);
    keep_rows(&m->output, vocab.begin, vocab.end);
    m->weight_bytes += bytes_of(&m->output);
    *out = m;
    return 0;
}
