/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers_io.h - /v1/peers and /v1/compute/peers: who may register, the files, and telling the node.
 *
 * Registering a node has the node next to the gateway call that address (`join` on its admin
 * socket): it becomes a member if it holds the mesh's key and gossips; the mesh remembers it then.
 * Registering a service makes nothing but the list and, with --state, its file.
 *
 * Who may: without --keys somebody on this machine that is no page in a browser; with --keys, and
 * from elsewhere always, the holder of a key with the scope `register`.
 */
#pragma once

#include "dataplane/gateway/peers.h"
#include "dataplane/gateway/question.h"

#define PEERS_NODES_FILE    "peers.json"
#define PEERS_SERVICES_FILE "compute-peers.json"

struct exchange;
struct gateway;

struct peers_io {
    struct peers peers;
    struct question join; /* under way */
    char asking[PEERS_ID_MAX];
    uint64_t expire_ns; /* when to look for what is over */
};

/* Reads the files of --state, if there is one. Returns 0 or -errno, having said why. */
int peers_io_open(struct gateway *g);
void peers_io_close(struct gateway *g);
/* Tells the node what is due, takes its answer. */
void peers_io_turn(struct gateway *g, uint64_t now_ns);
uint64_t peers_io_due_ns(const struct gateway *g);

/* What routes.c has for them. */
void peers_answer(struct exchange *x);
void peers_register(struct exchange *x);
void peers_remove(struct exchange *x);
void services_list(struct exchange *x);
void services_register(struct exchange *x);
void services_remove(struct exchange *x);
