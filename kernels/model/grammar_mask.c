/* SPDX-License-Identifier: Apache-2.0 */
/* See grammar_mask.h. */
#include "kernels/model/grammar_mask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/utf8.h"

#define NONE       UINT32_MAX
#define REMEMBERED 32u
#define WORD_BITS  32u

/* In the order of a walk; `next` is the one to go on with if nothing fits below. */
struct trie_node {
    uint32_t token; /* NONE: no token ends here */
    uint32_t next;
    uint8_t depth;
    uint8_t byte;
};

struct trie {
    struct trie_node *nodes;
    uint32_t count;
};

struct word {
    uint32_t token;
    uint32_t at; /* in `bytes` */
    uint8_t len;
};

struct grammar_vocab {
    uint32_t count;
    uint32_t words;    /* of a mask */
    struct word *list; /* by token; len 0: never allowed */
    char *bytes;
    struct trie all;
    struct trie odd;  /* those that are no ordinary text */
    uint32_t *plain;  /* mask: ordinary text */
    uint8_t *lengths; /* characters of it */
    uint32_t *stops;  /* mask */
    uint32_t *same;   /* the next token with the same bytes, NONE = none */
};

struct remembered {
    uint64_t id; /* 0: nothing */
    uint64_t used;
    uint32_t most; /* bytes to the end behind the worst token of the mask */
    struct grammar_state state;
    uint32_t *mask;
};

struct grammar_masks {
    const struct grammar_vocab *vocab;
    struct remembered memory[REMEMBERED];
    uint64_t clock;
    uint32_t *mask;                                     /* of a walk that is not remembered */
    struct grammar_state states[GRAMMAR_TOKEN_MAX + 1]; /* of a walk, by depth */
};

static void bit_set(uint32_t *mask, uint32_t token)
{
    mask[token / WORD_BITS] |= UINT32_C(1) << token % WORD_BITS;
}

/* ---- the vocabulary ---- */

/* Characters that may stand in a string as they are, all whole. 0: not so. */
static uint8_t plain_length(const char *bytes, size_t len)
{
    uint8_t characters = 0;
    for (size_t at = 0; at < len; characters++) {
        const uint8_t byte = (uint8_t)bytes[at];
        if (byte < 0x20 || byte == '"' || byte == '\\')
            return 0;
        const size_t one = byte < 0x80 ? 1 : utf8_whole((const uint8_t *)bytes + at, len - at);
        if (one == 0)
            return 0;
        at += one;
    }
    return characters;
}

static int word_compare(const void *a, const void *b, void *bytes)
{
    const struct word *x = a;
    const struct word *y = b;
    const size_t len = x->len < y->len ? x->len : y->len;
    const int order = memcmp((const char *)bytes + x->at, (const char *)bytes + y->at, len);
    if (order)
        return order;
    return x->len != y->len ? x->len - y->len : x->token < y->token ? -1 : 1;
}

/* Sorted words to a trie. Words with the same bytes: the first stands for all. */
static int trie_build(struct grammar_vocab *v, const struct word *words, uint32_t count,
                      struct trie *trie)
{
    size_t nodes = 1;
    for (uint32_t i = 0; i < count; i++)
        nodes += words[i].len;
    trie->nodes = malloc(nodes * sizeof(*trie->nodes));
    if (!trie->nodes)
        return -ENOMEM;
    uint32_t open[GRAMMAR_TOKEN_MAX]; /* the way to the last word */
    size_t depth = 0;
    const struct word *last = NULL;
    for (uint32_t i = 0; i < count; i++) {
        const struct word *w = &words[i];
        size_t common = 0;
        while (last && common < depth && common < w->len &&
               v->bytes[last->at + common] == v->bytes[w->at + common])
            common++;
        while (depth > common)
            trie->nodes[open[--depth]].next = trie->count;
        for (; depth < w->len; depth++) {
            open[depth] = trie->count;
            trie->nodes[trie->count++] =
                (struct trie_node){NONE, NONE, (uint8_t)depth, (uint8_t)v->bytes[w->at + depth]};
        }
        struct trie_node *end = &trie->nodes[open[depth - 1]];
        v->same[w->token] = end->token;
        end->token = w->token;
        last = w;
    }
    while (depth > 0)
        trie->nodes[open[--depth]].next = trie->count;
    struct trie_node *shrunk =
        realloc(trie->nodes, (trie->count ? trie->count : 1) * sizeof(*trie->nodes));
    trie->nodes = shrunk ? shrunk : trie->nodes;
    return 0;
}

