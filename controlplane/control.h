/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h - weftd's control thread: event loop, members and admin socket tied together. weftd.c
 * starts it and joins it to the packet path by the hooks; neither plane includes the other.
 * control.c: life and timing; control_mesh.c: the two ways to the members, beacons and gossip;
 * control_status.c: the status answer.
 *
 * Threads: control_create() and control_destroy() by one thread while control_run() is not running;
 * hooks are called by the thread in control_run(); control_watch(), control_unwatch() and
 * control_touch() by that thread (from hooks and callbacks) or before it runs; control_stop() by
 * any thread and by signal handlers, control_drain() likewise.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "controlplane/maps/members.h"
#include "schemas/base/clock.h"
#include "schemas/config.h"

#define CONTROL_PUBLISH_NS (20 * NS_PER_MS) /* between two on_members, and two early beacons */
#define CONTROL_TICK_NS    (100 * NS_PER_MS)
#define CONTROL_LEAVE_NS   (1 * NS_PER_S)  /* so long all have to hear the good-bye */
#define CONTROL_DRAIN_NS   (10 * NS_PER_S) /* so long requests under way have to end ... */
#define CONTROL_ALONE_NS   (3 * NS_PER_S)  /* ... where nobody else is told, as in a static mesh */

/* A connection between programs of two members, agreed on by sealed letters (gossip/ways.h): who
 * gets `fd`, connected TCP, non-blocking, closes it. `key` is this connection's alone. */
#define CONTROL_WAY_KEY_BYTES 32u
struct control_way {
    int status; /* on_way_done: 0, or -errno and no fd */
    int fd;
    uint16_t node; /* the other one */
    uint32_t model;
    uint32_t arithmetic;
    uint64_t tag; /* on_way_done: of control_way_want() */
    uint8_t key[CONTROL_WAY_KEY_BYTES];
};

/* Any hook may be NULL. */
struct control_hooks {
    /* Routing facts changed (at most every CONTROL_PUBLISH_NS; the first time at the start of
     * control_run()): build and publish a snapshot from `members`. */
    void (*on_members)(const struct members *members, uint64_t now_ns, void *user);
    /* Before beacons and at each tick: fill in the node's own load and models; zero-filled. */
    void (*local_facts)(struct members_facts *facts, void *user);
    /* Adds the packet path's part to the status answer: an object that has `node`, `members` and
     * an object `counters` already; more counters go in there. */
    void (*add_status)(json_t *status, void *user);
    /* Every CONTROL_TICK_NS. */
    void (*on_tick)(uint64_t now_ns, void *user);
    /* Draining begins: nobody must begin anything here any more. */
    void (*drain)(uint64_t now_ns, void *user);
    /* Are requests under way at this node's worker, or through this node? Asked while draining. */
    bool (*busy)(uint64_t now_ns, void *user);
    /* Another member asks for a way to a program here that serves the model with that arithmetic.
     * Returns 0, or -errno: why there is none. These three are needed together. */
    int (*way_taken)(uint32_t model, uint32_t arithmetic, void *user);
    /* One that was asked for has come. */
    void (*on_way)(const struct control_way *way, void *user);
    /* One that was wanted here stands, or will not. */
    void (*on_way_done)(const struct control_way *way, void *user);
    /* What control_drain() began has ended: the node may stop. */
    void (*on_drained)(void *user);
    void *user;
};

struct control;
struct keys; /* controlplane/keys/keys.h */

/* For a configuration with gossip, before anything is made of it: reads the keys (makes the
 * identity at the first start) and gives this node an id if it has none. `open_mesh`: do without a
 * mesh key if there is none, and warn. Without gossip it does nothing. Returns 0 or -errno, logged
 * with what to do. */
int control_prepare(struct config *config, struct keys *keys, bool open_mesh);

/* Opens the control port and the admin socket. `config` must outlive it, hooks and keys are copied;
 * `keys` are for gossip only. Heap. Returns 0 or -errno, logged with what to do. */
int control_create(struct control **control, const struct config *config, const struct keys *keys,
                   const struct control_hooks *hooks);

/* Runs in the calling thread until control_stop(). Returns 0 or -errno of the event loop. */
int control_run(struct control *control);

void control_stop(struct control *control);

/* Reads the mesh keys again, as they stand in their file now; if they cannot be used, it says so
 * and keeps those it has. Any thread and signal handlers. */
void control_reload(struct control *control);

/* Says good-bye to the mesh, so that nobody chooses this node any more, tells the packet path
 * (drain()), waits for what is under way, then calls on_drained(). */
void control_drain(struct control *control);

/* Removes the admin socket. NULL is fine. */
void control_destroy(struct control *control);

/* Calls `fn` while `fd` is readable or hung up; level-triggered, `fn` may unwatch and close it.
 * Returns 0, -EEXIST, -ENOSPC or -EBADF. */
int control_watch(struct control *control, int fd, void (*fn)(int fd, void *user), void *user);
void control_unwatch(struct control *control, int fd);

/* As loop_accept(), from a watched socket. */
int control_accept(struct control *control, int listen_fd);

/* Offers a session on the admin socket (admin.h): a command whose answer comes with a descriptor.
 * Before control_run(). Returns 0 or -ENOSPC. */
struct admin_session;
int control_offer(struct control *control, const struct admin_session *session);

/* Wants a way to that member's program for the model; on_way_done() tells, within seconds. Returns
 * 0, -ENOENT (no such member, or none that the policy lets have anything), -EBUSY, -ENOTSUP in a
 * static mesh. */
int control_way_want(struct control *control, uint16_t node, uint32_t model, uint32_t arithmetic,
                     uint64_t tag);

/* Can there be any? Returns 0, -ENOTSUP in a static mesh (its members have no keys to prove who
 * they are, or to seal anything with), or why the TCP port could not be opened. */
int control_way_open(const struct control *control);

/* Local facts changed: they are asked for and sent soon, at most every CONTROL_PUBLISH_NS. */
void control_touch(struct control *control);

/* The packet path waits for that node in vain: is it there? With gossip it is asked at once; in a
 * static mesh its beacons tell. The thread in control_run(). */
void control_ask(struct control *control, uint16_t node_id);

const struct members *control_members(const struct control *control);
