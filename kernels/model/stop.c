/* SPDX-License-Identifier: Apache-2.0 */
/* See stop.h. What is held is always shorter than the longest string, so that looking at all
 * strings for each byte is cheap. */
#include "kernels/model/stop.h"

#include <errno.h>
#include <string.h>

int stop_add(struct stop_set *set, struct gguf_str string)
{
    if (string.len == 0 || string.len > STOP_BYTES_MAX || set->count == STOP_STRINGS_MAX)
        return -EINVAL;
    set->strings[set->count++] = string;
    return 0;
}

/* Length of the longest string that the held bytes end with, 0 if there is none. */
static size_t complete(const struct stop_set *set, const struct stop_state *state)
{
    size_t longest = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct gguf_str s = set->strings[i];
        if (s.len > longest && s.len <= state->held_len &&
            memcmp(state->held + state->held_len - s.len, s.data, s.len) == 0)
            longest = s.len;
    }
    return longest;
}

/* Length of the longest end of the held bytes that a string begins with. */
static size_t begun(const struct stop_set *set, const struct stop_state *state)
{
    size_t longest = 0;
    for (size_t i = 0; i < set->count; i++) {
        const struct gguf_str s = set->strings[i];
        size_t len = s.len - 1 < state->held_len ? s.len - 1 : state->held_len;
        while (len > longest && memcmp(state->held + state->held_len - len, s.data, len) != 0)
            len--;
        longest = len > longest ? len : longest;
    }
    return longest;
}

size_t stop_feed(const struct stop_set *set, struct stop_state *state, const char *bytes,
                 size_t len)
{
    size_t certain = 0;
    for (size_t i = 0; i < len && !state->ended; i++) {
        state->held[state->held_len++] = bytes[i];
        const size_t found = complete(set, state);
        const size_t kept = found ? found : begun(set, state);
        const size_t gone = state->held_len - kept;
        certain += gone;
        state->held_len = found ? 0 : kept;
        memmove(state->held, state->held + gone, state->held_len);
        state->ended = found > 0;
    }
    return certain;
}
