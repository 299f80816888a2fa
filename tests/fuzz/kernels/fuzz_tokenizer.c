/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes tokenizer_encode() with any bytes as text behind the first, which chooses how the text is
 * cut (the families of tiny_model.h): what is encoded must decode to the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/tokenizer.h"
#include "tests/unit/kernels/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Files live as long as the tokenizers: to the end. */
static tokenizer_t *tokenizer_at(size_t which)
{
    static gguf_t *files[TINY_QWEN3 + 1];
    static tokenizer_t *all[TINY_QWEN3 + 1];
    struct tiny_shape shape = tiny_default;
    size_t size;
    shape.chat = (enum tiny_chat)which;
    if (!all[which]) {
        const uint8_t *bytes = tiny_write(&shape, &size);
        if (gguf_open_memory(&files[which], bytes, size, NULL, 0) ||
            tokenizer_create(&all[which], files[which], NULL, 0))
            abort();
    }
    return all[which];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t count;
    if (size == 0)
        return 0;
    const tokenizer_t *tokenizer = tokenizer_at(data[0] % (TINY_QWEN3 + 1));
    data++;
    size--;
    uint32_t *ids = malloc((size + 1) * sizeof(*ids));
    char *back = malloc(size + 1);
    if (!ids || !back)
        abort();
    if (tokenizer_encode(tokenizer, (const char *)data, size, 0, ids, size, &count) ||
        tokenizer_decode(tokenizer, ids, count, back, size) != size ||
        (size && memcmp(back, data, size)))
        abort();
    if (tokenizer_encode(tokenizer, (const char *)data, size, TOKENIZER_PARSE_SPECIAL, ids, size,
                         &count) ||
        count > size)
        abort();
    free(ids);
    free(back);
    return 0;
}
