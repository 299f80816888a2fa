/* SPDX-License-Identifier: Apache-2.0 */
/*
 * affinity.h - who has seen this before: the node that served a session last, and how much of a
 * prompt each node still has in its prefix cache. A hint worth the prefill it saves, never a
 * command: the score weighs it against the queue.
 *
 * A prompt is a row of hashes of its blocks, each over all that comes before it too, so that equal
 * hashes mean equal prefixes. A node publishes a digest of the hashes it holds, a Bloom filter
 * (Bloom 1970) of AFFINITY_DIGEST_BITS bits with AFFINITY_HASHES probes: at AFFINITY_BLOCKS_MAX
 * blocks one lookup in 30 says yes wrongly, and a prefix of n blocks only if each of them does. A
 * block that all nodes hold saves the same everywhere and so prefers nobody.
 *
 * Sans-I/O. Memory: fixed at creation; 40 bytes a session, about 300 a node; what was used longest
 * ago makes room. Threads: one at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/slots.h"
#include "schemas/base/clock.h"

#define AFFINITY_NODE_NONE    UINT32_MAX
#define AFFINITY_SESSION_NS   (600 * NS_PER_S)
#define AFFINITY_DIGEST_NS    (30 * NS_PER_S) /* older: holds nothing */
#define AFFINITY_DIGEST_BITS  2048u
#define AFFINITY_HASHES       4u
#define AFFINITY_BLOCKS_MAX   286u /* 7 bits a block */
#define AFFINITY_DIGEST_BYTES (AFFINITY_DIGEST_BITS / 8)
#define AFFINITY_WIRE_BYTES   (8u + AFFINITY_DIGEST_BYTES)

struct affinity_digest {
    uint16_t block_count;  /* put in; at most AFFINITY_BLOCKS_MAX */
    uint32_t block_tokens; /* tokens of a block; equal digests compare only at equal sizes */
    uint8_t bits[AFFINITY_DIGEST_BYTES];
};

struct affinity_session {
    uint64_t used_ns;
    uint32_t node;
};

struct affinity_entry {
    uint64_t heard_ns;
    struct affinity_digest digest;
};

struct affinity_map {
    struct slots session_slots;
    struct slots node_slots;
    struct affinity_session *sessions;
    struct affinity_entry *entries;
};

/* ---- digests ---- */

void affinity_digest_init(struct affinity_digest *digest, uint32_t block_tokens);

/* Newest blocks first: false and nothing done once AFFINITY_BLOCKS_MAX are in. */
bool affinity_digest_add(struct affinity_digest *digest, uint64_t block);

bool affinity_digest_has(const struct affinity_digest *digest, uint64_t block);

/* u8 0xaf, u8 version 1, u16 block_count, u32 block_tokens, the bits; little-endian. Read: false if
 * affinity_digest_write() cannot have written it (more bits set than the blocks set). */
void affinity_digest_write(const struct affinity_digest *digest, uint8_t out[AFFINITY_WIRE_BYTES]);
bool affinity_digest_read(struct affinity_digest *digest, const void *data, size_t size);

/* ---- the map ---- */

/* Returns 0, -EINVAL or -ENOMEM. */
int affinity_init(struct affinity_map *map, uint32_t sessions_max, uint32_t nodes_max,
                  uint64_t seed);
void affinity_deinit(struct affinity_map *map);

/* The session was answered by that node. Session 0 is none. */
void affinity_served(struct affinity_map *map, uint64_t session, uint32_t node, uint64_t now_ns);

/* The node that served it last, AFFINITY_NODE_NONE if that is too long ago or not known. */
uint32_t affinity_session_node(const struct affinity_map *map, uint64_t session, uint64_t now_ns);

void affinity_hear(struct affinity_map *map, uint32_t node, const struct affinity_digest *digest,
                   uint64_t now_ns);

/* Tokens of the prompt whose prefill the node can leave out: the longest run of blocks from the
 * first that its digest holds. 0 if nothing is known. */
uint32_t affinity_cached_tokens(const struct affinity_map *map, uint32_t node,
                                const uint64_t *blocks, uint32_t block_count, uint32_t block_tokens,
                                uint64_t now_ns);

/* The node is gone, and with it its cache and its sessions. */
void affinity_forget(struct affinity_map *map, uint32_t node);
