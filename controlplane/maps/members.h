/* SPDX-License-Identifier: Apache-2.0 */
/*
 * members.h - who is there and what each can do. Sans-I/O: no socket, no clock. The routing table
 * is built from it. Two ways to fill it: the members that the configuration lists plus what their
 * beacons say (this header; control.c feeds it datagrams and time), or what gossip says (roster.h).
 *
 * Beacons: every node sends every other one a beacon each MEMBERS_PERIOD_NS. A member is up with
 * the first beacon heard and down after MEMBERS_SILENCE_NS without one. Round-trip time: a beacon
 * returns the peer's own send time and how long it was held, so that rtt = now - echo - hold needs
 * no common clock; smoothed as RFC 6298 does (SRTT 1/8, RTTVAR 1/4).
 *
 * The configuration is the authority on policy: tags of a beacon count only if the configuration
 * gives them too.
 *
 * Threads: none of its own; all calls from one thread. Errors: negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/beacon.def"
#include "controlplane/maps/speeds.h"
#include "schemas/base/clock.h"
#include "schemas/config.h"

#define MEMBERS_PERIOD_NS  (250 * NS_PER_MS)
#define MEMBERS_SILENCE_NS (1 * NS_PER_S)   /* four beacons missed */
#define MEMBERS_PACE_NS    (25 * NS_PER_MS) /* beacons leave on this raster, to wake rarely */
#define MEMBERS_BURST_MAX  64u              /* members that may all be sent to at once */
#define MEMBERS_RTT_MAX_NS (10 * NS_PER_S)
#define MEMBERS_MODELS_MAX 16u
#define MEMBERS_BEACON_MAX 1232u
#define MEMBERS_PREFIXES   16u /* what a state tells; a beacon the newest BEACON_PREFIXES */
#define BEACON_PREFIXES    6u

#define BEACON_MAGIC   0x31434257u /* "WBC1" */
#define BEACON_VERSION 1u

