/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes model files: gguf.c, model.c, tokenizer.c and chat.c open them, and what opens computes
 * two tokens, exactly or fast. An even first byte means that the rest is a file; an odd one that
 * the rest is a list of changes {offset, 3 bytes; value, 1 byte} to a sound file, which gets past
 * the first checks. The other bits of the byte choose the sound file and the kernels. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/model/chat.h"
#include "kernels/model/model.h"
#include "tests/unit/kernels/tiny_model.h"

/* More would always break something that is looked at first. */
#define CHANGES_MAX 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct tiny_shape shapes[] = {
    {.seed = 1,
     .layers = 1,
     .heads = 2,
     .kv_heads = 1,
     .head_width = 2,
     .ffn_width = 3,
     .context = 8},
    {.seed = 2,
     .type = GGUF_TENSOR_Q5_1,
     .embedding_type = GGUF_TENSOR_Q8_0,
     .layers = 1,
     .heads = 2,
     .kv_heads = 1,
     .head_width = 16,
     .ffn_width = 32,
     .context = 8,
     .arch = "qwen2",
     .scaling = "yarn"},
    {.seed = 3,
     .type = GGUF_TENSOR_BF16,
     .embedding_type = GGUF_TENSOR_Q5_0,
     .layers = 1,
     .heads = 2,
     .kv_heads = 1,
     .head_width = 8,
     .ffn_width = 5,
     .context = 8,
     .arch = "qwen3",
     .width = 32,
     .chat = TINY_QWEN3},
    {.seed = 4,
     .type = GGUF_TENSOR_Q4_K,
     .embedding_type = GGUF_TENSOR_Q6_K,
     .layers = 1,
     .heads = 2,
     .kv_heads = 1,
     .head_width = 128,
     .ffn_width = 256,
     .context = 8,
     .rope_factors = 1,
     .chat = TINY_LLAMA3},
};
#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

static void compute(const struct model *model, bool exact)
{
    const struct cpu_options options = {.context = 2, .batch_max = 2, .exact = exact};
    const struct exec_row rows[2] = {{.position = 0, .token = 0},
                                     {.position = 1, .token = 0, .want_logits = true}};
    float *logits = malloc((size_t)model->vocab * sizeof(*logits));
    exec_t *exec;
    if (logits && cpu_create(&exec, model, &options) == 0) {
        (void)exec_forward(exec, rows, 2, logits, NULL);
        (void)exec_forward(exec, rows, 1, logits, NULL);
        exec_destroy(exec);
    }
    free(logits);
}

static void open_file(const uint8_t *bytes, size_t size, bool exact)
{
    char why[128];
    uint32_t ids[64];
    size_t count;
    gguf_t *file;
    tokenizer_t *tokenizer;
    struct model *model;
    struct chat chat;
    const struct chat_message message = {CHAT_USER, "hello the 12 <|im_end|>", 23};
    if (gguf_open_memory(&file, bytes, size, why, sizeof(why)))
        return;
    if (tokenizer_create(&tokenizer, file, why, sizeof(why)) == 0) {
        (void)tokenizer_encode(tokenizer, message.text, message.len, TOKENIZER_PARSE_SPECIAL, ids,
                               64, &count);
        if (chat_init(&chat, file, tokenizer, why, sizeof(why)) == 0)
            (void)chat_encode(&chat, &message, 1, ids, 64, &count);
        tokenizer_destroy(tokenizer);
    }
    if (model_create(&model, file, why, sizeof(why)) == 0) {
        compute(model, exact);
        model_destroy(model);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *sound[SHAPES];
    static size_t sound_size[SHAPES];
    if (size == 0)
        return 0;
    const bool changes = data[0] & 1;
    const size_t which = data[0] / 4 % SHAPES;
    if (!sound[which])
        sound[which] = tiny_write(&shapes[which], &sound_size[which]);
    size_t copy_size = changes ? sound_size[which] : size - 1;
    uint8_t *copy = malloc(copy_size ? copy_size : 1);
    if (!copy)
        return 0;
    memcpy(copy, changes ? sound[which] : data + 1, copy_size);
    if (changes && size > 1 + 4 * CHANGES_MAX)
        size = 1 + 4 * CHANGES_MAX;
    for (size_t i = 1; changes && i + 4 <= size; i += 4)
        copy[(size_t)(data[i] | data[i + 1] << 8 | data[i + 2] << 16) % copy_size] = data[i + 3];
    open_file(copy, copy_size, data[0] & 2);
    free(copy);
    return 0;
}
