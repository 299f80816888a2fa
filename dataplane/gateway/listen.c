/* SPDX-License-Identifier: Apache-2.0 */
/* listen.c - see listen.h. */
#include "dataplane/gateway/listen.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096

/* Splits "HOST:PORT"; `host` is without brackets. */
static int where_split(const char *where, char host[64], const char **port)
{
    const char *colon = strrchr(where, ':');
    const char *from = where;
    size_t len = colon != NULL ? (size_t)(colon - where) : 0;
    *port = colon != NULL ? colon + 1 : where;
    if (colon == NULL) {
        strcpy(host, "127.0.0.1");
        return 0;
    }
    if (len >= 2 && where[0] == '[' && where[len - 1] == ']') {
        from++;
        len -= 2;
    } else if (memchr(where, ':', len) != NULL) {
        return -EINVAL; /* whose last number is the port? */
    }
    if (len == 0 || len >= 64) {
        return -EINVAL;
    }
    memcpy(host, from, len);
    host[len] = '\0';
    return 0;
}

static int listen_at(const struct addrinfo *at)
{
    int on = 1;
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, at->ai_addr, at->ai_addrlen) != 0 || listen(fd, BACKLOG) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int listen_open(const char *where)
{
    char host[64];
    const char *port;
    struct addrinfo *list = NULL;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE};
    int rc = where_split(where, host, &port);
    if (rc == 0 && getaddrinfo(host, port, &hints, &list) != 0) {
        rc = -EINVAL;
    }
    if (rc == 0) {
        rc = listen_at(list);
        freeaddrinfo(list);
    }
    return rc;
}
