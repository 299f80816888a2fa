/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stages.h - the packet path as functions over bursts: parse, classify, select, rewrite. Pure: they
 * see packets, the core's own state, one table and the time; they touch no device. dataplane/core.c
 * calls them in this order on every burst; between select and rewrite it hands ROUTE_DELIVER
 * packets to the local worker and gives back those that it could not take to stage_second_chance().
 */
#pragma once

#include <stdatomic.h>

#include "dataplane/route/carried.h"
#include "dataplane/route/choose.h"
#include "dataplane/route/homes.h"
#include "dataplane/route/packet.h"
#include "dataplane/route/prefixes.h"
#include "dataplane/route/seal.h"

/* Stages take any number of packets and work on so many together. */
#define ROUTE_BURST_MAX   32u
#define ROUTE_PINS        4096u /* a power of two */
#define ROUTE_PIN_LIFE_NS UINT64_C(30000000000)

/* Keeps the fragments of one request, and its repetitions, on one node. Direct-mapped: a lost pin
 * costs a second choice, nothing else. Node ids, so that a pin outlives tables. To a node that is
 * suspected it holds only if that node has answered: until then the request is placed anew. */
struct route_pin {
    uint64_t conn_id;
    uint64_t made_ns;
    uint32_t req_seq;
    uint16_t node;
    uint16_t alternates[ROUTE_ALTERNATES];
    uint16_t epoch; /* of the table that it was last checked against */
    bool answered;  /* by `node`, through this core */
};

/* One writer (the lcore), any reader. */
typedef _Atomic uint64_t route_counter;

struct route_counters {
    route_counter received;
    route_counter from_clients; /* requests' datagrams taken in as ingress */
    route_counter chosen;       /* new requests placed */
    route_counter relayed;      /* datagrams sent on to another node */
    route_counter delivered;    /* datagrams for the local worker */
    route_counter returned;     /* datagrams sent to clients */
    route_counter prefix_told;  /* of those chosen, how many told how their prompt begins, ... */
    route_counter prefix_known; /* ... and went where it has been computed */
    route_counter second_chance;
    route_counter congestion; /* datagrams that came with a mark of it */
    route_counter drops[ROUTE_DROP_COUNT];
};

struct route_burst; /* stages.c */

/* Addresses of the host that datagrams are taken at: those that the kernel has now. */
struct route_answers {
    uint32_t addr; /* 0 = none */
    bool lacks_v4; /* the host has one, the kernel does not */
    bool lacks_v6;
    struct in6_addr addr6; /* all zero = none */
};

/* What one lcore owns. */
struct route_core {
    struct route_host host;
    struct route_answers answers;
    struct seal seal;
    struct route_load *loads;  /* by node id, 65,536 entries */
    struct route_pin *pins;    /* ROUTE_PINS entries */
    struct homes *homes;       /* of sessions */
    struct prefixes *prefixes; /* who has what; the control thread writes, too */
    struct scan *scan;         /* scratch of a choice */
    struct route_burst *burst; /* scratch of a burst */
    struct carried carried;
    /* Control thread and lcore: the id of a node that has not answered what is asked of it again;
     * WEFT_NODE_NONE = none since somebody looked. */
    _Atomic uint16_t missed;
    struct route_counters counters;
};

/* Heap; returns 0 or -ENOMEM. Free with route_core_destroy(). All cores of a node are given the
 * same `master`. */
int route_core_create(struct route_core **core, const struct route_host *host,
                      const struct seal_master *master, uint64_t now_ns);
void route_core_destroy(struct route_core *core);

/* Which of the host's own addresses may be used from now on; both at first. Datagrams to another
 * one are not taken, those that would leave from it are let go of (no_address). */
void route_core_answer(struct route_core *core, bool v4, bool v6);

static inline void route_count(route_counter *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Frames from the network: lengths, headers, version and fields that contradict each other. */
void stage_parse(struct route_core *core, struct route_packet *packets, uint32_t count);

/* The same for datagrams out of the local worker's ring, which lie at ROUTE_WEFT_OFFSET of the
 * view; they have no headers yet. */
void stage_parse_worker(struct route_core *core, struct route_packet *packets, uint32_t count);

/* The same for datagrams of local clients: the node itself has put headers in front
 * (dataplane/local.h), with a source that no frame from the network may have. */
void stage_parse_local(struct route_core *core, struct route_packet *packets, uint32_t count);

/* Who sent it, and may it come this way? Replies get their direction here. `table` may be NULL. */
void stage_classify(struct route_core *core, const struct route_table *table,
                    struct route_packet *packets, uint32_t count, uint64_t now_ns);

/* Requests get a node, or their refusal. */
void stage_select(struct route_core *core, const struct route_table *table,
                  struct route_packet *packets, uint32_t count, uint64_t now_ns);

/* The local worker could not take this packet (`why` is the reason to count if nobody can): sends
 * it on to its next alternate, or turns it into a refusal. */
void stage_second_chance(struct route_core *core, const struct route_table *table,
                         struct route_packet *packet, enum route_drop why, int status);

/* Addresses and checksums of everything to be sent. */
void stage_rewrite(struct route_core *core, const struct route_table *table,
                   struct route_packet *packets, uint32_t count);

/* Turns the packet into an answer of `type` with `payload` (up to 16 bytes), sent back towards the
 * client: straight to the sender on the first hop, else through the origin. */
void route_answer(struct route_core *core, const struct route_table *table,
                  struct route_packet *packet, enum weft_type type, const void *payload,
                  uint32_t size);

/* Lets go of the packet and counts it. */
void route_drop(struct route_core *core, struct route_packet *packet, enum route_drop why);

/* The request header in the units of the table. */
struct route_query route_query_of(const struct weft_req_hdr *h);
