/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - see text.h. */
#include "kernels/upstream/text.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/gguf.h"
#include "kernels/model/tokenizer.h"

#define PIECE_MAX 1024u /* bytes encoded at a time */

int text_open(struct text *text, const char *path, char *why, size_t why_size)
{
    *text = (struct text){NULL, NULL};
    if (!path)
        return 0;
    gguf_t *file = NULL;
    tokenizer_t *tokenizer = NULL;
    int rc = gguf_open(&file, path, why, why_size);
    if (rc == 0)
        rc = tokenizer_create(&tokenizer, file, why, why_size);
    text->file = file;
    text->tokenizer = tokenizer;
    if (rc)
        text_close(text);
    return rc;
}

void text_close(struct text *text)
{
    tokenizer_destroy(text->tokenizer);
    gguf_close(text->file);
    *text = (struct text){NULL, NULL};
}

static int emit_encoded(const struct text *text, const char *bytes, size_t len, uint32_t *count,
                        text_emit_fn emit, void *user)
{
    uint32_t ids[PIECE_MAX];
    size_t found = 0;
    if (tokenizer_encode(text->tokenizer, bytes, len, 0, ids, PIECE_MAX, &found))
        return emit(TEXT_MARK | ((*count)++ & ~TEXT_MARK), bytes, len, user);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < found; i++) {
        const struct gguf_str part = tokenizer_token_bytes(text->tokenizer, ids[i]);
        rc = emit(ids[i], part.data, part.len, user);
        ++*count;
    }
    return rc;
}

int text_tokens(const struct text *text, const char *bytes, size_t len, uint32_t *count,
                text_emit_fn emit, void *user)
{
    if (!text->tokenizer)
        return emit(TEXT_MARK | ((*count)++ & ~TEXT_MARK), bytes, len, user);
    int rc = 0;
    while (rc == 0 && len) {
        const size_t part = len < PIECE_MAX ? len : PIECE_MAX;
        rc = emit_encoded(text, bytes, part, count, emit, user);
        bytes += part;
        len -= part;
    }
    return rc;
}

static bool leads_to_text(const struct text *text, uint32_t token)
{
    if (token == TEXT_EMPTY)
        return true;
    return text->tokenizer && token < tokenizer_vocab(text->tokenizer);
}

static bool is_utf8(const char *bytes, size_t len)
{
    json_t *string = json_stringn(bytes, len);
    json_decref(string);
    return string != NULL;
}

/* Bytes at the end that begin a character without ending it. */
static size_t begun_at_end(const char *bytes, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        const unsigned char c = (unsigned char)bytes[len - back];
        const size_t whole = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc0 ? 2 : 1;
        if (c < 0x80 || c >= 0xc0)
            return whole > back ? back : 0;
    }
    return 0;
}

char *text_of(const struct text *text, const uint32_t *tokens, size_t count, size_t *len,
              size_t *begun)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        if (!leads_to_text(text, tokens[i]))
            return NULL;
        if (tokens[i] != TEXT_EMPTY)
            size += tokenizer_token_bytes(text->tokenizer, tokens[i]).len;
    }
    char *out = malloc(size + 1);
    if (!out)
        return NULL;
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] == TEXT_EMPTY)
            continue;
        const struct gguf_str part = tokenizer_token_bytes(text->tokenizer, tokens[i]);
        if (part.len)
            memcpy(out + at, part.data, part.len);
        at += part.len;
    }
    out[size] = 0;
    *len = size;
    *begun = begun_at_end(out, size);
    if (is_utf8(out, size - *begun))
        return out;
    free(out);
    return NULL;
}
