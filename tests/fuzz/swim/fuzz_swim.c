/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_swim.c - any items from a member in good standing. Input: records of one byte kind, one byte
 * time step (16 ms), two bytes length, then so many bytes. Kind, its low two bits: 0 the bytes are
 * a datagram as they are; 1 they are the items of a datagram of the pair; 2 of one under the mesh
 * key; 3 of a stranger's. With bit 2 set, the sender's own record comes first; with bit 3 a state
 * that it has signed, made of the first bytes; with bit 4 its vote against somebody.
 *
 * What holds whatever comes: no datagram is too long, the members are those that signed, and the
 * object goes on being woken at a time ahead.
 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/items.h"
#include "controlplane/swim/seal.h"
#include "controlplane/swim/swim.h"
#include "schemas/base/addr.h"

#define BODY_MAX    (SWIM_DATAGRAM_MAX - SWIM_SEAL_BYTES)
#define WITH_RECORD 4u
#define WITH_STATE  8u
#define WITH_VOTE   16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct peer {
    struct swim_identity identity;
    struct swim_keyring ring;
    uint8_t pair_key[SWIM_KEY_BYTES];
    uint8_t raw[SWIM_RECORD_MAX];
    size_t raw_size;
    uint64_t session;
    uint64_t counter;
};

static struct swim_out out;
static uint64_t others[2]; /* uids of both peers */

static void peer_make(struct peer *peer, uint8_t seed_byte, const struct swim *swim)
{
    uint8_t seed[SWIM_KEY_BYTES], mesh_key[SWIM_KEY_BYTES], shared[SWIM_KEY_BYTES];
    struct swim_record record = {.incarnation = 5,
                                 .version = 1,
                                 .session = 0x1000u + seed_byte,
                                 .port = 7401,
                                 .id = seed_byte,
                                 .speaks_min = SWIM_VERSION,
                                 .speaks_max = SWIM_VERSION,
                                 .name = "peer"};
    memset(seed, seed_byte, sizeof(seed));
    memset(mesh_key, 0x77, sizeof(mesh_key));
    swim_identity_init(&peer->identity, seed);
    swim_keyring_init(&peer->ring, mesh_key);
    const struct swim_record *self = &swim_self(swim)->record;
    if (!swim_pair_shared(&peer->identity, self->public_key, shared)) {
        abort();
    }
    swim_pair_key(&peer->ring, 0, shared, peer->identity.public_key, self->public_key,
                  peer->pair_key);
    record.address = addr_of_v4(htonl(0x0a000000u + seed_byte));
    memcpy(record.public_key, peer->identity.public_key, SWIM_KEY_BYTES);
    peer->raw_size = swim_record_write(&record, peer->identity.secret_key, peer->raw);
    peer->session = record.session;
    peer->counter = 0;
}

/* A state with incarnation, version and text from the bytes. Returns how many it has taken. */
static size_t put_state(struct cursor *body, const struct peer *peer, const uint8_t *bytes,
                        size_t size)
{
    uint8_t signature[SWIM_SIGNATURE_BYTES];
    if (size < 3) {
        return 0;
    }
    const struct swim_state_head head = {.uid = swim_uid(peer->identity.public_key),
                                         .incarnation = bytes[0] % 16u,
                                         .version = bytes[1]};
    size_t len = bytes[2] < size - 3 ? bytes[2] : size - 3;
    swim_state_sign(&head, bytes + 3, len, peer->identity.secret_key, signature);
    (void)swim_put_state(body, &head, bytes + 3, len, signature);
    return 3 + len;
}

/* Against this node, another peer or itself. */
static size_t put_vote(struct cursor *body, const struct peer *peer, const struct swim *swim,
                       const uint8_t *bytes, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct swim_vote vote = {.incarnation = bytes[1] % 16u,
                             .observer = swim_uid(peer->identity.public_key)};
    vote.suspect = bytes[0] % 4 == 0   ? vote.observer
                   : bytes[0] % 4 == 1 ? swim_uid(swim_self(swim)->record.public_key)
                                       : others[bytes[0] % 2];
    swim_vote_sign(&vote, peer->identity.secret_key);
    (void)swim_put_vote(body, &vote);
    return 2;
}

/* The items sealed as that peer would. */
static size_t peer_seal(struct peer *peer, enum swim_seal kind, const struct swim *swim,
                        const uint8_t *items, size_t size, uint8_t with, uint8_t *datagram)
{
    struct cursor body;
    bool pair = kind == SWIM_SEAL_PAIR;
    struct swim_header header = {.version = SWIM_VERSION,
                                 .kind = (uint8_t)kind,
                                 .key_tag = peer->ring.keys[0].tag,
                                 .session = peer->session,
                                 .counter = ++peer->counter,
                                 .receiver = pair ? swim_self(swim)->record.session : 0};
    cursor_init(&body, datagram + SWIM_HEADER_BYTES, BODY_MAX);
    if ((with & WITH_RECORD) != 0) {
        swim_put_bytes(&body, SWIM_ITEM_RECORD, peer->raw, peer->raw_size);
    }
    size_t taken = (with & WITH_STATE) != 0 ? put_state(&body, peer, items, size) : 0;
    taken += (with & WITH_VOTE) != 0 ? put_vote(&body, peer, swim, items + taken, size - taken) : 0;
    items += taken;
    size -= taken;
    size = size < cursor_left(&body) ? size : cursor_left(&body);
    cursor_write(&body, items, size);
    return swim_seal(&header, pair ? peer->pair_key : peer->ring.keys[0].mesh, datagram,
                     (size_t)(body.at - datagram) - SWIM_HEADER_BYTES);
}

