/* SPDX-License-Identifier: Apache-2.0 */
/*
 * search.h - one top-k search over all zones: best-first branch and bound (Roussopoulos, Kelley and
 * Vincent 1995, there over an R-tree) where a node of the tree is a range of paths that somebody
 * else knows more of.
 *
 * Regions wait in order of the least distance that anything in them can have. Up to
 * ZONE_SEARCH_PARALLEL are asked about at a time, more the longer it takes (what is rare is far);
 * who is asked answers for its own zone with records and returns the rest of the region in finer
 * pieces. Who answers later than most of his answers come is raced by the next contact that lives
 * there, and whoever is first counts; who has not answered within SRTT + 4 RTTVAR is silent. Where
 * the round-trip time is not known or questions get lost often, two contacts are asked from the
 * start. Beside the last one members of the own zone are asked, who may know others: the answers of
 * all who were asked stay welcome. Every step makes a region
 * smaller by at least one zone, so a search ends. It ends with no region left that could hold
 * anything nearer than the k-th found. A search for a far place is handed to somebody there first
 * (relay.h).
 *
 * The answer's contract: what is found are the k best of all matching records held by live members
 * of reachable zones, as of `age_ms` before its start at the oldest, if `complete`. If not,
 * `unheard` are the ranges that could hold better ones. Nothing is left out silently.
 *
 * Sans-I/O: zone.c sends what zone_search_poll() hands out and brings answers. Memory is the
 * caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/zones/peers.h"
#include "controlplane/zones/record.h"
#include "controlplane/zones/relay.h"
#include "controlplane/zones/summary.h"
#include "schemas/base/clock.h"

#define ZONE_SEARCH_REGIONS   128u
#define ZONE_SEARCH_PARALLEL  8u /* and one more for each ZONE_SEARCH_WIDEN_NS */
#define ZONE_SEARCH_WIDEN_NS  (10 * NS_PER_MS)
#define ZONE_SEARCH_ASKS_MAX  192u /* questions of one search */
#define ZONE_SEARCH_REFERRALS 16u  /* in a row from nodes outside the region */
#define ZONE_SEARCH_VISITED   8u   /* of these that are remembered, not to be asked again */
#define ZONE_SEARCH_UNHEARD   8u
#define ZONE_SEARCH_ROUNDS    2u /* how often each contact is tried, once helpers were asked */
#define ZONE_REGION_CONTACTS  (2 * ZONE_CONTACTS) /* its own, then those of helpers */
#define ZONE_RACE_PERMILLE    50u
#define ZONE_REGION_NONE      255u
#define ZONE_REGION_RELAY     254u /* not a region: the search as a whole */

enum zone_region_state { ZONE_REGION_OPEN, ZONE_REGION_ASKED, ZONE_REGION_DONE, ZONE_REGION_DEAD };

struct zone_region {
    struct zone_range range;
    uint32_t bound; /* nothing in it is nearer */
    uint32_t age_ms;
    uint64_t due_ns; /* ASKED: when to ask the next contact */
    uint8_t state;   /* enum zone_region_state */
    uint8_t tries;
    uint8_t referrals;
    uint8_t hops; /* answers that led here */
    uint8_t contact_count;
    uint8_t own_count; /* of these came with the region; the others help, or helpers named them */
    uint8_t last;      /* contact asked last */
    bool raced;        /* and the next one at once, without waiting */
    bool helped;       /* members of the asker's own zone are, or were, among the contacts */
    bool renamed;      /* one of them has named others for the same range */
    uint8_t tried[ZONE_REGION_CONTACTS];
    bool been[ZONE_REGION_CONTACTS];   /* among those visited */
    bool blamed[ZONE_REGION_CONTACTS]; /* its silence has been told */
    struct zone_contact contacts[ZONE_REGION_CONTACTS];
    uint64_t sent_ns[ZONE_REGION_CONTACTS];
    uint32_t
        visited[ZONE_SEARCH_VISITED]; /* who has only referred to others, `referrals` of them */
};

