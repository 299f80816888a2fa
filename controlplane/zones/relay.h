/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.h - a search for a far place is handed to a node that lives near it. From afar each step of
 * branch and bound costs a long way there and back, and there are three to five of them in a row;
 * from near by the same steps cost milliseconds. So one who is near (or who knows somebody nearer,
 * `hops` times at most) is asked to do all of it. He says at once that he has begun, then what he
 * finds, then that it is complete, which is worth exactly what his own search's `complete` is
 * worth.
 *
 * Nothing rests on him: two are asked at once, who does not begin in time is raced by the next, and
 * if nobody begins, or the work takes longer than such work usually does, or half of the search's
 * time is over, or it ends incomplete, the asker searches itself, with what was found until then.
 *
 * This is the asker's part, sans-I/O; duty.c is the other one's. Memory is the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/zones/peers.h"

#define ZONE_RELAYS_MAX     3u     /* nodes asked to search, one after the other */
#define ZONE_RELAY_RACE     2u     /* so many at once: routes differ more than places tell */
#define ZONE_RELAY_HOPS     2u     /* how often it is handed on; then by one at a time */
#define ZONE_RELAY_FAR_US   15000u /* there and back: nearer places are searched from here */
#define ZONE_RELAY_LIMIT_NS (2 * NS_PER_S) /* of the work for somebody else */

/* What an answer says of the search that was handed over. */
enum zone_relay_stage {
    ZONE_RELAY_NOT,
    ZONE_RELAY_WORKING,
    ZONE_RELAY_FINISHED,
    ZONE_RELAY_STAGES
};

struct zone_relay {
    bool waits;   /* the asker's own search waits for it */
    bool working; /* somebody has begun */
    uint8_t count;
    uint8_t asked; /* the first so many were */
    uint8_t hops;  /* how often whoever is asked may hand it on */
    uint64_t due_ns;
    uint64_t begun_ns; /* when somebody said that he works */
    struct zone_contact to[ZONE_RELAYS_MAX];
    uint64_t sent_ns[ZONE_RELAYS_MAX];
    bool heard[ZONE_RELAYS_MAX];
    bool blamed[ZONE_RELAYS_MAX]; /* its silence has been told */
};

/* Whoever of `contact` is better placed: adds it to those to be asked, best first. `cost_us` of
 * those in there is the caller's array of ZONE_RELAYS_MAX. */
void zone_relay_offer(struct zone_relay *relay, uint64_t cost_us[ZONE_RELAYS_MAX],
                      const struct zone_contact *contact, uint64_t cost);

/* Who is to be asked now; false: nobody. Ends the waiting if it has been long enough. */
bool zone_relay_poll(struct zone_relay *relay, struct zone_peers *peers, uint64_t now_ns,
                     struct zone_contact *to);
/* Whoever was to be asked just now is known to be gone: the next one has its turn, or the one
 * before is waited for. */
void zone_relay_gone(struct zone_relay *relay, const struct zone_peers *peers, uint64_t now_ns);
/* An answer of one that was asked; false: he was not. */
bool zone_relay_heard(struct zone_relay *relay, struct zone_peers *peers, uint32_t from,
                      uint32_t stage, uint64_t now_ns);
