/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_way.c - ways between programs of two members (gossip/ways.h): the TCP socket with the
 * control port's number, connections that show their tickets, and calls to other members. What
 * comes of it is handed to the hooks; nothing is read or written but tickets. See control_impl.h.
 *
 * Only with gossip: without letters nobody could say who calls.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "controlplane/control_impl.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"

#define TICKET_NS  (2 * NS_PER_S) /* so long a connection may take to show its ticket */
#define CONNECT_NS (2 * NS_PER_S)
#define BACKLOG    16

/* ---- letters ---- */

static void arm(struct control *control)
{
    uint64_t next_ns = ways_next_ns(&control->way.ways);
    for (uint32_t i = 0; i < CONTROL_WAY_SOCKETS; i++) {
        const struct way_socket *s = &control->way.sockets[i];
        next_ns = s->fd >= 0 && s->end_ns < next_ns ? s->end_ns : next_ns;
    }
    if (next_ns != UINT64_MAX) {
        loop_timer_arm(control->loop, control->way.timer, next_ns > 0 ? next_ns : 1, 0);
    }
}

static void tell_done(struct control *control, const struct way *way, int status, int fd)
{
    const struct swim_member *to = swim_at(gossip_swim(control->gossip), way->slot);
    struct control_way done = {.status = status,
                               .fd = fd,
                               .node = to != NULL ? to->record.id : WEFT_NODE_NONE,
                               .model = way->model,
                               .arithmetic = way->arithmetic,
                               .tag = way->tag};
    memcpy(done.key, way->key, sizeof(done.key));
    control->hooks.on_way_done(&done, control->hooks.user);
    sodium_memzero(&done, sizeof(done));
}

static struct way_socket *socket_new(struct control *control, int fd, uint64_t end_ns)
{
    for (uint32_t i = 0; i < CONTROL_WAY_SOCKETS; i++) {
        struct way_socket *s = &control->way.sockets[i];
        if (s->fd < 0) {
            *s = (struct way_socket){.fd = fd, .end_ns = end_ns, .index = WAY_SOCKET_CAME};
            return s;
        }
    }
    return NULL;
}

/* It is nobody's here any more; open if `keep`. */
static void socket_end(struct control *control, struct way_socket *s, bool keep)
{
    loop_unwatch(control->loop, s->fd);
    if (!keep) {
        close(s->fd);
    }
    s->fd = -1;
}

/* Anybody may connect and say nothing: of those who do who has waited for longest makes room. */
static void room_for_one_more(struct control *control)
{
    struct way_socket *oldest = NULL;
    uint32_t count = 0;
    for (uint32_t i = 0; i < CONTROL_WAY_SOCKETS; i++) {
        struct way_socket *s = &control->way.sockets[i];
        if (s->fd >= 0 && s->index == WAY_SOCKET_CAME) {
            oldest = oldest == NULL || s->end_ns < oldest->end_ns ? s : oldest;
            count++;
        }
    }
    if (count == CONTROL_WAY_CAME) {
        socket_end(control, oldest, false);
    }
}

static struct way_socket *socket_of(struct control *control, int fd)
{
    struct way_socket *s = control->way.sockets;
    while (s->fd != fd) {
        s++; /* it is watched, so it is there */
    }
    return s;
}

static void connect_failed(struct control *control, uint32_t index, int status)
{
    struct way way = control->way.ways.all[index];
    ways_end(&control->way.ways, index);
    tell_done(control, &way, status, -1);
    sodium_memzero(&way, sizeof(way));
}

/* The connection stands, or will not: the ticket goes first. */
static void connected(int fd, void *user)
{
    struct control *control = user;
    struct way_socket *s = socket_of(control, fd);
    uint32_t index = s->index;
    struct way way = control->way.ways.all[index];
    int rc = 0;
    int on = 1;
    socklen_t len = sizeof(rc);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &rc, &len) != 0 || rc != 0) {
        rc = rc != 0 ? -rc : -errno;
    } else if (send(fd, way.ticket, sizeof(way.ticket), MSG_NOSIGNAL | MSG_DONTWAIT) !=
               (ssize_t)sizeof(way.ticket)) {
        rc = -EPIPE;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    socket_end(control, s, rc == 0);
    ways_end(&control->way.ways, index);
    tell_done(control, &way, rc, rc == 0 ? fd : -1);
    sodium_memzero(&way, sizeof(way));
}

