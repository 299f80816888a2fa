/* SPDX-License-Identifier: Apache-2.0 */
/*
 * siphash.h - SipHash-2-4 (Aumasson and Bernstein, 2012) over many short messages of one length at
 * once: eight lanes of AVX-512, twice four of AVX2, or one after the other. A hash is a chain of
 * dependent operations; eight of them take little longer than one. Constant time.
 */
#pragma once

#include <stdint.h>

#define SIPHASH_KEY_BYTES 16u
#define SIPHASH_WORDS     5u
#define SIPHASH_BATCH     32u
#define SIPHASH_LANES     8u

/* Messages side by side: words[w][i] is the w-th 8 bytes of message i, little-endian. The last word
 * has the message's last 0 to 7 bytes below and its length modulo 256 in the top byte, as the
 * standard pads. Lanes behind `count` are hashed with it, up to a multiple of SIPHASH_LANES. */
struct siphash_batch {
    uint32_t count;
    uint64_t words[SIPHASH_WORDS][SIPHASH_BATCH];
    uint64_t hashes[SIPHASH_BATCH]; /* out */
};

/* Hashes the first `words` words (up to SIPHASH_WORDS) of each message. */
void siphash_run(struct siphash_batch *batch, uint32_t words, const uint8_t key[SIPHASH_KEY_BYTES]);
