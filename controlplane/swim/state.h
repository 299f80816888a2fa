/* SPDX-License-Identifier: Apache-2.0 */
/*
 * state.h - what one swim object holds, and what its parts offer each other. Only for the files of
 * this folder: table.c (members), send.c (datagrams and news), probe.c, suspect.c, sync.c, input.c,
 * swim.c (life, tick).
 */
#pragma once

#include "controlplane/swim/items.h"
#include "controlplane/swim/map.h"
#include "controlplane/swim/seal.h"
#include "controlplane/swim/swim.h"

#define SELF            0u /* slot of this node */
#define PROBES_MAX      64u
#define PROBE_TRIES     4u /* a power of two */
#define HELPERS         3u
#define FANOUT          3u
#define HEALTH_MAX      7u
#define RANDOM_BYTES    512u
#define RTO_MIN_NS      (20 * NS_PER_MS)
#define RTO_FIRST_NS    (200 * NS_PER_MS) /* nothing measured yet */
#define RTO_MAX_NS      (2 * NS_PER_S)
#define RTT_MAX_NS      (10 * NS_PER_S)
#define GOSSIP_NS       (100 * NS_PER_MS)
#define GOSSIP_HOT_NS   (20 * NS_PER_MS) /* between two rounds when something new has come */
#define SYNC_NS         (10 * NS_PER_S)
#define SYNC_FAST_NS    (100 * NS_PER_MS) /* while members are still being learned */
#define JOIN_NS         NS_PER_S          /* alone: between two calls on the seeds */
#define FORGET_CHECK_NS (60 * NS_PER_S)
#define PAUSE_NS        (150 * NS_PER_MS) /* later than this is a pause of this node */
#define PAUSE_GRACE_NS  NS_PER_S
#define EVIDENCE_NS     (2 * NS_PER_S) /* how long a failed probe counts as an observation */
#define CHALLENGE_NS    (30 * NS_PER_S)
#define NEWCOMER_NS     (60 * NS_PER_S) /* that long after joining a node hears of the dead */
#define NOTIFY_BATCH    4u
#define TELL_AGAIN_NS   (500 * NS_PER_MS) /* between two answers to old votes of one member */

enum ring_class { RING_LIVENESS, RING_STATE, RINGS };

struct member {
    struct swim_member pub;
    uint8_t raw[SWIM_RECORD_MAX]; /* the record as signed */
    uint32_t raw_size;
    struct swim_window window; /* of its session */
    uint8_t shared[SWIM_KEY_BYTES];
    uint8_t pair_key[SWIM_KEY_BYTES];
    uint8_t state_signature[SWIM_SIGNATURE_BYTES];
    uint32_t pair_generation; /* of the keyring that pair_key is for; 0: none */
    uint32_t live_at;         /* place in `live`; SWIM_SLOT_NONE: not there */
    uint32_t suspicion;       /* SWIM_SLOT_NONE: none */
    uint64_t failed_ns;       /* when a probe of ours last failed; 0 = never */
    uint64_t heard_ns;        /* when something of its own last came from it; 0 = never */
    uint64_t challenge;       /* the last it asked with; 0 = none */
    uint64_t told_ns;         /* when an old vote of its was last answered, */
    uint64_t told;            /* with this node's record of that incarnation */
    uint16_t record_sent;     /* times that its newest record was passed on */
    uint16_t state_sent;
    bool record_queued[RINGS];
    bool state_queued;
    bool shared_known;
    bool knows_me; /* it has this node's record of this session */
    bool notify;   /* somebody holds it dead: it must hear of that */
};

struct suspicion {
    uint32_t slot; /* SWIM_SLOT_NONE: free */
    uint32_t vote_count;
    uint32_t tells_left; /* answers to late votes */
    uint64_t incarnation;
    uint64_t started_ns;
    uint64_t deadline_ns; /* UINT64_MAX: settled, kept for the votes */
    bool asked;           /* once more, as the verdict came near */
    uint8_t compares;     /* with members, since votes were still lacking when others had enough */
    struct {
        uint64_t observer;
        uint8_t signature[SWIM_SIGNATURE_BYTES];
        uint16_t sent;
        bool queued;
    } votes[SWIM_OBSERVERS];
};

enum probe_kind { PROBE_OWN, PROBE_HELP };

struct probe {
    enum probe_kind kind;
    uint32_t slot;
    uint64_t uid;   /* a slot may change hands */
    uint32_t token; /* of the first ping; the low bits count on */
    uint32_t tries;
    uint64_t sent_ns[PROBE_TRIES];
    uint64_t next_ns;
    uint64_t indirect_ns; /* when helpers were asked */
    uint64_t end_ns;      /* of their time */
    bool indirect;        /* they have been */
    bool last_try;        /* the third ping is out */
    uint8_t asked;
    uint8_t nacks;
    uint64_t requester; /* PROBE_HELP: uid and its token */
    uint32_t requester_token;
};

