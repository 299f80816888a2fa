/* SPDX-License-Identifier: Apache-2.0 */
/*
 * utf8.h - characters of UTF-8 in bytes that may be anything (RFC 3629, the table of section 4):
 * for whoever must hand on valid text although a model's tokens end where they like.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define UTF8_INVALID     0              /* no character begins so */
#define UTF8_PARTIAL     -1             /* a character may begin so; more bytes tell */
#define UTF8_REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* Bytes 2.. of a sequence are 80..bf but for the first of them after these leads. */
static inline int utf8_second_fits(uint8_t lead, uint8_t second)
{
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;  /* overlong */
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf; /* surrogates, the end */
    return second >= low && second <= high;
}

/* Length of the character at `p`, of which `left` (> 0) bytes are there; or one of the above. */
static inline int utf8_step(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    if (lead < 0x80) {
        return 1;
    }
    int len = lead >= 0xc2 && lead <= 0xdf   ? 2
              : lead >= 0xe0 && lead <= 0xef ? 3
              : lead >= 0xf0 && lead <= 0xf4 ? 4
                                             : 0;
    if (len == 0) {
        return UTF8_INVALID;
    }
    for (int i = 1; i < len; i++) {
        if ((size_t)i == left) {
            return UTF8_PARTIAL;
        }
        if (i == 1 ? !utf8_second_fits(lead, p[1]) : (p[i] & 0xc0) != 0x80) {
            return UTF8_INVALID;
        }
    }
    return len;
}

/* Length of the whole, valid character at `p`, 0 if there is none; `left` as above. */
static inline size_t utf8_whole(const uint8_t *p, size_t left)
{
    int step = utf8_step(p, left);
    return step > 0 ? (size_t)step : 0;
}
