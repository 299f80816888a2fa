/* SPDX-License-Identifier: Apache-2.0 */
/*
 * seal.h - datagrams encrypted and authenticated by XChaCha20-Poly1305, keys and the replay window.
 *
 * Two kinds of keys, both needing the mesh key that all members share:
 *   pair: BLAKE2b of (X25519 of the two identities, both public keys), keyed with the mesh key.
 * Only these two nodes have it: another member can neither read nor forge. mesh: BLAKE2b of a
 * constant, keyed with the mesh key. For those who do not know each other yet; what comes so proves
 * membership, not who sent it.
 *
 * Clear but authenticated header, 16 bytes: version and kind, tag of the mesh key, session of the
 * sender (8), counter (6). A pair's datagrams are bound to the receiver's session too, which is not
 * sent: what was caught before a node's restart is worth nothing after it, and whoever seals for a
 * pair rightly has the other's record of this very session. Nonce = session, zeros, counter: a
 * session is drawn at random at each start and the counter only rises, so no nonce repeats.
 * Rotation: install the new key everywhere, use it everywhere, remove the old one everywhere; each
 * step may take as long as it likes.
 *
 * Keys are never logged and never leave this file and identity.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/swim/record.h"

#define SWIM_HEADER_BYTES  16u
#define SWIM_TAG_BYTES     16u
#define SWIM_SEAL_BYTES    (SWIM_HEADER_BYTES + SWIM_TAG_BYTES)
#define SWIM_KEYS_MAX      4u
#define SWIM_COUNTER_LIMIT (UINT64_C(1) << 48)
#define SWIM_WINDOW_BITS   256u

enum swim_seal { SWIM_SEAL_MESH, SWIM_SEAL_PAIR };

struct swim_keyring {
    struct {
        uint8_t secret[SWIM_KEY_BYTES];
        uint8_t mesh[SWIM_KEY_BYTES]; /* derived */
        uint8_t tag;
    } keys[SWIM_KEYS_MAX];
    uint32_t count;      /* keys[0] is the one in use */
    uint32_t generation; /* rises when keys[0] changes */
};

/* The first key, in use. */
void swim_keyring_init(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES]);
/* Accepts datagrams under it from now on. Returns 0 (also if it is there already) or -ENOSPC. */
int swim_keyring_install(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES]);
/* Seals with it from now on. Returns 0 or -ENOENT. */
int swim_keyring_use(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES]);
/* Returns 0, -ENOENT, or -EBUSY for the one in use. */
int swim_keyring_remove(struct swim_keyring *ring, const uint8_t key[SWIM_KEY_BYTES]);

struct swim_identity {
    uint8_t public_key[SWIM_KEY_BYTES];
    uint8_t secret_key[64];               /* libsodium's Ed25519 form */
    uint8_t exchange_key[SWIM_KEY_BYTES]; /* the same as an X25519 scalar */
};

void swim_identity_init(struct swim_identity *identity, const uint8_t seed[SWIM_KEY_BYTES]);

/* X25519 with another identity. False: that key is not a good one. */
bool swim_pair_shared(const struct swim_identity *self, const uint8_t other[SWIM_KEY_BYTES],
                      uint8_t shared[SWIM_KEY_BYTES]);
/* The pair's key under the ring's key `index`. */
void swim_pair_key(const struct swim_keyring *ring, uint32_t index,
                   const uint8_t shared[SWIM_KEY_BYTES], const uint8_t a[SWIM_KEY_BYTES],
                   const uint8_t b[SWIM_KEY_BYTES], uint8_t key[SWIM_KEY_BYTES]);

struct swim_header {
    uint8_t version;
    uint8_t kind; /* enum swim_seal */
    uint8_t key_tag;
    uint64_t session;
    uint64_t counter;
    uint64_t receiver; /* session of the receiver, 0 for SWIM_SEAL_MESH; not on the wire */
};

/* Leaves `receiver` alone. False: too short to be sealed, or an unknown kind. */
bool swim_header_read(struct swim_header *header, const uint8_t *data, size_t size);

/* Seals `body_size` bytes that stand at data + SWIM_HEADER_BYTES in place. Returns the size. */
size_t swim_seal(const struct swim_header *header, const uint8_t key[SWIM_KEY_BYTES], uint8_t *data,
                 size_t body_size);
/* Opens into `body`, which has room for size - SWIM_SEAL_BYTES. False: not sealed with that key. */
bool swim_open(const struct swim_header *header, const uint8_t key[SWIM_KEY_BYTES],
               const uint8_t *data, size_t size, uint8_t *body);

/* Counters seen of one session: each is taken once, those older than the window not at all. */
struct swim_window {
    uint64_t top; /* the highest seen, 0 = none: counters start at 1 */
    uint64_t bits[SWIM_WINDOW_BITS / 64];
};
bool swim_window_fresh(const struct swim_window *window, uint64_t counter);
void swim_window_mark(struct swim_window *window, uint64_t counter); /* a fresh one */
