/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefix.h - how a prompt begins, in 64 bits, so that who has computed the beginning of another one
 * can be found without either of them. Nested hashes of the prompt's first 512 bytes, 1 KiB, 2, 4,
 * 8, 32, 128: sixteen bits for the first length, eight for each further one. Prompts that begin
 * alike have as many low bits in common as lengths; zero bits stand for lengths that a prompt does
 * not have. A hash of a length is CRC-32C over all of it, begun with the model's id, folded: chance
 * makes two prompts share one in 2^16 at 512 bytes, 2^24 at 1 KiB, 2^32 at 2 KiB. It hides nothing:
 * whoever sees it and guesses a beginning can check the guess.
 *
 * Pure, any thread. Used by clients, workers, the packet path and the bench.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PREFIX_LEVELS 7u

/* Of the bytes of a prompt for that model (weft_model_id()); 0 = shorter than the first length. */
uint64_t prefix_of(uint32_t model, const void *prompt, size_t size);

/* Bytes that so many lengths, 0 to PREFIX_LEVELS, stand for. */
uint32_t prefix_bytes(uint32_t levels);

/* The bits of the first `levels` lengths. */
static inline uint64_t prefix_mask(uint32_t levels)
{
    return levels == 0 ? 0 : ~UINT64_C(0) >> (64 - 8 * (levels + 1));
}

/* How many lengths it has. */
static inline uint32_t prefix_levels(uint64_t prefix)
{
    uint32_t bytes = prefix == 0 ? 0 : (71 - (uint32_t)__builtin_clzll(prefix)) / 8;
    return bytes <= 2 ? bytes != 0 : bytes - 1;
}

/* How many of them two prompts have in common. */
static inline uint32_t prefix_common(uint64_t a, uint64_t b)
{
    uint32_t levels = 0;
    while (levels < PREFIX_LEVELS && levels < prefix_levels(a) && levels < prefix_levels(b) &&
           ((a ^ b) & prefix_mask(levels + 1)) == 0) {
        levels++;
    }
    return levels;
}
