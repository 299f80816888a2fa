/* SPDX-License-Identifier: Apache-2.0 */
/* A GGUF writer that knows one family and nothing else. */
#include "tiny_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/model/gguf.h"

#define ALIGNMENT  32u
#define MODEL_FILE "weft/SmolLM2-135M-Instruct.Q4_1.gguf"

const struct tiny_shape tiny_default = {
    .seed = 1,
    .type = GGUF_TENSOR_Q4_1,
    .embedding_type = GGUF_TENSOR_Q8_0,
    .layers = 2,
    .heads = 6,
    .kv_heads = 2,
    .head_width = 16,
    .ffn_width = 160,
    .context = 128,
};

/* In GPT-2's spelling, in which a space is U+0120. */
static const char *const merges[] = {"h e",          "l l", "he ll", "hell o", "\xc4\xa0 t", "e r",
                                     "\xc4\xa0t he", "a a", "aa aa", "o r",    "\xc4\xa0 w", "1 2",
                                     "y z",          "x y", "yz w",  "x yz"};
#define MERGES (sizeof(merges) / sizeof(merges[0]))
static const char *const specials[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
#define EXTRAS_MAX 4u

/* What depends on the kind of chat; templates are cut down to what is looked at. */
static const struct kind {
    const char *pre;
    const char *extras[EXTRAS_MAX];
    uint32_t extra_type; /* GGUF's: control or user-defined */
    uint32_t stop;
    const char *template;
} kinds[] = {
    [TINY_CHATML] =
        {"smollm",
         {NULL},
         3,
         TINY_IM_END,
         "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
         "{{ '<|im_start|>system\nBe brief<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
         "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    [TINY_LLAMA3] = {"llama-bpe",
                     {"<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
                      "<|eot_id|>"},
                     3,
                     TINY_EOT,
                     "{{ bos_token }}{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}"
                     "{{ 'Cutting Knowledge Date: December 2023\n' }}{{ content | trim + "
                     "'<|eot_id|>' }}{% if add_generation_prompt %}"},
    [TINY_QWEN3] = {"qwen2",
                    {"<think>", "</think>"},
                    4,
                    TINY_IM_END,
                    "{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}"
                    "{% if add_generation_prompt %}{% if enable_thinking is false %}"},
};

static const struct kind *kind_of(const struct tiny_shape *s)
{
    return &kinds[s->chat];
}

static uint32_t extras_of(const struct tiny_shape *s)
{
    uint32_t count = 0;
    while (count < EXTRAS_MAX && kind_of(s)->extras[count])
        count++;
    return count;
}

static uint32_t vocab_of(const struct tiny_shape *s)
{
    return TINY_VOCAB + extras_of(s);
}

struct writer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t header_size;
    uint64_t rng;
    const struct tiny_shape *shape;
    uint64_t tensors; /* written */
};

uint64_t tiny_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

float tiny_random_float(uint64_t *state)
{
    return (float)(tiny_random(state) >> 40) * 0x1p-23f - 1.0f;
}

static void put(struct writer *w, const void *data, size_t size)
{
    if (w->size + size > w->capacity) {
        w->capacity = (w->size + size) * 2;
        w->data = realloc(w->data, w->capacity);
        if (!w->data)
            abort();
    }
    memcpy(w->data + w->size, data, size);
    w->size += size;
}

static void put_u32(struct writer *w, uint32_t v)
{
    put(w, &v, sizeof(v));
}

static void put_u64(struct writer *w, uint64_t v)
{
    put(w, &v, sizeof(v));
}

static void put_bytes(struct writer *w, const char *text, size_t len)
{
    put_u64(w, len);
    put(w, text, len);
}

static void put_str(struct writer *w, const char *text)
{
    put_bytes(w, text, strlen(text));
}

static void pad(struct writer *w)
{
    static const uint8_t zeros[ALIGNMENT];
    put(w, zeros, (ALIGNMENT - w->size % ALIGNMENT) % ALIGNMENT);
}

