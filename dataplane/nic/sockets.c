/* SPDX-License-Identifier: Apache-2.0 */
/* sockets.c - see sockets.h. */
#include "dataplane/nic/sockets.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/socket.h>

static int compare_int(const void *a, const void *b)
{
    const int *x = a;
    const int *y = b;
    return (*x > *y) - (*x < *y);
}

uint32_t sockets_find(int family, int *fds, uint32_t max)
{
    int all[SOCKETS_MAX];
    uint32_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int domain = 0;
        socklen_t size = sizeof(domain);
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] != '.' && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 &&
            domain == family && count < SOCKETS_MAX) {
            all[count++] = fd;
        }
    }
    if (dir != NULL) {
        closedir(dir);
    }
    qsort(all, count, sizeof(int), compare_int);
    for (uint32_t i = 0; i < count && i < max; i++) {
        fds[i] = all[i];
    }
    return count;
}
