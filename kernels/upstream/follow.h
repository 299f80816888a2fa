/* SPDX-License-Identifier: Apache-2.0 */
/*
 * follow.h - keeps a relay's endpoints in step with a gateway's registry of services: asks it every
 * FOLLOW_NS, gives the relay those that have the model and promise what the node does
 * (registry.h), and takes away those that are no longer there. While the registry does not answer
 * all stays as it is: the services' own health is the relay's concern.
 *
 * Never followed: a service that is the registry itself, one that INFERENCE_ALLOWED_PROVIDERS
 * forbids (a registered one has no name, so only `local` lets it through), and more than there is
 * room for. No key is ever sent to a registered service.
 *
 * Threads: one, the relay's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/upstream/relay.h"
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
    const char *model;
    const char *allowed; /* the environment's list; NULL = all */
};

/* Texts must outlive it, and it the relay's calls: destroy it before the relay. Returns 0 or
 * -ENOMEM. */
int follow_create(struct follow **follow, const struct follow_options *options,
                  struct relay *relay);
/* NULL is fine. */
void follow_destroy(struct follow *follow);

/* Asks if it is time. `node` is the name of the node that the relay serves; NULL = none yet: then
 * nothing is taken from the registry. */
void follow_tick(struct follow *follow, const char *node, uint64_t now_ns);
uint64_t follow_due_ns(const struct follow *follow);
