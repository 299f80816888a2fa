/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toy.h - a worker that costs next to nothing: each request gets `x` at a fixed pace, as many as it
 * asked for (load/pace.h). For benches of what is around a model: streams.c starts one as a process
 * of its own, `weft-bench toy` is one.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "bench/load/pace.h"

/* Attaches to a node's port socket and serves `model` until toy_stop(). Returns once attached: its
 * process id, or a negative errno or status. */
pid_t toy_start(const char *port_socket, const char *model, const struct pace_plan *plan);
void toy_stop(pid_t pid);