static void begin_connect(struct control *control, const struct way_out *out, uint64_t now_ns)
{
    const struct swim_member *to = swim_at(gossip_swim(control->gossip), out->way.slot);
    struct sockaddr_storage address;
    if (to == NULL) {
        connect_failed(control, out->index, -ENOENT);
        return;
    }
    socklen_t len = addr_to_socket(&to->record.address, to->record.port, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct way_socket *s = fd >= 0 ? socket_new(control, fd, now_ns + CONNECT_NS) : NULL;
    int rc = fd < 0 ? -errno : s == NULL ? -EBUSY : 0;
    if (rc == 0 && connect(fd, (struct sockaddr *)&address, len) != 0 && errno != EINPROGRESS) {
        rc = -errno;
    }
    rc = rc == 0 ? loop_watch(control->loop, fd, POLLOUT, connected, control) : rc;
    if (rc == 0) {
        s->index = out->index;
        return;
    }
    if (s != NULL) {
        s->fd = -1;
    }
    if (fd >= 0) {
        close(fd);
    }
    connect_failed(control, out->index, rc);
}

static void act(struct control *control, const struct way_out *out, uint64_t now_ns)
{
    if (out->act == WAY_SAY) {
        letter_to(control, out->slot, LETTER_WAY, out->letter, sizeof(out->letter));
        letters_flush(control);
    } else if (out->act == WAY_CONNECT) {
        begin_connect(control, out, now_ns);
    } else if (out->act == WAY_FAILED) {
        tell_done(control, &out->way, out->status, -1);
    }
}

static void way_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    struct way_out out;
    while (ways_tick(&control->way.ways, now_ns, &out)) {
        act(control, &out, now_ns);
    }
    for (uint32_t i = 0; i < CONTROL_WAY_SOCKETS; i++) {
        struct way_socket *s = &control->way.sockets[i];
        if (s->fd < 0 || now_ns < s->end_ns) {
            continue;
        }
        uint32_t index = s->index;
        socket_end(control, s, false);
        if (index != WAY_SOCKET_CAME) {
            connect_failed(control, index, -ETIMEDOUT);
        }
    }
    sodium_memzero(&out, sizeof(out));
    arm(control);
}

/* Whom the policy bars is given nothing, and nothing is asked of it. */
static const struct member *member_of(const struct control *control, uint32_t slot)
{
    const struct swim_member *peer = swim_at(gossip_swim(control->gossip), slot);
    const struct member *m = peer != NULL ? members_find(control->members, peer->record.id) : NULL;
    return m != NULL && m->alive && !m->barred ? m : NULL;
}

void control_way_receive(struct control *control, const struct letter *letter, uint64_t now_ns)
{
    struct way_out out;
    uint32_t model;
    uint32_t arithmetic;
    int status = -ENOTSUP;
    if (control->way.listen_fd < 0) {
        return;
    }
    if (member_of(control, letter->slot) == NULL) {
        status = -EACCES;
    } else if (ways_is_ask(letter->body, letter->size, &model, &arithmetic)) {
        status = control->hooks.way_taken(model, arithmetic, control->hooks.user);
    }
    ways_input(&control->way.ways, letter->slot, letter->body, letter->size, status, now_ns, &out);
    act(control, &out, now_ns);
    sodium_memzero(&out, sizeof(out));
    arm(control);
}

int control_way_open(const struct control *control)
{
    return control->way.listen_fd >= 0 ? 0 : control->way.listen_fd;
}

