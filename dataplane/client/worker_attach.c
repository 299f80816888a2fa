/* SPDX-License-Identifier: Apache-2.0 */
/* worker_attach.c - the worker's half of the handshake of schemas/port.h. What the other side gives
 * is checked before it is used: size and seals of the memory, zero indexes, three descriptors. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "dataplane/client/worker_impl.h"
#include "schemas/base/clock.h"

/* A memory that can shrink would turn an access into SIGBUS. */
#define PORT_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static void port_close_fds(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
            fds[i] = -1;
        }
    }
}

static int port_connect(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(addr.sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(addr.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        int rc = errno == EAGAIN ? -ECONNREFUSED : -errno; /* its backlog is full */
        close(fd);
        return rc;
    }
    return fd;
}

static int port_wait(int fd)
{
    uint64_t end_ns = clock_now_ns() + WORKER_ATTACH_MS * NS_PER_MS;
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        if (now_ns >= end_ns) {
            return -ETIMEDOUT;
        }
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        int rc = poll(&pfd, 1, (int)((end_ns - now_ns) / NS_PER_MS) + 1);
        if (rc > 0) {
            return 0;
        }
        if (rc < 0 && errno != EINTR) {
            return -errno;
        }
    }
}

/* The welcome and its descriptors; those beyond PORT_FDS are closed by the kernel (MSG_CTRUNC). */
static int port_receive(int socket_fd, struct port_welcome *welcome, int fds[PORT_FDS])
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * PORT_FDS)];
    } control;
    struct iovec iov = {welcome, sizeof(*welcome)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    memset(welcome, 0, sizeof(*welcome));
    ssize_t got = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0) {
        return errno == ECONNRESET ? -EPROTO : -errno;
    }
    size_t count = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t here = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < here && count < PORT_FDS; i++) {
            memcpy(&fds[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        }
    }
    if ((size_t)got < sizeof(*welcome) || welcome->magic != PORT_MAGIC ||
        welcome->version != PORT_VERSION) {
        return -EPROTO;
    }
    if (welcome->status != 0) {
        return welcome->status < 0 ? welcome->status : -EPROTO;
    }
    bool whole = count == PORT_FDS && (msg.msg_flags & MSG_CTRUNC) == 0;
    return whole && welcome->shm_bytes == sizeof(struct port_shm) ? 0 : -EPROTO;
}

static int port_map(struct weft_worker *w, int fd)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    if (fstat(fd, &st) != 0 || st.st_size < (off_t)sizeof(struct port_shm) || seals < 0 ||
        (seals & PORT_SEALS) != PORT_SEALS) {
        return -EPROTO;
    }
    void *at = mmap(NULL, sizeof(struct port_shm), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        return -errno;
    }
    w->shm = at;
    ring_end_init(&w->in, &w->shm->to_worker, w->shm->to_worker_slots, PORT_SLOTS);
    ring_end_init(&w->out, &w->shm->to_node, w->shm->to_node_slots, PORT_SLOTS);
    return 0;
}

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
    w->socket = port_connect(socket_path);
    if (w->socket < 0) {
        return w->socket;
    }
    if (send(w->socket, hello, sizeof(*hello), MSG_NOSIGNAL) != (ssize_t)sizeof(*hello)) {
        return errno == EPIPE || errno == ECONNRESET ? -EPROTO : -errno;
    }
    struct port_welcome welcome;
    int fds[PORT_FDS] = {-1, -1, -1};
    int rc = port_wait(w->socket);
    rc = rc == 0 ? port_receive(w->socket, &welcome, fds) : rc;
    rc = rc == 0 ? port_map(w, fds[PORT_FD_SHM]) : rc;
    if (rc != 0) {
        port_close_fds(fds, PORT_FDS);
        return rc;
    }
    close(fds[PORT_FD_SHM]);
    w->wake_own = fds[PORT_FD_WAKE_WORKER];
    w->wake_node = fds[PORT_FD_WAKE_NODE];
    w->node.id = welcome.node_id;
    w->node.tier = welcome.tier;
    memcpy(w->node.name, welcome.node_name, sizeof(w->node.name) - 1);
    return port_watch(w);
}

void worker_port_close(struct weft_worker *w)
{
    int fds[] = {w->epoll, w->socket, w->wake_own, w->wake_node};
    port_close_fds(fds, sizeof(fds) / sizeof(fds[0]));
    if (w->shm != NULL) {
        munmap(w->shm, sizeof(*w->shm));
    }
}
