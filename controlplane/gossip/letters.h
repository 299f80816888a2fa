/* SPDX-License-Identifier: Apache-2.0 */
/*
 * letters.h - sealed messages between two members beside swim's own datagrams, on the same port:
 * what zones and policy have to say. Sealed as swim's are (seal.h), under keys of their own: the
 * mesh key is hashed once before it makes the pair's key, so that no nonce is used twice. The first
 * byte tells them apart. A letter counts only if its sender is a live member of this very session,
 * sealed it for this node's session, and it has not come before.
 *
 * Whom swim does not know cannot be written to and is not heard; records make keys, nothing is
 * negotiated. Lost letters stay lost: who writes repeats what matters.
 *
 * Memory: fixed at the start. Threads: as the swim object that it reads.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/gossip/gossip.h"
#include "controlplane/swim/map.h"
#include "controlplane/swim/seal.h"

#define LETTER_VERSION 15u /* where swim has the version of its format */
#define LETTER_MAX     (SWIM_DATAGRAM_MAX - SWIM_SEAL_BYTES - 1u)

/* What it is about: the first byte that is sealed. */
enum letter_topic { LETTER_ZONE = 1, LETTER_POLICY, LETTER_WAY };

#define LETTER_COUNTERS(COUNTER)                                                                   \
    COUNTER(letters_in, "letters given to it")                                                     \
    COUNTER(letters_out, "letters sealed")                                                         \
    COUNTER(letter_bytes_out, "their bytes, without IP and UDP headers")                           \
    COUNTER(letters_unknown, "from no live member of that session")                                \
    COUNTER(letters_unsealed, "not sealed with the pair's key")                                    \
    COUNTER(letters_replayed, "seen before, or too old")

struct letter_counters {
#define LETTER_COUNTER_DECLARE_(name, text) uint64_t name;
    LETTER_COUNTERS(LETTER_COUNTER_DECLARE_)
#undef LETTER_COUNTER_DECLARE_
};

/* One slot of swim. */
struct letter_peer {
    uint64_t session; /* 0: none */
    struct swim_window window;
    uint8_t shared[SWIM_KEY_BYTES];
    uint8_t public_key[SWIM_KEY_BYTES]; /* that `shared` is with */
    bool shared_known;
};

struct letters {
    const struct swim *swim;
    struct swim_keyring ring;
    struct swim_identity identity;
    uint64_t counter; /* of the last one sealed */
    uint64_t looked_ns;
    struct swim_map by_session;
    struct letter_peer *peers; /* GOSSIP_MEMBERS_MAX, by swim's slot */
    struct letter_counters counters;
};

/* Keeps `swim`; keys are copied. Returns 0 or -ENOMEM. */
int letters_init(struct letters *letters, const struct swim *swim,
                 const uint8_t sign_seed[SWIM_KEY_BYTES],
                 const uint8_t (*mesh_keys)[SWIM_KEY_BYTES], uint32_t mesh_key_count);
/* Wipes keys. */
void letters_deinit(struct letters *letters);

/* The mesh keys from now on: the first seals, all open. At most SWIM_KEYS_MAX. */
void letters_set_keys(struct letters *letters, const uint8_t (*mesh_keys)[SWIM_KEY_BYTES],
                      uint32_t count);

/* Is this datagram one, and not swim's? */
static inline bool letter_is(const void *data, size_t size)
{
    return size > 0 && *(const uint8_t *)data >> 4 == LETTER_VERSION;
}

/* Seals `size` bytes (at most LETTER_MAX) for the member in a slot of swim. Returns the length of
 * the datagram in `out`, which has room for SWIM_DATAGRAM_MAX; 0: nobody lives there, or its key is
 * a bad one. */
size_t letter_seal(struct letters *letters, uint32_t slot, enum letter_topic topic,
                   const void *data, size_t size, uint8_t *out);

/* An opened letter. */
struct letter {
    uint32_t slot; /* the sender's */
    uint8_t topic; /* enum letter_topic, or one unknown here */
    size_t size;
    uint8_t body[LETTER_MAX];
};

/* False: it does not count. */
bool letter_open(struct letters *letters, const void *data, size_t size, uint64_t now_ns,
                 struct letter *letter);