static void kv_u32(struct writer *w, const char *key, uint32_t v)
{
    put_str(w, key);
    put_u32(w, GGUF_U32);
    put_u32(w, v);
}

static void kv_f32(struct writer *w, const char *key, float v)
{
    put_str(w, key);
    put_u32(w, GGUF_F32);
    put(w, &v, sizeof(v));
}

static void kv_str(struct writer *w, const char *key, const char *text)
{
    put_str(w, key);
    put_u32(w, GGUF_STRING);
    put_str(w, text);
}

static void kv_array(struct writer *w, const char *key, uint32_t type, uint64_t count)
{
    put_str(w, key);
    put_u32(w, GGUF_ARRAY);
    put_u32(w, type);
    put_u64(w, count);
}

/* The n-th character of GPT-2's byte alphabet, as UTF-8. */
static size_t byte_char(uint32_t byte, char out[2])
{
    uint32_t next = 256;
    uint32_t c = byte;
    for (uint32_t b = 0; b <= byte; b++) {
        const int plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        if (b == byte && !plain)
            c = next;
        next += plain ? 0 : 1;
    }
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    out[0] = (char)(0xc0 | c >> 6);
    out[1] = (char)(0x80 | (c & 0x3f));
    return 2;
}

static void put_vocabulary(struct writer *w, const struct tiny_shape *s)
{
    const struct kind *kind = kind_of(s);
    kv_str(w, "tokenizer.ggml.model", "gpt2");
    kv_str(w, "tokenizer.ggml.pre", kind->pre);
    kv_array(w, "tokenizer.ggml.tokens", GGUF_STRING, vocab_of(s));
    for (uint32_t b = 0; b < 256; b++) {
        char c[2];
        put_bytes(w, c, byte_char(b, c));
    }
    for (size_t i = 0; i < MERGES; i++) {
        const char *space = strchr(merges[i], ' ');
        const size_t left = (size_t)(space - merges[i]);
        put_u64(w, strlen(merges[i]) - 1);
        put(w, merges[i], left);
        put(w, space + 1, strlen(space + 1));
    }
    for (size_t i = 0; i < 3; i++)
        put_str(w, specials[i]);
    for (size_t i = 0; i < extras_of(s); i++)
        put_str(w, kind->extras[i]);
    kv_array(w, "tokenizer.ggml.token_type", GGUF_I32, vocab_of(s));
    for (uint32_t i = 0; i < vocab_of(s); i++)
        put_u32(w, i < TINY_END ? 1 : i < TINY_VOCAB ? 3 : kind->extra_type);
    kv_array(w, "tokenizer.ggml.merges", GGUF_STRING, MERGES);
    for (size_t i = 0; i < MERGES; i++)
        put_str(w, merges[i]);
    kv_u32(w, "tokenizer.ggml.eos_token_id", kind->stop);
    kv_u32(w, "tokenizer.ggml.bos_token_id", TINY_BEGIN);
    kv_str(w, "tokenizer.chat_template", kind->template);
}
#define VOCABULARY_KVS 8u

static const char *arch_of(const struct tiny_shape *s)
{
    return s->arch ? s->arch : "llama";
}

static uint32_t width_of(const struct tiny_shape *s)
{
    return s->width ? s->width : s->heads * s->head_width;
}

static const char *key_of(const struct tiny_shape *s, const char *suffix)
{
    static char key[96];
    (void)snprintf(key, sizeof(key), "%s.%s", arch_of(s), suffix);
    return key;
}

