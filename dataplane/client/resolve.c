/* SPDX-License-Identifier: Apache-2.0 */
/* resolve.c - see resolve.h. */
#include "dataplane/client/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <weft/wire.h>

#define HOST_MAX 256u
#define PORT_MAX 6u /* digits of a port, and the zero */

struct endpoint {
    char host[HOST_MAX];
    char port[PORT_MAX];
};

/* getaddrinfo() would take a number too large for what is left of it in 16 bits. */
static bool port_split(const char *text, struct endpoint *out)
{
    size_t len = strlen(text);
    if (len == 0 || len >= sizeof(out->port) || strspn(text, "0123456789") != len) {
        return false;
    }
    unsigned long number = strtoul(text, NULL, 10);
    if (number == 0 || number > UINT16_MAX) {
        return false;
    }
    memcpy(out->port, text, len + 1);
    return true;
}

static bool endpoint_split(const char *node, struct endpoint *out)
{
    const char *host = node;
    const char *end = node + strlen(node);
    const char *port = NULL;
    const char *colon = strchr(node, ':');
    if (node[0] == '[') {
        host = node + 1;
        end = strchr(host, ']');
        if (end == NULL || (end[1] != '\0' && end[1] != ':')) {
            return false;
        }
        port = end[1] == ':' ? end + 2 : NULL;
    } else if (colon != NULL && strchr(colon + 1, ':') == NULL) { /* with more it is IPv6, bare */
        end = colon;
        port = colon + 1;
    }
    size_t len = (size_t)(end - host);
    if (len == 0 || len >= sizeof(out->host)) {
        return false;
    }
    memcpy(out->host, host, len);
    out->host[len] = '\0';
    snprintf(out->port, sizeof(out->port), "%u", WEFT_PORT_DEFAULT);
    return port == NULL || port_split(port, out);
}

static int connect_one(const struct addrinfo *to)
{
    int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (connect(fd, to->ai_addr, to->ai_addrlen) != 0) {
        int error = errno;
        close(fd);
        return -error;
    }
    return fd;
}

int resolve_connect(const char *node)
{
    struct endpoint endpoint;
    struct addrinfo hints = {
        .ai_family = AF_UNSPEC,
        .ai_socktype = SOCK_DGRAM,
        .ai_flags = AI_NUMERICSERV,
    };
    struct addrinfo *list = NULL;
    if (!endpoint_split(node, &endpoint) ||
        getaddrinfo(endpoint.host, endpoint.port, &hints, &list) != 0) {
        return -EINVAL;
    }
    int fd = -EINVAL;
    for (const struct addrinfo *at = list; at != NULL && fd < 0; at = at->ai_next) {
        fd = connect_one(at);
    }
    freeaddrinfo(list);
    return fd;
}
