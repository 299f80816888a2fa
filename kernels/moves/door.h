/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.h - the worker's end of ways (schemas/port.h): asks its node to be called, or to call
 * another node's worker. What the node sends is checked before it is used.
 *
 * Threads: any. Errors: negative errno.
 */
#pragma once

#include <stdint.h>

#include "schemas/port.h"

/* Connects and says hello. Returns the socket, non-blocking, or -errno. */
int door_open(const char *socket_path, const struct port_way_hello *hello);

/* Takes what has come. `*fd` is the way's connection, -1 if it has none. Returns 0, -EAGAIN
 * (nothing yet), -EPIPE (the node has gone), -EPROTO, or the status that the node gives. */
int door_take(int socket_fd, struct port_way *way, int *fd);

/* Waits for the one answer to a call. */
int door_wait(int socket_fd, int stop_fd, uint64_t deadline_ns, struct port_way *way, int *fd);
