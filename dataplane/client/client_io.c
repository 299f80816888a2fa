/* SPDX-License-Identifier: Apache-2.0 */
/* client_io.c - the client's sockets and rings, one for each node it knows: batches in and out; see
 * client_impl.h. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "dataplane/client/arrival.h"
#include "dataplane/client/attach.h"
#include "dataplane/client/client_impl.h"
#include "dataplane/client/resolve.h"

#define IO_HOST_MAX        256u
#define IO_CLOCKS_APART_NS 1000u
#define IO_CLOCKS_TRIES    4u

static int io_watch(struct weft_client *c, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(c->epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

/* ---- the node's own rings ---- */

static void path_shut(struct client_path *path, uint64_t now_ns)
{
    portal_close(path->portal);
    path->portal->since_ns = now_ns + CLIENT_RETRY_NS;
}

/* Says hello anew. False: nobody is there. */
static bool path_hello(struct weft_client *c, struct client_path *path, uint64_t now_ns)
{
    struct portal *p = path->portal;
    if (now_ns < p->since_ns || portal_begin(p) != 0) {
        p->since_ns = now_ns < p->since_ns ? p->since_ns : now_ns + CLIENT_RETRY_NS;
        return false;
    }
    p->since_ns = now_ns;
    if (io_watch(c, p->socket) != 0) {
        path_shut(path, now_ns);
    }
    return p->state == PORTAL_GREETING;
}

/* Has the answer come? */
static void path_greet(struct client_path *path, uint64_t now_ns)
{
    struct portal *p = path->portal;
    int rc = portal_greeted(p);
    bool late = rc == -EAGAIN && now_ns - p->since_ns > ATTACH_MS * NS_PER_MS;
    if ((rc != 0 && rc != -EAGAIN) || late) {
        path_shut(path, now_ns);
    }
}

/* Attaches, waiting for it. A node that is not there is asked again when there is something to say,
 * unless it is `needed`. */
static int path_attach(struct weft_client *c, struct client_path *path, const char *node,
                       bool needed)
{
    path->portal = malloc(sizeof(*path->portal));
    if (path->portal == NULL) {
        return -ENOMEM;
    }
    int rc = portal_init(path->portal, node);
    if (rc != 0) {
        return rc;
    }
    rc = portal_begin(path->portal);
    rc = rc == 0 ? attach_wait(path->portal->socket) : rc;
    rc = rc == 0 ? portal_greeted(path->portal) : rc;
    if (rc == 0) {
        portal_rest(path->portal);
        return io_watch(c, path->portal->socket);
    }
    portal_close(path->portal);
    return needed ? rc : 0;
}

/* Puts the outbox into the ring. False: it is full or not there yet, what is left stays. */
static bool path_push(struct weft_client *c, struct client_path *path, uint64_t now_ns)
{
    struct client_outbox *out = &path->outbox;
    struct portal *p = path->portal;
    if (out->count == 0) {
        path->blocked = false;
        return true;
    }
    if (p->state == PORTAL_CLOSED) {
        (void)path_hello(c, path, now_ns);
    }
    if (p->state == PORTAL_GREETING) {
        path_greet(path, now_ns);
    }
    if (p->state == PORTAL_CLOSED) {
        path->refused = true; /* as if each were answered by the host: nobody listens */
        out->sent = out->count;
    }
    while (p->state == PORTAL_OPEN && out->sent < out->count &&
           portal_push(p, out->data[out->sent], out->len[out->sent])) {
        out->sent++;
    }
    if (p->state == PORTAL_OPEN) {
        portal_wake(p);
    }
    path->blocked = out->sent < out->count;
    if (!path->blocked) {
        out->count = out->sent = 0;
    }
    return !path->blocked;
}

/* ---- sockets ---- */

#define ECN_ECT0 2 /* RFC 3168 */
#define ECN_CE   3

