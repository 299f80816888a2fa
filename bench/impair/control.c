/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - see control.h. */
#include "bench/impair/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int watch(int epoll, int fd, uint32_t events, void *pointer, int operation)
{
    struct epoll_event event = {.events = events, .data = {.ptr = pointer}};
    return epoll_ctl(epoll, operation, fd, &event) == 0 ? 0 : -errno;
}

static int address_of(const char *path, struct sockaddr_un *address)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(address->sun_path, path, strlen(path) + 1);
    return 0;
}

/* A connected socket, or a negative errno. */
static int connect_to(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd >= 0 ? fd : -errno;
}

static int listen_on(struct control *c, const struct sockaddr_un *address)
{
    struct stat there;
    if (lstat(address->sun_path, &there) == 0) {
        int other = S_ISSOCK(there.st_mode) ? connect_to(address) : 0;
        if (other >= 0) {
            if (S_ISSOCK(there.st_mode)) {
                close(other);
            }
            return -EADDRINUSE;
        }
        unlink(address->sun_path);
    }
    mode_t mask = umask(0077);
    int rc = bind(c->fd, (const struct sockaddr *)address, sizeof(*address)) != 0 ? -errno : 0;
    umask(mask);
    if (rc == 0) {
        memcpy(c->path, address->sun_path, sizeof(c->path));
        rc = listen(c->fd, CONTROL_PEERS_MAX) != 0 ? -errno : 0;
    }
    return rc;
}

int control_init(struct control *c, const char *path, int epoll, control_handler *handle,
                 void *context)
{
    struct sockaddr_un address;
    *c = (struct control){.fd = -1, .epoll = epoll, .handle = handle, .context = context};
    int rc = address_of(path, &address);
    if (rc != 0) {
        return rc;
    }
    c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    rc = c->fd >= 0 ? listen_on(c, &address) : -errno;
    rc = rc == 0 ? watch(epoll, c->fd, EPOLLIN, c, EPOLL_CTL_ADD) : rc;
    if (rc != 0) {
        control_deinit(c);
    }
    return rc;
}

static void peer_close(struct control_peer *peer)
{
    if (peer->used) {
        close(peer->fd);
    }
    free(peer->answer);
    *peer = (struct control_peer){0};
}

void control_deinit(struct control *c)
{
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        peer_close(&c->peers[i]);
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    if (c->path[0] != '\0') {
        unlink(c->path);
    }
    *c = (struct control){.fd = -1};
}

static void accept_peer(struct control *c)
{
    int fd = accept4(c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < CONTROL_PEERS_MAX; i++) {
        struct control_peer *peer = &c->peers[i];
        if (!peer->used) {
            peer->used = true;
            peer->fd = fd;
            if (watch(c->epoll, fd, EPOLLIN, peer, EPOLL_CTL_ADD) != 0) {
                peer_close(peer);
            }
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void peer_write(struct control_peer *peer)
{
    while (peer->answered < peer->answer_size) {
        ssize_t n = send(peer->fd, peer->answer + peer->answered,
                         peer->answer_size - peer->answered, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n <= 0) {
            break;
        }
        peer->answered += (size_t)n;
    }
    peer_close(peer);
}

static void peer_read(struct control *c, struct control_peer *peer)
{
    ssize_t n =
        read(peer->fd, peer->line + peer->line_size, sizeof(peer->line) - 1 - peer->line_size);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        peer_close(peer);
        return;
    }
    peer->line_size += (size_t)n;
    peer->line[peer->line_size] = '\0';
    char *end = strchr(peer->line, '\n');
    if (end == NULL) {
        if (peer->line_size == sizeof(peer->line) - 1) {
            peer_close(peer);
        }
        return;
    }
    *end = '\0';
    peer->answer = c->handle(c->context, peer->line);
    peer->answer_size = peer->answer != NULL ? strlen(peer->answer) : 0;
    if (watch(c->epoll, peer->fd, EPOLLOUT, peer, EPOLL_CTL_MOD) != 0) {
        peer_close(peer);
        return;
    }
    peer_write(peer);
}

bool control_event(struct control *c, void *pointer)
{
    if (pointer == c) {
        accept_peer(c);
        return true;
    }
    for (size_t i = 0; i < CONTROL_PEERS_MAX; i++) {
        struct control_peer *peer = &c->peers[i];
        if (pointer == peer) {
            if (peer->used && peer->answer != NULL) {
                peer_write(peer);
            } else if (peer->used) {
                peer_read(c, peer);
            }
            return true;
        }
    }
    return false;
}

int control_tell(const char *path, const char *line)
{
    static const char good[] = "{\"ok\"";
    struct sockaddr_un address;
    char part[4096];
    size_t seen = 0;
    bool ok = true;
    int rc = address_of(path, &address);
    int fd = rc == 0 ? connect_to(&address) : rc;
    if (fd < 0) {
        return fd;
    }
    size_t length = strlen(line), sent = 0;
    for (ssize_t n; rc == 0 && sent <= length; sent += (size_t)n) {
        n = sent < length ? send(fd, line + sent, length - sent, MSG_NOSIGNAL)
                          : send(fd, "\n", 1, MSG_NOSIGNAL);
        if (n < 0) {
            rc = -errno;
            break;
        }
    }
    for (ssize_t n; rc == 0 && (n = read(fd, part, sizeof(part))) != 0; seen += (size_t)n) {
        if (n < 0) {
            rc = -errno;
            break;
        }
        for (size_t i = 0; i < (size_t)n && seen + i < sizeof(good) - 1; i++) {
            ok = ok && part[i] == good[seen + i];
        }
        fwrite(part, 1, (size_t)n, stdout);
    }
    close(fd);
    return rc != 0 ? rc : ok && seen >= sizeof(good) - 1 ? 0 : 1;
}
