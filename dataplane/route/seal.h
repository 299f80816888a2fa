/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal.h - the two proofs an ingress hands out and later checks, so that it can forget in between:
 * the cookie (a client owns its source address) and the tag of a return block (this node wrote it).
 * Both are SipHash-2-4 (libsodium crypto_shorthash) under keys that never leave the node. Keys are
 * replaced every SEAL_LIFE_NS; the previous one is still accepted.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#define SEAL_KEY_BYTES 16u
#define SEAL_LIFE_NS                                                                               \
    UINT64_C(120000000000) /* two minutes; the previous key lives as long again                    \
                            */

/* Owned by one lcore. */
struct seal {
    uint8_t keys[2][SEAL_KEY_BYTES]; /* [0] is current */
    uint64_t changed_ns;
};

/* Draws both keys. */
void seal_init(struct seal *seal, uint64_t now_ns);

/* Changes the key when its time has come. */
void seal_tick(struct seal *seal, uint64_t now_ns);

/* Cookie of a client address (network order) and connection; never 0. */
uint64_t seal_cookie(const struct seal *seal, uint32_t addr, uint16_t port_be, uint64_t conn_id);
bool seal_cookie_ok(const struct seal *seal, uint32_t addr, uint16_t port_be, uint64_t conn_id,
                    uint64_t cookie);

/* Writes block->tag over the rest of the block and the connection. */
void seal_return(const struct seal *seal, struct weft_return *block, uint64_t conn_id);
bool seal_return_ok(const struct seal *seal, const struct weft_return *block, uint64_t conn_id);