static void put_sizes(struct writer *w, const struct tiny_shape *s)
{
    kv_str(w, "general.architecture", arch_of(s));
    kv_u32(w, key_of(s, "block_count"), s->layers);
    kv_u32(w, key_of(s, "context_length"), s->context);
    kv_u32(w, key_of(s, "embedding_length"), width_of(s));
    kv_u32(w, key_of(s, "feed_forward_length"), s->ffn_width);
    kv_u32(w, key_of(s, "attention.head_count"), s->heads);
    kv_u32(w, key_of(s, "attention.head_count_kv"), s->kv_heads);
    kv_f32(w, key_of(s, "rope.freq_base"), 10000.0f);
    kv_f32(w, key_of(s, "attention.layer_norm_rms_epsilon"), 1e-5f);
    if (s->width) {
        kv_u32(w, key_of(s, "attention.key_length"), s->head_width);
        kv_u32(w, key_of(s, "attention.value_length"), s->head_width);
    }
    if (s->scaling) {
        kv_str(w, key_of(s, "rope.scaling.type"), s->scaling);
        kv_f32(w, key_of(s, "rope.scaling.factor"), 4.0f);
        kv_u32(w, key_of(s, "rope.scaling.original_context_length"), s->context / 4);
    }
}

static uint64_t size_kvs(const struct tiny_shape *s)
{
    return 9u + (s->width ? 2u : 0u) + (s->scaling ? 3u : 0u);
}

struct entry {
    char name[48];
    uint32_t type;
    uint32_t cols;
    uint32_t rows;
};

static struct entry entry(const char *name, uint32_t type, uint32_t cols, uint32_t rows)
{
    struct entry e = {"", type, cols, rows};
    const size_t len = strlen(name);
    const int whole = len > 5 && strcmp(name + len - 5, ".bias") == 0;
    (void)snprintf(e.name, sizeof(e.name), whole ? "%s" : "%s.weight", name);
    return e;
}

static size_t list_layer(const struct tiny_shape *s, uint32_t index, struct entry *out)
{
    const uint32_t width = width_of(s);
    const uint32_t attn = s->heads * s->head_width;
    const uint32_t kv = s->kv_heads * s->head_width;
    const uint32_t biases = strcmp(arch_of(s), "qwen2") == 0;
    const uint32_t norms = strcmp(arch_of(s), "qwen3") == 0;
    const struct entry layer[] = {
        {"attn_norm", GGUF_TENSOR_F32, width, 1},
        {"attn_q", s->type, width, attn},
        {"attn_k", s->type, width, kv},
        {"attn_v", s->type, width, kv},
        {"attn_output", s->type, attn, width},
        {"ffn_norm", GGUF_TENSOR_F32, width, 1},
        {"ffn_gate", s->type, width, s->ffn_width},
        {"ffn_up", s->type, width, s->ffn_width},
        {"ffn_down", s->type, s->ffn_width, width},
        {"attn_q.bias", GGUF_TENSOR_F32, attn, biases},
        {"attn_k.bias", GGUF_TENSOR_F32, kv, biases},
        {"attn_v.bias", GGUF_TENSOR_F32, kv, biases},
        {"attn_q_norm", GGUF_TENSOR_F32, s->head_width, norms},
        {"attn_k_norm", GGUF_TENSOR_F32, s->head_width, norms},
    };
    size_t n = 0;
    for (size_t i = 0; i < sizeof(layer) / sizeof(layer[0]); i++) {
        char name[40];
        (void)snprintf(name, sizeof(name), "blk.%u.%.16s", index, layer[i].name);
        if (layer[i].rows)
            out[n++] = entry(name, layer[i].type, layer[i].cols, layer[i].rows);
    }
    return n;
}
#define LAYER_TENSORS 14u

static size_t list_tensors(const struct tiny_shape *s, struct entry *out)
{
    const uint32_t width = width_of(s);
    size_t n = 0;
    out[n++] = entry("token_embd", s->embedding_type, width, vocab_of(s));
    out[n++] = entry("output_norm", GGUF_TENSOR_F32, width, 1);
    if (s->untied)
        out[n++] = entry("output", s->type, width, vocab_of(s));
    if (s->rope_factors)
        out[n++] = entry("rope_freqs", GGUF_TENSOR_F32, s->head_width / 2, 1);
    for (uint32_t l = 0; l < s->layers; l++)
        n += list_layer(s, l, out + n);
    return n;
}

