/* SPDX-License-Identifier: Apache-2.0 */
/*
 * record.h - what a node says of itself, signed with its own Ed25519 key: nobody else can make or
 * change a record. And the two other things that are signed: a vote that a member does not answer,
 * and a member's state (bytes that mean nothing here).
 *
 * On the wire, little-endian: RECORD_FIELDS, the name, whatever later versions append, then the
 * signature of all before it. Readers step over what they do not know and pass the bytes on as they
 * came, so that old nodes carry new records.
 *
 * Pure functions; any thread after sodium_init().
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/wire.h>

#define SWIM_KEY_BYTES       32u
#define SWIM_SIGNATURE_BYTES 64u
#define SWIM_RECORD_MAX      256u /* signature included */
#define SWIM_RECORD_FORMAT   1u
#define SWIM_STATE_MAX       1000u /* bytes of a member's state */

#define SWIM_RECORD_LEFT 1u /* flag: gone for good, in this incarnation */

struct swim_record {
    uint8_t public_key[SWIM_KEY_BYTES];
    uint64_t incarnation; /* rises with each start and each time the node refutes its death */
    uint64_t session;     /* drawn at each start; names the sender in each datagram */
    uint32_t version;     /* of the facts below, within an incarnation */
    uint32_t flags;
    struct in6_addr address;        /* schemas/base/addr.h */
    struct in6_addr client_address; /* all zero = none */
    uint16_t port;                  /* of swim datagrams */
    uint16_t data_port;
    uint16_t id; /* number on the packet path */
    int32_t latitude_udeg;
    int32_t longitude_udeg; /* millionths of a degree */
    uint32_t tags;
    uint8_t tier;
    uint8_t speaks_min; /* versions of the datagram format */
    uint8_t speaks_max;
    char jurisdiction[3];
    char name[WEFT_NAME_MAX];
};

/* The first 8 bytes of BLAKE2b-256 of the key: a member's name within swim. Never 0. */
uint64_t swim_uid(const uint8_t public_key[SWIM_KEY_BYTES]);

/* Writes and signs; `out` has room for SWIM_RECORD_MAX. Returns the bytes used. `secret_key` is
 * libsodium's 64-byte form. */
size_t swim_record_write(const struct swim_record *record, const uint8_t *secret_key, uint8_t *out);

/* Reads without looking at the signature: values in range, strings clean. */
bool swim_record_read(struct swim_record *record, const uint8_t *data, size_t size);

/* Is it signed by the key that stands in it? `size` as given to swim_record_read(). */
bool swim_record_verify(const struct swim_record *record, const uint8_t *data, size_t size);

/* "`observer` got no answer from `suspect` in this incarnation." */
struct swim_vote {
    uint64_t suspect;
    uint64_t incarnation;
    uint64_t observer;
    uint8_t signature[SWIM_SIGNATURE_BYTES];
};

void swim_vote_sign(struct swim_vote *vote, const uint8_t *secret_key);
bool swim_vote_verify(const struct swim_vote *vote, const uint8_t public_key[SWIM_KEY_BYTES]);

/* Signature over a member's state. `size` is at most SWIM_STATE_MAX. */
struct swim_state_head {
    uint64_t uid;
    uint64_t incarnation;
    uint32_t version;
};
void swim_state_sign(const struct swim_state_head *head, const void *data, size_t size,
                     const uint8_t *secret_key, uint8_t signature[SWIM_SIGNATURE_BYTES]);
bool swim_state_verify(const struct swim_state_head *head, const void *data, size_t size,
                       const uint8_t signature[SWIM_SIGNATURE_BYTES],
                       const uint8_t public_key[SWIM_KEY_BYTES]);
