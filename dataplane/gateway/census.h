/* SPDX-License-Identifier: Apache-2.0 */
/*
 * census.h - what the node next to the gateway knows of its mesh: which models there are, who has
 * them, whether it answers at all. Asked of the node's admin socket, whose answer to `status` is
 * one JSON object; never waits: the question is under way while the loop goes on.
 *
 * Asked only when somebody wants to know and what is known is older than CENSUS_AGE_NS: an idle
 * gateway asks nothing. Without an admin socket (the node is elsewhere) the models are those named
 * on the command line, and nothing else is known.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/gateway/question.h"

#define CENSUS_AGE_NS 1000000000ull

struct census {
    const char *path; /* of the admin socket; NULL = there is none */
    struct question question;
    uint64_t known_ns; /* when `status` was asked for; 0 = never answered */
    json_t *status;    /* the node's last answer, NULL = none */
};

void census_init(struct census *c, const char *path);
void census_deinit(struct census *c);

/* Is what is known recent enough? (Without a socket: always.) */
bool census_fresh(const struct census *c, uint64_t now_ns);

/* Why the latest question got no answer; "" = it got one. */
const char *census_error(const struct census *c);

/* Asks, unless it is fresh or a question is under way. Returns the descriptor to wait on for
 * reading if a question has begun, else -1. */
int census_ask(struct census *c, uint64_t now_ns);

/* After readability or time: true if the question under way is over, answered or not; its
 * descriptor is closed then. */
bool census_step(struct census *c, uint64_t now_ns);

/* When census_step() has to be called at the latest; UINT64_MAX = no question is under way. */
uint64_t census_due_ns(const struct census *c);