/* Datagrams go out as able to carry a mark of congestion, and those that come tell of theirs. */
static void path_use_ecn(int fd)
{
    int ect0 = ECN_ECT0, on = 1;
    (void)setsockopt(fd, IPPROTO_IP, IP_TOS, &ect0, sizeof(ect0));
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_TCLASS, &ect0, sizeof(ect0));
    (void)setsockopt(fd, IPPROTO_IP, IP_RECVTOS, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof(on));
}

static int path_connect(struct client_path *path, const char *node)
{
    path->socket = resolve_connect(node);
    if (path->socket < 0) {
        return path->socket;
    }
    int bytes = CLIENT_SOCKET_BYTES;
    (void)setsockopt(path->socket, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    (void)setsockopt(path->socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    /* Never in fragments: the nodes refuse those, and the search for the path's MTU needs to see
     * what is too large. One of the two fails, by the socket's family. */
    int v4 = IP_PMTUDISC_PROBE, v6 = IPV6_PMTUDISC_PROBE;
    (void)setsockopt(path->socket, IPPROTO_IP, IP_MTU_DISCOVER, &v4, sizeof(v4));
    (void)setsockopt(path->socket, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &v6, sizeof(v6));
    path_use_ecn(path->socket);
    return 0;
}

/* Opens a path for each of the nodes between commas. */
static int paths_open(struct weft_client *c, const char *nodes)
{
    int rc = 0;
    const char *at = nodes;
    while (rc == 0 && at != NULL) {
        char node[IO_HOST_MAX];
        size_t len = strcspn(at, ",");
        if (len == 0 || len >= sizeof(node) || c->path_count == CLIENT_PATHS_MAX) {
            return -EINVAL;
        }
        memcpy(node, at, len);
        node[len] = '\0';
        struct client_path *path = &c->paths[c->path_count++];
        path->socket = -1;
        STAILQ_INIT(&path->ready);
        if (strncmp(node, PORTAL_PREFIX, strlen(PORTAL_PREFIX)) == 0) {
            rc = path_attach(c, path, node, strchr(nodes, ',') == NULL);
        } else {
            rc = path_connect(path, node);
            rc = rc == 0 ? io_watch(c, path->socket) : rc;
        }
        at = at[len] == ',' ? at + len + 1 : NULL;
    }
    return rc;
}

int client_io_open(struct weft_client *c, const char *nodes)
{
    c->paths = calloc(CLIENT_PATHS_MAX, sizeof(*c->paths));
    c->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (c->paths == NULL) {
        return -ENOMEM;
    }
    if (c->wake < 0 || c->epoll < 0) {
        return -errno;
    }
    for (uint32_t i = 0; i < CLIENT_BATCH; i++) {
        c->inbox.iov[i] = (struct iovec){c->inbox.data[i], sizeof(c->inbox.data[i])};
        c->inbox.msgs[i].msg_hdr.msg_iov = &c->inbox.iov[i];
        c->inbox.msgs[i].msg_hdr.msg_iovlen = 1;
    }
    int rc = paths_open(c, nodes);
    return rc == 0 ? io_watch(c, c->wake) : rc;
}

static void io_close(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void client_io_close(struct weft_client *c)
{
    for (uint32_t i = 0; i < c->path_count; i++) {
        io_close(c->paths[i].socket);
        if (c->paths[i].portal != NULL) {
            portal_close(c->paths[i].portal);
            free(c->paths[i].portal);
        }
    }
    io_close(c->wake);
    io_close(c->epoll);
    free(c->paths);
}

static void io_input(struct weft_client *c, struct client_path *path, const uint8_t *data,
                     size_t len, uint64_t now_ns)
{
    struct datagram_payload payload;
    if (!datagram_check(data, len, true, sizeof(struct weft_rsp), &payload)) {
        return;
    }
    const struct weft_rsp *rsp = (const struct weft_rsp *)(const void *)data;
    struct client_attempt *a =
        (struct client_attempt *)(void *)table_find(&c->table, rsp->h.conn_id, rsp->h.req_seq);
    if (a != NULL) {
        request_input(&a->core, &a->path->conn, rsp, payload, now_ns);
        attempt_step(a, now_ns);
        return;
    }
    struct client_outbox *out = &path->outbox;
    if (out->count < CLIENT_BATCH) {
        size_t size = request_tomb_output(&path->conn, rsp, out->data[out->count]);
        out->len[out->count] = (uint16_t)size;
        out->count += size != 0;
    }
}

/* Takes what has come through a ring and hands it out. */
static void path_take(struct weft_client *c, struct client_path *path, uint64_t now_ns)
{
    struct portal *p = path->portal;
    uint8_t *data = c->inbox.data[0];
    uint32_t count = 0;
    uint32_t len = 1;
    if (p->state == PORTAL_GREETING) {
        path_greet(path, now_ns);
    }
    if (p->state != PORTAL_OPEN) {
        return;
    }
    portal_rouse(p);
    while (count < CLIENT_ROUNDS * CLIENT_BATCH &&
           (len = portal_pop(p, data, sizeof(c->inbox.data[0]))) != 0) {
        io_input(c, path, data, len, now_ns);
        if (++count % CLIENT_BATCH == 0) {
            client_io_flush(c, now_ns);
        }
    }
    if (count == 0 || p->wakes != 0) {
        portal_look(p);
    }
}

/* The monotonic clock's word for a time of the other one, which is of a moment ago. Both are read
 * at once, or nearly: a thread may lose its processor in between. */
static uint64_t monotonic_of(const struct timespec *ts)
{
    uint64_t before_ns, after_ns, wall_ns;
    uint32_t tries = 0;
    do {
        struct timespec wall;
        before_ns = clock_now_ns();
        clock_gettime(CLOCK_REALTIME, &wall);
        after_ns = clock_now_ns();
        wall_ns = (uint64_t)wall.tv_sec * NS_PER_S + (uint64_t)wall.tv_nsec;
    } while (after_ns - before_ns > IO_CLOCKS_APART_NS && ++tries < IO_CLOCKS_TRIES);
    uint64_t then_ns = (uint64_t)ts->tv_sec * NS_PER_S + (uint64_t)ts->tv_nsec;
    return then_ns < wall_ns ? before_ns - (wall_ns - then_ns) : before_ns;
}

/* What the kernel says of a datagram: was congestion seen on its last way, when did it come? */
static void read_control(struct msghdr *msg, bool *marked, uint64_t *arrived_ns)
{
    *marked = false;
    *arrived_ns = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c != NULL; c = CMSG_NXTHDR(msg, c)) {
        bool four = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS;
        bool six = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS;
        if (four || six) { /* an int or a byte; little-endian, the byte is the int's first */
            *marked = (*(const uint8_t *)CMSG_DATA(c) & ECN_CE) == ECN_CE;
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec ts;
            memcpy(&ts, CMSG_DATA(c), sizeof(ts));
            *arrived_ns = monotonic_of(&ts);
        }
    }
}

int client_note_arrivals(weft_client_t *c)
{
    int on = 1;
    for (uint32_t i = 0; i < c->path_count; i++) {
        int fd = c->paths[i].socket;
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof(on)) != 0) {
            return -errno;
        }
    }
    return 0;
}

