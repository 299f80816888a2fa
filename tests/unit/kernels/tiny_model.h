/* SPDX-License-Identifier: Apache-2.0 */
/* tiny_model.h - writes small sound GGUF files with seeded random weights, so that tests of the
 * executor need no download. Also finds the real model for the tests that want it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum tiny_chat { TINY_CHATML, TINY_LLAMA3, TINY_QWEN3 };

struct tiny_shape {
    uint64_t seed;
    uint32_t type; /* enum gguf_tensor_type of the matrices */
    uint32_t embedding_type;
    uint32_t layers;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_width;
    uint32_t ffn_width;
    uint32_t context;
    int untied;          /* with an output matrix of its own */
    const char *arch;    /* NULL = "llama"; "qwen2" has biases, "qwen3" norms of heads */
    const char *scaling; /* of RoPE: NULL = none, "linear", "yarn"; by 4, from a context / 4 */
    int rope_factors;    /* with rope_freqs.weight */
    uint32_t width;      /* of the stream; 0 = heads * head_width */
    enum tiny_chat chat; /* pre-tokenizer, special tokens and template */
    /* NULL: random blocks. Else the weights are normal numbers that follow from the seed and the
     * sizes alone, whatever the type, written with this: quantise_row() of quantise.h. */
    void (*quantise)(uint32_t type, const float *x, size_t cols, uint8_t *out);
};

/* A shape that exercises everything: GQA, quantised matrices, more rows than a tile divides. */
extern const struct tiny_shape tiny_default;

/* Names of the vocabulary: 256 bytes (id = GPT-2 order), merges, then specials. */
#define TINY_VOCAB    275u
#define TINY_END      272u /* <|endoftext|> */
#define TINY_IM_START 273u
#define TINY_IM_END   274u

/* Behind them, with TINY_LLAMA3 or TINY_QWEN3: */
#define TINY_BEGIN     275u /* <|begin_of_text|> */
#define TINY_HEADER    276u /* <|start_header_id|> */
#define TINY_HEADED    277u /* <|end_header_id|> */
#define TINY_EOT       278u /* <|eot_id|> */
#define TINY_THINK     275u /* <think> */
#define TINY_THINK_END 276u /* </think> */

/* The file's bytes; malloc()ed. */
uint8_t *tiny_write(const struct tiny_shape *shape, size_t *size);

/* Bytes of the part before the tensors' data. */
size_t tiny_header_size(const struct tiny_shape *shape);

/* splitmix64 (https://prng.di.unimi.it/splitmix64.c, the algorithm only). */
uint64_t tiny_random(uint64_t *state);

/* Uniform in [-1, 1). */
float tiny_random_float(uint64_t *state);

/* Path of the default model: WEFT_MODEL, or where scripts/model-fetch puts it; NULL if it is not
 * there. Static storage. */
const char *tiny_real_model(void);
