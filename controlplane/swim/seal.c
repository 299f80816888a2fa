/* SPDX-License-Identifier: Apache-2.0 */
/* seal.c - see seal.h. */
#include "controlplane/swim/seal.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "schemas/base/cursor.h"

#define MESH_CONTEXT  "weft swim mesh 1"
#define PAIR_CONTEXT  "weft swim pair 1"
#define TAG_CONTEXT   "weft swim tag  1"
#define CONTEXT_BYTES 16u
#define CLEAR_BYTES   (SWIM_HEADER_BYTES + 8u)
#define NONCE_BYTES   crypto_aead_xchacha20poly1305_ietf_NPUBBYTES

_Static_assert(crypto_aead_xchacha20poly1305_ietf_ABYTES == SWIM_TAG_BYTES, "tag of the AEAD");
_Static_assert(NONCE_BYTES == 24, "nonce of the AEAD");

/* ---- keyring ---- */

static uint32_t key_find(const struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES])
{
    uint32_t i = 0;
    while (i < ring->count && sodium_memcmp(ring->keys[i].secret, key, SWIM_KEY_BYTES) != 0) {
        i++;
    }
    return i;
}

int swim_keyring_install(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES])
{
    uint8_t tag[16];
    if (key_find(ring, key) < ring->count) {
        return 0;
    }
    if (ring->count == SWIM_KEYS_MAX) {
        return -ENOSPC;
    }
    memcpy(ring->keys[ring->count].secret, key, SWIM_KEY_BYTES);
    crypto_generichash(ring->keys[ring->count].mesh, SWIM_KEY_BYTES, (const uint8_t *)MESH_CONTEXT,
                       CONTEXT_BYTES, key, SWIM_KEY_BYTES);
    crypto_generichash(tag, sizeof(tag), (const uint8_t *)TAG_CONTEXT, CONTEXT_BYTES, key,
                       SWIM_KEY_BYTES);
    ring->keys[ring->count].tag = tag[0];
    ring->count++;
    return 0;
}

void swim_keyring_init(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES])
{
    memset(ring, 0, sizeof(*ring));
    ring->generation = 1;
    swim_keyring_install(ring, key);
}

int swim_keyring_use(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES])
{
    uint32_t i = key_find(ring, key);
    if (i == ring->count) {
        return -ENOENT;
    }
    if (i > 0) {
        struct swim_keyring old = *ring;
        ring->keys[0] = old.keys[i];
        ring->keys[i] = old.keys[0];
        ring->generation++;
        sodium_memzero(&old, sizeof(old));
    }
    return 0;
}

int swim_keyring_remove(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES])
{
    uint32_t i = key_find(ring, key);
    if (i == ring->count) {
        return -ENOENT;
    }
    if (i == 0) {
        return -EBUSY;
    }
    ring->count--;
    ring->keys[i] = ring->keys[ring->count];
    sodium_memzero(&ring->keys[ring->count], sizeof(ring->keys[0]));
    return 0;
}

/* ---- identity and pairs ---- */

void swim_identity_init(struct swim_identity *identity, const uint8_t seed[SWIM_KEY_BYTES])
{
    crypto_sign_seed_keypair(identity->public_key, identity->secret_key, seed);
    crypto_sign_ed25519_sk_to_curve25519(identity->exchange_key, identity->secret_key);
}

bool swim_pair_shared(const struct swim_identity *self, const uint8_t other[SWIM_KEY_BYTES],
                      uint8_t shared[SWIM_KEY_BYTES])
{
    uint8_t point[SWIM_KEY_BYTES];
    return crypto_sign_ed25519_pk_to_curve25519(point, other) == 0 &&
           crypto_scalarmult(shared, self->exchange_key, point) == 0;
}

void swim_pair_key(const struct swim_keyring *ring, uint32_t index,
                   const uint8_t shared[SWIM_KEY_BYTES], const uint8_t a[SWIM_KEY_BYTES],
                   const uint8_t b[SWIM_KEY_BYTES], uint8_t key[SWIM_KEY_BYTES])
{
    uint8_t bytes[CONTEXT_BYTES + 3 * SWIM_KEY_BYTES];
    bool ordered = memcmp(a, b, SWIM_KEY_BYTES) < 0;
    struct cursor c;
    cursor_init(&c, bytes, sizeof(bytes));
    cursor_write(&c, PAIR_CONTEXT, CONTEXT_BYTES);
    cursor_write(&c, shared, SWIM_KEY_BYTES);
    cursor_write(&c, ordered ? a : b, SWIM_KEY_BYTES);
    cursor_write(&c, ordered ? b : a, SWIM_KEY_BYTES);
    crypto_generichash(key, SWIM_KEY_BYTES, bytes, sizeof(bytes), ring->keys[index].secret,
                       SWIM_KEY_BYTES);
    sodium_memzero(bytes, sizeof(bytes));
}

