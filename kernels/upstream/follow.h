/* SPDX-License-Identifier: Apache-2.0 */
/*
 * follow.h - keeps the relays' endpoints in step with a gateway's registry of services: asks it
 * every FOLLOW_NS, gives each relay those that have its model and promise what the node does
 * (registry.h), and takes away those that are no longer there. With `all` it also says which models
 * there are (served_offer()). While the registry does not answer all stays as it is: the services'
 * own health is the relays' concern.
 *
 * Never followed: a service that is the registry itself, one that INFERENCE_ALLOWED_PROVIDERS
 * forbids (a registered one has no name, so only `local` lets it through), and more than there is
 * room for. No key is ever sent to a registered service.
 *
 * Threads: one, the relays'.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/upstream/served.h"
#include "schemas/base/clock.h"

#define FOLLOW_NS         NS_PER_S
#define FOLLOW_NODE_NS    (30 * NS_PER_S) /* what the node promises is asked again */
#define FOLLOW_TIMEOUT_MS 5000L
#define FOLLOW_LIST_MAX   (4u << 20) /* bytes of an answer */

struct follow;

struct follow_options {
    const struct where *registry; /* the gateway, with /v1 */
    const char *key;              /* of it; "" = none */
    const char *ca_path;          /* "" = the system's */
    bool all;            /* models, as they are registered, not those alone that are served */
    bool local_only;     /* dial local addresses only */
    const char *allowed; /* the environment's list; NULL = all */
};

/* Texts and `served` must outlive it. Returns 0 or -ENOMEM. */
int follow_create(struct follow **follow, const struct follow_options *options,
                  struct served *served);
/* NULL is fine. */
void follow_destroy(struct follow *follow);

/* Takes what has come, asks if it is time. `node` is the name of the node that is served; NULL =
 * none yet. No service is taken from the registry before the first node was known. */
void follow_tick(struct follow *follow, const char *node, uint64_t now_ns);
int follow_fd(const struct follow *follow);
/* Milliseconds until follow_tick() must be called even if nothing comes. */
int follow_timeout_ms(const struct follow *follow, uint64_t now_ns);
