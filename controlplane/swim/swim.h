/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swim.h - who is in the mesh: SWIM (Das, Gupta, Motivala, DSN 2002) with the three parts of
 * Lifeguard (Dadgar, Phillips, Currey 2017: local health, confirmed suspicion, buddy), probe
 * timeouts from measured round trips, and verdicts by distinct observers. Sans-I/O: given datagrams
 * and the time it writes datagrams and events into the caller's buffers. No socket, no clock, no
 * allocation after swim_create(). README.md tells the protocol.
 *
 * Time is a monotonic clock in nanoseconds, this node's own; nothing of it goes over the network.
 *
 * Threads: none of its own; all calls on one object from one thread. Several objects are
 * independent of each other.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/swim/record.h"
#include "schemas/base/clock.h"

#define SWIM_DATAGRAM_MAX      1232u /* IPv6's smallest MTU less its headers */
#define SWIM_LIVENESS_BYTES    512u  /* of it that state never takes while liveness waits */
#define SWIM_MEMBERS_MAX       65536u
#define SWIM_SEEDS_MAX         16u
#define SWIM_OUT_DATAGRAMS     16u
#define SWIM_OUT_EVENTS        32u
#define SWIM_VERSION           1u /* of the datagram format */
#define SWIM_OBSERVERS         3u /* distinct observers that make a verdict quick */
#define SWIM_PROBE_INTERVAL_NS (500 * NS_PER_MS)
#define SWIM_SUSPECT_MIN_NS    (1200 * NS_PER_MS) /* enough observers */
#define SWIM_SUSPECT_MAX_NS    (6 * NS_PER_S)     /* nobody else agrees */
#define SWIM_REMEMBER_NS       (8 * NS_PER_S)     /* between two probes of the dead and the seeds */
#define SWIM_FORGET_NS         (24 * 3600 * NS_PER_S)

enum swim_status { SWIM_ALIVE, SWIM_SUSPECT, SWIM_DEAD, SWIM_LEFT };

struct swim_seed {
    struct in6_addr address;
    uint16_t port;
};

struct swim_options {
    uint32_t members_max; /* this node included; memory is set aside for that many */
    uint32_t state_max;   /* bytes of state per member, at most SWIM_STATE_MAX; 0: none */
    uint8_t entropy[SWIM_KEY_BYTES];   /* secret, random, new at each start */
    uint8_t sign_seed[SWIM_KEY_BYTES]; /* secret: this node's identity, always the same */
    uint8_t mesh_key[SWIM_KEY_BYTES];  /* secret: shared by all members */
    /* This node's facts; public_key, session, version and flags are filled in. `incarnation` should
     * be larger at each start (wall-clock milliseconds); if it is not, the mesh tells. */
    struct swim_record self;
    const struct swim_seed *seeds; /* copied */
    uint32_t seed_count;
    uint64_t probe_interval_ns; /* 0: SWIM_PROBE_INTERVAL_NS */
    uint64_t suspect_min_ns;    /* 0: SWIM_SUSPECT_MIN_NS */
    uint64_t suspect_max_ns;    /* 0: SWIM_SUSPECT_MAX_NS */
    uint8_t speaks_min;         /* versions of the format; 0: SWIM_VERSION */
    uint8_t speaks_max;
};

struct swim_member {
    uint64_t uid;
    enum swim_status status;
    uint64_t changed_ns; /* when the status last changed */
    uint64_t acked_ns;   /* when it last answered this node's own probe; 0 = never */
    uint64_t srtt_ns;    /* RFC 6298; 0 = not measured */
    uint64_t rttvar_ns;
    uint64_t rtt_ns;           /* the newest sample */
    uint32_t rtt_count;        /* samples ever, wraps around */
    struct swim_record record; /* verified */
    uint32_t state_version;    /* 0 = no state heard */
    uint32_t state_size;
};

enum swim_event_type {
    SWIM_EVENT_ALIVE,   /* new, or back */
    SWIM_EVENT_SUSPECT, /* may be dead; still to be used */
    SWIM_EVENT_DEAD,
    SWIM_EVENT_LEFT,
    SWIM_EVENT_UPDATED, /* another record, the same status */
    SWIM_EVENT_STATE,   /* its state has changed */
    SWIM_EVENT_CLASH,   /* `other` claims this member's id: not taken in */
};

struct swim_event {
    enum swim_event_type type;
    uint64_t uid;
    uint64_t incarnation;
    uint64_t other; /* uid, and its incarnation; SWIM_EVENT_CLASH only */
    uint64_t other_incarnation;
};

struct swim_datagram {
    struct in6_addr address;
    uint16_t port; /* host byte order */
    uint16_t len;
    uint8_t data[SWIM_DATAGRAM_MAX];
};

/* Filled by swim_input(), swim_tick() and swim_leave() from the start; the caller sends and handles
 * all of it. */
struct swim_out {
    uint32_t datagram_count;
    uint32_t event_count;
    struct swim_event events[SWIM_OUT_EVENTS];
    struct swim_datagram datagrams[SWIM_OUT_DATAGRAMS];
};

