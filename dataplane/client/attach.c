/* SPDX-License-Identifier: Apache-2.0 */
/* attach.c - see attach.h. */
#include "dataplane/client/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "schemas/base/clock.h"

/* A memory that can shrink would turn an access into SIGBUS. */
#define ATTACH_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

static int attach_connect(const char *path)
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

int attach_hello(const char *path, const void *hello, size_t len)
{
    int fd = attach_connect(path);
    /* A node may refuse before it has heard anything: what it said is there to be read. */
    if (fd >= 0 && send(fd, hello, len, MSG_NOSIGNAL) != (ssize_t)len && errno != EPIPE) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int attach_wait(int socket_fd)
{
    uint64_t end_ns = clock_now_ns() + ATTACH_MS * NS_PER_MS;
    for (;;) {
        uint64_t now_ns = clock_now_ns();
        if (now_ns >= end_ns) {
            return -ETIMEDOUT;
        }
        struct pollfd pfd = {.fd = socket_fd, .events = POLLIN};
        int rc = poll(&pfd, 1, (int)((end_ns - now_ns) / NS_PER_MS) + 1);
        if (rc > 0) {
            return 0;
        }
        if (rc < 0 && errno != EINTR) {
            return -errno;
        }
    }
}

static void close_fds(struct attachment *a)
{
    for (size_t i = 0; i < PORT_FDS; i++) {
        if (a->fds[i] >= 0) {
            close(a->fds[i]);
            a->fds[i] = -1;
        }
    }
}

/* The welcome and its descriptors; those beyond PORT_FDS are closed by the kernel (MSG_CTRUNC). The
 * length leaves no padding behind them: one more would fit into it, and stay open. */
static int welcome_receive(int socket_fd, uint32_t wanted, struct attachment *a)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * PORT_FDS)];
    } control;
    struct iovec iov = {&a->welcome, sizeof(a->welcome)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = CMSG_LEN(sizeof(int) * PORT_FDS)};
    ssize_t got = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (got < 0 && errno == ECONNRESET) { /* told once, ahead of what was said before */
        got = recvmsg(socket_fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    }
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
            memcpy(&a->fds[count++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        }
    }
    if ((size_t)got < sizeof(a->welcome) || a->welcome.magic != PORT_MAGIC ||
        a->welcome.version != PORT_VERSION) {
        return -EPROTO;
    }
    if (a->welcome.status != 0) {
        return a->welcome.status < 0 ? a->welcome.status : -EPROTO;
    }
    return count == wanted && (msg.msg_flags & MSG_CTRUNC) == 0 ? 0 : -EPROTO;
}

static int memory_map(struct attachment *a, size_t least, size_t most)
{
    struct stat st;
    int fd = a->fds[0];
    int seals = fcntl(fd, F_GET_SEALS);
    if (a->welcome.shm_bytes != least || fstat(fd, &st) != 0 || st.st_size < (off_t)least ||
        seals < 0 || (seals & ATTACH_SEALS) != ATTACH_SEALS) {
        return -EPROTO;
    }
    size_t bytes = st.st_size < (off_t)most ? least : most;
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        return -errno;
    }
    a->map = at;
    a->map_bytes = bytes;
    close(fd);
    a->fds[0] = -1;
    return 0;
}

int attach_take(int socket_fd, uint32_t count, size_t least, size_t most, struct attachment *a)
{
    memset(a, 0, sizeof(*a));
    for (size_t i = 0; i < PORT_FDS; i++) {
        a->fds[i] = -1;
    }
    int rc = welcome_receive(socket_fd, count, a);
    rc = rc == 0 ? memory_map(a, least, most) : rc;
    if (rc != 0) {
        close_fds(a);
    }
    return rc;
}