#define BEACON_DECLARE_FIELD_(off, type, name, text)        type name;
#define BEACON_DECLARE_ARRAY_(off, type, name, count, text) type name[count];
struct WEFT_PACKED beacon {
    BEACON_FIELDS(BEACON_DECLARE_FIELD_, BEACON_DECLARE_ARRAY_)
};
struct WEFT_PACKED beacon_model {
    BEACON_MODEL_FIELDS(BEACON_DECLARE_ARRAY_)
};
#define BEACON_CHECK_FIELD_(off, type, name, text)                                                 \
    WEFT_ASSERT(offsetof(struct beacon, name) == (off), #name " is misplaced");
#define BEACON_CHECK_ARRAY_(off, type, name, count, text)                                          \
    WEFT_ASSERT(offsetof(struct beacon, name) == (off), #name " is misplaced");
BEACON_FIELDS(BEACON_CHECK_FIELD_, BEACON_CHECK_ARRAY_)
#define BEACON_LEAST 96u /* of older ones: behind `backend` */
WEFT_ASSERT(offsetof(struct beacon, arithmetic) == BEACON_LEAST, "older headers end there");
#define BEACON_PLAIN 208u /* without `speeds`: older ones, and those with no room for them */
WEFT_ASSERT(offsetof(struct beacon, speeds) == BEACON_PLAIN, "they are last");
WEFT_ASSERT(sizeof(struct beacon) == 272, "beacon header is 272 bytes");
WEFT_ASSERT(sizeof(((struct beacon *)0)->arithmetic) == MEMBERS_MODELS_MAX * sizeof(uint32_t),
            "one for each model");
WEFT_ASSERT(sizeof(struct beacon_model) == WEFT_MODEL_NAME_MAX, "a model is its name");
WEFT_ASSERT(BEACON_PLAIN + MEMBERS_MODELS_MAX * sizeof(struct beacon_model) <= MEMBERS_BEACON_MAX,
            "a full beacon fits a datagram");
#define BEACON_SPEEDS 8u /* models whose speeds it tells */
WEFT_ASSERT(sizeof(((struct beacon *)0)->speeds) == BEACON_SPEEDS * sizeof(struct speeds),
            "one for each of them");

struct members_model {
    uint32_t id;         /* weft_model_id(name) */
    uint32_t arithmetic; /* as in a GRANT (schemas/wire.def); 0 = not known */
    struct speeds speeds;
    char name[WEFT_MODEL_NAME_MAX];
};

/* A prompt that begins like an earlier one needs prefill for the rest only, whatever the model. */
#define MEMBERS_FACT_REUSE UINT32_C(1)
#define MEMBERS_FACT_MASK  UINT8_MAX /* what is told of the flags */

/* What a node says of itself. */
struct members_facts {
    uint16_t room; /* requests it would still accept */
    uint32_t queue_us;
    uint32_t free_vram_mib;
    uint32_t prefill_tps; /* tokens per second, of the slowest of its models */
    uint32_t decode_tps;
    uint32_t context_tokens;
    uint32_t flags;                 /* MEMBERS_FACT_* */
    char backend[WEFT_BACKEND_MAX]; /* "" = no worker */
    /* How the prompts that its workers took last began (schemas/base/prefix.h), newest first;
     * behind the last 0. */
    uint64_t prefixes[MEMBERS_PREFIXES];
    uint32_t model_count;
    struct members_model models[MEMBERS_MODELS_MAX];
};

#define MEMBERS_STATES(STATE)                                                                      \
    STATE(DOWN, "down")       /* not heard, or found dead */                                       \
    STATE(UP, "up")           /* to be used */                                                     \
    STATE(SUSPECT, "suspect") /* may be dead; still to be used */                                  \
    STATE(LEFT, "left")       /* has said good-bye */
#define MEMBER_STATE_ENUM_(name, text) MEMBER_##name,
enum member_state { MEMBERS_STATES(MEMBER_STATE_ENUM_) };

struct member {
    char name[WEFT_NAME_MAX];
    uint16_t id;
    struct in6_addr address; /* schemas/base/addr.h */
    struct in6_addr client_address;
    double latitude_deg;
    double longitude_deg;
    char jurisdiction[3];
    uint32_t config_tags;

    bool alive;                 /* the node itself: always */
    uint32_t tier;              /* configured, then what its beacons say */
    uint32_t tags;              /* never more than config_tags */
    struct members_facts facts; /* last heard; not cleared when it goes down */
    uint64_t heard_ns;          /* when its last beacon came; 0 = never */
    uint64_t changed_ns;        /* when it last came up or went down */
    uint64_t srtt_ns;           /* 0 = not measured yet */
    uint64_t rttvar_ns;
    uint64_t incarnation; /* as the member has said last; 0 = not heard */

    /* Of a roster (roster.h) only. */
    enum member_state state; /* see member_state_of() */
    uint32_t owner;          /* whoever keeps the roster: its number for this member */
    bool barred;             /* the policy lets no request go there */
    bool place_doubted;      /* light could not have been there and back in the time measured */
    bool rtt_estimated;      /* srtt_ns is worked out, not measured */

    /* Private to members.c. */
    uint64_t sequence_heard;
    uint64_t sequence_sent;
    uint64_t peer_sent_ns; /* to be echoed; 0 = none */
    uint64_t due_ns;       /* of the next beacon to it */
    uint64_t srtt_told_ns; /* SRTT when the version was last raised for it */
};

struct members_counters {
#define MEMBERS_COUNTER_DECLARE_(name, text) uint64_t name;
    MEMBERS_COUNTERS(MEMBERS_COUNTER_DECLARE_)
#undef MEMBERS_COUNTER_DECLARE_
};

/* A beacon to be sent. */
struct members_out {
    struct in6_addr address;
    uint16_t port; /* host byte order */
    uint16_t len;
    uint8_t *data; /* room of MEMBERS_BEACON_MAX, the caller's */
};

struct members;

/* Heap; copies what it needs of `config`. `incarnation` must be larger at each start of the node:
 * wall-clock nanoseconds. Returns 0 or -ENOMEM. */
int members_create(struct members **members, const struct config *config, uint64_t incarnation,
                   uint64_t now_ns);

/* NULL is fine. */
void members_destroy(struct members *members);

/* Publishes this node's load and models from now on. Models beyond the limit, without a name or
 * clashing with another's id are left out. */
void members_set_local(struct members *members, const struct members_facts *facts);

/* Takes one datagram from the control port. Whatever it holds: counted, and ignored if it is not a
 * valid beacon of a member at that member's address and control port. */
void members_receive(struct members *members, const void *data, size_t size,
                     const struct in6_addr *from, uint16_t port, uint64_t now_ns);

/* Marks members down that were silent too long and writes the beacons that are due, at most `room`.
 * Returns how many; if it is `room`, call again. */
unsigned members_tick(struct members *members, struct members_out *out, unsigned room,
                      uint64_t now_ns);

/* When members_tick() has something to do next. */
uint64_t members_next_ns(const struct members *members);

/* Local facts have changed: beacons to all are due at once. With more than MEMBERS_BURST_MAX
 * members it does nothing; they learn within a period. */
void members_touch(struct members *members, uint64_t now_ns);

/* Rises whenever something a router must know has changed: a member up or down, models, tier, tags,
 * load, or an SRTT that moved by more than an eighth and 50 us. */
uint64_t members_version(const struct members *members);

uint32_t members_count(const struct members *members);
uint32_t members_self(const struct members *members); /* index */
const struct member *members_at(const struct members *members, uint32_t index);

enum member_state member_state_of(const struct members *members, const struct member *member);
const char *member_state_name(enum member_state state);

/* The member with that id, NULL if there is none. */
const struct member *members_find(const struct members *members, uint16_t id);

const struct members_counters *members_counters(const struct members *members);
