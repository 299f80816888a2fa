/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - see control.h: life, timing, draining. */
#include "controlplane/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "controlplane/control_impl.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"

/* ---- timing ---- */

void control_publish(struct control *control, uint64_t now_ns)
{
    if (members_version(control->members) == control->published_version) {
        return;
    }
    if (now_ns < control->published_ns + CONTROL_PUBLISH_NS) {
        if (!control->publish_armed) {
            control->publish_armed = true;
            loop_timer_arm(control->loop, control->publish_timer,
                           control->published_ns + CONTROL_PUBLISH_NS, 0);
        }
        return;
    }
    control->published_version = members_version(control->members);
    control->published_ns = now_ns;
    if (control->hooks.on_members != NULL) {
        control->hooks.on_members(control->members, now_ns, control->hooks.user);
    }
}

static void publish_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    control->publish_armed = false;
    control_publish(control, now_ns);
}

static void send_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    if (control->gossip == NULL) { /* a beacon carries what is so now */
        mesh_facts_take(control, false, now_ns);
    }
    mesh_send(control, now_ns);
}

static void touch_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    control->touch_armed = false;
    control->touched_ns = now_ns;
    mesh_facts_take(control, true, now_ns);
    mesh_send(control, now_ns);
}

static void datagrams_receive(int fd, void *user)
{
    (void)fd;
    mesh_receive(user, clock_now_ns());
}

/* ---- orders from other threads and signal handlers ---- */

static void order_give(int fd)
{
    int saved = errno; /* a signal handler must leave it alone */
    uint64_t one = 1;
    ssize_t put = write(fd, &one, sizeof(one));
    (void)put; /* full: it is readable already */
    errno = saved;
}

static void order_take(int fd)
{
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof(count));
    (void)got;
}

static int order_open(struct control *control, int *fd, void (*fn)(int fd, void *user))
{
    *fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return *fd < 0 ? -errno : loop_watch(control->loop, *fd, POLLIN, fn, control);
}

static void drained_check(struct control *control, uint64_t now_ns)
{
    if (control->drain_ns == 0) {
        return;
    }
    uint64_t least_ns = control->drain_told ? CONTROL_LEAVE_NS : 0;
    uint64_t most_ns = control->drain_told ? CONTROL_DRAIN_NS : CONTROL_ALONE_NS;
    bool busy = control->hooks.busy != NULL && control->hooks.busy(now_ns, control->hooks.user);
    if (now_ns < control->drain_ns + least_ns || (busy && now_ns < control->drain_ns + most_ns)) {
        return;
    }
    if (busy) {
        LOG_WARN("requests are still under way after %llu s; not waiting for them any longer",
                 (unsigned long long)(most_ns / NS_PER_S));
    }
    control->drain_ns = 0;
    control->hooks.on_drained(control->hooks.user);
}

static void drain_begin(int fd, void *user)
{
    struct control *control = user;
    order_take(fd);
    if (control->leaving || control->hooks.on_drained == NULL) {
        return;
    }
    uint64_t now_ns = clock_now_ns();
    control->drain_told = mesh_leave(control, now_ns);
    control->drain_ns = now_ns;
    control->leaving = true;
    LOG_INFO(control->drain_told ? "leaving the mesh" : "draining");
    if (control->hooks.drain != NULL) {
        control->hooks.drain(now_ns, control->hooks.user);
    }
    drained_check(control, now_ns);
}

void control_drain(struct control *control)
{
    order_give(control->drain_fd);
}

static void reload(int fd, void *user)
{
    order_take(fd);
    mesh_reload(user);
}

void control_reload(struct control *control)
{
    order_give(control->reload_fd);
}

static void tick_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    /* A node alone sends nothing; its own facts are still taken. */
    mesh_facts_take(control, false, now_ns);
    if (control->hooks.on_tick != NULL) {
        control->hooks.on_tick(now_ns, control->hooks.user);
    }
    if (control->gossip != NULL) {
        mesh_send(control, now_ns); /* new facts may be due to be told */
    }
    control_publish(control, now_ns);
    drained_check(control, now_ns);
}

/* ---- life ---- */

static json_t *command_answer(const char *command, void *user)
{
    return strcmp(command, "status") == 0 ? control_status(user) : NULL;
}

/* `join` takes an argument: a session that never is one, and so never ends. */
static json_t *join_open(const json_t *request, int *fd, void *user)
{
    (void)fd;
    return mesh_join(user, request);
}

static void join_close(void *user)
{
    (void)user;
}

