/* SPDX-License-Identifier: Apache-2.0 */
/* doors.c - see doors.h. */
#include "dataplane/doors.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dataplane/port/share.h"
#include "schemas/base/log.h"
#include "schemas/metrics.def"

#define CALLS_MAX 16u

/* A connection of a worker here: it can be called, or waits for its call. */
struct door {
    int fd; /* -1 = free */
    uint32_t generation;
    struct port_way_hello hello;
    struct port_way_figures figures;
};

struct doors {
    struct control *control;
    struct door serves[PORT_WORKERS_MAX];
    struct door calls[CALLS_MAX];
    struct port_way_figures gone; /* of those who have left, added up */
};

static struct door *door_in(struct door *all, uint32_t count, int fd)
{
    for (uint32_t i = 0; i < count; i++) {
        if (all[i].fd == fd) {
            return &all[i];
        }
    }
    return NULL;
}

/* What all of them count; `from` may be shorter than this node's. */
static void figures_add(struct port_way_figures *to, const struct port_way_figures *from)
{
#define MOVES_ADD_(name, kind, unit, text) to->name += from->name;
    WEFT_METRICS_MOVES(MOVES_ADD_)
#undef MOVES_ADD_
}

static void door_close(struct doors *d, struct door *door)
{
    control_unwatch(d->control, door->fd);
    close(door->fd);
    door->fd = -1;
    figures_add(&d->gone, &door->figures);
    memset(&door->figures, 0, sizeof(door->figures));
}

/* Figures, or its end. */
static void on_serve(int fd, void *user)
{
    struct doors *d = user;
    struct door *door = door_in(d->serves, PORT_WORKERS_MAX, fd);
    struct port_way_figures figures;
    ssize_t got = recv(fd, &figures, sizeof(figures), MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
        return;
    }
    if (got < (ssize_t)sizeof(figures) || figures.magic != PORT_WAY_MAGIC ||
        figures.version != PORT_WAY_VERSION) {
        door_close(d, door);
        return;
    }
    door->figures = figures;
}

/* Who calls says nothing more: readable means closed. */
static void on_call(int fd, void *user)
{
    struct doors *d = user;
    door_close(d, door_in(d->calls, CALLS_MAX, fd));
}

static void answer(int socket_fd, const struct control_way *way)
{
    struct port_way message = {
        .magic = PORT_WAY_MAGIC,
        .version = PORT_WAY_VERSION,
        .size = sizeof(message),
        .status = way->status,
        .node = way->node,
    };
    if (way->status == 0) {
        memcpy(message.key, way->key, sizeof(message.key));
    }
    (void)share_send(socket_fd, &message, sizeof(message), &way->fd, way->status == 0);
    explicit_bzero(&message, sizeof(message));
}

static void begin_call(struct doors *d, struct door *door)
{
    uint64_t tag = (uint64_t)door->generation << 32 | (uint64_t)(door - d->calls);
    const struct port_way_hello *hello = &door->hello;
    struct control_way none = {.node = hello->node, .fd = -1};
    none.status = control_way_want(d->control, hello->node, hello->model, hello->arithmetic, tag);
    if (none.status != 0) {
        answer(door->fd, &none);
        door_close(d, door);
    }
}

void doors_take(struct doors *d, int fd)
{
    struct port_way_hello hello;
    int rc =
        share_hello(fd, &hello, sizeof(hello), sizeof(hello), PORT_WAY_MAGIC, PORT_WAY_VERSION);
    bool serves = rc == 0 && hello.op == PORT_WAY_SERVE;
    struct door *door = NULL;
    if (rc == 0 && (serves || hello.op == PORT_WAY_CALL) && hello.arithmetic != 0) {
        door = serves ? door_in(d->serves, PORT_WORKERS_MAX, -1) : door_in(d->calls, CALLS_MAX, -1);
    }
    if (door == NULL || control_watch(d->control, fd, serves ? on_serve : on_call, d) != 0) {
        LOG_DEBUG("no way for who asks for one: %s", rc != 0 ? strerror(-rc) : "no room");
        close(fd);
        return;
    }
    door->fd = fd;
    door->generation++;
    door->hello = hello;
    if (!serves) {
        begin_call(d, door);
    }
}

static struct door *server_of(struct doors *d, uint32_t model, uint32_t arithmetic)
{
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        struct door *door = &d->serves[i];
        if (door->fd >= 0 && door->hello.model == model && door->hello.arithmetic == arithmetic) {
            return door;
        }
    }
    return NULL;
}

int doors_have(const struct doors *d, uint32_t model, uint32_t arithmetic)
{
    return server_of((struct doors *)(uintptr_t)d, model, arithmetic) != NULL ? 0 : -ESTALE;
}

void doors_came(struct doors *d, const struct control_way *way)
{
    struct door *door = server_of(d, way->model, way->arithmetic);
    if (door != NULL) {
        answer(door->fd, way);
    }
    close(way->fd);
}

void doors_done(struct doors *d, const struct control_way *way)
{
    uint32_t index = (uint32_t)way->tag;
    struct door *door = index < CALLS_MAX ? &d->calls[index] : NULL;
    if (door != NULL && door->fd >= 0 && door->generation == (uint32_t)(way->tag >> 32)) {
        answer(door->fd, way);
        door_close(d, door);
    }
    if (way->fd >= 0) {
        close(way->fd);
    }
}

void doors_status(const struct doors *d, json_t *status)
{
    struct port_way_figures sum = d->gone;
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        if (d->serves[i].fd >= 0) {
            figures_add(&sum, &d->serves[i].figures);
        }
    }
    json_t *moves = json_object();
#define MOVES_JSON_(name, kind, unit, text)                                                        \
    json_object_set_new(moves, #name, json_integer((json_int_t)sum.name));
    WEFT_METRICS_MOVES(MOVES_JSON_)
#undef MOVES_JSON_
    json_object_set_new(status, "moves", moves);
}

int doors_create(struct doors **out)
{
    struct doors *d = calloc(1, sizeof(*d));
    *out = d;
    if (d == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        d->serves[i].fd = -1;
    }
    for (uint32_t i = 0; i < CALLS_MAX; i++) {
        d->calls[i].fd = -1;
    }
    return 0;
}

void doors_start(struct doors *d, struct control *control)
{
    d->control = control;
}

void doors_destroy(struct doors *d)
{
    if (d == NULL) {
        return;
    }
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        share_close(d->serves[i].fd);
    }
    for (uint32_t i = 0; i < CALLS_MAX; i++) {
        share_close(d->calls[i].fd);
    }
    free(d);
}
