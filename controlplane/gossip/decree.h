/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decree.h - the mesh's signed policy (maps/policy.h) on this node: takes it from a file or from
 * any member, passes it on, and says what each member may call itself. Sans-I/O; members talk in
 * letters of topic LETTER_POLICY:
 *
 *     HAVE  u8 1, u64 version (0: none), u32 bytes      once a second to one member, drawn
 *     PULL  u8 2, u64 version, u32 offset               by whoever has an older one
 *     PART  u8 3, u64 version, u32 bytes, u32 offset, then up to DECREE_PART_MAX of them
 *
 * Nothing of it counts but what the operator's key has signed, and only a newer version than the
 * one in force. Who sends what is not signed, or does not go on, is not asked again for
 * DECREE_BAN_NS.
 *
 * With a key and no policy yet nobody has a tag. Threads: as the swim object.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/gossip/letters.h"
#include "controlplane/maps/policy.h"

#define DECREE_TELL_NS  (1 * NS_PER_S)
#define DECREE_STALL_NS (3 * NS_PER_S) /* without a part: it does not go on */
#define DECREE_BAN_NS   (60 * NS_PER_S)
#define DECREE_PART_MAX 1100u

struct decree {
    bool required; /* there is a key: without a policy nobody has a tag */
    struct policy_key key;
    const char *providers; /* names that narrow the allow-list; NULL: none do */
    struct policy *policy; /* in force; NULL: none yet */
    uint8_t *text;         /* as signed */
    uint32_t size;
    uint32_t changes; /* rises with each policy */
    /* Being fetched. */
    uint8_t *incoming; /* NULL: nothing is */
    uint64_t incoming_version;
    uint32_t incoming_size, incoming_got;
    uint32_t incoming_slot;
    uint64_t incoming_ns; /* last progress */
    uint32_t banned_slot;
    uint64_t banned_ns; /* 0: nobody */
    uint64_t tell_ns;
    uint64_t refused; /* policies that were not taken */
};

/* `key_hex`: 64 hex digits; "" or NULL: no policy is asked for, and none is taken. `providers` is
 * kept. Returns 0 or -EINVAL. */
int decree_init(struct decree *decree, const char *key_hex, const char *providers);
void decree_deinit(struct decree *decree);

/* Takes a signed file. Returns 0, or -EINVAL and why. */
int decree_take(struct decree *decree, const void *data, size_t size, struct policy_error *error);

/* A letter. Returns the bytes of the answer to its sender in `out` (room for LETTER_MAX), 0: none.
 */
size_t decree_input(struct decree *decree, const struct letter *letter, uint64_t now_ns,
                    uint8_t *out);
/* What is to be told to a member, drawn, when decree->tell_ns has come. */
size_t decree_tell(struct decree *decree, uint64_t now_ns, uint8_t *out);

/* What a member is, given what it says of itself: tags only if claimed and granted. False: it may
 * get no request at all. */
bool decree_judge(const struct decree *decree, uint32_t id,
                  const uint8_t public_key[SWIM_KEY_BYTES], uint32_t *tags, char jurisdiction[3]);
