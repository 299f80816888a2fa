/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stop.h - ends an answer where one of the caller's strings begins, while it is still being
 * written. Bytes come in as tokens give them; out come those that can no longer be part of a stop
 * string. The string itself never comes out. Strings may lie across any number of tokens.
 *
 * The first string to be complete counts; of several complete at the same byte the longest.
 *
 * Threads: a state belongs to one answer; no allocation, no time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "kernels/model/gguf.h"

#define STOP_STRINGS_MAX 8u
#define STOP_BYTES_MAX   128u /* of a string */

/* The strings; the caller keeps their bytes. */
struct stop_set {
    struct gguf_str strings[STOP_STRINGS_MAX];
    size_t count;
};

/* Zero-filled to begin with. */
struct stop_state {
    char held[STOP_BYTES_MAX]; /* the end of the answer: may be the beginning of a string */
    size_t held_len;
    bool ended;
};

/* 0, or -EINVAL for no bytes or too many, or more strings than the set has room for. */
int stop_add(struct stop_set *set, struct gguf_str string);

/* Takes `len` bytes and writes what is certain to `out`, which has room for STOP_BYTES_MAX + len.
 * Returns how much that is. state->ended says that a string was found: nothing comes after it. */
size_t stop_feed(const struct stop_set *set, struct stop_state *state, const char *bytes,
                 size_t len, char *out);

/* The answer is over for another reason: what was held back. `out` has STOP_BYTES_MAX. */
size_t stop_flush(struct stop_state *state, char *out);
