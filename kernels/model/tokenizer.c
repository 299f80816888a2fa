/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of a byte-level BPE and the encoder's outer loop: specials, runs of sound UTF-8, the
 * pre-tokenizer's patterns. bpe.c joins the pairs of one piece. */
#include "kernels/model/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <errno.h>
#include <pcre2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/bpe.h"
#include "schemas/base/utf8.h"

#define VOCAB_MAX    (1u << 24)
#define STAGES_MAX   2u
#define STOPS_MAX    8u
#define SPECIALS_MAX 4096u

/* Token types in GGUF. */
#define TOKEN_CONTROL      3
#define TOKEN_USER_DEFINED 4

/* White space as Unicode defines it. PCRE2's \s has U+180E too, which is none. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"             \
    "\\x{202f}\\x{205f}\\x{3000}"
/* GPT-2's pattern (https://github.com/openai/gpt-2/blob/master/src/encoder.py). */
#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|[" SPACES            \
    "]+(?![^" SPACES "])|[" SPACES "]+"
#define QWEN2_PATTERN                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" SPACES                \
    "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACES "]*[\\r\\n]+|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]+"

#define LLAMA3_PATTERN                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^" SPACES           \
    "\\p{L}\\p{N}]+[\\r\\n]*|[" SPACES "]*[\\r\\n]+|[" SPACES "]+(?![^" SPACES "])|[" SPACES "]+"

/* Each stage cuts the pieces of the one before: what matches, and what lies between matches. */
static const struct pre_tokenizer {
    const char *name;
    const char *stages[STAGES_MAX];
    bool whole_first; /* a piece that is a token is that token, whatever the merges say */
    bool adds_bos;    /* unless the file says otherwise */
} pre_tokenizers[] = {
    {"gpt-2", {GPT2_PATTERN, NULL}, false, false},
    {"smollm", {"\\p{N}", GPT2_PATTERN}, false, false},
    {"qwen2", {QWEN2_PATTERN, NULL}, false, false},
    {"llama-bpe", {LLAMA3_PATTERN, NULL}, true, true},
};

struct special {
    struct gguf_str text;
    uint32_t id;
};

struct tokenizer {
    struct bpe bpe;
    struct gguf_str *tokens; /* bytes of each; NULL data for control tokens */
    uint32_t vocab;
    char *bytes; /* what `tokens` points into */
    pcre2_code *stages[STAGES_MAX];
    const struct pre_tokenizer *pre;
    struct special *specials; /* sorted by first byte, then longest first */
    size_t special_count;
    uint32_t special_begin[257]; /* of each first byte */
    size_t longest;              /* bytes of the longest token or special */
    uint32_t bos;
    uint32_t stops[STOPS_MAX];
    uint32_t stop_count;
};

struct builder {
    tokenizer_t *t;
    const gguf_t *file;
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static int builder_fail(struct builder *b, int rc,
                                                              const char *format, ...)
{
    if (b->why && b->why_size) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(b->why, b->why_size, format, args);
        va_end(args);
    }
    return rc;
}

/* GPT-2 writes each byte as a printable character: itself if it is one, else the next free one from
 * U+0100. */
static void make_byte_of_char(uint16_t byte_of_char[512])
{
    uint32_t next = 256;
    for (uint32_t c = 0; c < 512; c++)
        byte_of_char[c] = UINT16_MAX;
    for (uint32_t b = 0; b < 256; b++) {
        const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        byte_of_char[printable ? b : next++] = (uint16_t)b;
    }
}

/* Token text to bytes. Returns the length, or SIZE_MAX if a character stands for no byte. `out` has
 * room for as many bytes as the text. */
