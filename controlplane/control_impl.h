/* SPDX-License-Identifier: Apache-2.0 */
/* control_impl.h - what the files of the control thread share; nobody else includes it. */
#pragma once

#include <stdbool.h>

#include "controlplane/admin/admin.h"
#include "controlplane/control.h"
#include "controlplane/gossip/decree.h"
#include "controlplane/gossip/gossip.h"
#include "controlplane/gossip/letters.h"
#include "controlplane/gossip/ways.h"
#include "controlplane/gossip/zoning.h"
#include "controlplane/loop/loop.h"
#include "controlplane/loop/udp.h"

#define CONTROL_WAY_CAME    16u /* without their ticket */
#define CONTROL_WAY_SOCKETS (CONTROL_WAY_CAME + WAYS_MAX)
#define WAY_SOCKET_CAME     UINT32_MAX

/* A TCP connection that is being made, or has not shown its ticket yet. */
struct way_socket {
    int fd; /* -1 = free */
    uint64_t end_ns;
    uint32_t index; /* of the way it is made for; WAY_SOCKET_CAME: it has come from outside */
};

struct control {
    const struct config *config;
    struct control_hooks hooks;
    struct loop *loop;
    struct members *members;
    struct gossip *gossip;  /* which then owns the members; NULL: beacons */
    struct letters letters; /* these three with gossip only */
    struct decree decree;
    struct zoning *zoning;
    struct admin *admin;
    int fd;       /* control port */
    int drain_fd; /* readable: control_drain() was called; likewise control_reload() */
    int reload_fd;
    int send_timer;
    int publish_timer;
    int touch_timer;
    int tick_timer;
    uint64_t started_ns;
    uint64_t published_version;
    uint64_t published_ns;
    uint64_t touched_ns;
    uint64_t drain_ns; /* when draining began; 0: it has not */
    bool drain_told;   /* others were told of it */
    bool leaving;      /* draining has begun */
    bool publish_armed;
    bool touch_armed;
    uint64_t send_failures;
    struct udp_datagram batch[UDP_BATCH]; /* received */
    struct udp_datagram going[UDP_BATCH]; /* being sent */
    struct swim_out out;
    struct udp_datagram letters_going[UDP_BATCH]; /* sealed, to be sent together */
    unsigned letters_going_count;
    struct {
        struct ways ways;
        int listen_fd; /* -errno: why there is none; -ENOTSUP without gossip */
        int timer;
        struct way_socket sockets[CONTROL_WAY_SOCKETS];
    } way;
};

/* ---- control.c ---- */
/* Publishes if anything changed, now or when the last time is long enough ago. */
void control_publish(struct control *control, uint64_t now_ns);

/* ---- control_mesh.c ---- */
/* The members table and what fills it. `keys` are for gossip. Returns 0 or -errno. */
int mesh_create(struct control *control, const struct keys *keys);
void mesh_destroy(struct control *control);
/* Asks for the node's own facts; `urgent`: beacons shall go out at once (gossip sees by itself what
 * cannot wait). */
void mesh_facts_take(struct control *control, bool urgent, uint64_t now_ns);
/* Sends what is due and arms the timer for what comes next. */
void mesh_send(struct control *control, uint64_t now_ns);
/* Takes what has come on the control port. */
void mesh_receive(struct control *control, uint64_t now_ns);
/* Reads the mesh keys anew. */
void mesh_reload(struct control *control);
/* The answer to `join`: calls a node that no file names. A new reference. */
json_t *mesh_join(struct control *control, const json_t *request);
/* Says good-bye. False: there is nobody who could be told. */
bool mesh_leave(struct control *control, uint64_t now_ns);

/* ---- control_zone.c ---- */
/* What goes by letter: zones. With gossip, after it. Returns 0 or -errno. */
int letters_create(struct control *control, const struct keys *keys);
void letters_destroy(struct control *control);
/* Offers `query` on the admin socket. */
int zone_query_offer(struct control *control);
void letters_receive(struct control *control, const void *data, size_t size, uint64_t now_ns);
/* Does what is due; returns when there is something next. */
uint64_t letters_tick(struct control *control, uint64_t now_ns);
/* Sends one, sealed; for what is not a zone's. */
void letter_to(struct control *control, uint32_t slot, enum letter_topic topic, const void *data,
               size_t size);
void letters_flush(struct control *control);
/* This node's zone in the status. */
json_t *zone_status(const struct control *control);

/* ---- control_policy.c ---- */
/* With gossip, after it. Returns 0 or -errno, logged. */
int control_policy_create(struct control *control);
/* Reads the policy's file; what cannot be taken is logged, and the policy in force stays. */
void control_policy_load(struct control *control);
void control_policy_receive(struct control *control, const struct letter *letter, uint64_t now_ns);
void control_policy_tick(struct control *control, uint64_t now_ns);
json_t *control_policy_status(const struct control *control);

/* ---- control_way.c ---- */
/* Before anything else. */
void control_way_init(struct control *control);
/* With the loop and the members. Returns 0 or -errno. */
int control_way_create(struct control *control);
void control_way_destroy(struct control *control);
void control_way_receive(struct control *control, const struct letter *letter, uint64_t now_ns);

/* ---- control_status.c ---- */
json_t *control_status(struct control *control);
json_t *control_member_json(const struct members *members, const struct member *member,
                            uint64_t now_ns);
