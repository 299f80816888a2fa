/* SPDX-License-Identifier: Apache-2.0 */
/* guard.c - see guard.h. */
#include "dataplane/nic/guard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <unistd.h>

int guard_open(struct in_addr address, uint16_t port)
{
    struct sock_filter drop_all = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {.len = 1, .filter = &drop_all};
    struct sockaddr_in self = {
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr = address,
    };
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) != 0 ||
        bind(fd, (struct sockaddr *)&self, sizeof(self)) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}