static size_t words_read(struct grammar_vocab *v, const tokenizer_t *tokenizer)
{
    size_t used = 0;
    for (uint32_t token = 0; token < v->count; token++) {
        const struct gguf_str bytes = tokenizer_token_bytes(tokenizer, token);
        if (tokenizer_is_stop(tokenizer, token)) {
            if (v->stops)
                bit_set(v->stops, token);
            continue;
        }
        if (bytes.len == 0 || bytes.len > GRAMMAR_TOKEN_MAX)
            continue;
        if (v->bytes) {
            memcpy(v->bytes + used, bytes.data, bytes.len);
            v->list[token] = (struct word){token, (uint32_t)used, (uint8_t)bytes.len};
            v->lengths[token] = plain_length(bytes.data, bytes.len);
            if (v->lengths[token])
                bit_set(v->plain, token);
        }
        used += bytes.len;
    }
    return used;
}

/* Is there a token for each byte that a grammar can insist on? */
static bool has_bytes(const struct grammar_vocab *v)
{
    uint32_t found = 0;
    for (uint32_t i = 0; i < v->all.count; i++) {
        const struct trie_node *node = &v->all.nodes[i];
        found += node->depth == 0 && node->token != NONE && node->byte >= ' ' && node->byte < 0x7f;
    }
    return found == 0x7f - ' ';
}

static int tries_build(struct grammar_vocab *v)
{
    struct word *sorted = malloc((v->count + 1) * sizeof(*sorted));
    uint32_t count = 0;
    if (!sorted)
        return -ENOMEM;
    for (uint32_t token = 0; token < v->count; token++)
        if (v->list[token].len && !v->lengths[token])
            sorted[count++] = v->list[token];
    qsort_r(sorted, count, sizeof(*sorted), word_compare, v->bytes);
    int rc = trie_build(v, sorted, count, &v->odd);
    count = 0;
    for (uint32_t token = 0; token < v->count; token++)
        if (v->list[token].len)
            sorted[count++] = v->list[token];
    qsort_r(sorted, count, sizeof(*sorted), word_compare, v->bytes);
    if (rc == 0)
        rc = trie_build(v, sorted, count, &v->all); /* `same` comes out alike */
    free(sorted);
    return rc ? rc : has_bytes(v) ? 0 : -ENOTSUP;
}

int grammar_vocab_create(struct grammar_vocab **out, const tokenizer_t *tokenizer)
{
    *out = NULL;
    struct grammar_vocab *v = calloc(1, sizeof(*v));
    if (!v)
        return -ENOMEM;
    v->count = tokenizer_vocab(tokenizer);
    v->words = (v->count + WORD_BITS - 1) / WORD_BITS;
    const size_t bytes = words_read(v, tokenizer);
    v->list = calloc(v->count, sizeof(*v->list));
    v->bytes = malloc(bytes + 1);
    v->plain = calloc(v->words, sizeof(*v->plain));
    v->stops = calloc(v->words, sizeof(*v->stops));
    v->lengths = calloc(v->count, sizeof(*v->lengths));
    v->same = calloc(v->count, sizeof(*v->same));
    int rc = v->list && v->bytes && v->plain && v->stops && v->lengths && v->same ? 0 : -ENOMEM;
    if (rc == 0) {
        (void)words_read(v, tokenizer);
        rc = tries_build(v);
    }
    if (rc) {
        grammar_vocab_destroy(v);
        return rc;
    }
    *out = v;
    return 0;
}

void grammar_vocab_destroy(struct grammar_vocab *v)
{
    if (!v)
        return;
    free(v->list);
    free(v->bytes);
    free(v->all.nodes);
    free(v->odd.nodes);
    free(v->plain);
    free(v->stops);
    free(v->lengths);
    free(v->same);
    free(v);
}

bool grammar_take(const struct grammar *g, const struct grammar_vocab *v,
                  struct grammar_state *state, uint32_t token)
{
    if (token >= v->count || v->list[token].len == 0)
        return false;
    const struct word *w = &v->list[token];
    for (size_t i = 0; i < w->len; i++)
        if (!grammar_step(g, state, (uint8_t)v->bytes[w->at + i]))
            return false;
    return true;
}

/* ---- masks ---- */

