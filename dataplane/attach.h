/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.h - who attaches to this node: its worker and local clients, from their hello on the
 * socket `sockets.port` until the lcore has released their ports. Control thread; part of the
 * program (glue.c), port/ has the handshakes.
 *
 * Whoever may connect may attach: the socket's file belongs to the user and group that weftd runs
 * as, mode 0660. Their process and user are what the kernel says, not what they say.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "controlplane/control.h"
#include "dataplane/core.h"
#include "schemas/config.h"

struct attach;

/* Opens the socket. Keeps the pointers; `core` (lcore 0) owns the ports, `doors` gets who asks for
 * ways. Returns 0 or -errno, logged. */
struct doors;
int attach_create(struct attach **attach, const struct config *config, struct core *core,
                  struct doors *doors);

/* Neither thread may run any more. NULL is fine. */
void attach_destroy(struct attach *attach);

/* Starts watching the socket. */
int attach_start(struct attach *attach, struct control *control);

/* Now and then: frees what the lcore has released, closes what says no hello, tells the members of
 * the worker's load. */
void attach_tick(struct attach *attach, uint64_t now_ns);

/* What the local workers can do, together. */
void attach_facts(struct attach *attach, struct members_facts *facts);

/* The node takes no new requests any more: the mesh is told so. */
void attach_drain(struct attach *attach);

/* The same, and it may be taken back: the node stays a member, and what its workers know of
 * sessions can be fetched. */
void attach_rest(struct attach *attach, bool rests);

/* Has the worker less room than it had when it had most? Then requests are under way at it. */
bool attach_busy(const struct attach *attach);

/* Adds `workers` and `clients` to the status answer. */
void attach_status(const struct attach *attach, json_t *status);
