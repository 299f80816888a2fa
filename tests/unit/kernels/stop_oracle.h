/* SPDX-License-Identifier: Apache-2.0 */
/* stop_oracle.h - where stop strings end a text, found in the plainest way; for test_stop_strings.c
 * and fuzz_stop.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "kernels/model/stop.h"

/* How many bytes stand before the string that is complete first, and of several the longest. */
static inline size_t stop_oracle(const struct stop_set *set, const char *text, size_t len,
                                 bool *found)
{
    for (size_t end = 1; end <= len; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < set->count; i++) {
            const struct gguf_str s = set->strings[i];
            if (s.len <= end && s.len > longest && memcmp(text + end - s.len, s.data, s.len) == 0)
                longest = s.len;
        }
        *found = longest != 0;
        if (*found)
            return end - longest;
    }
    *found = false;
    return len;
}