#define SWIM_COUNTERS(COUNTER)                                                                     \
    COUNTER(datagrams_in, "datagrams given to it")                                                 \
    COUNTER(datagrams_out, "datagrams written")                                                    \
    COUNTER(bytes_out, "their bytes, without IP and UDP headers")                                  \
    COUNTER(datagrams_unsent, "no room in the output")                                             \
    COUNTER(malformed, "datagrams or items that contradict themselves")                            \
    COUNTER(foreign_version, "another version of the format")                                      \
    COUNTER(unsealed, "not sealed with a key of this mesh or pair")                                \
    COUNTER(unknown_sender, "sealed for this pair by a session not known")                         \
    COUNTER(replayed, "seen before, or too old")                                                   \
    COUNTER(bad_signatures, "records, votes or states whose signature is wrong")                   \
    COUNTER(records_stale, "records of a dead or past incarnation")                                \
    COUNTER(records_refused, "no room, or the id belongs to another member")                       \
    COUNTER(probes, "own probes")                                                                  \
    COUNTER(probes_failed, "own probes without an answer, direct or by way of helpers")            \
    COUNTER(votes_cast, "own votes")                                                               \
    COUNTER(refutations, "times this node had to say that it lives")                               \
    COUNTER(pauses, "times this node noticed that it had been held up")                            \
    COUNTER(suspicions_full, "suspicions not begun: no room")                                      \
    COUNTER(seal_failures, "datagrams not sealed: bad key of a peer, or no common version")

struct swim_counters {
#define SWIM_COUNTER_DECLARE_(name, text) uint64_t name;
    SWIM_COUNTERS(SWIM_COUNTER_DECLARE_)
#undef SWIM_COUNTER_DECLARE_
};

struct swim;

/* Bytes that swim_create() takes. */
size_t swim_memory_bytes(const struct swim_options *options);

/* One allocation for its whole life. Options are copied; wipe the secrets in yours. Returns 0,
 * -EINVAL (a record that cannot be sent, limits) or -ENOMEM. */
int swim_create(struct swim **swim, const struct swim_options *options, uint64_t now_ns);

/* Wipes keys. NULL is fine. */
void swim_destroy(struct swim *swim);

/* Takes one datagram from the network, whatever it holds. */
void swim_input(struct swim *swim, const struct in6_addr *from, uint16_t port, const void *data,
                size_t size, uint64_t now_ns, struct swim_out *out);

/* Does what is due. Call it at swim_next_ns(), which changes with each call; at once if that lies
 * in the past. */
void swim_tick(struct swim *swim, uint64_t now_ns, struct swim_out *out);
uint64_t swim_next_ns(const struct swim *swim);

/* Says good-bye: tells some members at once; go on ticking for a second so that all learn it. */
void swim_leave(struct swim *swim, uint64_t now_ns, struct swim_out *out);

/* Asks a member now, out of its turn, whether it is there: measures the way to it. Adds to `out`,
 * which a call before has filled; does nothing if there is no room or it is being asked already. */
void swim_ask(struct swim *swim, uint64_t uid, uint64_t now_ns, struct swim_out *out);

/* Remembers an address as it does those of the options, and calls it now; `out` is filled from the
 * start. Beyond SWIM_SEEDS_MAX the one added first makes room, never one of the options: -ENOSPC if
 * there are no others. Called again for one that is known it only calls, unless a live member is
 * there: then it returns -EALREADY and does nothing. */
int swim_join(struct swim *swim, const struct swim_seed *seed, struct swim_out *out);

/* New facts of this node (those fields of `self` that swim_options tells of). Returns 0 or -EINVAL.
 */
int swim_set_self(struct swim *swim, const struct swim_record *self);

/* New state of this node, spread after everything about liveness. Returns 0 or -EINVAL. */
int swim_set_state(struct swim *swim, const void *data, size_t size);

/* Key rotation, see seal.h. Return 0, -ENOSPC, -ENOENT or -EBUSY. */
int swim_key_install(struct swim *swim, const uint8_t key[SWIM_KEY_BYTES]);
int swim_key_use(struct swim *swim, const uint8_t key[SWIM_KEY_BYTES]);
int swim_key_remove(struct swim *swim, const uint8_t key[SWIM_KEY_BYTES]);

/* ---- reading ---- */

/* Slots 0..swim_slots()-1; slot 0 is this node; NULL: nobody in that slot. A member keeps its slot
 * until it is forgotten. */
uint32_t swim_slots(const struct swim *swim);
const struct swim_member *swim_at(const struct swim *swim, uint32_t slot);
const struct swim_member *swim_find(const struct swim *swim, uint64_t uid);
const struct swim_member *swim_self(const struct swim *swim);
/* A member's state, `state_size` bytes, NULL if none was heard. */
const void *swim_state_of(const struct swim *swim, const struct swim_member *member);

/* Alive and suspect ones, this node included. */
uint32_t swim_live_count(const struct swim *swim);
/* Lifeguard's local health: 0 well .. 7. */
uint32_t swim_health(const struct swim *swim);
/* Equal sums: two nodes know the same (practically). */
uint64_t swim_sum(const struct swim *swim);
const struct swim_counters *swim_counters(const struct swim *swim);
