/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toy.h - a worker that costs next to nothing, as a process of its own: each request gets `x` at a
 * fixed pace, as many as it asked for. For benches of what is around a model; used by streams.c.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* Attaches to a node's port socket and serves `model` until toy_stop(). Returns once attached: its
 * process id, or a negative errno or status. */
pid_t toy_start(const char *port_socket, const char *model, uint32_t interval_ms);
void toy_stop(pid_t pid);
