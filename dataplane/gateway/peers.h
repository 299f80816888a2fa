/* SPDX-License-Identifier: Apache-2.0 */
/*
 * peers.h - the two registries, kept apart: nodes that were named to be called (/v1/peers), and
 * services that answer OpenAI's API elsewhere (/v1/compute/peers). What is in one says nothing
 * about the other. Pure: JSON in, JSON out, the time is told; peers_list.c writes what a client
 * sees, peers_io.c does the asking and the files.
 *
 * Both are bounded and keyed by an id that follows from what was registered: the same again takes
 * the same place. Files have the same objects that a client sends, so one reader checks both.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/gateway/buf.h"
#include "dataplane/gateway/error.h"

#define PEERS_MAX            256u /* of either kind */
#define PEERS_NODE_MAX       80u
#define PEERS_URL_MAX        256u
#define PEERS_MODELS_MAX     8u
#define PEERS_MODEL_NAME_MAX 64u
#define PEERS_BY_MAX         64u
#define PEERS_ID_MAX         17u
#define PEERS_TTL_MAX        (30u * 86400u)
#define PEERS_TELL_SOON_NS   3000000000ull  /* the node has been told and has no answer yet */
#define PEERS_TELL_AGAIN_NS  30000000000ull /* it knows it, or will not have it */

/* How it stands with a node that was named. */
enum peer_state { PEER_NEW, PEER_CALLED, PEER_MEMBER, PEER_REFUSED };

struct peer_node {
    char id[PEERS_ID_MAX];
    char node[PEERS_NODE_MAX]; /* "ADDRESS" or "ADDRESS:PORT" of its control plane */
    char by[PEERS_BY_MAX];     /* name of the key; "" = somebody on this machine */
    uint64_t since_s;          /* Unix time */
    enum peer_state state;
    char reason[96];  /* REFUSED */
    uint64_t tell_ns; /* when the node next to the gateway is to be told again */
};

struct peer_service {
    char id[PEERS_ID_MAX];
    char url[PEERS_URL_MAX];
    char node[PEERS_NODE_MAX]; /* whose it is, as it says; "" = it does not */
    char by[PEERS_BY_MAX];
    char models[PEERS_MODELS_MAX][PEERS_MODEL_NAME_MAX];
    uint32_t model_count; /* 1.. */
    uint32_t tags;        /* WEFT_TAG_*: what it promises; tags.def */
    char jurisdiction[3]; /* "DE"; "" = not said */
    bool realtime;        /* it has /v1/realtime as well */
    bool has_load;
    uint32_t room;
    uint32_t queue_us;
    uint64_t since_s;
    uint64_t seen_s; /* registered last */
    uint32_t ttl_s;  /* forgotten after that; 0 = never */
};

struct peers {
    struct peer_node *nodes; /* heap */
    uint32_t node_count;
    struct peer_service *services; /* heap */
    uint32_t service_count;
};

void gateway_peers_deinit(struct peers *p);

/* Takes a body of POST /v1/peers/register, {"node":"ADDRESS[:PORT]"}, or one of POST
 * /v1/compute/peers. Returns the entry, new or as it was, or NULL with the error set. The pointer
 * is good until the next call. */
struct peer_node *peers_add_node(struct peers *p, const json_t *body, const char *by,
                                 uint64_t now_s, struct api_error *error);
struct peer_service *peers_add_service(struct peers *p, const json_t *body, const char *by,
                                       uint64_t now_s, struct api_error *error);
/* False: there is none. */
bool peers_drop_node(struct peers *p, const char *id);
bool peers_drop_service(struct peers *p, const char *id);
/* Forgets services whose time is over. Was there one? */
bool peers_expire(struct peers *p, uint64_t now_s);

/* The node that is due to be told of, NULL = none; and when that will be. */
struct peer_node *peers_due(struct peers *p, uint64_t now_ns);
uint64_t peers_due_ns(const struct peers *p);
/* The node's answer to `join`, or NULL: it gave none. */
void peers_told(struct peers *p, const char *id, const json_t *answer, uint64_t now_ns);

/* Files: an array of what can be given to peers_add_*() with `by` and `since` besides. */
void peers_save_nodes(const struct peers *p, struct buf *out);
void peers_save_services(const struct peers *p, struct buf *out);
/* Adds what a file has. False: it is none, or has what cannot be; the error says which. */
bool peers_load_nodes(struct peers *p, const json_t *file, struct api_error *error);
bool peers_load_services(struct peers *p, const json_t *file, struct api_error *error);

/* ---- peers_list.c: what a client sees; `status` is the node's, may be NULL ---- */
void peers_write_nodes(const struct peers *p, const json_t *status, struct buf *out);
void peers_write_services(const struct peers *p, const json_t *status, uint64_t now_s,
                          struct buf *out);
/* "tags":[...],"jurisdiction":"DE" */
void peers_write_promises(const struct peer_service *service, struct buf *out);
/* One entry, as the lists have it. */
void peers_write_node(const struct peer_node *node, struct buf *out);
void peers_write_service(const struct peer_service *service, uint64_t now_s, struct buf *out);