enum news_kind { NEWS_RECORD, NEWS_VOTE, NEWS_STATE };

struct news {
    uint32_t index; /* slot, or suspicion for votes */
    uint8_t kind;
    uint8_t vote;
};

struct ring {
    struct news *all;
    uint32_t room;
    uint32_t first;
    uint32_t count;
};

struct swim {
    struct swim_keyring keyring;
    struct swim_identity identity;
    uint8_t random[RANDOM_BYTES];
    uint32_t random_used;
    uint64_t counter;       /* of the last datagram sealed */
    uint64_t challenges[2]; /* asked with now, and the one before; changed each CHALLENGE_NS */

    uint32_t members_max;
    uint32_t state_max;
    uint32_t suspicions_max;
    uint8_t speaks_min, speaks_max;
    uint64_t probe_interval_ns, suspect_min_ns, suspect_max_ns;
    uint32_t seed_count;
    uint32_t seeds_fixed; /* of the options; the others came by swim_join() */
    uint32_t seed_next;   /* of the others, makes room next */
    struct swim_seed seeds[SWIM_SEEDS_MAX];

    uint32_t slots;      /* ever used */
    uint32_t free_first; /* chain by live_at; SWIM_SLOT_NONE */
    uint32_t live_count;
    uint32_t live_next; /* round-robin place in `live` */
    uint32_t dead_count;
    uint32_t notify_count;
    uint32_t probe_count;
    uint32_t health;
    uint64_t sum;

    uint64_t last_ns; /* of the last call */
    uint64_t probe_ns, suspect_ns, gossip_ns, challenge_ns, gossiped_ns, sync_ns, remember_ns,
        forget_ns;
    uint64_t grace_ns; /* no verdicts before */
    uint64_t sync_gap_ns;
    uint64_t created_ns;
    struct swim_counters counters;

    struct swim_map by_uid;
    struct swim_map by_session;
    struct member *members;
    uint8_t *states; /* state_max bytes for each slot */
    uint32_t *live;  /* slots of those alive or suspect, this node not */
    struct suspicion *suspicions;
    struct ring rings[RINGS];
    struct probe probes[PROBES_MAX];
};

/* ---- swim.c ---- */
uint32_t random_u32(struct swim *swim);
uint64_t random_u64(struct swim *swim); /* never 0 */
uint32_t random_below(struct swim *swim, uint32_t bound);
/* Between a half and one and a half intervals from now. */
uint64_t jittered(struct swim *swim, uint64_t now_ns, uint64_t interval_ns);
void event_add(struct swim_out *out, enum swim_event_type type, const struct member *member);
/* `other` claims the owner's id. */
void event_clash(struct swim_out *out, const struct member *owner, uint64_t other,
                 uint64_t other_incarnation);
void health_change(struct swim *swim, int by);
/* Notices that this node was not run for long; see README.md. */
void pause_check(struct swim *swim, uint64_t now_ns);
/* This node's record anew: a higher incarnation (at least `above` + 1), or version. */
void self_refute(struct swim *swim, uint64_t above, uint64_t now_ns);
void self_write(struct swim *swim);

/* ---- table.c ---- */
static inline bool member_is_live(const struct member *member)
{
    return member->pub.status <= SWIM_SUSPECT;
}
struct member *member_find(struct swim *swim, uint64_t uid);
/* Whose id it is, other than `uid`'s; NULL: nobody's. */
struct member *id_owner(struct swim *swim, uint16_t id, uint64_t uid);
/* The slot of a known or new member that holds this record now; SWIM_SLOT_NONE: not taken. A
 * member unknown so far is taken in as dead if `as_dead`. */
uint32_t record_take(struct swim *swim, const uint8_t *data, size_t size, bool as_dead,
                     uint64_t now_ns, struct swim_out *out);
void member_set_status(struct swim *swim, struct member *member, enum swim_status status,
                       uint64_t now_ns, struct swim_out *out);
void member_forget(struct swim *swim, uint32_t slot);
void members_forget_old(struct swim *swim, uint64_t now_ns);
/* A random live member other than this node and `not`; SWIM_SLOT_NONE: there is none. */
uint32_t live_pick(struct swim *swim, uint32_t not );
void live_shuffle(struct swim *swim);
/* Whom the round asks next: of the next few in its order who has been silent for longest. Each is
 * asked once a round. */
