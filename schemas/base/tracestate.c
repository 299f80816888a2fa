/* SPDX-License-Identifier: Apache-2.0 */
/* tracestate.c - see tracestate.h. */
#include "schemas/base/tracestate.h"

#include <string.h>

#define KEY_MAX    256u
#define VALUE_MAX  256u
#define MEMBER_BIG 128u

static bool is_space(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_key_begin(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_key(char c)
{
    return is_key_begin(c) || c == '_' || c == '-' || c == '*' || c == '/' || c == '@';
}

/* Printable ASCII but the comma, which ends a member, and the equals sign. */
static bool is_value(char c)
{
    return c >= ' ' && c <= '~' && c != ',' && c != '=';
}

static size_t key_len(const char *text, size_t len)
{
    size_t at = 0;
    while (at < len && is_key(text[at])) {
        at++;
    }
    return at;
}

static bool member_is_valid(const char *text, size_t len)
{
    size_t key = key_len(text, len);
    if (key == 0 || key > KEY_MAX || !is_key_begin(text[0]) || key == len || text[key] != '=' ||
        len - key - 1 == 0 || len - key - 1 > VALUE_MAX) {
        return false;
    }
    for (size_t i = key + 1; i < len; i++) {
        if (!is_value(text[i])) {
            return false;
        }
    }
    return true; /* its last character is no space: they were taken off */
}

static bool is_known(const struct tracestate *state, const char *text, size_t len)
{
    size_t key = key_len(text, len) + 1; /* with its equals sign */
    for (uint32_t i = 0; i < state->count; i++) {
        if (state->members[i].len >= key && memcmp(state->members[i].at, text, key) == 0) {
            return true;
        }
    }
    return false;
}

static void member_add(struct tracestate *state, const char *text, size_t len)
{
    while (len > 0 && is_space(text[0])) {
        text++;
        len--;
    }
    while (len > 0 && is_space(text[len - 1])) {
        len--;
    }
    if (len == 0) {
        return; /* allowed, and nothing */
    }
    if (state->count == TRACESTATE_MEMBERS || !member_is_valid(text, len) ||
        is_known(state, text, len)) {
        state->bad = true;
        return;
    }
    state->members[state->count++] = (struct tracestate_member){text, len};
}

void tracestate_add(struct tracestate *state, const char *line, size_t len)
{
    while (len > 0 && !state->bad) {
        const char *comma = memchr(line, ',', len);
        size_t part = comma != NULL ? (size_t)(comma - line) : len;
        member_add(state, line, part);
        part += comma != NULL;
        line += part;
        len -= part;
    }
}

/* Which members stay, a bit each. */
static uint32_t members_kept(const struct tracestate *state)
{
    uint32_t kept = 0;
    size_t size = 0;
    for (uint32_t i = 0; i < state->count; i++) {
        kept |= UINT32_C(1) << i;
        size += state->members[i].len + (i > 0);
    }
    for (uint32_t least = MEMBER_BIG + 1;; least = 0) {
        for (uint32_t i = state->count; i-- > 0 && size > TRACESTATE_MAX;) {
            if ((kept >> i & 1) != 0 && state->members[i].len >= least) {
                kept &= ~(UINT32_C(1) << i);
                size -= state->members[i].len + (kept != 0);
            }
        }
        if (least == 0) {
            return kept;
        }
    }
}

size_t tracestate_write(const struct tracestate *state, char out[static TRACESTATE_BYTES])
{
    uint32_t kept = state->bad ? 0 : members_kept(state);
    size_t used = 0;
    for (uint32_t i = 0; i < state->count; i++) {
        if ((kept >> i & 1) != 0) {
            if (used > 0) {
                out[used++] = ',';
            }
            memcpy(out + used, state->members[i].at, state->members[i].len);
            used += state->members[i].len;
        }
    }
    out[used] = '\0';
    return used;
}

bool tracestate_is_clean(const char *text, size_t len)
{
    struct tracestate state = {.count = 0};
    char out[TRACESTATE_BYTES];
    tracestate_add(&state, text, len);
    return tracestate_write(&state, out) == len && memcmp(out, text, len) == 0;
}
