/* SPDX-License-Identifier: Apache-2.0 */
/* socket_file.c - see socket_file.h. */
#include "schemas/base/socket_file.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int socket_file_clear(const struct sockaddr_un *address, int type)
{
    struct stat st;
    if (lstat(address->sun_path, &st) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(st.st_mode)) { /* connect() would call it refused as well */
        return -EEXIST;
    }
    int probe = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (probe < 0) {
        return -errno;
    }
    int rc = 0;
    if (connect(probe, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
        errno == EAGAIN) { /* its backlog is full */
        rc = -EADDRINUSE;
    } else if (errno != ECONNREFUSED) {
        rc = -errno;
    } else if (unlink(address->sun_path) != 0) {
        rc = -errno;
    }
    close(probe);
    return rc;
}
