/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attach.h - the first half of every attachment to a node's socket (schemas/port.h), the same for
 * workers (worker_attach.c) and clients (portal.c). What the other side gives is checked before it
 * is used: size and seals of the memory, number of descriptors.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "schemas/port.h"

#define ATTACH_MS 2000 /* longest wait for the welcome */

/* What came with the welcome: all -1 and NULL until then. */
struct attachment {
    struct port_welcome welcome;
    int fds[PORT_FDS];
    void *map;
    size_t map_bytes;
};

/* Connects and says hello, without waiting. Returns the socket, non-blocking, or -errno: -EPROTO if
 * nobody of Weft's is there. */
int attach_hello(const char *path, const void *hello, size_t len);

/* Waits for an answer. Returns 0, -ETIMEDOUT or -errno. */
int attach_wait(int socket_fd);

/* Takes the answer: `count` descriptors and memory of `least` bytes, or of `most` if there is so
 * much, mapped; fds[0], its own, is closed. On error nothing is left open. Returns 0, -EAGAIN (no
 * answer yet), -EPROTO, what the node refused with, or -errno. */
int attach_take(int socket_fd, uint32_t count, size_t least, size_t most, struct attachment *out);
