/* SPDX-License-Identifier: Apache-2.0 */
/*
 * gossip.h - a node's membership by gossip: swim/ says who is there, maps/ what each can do and how
 * far it is, and this ties them to the members table that the packet path is built from. Sans-I/O;
 * controlplane/control.c gives it datagrams and the time and sends what it writes.
 *
 * Time: any monotonic clock. Threads: none of its own; one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "controlplane/maps/roster.h"
#include "controlplane/swim/swim.h"
#include "schemas/config.h"

#define GOSSIP_MEMBERS_MAX 4096u
/* The table follows what is known at most this often. */
#define GOSSIP_REFRESH_NS (20 * NS_PER_MS)
/* Own state: told so long after the last time if something has changed that bars or opens the node
 * for requests; if only figures have changed (whoever sends requests learns those from the
 * replies); if nothing has. */
#define GOSSIP_URGENT_NS (100 * NS_PER_MS)
#define GOSSIP_STATE_NS  (1 * NS_PER_S)
#define GOSSIP_REPEAT_NS (10 * NS_PER_S)
#define GOSSIP_KEYS_MAX  4u
#define GOSSIP_CLASH_NS  (10 * NS_PER_S) /* so long whoever should give way may wait */

struct gossip;

struct gossip_options {
    const struct config *config; /* with config->gossip, members[self].id set; must outlive it */
    uint8_t entropy[SWIM_KEY_BYTES];                    /* secret, random, new at each start */
    uint8_t sign_seed[SWIM_KEY_BYTES];                  /* secret: the node's identity */
    uint8_t mesh_keys[GOSSIP_KEYS_MAX][SWIM_KEY_BYTES]; /* secret; the first seals, all open */
    uint32_t mesh_key_count;                            /* at least 1 */
    uint64_t incarnation_ms;                            /* wall clock */
    bool id_derived; /* the id follows from the identity: another may be taken if it clashes */
};

#define GOSSIP_COUNTERS(COUNTER)                                                                   \
    COUNTER(port_foreign, "members that use another data port: not in the table")                  \
    COUNTER(family_foreign, "members whose address is of the other family: not in the table")      \
    COUNTER(address_clashes, "members at the address of another one that lives")                   \
    COUNTER(table_full, "members for whom there was no room")                                      \
    COUNTER(states_malformed, "states that cannot be read")                                        \
    COUNTER(states_told, "own states told")                                                        \
    COUNTER(models_untold, "own models whose names found no room")                                 \
    COUNTER(id_clashes, "another member has, or wants, this node's id")                            \
    COUNTER(id_changes, "this node has taken another id")

struct gossip_counters {
#define GOSSIP_COUNTER_DECLARE_(name, text) uint64_t name;
    GOSSIP_COUNTERS(GOSSIP_COUNTER_DECLARE_)
#undef GOSSIP_COUNTER_DECLARE_
};

/* The id that follows from an identity: the first choice, or the `attempt`-th other one. Below
 * WEFT_NODE_NONE. */
uint16_t gossip_id_of(const uint8_t sign_seed[SWIM_KEY_BYTES], uint32_t attempt);

/* Options are copied; wipe the secrets in yours. Returns 0, -EINVAL or -ENOMEM. */
int gossip_create(struct gossip **gossip, const struct gossip_options *options, uint64_t now_ns);
/* Wipes keys. NULL is fine. */
void gossip_destroy(struct gossip *gossip);

/* These two fill `out` from the start; send its datagrams, its events are dealt with. */
void gossip_input(struct gossip *gossip, const struct in6_addr *from, uint16_t port,
                  const void *data, size_t size, uint64_t now_ns, struct swim_out *out);
void gossip_tick(struct gossip *gossip, uint64_t now_ns, struct swim_out *out);
uint64_t gossip_next_ns(const struct gossip *gossip);

/* This node's own load and models. */
void gossip_set_local(struct gossip *gossip, const struct members_facts *facts);

/* The mesh keys from now on: the first seals, all open. Returns 0, -EINVAL (none, or too many), or
 * -ENOSPC: too many others at once; those that are taken out are out, nothing else has changed. */
int gossip_set_keys(struct gossip *gossip, uint8_t (*keys)[SWIM_KEY_BYTES], uint32_t count);

/* Calls a node that no file names, and remembers it; see swim_join(). */
int gossip_join(struct gossip *gossip, const struct config_seed *seed, struct swim_out *out);

/* Asks the member with that id now, out of its turn, whether it is there. Fills `out` from the
 * start.
 */
void gossip_ask(struct gossip *gossip, uint16_t id, uint64_t now_ns, struct swim_out *out);

/* Says good-bye; go on for a second, so that all hear it. */
void gossip_leave(struct gossip *gossip, uint64_t now_ns, struct swim_out *out);
bool gossip_has_left(const struct gossip *gossip);

/* What members say of themselves counts as far as the policy grants it, from now on. Kept. */
struct decree;
void gossip_set_decree(struct gossip *gossip, const struct decree *decree);

/* What the packet path and the status are built from; valid as long as `gossip`. */
struct members *gossip_members(struct gossip *gossip);
const struct swim *gossip_swim(const struct gossip *gossip);
const struct gossip_counters *gossip_counters(const struct gossip *gossip);