int control_way_want(struct control *control, uint16_t node, uint32_t model, uint32_t arithmetic,
                     uint64_t tag)
{
    uint8_t random[WAY_TICKET_BYTES + WAY_KEY_BYTES];
    uint64_t now_ns = clock_now_ns();
    if (control->gossip == NULL || control->way.listen_fd < 0) {
        return -ENOTSUP;
    }
    const struct swim *swim = gossip_swim(control->gossip);
    uint32_t slot = 1; /* 0 is this node */
    const struct swim_member *peer = NULL;
    for (; slot < swim_slots(swim); slot++) {
        peer = swim_at(swim, slot);
        if (peer != NULL && peer->record.id == node && member_of(control, slot) != NULL) {
            break;
        }
    }
    if (slot >= swim_slots(swim)) {
        return -ENOENT;
    }
    randombytes_buf(random, sizeof(random));
    int rc = ways_want(&control->way.ways, slot, model, arithmetic, tag, random, now_ns);
    sodium_memzero(random, sizeof(random));
    if (rc == 0) {
        /* Not from here: the caller hears of it by the hook, later. */
        loop_timer_arm(control->loop, control->way.timer, now_ns, 0);
    }
    return rc;
}

/* ---- connections ---- */

static void on_ticket(int fd, void *user)
{
    struct control *control = user;
    struct way_socket *s = socket_of(control, fd);
    uint8_t ticket[WAY_TICKET_BYTES];
    struct way way;
    /* One short write: it comes whole or from somebody else. */
    ssize_t got = recv(fd, ticket, sizeof(ticket), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    bool expected = got == (ssize_t)sizeof(ticket) &&
                    ways_came(&control->way.ways, ticket, clock_now_ns(), &way);
    socket_end(control, s, expected);
    if (!expected) {
        return;
    }
    const struct swim_member *from = swim_at(gossip_swim(control->gossip), way.slot);
    struct control_way came = {.fd = fd,
                               .node = from != NULL ? from->record.id : WEFT_NODE_NONE,
                               .model = way.model,
                               .arithmetic = way.arithmetic};
    memcpy(came.key, way.key, sizeof(came.key));
    control->hooks.on_way(&came, control->hooks.user);
    sodium_memzero(&came, sizeof(came));
    sodium_memzero(&way, sizeof(way));
}

static void on_connection(int listen_fd, void *user)
{
    struct control *control = user;
    int on = 1;
    int fd = loop_accept(control->loop, listen_fd);
    if (fd < 0) {
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    room_for_one_more(control);
    struct way_socket *s = socket_new(control, fd, clock_now_ns() + TICKET_NS);
    if (s == NULL || loop_watch(control->loop, fd, POLLIN, on_ticket, control) != 0) {
        if (s != NULL) {
            s->fd = -1;
        }
        close(fd);
        return;
    }
    arm(control);
}

/* ---- life ---- */

static int listen_on(const struct in6_addr *address, uint16_t port)
{
    struct sockaddr_storage own;
    socklen_t len = addr_to_socket(address, port, &own);
    int on = 1;
    int fd = socket(own.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (own.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) != 0) ||
        bind(fd, (struct sockaddr *)&own, len) != 0 || listen(fd, BACKLOG) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int control_way_create(struct control *control)
{
    const struct config *config = control->config;
    control->way.timer = loop_timer_add(control->loop, way_due, control);
    if (control->way.timer < 0) {
        return control->way.timer;
    }
    if (control->gossip == NULL || control->hooks.on_way == NULL ||
        control->hooks.on_way_done == NULL || control->hooks.way_taken == NULL) {
        return 0;
    }
    uint16_t port = config_control_port(config);
    int fd = listen_on(&config->members[config->self].address, port);
    control->way.listen_fd = fd;
    if (fd < 0) {
        LOG_WARN("sessions cannot move: TCP port=%u cannot be opened: %s", port, strerror(-fd));
        return 0;
    }
    return loop_watch(control->loop, fd, POLLIN, on_connection, control);
}

void control_way_init(struct control *control)
{
    control->way.listen_fd = -ENOTSUP;
    control->way.timer = -1;
    for (uint32_t i = 0; i < CONTROL_WAY_SOCKETS; i++) {
        control->way.sockets[i].fd = -1;
    }
}

void control_way_destroy(struct control *control)
{
    for (uint32_t i = 0; i < CONTROL_WAY_SOCKETS; i++) {
        if (control->way.sockets[i].fd >= 0) {
            close(control->way.sockets[i].fd);
        }
    }
    if (control->way.listen_fd >= 0) {
        close(control->way.listen_fd);
    }
    sodium_memzero(&control->way.ways, sizeof(control->way.ways));
}
