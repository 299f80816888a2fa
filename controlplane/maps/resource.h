/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resource.h - what each node of the zone has to give, how old that is, and what this node itself
 * has promised away since. Sans-I/O.
 *
 * Messages: once a second a node sends what has changed since its last whole message (cumulative,
 * so that a lost one costs nothing), every RESOURCE_WHOLE_EVERY th is whole. A message carries its
 * age; whoever passes it on adds how long it was held and the way it took.
 *
 * Reading: a request that this node sends counts at once, until a report covers it (made after the
 * request must have arrived) or it ends. The queue grows with the age of the report, so that of two
 * equal nodes the one heard last is preferred; a stale node has room for one request, to find out,
 * and one not heard for RESOURCE_EXPIRE_NS has none.
 *
 * Memory: fixed at creation, about 330 bytes a node; the node heard longest ago makes room.
 * Threads: one at a time. Time: any monotonic clock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/resource.def"
#include "controlplane/maps/slots.h"
#include "schemas/base/clock.h"

#define RESOURCE_PERIOD_NS     (1 * NS_PER_S)
#define RESOURCE_FRESH_NS      (3 * RESOURCE_PERIOD_NS / 2) /* no penalty: one message on its way */
#define RESOURCE_STALE_NS      (3 * RESOURCE_PERIOD_NS)
#define RESOURCE_EXPIRE_NS     (30 * NS_PER_S)
#define RESOURCE_PENALTY_PARTS 4u /* the queue grows by one us for so many us of age */
#define RESOURCE_WHOLE_EVERY   10u
#define RESOURCE_CREDITS       8u               /* groups of requests under way, per node */
#define RESOURCE_CREDIT_NS     (10 * NS_PER_MS) /* sent this close together they are one group */
#define RESOURCE_MODELS_MAX    16u
#define RESOURCE_WIRE_MAX      152u

struct resource_facts {
#define RESOURCE_DECLARE_(bit, type, name, text) type name;
    RESOURCE_FIELDS(RESOURCE_DECLARE_)
#undef RESOURCE_DECLARE_
    uint32_t model_count;
    uint32_t models[RESOURCE_MODELS_MAX]; /* weft_model_id(); beyond model_count zero */
};

enum resource_freshness {
    RESOURCE_UNKNOWN,
    RESOURCE_FRESH,
    RESOURCE_AGING,
    RESOURCE_STALE,
    RESOURCE_EXPIRED
};

/* What a router should reckon with. */
struct resource_view {
    enum resource_freshness freshness;
    uint64_t age_ns;             /* since the node made the report */
    struct resource_facts facts; /* room, queue and memory after credits and penalty */
    uint32_t in_flight;          /* requests of this node that no report covers yet */
};

struct resource_credit {
    uint64_t sent_ns; /* of the newest in the group */
    uint32_t count;
    uint32_t vram_mib;
    uint64_t work_us;
};

struct resource_entry {
    uint64_t incarnation;
    uint32_t version;
    uint32_t whole_version;
    uint64_t reported_ns; /* when the node made the newest report, by this node's clock */
    struct resource_facts facts;
    struct resource_facts whole;
    struct resource_credit credits[RESOURCE_CREDITS]; /* oldest first */
    uint32_t credit_count;
};

struct resource_map {
    struct slots slots;
    struct resource_entry *entries;
};

/* ---- the node's own side ---- */

struct resource_source {
    uint32_t node;
    uint64_t incarnation;
    uint32_t version;
    uint32_t whole_version;
    struct resource_facts whole;
};

/* `incarnation` must be larger at each start of the node. */
void resource_source_init(struct resource_source *source, uint32_t node, uint64_t incarnation);

/* Writes the next message, whole if `whole` or if it is time. Returns its length. */
size_t resource_publish(struct resource_source *source, const struct resource_facts *facts,
                        bool whole, uint8_t out[RESOURCE_WIRE_MAX]);

/* ---- others ---- */

enum resource_verdict {
    RESOURCE_TAKEN,
    RESOURCE_OLD,        /* known already */
    RESOURCE_NEED_WHOLE, /* says what changed since a message that was not heard: ask for a whole */
    RESOURCE_MALFORMED
};

/* Returns 0, -EINVAL or -ENOMEM. */
int resource_init(struct resource_map *map, uint32_t nodes_max, uint64_t seed);
void resource_deinit(struct resource_map *map);

/* Takes a message that was under way for `path_ns` since its sender's hand. *node: whose it is,
 * unless malformed. The caller has checked that it comes from a member. */
enum resource_verdict resource_receive(struct resource_map *map, const void *data, size_t size,
                                       uint64_t path_ns, uint64_t now_ns, uint32_t *node);

/* For whoever passes a message on: adds to its age. False: malformed. */
bool resource_message_age(uint8_t *data, size_t size, uint64_t held_ns);

/* A reply brought the node's load with it. */
void resource_observe(struct resource_map *map, uint32_t node, uint32_t room, uint32_t queue_us,
                      uint32_t free_vram_mib, uint64_t reported_ns);

/* This node sends a request there: it counts from now. */
void resource_credit(struct resource_map *map, uint32_t node, uint32_t work_us, uint32_t vram_mib,
                     uint64_t now_ns);

/* That request, sent at `sent_ns`, has ended. */
void resource_release(struct resource_map *map, uint32_t node, uint32_t work_us, uint32_t vram_mib,
                      uint64_t sent_ns);

/* The node is gone. */
void resource_forget(struct resource_map *map, uint32_t node);

struct resource_view resource_of(const struct resource_map *map, uint32_t node, uint64_t now_ns);

/* ---- wire (resource_wire.c) ---- */

struct resource_message {
    uint32_t node;
    uint64_t incarnation;
    uint32_t version;
    uint32_t whole_version; /* equal to version: a whole message */
    uint64_t age_ns;
    uint32_t mask;               /* bits of RESOURCE_FIELDS, RESOURCE_MODELS_BIT */
    struct resource_facts facts; /* what the mask names; the rest is zero */
};

#define RESOURCE_MODELS_BIT (UINT32_C(1) << 15)
#define RESOURCE_MASK_ALL   (RESOURCE_MODELS_BIT | ((UINT32_C(1) << RESOURCE_FIELD_COUNT) - 1))

size_t resource_write(const struct resource_message *message, uint8_t out[RESOURCE_WIRE_MAX]);

/* False: not a message that resource_write() can have written. */
bool resource_read(struct resource_message *message, const void *data, size_t size);

/* Bits of the fields that differ, and `to` takes over those of `mask`. */
uint32_t resource_differ(const struct resource_facts *a, const struct resource_facts *b);
void resource_copy(struct resource_facts *to, const struct resource_facts *from, uint32_t mask);
