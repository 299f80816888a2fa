/* SPDX-License-Identifier: Apache-2.0 */
/* seal.c - see seal.h. */
#include "dataplane/route/seal.h"

#include <sodium.h>
#include <string.h>

#include "schemas/base/addr.h"

_Static_assert(crypto_shorthash_KEYBYTES == SEAL_KEY_BYTES, "SipHash key size");
_Static_assert(crypto_shorthash_BYTES == sizeof(uint64_t), "SipHash output size");

_Static_assert(crypto_kdf_KEYBYTES == SEAL_MASTER_BYTES, "master key size");
_Static_assert(crypto_kdf_BYTES_MIN <= SEAL_KEY_BYTES, "derived key size");
#define KEY_CONTEXT "weftseal" /* 8 bytes */

/* Keeps a cookie from ever being taken for a tag. */
enum purpose { PURPOSE_COOKIE = 1, PURPOSE_RETURN = 2, PURPOSE_COOKIE_IPV6 = 3 };

/* IPv4 has a shorter input of its own: half the time. */
struct WEFT_PACKED cookie_input {
    uint8_t purpose;
    uint32_t addr;
    uint16_t port_be;
    uint64_t conn_id;
};

struct WEFT_PACKED cookie_input_ipv6 {
    uint8_t purpose;
    struct in6_addr addr;
    uint16_t port_be;
    uint64_t conn_id;
};

struct WEFT_PACKED return_input {
    uint8_t purpose;
    uint8_t block[offsetof(struct weft_return, tag)];
    uint64_t conn_id;
};

void seal_master_draw(struct seal_master *master)
{
    randombytes_buf(master->bytes, sizeof(master->bytes));
}

static void derive(struct seal *seal, uint8_t *key, uint64_t period)
{
    crypto_kdf_derive_from_key(key, SEAL_KEY_BYTES, period, KEY_CONTEXT, seal->master.bytes);
}

static void derive_both(struct seal *seal, uint64_t period)
{
    seal->period = period;
    derive(seal, seal->keys[0], period);
    derive(seal, seal->keys[1], period - 1);
}

void seal_init(struct seal *seal, const struct seal_master *master, uint64_t now_ns)
{
    memset(seal, 0, sizeof(*seal));
    seal->master = *master;
    derive_both(seal, now_ns / SEAL_LIFE_NS);
}

void seal_tick(struct seal *seal, uint64_t now_ns)
{
    if (__builtin_expect(now_ns - seal->period * SEAL_LIFE_NS >= SEAL_LIFE_NS, 0)) {
        derive_both(seal, now_ns / SEAL_LIFE_NS);
    }
}

static uint64_t hash(const uint8_t *key, const void *data, size_t size)
{
    uint64_t out;
    crypto_shorthash((unsigned char *)&out, data, size, key);
    return out;
}

static uint64_t cookie_under(const uint8_t *key, const struct in6_addr *addr, uint16_t port_be,
                             uint64_t conn_id)
{
    uint64_t cookie;
    if (__builtin_expect(addr_is_v4(addr), 1)) {
        struct cookie_input in = {PURPOSE_COOKIE, addr_v4(addr), port_be, conn_id};
        cookie = hash(key, &in, sizeof(in));
    } else {
        struct cookie_input_ipv6 in = {PURPOSE_COOKIE_IPV6, *addr, port_be, conn_id};
        cookie = hash(key, &in, sizeof(in));
    }
    return cookie != 0 ? cookie : 1;
}

uint64_t seal_cookie(const struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                     uint64_t conn_id)
{
    return cookie_under(seal->keys[0], addr, port_be, conn_id);
}

static uint32_t known_slot(uint64_t conn_id)
{
    return (uint32_t)(conn_id * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (SEAL_KNOWN - 1);
}

bool seal_cookie_ok(struct seal *seal, const struct in6_addr *addr, uint16_t port_be,
                    uint64_t conn_id, uint64_t cookie)
{
    struct seal_cookie_known *known = &seal->cookies[known_slot(conn_id)];
    if (known->conn_id == conn_id && known->until_period == seal->period + 1 &&
        known->cookie == cookie && known->port_be == port_be && addr_equal(&known->addr, addr)) {
        return true;
    }
    bool ok = cookie == cookie_under(seal->keys[0], addr, port_be, conn_id) ||
              cookie == cookie_under(seal->keys[1], addr, port_be, conn_id);
    if (ok) {
        *known = (struct seal_cookie_known){conn_id, seal->period + 1, cookie, *addr, port_be};
    }
    return ok;
}

static uint64_t return_under(const uint8_t *key, const struct weft_return *block, uint64_t conn_id)
{
    struct return_input in = {.purpose = PURPOSE_RETURN, .conn_id = conn_id};
    memcpy(in.block, block, sizeof(in.block));
    return hash(key, &in, sizeof(in));
}

void seal_return(struct seal *seal, struct weft_return *block, uint64_t conn_id)
{
    struct seal_return_known *known = &seal->returns[known_slot(conn_id)];
    if (known->conn_id == conn_id && known->until_period == seal->period + 1 &&
        memcmp(&known->block, block, offsetof(struct weft_return, tag)) == 0) {
        block->tag = known->block.tag;
        return;
    }
    block->tag = return_under(seal->keys[0], block, conn_id);
    *known = (struct seal_return_known){conn_id, seal->period + 1, *block};
}

bool seal_return_ok(struct seal *seal, const struct weft_return *block, uint64_t conn_id)
{
    const struct seal_return_known *known = &seal->returns[known_slot(conn_id)];
    if (known->conn_id == conn_id && known->until_period == seal->period + 1 &&
        memcmp(&known->block, block, sizeof(*block)) == 0) {
        return true;
    }
    return block->tag == return_under(seal->keys[0], block, conn_id) ||
           block->tag == return_under(seal->keys[1], block, conn_id);
}
