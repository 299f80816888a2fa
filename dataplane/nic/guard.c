/* SPDX-License-Identifier: Apache-2.0 */
/* guard.c - see guard.h. */
#include "dataplane/nic/guard.h"

#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "schemas/base/addr.h"

#define TRIES        100
#define TRY_PAUSE_NS 20000000

static int open_now(const struct in6_addr *address, uint16_t port)
{
    struct sock_filter drop_all = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {.len = 1, .filter = &drop_all};
    struct sockaddr_storage self;
    socklen_t size = addr_to_socket(address, port, &self);
    int on = 1;
    int fd = socket(self.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0 ||
        (self.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(fd, (struct sockaddr *)&self, size) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int guard_open(const struct in6_addr *address, uint16_t port)
{
    int fd = open_now(address, port);
    for (int i = 1; (fd == -EADDRINUSE || fd == -EADDRNOTAVAIL) && i < TRIES; i++) {
        struct timespec pause = {.tv_nsec = TRY_PAUSE_NS};
        nanosleep(&pause, NULL);
        fd = open_now(address, port);
    }
    return fd;
}
