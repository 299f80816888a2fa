/* SPDX-License-Identifier: Apache-2.0 */
/* said.c - see said.h. */
#include "kernels/upstream/said.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

#define SAID_INITIAL 1024u

int said_init(struct said *said, const struct text *text, const weft_job_view_t *view, bool keep)
{
    *said = (struct said){.text = text, .kept = keep};
    for (size_t i = 0; i < view->stop_count; i++)
        if (stop_add(&said->stops, (struct gguf_str){view->stops[i].text, view->stops[i].len}))
            return WEFT_E_BAD_REQUEST;
    if (view->resume_count == 0)
        return 0;
    if (keep)
        said->bytes = text_of(text, view->resume, view->resume_count, &said->len, &said->begun_len);
    if (!said->bytes)
        return WEFT_E_NO_CAPABLE_NODE;
    said->capacity = said->len;
    said->count = (uint32_t)view->resume_count;
    (void)stop_feed(&said->stops, &said->stop, said->bytes, said->len);
    said->known = said->stop.held_len;
    said->len -= said->begun_len; /* servers take whole characters only */
    memcpy(said->begun, said->bytes + said->len, said->begun_len);
    return 0;
}

void said_deinit(struct said *said)
{
    free(said->bytes);
    *said = (struct said){.count = 0};
}

static int keep(struct said *said, const char *piece, size_t len)
{
    if (len > WEFT_MESSAGE_MAX - said->len)
        return -ENOBUFS;
    size_t capacity = said->capacity ? said->capacity : SAID_INITIAL;
    while (capacity < said->len + len)
        capacity *= 2;
    if (capacity != said->capacity) {
        char *longer = realloc(said->bytes, capacity);
        if (!longer)
            return -ENOMEM;
        said->bytes = longer;
        said->capacity = capacity;
    }
    memcpy(said->bytes + said->len, piece, len);
    said->len += len;
    return 0;
}

/* Bytes [from, certain) of what was held, `held_len` of them, with the piece behind it. */
static int give(struct said *said, const char *held, size_t held_len, const char *piece,
                size_t from, size_t certain, text_emit_fn emit, void *user)
{
    if (from == certain)
        return 0;
    if (from >= held_len)
        return text_tokens(said->text, piece + (from - held_len), certain - from, &said->count,
                           emit, user);
    if (certain <= held_len)
        return text_tokens(said->text, held + from, certain - from, &said->count, emit, user);
    char *joined = malloc(certain);
    if (!joined)
        return -ENOMEM;
    memcpy(joined, held, held_len);
    memcpy(joined + held_len, piece, certain - held_len);
    const int rc = text_tokens(said->text, joined + from, certain - from, &said->count, emit, user);
    free(joined);
    return rc;
}

/* Steps over what the client has of a character already. */
static int skip_begun(struct said *said, const char **piece, size_t *len)
{
    const size_t part = *len < said->begun_len ? *len : said->begun_len;
    if (memcmp(*piece, said->begun, part) != 0)
        return -EILSEQ;
    said->begun_len -= part;
    memmove(said->begun, said->begun + part, said->begun_len);
    *piece += part;
    *len -= part;
    return 0;
}

int said_add(struct said *said, const char *piece, size_t len, text_emit_fn emit, void *user)
{
    char held[STOP_BYTES_MAX];
    int rc = said->kept ? keep(said, piece, len) : 0;
    if (rc == 0 && said->begun_len)
        rc = skip_begun(said, &piece, &len);
    if (rc || len == 0)
        return rc;
    if (said->stops.count == 0)
        return text_tokens(said->text, piece, len, &said->count, emit, user);
    if (said->stop.ended)
        return -ECANCELED;
    const size_t held_len = said->stop.held_len;
    memcpy(held, said->stop.held, held_len);
    const size_t certain = stop_feed(&said->stops, &said->stop, piece, len);
    const size_t from = said->known < certain ? said->known : certain;
    said->known -= from;
    rc = give(said, held, held_len, piece, from, certain, emit, user);
    return rc == 0 && said->stop.ended ? -ECANCELED : rc;
}

const char *said_tail(const struct said *said, size_t *len)
{
    *len = said->stop.ended || said->stop.held_len < said->known
               ? 0
               : said->stop.held_len - said->known;
    return said->stop.held + (*len ? said->known : 0);
}
