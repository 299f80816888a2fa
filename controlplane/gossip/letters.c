/* SPDX-License-Identifier: Apache-2.0 */
/* letters.c - see letters.h. */
#include "controlplane/gossip/letters.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define KEY_CONTEXT "weft letters 1"
#define MAP_CELLS   (2u * GOSSIP_MEMBERS_MAX)
#define LOOK_NS     (20 * NS_PER_MS) /* between two looks at all of swim's slots */
WEFT_ASSERT((MAP_CELLS & (MAP_CELLS - 1)) == 0, "a map's mask");
WEFT_ASSERT(GOSSIP_KEYS_MAX <= SWIM_KEYS_MAX, "all keys of a mesh are taken");

static void key_derive(uint8_t out[SWIM_KEY_BYTES], const uint8_t mesh_key[SWIM_KEY_BYTES])
{
    crypto_generichash(out, SWIM_KEY_BYTES, (const uint8_t *)KEY_CONTEXT, strlen(KEY_CONTEXT),
                       mesh_key, SWIM_KEY_BYTES);
}

void letters_set_keys(struct letters *l, const uint8_t (*mesh_keys)[SWIM_KEY_BYTES], uint32_t count)
{
    uint8_t key[SWIM_KEY_BYTES];
    for (uint32_t i = 0; i < count && i < SWIM_KEYS_MAX; i++) {
        key_derive(key, mesh_keys[i]);
        if (i == 0) {
            swim_keyring_init(&l->ring, key);
        } else {
            (void)swim_keyring_install(&l->ring, key); /* all of them have room */
        }
    }
    sodium_memzero(key, sizeof(key));
}

int letters_init(struct letters *l, const struct swim *swim,
                 const uint8_t sign_seed[SWIM_KEY_BYTES],
                 const uint8_t (*mesh_keys)[SWIM_KEY_BYTES], uint32_t mesh_key_count)
{
    memset(l, 0, sizeof(*l));
    l->swim = swim;
    swim_identity_init(&l->identity, sign_seed);
    letters_set_keys(l, mesh_keys, mesh_key_count);
    l->by_session.mask = MAP_CELLS - 1;
    l->by_session.cells = calloc(MAP_CELLS, sizeof(*l->by_session.cells));
    l->peers = calloc(GOSSIP_MEMBERS_MAX, sizeof(*l->peers));
    return l->by_session.cells == NULL || l->peers == NULL ? -ENOMEM : 0;
}

void letters_deinit(struct letters *l)
{
    free(l->by_session.cells);
    if (l->peers != NULL) {
        sodium_memzero(l->peers, GOSSIP_MEMBERS_MAX * sizeof(*l->peers));
        free(l->peers);
    }
    sodium_memzero(l, sizeof(*l));
}

/* ---- who is in a slot ---- */

/* What is known of a session ends with it. */
static struct letter_peer *peer_of(struct letters *l, uint32_t slot, const struct swim_member *m)
{
    struct letter_peer *peer = &l->peers[slot];
    if (peer->session != m->record.session) {
        peer->session = m->record.session;
        peer->window = (struct swim_window){.top = 0};
    }
    if (!peer->shared_known ||
        memcmp(peer->public_key, m->record.public_key, SWIM_KEY_BYTES) != 0) {
        memcpy(peer->public_key, m->record.public_key, SWIM_KEY_BYTES);
        peer->shared_known = swim_pair_shared(&l->identity, peer->public_key, peer->shared);
    }
    return peer->shared_known ? peer : NULL;
}

static const struct swim_member *live_at(const struct letters *l, uint32_t slot)
{
    const struct swim_member *m = slot < swim_slots(l->swim) ? swim_at(l->swim, slot) : NULL;
    return m != NULL && slot != 0 && m->status <= SWIM_SUSPECT ? m : NULL;
}

static void sessions_look(struct letters *l)
{
    uint32_t slots = swim_slots(l->swim);
    memset(l->by_session.cells, 0, MAP_CELLS * sizeof(*l->by_session.cells));
    for (uint32_t slot = 1; slot < slots && slot < GOSSIP_MEMBERS_MAX; slot++) {
        const struct swim_member *m = live_at(l, slot);
        if (m != NULL && m->record.session != 0 &&
            swim_map_get(&l->by_session, m->record.session) == SWIM_SLOT_NONE) {
            swim_map_add(&l->by_session, m->record.session, slot);
        }
    }
}