static size_t text_to_bytes(const uint16_t byte_of_char[512], struct gguf_str text, char *out)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; len++) {
        const uint8_t lead = (uint8_t)text.data[i];
        uint32_t c = lead;
        i++;
        if (lead >= 0x80) {
            if (lead < 0xc2 || lead > 0xc7 || i == text.len ||
                ((uint8_t)text.data[i] & 0xc0u) != 0x80)
                return SIZE_MAX;
            c = (uint32_t)(lead & 0x1f) << 6 | ((uint8_t)text.data[i] & 0x3fu);
            i++;
        }
        if (byte_of_char[c] == UINT16_MAX)
            return SIZE_MAX;
        out[len] = (char)byte_of_char[c];
    }
    return len;
}

static int token_type(const struct gguf_array *types, uint32_t id)
{
    int32_t type;
    if (types->count <= id)
        return 1;
    memcpy(&type, types->data + (size_t)id * sizeof(type), sizeof(type));
    return type;
}

static int add_special(struct builder *b, struct gguf_str text, uint32_t id)
{
    tokenizer_t *t = b->t;
    if (text.len == 0)
        return 0;
    if (t->special_count == SPECIALS_MAX)
        return builder_fail(b, -EINVAL, "more than %u special tokens", SPECIALS_MAX);
    t->specials[t->special_count++] = (struct special){text, id};
    t->longest = text.len > t->longest ? text.len : t->longest;
    return 0;
}

