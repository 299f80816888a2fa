/* SPDX-License-Identifier: Apache-2.0 */
/* reply_vector.c - embeddings: numbers, or their bytes (32-bit, little-endian) in base64, which is
 * what OpenAI's own client asks for. See reply.h. */
#include <sodium.h>
#include <stdlib.h>

#include "dataplane/gateway/reply.h"

#define BASE64 sodium_base64_VARIANT_ORIGINAL

static void base64_add(struct buf *out, const float *vector, size_t count)
{
    size_t bytes = count * sizeof(*vector);
    size_t size = sodium_base64_encoded_len(bytes, BASE64); /* with a zero */
    char *text = malloc(size);
    if (text == NULL) {
        out->failed = true;
        return;
    }
    sodium_bin2base64(text, size, (const uint8_t *)vector, bytes, BASE64);
    buf_add_text(out, "\"");
    buf_add(out, text, size - 1);
    buf_add_text(out, "\"");
    free(text);
}

void reply_vector(struct reply *r, uint32_t choice, const float *vector, size_t count)
{
    struct buf *out = &r->choices[choice].text;
    if (r->request->base64) {
        base64_add(out, vector, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        buf_add_format(out, "%s%.9g", i != 0 ? "," : "[", (double)vector[i]);
    }
    buf_add_text(out, "]");
}

static void embedding_whole(struct reply *r)
{
    struct reply_usage usage = reply_usage(r);
    buf_add_text(&r->out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < r->count; i++) {
        struct buf *text = &r->choices[i].text;
        buf_add_format(&r->out,
                       "%s{\"object\":\"embedding\",\"index\":%u,\"embedding\":", i != 0 ? "," : "",
                       i);
        if (buf_len(text) != 0) {
            buf_add(&r->out, text->data + text->at, buf_len(text));
        }
        r->out.failed = r->out.failed || text->failed || buf_len(text) == 0;
        buf_add_text(&r->out, "}");
        buf_deinit(text);
    }
    buf_add_text(&r->out, "],\"model\":");
    buf_add_quoted(&r->out, r->request->query.model);
    buf_add_format(&r->out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}",
                   (unsigned long long)usage.prompt_tokens,
                   (unsigned long long)usage.prompt_tokens);
}

/* Never a stream. */
const struct reply_format reply_embedding = {
    .object = "list",
    .chunk_object = "list",
    .whole = embedding_whole,
};
