/* SPDX-License-Identifier: Apache-2.0 */
/*
 * datagram.h - the first check of a received datagram, the same for requests (serve.c) and replies
 * (request.c): afterwards header and payload may be read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/wire.h>

#include "schemas/base/crc32c.h"

/* Reply bytes a worker may send before the client has said how many it takes. A RESEND counts as a
 * credit of this much past its first byte, so that no lost ACK can stop a stream for good. */
#define FLOW_CREDIT_FIRST_BYTES 65536u

struct datagram_payload {
    const uint8_t *data;
    uint32_t len;
};

/* Version, direction (`down` = towards the client), lengths. The struct that `size` is the size of
 * may be laid over `data` if this returns true; unknown later header fields are stepped over. */
static inline bool datagram_check(const uint8_t *data, size_t len, bool down, size_t size,
                                  struct datagram_payload *payload)
{
    if (len < size || len > WEFT_DATAGRAM_MAX) {
        return false;
    }
    const struct weft_hdr *h = (const struct weft_hdr *)(const void *)data;
    size_t header_len = (size_t)h->hdr_words * 4;
    if (h->ver_fmt != WEFT_VER_FMT || ((h->type & WEFT_TYPE_DOWN) != 0) != down ||
        header_len < size || header_len > len) {
        return false;
    }
    payload->data = data + header_len;
    payload->len = (uint32_t)(len - header_len);
    return true;
}

/* What `arg` of a RESP has to be. */
static inline uint32_t datagram_sum(const struct weft_rsp_hdr *h, const void *payload, size_t len)
{
    size_t begin = offsetof(struct weft_rsp_hdr, conn_id);
    uint32_t sum =
        crc32c(0, (const uint8_t *)h + begin, offsetof(struct weft_rsp_hdr, room) - begin);
    return crc32c(sum, payload, len);
}
