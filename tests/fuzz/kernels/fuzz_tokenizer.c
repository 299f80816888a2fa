/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes tokenizer_encode() with any bytes as text: what is encoded must decode to the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/tokenizer.h"
#include "tests/unit/kernels/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tokenizer_t *open_tokenizer(void)
{
    static gguf_t *file; /* lives as long as the tokenizer: to the end */
    size_t size;
    tokenizer_t *tokenizer;
    uint8_t *bytes = tiny_write(&tiny_default, &size);
    if (gguf_open_memory(&file, bytes, size, NULL, 0) ||
        tokenizer_create(&tokenizer, file, NULL, 0))
        abort();
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tokenizer_t *tokenizer;
    size_t count;
    if (!tokenizer)
        tokenizer = open_tokenizer();
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