/* ---- datagrams ---- */

bool swim_header_read(struct swim_header *header, const uint8_t *data, size_t size)
{
    struct cursor c;
    cursor_init_const(&c, data, size);
    uint8_t first = cursor_read_u8(&c);
    header->version = first >> 4;
    header->kind = first & 0xf;
    header->key_tag = cursor_read_u8(&c);
    header->session = cursor_read_u64(&c);
    header->counter = cursor_read_u16(&c);
    header->counter |= (uint64_t)cursor_read_u32(&c) << 16;
    return size >= SWIM_SEAL_BYTES && header->kind <= SWIM_SEAL_PAIR && header->counter != 0;
}

static void nonce_write(const struct swim_header *header, uint8_t nonce[NONCE_BYTES])
{
    memset(nonce, 0, NONCE_BYTES);
    memcpy(nonce, &header->session, sizeof(header->session));
    memcpy(nonce + 16, &header->counter, sizeof(header->counter));
}

/* What is authenticated without being sealed. */
static void clear_write(const struct swim_header *header, const uint8_t *data,
                        uint8_t clear[CLEAR_BYTES])
{
    memcpy(clear, data, SWIM_HEADER_BYTES);
    memcpy(clear + SWIM_HEADER_BYTES, &header->receiver, sizeof(header->receiver));
}

size_t swim_seal(const struct swim_header *header, const uint8_t key[SWIM_KEY_BYTES], uint8_t *data,
                 size_t body_size)
{
    uint8_t nonce[NONCE_BYTES];
    uint8_t clear[CLEAR_BYTES];
    struct cursor c;
    cursor_init(&c, data, SWIM_HEADER_BYTES);
    cursor_write_u8(&c, (uint8_t)(header->version << 4 | header->kind));
    cursor_write_u8(&c, header->key_tag);
    cursor_write_u64(&c, header->session);
    cursor_write_u16(&c, (uint16_t)header->counter);
    cursor_write_u32(&c, (uint32_t)(header->counter >> 16));
    nonce_write(header, nonce);
    uint8_t *body = data + SWIM_HEADER_BYTES;
    clear_write(header, data, clear);
    crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
        body, body + body_size, NULL, body, body_size, clear, sizeof(clear), NULL, nonce, key);
    return SWIM_SEAL_BYTES + body_size;
}

bool swim_open(const struct swim_header *header, const uint8_t key[SWIM_KEY_BYTES],
               const uint8_t *data, size_t size, uint8_t *body)
{
    uint8_t nonce[NONCE_BYTES];
    uint8_t clear[CLEAR_BYTES];
    size_t body_size = size - SWIM_SEAL_BYTES;
    nonce_write(header, nonce);
    clear_write(header, data, clear);
    return crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
               body, NULL, data + SWIM_HEADER_BYTES, body_size,
               data + SWIM_HEADER_BYTES + body_size, clear, sizeof(clear), nonce, key) == 0;
}

/* ---- replay ---- */

bool swim_window_fresh(const struct swim_window *window, uint64_t counter)
{
    if (counter > window->top) {
        return true;
    }
    if (window->top - counter >= SWIM_WINDOW_BITS - 64) {
        return false;
    }
    return (window->bits[counter / 64 % (SWIM_WINDOW_BITS / 64)] >> (counter % 64) & 1) == 0;
}

void swim_window_mark(struct swim_window *window, uint64_t counter)
{
    /* Words are used again as the top moves on (RFC 6479); hence one word less is looked back. */
    if (counter > window->top) {
        uint64_t words = counter / 64 - window->top / 64;
        words = words < SWIM_WINDOW_BITS / 64 ? words : SWIM_WINDOW_BITS / 64;
        for (uint64_t i = 0; i < words; i++) {
            window->bits[(counter / 64 - i) % (SWIM_WINDOW_BITS / 64)] = 0;
        }
        window->top = counter;
    }
    window->bits[counter / 64 % (SWIM_WINDOW_BITS / 64)] |= UINT64_C(1) << (counter % 64);
}
