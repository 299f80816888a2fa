/* SPDX-License-Identifier: Apache-2.0 */
/* See door.h. */
#include "kernels/moves/door.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "schemas/base/clock.h"

int door_open(const char *socket_path, const struct port_way_hello *hello)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    const size_t len = strlen(socket_path);
    if (len >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    memcpy(addr.sun_path, socket_path, len + 1);
    const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) ||
        send(fd, hello, sizeof(*hello), MSG_NOSIGNAL) != (ssize_t)sizeof(*hello)) {
        const int rc = errno ? -errno : -EPIPE;
        close(fd);
        return rc;
    }
    return fd;
}

static int fd_of(struct msghdr *msg)
{
    int fd = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS &&
            c->cmsg_len == CMSG_LEN(sizeof(fd)))
            memcpy(&fd, CMSG_DATA(c), sizeof(fd));
    return fd;
}

int door_take(int socket_fd, struct port_way *way, int *fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {way, sizeof(*way)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = CMSG_LEN(sizeof(int))}; /* no padding for another */
    *fd = -1;
    const ssize_t got = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got <= 0)
        return got == 0 || errno == ECONNRESET ? -EPIPE : -errno;
    *fd = fd_of(&msg);
    if ((size_t)got < sizeof(*way) || way->magic != PORT_WAY_MAGIC ||
        way->version != PORT_WAY_VERSION || way->status > 0 || (way->status == 0) != (*fd >= 0) ||
        (msg.msg_flags & MSG_CTRUNC) != 0) {
        if (*fd >= 0)
            close(*fd);
        *fd = -1;
        return -EPROTO;
    }
    return way->status;
}

int door_wait(int socket_fd, int stop_fd, uint64_t deadline_ns, struct port_way *way, int *fd)
{
    int rc;
    *fd = -1;
    while ((rc = door_take(socket_fd, way, fd)) == -EAGAIN) {
        struct pollfd fds[2] = {{.fd = socket_fd, .events = POLLIN},
                                {.fd = stop_fd, .events = POLLIN}};
        const uint64_t now_ns = clock_now_ns();
        if (now_ns >= deadline_ns)
            return -ETIMEDOUT;
        const uint64_t left_ms = (deadline_ns - now_ns) / NS_PER_MS + 1;
        if (poll(fds, 2, left_ms < 60000 ? (int)left_ms : 60000) < 0 && errno != EINTR)
            return -errno;
        if (fds[1].revents)
            return -ECANCELED;
    }
    return rc;
}
