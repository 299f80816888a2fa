/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cursor.h - bounded reading and writing of little-endian records. An overrun sets `failed` and
 * yields zeros, so that a decoder can read a whole record and check once.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
    uint8_t *at;
    uint8_t *end;
    bool failed;
};

static inline void cursor_init(struct cursor *c, void *data, size_t size)
{
    c->at = data;
    c->end = c->at + size;
    c->failed = false;
}

/* For reading only. */
static inline void cursor_init_const(struct cursor *c, const void *data, size_t size)
{
    union {
        const void *in;
        void *out;
    } u = {.in = data};
    cursor_init(c, u.out, size);
}

static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

/* Steps over `size` bytes and returns where they were, or NULL (and fails) if they are not there.
 */
static inline void *cursor_take(struct cursor *c, size_t size)
{
    if (c->failed || cursor_left(c) < size) {
        c->failed = true;
        return NULL;
    }
    void *at = c->at;
    c->at += size;
    return at;
}

static inline void cursor_read(struct cursor *c, void *out, size_t size)
{
    const void *at = cursor_take(c, size);
    if (at != NULL) {
        memcpy(out, at, size);
    } else {
        memset(out, 0, size);
    }
}

static inline void cursor_write(struct cursor *c, const void *data, size_t size)
{
    void *at = cursor_take(c, size);
    if (at != NULL) {
        memcpy(at, data, size);
    }
}

#define CURSOR_DEFINE_(type, name)                                                                 \
    static inline type cursor_read_##name(struct cursor *c)                                        \
    {                                                                                              \
        type value;                                                                                \
        cursor_read(c, &value, sizeof(value));                                                     \
        return value;                                                                              \
    }                                                                                              \
    static inline void cursor_write_##name(struct cursor *c, type value)                           \
    {                                                                                              \
        cursor_write(c, &value, sizeof(value));                                                    \
    }
CURSOR_DEFINE_(uint8_t, u8)
CURSOR_DEFINE_(uint16_t, u16)
CURSOR_DEFINE_(uint32_t, u32)
CURSOR_DEFINE_(uint64_t, u64)
#undef CURSOR_DEFINE_