static int special_compare(const void *a, const void *b)
{
    const struct special *x = a;
    const struct special *y = b;
    const uint8_t cx = (uint8_t)x->text.data[0];
    const uint8_t cy = (uint8_t)y->text.data[0];
    if (cx != cy)
        return cx < cy ? -1 : 1;
    if (x->text.len != y->text.len)
        return x->text.len > y->text.len ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static void index_specials(tokenizer_t *t)
{
    size_t at = 0;
    qsort(t->specials, t->special_count, sizeof(*t->specials), special_compare);
    for (uint32_t c = 0; c <= 256; c++) {
        while (at < t->special_count && (uint8_t)t->specials[at].text.data[0] < c)
            at++;
        t->special_begin[c] = (uint32_t)at;
    }
}

static int read_tokens(struct builder *b)
{
    tokenizer_t *t = b->t;
    struct gguf_array names;
    struct gguf_array types = {0};
    struct gguf_str text;
    uint16_t byte_of_char[512];
    size_t cursor = 0;
    size_t used = 0;
    if (gguf_get_array(b->file, "tokenizer.ggml.tokens", &names) || names.type != GGUF_STRING ||
        names.count == 0 || names.count > VOCAB_MAX)
        return builder_fail(b, -EINVAL, "tokenizer.ggml.tokens is missing or not usable");
    if (gguf_get_array(b->file, "tokenizer.ggml.token_type", &types) == 0 &&
        (types.type != GGUF_I32 || types.count != names.count))
        return builder_fail(b, -EINVAL, "tokenizer.ggml.token_type is not usable");
    t->vocab = (uint32_t)names.count;
    t->tokens = calloc(t->vocab, sizeof(*t->tokens));
    t->bytes = malloc(names.size_bytes);
    t->specials = calloc(SPECIALS_MAX, sizeof(*t->specials));
    if (!t->tokens || !t->bytes || !t->specials || bpe_init(&t->bpe, t->vocab))
        return -ENOMEM;
    make_byte_of_char(byte_of_char);
    for (uint32_t id = 0; gguf_array_str(&names, &cursor, &text); id++) {
        const int type = token_type(&types, id);
        if (type == TOKEN_CONTROL || type == TOKEN_USER_DEFINED) {
            int rc = add_special(b, text, id);
            if (rc)
                return rc;
            if (type == TOKEN_USER_DEFINED)
                t->tokens[id] = text;
            continue;
        }
        const size_t len = text_to_bytes(byte_of_char, text, t->bytes + used);
        if (len == SIZE_MAX)
            continue; /* a token that text never becomes and that says nothing */
        t->tokens[id] = (struct gguf_str){t->bytes + used, len};
        t->longest = len > t->longest ? len : t->longest;
        bpe_add_token(&t->bpe, t->tokens[id].data, len, id);
        used += len;
    }
    index_specials(t);
    return 0;
}

/* A merge is "left right" in the tokens' own spelling, best first. */
static int read_merges(struct builder *b)
{
    tokenizer_t *t = b->t;
    struct gguf_array merges;
    struct gguf_str text;
    uint16_t byte_of_char[512];
    size_t cursor = 0;
    if (gguf_get_array(b->file, "tokenizer.ggml.merges", &merges) || merges.type != GGUF_STRING ||
        merges.count > VOCAB_MAX)
        return builder_fail(b, -EINVAL, "tokenizer.ggml.merges is missing or not usable");
    char *joined = malloc(merges.size_bytes + 1);
    if (!joined || bpe_reserve_merges(&t->bpe, (uint32_t)merges.count)) {
        free(joined);
        return -ENOMEM;
    }
    make_byte_of_char(byte_of_char);
    int rc = 0;
    for (uint32_t rank = 0; rc == 0 && gguf_array_str(&merges, &cursor, &text); rank++) {
        const char *space = text.len > 1 ? memchr(text.data + 1, ' ', text.len - 1) : NULL;
        size_t left = SIZE_MAX;
        size_t right = SIZE_MAX;
        if (space) {
            const size_t split = (size_t)(space - text.data);
            const struct gguf_str second = {space + 1, text.len - split - 1};
            left = text_to_bytes(byte_of_char, (struct gguf_str){text.data, split}, joined);
            if (left != SIZE_MAX)
                right = text_to_bytes(byte_of_char, second, joined + left);
        }
        if (left == SIZE_MAX || right == SIZE_MAX ||
            bpe_add_merge(&t->bpe, joined, left, right, rank))
            rc = builder_fail(b, -EINVAL, "merge %u does not join two tokens to a third", rank);
    }
    free(joined);
    return rc;
}

static int compile_stages(struct builder *b)
{
    struct gguf_str name = {"gpt-2", 5};
    const struct pre_tokenizer *found = NULL;
    (void)gguf_get_str(b->file, "tokenizer.ggml.pre", &name);
    for (size_t i = 0; i < sizeof(pre_tokenizers) / sizeof(pre_tokenizers[0]); i++)
        if (gguf_str_equal(name, pre_tokenizers[i].name))
            found = &pre_tokenizers[i];
    if (!found)
        return builder_fail(b, -ENOTSUP, "pre-tokenizer %.*s is not supported",
                            name.len > 32 ? 32 : (int)name.len, name.data);
    b->t->pre = found;
    for (size_t i = 0; i < STAGES_MAX && found->stages[i]; i++) {
        int error;
        size_t offset;
        b->t->stages[i] = pcre2_compile((PCRE2_SPTR)found->stages[i], PCRE2_ZERO_TERMINATED,
                                        PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
        if (!b->t->stages[i])
            return -ENOMEM;
        (void)pcre2_jit_compile(b->t->stages[i], PCRE2_JIT_COMPLETE); /* slower without */
    }
    return 0;
}

static void add_stop(tokenizer_t *t, uint32_t token)
{
    if (token < t->vocab && t->stop_count < STOPS_MAX && !tokenizer_is_stop(t, token))
        t->stops[t->stop_count++] = token;
}

static void read_ends(struct builder *b)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char *const names[] = {"<|endoftext|>", "<|im_end|>", "<|eot_id|>"};
    tokenizer_t *t = b->t;
    uint32_t id;
    bool wanted = t->pre->adds_bos;
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        if (gguf_get_u32(b->file, keys[i], &id) == 0)
            add_stop(t, id);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        add_stop(t, tokenizer_special(t, names[i]));
    t->bos = TOKENIZER_NONE;
    (void)gguf_get_bool(b->file, "tokenizer.ggml.add_bos_token", &wanted);
    if (wanted && gguf_get_u32(b->file, "tokenizer.ggml.bos_token_id", &id) == 0 && id < t->vocab)
        t->bos = id;
}

int tokenizer_create(tokenizer_t **out, const gguf_t *file, char *why, size_t why_size)
{
    struct builder b = {.file = file, .why = why, .why_size = why_size};
    struct gguf_str kind;
    *out = NULL;
    if (gguf_get_str(file, "tokenizer.ggml.model", &kind))
        return builder_fail(&b, -EINVAL, "the file has no tokenizer");
    if (!gguf_str_equal(kind, "gpt2"))
        return builder_fail(&b, -ENOTSUP, "tokenizer %.*s is not supported (gpt2 is)",
                            kind.len > 32 ? 32 : (int)kind.len, kind.data);
    b.t = calloc(1, sizeof(*b.t));
    if (!b.t)
        return -ENOMEM;
    int rc = read_tokens(&b);
    if (!rc)
        rc = read_merges(&b);
    if (!rc)
        rc = compile_stages(&b);
    if (rc) {
        tokenizer_destroy(b.t);
        return rc;
    }
    read_ends(&b);
    *out = b.t;
    return 0;
}

void tokenizer_destroy(tokenizer_t *tokenizer)
{
    if (!tokenizer)
        return;
    for (size_t i = 0; i < STAGES_MAX; i++)
        pcre2_code_free(tokenizer->stages[i]);
    bpe_deinit(&tokenizer->bpe);
    free(tokenizer->tokens);
    free(tokenizer->bytes);
    free(tokenizer->specials);
    free(tokenizer);
}

/* ---- encoding ---- */

struct encoder {
    const tokenizer_t *t;
    pcre2_match_data *matches[STAGES_MAX];
    struct bpe_work work;
    uint32_t *out;
    size_t capacity;
    size_t count;
};

static int encode_piece(struct encoder *e, const char *text, size_t len)
{
    size_t added;
    if (len == 0)
        return 0;
    if (len / e->t->longest > e->capacity - e->count)
        return -ENOBUFS;
    if (e->t->pre->whole_first && e->count < e->capacity) {
        const uint32_t id = bpe_find(&e->t->bpe, text, len);
        if (id != UINT32_MAX) {
            e->out[e->count++] = id;
            return 0;
        }
    }
    int rc = bpe_encode(&e->t->bpe, &e->work, text, len, e->out + e->count, e->capacity - e->count,
                        &added);
    if (rc == 0)
        e->count += added;
    return rc;
}

/* Cuts sound UTF-8 by one stage's pattern and hands the pieces to the next. Each piece is matched
 * as a text of its own, so that "end of text" in a later pattern means the end of the piece. */
static int encode_stage(struct encoder *e, size_t stage, const char *text, size_t len)
{
    if (stage == STAGES_MAX || !e->t->stages[stage])
        return encode_piece(e, text, len);
    size_t at = 0;
    int rc = 0;
    while (rc == 0 && at < len) {
        size_t begin = len;
        size_t end = len;
        int found = pcre2_match(e->t->stages[stage], (PCRE2_SPTR)text, len, at,
                                PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, e->matches[stage], NULL);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH)
            return found == PCRE2_ERROR_NOMEMORY ? -ENOMEM : -EINVAL;
        if (found >= 0) {
            const size_t *span = pcre2_get_ovector_pointer(e->matches[stage]);
            begin = span[0];
            end = span[1];
        }
        if (begin > at)
            rc = encode_stage(e, stage + 1, text + at, begin - at);
        if (rc == 0 && end > begin)
            rc = encode_stage(e, stage + 1, text + begin, end - begin);
        at = end;
    }
    return rc;
}

