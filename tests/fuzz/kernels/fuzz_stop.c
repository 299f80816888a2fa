/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes kernels/model/stop.h: one byte how many strings, one byte how long the pieces are that the
 * text comes in; for each string one byte length and the string; the rest is the text. What comes
 * out ends where a plain search finds the first string that is complete, the longest of several. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/stop.h"
#include "tests/unit/kernels/stop_oracle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool good)
{
    if (!good)
        abort();
}

static void feed(const struct stop_set *set, const char *text, size_t len, size_t step)
{
    struct stop_state state = {.held_len = 0};
    bool ended;
    size_t out = 0;
    const size_t wanted = stop_oracle(set, text, len, &ended);
    for (size_t at = 0; at < len && !state.ended; at += step) {
        const size_t part = len - at < step ? len - at : step;
        out += stop_feed(set, &state, text + at, part);
        need(state.held_len < STOP_BYTES_MAX && (state.ended || out + state.held_len == at + part));
        need(memcmp(state.held, text + out, state.held_len) == 0);
    }
    need(state.ended == ended && out + state.held_len == wanted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stop_set set = {.count = 0};
    if (size < 2)
        return 0;
    const size_t strings = data[0] % (STOP_STRINGS_MAX + 2);
    const size_t step = 1 + data[1];
    size_t at = 2;
    for (size_t i = 0; i < strings && at < size; i++) {
        const size_t told = data[at++];
        const struct gguf_str s = {(const char *)data + at, told < size - at ? told : size - at};
        const size_t before = set.count;
        const bool good = stop_add(&set, s) == 0;
        need(good == (s.len > 0 && before < STOP_STRINGS_MAX) && set.count == before + good);
        at += s.len;
    }
    feed(&set, (const char *)data + at, size - at, step);
    return 0;
}
