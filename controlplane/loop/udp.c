/* SPDX-License-Identifier: Apache-2.0 */
/* udp.c - see udp.h. */
#include "controlplane/loop/udp.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "schemas/base/addr.h"

#define PAUSE_NS 20000000 /* between two attempts */

int udp_open(int *fd_out, const struct in6_addr *address, uint16_t *port)
{
    struct sockaddr_storage own;
    struct in6_addr bound;
    socklen_t len = addr_to_socket(address, *port, &own);
    int on = 1;
    *fd_out = -1;
    int fd = socket(own.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if ((own.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, (struct sockaddr *)&own, len) < 0 ||
        getsockname(fd, (struct sockaddr *)&own, &len) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *port = addr_of_socket(&own, &bound);
    *fd_out = fd;
    return 0;
}

int udp_open_patiently(int *fd, const struct in6_addr *address, uint16_t *port)
{
    uint64_t end_ns = clock_now_ns() + UDP_PATIENCE_NS;
    int rc = udp_open(fd, address, port);
    while ((rc == -EADDRINUSE || rc == -EADDRNOTAVAIL) && clock_now_ns() < end_ns) {
        struct timespec pause = {.tv_nsec = PAUSE_NS};
        nanosleep(&pause, NULL);
        rc = udp_open(fd, address, port);
    }
    return rc;
}

int udp_receive(int fd, struct udp_datagram *batch, unsigned room)
{
    struct mmsghdr headers[UDP_BATCH];
    struct sockaddr_storage from[UDP_BATCH];
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
        batch[i].port = addr_of_socket(&from[i], &batch[i].address);
        batch[i].len = (uint16_t)headers[i].msg_len;
    }
    return count;
}

int udp_send(int fd, const struct udp_datagram *batch, unsigned count)
{
    struct mmsghdr headers[UDP_BATCH];
    struct sockaddr_storage to[UDP_BATCH];
    struct iovec parts[UDP_BATCH];
    count = count < UDP_BATCH ? count : UDP_BATCH;
    memset(headers, 0, sizeof(headers));
    for (unsigned i = 0; i < count; i++) {
        union {
            const void *in;
            void *out;
        } data = {.in = batch[i].data};
        parts[i] = (struct iovec){.iov_base = data.out, .iov_len = batch[i].len};
        headers[i].msg_hdr.msg_name = &to[i];
        headers[i].msg_hdr.msg_namelen = addr_to_socket(&batch[i].address, batch[i].port, &to[i]);
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
