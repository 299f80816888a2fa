/* SPDX-License-Identifier: Apache-2.0 */
/*
 * share.h - what ports of both kinds (port.h, client_port.h) are made of: sealed memory, the
 * welcome that hands it over, datagrams into and out of a ring that a process may write to which is
 * not trusted.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "schemas/port.h"

/* What a node says of itself to those who attach. */
struct port_self {
    uint16_t node_id;
    uint8_t tier;
    const char *node_name;
};

enum port_kind { PORT_KIND_WORKER, PORT_KIND_CLIENT, PORT_KIND_WAY };

/* Who says hello on a connected, non-blocking socket? The hello stays there. Returns an enum
 * port_kind, -EAGAIN (none yet), -EPROTO (none of them), -EPIPE (closed) or another -errno. */
int port_kind(int socket_fd);

/* Receives a hello of `size` bytes, or of `least` and more, with that magic and version at its
 * head; what an older one lacks is zero. Returns as above. */
int share_hello(int socket_fd, void *hello, size_t size, size_t least, uint32_t magic,
                uint16_t version);

/* Memory that nobody can make smaller (that would be SIGBUS), mapped here and there at once:
 * nobody waits for a page later. Both out values are the caller's, also after an error: -1 and NULL
 * or to be closed and unmapped. Returns 0 or -errno. */
int share_memory(size_t bytes, int *memfd, void **map);

/* Sends a message with `count` (PORT_FDS at most) descriptors. Returns 0 or -EPIPE. */
int share_send(int socket_fd, const void *message, size_t size, const int *fds, uint32_t count);

/* Says welcome and hands `count` descriptors over. Returns 0 or -EPIPE. */
int share_welcome(int socket_fd, const struct port_self *self, size_t bytes, const int *fds,
                  uint32_t count);

/* Answers a hello with a refusal and closes the socket. */
void port_refuse(int socket_fd, int status);

void share_close(int fd); /* -1 is fine */

/* Copies a datagram into a ring. False: it is full. */
bool share_push(struct ring_end *end, const void *datagram, uint32_t len);

/* Copies the oldest datagram out. Returns its length, 0 if there is none. A length beyond `max` or
 * below a common header is returned as 1: garbage to be counted. */
uint32_t share_pop(struct ring_end *end, void *out, uint32_t max);
