/* SPDX-License-Identifier: Apache-2.0 */
/* client_io.c - the client's one socket: batches in and out; see client_impl.h. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dataplane/client/client_impl.h"

#define IO_HOST_MAX 256u

/* "HOST[:PORT]"; one IPv4 address of it. */
static int io_resolve(const char *node, struct sockaddr_in *addr)
{
    char host[IO_HOST_MAX];
    char port[8];
    const char *colon = strrchr(node, ':');
    size_t host_len = colon != NULL ? (size_t)(colon - node) : strlen(node);
    if (host_len == 0 || host_len >= sizeof(host) ||
        (colon != NULL && (strlen(colon + 1) == 0 || strlen(colon + 1) >= sizeof(port)))) {
        return -EINVAL;
    }
    memcpy(host, node, host_len);
    host[host_len] = '\0';
    snprintf(port, sizeof(port), "%u", WEFT_PORT_DEFAULT);
    if (colon != NULL) {
        snprintf(port, sizeof(port), "%s", colon + 1);
    }
    struct addrinfo hints = {
        .ai_family = AF_INET, .ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    if (getaddrinfo(host, port, &hints, &list) != 0) {
        return -EINVAL;
    }
    memcpy(addr, list->ai_addr, sizeof(*addr));
    freeaddrinfo(list);
    return addr->sin_port != 0 ? 0 : -EINVAL;
}

static int io_watch(struct weft_client *c, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

int client_io_open(struct weft_client *c, const char *node)
{
    struct sockaddr_in addr;
    int rc = io_resolve(node, &addr);
    if (rc != 0) {
        return rc;
    }
    c->socket = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c->socket < 0 || c->wake < 0 || c->epoll < 0) {
        return -errno;
    }
    int bytes = CLIENT_SOCKET_BYTES;
    (void)setsockopt(c->socket, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(c->socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    if (connect(c->socket, (const struct sockaddr *)&addr, sizeof(addr)) != 0) {
        return -errno;
    }
    rc = io_watch(c, c->socket);
    rc = rc == 0 ? io_watch(c, c->wake) : rc;
    for (uint32_t i = 0; i < CLIENT_BATCH; i++) {
        c->inbox.iov[i] = (struct iovec){c->inbox.data[i], sizeof(c->inbox.data[i])};
        c->inbox.msgs[i].msg_hdr.msg_iov = &c->inbox.iov[i];
        c->inbox.msgs[i].msg_hdr.msg_iovlen = 1;
    }
    return rc;
}

void client_io_close(struct weft_client *c)
{
    int fds[] = {c->epoll, c->socket, c->wake};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static void io_input(struct weft_client *c, const uint8_t *data, size_t len, uint64_t now_ns)
{
    struct datagram_payload payload;
    if (!datagram_check(data, len, true, sizeof(struct weft_rsp), &payload)) {
        return;
    }
    const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)data;
    struct weft_request *req =
        (struct weft_request *)(void *)table_find(&c->table, rsp->h.conn_id, rsp->h.req_seq);
    if (req != NULL) {
        request_input(&req->core, &c->conn, rsp, payload, now_ns);
        client_step(req, now_ns);
        return;
    }
    struct client_outbox *out = &c->outbox;
    if (out->count < CLIENT_BATCH) {
        size_t size = request_tomb_output(&c->conn, rsp, out->data[out->count]);
        out->len[out->count] = (uint16_t)size;
        out->count += size != 0;
    }
}

void client_io_receive(struct weft_client *c, uint64_t now_ns)
{
    for (uint32_t round = 0; round < CLIENT_ROUNDS; round++) {
        int got = recvmmsg(c->socket, c->inbox.msgs, CLIENT_BATCH, MSG_DONTWAIT, NULL);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            c->refused = c->refused || errno == ECONNREFUSED;
            return;
        }
        for (int i = 0; i < got; i++) {
            if ((c->inbox.msgs[i].msg_hdr.msg_flags & MSG_TRUNC) == 0) {
                io_input(c, c->inbox.data[i], c->inbox.msgs[i].msg_len, now_ns);
            }
        }
        if (got < (int)CLIENT_BATCH) {
            return;
        }
        client_io_flush(c, now_ns);
    }
}

/* Sends the outbox. False: the socket is full, what is left stays. */
static bool io_send(struct weft_client *c)
{
    struct client_outbox *out = &c->outbox;
    while (out->sent < out->count) {
        struct mmsghdr msgs[CLIENT_BATCH];
        struct iovec iov[CLIENT_BATCH];
        uint32_t count = out->count - out->sent;
        memset(msgs, 0, count * sizeof(msgs[0]));
        for (uint32_t i = 0; i < count; i++) {
            iov[i] = (struct iovec){out->data[out->sent + i], out->len[out->sent + i]};
            msgs[i].msg_hdr.msg_iov = &iov[i];
            msgs[i].msg_hdr.msg_iovlen = 1;
        }
        int sent = sendmmsg(c->socket, msgs, count, MSG_DONTWAIT);
        if (sent > 0) {
            out->sent += (uint32_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
            c->blocked = true;
            return false;
        } else if (errno == ECONNREFUSED) {
            c->refused = true; /* an earlier datagram's fate; this one was not sent: go on */
        } else if (errno != EINTR) {
            out->sent++; /* lost like any datagram: timers see to it */
        }
    }
    out->count = 0;
    out->sent = 0;
    c->blocked = false;
    return true;
}

void client_io_flush(struct weft_client *c, uint64_t now_ns)
{
    struct client_outbox *out = &c->outbox;
    for (;;) {
        struct weft_request *req = STAILQ_FIRST(&c->ready);
        if (out->count == CLIENT_BATCH || req == NULL) {
            if (!io_send(c) || req == NULL) {
                return;
            }
            continue;
        }
        size_t size = request_output(&req->core, &c->conn, now_ns, out->data[out->count]);
        out->len[out->count] = (uint16_t)size;
        out->count += size != 0;
        if (size == 0) {
            STAILQ_REMOVE_HEAD(&c->ready, ready_link);
            req->ready = false;
            client_settle(req);
        }
    }
}