static void state_check(const struct swim *swim, uint64_t now_ns)
{
    if (out.datagram_count > SWIM_OUT_DATAGRAMS || out.event_count > SWIM_OUT_EVENTS ||
        swim_next_ns(swim) == 0 || swim_slots(swim) > 8) {
        abort();
    }
    for (uint32_t i = 0; i < out.datagram_count; i++) {
        if (out.datagrams[i].len < SWIM_SEAL_BYTES || out.datagrams[i].len > SWIM_DATAGRAM_MAX) {
            abort();
        }
    }
    for (uint32_t i = 1; i < swim_slots(swim); i++) {
        const struct swim_member *member = swim_at(swim, i);
        if (member != NULL && member->changed_ns > now_ns) {
            abort();
        }
    }
}

/* The known peer is let in by its own introduction, proof included. */
static void introduce(struct swim *swim, struct peer *peer, uint64_t now_ns)
{
    struct in6_addr from = addr_of_v4(htonl(0x0a000002));
    uint8_t datagram[SWIM_DATAGRAM_MAX], body[BODY_MAX];
    struct swim_header header = {0};
    struct swim_item item;
    struct cursor c;
    uint64_t challenge = 0;
    bool malformed;
    uint8_t both[SWIM_RECORD_MAX + 32];
    cursor_init(&c, both, sizeof(both));
    swim_put_number(&c, SWIM_ITEM_CHALLENGE, 7);
    swim_put_bytes(&c, SWIM_ITEM_RECORD, peer->raw, peer->raw_size);
    size_t size = peer_seal(peer, SWIM_SEAL_MESH, swim, both, (size_t)(c.at - both), 0, datagram);
    swim_input(swim, &from, 7401, datagram, size, now_ns, &out);
    if (out.datagram_count != 1 ||
        !swim_header_read(&header, out.datagrams[0].data, out.datagrams[0].len) ||
        !swim_open(&header, peer->ring.keys[0].mesh, out.datagrams[0].data, out.datagrams[0].len,
                   body)) {
        abort();
    }
    cursor_init(&c, body, out.datagrams[0].len - SWIM_SEAL_BYTES);
    if (!swim_item_next(&c, &item, &malformed) || !swim_get_number(&item, &challenge)) {
        abort();
    }
    cursor_init(&c, both, sizeof(both));
    swim_put_number(&c, SWIM_ITEM_PROOF, challenge);
    swim_put_bytes(&c, SWIM_ITEM_RECORD, peer->raw, peer->raw_size);
    size = peer_seal(peer, SWIM_SEAL_MESH, swim, both, (size_t)(c.at - both), 0, datagram);
    swim_input(swim, &from, 7401, datagram, size, now_ns, &out);
    if (swim_live_count(swim) != 2) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct swim_options options = {.members_max = 8, .state_max = 64};
    struct in6_addr from = addr_of_v4(htonl(0x0a000002));
    struct swim *swim;
    static struct peer known, stranger;
    uint64_t now_ns = NS_PER_S;
    memset(options.sign_seed, 1, sizeof(options.sign_seed));
    memset(options.mesh_key, 0x77, sizeof(options.mesh_key));
    options.self.incarnation = 5;
    options.self.address = addr_of_v4(htonl(0x0a000001));
    options.self.port = 7401;
    options.self.id = 1;
    strcpy(options.self.name, "self");
    if (swim_create(&swim, &options, now_ns) < 0) {
        return 0;
    }
    peer_make(&known, 2, swim);
    peer_make(&stranger, 3, swim);
    others[0] = swim_uid(known.identity.public_key);
    others[1] = swim_uid(stranger.identity.public_key);
    introduce(swim, &known, now_ns);
    while (size >= 4) {
        uint8_t datagram[SWIM_DATAGRAM_MAX + 64];
        uint8_t kind = data[0];
        size_t len = (size_t)data[2] | (size_t)data[3] << 8;
        now_ns += data[1] * 16 * NS_PER_MS;
        data += 4;
        size -= 4;
        len = len < size ? len : size;
        len = len < sizeof(datagram) ? len : sizeof(datagram);
        size_t datagram_size = len;
        if ((kind & 3) == 0) {
            memcpy(datagram, data, len);
        } else {
            datagram_size = peer_seal((kind & 3) == 3 ? &stranger : &known,
                                      (kind & 3) == 1 ? SWIM_SEAL_PAIR : SWIM_SEAL_MESH, swim, data,
                                      len, kind, datagram);
        }
        swim_input(swim, &from, 7401, datagram, datagram_size, now_ns, &out);
        state_check(swim, now_ns);
        swim_tick(swim, now_ns, &out);
        state_check(swim, now_ns);
        data += len;
        size -= len;
    }
    swim_destroy(swim);
    return 0;
}
