/* SPDX-License-Identifier: Apache-2.0 */
/* worker_attach.c - how a worker gets its port: attach.h does what is the same for all; here its
 * rings and what it waits on. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dataplane/client/attach.h"
#include "dataplane/client/worker_impl.h"

static int port_watch(struct weft_worker *w)
{
    int fds[] = {w->socket, w->wake_own};
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0) {
        return -errno;
    }
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fds[i]};
        if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fds[i], &event) != 0) {
            return -errno;
        }
    }
    return 0;
}

int worker_port_open(struct weft_worker *w, const char *socket_path, const struct port_hello *hello)
{
    struct attachment a;
    w->socket = attach_hello(socket_path, hello, sizeof(*hello));
    if (w->socket < 0) {
        return w->socket;
    }
    int rc = attach_wait(w->socket);
    rc = rc == 0 ? attach_take(w->socket, PORT_FDS, PORT_SHM_LEAST, sizeof(*w->shm), &a) : rc;
    if (rc != 0) {
        return rc;
    }
    w->shm = a.map;
    w->shm_bytes = a.map_bytes;
    ring_end_init(&w->in, &w->shm->to_worker, w->shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&w->out, &w->shm->to_node, w->shm->to_node_slots, PORT_SLOTS);
    w->wake_own = a.fds[PORT_FD_WAKE_WORKER];
    w->wake_node = a.fds[PORT_FD_WAKE_NODE];
    w->node.id = a.welcome.node_id;
    w->node.tier = a.welcome.tier;
    memcpy(w->node.name, a.welcome.node_name, sizeof(w->node.name) - 1);
    return port_watch(w);
}

void worker_port_close(struct weft_worker *w)
{
    int fds[] = {w->epoll, w->socket, w->wake_own, w->wake_node};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    if (w->shm != NULL) {
        munmap(w->shm, w->shm_bytes);
    }
}
