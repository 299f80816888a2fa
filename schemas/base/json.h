/* SPDX-License-Identifier: Apache-2.0 */
/*
 * json.h - the texts of JSON, which are nearly all of it where prompts are concerned: stepping over
 * their plain parts, and writing them (RFC 8259, section 7).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The first of these bytes that does not stand for itself in a JSON string or is no ASCII (a quote,
 * a backslash, a control character, 0x80 and above), or up to 7 bytes before it; else up to 7 bytes
 * before `end`. Eight bytes at a time: a subtraction borrows from a byte's high bit where the byte
 * is less, and bytes behind the first such one do not matter. */
static inline const char *json_skip_plain(const char *at, const char *end)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof(word));
        uint64_t quotes = word ^ (ones * '"');
        uint64_t slashes = word ^ (ones * '\\');
        uint64_t odd = ((word - ones * ' ') & ~word) | ((quotes - ones) & ~quotes) |
                       ((slashes - ones) & ~slashes) | word;
        if ((odd & (ones * 0x80)) != 0) {
            break;
        }
    }
    return at;
}

#define JSON_GROWTH_MAX 6u /* bytes that one byte may become: \u001f */

/* Writes the escape of an ASCII character, JSON_GROWTH_MAX bytes at most. Returns its end. */
char *json_put_escape(char *out, unsigned char c);

/* Writes `len` bytes of UTF-8 as the inside of a string, at most JSON_GROWTH_MAX for each. Returns
 * the end of what was written; NULL: they are no UTF-8. */
char *json_put_text(char *out, const char *text, size_t len);
