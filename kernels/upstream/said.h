/* SPDX-License-Identifier: Apache-2.0 */
/*
 * said.h - what one job has been given: counts its tokens, holds back what may begin one of its
 * stop strings (kernels/model/stop.h), and keeps the whole text where somebody else could go on
 * behind it. Begins with the text of the tokens that an earlier attempt has given.
 *
 * Allocates only for the text that is kept. Threads: one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/worker.h>

#include "kernels/model/stop.h"
#include "kernels/upstream/text.h"

struct said {
    const struct text *text;
    uint32_t count; /* tokens, resumed ones included */
    bool kept;      /* `bytes` is everything */
    char *bytes;
    size_t len;
    size_t capacity;
    struct stop_set stops;
    struct stop_state stop;
    char
        begun[4]; /* the beginning of a character that the client has; who goes on gives it again */
    size_t begun_len;
    size_t known; /* of the bytes held, the first that the client has from an earlier attempt */
};

/* `keep`: somebody could go on behind the text. `text` and `view` must outlive it. Free it with
 * said_deinit() in any case. Returns 0, WEFT_E_BAD_REQUEST (stop strings that cannot be looked
 * for), or WEFT_E_NO_CAPABLE_NODE (resumed behind tokens that lead to no text, or none can go on).
 */
int said_init(struct said *said, const struct text *text, const weft_job_view_t *view, bool keep);
void said_deinit(struct said *said);

/* A piece has come: gives out what is certain. Returns 0, -ECANCELED behind a stop string, what
 * emit() returned, -ENOBUFS beyond WEFT_MESSAGE_MAX, or -ENOMEM. */
int said_add(struct said *said, const char *piece, size_t len, text_emit_fn emit, void *user);

/* Has a stop string come? */
static inline bool said_stopped(const struct said *said)
{
    return said->stop.ended;
}

/* Text held back at the end: it began no stop string after all. Sets *len. */
const char *said_tail(const struct said *said, size_t *len);
