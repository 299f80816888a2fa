/* SPDX-License-Identifier: Apache-2.0 */
/*
 * window.h - how far a receiver lets its sender run ahead: doubles as data arrives whole, halves on
 * loss. The state of cc_loss.c; cc.h says what a window is for.
 */
#pragma once

#include <stdint.h>
#include <weft/wire.h>

/* Enough for every unscheduled datagram at the largest size. */
#define WINDOW_MIN_BYTES 32768u
#define WINDOW_MAX_BYTES 262144u
WEFT_ASSERT(WINDOW_MIN_BYTES >= WEFT_UNSCHEDULED_MAX * WEFT_DATAGRAM_MAX, "holds the first flight");

struct window {
    uint32_t bytes;
};

static inline void window_init(struct window *w)
{
    w->bytes = WINDOW_MIN_BYTES;
}

static inline void window_grow(struct window *w)
{
    w->bytes = w->bytes > WINDOW_MAX_BYTES / 2 ? WINDOW_MAX_BYTES : w->bytes * 2;
}

static inline void window_shrink(struct window *w)
{
    w->bytes = w->bytes / 2 < WINDOW_MIN_BYTES ? WINDOW_MIN_BYTES : w->bytes / 2;
}
