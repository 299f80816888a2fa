/* SPDX-License-Identifier: Apache-2.0 */
/* internal.h - what zone.c, zone_input.c, upkeep.c and reshape.c share of one zone. */
#pragma once

#include "controlplane/zones/zone.h"

/* False: to one who is known to be gone. */
bool zone_send(struct zone *zone, const struct zone_io *io, const struct zone_contact *to,
               struct zone_msg *msg);
/* To every live member of the claim. */
void zone_broadcast(struct zone *zone, const struct zone_io *io, struct zone_msg *msg,
                    uint64_t now_ns);

struct zone_member *zone_member_find(struct zone *zone, uint32_t node);
/* Takes a record if it is news; `age_ms` is how old it is already. */
void zone_member_put(struct zone *zone, const struct zone_record *record, uint32_t age_ms,
                     uint64_t now_ns);
bool zone_member_live(const struct zone *zone, const struct zone_member *member, uint64_t now_ns);
/* Remembers a node that fell silent: after a partition it is the way back. */
void zone_lost_add(struct zone *zone, const struct zone_contact *contact);
void zone_members_expire(struct zone *zone, uint64_t now_ns);
void zone_own_update(struct zone *zone, uint64_t now_ns);

/* The claim becomes `claim`; what this node knows of records and view is kept in step. `split`: all
 * that is in the part given up is known, if it was synced. */
void zone_claim_set(struct zone *zone, struct zone_range claim, uint32_t epoch, bool split,
                    uint64_t now_ns);
/* Learns from the claim in a header. */
void zone_claim_heard(struct zone *zone, const struct zone_msg *msg,
                      const struct zone_contact *from, uint64_t now_ns, const struct zone_io *io);

/* Begins to fetch all records of the claim from a member. */
void zone_fetch_begin(struct zone *zone, const struct zone_contact *from, struct zone_range range,
                      uint64_t now_ns, const struct zone_io *io);
void zone_fetch_heard(struct zone *zone, const struct zone_msg *msg, uint64_t now_ns,
                      const struct zone_io *io);
/* How long to wait for a node's answer to a question of the maintenance. */
uint64_t zone_patience_ns(const struct zone *zone, const struct zone_contact *to);
void zone_upkeep(struct zone *zone, uint64_t now_ns, const struct zone_io *io);
void zone_join_step(struct zone *zone, const struct zone_contact *to, uint64_t now_ns,
                    const struct zone_io *io);
void zone_view_heard(struct zone *zone, const struct zone_msg *msg, const struct zone_contact *from,
                     uint64_t now_ns, const struct zone_io *io);

void zone_reshape_tick(struct zone *zone, uint64_t now_ns, const struct zone_io *io);
void zone_reshape_heard(struct zone *zone, const struct zone_msg *msg,
                        const struct zone_contact *from, uint64_t now_ns, const struct zone_io *io);
void zone_reshape_probed(struct zone *zone, const struct zone_msg *msg,
                         const struct zone_contact *from, uint64_t now_ns,
                         const struct zone_io *io);
void zone_searches_poll(struct zone *zone, uint64_t now_ns, const struct zone_io *io);
/* What this node can answer itself, and what is left to be asked; others may do it, handing it on
 * `hops` times (0: nobody does). */
void zone_search_start(struct zone *zone, struct zone_search *search,
                       const struct zone_query *query, uint32_t hops, uint64_t now_ns,
                       uint64_t deadline_ns);
void zone_search_step(struct zone *zone, struct zone_search *search, uint64_t now_ns,
                      const struct zone_io *io);

/* Does a search for somebody else; false: no room. */
bool zone_duty_take(struct zone *zone, const struct zone_msg *ask, const struct zone_contact *from,
                    uint64_t now_ns, const struct zone_io *io);
void zone_duties_poll(struct zone *zone, uint64_t now_ns, const struct zone_io *io);
