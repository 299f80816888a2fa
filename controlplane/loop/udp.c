/* SPDX-License-Identifier: Apache-2.0 */
/* udp.c - see udp.h. */
#include "controlplane/loop/udp.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int udp_open(int *fd_out, struct in_addr address, uint16_t *port)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr = address, .sin_port = htons(*port)};
    socklen_t len = sizeof(own);
    *fd_out = -1;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (bind(fd, (struct sockaddr *)&own, sizeof(own)) < 0 ||
        getsockname(fd, (struct sockaddr *)&own, &len) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *port = ntohs(own.sin_port);
    *fd_out = fd;
    return 0;
}

int udp_receive(int fd, struct udp_datagram *batch, unsigned room)
{
    struct mmsghdr headers[UDP_BATCH];
    struct sockaddr_in from[UDP_BATCH];
    struct iovec parts[UDP_BATCH];
    room = room < UDP_BATCH ? room : UDP_BATCH;
    memset(headers, 0, sizeof(headers));
    memset(from, 0, sizeof(from));
    for (unsigned i = 0; i < room; i++) {
        parts[i] = (struct iovec){.iov_base = batch[i].data, .iov_len = sizeof(batch[i].data)};
        headers[i].msg_hdr.msg_name = &from[i];
        headers[i].msg_hdr.msg_namelen = sizeof(from[i]);
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    int count = recvmmsg(fd, headers, room, MSG_DONTWAIT, NULL);
    if (count < 0) {
        /* A peer's port unreachable comes back as an error of the next call: no news. */
        return errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED ? 0 : -errno;
    }
    for (int i = 0; i < count; i++) {
        batch[i].address = from[i].sin_addr;
        batch[i].port = ntohs(from[i].sin_port);
        batch[i].len = (uint16_t)headers[i].msg_len;
    }
    return count;
}

int udp_send(int fd, const struct udp_datagram *batch, unsigned count)
{
    struct mmsghdr headers[UDP_BATCH];
    struct sockaddr_in to[UDP_BATCH];
    struct iovec parts[UDP_BATCH];
    count = count < UDP_BATCH ? count : UDP_BATCH;
    memset(headers, 0, sizeof(headers));
    memset(to, 0, sizeof(to));
    for (unsigned i = 0; i < count; i++) {
        union {
            const void *in;
            void *out;
        } data = {.in = batch[i].data};
        to[i].sin_family = AF_INET;
        to[i].sin_addr = batch[i].address;
        to[i].sin_port = htons(batch[i].port);
        parts[i] = (struct iovec){.iov_base = data.out, .iov_len = batch[i].len};
        headers[i].msg_hdr.msg_name = &to[i];
        headers[i].msg_hdr.msg_namelen = sizeof(to[i]);
        headers[i].msg_hdr.msg_iov = &parts[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    unsigned next = 0;
    int sent = 0;
    while (next < count) {
        int went = sendmmsg(fd, headers + next, count - next, MSG_DONTWAIT);
        if (went > 0) {
            sent += went;
            next += (unsigned)went;
        } else {
            next++; /* the first one of the rest was refused: leave it out */
        }
    }
    return sent;
}
