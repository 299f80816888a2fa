/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zoning.h - this node's part in the zones (zones/zone.h) of a mesh by gossip: says of itself what
 * the members table says, joins or founds, takes members out that swim finds dead, and carries its
 * datagrams as letters. Searches begin here and end in a callback. Sans-I/O.
 *
 * Who begins: a node that is alone founds a mesh of one zone. Where there are others it joins by
 * any of them; if nobody takes it in for ZONING_FOUND_NS the lowest id among them founds. Two that
 * did so at once meet (ZONING_MEET_NS), and one claim beats the other.
 *
 * A node is where and who its signed record says; whoever changes that begins anew. Threads: as the
 * swim object.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/gossip/letters.h"
#include "controlplane/maps/members.h"
#include "controlplane/zones/zone.h"

#define ZONING_ALONE_NS    (3 * NS_PER_S)     /* nobody has answered: there is nobody */
#define ZONING_FOUND_NS    (2 * NS_PER_S)     /* others are there, but take nobody in */
#define ZONING_FOUND_ALL   (10 * NS_PER_S)    /* nor does the one who should found */
#define ZONING_JOIN_NS     (300 * NS_PER_MS)  /* between two attempts */
#define ZONING_MEET_NS     (2 * NS_PER_S)     /* between two nodes of other zones to be asked */
#define ZONING_UNKNOWN_NS  (5 * NS_PER_S)     /* a mate whom the membership does not know */
#define ZONING_WATCH_NS    (100 * NS_PER_MS)  /* between two looks at lives and facts */
#define ZONING_DEADLINE_NS (1500 * NS_PER_MS) /* of a search */
#define ZONING_FOREIGN_NS  (60 * NS_PER_S)    /* no search is complete after another version */
#define ZONING_SEARCHES    8u

struct zoning_options {
    const struct config *config;
    const struct swim *swim;
    const struct members *members;
    struct letters *letters;
    uint64_t seed;
    /* A sealed datagram is to go out. */
    void (*send)(const struct in6_addr *address, uint16_t port, const void *data, size_t size,
                 void *user);
    /* A search has ended. */
    void (*found)(uint64_t ticket, const struct zone_query *query, const struct zone_result *result,
                  uint64_t took_ns, void *user);
    void *user;
};

struct zoning;

/* Heap; keeps all pointers. Returns 0 or -ENOMEM. */
int zoning_create(struct zoning **zoning, const struct zoning_options *options, uint64_t now_ns);
/* NULL is fine; searches under way end without a word. */
void zoning_destroy(struct zoning *zoning);

/* A letter of topic LETTER_ZONE. */
void zoning_input(struct zoning *zoning, const struct letter *letter, uint64_t now_ns);
void zoning_tick(struct zoning *zoning, uint64_t now_ns);
uint64_t zoning_next_ns(const struct zoning *zoning);

/* Begins a search; found() comes once, maybe from within. Returns 0, -EBUSY or -EINVAL. */
int zoning_search(struct zoning *zoning, const struct zone_query *query, uint64_t ticket,
                  uint64_t now_ns);

const struct zone *zoning_zone(const struct zoning *zoning);
