/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes answer.h with any reply: event streams, whole bodies, errors. The first three bytes of an
 * input say the HTTP status, the kind of reply and the portions it comes in. Held besides: the text
 * and the verdict do not depend on the portions, and nothing is complete without a reason.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/answer.h"

#define CAPACITY 2048u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct heard {
    uint64_t hash;
    size_t len;
};

/* Bytes one by one, so that pieces cut elsewhere give the same. */
static int hear(const char *text, size_t len, void *user)
{
    struct heard *heard = user;
    for (size_t i = 0; i < len; i++)
        heard->hash = (heard->hash ^ (uint8_t)text[i]) * UINT64_C(0x100000001b3);
    heard->len += len;
    return 0;
}

static enum answer_verdict run(const uint8_t *data, size_t size, int status, bool stream,
                               size_t portion, struct heard *heard)
{
    char *buffer = malloc(CAPACITY); /* of its own, so that the sanitizer sees its end */
    struct answer answer;
    *heard = (struct heard){UINT64_C(0xcbf29ce484222325), 0};
    answer_init(&answer, buffer, CAPACITY);
    answer_head(&answer, status, stream ? "text/event-stream" : "application/json");
    int rc = 0;
    for (size_t at = 0; rc == 0 && at < size; at += portion) {
        const size_t part = size - at < portion ? size - at : portion;
        char *copy = malloc(part);
        memcpy(copy, data + at, part);
        rc = answer_data(&answer, copy, part, hear, heard);
        free(copy);
    }
    const enum answer_verdict verdict = answer_end(&answer, rc == 0, hear, heard);
    if (verdict == ANSWER_COMPLETE && answer.finish != DELTA_STOP && answer.finish != DELTA_LENGTH)
        abort();
    if (memchr(answer.message, 0, sizeof(answer.message)) == NULL)
        abort();
    free(buffer);
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int statuses[] = {200, 200, 200, 200, 400, 413, 429, 500};
    if (size < 3)
        return 0;
    const int status = statuses[data[0] % 8];
    const bool stream = data[1] % 4 != 0;
    const size_t portion = 1 + data[2];
    struct heard a, b;
    const enum answer_verdict one = run(data + 3, size - 3, status, stream, portion, &a);
    const enum answer_verdict other = run(data + 3, size - 3, status, stream, size, &b);
    if (one != other || a.hash != b.hash || a.len != b.len)
        abort();
    return 0;
}