int grammar_masks_create(struct grammar_masks **out, const struct grammar_vocab *vocab)
{
    struct grammar_masks *m = calloc(1, sizeof(*m));
    bool whole = m != NULL;
    for (size_t i = 0; whole && i < REMEMBERED; i++) {
        m->memory[i].mask = malloc(vocab->words * sizeof(uint32_t));
        whole = m->memory[i].mask != NULL;
    }
    if (whole)
        m->mask = malloc(vocab->words * sizeof(uint32_t));
    if (!whole || !m->mask) {
        grammar_masks_destroy(m);
        *out = NULL;
        return -ENOMEM;
    }
    m->vocab = vocab;
    *out = m;
    return 0;
}

void grammar_masks_destroy(struct grammar_masks *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < REMEMBERED; i++)
        free(m->memory[i].mask);
    free(m->mask);
    free(m);
}

struct walk {
    const struct grammar *g;
    uint32_t limit; /* bytes to the end behind a token, at most */
    uint32_t most;  /* the same, of those that are allowed */
    uint32_t count;
    uint32_t *mask;
};

static void walk_trie(struct grammar_masks *m, struct walk *w, const struct trie *trie)
{
    const struct grammar_vocab *v = m->vocab;
    for (uint32_t i = 0; i < trie->count;) {
        const struct trie_node *node = &trie->nodes[i];
        struct grammar_state *state = &m->states[node->depth + 1];
        grammar_copy(state, &m->states[node->depth]);
        if (!grammar_step(w->g, state, node->byte)) {
            i = node->next;
            continue;
        }
        i++;
        if (node->token == NONE)
            continue;
        const uint32_t rest = grammar_rest(w->g, state);
        if (rest > w->limit)
            continue;
        w->most = rest > w->most ? rest : w->most;
        w->count++;
        for (uint32_t token = node->token; token != NONE; token = v->same[token])
            bit_set(w->mask, token);
    }
}

/* Ordinary text inside a string that takes so many more characters. */
static void allow_text(const struct grammar_vocab *v, uint32_t *mask, uint32_t characters)
{
    if (characters >= GRAMMAR_TOKEN_MAX) {
        for (uint32_t i = 0; i < v->words; i++)
            mask[i] |= v->plain[i];
        return;
    }
    for (uint32_t token = 0; token < v->count; token++)
        if (v->lengths[token] && v->lengths[token] <= characters)
            bit_set(mask, token);
}

/* Fills `mask`. Returns the bytes to the end behind the worst of its tokens. */
static uint32_t mask_make(struct grammar_masks *m, const struct grammar *g,
                          const struct grammar_state *state, uint32_t limit, uint32_t *mask)
{
    const struct grammar_vocab *v = m->vocab;
    const uint32_t text = grammar_free_text(g, state);
    const uint32_t rest = grammar_rest(g, state);
    struct walk w = {.g = g, .limit = limit, .mask = mask};
    grammar_copy(&m->states[0], state);
    memset(mask, 0, v->words * sizeof(*mask));
    if (text && state->threads == 1 && rest <= limit) { /* text brings the end no farther away */
        w.most = rest;
        walk_trie(m, &w, &v->odd);
        allow_text(v, mask, text);
    } else {
        walk_trie(m, &w, &v->all);
    }
    if (grammar_may_end(g, state)) {
        for (uint32_t i = 0; i < v->words; i++)
            mask[i] |= v->stops[i];
        w.count++;
    } else if (w.count == 0 && limit != UINT32_MAX) {
        return mask_make(m, g, state, UINT32_MAX, mask); /* alternatives that were not followed */
    }
    return w.most;
}

static struct remembered *find(struct grammar_masks *m, uint64_t id,
                               const struct grammar_state *state)
{
    struct remembered *oldest = &m->memory[0];
    for (size_t i = 0; i < REMEMBERED; i++) {
        struct remembered *r = &m->memory[i];
        if (r->id == id && grammar_equal(&r->state, state))
            return r;
        oldest = r->used < oldest->used ? r : oldest;
    }
    oldest->id = 0;
    return oldest;
}

const uint32_t *grammar_mask(struct grammar_masks *m, const struct grammar *g, uint64_t id,
                             const struct grammar_state *state, uint32_t left)
{
    const uint32_t rest = grammar_rest(g, state);
    const uint32_t limit = (left > rest ? left : rest ? rest : 1) - 1;
    struct remembered *r = find(m, id, state);
    if (r->id == 0) {
        r->most = mask_make(m, g, state, UINT32_MAX, r->mask);
        r->id = id;
        grammar_copy(&r->state, state);
    }
    r->used = ++m->clock;
    if (r->most <= limit)
        return r->mask;
    (void)mask_make(m, g, state, limit, m->mask);
    return m->mask;
}
