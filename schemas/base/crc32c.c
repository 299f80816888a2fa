/* SPDX-License-Identifier: Apache-2.0 */
/* crc32c.c - see crc32c.h. */
#include "schemas/base/crc32c.h"

#include <string.h>

/* Four bits at a time: a table that is small enough to read. */
static const uint32_t table[16] = {
    0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
    0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

static uint32_t crc_plain(uint32_t crc, const uint8_t *at, size_t size)
{
    for (; size != 0; size--) {
        crc ^= *at++;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return crc;
}

#if defined(__x86_64__)
#define POLYNOMIAL    0x82f63b78u /* Castagnoli's; the lowest power is the highest bit */
#define BLOCK_BYTES   4096u
#define SHIFT_BLOCK   0x35d73a62u /* x^(8 * BLOCK_BYTES) modulo the polynomial */
#define SHIFT_2_BLOCK 0x28461564u /* its square */

/* The product of two polynomials modulo the polynomial. With x^(8n) it is what n zero bytes make of
 * a sum. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;
    for (; a != 0; a <<= 1) {
        product ^= (a >> 31) * b;
        b = b >> 1 ^ (b & 1) * POLYNOMIAL;
    }
    return product;
}

static inline uint64_t word_at(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

/* Three blocks at once: one instruction can begin in each cycle, but takes three. */
__attribute__((target("sse4.2"))) static uint32_t crc_blocks(uint32_t crc, const uint8_t *at)
{
    uint64_t a = crc, b = 0, c = 0;
    for (const uint8_t *end = at + BLOCK_BYTES; at < end; at += sizeof(uint64_t)) {
        a = __builtin_ia32_crc32di(a, word_at(at));
        b = __builtin_ia32_crc32di(b, word_at(at + BLOCK_BYTES));
        c = __builtin_ia32_crc32di(c, word_at(at + 2 * BLOCK_BYTES));
    }
    return multiply(SHIFT_2_BLOCK, (uint32_t)a) ^ multiply(SHIFT_BLOCK, (uint32_t)b) ^ (uint32_t)c;
}

__attribute__((target("sse4.2"))) static uint32_t crc_sse42(uint32_t crc, const uint8_t *at,
                                                            size_t size)
{
    for (; size >= 3 * BLOCK_BYTES; size -= 3 * BLOCK_BYTES) {
        crc = crc_blocks(crc, at);
        at += 3 * BLOCK_BYTES;
    }
    uint64_t wide = crc;
    for (; size >= sizeof(uint64_t); size -= sizeof(uint64_t)) {
        wide = __builtin_ia32_crc32di(wide, word_at(at));
        at += sizeof(uint64_t);
    }
    crc = (uint32_t)wide;
    for (; size != 0; size--) {
        crc = __builtin_ia32_crc32qi(crc, *at++);
    }
    return crc;
}
#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    crc = ~crc;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("sse4.2")) {
        return ~crc_sse42(crc, data, size);
    }
#endif
    return ~crc_plain(crc, data, size);
}