/* The live member of that session; all are looked at again if it is not known, but not often. */
static const struct swim_member *session_find(struct letters *l, uint64_t session, uint64_t now_ns,
                                              uint32_t *slot)
{
    for (int look = 0; look < 2 && session != 0; look++) {
        *slot = swim_map_get(&l->by_session, session);
        const struct swim_member *m = *slot != SWIM_SLOT_NONE ? live_at(l, *slot) : NULL;
        if (m != NULL && m->record.session == session) {
            return m;
        }
        if (look == 1 || (l->looked_ns != 0 && now_ns - l->looked_ns < LOOK_NS)) {
            break;
        }
        l->looked_ns = now_ns;
        sessions_look(l);
    }
    return NULL;
}

/* ---- sealing and opening ---- */

size_t letter_seal(struct letters *l, uint32_t slot, enum letter_topic topic, const void *data,
                   size_t size, uint8_t *out)
{
    const struct swim_member *self = swim_self(l->swim);
    const struct swim_member *m = live_at(l, slot);
    struct letter_peer *peer = m != NULL ? peer_of(l, slot, m) : NULL;
    uint8_t key[SWIM_KEY_BYTES];
    if (peer == NULL || size > LETTER_MAX || l->counter + 1 >= SWIM_COUNTER_LIMIT) {
        return 0;
    }
    struct swim_header header = {
        .version = LETTER_VERSION,
        .kind = SWIM_SEAL_PAIR,
        .key_tag = l->ring.keys[0].tag,
        .session = self->record.session,
        .counter = ++l->counter,
        .receiver = m->record.session,
    };
    swim_pair_key(&l->ring, 0, peer->shared, l->identity.public_key, peer->public_key, key);
    out[SWIM_HEADER_BYTES] = (uint8_t)topic;
    memcpy(out + SWIM_HEADER_BYTES + 1, data, size);
    size_t whole = swim_seal(&header, key, out, size + 1);
    sodium_memzero(key, sizeof(key));
    l->counters.letters_out++;
    l->counters.letter_bytes_out += whole;
    return whole;
}

static bool keys_try(struct letters *l, const struct letter_peer *peer,
                     const struct swim_header *header, const uint8_t *data, size_t size,
                     uint8_t *body)
{
    bool open = false;
    uint8_t key[SWIM_KEY_BYTES];
    for (uint32_t i = 0; i < l->ring.count && !open; i++) {
        if (l->ring.keys[i].tag == header->key_tag) {
            swim_pair_key(&l->ring, i, peer->shared, l->identity.public_key, peer->public_key, key);
            open = swim_open(header, key, data, size, body);
        }
    }
    sodium_memzero(key, sizeof(key));
    return open;
}

bool letter_open(struct letters *l, const void *data, size_t size, uint64_t now_ns,
                 struct letter *letter)
{
    uint8_t body[LETTER_MAX + 1];
    struct swim_header header;
    l->counters.letters_in++;
    if (size <= SWIM_SEAL_BYTES || size > SWIM_DATAGRAM_MAX ||
        !swim_header_read(&header, data, size) || header.version != LETTER_VERSION ||
        header.kind != SWIM_SEAL_PAIR) {
        l->counters.letters_unsealed++;
        return false;
    }
    const struct swim_member *m = session_find(l, header.session, now_ns, &letter->slot);
    struct letter_peer *peer = m != NULL ? peer_of(l, letter->slot, m) : NULL;
    if (peer == NULL) {
        l->counters.letters_unknown++;
        return false;
    }
    if (!swim_window_fresh(&peer->window, header.counter)) {
        l->counters.letters_replayed++;
        return false;
    }
    header.receiver = swim_self(l->swim)->record.session;
    if (!keys_try(l, peer, &header, data, size, body)) {
        l->counters.letters_unsealed++;
        return false;
    }
    swim_window_mark(&peer->window, header.counter);
    letter->topic = body[0];
    letter->size = size - SWIM_SEAL_BYTES - 1;
    memcpy(letter->body, body + 1, letter->size);
    return true;
}
