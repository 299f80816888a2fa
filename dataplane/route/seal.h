/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal.h - the two proofs an ingress hands out and later checks, so that it can forget in between:
 * the cookie (a client owns its source address) and the tag of a return block (this node wrote it).
 * Both are SipHash-2-4 (libsodium crypto_shorthash) under keys that never leave the node. Keys are
 * replaced every SEAL_LIFE_NS; the previous one is still accepted.
 *
 * Each core has its own seal, and all of them agree without talking: a key is derived from the
 * node's master key and the number of the period that it belongs to.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#define SEAL_KEY_BYTES 16u
#define SEAL_LIFE_NS                                                                               \
    UINT64_C(120000000000) /* two minutes; the previous key lives as long again                    \
                            */

#define SEAL_MASTER_BYTES 32u

/* Drawn once when the node starts. */
struct seal_master {
    uint8_t bytes[SEAL_MASTER_BYTES];
};

void seal_master_draw(struct seal_master *master);

/* What has been hashed lately, by connection: the packets of one come again and again. Only what
 * was found right is kept, and only until the keys change, so that the answers are those of hashing
 * each time. */
#define SEAL_KNOWN 1024u /* a power of two */
struct seal_cookie_known {
    uint64_t conn_id;
    uint64_t until_period; /* keys' period + 1; 0 = empty */
    uint64_t cookie;
    struct in6_addr addr;
    uint16_t port_be;
};
struct seal_return_known {
    uint64_t conn_id;
    uint64_t until_period;
    struct weft_return block;
};

/* Owned by one lcore. */
struct seal {
    uint8_t keys[2][SEAL_KEY_BYTES]; /* [0] is current */
    uint64_t period;
    struct seal_master master;
    struct seal_cookie_known cookies[SEAL_KNOWN];
    struct seal_return_known returns[SEAL_KNOWN];
};

void seal_init(struct seal *seal, const struct seal_master *master, uint64_t now_ns);

/* Changes the keys when their time has come: at the head of each burst, so that no core checks with
 * older keys than another one has already sealed with. */
void seal_tick(struct seal *seal, uint64_t now_ns);

/* Cookie of a client address (schemas/base/addr.h) and connection; never 0. */
uint64_t seal_cookie(const struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                     uint64_t conn_id);
bool seal_cookie_ok(struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                    uint64_t conn_id, uint64_t cookie);

/* Writes block->tag over the rest of the block and the connection. */
void seal_return(struct seal *seal, struct weft_return *block, uint64_t conn_id);
bool seal_return_ok(struct seal *seal, const struct weft_return *block, uint64_t conn_id);
