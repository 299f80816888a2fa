/* SPDX-License-Identifier: Apache-2.0 */
/* pairs.h - a set of ordered pairs of nodes (open addressing), for vnet.c's one-way blocks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All zero is an empty set. */
struct pairs {
    uint64_t *slots;
    size_t room; /* a power of two, or 0 */
    size_t used; /* removed ones included */
    size_t count;
};

void pairs_deinit(struct pairs *pairs);
bool pairs_has(const struct pairs *pairs, uint32_t a, uint32_t b);
/* Returns 0 or -ENOMEM. */
int pairs_add(struct pairs *pairs, uint32_t a, uint32_t b);
void pairs_remove(struct pairs *pairs, uint32_t a, uint32_t b);
