/* SPDX-License-Identifier: Apache-2.0 */
/*
 * paths.h - the node's place on its network as the kernel has it, followed as it changes: link
 * addresses of the next hops to all members, which of the node's own addresses are there, and what
 * the operator sets on the interface. Tells the lcores (core_place()) and the port (nic_follow());
 * glue.c, which owns it, makes tables of the rest. Control thread only.
 */
#pragma once

#include <jansson.h>

#include "controlplane/control.h"
#include "dataplane/core.h"
#include "schemas/config.h"

struct paths;

/* Keeps all pointers. `changed` is called with `user` when hops or reachability have. Heap. Returns
 * 0 or -errno, logged. */
int paths_create(struct paths **paths, const struct config *config, struct core *const *cores,
                 void (*changed)(uint64_t now_ns, void *user), void *user);
/* NULL is fine. */
void paths_destroy(struct paths *paths);

/* Starts watching; what is so already is told at once. Returns 0 or -errno. */
int paths_start(struct paths *paths, struct control *control);

/* At each of the control thread's ticks. */
void paths_tick(struct paths *paths, uint64_t now_ns);

/* The members are others now, or some have come or gone to life. What is known of the way to those
 * who stay is kept. Returns 0 or -ENOMEM, and then all is as it was. */
int paths_follow(struct paths *paths, const struct members *members);

/* The way to the member at `index` of the members last followed. False: none now. `mac` is then
 * filled in as last known. */
bool paths_hop(const struct paths *paths, uint32_t index, uint8_t mac[6]);

/* Adds `interface` and `answers` to the status of the port. */
void paths_status(const struct paths *paths, json_t *status);
