/* SPDX-License-Identifier: Apache-2.0 */
/*
 * summary.h - what is told outside a zone about a range of paths: a zone, or several that lie next
 * to each other. Everything in it is an upper bound of what is there (union of boxes, models, tags;
 * largest memory), so two summaries merge into one that still excludes nothing wrongly, and what it
 * excludes is not there. Evidence ages: `age_ms` is that of the oldest fact that went into it.
 *
 * On the wire 192 bytes, with an Ed25519 signature of its emitter (contact 0) 256. The age is not
 * under the signature, since it grows on the way.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/zones/box.h"
#include "controlplane/zones/key.h"
#include "controlplane/zones/record.h"
#include "schemas/base/torus.h"

#define ZONE_CONTACTS             3u
#define ZONE_BLOOM_WORDS          8u /* 512 bits */
#define ZONE_BLOOM_HASHES         4u
#define ZONE_HISTOGRAM_CLASSES    8u
#define ZONE_SUMMARY_BYTES        192u
#define ZONE_SIGNATURE_BYTES      64u
#define ZONE_SUMMARY_SIGNED_BYTES (ZONE_SUMMARY_BYTES + ZONE_SIGNATURE_BYTES)
#define ZONE_TTL_S                60u
#define ZONE_AGE_MAX_MS           65535u /* as old as can be told; nothing rests on it any more */

struct zone_contact {
    uint32_t node;
    uint32_t area; /* zone_area() of its path */
    struct in6_addr addr;
};

struct zone_summary {
    struct zone_range range;
    uint32_t epoch;
    uint16_t version;
    struct zone_box box; /* of the members, not of the range */
    uint32_t live;
    uint32_t tiers[TORUS_TIERS];             /* members of each, rounded up on the wire */
    uint32_t memory[ZONE_HISTOGRAM_CLASSES]; /* members by free memory: below 4, 8, 16, 24, 48, 80,
                                                160 GiB, and more; powers of two on the wire */
    uint64_t bloom[ZONE_BLOOM_WORDS];        /* models and jurisdictions */
    uint16_t vram_free_64mib, vram_total_64mib; /* largest */
    uint32_t queue_min_us;
    uint32_t tags; /* that any member has */
    uint32_t age_ms;
    uint8_t ttl_s; /* not sent: 60, or 0 for zone_summary_unknown() */
    uint8_t contact_count;
    struct zone_contact contacts[ZONE_CONTACTS];
};

/* Counts in a byte: exact to 31, then rounded up by at most a sixteenth; 0 only for 0. */
uint8_t zone_tally(uint32_t count);
uint32_t zone_tally_count(uint8_t tally);

void zone_summary_init(struct zone_summary *summary, struct zone_range range);
/* Of a range that nothing is known of: excludes nothing and has no contacts. */
void zone_summary_unknown(struct zone_summary *summary, struct zone_range range);
void zone_summary_add(struct zone_summary *summary, const struct zone_record *record);

/* Adds what `other` covers; ranges become one (what lies between must be known to be empty or be
 * added as well). Of the contacts stay the one nearest to the cell (x, y), the one with the lowest
 * and the one with the highest path: whichever end of the range is asked for later, somebody is
 * there. Only the nearest ones, and two nodes whose ranges overlap could send a search to and fro.
 */
void zone_summary_merge(struct zone_summary *summary, const struct zone_summary *other, uint16_t x,
                        uint16_t y);

/* Makes the range smaller, and puts contacts in order again. */
void zone_summary_clip(struct zone_summary *summary, struct zone_range range, uint16_t x,
                       uint16_t y);

/* At most the distance of any record that matches; UINT32_MAX if none can. Evidence older than its
 * time to live excludes nothing: 0. */
uint32_t zone_summary_bound(const struct zone_summary *summary, const struct zone_query *query);

/* ---- wire ---- */

void zone_summary_write(struct cursor *c, const struct zone_summary *summary);
bool zone_summary_read(struct cursor *c, struct zone_summary *summary);

/* Signed form, exactly ZONE_SUMMARY_SIGNED_BYTES. `secret` is libsodium's 64 bytes of an Ed25519
 * key, `public` 32. Reading does not check the signature; zone_summary_verify() does. */
void zone_summary_sign(uint8_t *out, const struct zone_summary *summary, const uint8_t *secret);
bool zone_summary_verify(const uint8_t *in, const uint8_t *public_key);