static int admin_begin(struct control *control)
{
    const struct admin_session join = {
        .command = "join", .open = join_open, .close = join_close, .user = control};
    int rc = admin_create(&control->admin, control->loop, control->config->sockets.admin,
                          command_answer, control);
    return rc == 0 ? admin_offer(control->admin, &join) : rc;
}

static int timers_create(struct control *control)
{
    control->send_timer = loop_timer_add(control->loop, send_due, control);
    control->publish_timer = loop_timer_add(control->loop, publish_due, control);
    control->touch_timer = loop_timer_add(control->loop, touch_due, control);
    control->tick_timer = loop_timer_add(control->loop, tick_due, control);
    return control->tick_timer < 0 ? control->tick_timer : 0;
}

static int control_port_open(struct control *control)
{
    const struct config *config = control->config;
    const struct in6_addr *address = &config->members[config->self].address;
    uint16_t port = config_control_port(config);
    int rc = udp_open_patiently(&control->fd, address, &port);
    if (rc < 0) {
        char text[ADDR_TEXT_MAX];
        LOG_ERROR(
            "control port cannot be opened address=%s port=%u error=\"%s\"%s",
            addr_format(address, text), port, strerror(-rc),
            rc == -EADDRNOTAVAIL
                ? " hint=\"no interface of this machine has had that address for two seconds; "
                  "give one to it\""
            : rc == -EADDRINUSE
                ? " hint=\"another process has had that port for two seconds; is a weftd "
                  "running here?\""
                : "");
        return rc;
    }
    return loop_watch(control->loop, control->fd, POLLIN, datagrams_receive, control);
}

int control_create(struct control **out, const struct config *config, const struct keys *keys,
                   const struct control_hooks *hooks)
{
    *out = NULL;
    struct control *control = calloc(1, sizeof(*control));
    if (control == NULL) {
        return -ENOMEM;
    }
    control->config = config;
    control->hooks = *hooks;
    control->fd = -1;
    control->drain_fd = -1;
    control->reload_fd = -1;
    control_way_init(control);
    control->started_ns = clock_now_ns();
    int rc = mesh_create(control, keys);
    if (rc == 0) {
        rc = loop_create(&control->loop);
    }
    if (rc == 0) {
        rc = timers_create(control);
    }
    if (rc == 0) {
        rc = control_port_open(control);
    }
    if (rc == 0) {
        rc = control_way_create(control);
    }
    if (rc == 0) {
        rc = order_open(control, &control->drain_fd, drain_begin);
    }
    if (rc == 0) {
        rc = order_open(control, &control->reload_fd, reload);
    }
    if (rc == 0) {
        rc = admin_begin(control);
    }
    if (rc == 0) {
        rc = zone_query_offer(control);
    }
    if (rc < 0) {
        control_destroy(control);
        return rc;
    }
    *out = control;
    return 0;
}

int control_run(struct control *control)
{
    uint64_t now_ns = clock_now_ns();
    loop_timer_arm(control->loop, control->tick_timer, now_ns + CONTROL_TICK_NS, CONTROL_TICK_NS);
    mesh_facts_take(control, false, now_ns);
    mesh_send(control, now_ns);
    return loop_run(control->loop);
}

void control_stop(struct control *control)
{
    loop_stop(control->loop);
}

void control_destroy(struct control *control)
{
    if (control == NULL) {
        return;
    }
    admin_destroy(control->admin);
    loop_destroy(control->loop);
    const int fds[] = {control->fd, control->drain_fd, control->reload_fd};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    control_way_destroy(control);
    mesh_destroy(control);
    free(control);
}

int control_watch(struct control *control, int fd, void (*fn)(int fd, void *user), void *user)
{
    return loop_watch(control->loop, fd, POLLIN, fn, user);
}

void control_unwatch(struct control *control, int fd)
{
    loop_unwatch(control->loop, fd);
}

int control_accept(struct control *control, int listen_fd)
{
    return loop_accept(control->loop, listen_fd);
}

int control_offer(struct control *control, const struct admin_session *session)
{
    return admin_offer(control->admin, session);
}

void control_touch(struct control *control)
{
    if (control->touch_armed) {
        return;
    }
    /* Not from here: a callback may touch from anywhere, also from local_facts. */
    control->touch_armed = true;
    loop_timer_arm(control->loop, control->touch_timer, control->touched_ns + CONTROL_PUBLISH_NS,
                   0);
}

const struct members *control_members(const struct control *control)
{
    return control->members;
}
