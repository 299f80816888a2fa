/* SPDX-License-Identifier: Apache-2.0 */
/*
 * buf.h - bytes that grow at the end and are taken from the front: request bodies, replies on their
 * way out. Writing never fails at once: without memory `failed` is set, and what was begun stays
 * unfinished. Capacity is kept, so that a stream's tokens cost no allocation each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data; /* heap; NULL until something is added */
    size_t at;  /* bytes already taken from the front */
    size_t end;
    size_t room;
    bool failed; /* out of memory: the content is not whole */
};

void buf_deinit(struct buf *b);
/* Gives the content away: heap, `*len` bytes, zero behind them; NULL without memory. `b` is empty
 * afterwards. */
char *buf_give(struct buf *b, size_t *len);

static inline size_t buf_len(const struct buf *b)
{
    return b->end - b->at;
}

/* So much is about to be added to an empty one: one allocation in place of several. A hint. */
void buf_expect(struct buf *b, size_t len);
void buf_add(struct buf *b, const void *data, size_t len);
void buf_add_text(struct buf *b, const char *text);
void buf_add_format(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `len` bytes that should be UTF-8, as the inside of a JSON string (RFC 8259, section 7); what is
 * no UTF-8 becomes U+FFFD, one for each byte. */
void buf_add_json(struct buf *b, const char *text, size_t len);
/* The same in quotes, of a text that ends in zero. */
void buf_add_quoted(struct buf *b, const char *text);

/* Moves up to `max` bytes out at the front. Returns how many. */
size_t buf_take(struct buf *b, void *out, size_t max);

/* The last bytes of a text that ends within a character wait here for the rest of it. */
struct utf8_hold {
    uint8_t bytes[4];
    uint8_t len;
};

/* Adds held and new text as buf_add_json() does, but for a last character that is not whole yet. */
void buf_add_held(struct buf *b, struct utf8_hold *hold, const char *text, size_t len);
/* There will be no more: what is held cannot become whole. */
void buf_add_rest(struct buf *b, struct utf8_hold *hold);