/* Text without specials: alternating runs of sound UTF-8 and of other bytes. */
static int encode_text(struct encoder *e, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t at = 0;
    int rc = 0;
    while (rc == 0 && at < len) {
        const size_t begin = at;
        size_t step = 0;
        while (at < len && (step = utf8_whole(p + at, len - at)) > 0)
            at += step;
        rc = encode_stage(e, 0, text + begin, at - begin);
        const size_t broken = at;
        while (at < len && utf8_whole(p + at, len - at) == 0)
            at++;
        if (rc == 0)
            rc = encode_piece(e, text + broken, at - broken);
    }
    return rc;
}

static const struct special *special_at(const tokenizer_t *t, const char *text, size_t len)
{
    const uint8_t first = (uint8_t)text[0];
    for (uint32_t i = t->special_begin[first]; i < t->special_begin[first + 1]; i++) {
        const struct special *s = &t->specials[i];
        if (s->text.len <= len && memcmp(s->text.data, text, s->text.len) == 0)
            return s;
    }
    return NULL;
}

static int encode_with_specials(struct encoder *e, const char *text, size_t len)
{
    size_t begin = 0;
    size_t at = 0;
    while (at < len) {
        const struct special *s = special_at(e->t, text + at, len - at);
        if (!s) {
            at++;
            continue;
        }
        int rc = encode_text(e, text + begin, at - begin);
        if (rc)
            return rc;
        if (e->count == e->capacity)
            return -ENOBUFS;
        e->out[e->count++] = s->id;
        at += s->text.len;
        begin = at;
    }
    return encode_text(e, text + begin, len - begin);
}