static size_t entry_size(const struct entry *e)
{
    uint32_t elements;
    uint32_t bytes;
    if (!gguf_tensor_block(e->type, &elements, &bytes) || e->cols % elements)
        abort();
    return (size_t)e->cols / elements * bytes * e->rows;
}

/* Half floats of about 2^-5, either sign if wanted. */
static uint16_t random_half(struct writer *w, int is_signed)
{
    const uint64_t r = tiny_random(&w->rng);
    const uint32_t exponent = 8 + (uint32_t)(r & 1);
    return (uint16_t)((is_signed ? (r & 0x10000) >> 1 : 0) | exponent << 10 | ((r >> 20) & 0x3ff));
}

/* Where a block has its scale, and what takes the random weights of a type to about the same size
 * as the others': the exponent to take off the half. */
static void put_scales(struct writer *w, uint32_t type, uint8_t *block)
{
    const int has_min = type == GGUF_TENSOR_Q4_1 || type == GGUF_TENSOR_Q5_1 ||
                        type == GGUF_TENSOR_Q4_K || type == GGUF_TENSOR_Q5_K;
    const uint32_t down[] = {[GGUF_TENSOR_Q5_0] = 1, [GGUF_TENSOR_Q5_1] = 1, [GGUF_TENSOR_Q8_0] = 4,
                             [GGUF_TENSOR_Q4_K] = 5, [GGUF_TENSOR_Q5_K] = 6, [GGUF_TENSOR_Q6_K] = 7,
                             [GGUF_TENSOR_BF16] = 0};
    uint16_t half = random_half(w, !has_min);
    half = (uint16_t)(half - (down[type] << 10));
    if (type == GGUF_TENSOR_Q6_K)
        memcpy(block + 208, &half, sizeof(half));
    else
        memcpy(block, &half, sizeof(half));
    if (!has_min)
        return;
    /* In the middle of the range: 8 or 16 scales below zero, or as a factor of a run's minimum. */
    const uint32_t up = type == GGUF_TENSOR_Q4_1 || type == GGUF_TENSOR_Q4_K ? 3 : 4;
    const uint32_t sign = type == GGUF_TENSOR_Q4_1 || type == GGUF_TENSOR_Q5_1 ? 0x8000u : 0;
    const uint16_t min = (uint16_t)(sign | (half + (up << 10)));
    memcpy(block + 2, &min, sizeof(min));
}

/* Of variance 1: a sum of twelve. */
static float random_normal(uint64_t *rng)
{
    float sum = 0.0f;
    for (int i = 0; i < 12; i++)
        sum += tiny_random_float(rng);
    return sum * 0.5f;
}

/* A row of numbers: matrices keep what goes through them about as large as it was, and logits get
 * the spread of a model that has learned something. */
static void fill_numbers(const struct entry *e, uint64_t *rng, float *x)
{
    const int is_bias = strstr(e->name, ".bias") != NULL;
    const int is_wide =
        strncmp(e->name, "token_embd", 10) == 0 || !strcmp(e->name, "output.weight");
    const float size = (is_wide ? 3.0f : 1.0f) / sqrtf((float)e->cols);
    for (size_t i = 0; i < e->cols; i++) {
        const float n = random_normal(rng);
        x[i] = e->rows > 1 ? n * size : is_bias ? n * 0.1f : 1.0f + n * 0.1f;
    }
}

