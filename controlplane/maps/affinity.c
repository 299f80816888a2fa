/* SPDX-License-Identifier: Apache-2.0 */
/* affinity.c - see affinity.h. */
#include "controlplane/maps/affinity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/cursor.h"
#include "schemas/base/rng.h"

#define DIGEST_MAGIC   0xafu
#define DIGEST_VERSION 1u
#define PROBE_BITS     16u /* of the mixed hash, for each probe */

/* ---- digests ---- */

void affinity_digest_init(struct affinity_digest *digest, uint32_t block_tokens)
{
    memset(digest, 0, sizeof(*digest));
    digest->block_tokens = block_tokens;
}

/* Mixed once more: whoever makes the hashes need not make them well. */
static uint64_t probes_of(uint64_t block)
{
    struct rng mix = {.state = block};
    return rng_next(&mix);
}

static uint32_t probe_at(uint64_t probes, uint32_t i)
{
    return (uint32_t)(probes >> (i * PROBE_BITS)) % AFFINITY_DIGEST_BITS;
}
_Static_assert(AFFINITY_HASHES *PROBE_BITS <= 64, "one hash feeds all probes");
_Static_assert((AFFINITY_DIGEST_BITS & (AFFINITY_DIGEST_BITS - 1)) == 0 &&
                   AFFINITY_DIGEST_BITS <= (1u << PROBE_BITS),
               "probes are uniform");

bool affinity_digest_add(struct affinity_digest *digest, uint64_t block)
{
    if (digest->block_count == AFFINITY_BLOCKS_MAX) {
        return false;
    }
    uint64_t probes = probes_of(block);
    for (uint32_t i = 0; i < AFFINITY_HASHES; i++) {
        uint32_t bit = probe_at(probes, i);
        digest->bits[bit / 8] |= (uint8_t)(1u << (bit % 8));
    }
    digest->block_count++;
    return true;
}

bool affinity_digest_has(const struct affinity_digest *digest, uint64_t block)
{
    uint64_t probes = probes_of(block);
    for (uint32_t i = 0; i < AFFINITY_HASHES; i++) {
        uint32_t bit = probe_at(probes, i);
        if (((digest->bits[bit / 8] >> (bit % 8)) & 1) == 0) {
            return false;
        }
    }
    return true;
}

void affinity_digest_write(const struct affinity_digest *digest, uint8_t out[AFFINITY_WIRE_BYTES])
{
    out[0] = DIGEST_MAGIC;
    out[1] = DIGEST_VERSION;
    memcpy(out + 2, &digest->block_count, sizeof(digest->block_count));
    memcpy(out + 4, &digest->block_tokens, sizeof(digest->block_tokens));
    memcpy(out + 8, digest->bits, sizeof(digest->bits));
}

bool affinity_digest_read(struct affinity_digest *digest, const void *data, size_t size)
{
    struct cursor c;
    cursor_init_const(&c, data, size);
    bool known = cursor_read_u8(&c) == DIGEST_MAGIC && cursor_read_u8(&c) == DIGEST_VERSION;
    digest->block_count = cursor_read_u16(&c);
    digest->block_tokens = cursor_read_u32(&c);
    cursor_read(&c, digest->bits, sizeof(digest->bits));
    if (!known || c.failed || cursor_left(&c) != 0 || digest->block_tokens == 0 ||
        digest->block_count > AFFINITY_BLOCKS_MAX) {
        return false;
    }
    uint32_t set = 0;
    for (size_t i = 0; i < sizeof(digest->bits); i++) {
        set += (uint32_t)__builtin_popcount(digest->bits[i]);
    }
    return set <= AFFINITY_HASHES * digest->block_count && (set > 0) == (digest->block_count > 0);
}

/* ---- the map ---- */

int affinity_init(struct affinity_map *map, uint32_t sessions_max, uint32_t nodes_max,
                  uint64_t seed)
{
    memset(map, 0, sizeof(*map));
    int rc = slots_init(&map->session_slots, sessions_max, seed);
    rc = rc != 0 ? rc : slots_init(&map->node_slots, nodes_max, seed);
    if (rc == 0) {
        map->sessions = calloc(sessions_max, sizeof(*map->sessions));
        map->entries = calloc(nodes_max, sizeof(*map->entries));
        rc = map->sessions == NULL || map->entries == NULL ? -ENOMEM : 0;
    }
    if (rc != 0) {
        affinity_deinit(map);
    }
    return rc;
}

void affinity_deinit(struct affinity_map *map)
{
    slots_deinit(&map->session_slots);
    slots_deinit(&map->node_slots);
    free(map->sessions);
    free(map->entries);
    memset(map, 0, sizeof(*map));
}

void affinity_served(struct affinity_map *map, uint64_t session, uint32_t node, uint64_t now_ns)
{
    if (session == 0) {
        return;
    }
    bool fresh;
    uint32_t slot = slots_take(&map->session_slots, session, &fresh);
    map->sessions[slot] = (struct affinity_session){now_ns, node};
}

uint32_t affinity_session_node(const struct affinity_map *map, uint64_t session, uint64_t now_ns)
{
    uint32_t slot = slots_find(&map->session_slots, session);
    if (slot == SLOTS_NONE || now_ns >= map->sessions[slot].used_ns + AFFINITY_SESSION_NS) {
        return AFFINITY_NODE_NONE;
    }
    return map->sessions[slot].node;
}

void affinity_hear(struct affinity_map *map, uint32_t node, const struct affinity_digest *digest,
                   uint64_t now_ns)
{
    bool fresh;
    uint32_t slot = slots_take(&map->node_slots, node, &fresh);
    map->entries[slot] = (struct affinity_entry){now_ns, *digest};
}

uint32_t affinity_cached_tokens(const struct affinity_map *map, uint32_t node,
                                const uint64_t *blocks, uint32_t block_count, uint32_t block_tokens,
                                uint64_t now_ns)
{
    uint32_t slot = slots_find(&map->node_slots, node);
    if (slot == SLOTS_NONE || now_ns >= map->entries[slot].heard_ns + AFFINITY_DIGEST_NS ||
        map->entries[slot].digest.block_tokens != block_tokens) {
        return 0;
    }
    uint32_t run = 0;
    while (run < block_count && affinity_digest_has(&map->entries[slot].digest, blocks[run])) {
        run++;
    }
    uint64_t tokens = (uint64_t)run * block_tokens;
    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

void affinity_forget(struct affinity_map *map, uint32_t node)
{
    slots_drop(&map->node_slots, node);
    /* A new start of that node holds nothing of them. */
    for (uint32_t slot = map->session_slots.newest; slot != SLOTS_NONE;) {
        uint32_t older = map->session_slots.older[slot];
        if (map->sessions[slot].node == node) {
            slots_drop_at(&map->session_slots, slot);
        }
        slot = older;
    }
}