int tokenizer_encode(const tokenizer_t *tokenizer, const char *text, size_t len, unsigned flags,
                     uint32_t *out, size_t capacity, size_t *count)
{
    struct encoder e = {.t = tokenizer, .out = out, .capacity = capacity};
    int rc = 0;
    *count = 0;
    if (len == 0)
        return 0;
    if (tokenizer->longest == 0)
        return -EINVAL;
    if (len / tokenizer->longest > capacity)
        return -ENOBUFS;
    for (size_t i = 0; i < STAGES_MAX && tokenizer->stages[i]; i++) {
        e.matches[i] = pcre2_match_data_create(1, NULL);
        if (!e.matches[i])
            rc = -ENOMEM;
    }
    if (rc == 0)
        rc = flags & TOKENIZER_PARSE_SPECIAL ? encode_with_specials(&e, text, len)
                                             : encode_text(&e, text, len);
    if (rc == 0)
        *count = e.count;
    for (size_t i = 0; i < STAGES_MAX; i++)
        pcre2_match_data_free(e.matches[i]);
    bpe_work_deinit(&e.work);
    return rc;
}

/* ---- the rest ---- */

struct gguf_str tokenizer_token_bytes(const tokenizer_t *tokenizer, uint32_t token)
{
    if (token >= tokenizer->vocab || !tokenizer->tokens[token].data)
        return (struct gguf_str){"", 0};
    return tokenizer->tokens[token];
}

size_t tokenizer_decode(const tokenizer_t *tokenizer, const uint32_t *tokens, size_t count,
                        char *out, size_t capacity)
{
    size_t needed = 0;
    for (size_t i = 0; i < count; i++) {
        const struct gguf_str bytes = tokenizer_token_bytes(tokenizer, tokens[i]);
        if (needed <= capacity && bytes.len <= capacity - needed && bytes.len)
            memcpy(out + needed, bytes.data, bytes.len);
        needed += bytes.len;
    }
    return needed;
}

uint32_t tokenizer_special(const tokenizer_t *tokenizer, const char *name)
{
    for (size_t i = 0; i < tokenizer->special_count; i++)
        if (gguf_str_equal(tokenizer->specials[i].text, name))
            return tokenizer->specials[i].id;
    return TOKENIZER_NONE;
}

uint32_t tokenizer_vocab(const tokenizer_t *tokenizer)
{
    return tokenizer->vocab;
}

uint32_t tokenizer_bos(const tokenizer_t *tokenizer)
{
    return tokenizer->bos;
}

bool tokenizer_is_stop(const tokenizer_t *tokenizer, uint32_t token)
{
    for (uint32_t i = 0; i < tokenizer->stop_count; i++)
        if (tokenizer->stops[i] == token)
            return true;
    return false;
}
