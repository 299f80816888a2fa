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

#define STOP_STRINGS_MAX 16u
#define STOP_BYTES_MAX   256u /* of a string */

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

/* Takes `len` bytes. Returns how many bytes are certain now: they are the first of what was held
 * before, followed by `bytes`. The rest is held, or, if state->ended, of no use: a string was found
 * and nothing comes after it. An answer that ends for another reason ends with what is held. */
size_t stop_feed(const struct stop_set *set, struct stop_state *state, const char *bytes,
                 size_t len);