struct zone_search {
    struct zone_query query;
    uint64_t started_ns;
    uint64_t deadline_ns;
    uint32_t id; /* upper 24 bits of its questions' ids; the rest is the question's number */
    uint32_t asks;
    uint8_t region_of[ZONE_SEARCH_ASKS_MAX]; /* of each question; ZONE_REGION_NONE: not any more */
    uint32_t hops;                           /* longest chain of answers */
    uint32_t relay_asks;                     /* questions of those who searched for this one */
    uint32_t evidence_age_ms;
    uint64_t changed_ns; /* when something better was found last */
    uint32_t region_count;
    bool lost; /* had no room for a region */
    struct zone_top top;
    uint8_t helper_count;
    struct zone_contact helpers[ZONE_CONTACTS]; /* nearest of the asker's own zone */
    struct zone_relay relay;                    /* who is to do it instead */
    struct zone_region regions[ZONE_SEARCH_REGIONS];
};

/* A question to be sent. */
struct zone_ask {
    struct zone_contact to;
    uint32_t id;
    struct zone_range range;
    uint32_t bound;     /* nothing farther is wanted */
    uint16_t budget_ms; /* search it all, for that long; 0: a plain question */
    uint8_t hops;       /* and it may be handed on so often */
};

/* What came back. */
struct zone_answer {
    uint32_t id;
    uint32_t from;
    struct zone_range covered; /* the part that it answered for itself; not valid: none */
    uint32_t excluded_age_ms;  /* oldest evidence by which it left out parts of the range */
    uint8_t stage;             /* enum zone_relay_stage: of the whole search that was asked for */
    uint8_t hops;              /* of that, */
    uint16_t asks;             /* and its questions */
    uint32_t found_count;
    uint32_t piece_count;
    struct zone_found found[ZONE_TOP_MAX];
    struct zone_summary pieces[4];
};
#define ZONE_ANSWER_PIECES 4u

struct zone_result {
    struct zone_top top;
    bool complete;
    uint32_t age_ms;
    uint64_t settled_ns; /* how long it took to find these; the rest was to know that it is all */
    uint32_t asks;
    uint32_t hops;
    uint32_t unheard_count; /* may exceed ZONE_SEARCH_UNHEARD; the first are listed */
    struct zone_range unheard[ZONE_SEARCH_UNHEARD];
};

void zone_search_init(struct zone_search *search, const struct zone_query *query, uint32_t id,
                      uint64_t now_ns, uint64_t deadline_ns);

/* A range that may hold matches. */
void zone_search_add(struct zone_search *search, const struct zone_summary *piece);
/* Evidence of that age has excluded something, or is part of what was found. */
void zone_search_evidence(struct zone_search *search, uint32_t age_ms);

/* The search may be done by others: `search->relay` has been filled, before the first poll. */
void zone_search_relay(struct zone_search *search, uint32_t hops);

/* The next question that is due; false: none now. */
bool zone_search_poll(struct zone_search *search, struct zone_peers *peers, uint64_t now_ns,
                      struct zone_ask *ask);
/* Whoever that question was for is known to be gone: nobody waits for him. */
void zone_search_gone(struct zone_search *search, const struct zone_peers *peers,
                      const struct zone_ask *ask, uint64_t now_ns);
/* Takes an answer; ignores one that it did not ask for. */
void zone_search_answer(struct zone_search *search, struct zone_peers *peers,
                        const struct zone_answer *answer, uint64_t now_ns);

/* When zone_search_poll() may have something next. */
uint64_t zone_search_next_ns(const struct zone_search *search);
/* Nothing is left to be asked, or the deadline has passed. */
bool zone_search_done(const struct zone_search *search, uint64_t now_ns);
void zone_search_result(const struct zone_search *search, struct zone_result *result);
