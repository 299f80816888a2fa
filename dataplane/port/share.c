/* SPDX-License-Identifier: Apache-2.0 */
/* share.c - see share.h. */
#include "dataplane/port/share.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* Every hello begins so. */
struct hello_head {
    uint32_t magic;
    uint16_t version;
    uint16_t size;
};

int port_kind(int socket_fd)
{
    struct hello_head head;
    ssize_t got = recv(socket_fd, &head, sizeof(head), MSG_DONTWAIT | MSG_PEEK);
    if (got <= 0) {
        return got == 0 ? -EPIPE : -errno;
    }
    if ((size_t)got < sizeof(head)) {
        return -EPROTO;
    }
    return head.magic == PORT_MAGIC          ? PORT_KIND_WORKER
           : head.magic == PORT_CLIENT_MAGIC ? PORT_KIND_CLIENT
           : head.magic == PORT_WAY_MAGIC    ? PORT_KIND_WAY
                                             : -EPROTO;
}

int share_hello(int socket_fd, void *hello, size_t size, size_t least, uint32_t magic,
                uint16_t version)
{
    struct hello_head head;
    memset(hello, 0, size);
    ssize_t got = recv(socket_fd, hello, size, MSG_DONTWAIT);
    if (got <= 0) {
        return got == 0 ? -EPIPE : -errno;
    }
    if ((size_t)got < least) {
        return -EPROTO;
    }
    memcpy(&head, hello, sizeof(head));
    return head.magic == magic && head.version == version && head.size >= least ? 0 : -EPROTO;
}

int share_memory(size_t bytes, int *memfd, void **map)
{
    *map = NULL;
    *memfd = memfd_create("weft-port", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*memfd < 0 || ftruncate(*memfd, (off_t)bytes) != 0 ||
        fcntl(*memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return -errno;
    }
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, *memfd, 0);
    if (at == MAP_FAILED) {
        return -errno;
    }
    *map = at;
    return 0;
}

int share_send(int socket_fd, const void *message, size_t size, const int *fds, uint32_t count)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(PORT_FDS * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)message, .iov_len = size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count != 0) {
        size_t bytes = count * sizeof(int);
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.space;
        msg.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(cmsg), fds, bytes);
    }
    ssize_t sent = sendmsg(socket_fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent == (ssize_t)size ? 0 : -EPIPE;
}

int share_welcome(int socket_fd, const struct port_self *self, size_t bytes, const int *fds,
                  uint32_t count)
{
    struct port_welcome welcome = {
        .magic = PORT_MAGIC,
        .version = PORT_VERSION,
        .size = sizeof(welcome),
        .node_id = self->node_id,
        .tier = self->tier,
        .shm_bytes = (uint32_t)bytes,
    };
    strncpy(welcome.node_name, self->node_name, sizeof(welcome.node_name) - 1);
    return share_send(socket_fd, &welcome, sizeof(welcome), fds, count);
}

void port_refuse(int socket_fd, int status)
{
    struct port_welcome welcome = {
        .magic = PORT_MAGIC,
        .version = PORT_VERSION,
        .size = sizeof(welcome),
        .status = status,
    };
    char hello; /* unread it would turn the answer into a reset */
    (void)!recv(socket_fd, &hello, sizeof(hello), MSG_DONTWAIT);
    (void)share_send(socket_fd, &welcome, sizeof(welcome), NULL, 0);
    close(socket_fd);
}

void share_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

bool share_push(struct ring_end *end, const void *datagram, uint32_t len)
{
    struct ring_slot *slot = ring_reserve(end);
    if (slot == NULL || len > RING_DATA_MAX) {
        return false;
    }
    slot->len = len;
    memcpy(slot->data, datagram, len);
    ring_commit(end);
    return true;
}

uint32_t share_pop(struct ring_end *end, void *out, uint32_t max)
{
    struct ring_slot *slot = ring_peek(end);
    if (slot == NULL) {
        return 0;
    }
    /* The other end may write while we read: its length is taken once and checked. */
    uint32_t len = __atomic_load_n(&slot->len, __ATOMIC_RELAXED);
    if (len > max || len > RING_DATA_MAX || len < sizeof(struct weft_hdr)) {
        len = 1;
    } else {
        memcpy(out, slot->data, len);
    }
    ring_release(end);
    return len;
}
