/* SPDX-License-Identifier: Apache-2.0 */
/*
 * text.h - what names and ids may be made of that come from outside and go into logs, JSON, headers
 * and onto screens: printable ASCII without spaces.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Are these `len` bytes such a word? No bytes are. */
static inline bool text_is_word(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return false;
        }
    }
    return true;
}
