/* SPDX-License-Identifier: Apache-2.0 */
/* siphash.c - see siphash.h. One text for all widths: a lane is a word or a vector of words. */
#include "dataplane/route/siphash.h"

#include <string.h>

#include "dataplane/route/x86.h"

#define LANES(n) __attribute__((vector_size(8 * (n))))
#define FROM     aligned(8), may_alias
typedef uint64_t four LANES(4);
typedef uint64_t four_from __attribute__((vector_size(32), FROM));
typedef uint64_t eight LANES(8);
typedef uint64_t eight_from __attribute__((vector_size(64), FROM));

#define ROTATE(v, n) ((v) << (n) | (v) >> (64 - (n)))

/* A macro, as one function cannot be compiled for several targets. */
#define ROUND(v0, v1, v2, v3)                                                                      \
    do {                                                                                           \
        (v0) += (v1);                                                                              \
        (v2) += (v3);                                                                              \
        (v1) = ROTATE(v1, 13) ^ (v0);                                                              \
        (v3) = ROTATE(v3, 16) ^ (v2);                                                              \
        (v0) = ROTATE(v0, 32);                                                                     \
        (v2) += (v1);                                                                              \
        (v0) += (v3);                                                                              \
        (v1) = ROTATE(v1, 17) ^ (v2);                                                              \
        (v3) = ROTATE(v3, 21) ^ (v0);                                                              \
        (v2) = ROTATE(v2, 32);                                                                     \
    } while (0)

/* `type` is one lane or a vector of them; WORD(w) gives the w-th word. */
#define HASH(type, words, k0, k1, WORD, out)                                                       \
    do {                                                                                           \
        type v0 = (type){0} + ((k0) ^ UINT64_C(0x736f6d6570736575));                               \
        type v1 = (type){0} + ((k1) ^ UINT64_C(0x646f72616e646f6d));                               \
        type v2 = (type){0} + ((k0) ^ UINT64_C(0x6c7967656e657261));                               \
        type v3 = (type){0} + ((k1) ^ UINT64_C(0x7465646279746573));                               \
        for (uint32_t w = 0; w < (words); w++) {                                                   \
            type m = WORD(w);                                                                      \
            v3 ^= m;                                                                               \
            ROUND(v0, v1, v2, v3);                                                                 \
            ROUND(v0, v1, v2, v3);                                                                 \
            v0 ^= m;                                                                               \
        }                                                                                          \
        v2 ^= 0xff;                                                                                \
        ROUND(v0, v1, v2, v3);                                                                     \
        ROUND(v0, v1, v2, v3);                                                                     \
        ROUND(v0, v1, v2, v3);                                                                     \
        ROUND(v0, v1, v2, v3);                                                                     \
        (out) = v0 ^ v1 ^ v2 ^ v3;                                                                 \
    } while (0)

static void run_plain(struct siphash_batch *b, uint32_t words, uint64_t k0, uint64_t k1)
{
#define ONE_WORD(w) b->words[w][i]
    for (uint32_t i = 0; i < b->count; i++) {
        HASH(uint64_t, words, k0, k1, ONE_WORD, b->hashes[i]);
    }
}

#define WORDS_FROM(w) (*(const FROM_TYPE *)(const void *)&b->words[w][i])
#define RUN(type, n)                                                                               \
    for (uint32_t i = 0; i < b->count; i += (n)) {                                                 \
        type out;                                                                                  \
        HASH(type, words, k0, k1, WORDS_FROM, out);                                                \
        memcpy(&b->hashes[i], &out, sizeof(out));                                                  \
    }

#if HAVE_X86
TARGET_256 static void run_avx2(struct siphash_batch *b, uint32_t words, uint64_t k0, uint64_t k1){
#define FROM_TYPE four_from
    RUN(four, 4)
#undef FROM_TYPE
}

TARGET_512 static void run_avx512(struct siphash_batch *b, uint32_t words, uint64_t k0, uint64_t k1)
{
#define FROM_TYPE eight_from
    RUN(eight, 8)
#undef FROM_TYPE
}
#endif

void siphash_run(struct siphash_batch *batch, uint32_t words, const uint8_t key[SIPHASH_KEY_BYTES])
{
    uint64_t k[2];
    memcpy(k, key, sizeof(k));
#if HAVE_X86
    if (scan_isa() == SCAN_AVX512) {
        run_avx512(batch, words, k[0], k[1]);
        return;
    }
    if (scan_isa() == SCAN_AVX2) {
        run_avx2(batch, words, k[0], k[1]);
        return;
    }
#endif
    run_plain(batch, words, k[0], k[1]);
}