uint32_t live_take_next(struct swim *swim);
/* What a member adds to the sum of all that is known. */
uint64_t member_sum(const struct member *member);
void member_notify(struct swim *swim, struct member *member, bool on);
static inline uint32_t slot_of(const struct swim *swim, const struct member *member)
{
    return (uint32_t)(member - swim->members);
}
void state_take(struct swim *swim, const struct swim_item *item, uint64_t now_ns,
                struct swim_out *out);

/* ---- send.c ---- */
/* A datagram being written. */
struct draft {
    struct swim_datagram *datagram; /* NULL: none, and what is put is lost */
    struct cursor body;
    struct swim_header header;
    uint8_t key[SWIM_KEY_BYTES];
};
/* To a member; as the pair's unless it does not know this node yet, or `introduce`. */
bool draft_begin(struct swim *swim, struct draft *draft, uint32_t slot, bool introduce,
                 struct swim_out *out);
/* To an address; `proof` answers the challenge of whoever is there, 0: none is known. `ask`: with a
 * challenge to that one. */
bool draft_begin_address(struct swim *swim, struct draft *draft, const struct in6_addr *address,
                         uint16_t port, uint8_t version, uint64_t proof, bool ask,
                         struct swim_out *out);
/* Has `bytes` of room, if need be by sending what there is and beginning another, to the same
 * member. */
bool draft_ensure(struct swim *swim, struct draft *draft, uint32_t slot, size_t bytes,
                  struct swim_out *out);
/* News into the room left; then sealed and done. Does nothing if there is none. */
void draft_end(struct swim *swim, struct draft *draft);
static inline uint32_t out_room(const struct swim_out *out)
{
    return SWIM_OUT_DATAGRAMS - out->datagram_count;
}
void news_record(struct swim *swim, struct member *member, enum ring_class class, uint64_t now_ns);
void news_vote(struct swim *swim, uint32_t suspicion, uint32_t vote, uint64_t now_ns);
void news_state(struct swim *swim, struct member *member, uint64_t now_ns);
void gossip_round(struct swim *swim, uint64_t now_ns, struct swim_out *out);
/* The key to open with: the keyring's `index`, for this member or the mesh (NULL). */
bool key_for(struct swim *swim, struct member *member, uint32_t index, uint8_t key[SWIM_KEY_BYTES]);

/* ---- probe.c ---- */
void probe_start(struct swim *swim, uint32_t slot, uint64_t now_ns, struct swim_out *out);
/* A ping whose answer is not waited for: what is known there comes with it. */
void ping_only(struct swim *swim, uint32_t slot, struct swim_out *out);
void probe_help(struct swim *swim, uint32_t requester, uint32_t token, uint64_t uid,
                uint64_t now_ns, struct swim_out *out);
void probe_acked(struct swim *swim, uint32_t slot, uint32_t token, bool pair, uint64_t now_ns,
                 struct swim_out *out);
void probe_nacked(struct swim *swim, uint32_t token, uint64_t now_ns, struct swim_out *out);
void probes_advance(struct swim *swim, uint64_t now_ns, struct swim_out *out);
uint64_t probes_next_ns(const struct swim *swim);
/* One round of the regular probing. */
void probe_round(struct swim *swim, uint64_t now_ns, struct swim_out *out);
/* Pings of those that somebody holds dead, and of remembered dead and seeds. */
void probe_notify(struct swim *swim, uint64_t now_ns, struct swim_out *out);
void probe_remembered(struct swim *swim, uint64_t now_ns, struct swim_out *out);
void put_votes_on(struct swim *swim, const struct member *member, struct cursor *body);

/* ---- suspect.c ---- */
void suspect_cast(struct swim *swim, uint32_t slot, uint64_t now_ns, struct swim_out *out);
void vote_take(struct swim *swim, const struct swim_vote *vote, uint32_t sender, uint64_t now_ns,
               struct draft *reply, struct swim_out *out);
void suspicion_free(struct swim *swim, struct member *member);
void suspicions_settle(struct swim *swim, uint64_t now_ns, struct swim_out *out);
/* Deadlines anew, after the number of possible observers changed. */
void suspicions_rate(struct swim *swim);
void suspicions_delay(struct swim *swim, uint64_t late_ns, uint64_t not_before_ns);

/* ---- sync.c ---- */
void sync_begin(struct swim *swim, uint64_t now_ns, struct swim_out *out);
/* The same out of turn; when the next regular one is due stays. */
void sync_now(struct swim *swim, struct swim_out *out);
void sync_put(struct swim *swim, struct cursor *body);
/* A member was learned: there may be more to learn. */
void sync_soon(struct swim *swim, uint64_t now_ns);
/* One of SYNC, BUCKETS, DIGEST, PULL. */
bool sync_item(struct swim *swim, const struct swim_item *item, uint32_t sender, uint64_t now_ns,
               struct draft *reply, struct swim_out *out);