uint64_t client_arrived_ns(const weft_client_t *c)
{
    return c->arrived_ns;
}

/* Room for both words behind each datagram; receiving shortens it. */
static void inbox_rearm(struct client_inbox *inbox)
{
    for (uint32_t i = 0; i < CLIENT_BATCH; i++) {
        inbox->msgs[i].msg_hdr.msg_control = &inbox->control[i];
        inbox->msgs[i].msg_hdr.msg_controllen = sizeof(inbox->control[i]);
    }
}

static void path_input(struct weft_client *c, struct client_path *path, uint32_t i, uint64_t now_ns)
{
    struct mmsghdr *msg = &c->inbox.msgs[i];
    bool marked;
    if ((msg->msg_hdr.msg_flags & MSG_TRUNC) != 0) {
        return;
    }
    read_control(&msg->msg_hdr, &marked, &c->arrived_ns);
    if (marked && msg->msg_len >= sizeof(struct weft_hdr)) {
        struct weft_hdr *h = (struct weft_hdr *)(void *)c->inbox.data[i];
        h->flags |= WEFT_F_ECN_ECHO;
    }
    io_input(c, path, c->inbox.data[i], msg->msg_len, now_ns);
    c->arrived_ns = 0;
}

/* Receives and hands out what has come on one socket. */
static void path_receive(struct weft_client *c, struct client_path *path, uint64_t now_ns)
{
    for (uint32_t round = 0; round < CLIENT_ROUNDS; round++) {
        inbox_rearm(&c->inbox);
        int got = recvmmsg(path->socket, c->inbox.msgs, CLIENT_BATCH, MSG_DONTWAIT, NULL);
        if (got < 0) {
            if (errno == EINTR) {
                continue;
            }
            path->refused = path->refused || errno == ECONNREFUSED;
            return;
        }
        for (uint32_t i = 0; i < (uint32_t)got; i++) {
            path_input(c, path, i, now_ns);
        }
        if (got < (int)CLIENT_BATCH) {
            return;
        }
        client_io_flush(c, now_ns);
    }
}