static void put_numbers(struct writer *w, const struct entry *e)
{
    uint64_t rng = w->shape->seed + w->tensors;
    const size_t row_bytes = entry_size(e) / e->rows;
    float *x = calloc(e->cols, sizeof(*x));
    uint8_t *row = malloc(row_bytes);
    if (!x || !row)
        abort();
    rng = tiny_random(&rng);
    for (uint32_t r = 0; r < e->rows; r++) {
        fill_numbers(e, &rng, x);
        w->shape->quantise(e->type, x, e->cols, row);
        put(w, row, row_bytes);
    }
    free(x);
    free(row);
    pad(w);
}

/* Random blocks whose halves are numbers and whose weights are of about the same size everywhere.
 */
static void put_blocks(struct writer *w, const struct entry *e)
{
    const size_t begin = w->size;
    const size_t size = entry_size(e);
    const size_t len = strlen(e->name);
    const int is_bias = len > 5 && strcmp(e->name + len - 5, ".bias") == 0;
    uint32_t elements;
    uint32_t bytes;
    (void)gguf_tensor_block(e->type, &elements, &bytes);
    for (size_t i = 0; i < size; i++) {
        const uint8_t byte = (uint8_t)tiny_random(&w->rng);
        put(w, &byte, 1);
    }
    for (size_t at = 0; at < size; at += bytes) {
        uint8_t *block = w->data + begin + at;
        if (e->type == GGUF_TENSOR_F32) {
            const float value =
                tiny_random_float(&w->rng) * 0.2f + (e->rows == 1 && !is_bias ? 1.0f : 0.0f);
            memcpy(block, &value, sizeof(value));
        } else if (e->type == GGUF_TENSOR_BF16) {
            const float value = tiny_random_float(&w->rng) * 0.2f;
            memcpy(block, (const uint8_t *)&value + 2, 2);
        } else {
            put_scales(w, e->type, block);
        }
    }
    pad(w);
}

static void write_all(struct writer *w, const struct tiny_shape *s)
{
    struct entry *entries = calloc(16 + LAYER_TENSORS * (size_t)s->layers, sizeof(*entries));
    uint64_t offset = 0;
    if (!entries)
        abort();
    const size_t count = list_tensors(s, entries);
    put(w, "GGUF", 4);
    put_u32(w, 3);
    put_u64(w, count);
    put_u64(w, size_kvs(s) + VOCABULARY_KVS);
    put_sizes(w, s);
    put_vocabulary(w, s);
    for (size_t i = 0; i < count; i++) {
        put_str(w, entries[i].name);
        put_u32(w, entries[i].rows == 1 ? 1 : 2);
        put_u64(w, entries[i].cols);
        if (entries[i].rows > 1)
            put_u64(w, entries[i].rows);
        put_u32(w, entries[i].type);
        put_u64(w, offset);
        offset += (entry_size(&entries[i]) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    pad(w);
    w->header_size = w->size;
    for (w->tensors = 0; w->tensors < count; w->tensors++) {
        if (s->quantise)
            put_numbers(w, &entries[w->tensors]);
        else
            put_blocks(w, &entries[w->tensors]);
    }
    free(entries);
}

uint8_t *tiny_write(const struct tiny_shape *shape, size_t *size)
{
    struct writer w = {.rng = shape->seed, .shape = shape};
    write_all(&w, shape);
    *size = w.size;
    return w.data;
}

size_t tiny_header_size(const struct tiny_shape *shape)
{
    struct writer w = {.rng = shape->seed, .shape = shape};
    write_all(&w, shape);
    free(w.data);
    return w.header_size;
}

const char *tiny_real_model(void)
{
    static char path[4096];
    const char *given = getenv("WEFT_MODEL");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    if (given && given[0])
        return access(given, R_OK) == 0 ? given : NULL;
    if (cache && cache[0])
        (void)snprintf(path, sizeof(path), "%s/%s", cache, MODEL_FILE);
    else
        (void)snprintf(path, sizeof(path), "%s/.cache/%s", home ? home : "", MODEL_FILE);
    return access(path, R_OK) == 0 ? path : NULL;
}
