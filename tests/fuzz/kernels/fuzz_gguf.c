/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes the opening of model files: gguf.c, model.c, tokenizer.c and chat.c. An even first byte
 * means that the rest is a file; an odd one that the rest is a list of changes {offset, 2 bytes;
 * value, 1 byte} to a sound file, which gets past the first checks. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/chat.h"
#include "kernels/model/model.h"
#include "tests/unit/kernels/tiny_model.h"

/* More would always break something that is looked at first. */
#define CHANGES_MAX 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void open_file(const uint8_t *bytes, size_t size)
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
    if (model_create(&model, file, why, sizeof(why)) == 0)
        model_destroy(model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct tiny_shape shape = {.seed = 1,
                                            .type = 0,
                                            .embedding_type = 0,
                                            .layers = 1,
                                            .heads = 2,
                                            .kv_heads = 1,
                                            .head_width = 2,
                                            .ffn_width = 3,
                                            .context = 8};
    static uint8_t *sound;
    static size_t sound_size;
    if (!sound)
        sound = tiny_write(&shape, &sound_size);
    if (size == 0)
        return 0;
    const int changes = data[0] & 1;
    size_t copy_size = changes ? sound_size : size - 1;
    uint8_t *copy = malloc(copy_size ? copy_size : 1);
    if (!copy)
        return 0;
    memcpy(copy, changes ? sound : data + 1, copy_size);
    if (changes && size > 1 + 3 * CHANGES_MAX)
        size = 1 + 3 * CHANGES_MAX;
    for (size_t i = 1; changes && i + 3 <= size; i += 3)
        copy[(size_t)(data[i] | data[i + 1] << 8) % copy_size] = data[i + 2];
    open_file(copy, copy_size);
    free(copy);
    return 0;
}
