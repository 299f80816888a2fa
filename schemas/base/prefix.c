/* SPDX-License-Identifier: Apache-2.0 */
/* prefix.c - see prefix.h. */
#include "schemas/base/prefix.h"

#include "schemas/base/crc32c.h"

static const uint32_t lengths[PREFIX_LEVELS + 1] = {0, 512, 1024, 2048, 4096, 8192, 32768, 131072};

uint32_t prefix_bytes(uint32_t levels)
{
    return lengths[levels < PREFIX_LEVELS ? levels : PREFIX_LEVELS];
}

/* `bits` of a sum, never 0. */
static uint64_t fold(uint32_t sum, uint32_t bits)
{
    uint32_t mixed = sum * 0x9e3779b1u >> (32 - bits);
    return mixed != 0 ? mixed : 1;
}

uint64_t prefix_of(uint32_t model, const void *prompt, size_t size)
{
    const uint8_t *bytes = prompt;
    uint64_t prefix = 0;
    uint32_t sum = model;
    for (uint32_t level = 1; level <= PREFIX_LEVELS && size >= lengths[level]; level++) {
        sum = crc32c(sum, bytes + lengths[level - 1], lengths[level] - lengths[level - 1]);
        prefix |= level == 1 ? fold(sum, 16) : fold(sum, 8) << 8 * level;
    }
    return prefix;
}
