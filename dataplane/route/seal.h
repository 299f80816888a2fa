/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal.h - the two proofs an ingress hands out and later checks, so that it can forget in between:
 * the cookie (a client owns its source address) and the tag of a return block (this node wrote it).
 * Both are SipHash-2-4 under keys that never leave the node. Keys are replaced every SEAL_LIFE_NS;
 * the previous one is still accepted. A burst's proofs are made and checked together (siphash.h):
 * nothing is remembered of a client, proven or not.
 *
 * Each core has its own seal, and all of them agree without talking: a key is derived from the
 * node's master key and the number of the period that it belongs to.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/wire.h>

#include "dataplane/route/siphash.h"
#include "schemas/base/addr.h"

#define SEAL_KEY_BYTES SIPHASH_KEY_BYTES
#define SEAL_LIFE_NS                                                                               \
    UINT64_C(120000000000) /* two minutes; the previous key lives as long again                    \
                            */

#define SEAL_MASTER_BYTES 32u

/* Drawn once when the node starts. */
struct seal_master {
    uint8_t bytes[SEAL_MASTER_BYTES];
};

void seal_master_draw(struct seal_master *master);

/* Owned by one lcore. */
struct seal {
    uint8_t keys[2][SEAL_KEY_BYTES]; /* [0] is current */
    uint64_t period;
    struct seal_master master;
};

void seal_init(struct seal *seal, const struct seal_master *master, uint64_t now_ns);

/* Changes the keys when their time has come: at the head of each burst, so that no core checks with
 * older keys than another one has already sealed with. */
void seal_tick(struct seal *seal, uint64_t now_ns);

/* What is proven; each kind has an input of its own length and mark, so that none is ever taken for
 * another. IPv4 has a shorter one. */
enum seal_kind { SEAL_COOKIE, SEAL_COOKIE_IP6, SEAL_RETURN, SEAL_KINDS };

/* Up to SIPHASH_BATCH proofs of one kind, to be made or checked. Zero-filled is empty; reset
 * `count` to begin anew. */
struct seal_batch {
    struct siphash_batch hash; /* `hashes`: the proofs under the current key */
    uint64_t claimed[SIPHASH_BATCH];
    uint32_t valid; /* out: bit i, claim i is a proof under the current or the previous key */
};

/* The last word of a return block's input: its kind's mark, and 33 bytes in all. */
#define SEAL_RETURN_LAST (((uint64_t)SEAL_RETURN + 1) | UINT64_C(33) << 56)

/* Puts one into a batch of its kind. `claimed` does not matter where proofs are to be made. Which
 * kind a cookie of this address (schemas/base/addr.h) is, seal_cookie_kind() tells. */
static inline enum seal_kind seal_cookie_kind(const struct in6_addr *addr)
{
    return addr_is_v4(addr) ? SEAL_COOKIE : SEAL_COOKIE_IP6;
}
void seal_add_cookie(struct seal_batch *batch, const struct in6_addr *addr, uint16_t port_be,
                     uint64_t conn_id, uint64_t claimed);
void seal_add_return(struct seal_batch *batch, const struct weft_return *block, uint64_t conn_id);

/* The same of a block's first three words; what is claimed is 0. */
static inline void seal_add_return_words(struct seal_batch *batch, const uint64_t words[3],
                                         uint64_t conn_id)
{
    struct siphash_batch *h = &batch->hash;
    uint32_t i = h->count++;
    batch->claimed[i] = 0;
    h->words[0][i] = words[0];
    h->words[1][i] = words[1];
    h->words[2][i] = words[2];
    h->words[3][i] = conn_id;
    h->words[4][i] = SEAL_RETURN_LAST;
}

/* Makes all proofs. Cookies are never 0. */
void seal_make(const struct seal *seal, enum seal_kind kind, struct seal_batch *batch);
/* The same, and checks all claims. */
void seal_check(const struct seal *seal, enum seal_kind kind, struct seal_batch *batch);

/* One at a time. */
uint64_t seal_cookie(const struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                     uint64_t conn_id);
bool seal_cookie_ok(const struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                    uint64_t conn_id, uint64_t cookie);
/* Writes block->tag over the rest of the block and the connection. */
void seal_return(const struct seal *seal, struct weft_return *block, uint64_t conn_id);
bool seal_return_ok(const struct seal *seal, const struct weft_return *block, uint64_t conn_id);
