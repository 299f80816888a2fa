/* SPDX-License-Identifier: Apache-2.0 */
/*
 * answerer.h - a server for the SDK in this very process: no mesh, no model, the machine that
 * answers for a worker (dataplane/flow/serve.h) behind a socket. What a load run measures against
 * it over loopback is the harness's own floor, and what its stalls look like is known from theory;
 * over a network it is the direct path that a routed one is compared with (`weft-bench toy
 * --listen`). It trusts whoever can reach it. One thread of its own; start and stop from any other.
 */
#pragma once

#include <stdint.h>

#include "bench/load/pace.h"

struct answerer;

#define ANSWERER_ADDRESS_MAX 32u

/* On loopback, or with a port (not 0) on every address of this machine. Heap. Returns 0 or -errno.
 */
int answerer_start(struct answerer **answerer, const struct pace_plan *plan, uint16_t port);
/* NULL is fine. */
void answerer_stop(struct answerer *answerer);
/* What weft_client_opts_t.node takes. Owned by the answerer. */
const char *answerer_address(const struct answerer *answerer);
