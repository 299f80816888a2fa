/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zone.h - one node's part in the zones: the members of its own zone with their records, its view
 * of everything else, and the searches that it has under way. Sans-I/O: datagrams and the time go
 * in, datagrams come out through `zone_io`; no clock, socket or allocation. Memory is the caller's.
 *
 * The zone's claim is the interval of paths it answers for; `synced` is the part of it whose
 * records this node is known to have, and only for that does it answer as one who has them all.
 *
 * Two claims that overlap are put in order by zone_claim_beats() (epoch, then place): a node that
 * hears of a claim that beats its own takes it over if its own path lies inside, else gives up what
 * overlaps. So missed messages, healed partitions and races end in one tiling without a referee.
 *
 * Threads: none of its own; all calls from one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/zones/msg.h"
#include "controlplane/zones/peers.h"
#include "controlplane/zones/search.h"
#include "controlplane/zones/view.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define ZONE_SPLIT_ABOVE  96u
#define ZONE_MERGE_BELOW  32u
#define ZONE_MEMBERS_MAX  256u              /* room that callers should give */
#define ZONE_STATE_NS     (1 * NS_PER_S)    /* a member tells its zone its state */
#define ZONE_STATE_FULL   10u               /* every so many times all of it */
#define ZONE_SOON_NS      (100 * NS_PER_MS) /* between two states if something cannot wait */
#define ZONE_MISSED_NS    (10 * NS_PER_MS)  /* between two questions for a record that was missed */
#define ZONE_NAMED_NS     (2200 * NS_PER_MS) /* not heard for so long: no contact, if others are */
#define ZONE_SILENCE_NS   (5 * NS_PER_S)     /* a member not heard for so long is left out */
#define ZONE_FORGET_NS    (30 * NS_PER_S)    /* and then forgotten */
#define ZONE_LINGER_NS    (5 * NS_PER_S)     /* records outside the claim are answered for */
#define ZONE_PULL_NS      (200 * NS_PER_MS)  /* between two pulls */
#define ZONE_PULL_NEAR_NS (2 * NS_PER_S)     /* age at which near entries are asked for again */
#define ZONE_PULL_FAR_NS  (8 * NS_PER_S)
#define ZONE_PULL_SICK_NS (1 * NS_PER_S)  /* of entries one of whose contacts was silent */
#define ZONE_REPAIR_NS    (10 * NS_PER_S) /* between two fetches of all records */
#define ZONE_PREPARE_NS   (2 * NS_PER_S)  /* then a majority is enough */
#define ZONE_ABANDON_NS   (6 * NS_PER_S)
#define ZONE_PROBE_NS     (4 * NS_PER_S)   /* between two looks at the path next to the claim */
#define ZONE_TAKEOVER_NS  (20 * NS_PER_S)  /* nobody in a neighbour's range answers */
#define ZONE_CORRECT_NS   (50 * NS_PER_MS) /* between two corrections of outdated claims */
#define ZONE_LOST_MAX     16u              /* nodes remembered after they fell silent */
#define ZONE_LOST_NS      (2 * NS_PER_S)   /* one of them is asked so often, for ever */
#define ZONE_SEARCHES_MAX 16u

struct zone_io {
    /* False: it is known to be gone, and nothing was sent. */
    bool (*send)(void *user, const struct zone_contact *to, const void *data, size_t size);
    void *user;
};

struct zone_member {
    struct zone_record record;
    uint64_t key;
    uint64_t heard_ns; /* from itself or from one who heard it */
    uint64_t told_ns;  /* when the record was true */
    uint64_t left_ns;  /* when it left the claim; 0: it is inside */
    uint32_t acked;    /* epoch of the reshape that it has agreed to */
};

/* A question of the maintenance under way. */
struct zone_pending {
    uint32_t id;
    struct zone_range range;
    struct zone_contact to;
    bool waits; /* an answer is to come */
    uint64_t sent_ns;
    uint64_t due_ns;
    uint8_t tries;
};

/* A search that this node does for another. */
struct zone_duty {
    bool used;
    uint8_t tells;          /* answers sent */
    struct zone_contact to; /* whom they go to */
    uint32_t id;            /* his question */
    uint64_t told_ns;
    uint64_t told_changed_ns;
    struct zone_search search;
};
#define ZONE_DUTIES     4u               /* room that callers should give */
#define ZONE_DUTY_TELLS 8u               /* answers before the last one */
#define ZONE_TELL_NS    (20 * NS_PER_MS) /* between two of them */

struct zone_options {
    bool abstract;
    uint16_t split_above, merge_below; /* 0: the defaults */
    const uint8_t *sign_secret;        /* signs summaries; NULL: unsigned */
    uint64_t silence_ns; /* 0: ZONE_SILENCE_NS; UINT64_MAX: only zone_member_down() counts */
    uint64_t seed;
    struct zone_duty *duties; /* the caller's; NULL: no searches are done for others */
    uint32_t duty_max;
};

