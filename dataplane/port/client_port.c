/* SPDX-License-Identifier: Apache-2.0 */
/* client_port.c - see client_port.h. */
#include "dataplane/port/client_port.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

static int credentials_read(struct client_port *port, int socket_fd)
{
    struct ucred peer;
    socklen_t len = sizeof(peer);
    if (getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0) {
        return -errno;
    }
    port->pid = peer.pid;
    port->uid = peer.uid;
    return 0;
}

/* It goes into logs and on people's screens: what cannot be printed is not taken over. */
static void name_take(struct client_port *port, const struct port_client_hello *hello)
{
    size_t len = strnlen(hello->program, sizeof(hello->program) - 1);
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)hello->program[i];
        port->program[i] = isgraph(c) && c < 0x7f ? (char)c : '?';
    }
    if (len == 0) {
        port->program[0] = '?';
    }
}

static int memory_share(struct client_port *port)
{
    void *map;
    int rc = share_memory(sizeof(struct port_client_shm), &port->memfd, &map);
    if (rc != 0) {
        return rc;
    }
    port->shm = map;
    ring_end_init(&port->to_client, &port->shm->to_client, port->shm->to_client_slots,
                  PORT_CLIENT_SLOTS);
    ring_end_init(&port->to_node, &port->shm->to_node, port->shm->to_node_slots, PORT_CLIENT_SLOTS);
    port->last_left = PORT_CLIENT_SLOTS;
    port->wake_node_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return port->wake_node_fd < 0 ? -errno : 0;
}

int client_port_open(struct client_port **out, int socket_fd, const struct port_self *self)
{
    *out = NULL;
    struct port_client_hello hello;
    int rc = share_hello(socket_fd, &hello, sizeof(hello), sizeof(hello), PORT_CLIENT_MAGIC,
                         PORT_CLIENT_VERSION);
    if (rc != 0) {
        return rc;
    }
    struct client_port *port = calloc(1, sizeof(*port));
    if (port == NULL) {
        return -ENOMEM;
    }
    port->socket_fd = port->memfd = port->wake_node_fd = -1;
    name_take(port, &hello);
    rc = credentials_read(port, socket_fd);
    rc = rc == 0 ? memory_share(port) : rc;
    if (rc == 0) {
        int fds[PORT_CLIENT_FDS] = {
            [PORT_CLIENT_FD_SHM] = port->memfd,
            [PORT_CLIENT_FD_WAKE_NODE] = port->wake_node_fd,
        };
        rc = share_welcome(socket_fd, self, sizeof(*port->shm), fds, PORT_CLIENT_FDS);
    }
    if (rc != 0) {
        client_port_destroy(port);
        return rc;
    }
    port->socket_fd = socket_fd;
    *out = port;
    return 0;
}

void client_port_destroy(struct client_port *port)
{
    if (port == NULL) {
        return;
    }
    if (port->shm != NULL) {
        munmap(port->shm, sizeof(*port->shm));
    }
    share_close(port->memfd);
    share_close(port->wake_node_fd);
    share_close(port->socket_fd);
    free(port);
}

/* One writer: no locked instruction needed. */
static void count_one(_Atomic uint64_t *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

bool client_port_push(struct client_port *port, const void *datagram, uint32_t len)
{
    bool pushed = share_push(&port->to_client, datagram, len);
    count_one(pushed ? &port->given : &port->full);
    port->pushed |= pushed;
    return pushed;
}

void client_port_flush(struct client_port *port)
{
    if (port->pushed && ring_must_wake(&port->to_client)) {
        /* If it fails, bytes enough lie there already, or nobody is left to be woken. */
        ssize_t sent = send(port->socket_fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
        (void)sent;
    }
    port->pushed = false;
}

uint32_t client_port_pop(struct client_port *port, void *out, uint32_t max)
{
    uint32_t len = share_pop(&port->to_node, out, max);
    if (len != 0) {
        count_one(&port->taken);
    }
    return len;
}