void client_io_receive(struct weft_client *c, uint64_t now_ns)
{
    for (uint32_t i = 0; i < c->path_count; i++) {
        if (c->paths[i].portal != NULL) {
            path_take(c, &c->paths[i], now_ns);
        } else {
            path_receive(c, &c->paths[i], now_ns);
        }
    }
}

/* Sends the outbox. False: the socket is full, what is left stays. */
static bool path_send(struct client_path *path)
{
    struct client_outbox *out = &path->outbox;
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
        int sent = sendmmsg(path->socket, msgs, count, MSG_DONTWAIT);
        if (sent > 0) {
            out->sent += (uint32_t)sent;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS) {
            path->blocked = true;
            return false;
        } else if (errno == ECONNREFUSED) {
            path->refused = true; /* an earlier datagram's fate; this one was not sent: go on */
        } else if (errno != EINTR) {
            out->sent++; /* lost like any datagram: timers see to it */
        }
    }
    out->count = 0;
    out->sent = 0;
    path->blocked = false;
    return true;
}

static void path_flush(struct weft_client *c, struct client_path *path, uint64_t now_ns)
{
    struct client_outbox *out = &path->outbox;
    for (;;) {
        struct client_attempt *a = STAILQ_FIRST(&path->ready);
        if (out->count == CLIENT_BATCH || a == NULL) {
            bool sent = path->portal != NULL ? path_push(c, path, now_ns) : path_send(path);
            if (!sent || a == NULL) {
                return;
            }
            continue;
        }
        size_t size = request_output(&a->core, &path->conn, now_ns, out->data[out->count]);
        out->len[out->count] = (uint16_t)size;
        out->count += size != 0;
        if (size == 0) {
            STAILQ_REMOVE_HEAD(&path->ready, ready_link);
            a->ready = false;
            attempt_settle(a);
        }
    }
}

void client_io_flush(struct weft_client *c, uint64_t now_ns)
{
    for (uint32_t i = 0; i < c->path_count; i++) {
        path_flush(c, &c->paths[i], now_ns);
    }
}

void client_io_rest(struct weft_client *c)
{
    for (uint32_t i = 0; i < c->path_count; i++) {
        struct portal *p = c->paths[i].portal;
        if (p != NULL && p->state == PORTAL_OPEN) {
            portal_rest(p);
        }
    }
}
