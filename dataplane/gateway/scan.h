/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan.h - looks at a JSON text while it comes in, piece by piece, so that one that would be costly
 * to parse is refused before it is whole: nested too deeply, or with too many values (a parser
 * needs some 50 bytes for each, a body of 16 MiB may hold 8 million). Says nothing about whether
 * the text is valid; what it lets pass is as deep and as long as it says.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SCAN_DEPTH_MAX  64u
#define SCAN_VALUES_MAX 262144u

struct scan {
    uint32_t depth;
    uint32_t values; /* separators and openings: each precedes one value at most */
    bool in_string;
    bool escaped;
};

/* False: too deep or too many, from now on. */
bool scan_feed(struct scan *s, const char *text, size_t len);
