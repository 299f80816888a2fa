/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scene.h - one node's packet path with something to do: a core, a table of nodes at random places
 * and frames of each kind that reaches an ingress. Everything is drawn from a seed. Used by path.c,
 * residence.c and count.c.
 */
#pragma once

#include "dataplane/route/stages.h"
#include "schemas/base/rng.h"

#define SCENE_TEMPLATES 256u /* clients; a power of two */
#define SCENE_BURST     32u
/* Room that the overlay counts against is advertised anew after this many packets, as replies do on
 * a real node. */
#define SCENE_REFRESH 32768u

enum scene_kind {
    SCENE_NEW,     /* first datagram of a request of a proven client: a choice among all nodes */
    SCENE_HERE,    /* the same without a place of its own: the node's counts (table.h's rows) */
    SCENE_SESSION, /* as SCENE_NEW, of a session whose last request a node has served */
    SCENE_PINNED,  /* a later datagram of it */
    SCENE_COOKIE,  /* a client not proven yet: gets its cookie */
    SCENE_REPLY,   /* an answer on its way back to its client */
    SCENE_KINDS
};

struct scene {
    struct route_core *core;
    struct route_table *table;
    enum scene_kind kind;
    uint32_t start;     /* of every frame in its view */
    uint32_t frame_len; /* of every frame */
    uint32_t head_len;  /* of it, what the stages may change */
    uint32_t next;
    uint32_t req_seq;
    uint64_t now_ns;
    struct route_frame templates[SCENE_TEMPLATES];
};

const char *scene_kind_name(enum scene_kind kind);

/* Scenes made from now on speak IPv6, all of them; IPv4 unless said. */
void scene_use_ip6(bool ip6);

/* Heap. `candidates` nodes have the model, this node has none; `payload` bytes follow each header.
 * `now_ns` is the time that the stages will be told. Returns 0 or -ENOMEM. */
int scene_create(struct scene **scene, enum scene_kind kind, uint32_t candidates, uint32_t payload,
                 uint64_t seed, uint64_t now_ns);
void scene_destroy(struct scene *scene);

/* Nodes 1..count at random places; all but node 1 have MODEL_A (tests/unit/route/fixture.h). */
struct route_table *scene_table(struct rng *rng, uint32_t count);

/* Writes the next frame to `data`, payload and all: once for each buffer. */
void scene_fill_whole(struct scene *scene, void *data);
/* Writes the next frame's headers, which is all that the stages change. */
void scene_fill(struct scene *scene, void *data);

/* All stages over up to SCENE_BURST packets, as dataplane/core.c runs them. */
void scene_run(struct scene *scene, struct route_packet *packets, uint32_t count, uint64_t now_ns);

/* Forgets what has been assigned to the nodes. */
void scene_refresh(struct scene *scene);