struct zone_reshaping {
    bool pending;
    bool mine;     /* this node coordinates it */
    bool relaying; /* this node passes it on to the zone that is joined */
    uint32_t epoch;
    uint32_t coordinator;
    struct zone_range range;
    uint64_t cut; /* 0: merge */
    uint64_t started_ns;
    bool fetched; /* the other part's records are here, since `fetched_ns` */
    uint64_t fetched_ns;
    struct zone_contact origin;  /* who told us: acknowledgements go there */
    struct zone_contact partner; /* coordinator of a merge: its contact in the other zone */
    bool partner_acked;
};

struct zone_counters {
    uint64_t bytes_sent;
    uint64_t datagrams_sent;
    uint64_t malformed;
    uint64_t splits, merges, takeovers, adopted, trimmed;
    uint64_t members_refused; /* no room */
    uint64_t duties, duties_refused;
};

struct zone {
    struct zone_options options;
    struct zone_record self;
    uint64_t key;
    struct rng rng;
    bool joined;
    struct zone_range claim;  /* not valid until joined */
    struct zone_range synced; /* inside claim; not valid: none */
    uint32_t epoch;
    uint32_t state_count;
    uint64_t state_due_ns;
    uint64_t told_ns;   /* when the state was last told */
    uint64_t missed_ns; /* when somebody was last asked for his record */
    uint64_t pull_due_ns;
    uint64_t shape_due_ns;
    uint64_t repair_due_ns;
    uint32_t next_id;
    struct zone_contact seed; /* to join by */
    struct zone_pending join;
    struct zone_pending pull;
    struct zone_pending fetch; /* range.lo rises page by page */
    struct zone_range fetch_whole;
    bool fetch_partial;        /* who is asked does not know all himself */
    uint32_t fetch_poor;       /* so many in a row did not */
    struct zone_pending probe; /* who owns the path next to the claim */
    struct zone_reshaping reshape;
    uint64_t probe_due_ns;
    uint64_t probe_key;
    uint64_t lone_since_ns; /* the path next to the claim answers nobody since; 0: it does */
    uint64_t lost_due_ns;
    uint64_t corrected_ns; /* when somebody was last told that his claim is outdated */
    uint32_t lost_hops;
    uint32_t lost_count; /* ever; the last ZONE_LOST_MAX are kept */
    struct zone_contact lost[ZONE_LOST_MAX];
    struct zone_summary own; /* of the claim, made once a second */
    struct zone_search *searches[ZONE_SEARCHES_MAX];
    struct zone_counters counters;
    struct zone_peers peers;
    struct zone_view view;
    uint32_t member_max;
    uint32_t member_count;
    struct zone_member *members; /* rising by path; this node itself is not among them */
};

/* `members` has room for `member_max` and outlives the zone. The node belongs to no zone yet. */
void zone_init(struct zone *zone, const struct zone_options *options,
               const struct zone_record *self, struct zone_member *members, uint32_t member_max,
               uint64_t now_ns);

/* Founds a mesh: one zone that claims everything. */
void zone_found_mesh(struct zone *zone, uint64_t now_ns);
/* Joins by any node that is there. */
void zone_join(struct zone *zone, const struct zone_contact *seed, uint64_t now_ns,
               const struct zone_io *io);

/* There is this node, of whatever zone: it is asked now and then, and whose claim is outdated
 * learns of it. Without that two meshes founded apart would never meet. */
void zone_meet(struct zone *zone, const struct zone_contact *contact);

/* What this node says of itself from now on; place and id stay. Version is set here. What decides
 * whether it is found (models, tags, jurisdiction, room at all) is told at once, at most every
 * ZONE_SOON_NS; the rest with the next state. */
void zone_set_self(struct zone *zone, const struct zone_record *self, uint64_t now_ns);

/* The membership knows that a node is gone. */
void zone_member_down(struct zone *zone, uint32_t node);

/* One datagram. `from` is its sender's address, `public_key` the sender's (NULL: summaries are
 * taken unchecked). Whatever it holds: counted, and ignored if it is not valid. */
void zone_input(struct zone *zone, const void *data, size_t size, const struct in6_addr *from,
                const uint8_t *public_key, uint64_t now_ns, const struct zone_io *io);
void zone_tick(struct zone *zone, uint64_t now_ns, const struct zone_io *io);
uint64_t zone_next_ns(const struct zone *zone);
/* The same for searches alone. */
uint64_t zone_searches_next_ns(const struct zone *zone);

/* Begins a search; the caller keeps `search` until it is done and then calls zone_search_end().
 * Returns 0 or -EBUSY (too many under way) or -EINVAL (no valid query). The part that this zone can
 * answer is answered at once: zone_search_done() may be true already. */
int zone_search_begin(struct zone *zone, struct zone_search *search, const struct zone_query *query,
                      uint64_t now_ns, uint64_t deadline_ns, const struct zone_io *io);
void zone_search_end(struct zone *zone, struct zone_search *search);

/* Live members of the claim, this node included. */
uint32_t zone_live(const struct zone *zone, uint64_t now_ns);
/* True: the first claim is to be believed where the two overlap. */
bool zone_claim_beats(struct zone_range a, uint32_t a_epoch, struct zone_range b, uint32_t b_epoch);
struct zone_contact zone_contact_of(const struct zone_record *record);
