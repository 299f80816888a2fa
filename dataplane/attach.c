/* SPDX-License-Identifier: Apache-2.0 */
/* attach.c - see attach.h. */
#include "dataplane/attach.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "schemas/base/clock.h"
#include "schemas/base/log.h"
#include "schemas/metrics.def"

#define PENDING_MAX      8u
#define HELLO_TIMEOUT_NS (2 * NS_PER_S)

/* A connection that has not said hello yet. */
struct pending {
    int fd; /* -1 = free */
    uint64_t since_ns;
    bool next; /* a worker that waits for its predecessor to be let go of */
};

struct attach {
    const struct config *config;
    struct core *core;
    struct control *control;
    int listen_fd;
    struct pending pending[PENDING_MAX];
    struct port *port;  /* the worker attached, or the one being let go of */
    uint64_t told_word; /* load word last told to the members */
    uint16_t room_most; /* that the worker ever had */
    struct client_port *clients[PORT_CLIENTS_MAX]; /* by slot, as well */
    uint32_t generations[PORT_CLIENTS_MAX];
};

/* ---- hellos ---- */

static struct pending *pending_find(struct attach *a, int fd)
{
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (a->pending[i].fd == fd) {
            return &a->pending[i];
        }
    }
    return NULL;
}

static void pending_drop(struct attach *a, struct pending *p)
{
    control_unwatch(a->control, p->fd);
    close(p->fd);
    p->fd = -1;
}

/* It is nobody's pending connection any more; the descriptor stays open. */
static void pending_end(struct attach *a, struct pending *p)
{
    control_unwatch(a->control, p->fd);
    p->fd = -1;
}

static void refuse(struct attach *a, struct pending *p, int status)
{
    int fd = p->fd;
    pending_end(a, p);
    port_refuse(fd, status);
}

static struct port_self self_of(const struct attach *a)
{
    const struct config_member *self = &a->config->members[a->config->self];
    const struct members *members = control_members(a->control);
    return (struct port_self){
        .node_id = members_at(members, members_self(members))->id, /* gossip may have changed it */
        .tier = (uint8_t)self->tier,
        .node_name = self->name,
    };
}

/* ---- the worker ---- */

/* The socket carries nothing after the hello: readable means closed. */
static void on_worker_readable(int fd, void *user)
{
    struct attach *a = user;
    control_unwatch(a->control, fd);
    LOG_WARN("worker gone model=%s pid=%u", a->port->facts.model, a->port->facts.pid);
    atomic_store_explicit(&a->port->lost, true, memory_order_release);
    core_wake(a->core);
    control_touch(a->control);
}

static bool port_serves(const struct port *port)
{
    return port != NULL && !atomic_load(&port->lost);
}

/* The attached worker has ended, whether that was noticed before or not. */
static bool worker_has_ended(struct attach *a)
{
    uint8_t byte;
    if (port_serves(a->port) &&
        recv(a->port->socket_fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) == 0) {
        on_worker_readable(a->port->socket_fd, a);
    }
    return !port_serves(a->port);
}

static void attach_worker(struct attach *a, struct pending *p)
{
    struct port_self about = self_of(a);
    struct port *port;
    int fd = p->fd;
    if (a->port != NULL && worker_has_ended(a)) {
        control_unwatch(a->control, fd);
        p->next = true;
        return;
    }
    if (a->port != NULL) {
        LOG_WARN("worker refused: this node has one already model=%s", a->port->facts.model);
        refuse(a, p, -EBUSY);
        return;
    }
    int rc = port_open(&port, fd, &about);
    if (rc != 0) {
        LOG_WARN("worker refused: %s",
                 rc == -EPROTO ? "not a Weft worker of this version" : strerror(-rc));
        pending_drop(a, p);
        return;
    }
    pending_end(a, p);
    if (control_watch(a->control, fd, on_worker_readable, a) != 0) {
        LOG_ERROR("cannot attach worker model=%s", port->facts.model);
        port_destroy(port);
        return;
    }
    if (core_attach(a->core, port) != 0) {
        LOG_ERROR("cannot attach worker model=%s", port->facts.model);
        control_unwatch(a->control, fd);
        port_destroy(port);
        return;
    }
    a->port = port;
    a->room_most = 0;
    LOG_INFO("worker attached model=%s backend=%s pid=%u prefill_tps=%u decode_tps=%u",
             port->facts.model, port->facts.backend, port->facts.pid,
             port->facts.prefill_per_second, port->facts.decode_per_second);
    control_touch(a->control);
}

static void reap_worker(struct attach *a)
{
    if (a->port != NULL && atomic_load_explicit(&a->port->released, memory_order_acquire)) {
        core_detach(a->core, a->port);
        port_destroy(a->port);
        a->port = NULL;
    }
    for (uint32_t i = 0; i < PENDING_MAX && a->port == NULL; i++) {
        if (a->pending[i].fd >= 0 && a->pending[i].next) {
            attach_worker(a, &a->pending[i]);
        }
    }
}

/* ---- clients ---- */

/* A client never writes to its socket after the hello: readable means closed. */
static void on_client_readable(int fd, void *user)
{
    struct attach *a = user;
    control_unwatch(a->control, fd);
    for (uint32_t i = 0; i < PORT_CLIENTS_MAX; i++) {
        struct client_port *port = a->clients[i];
        if (port != NULL && port->socket_fd == fd) {
            LOG_DEBUG("client gone program=%s pid=%d", port->program, (int)port->pid);
            atomic_store_explicit(&port->lost, true, memory_order_release);
            core_wake(a->core);
        }
    }
}

static uint32_t free_slot(const struct attach *a)
{
    uint32_t slot = 0;
    while (slot < PORT_CLIENTS_MAX && a->clients[slot] != NULL) {
        slot++;
    }
    return slot;
}

static void attach_client(struct attach *a, struct pending *p)
{
    struct port_self about = self_of(a);
    struct client_port *port;
    uint32_t slot = free_slot(a);
    int fd = p->fd;
    if (slot == PORT_CLIENTS_MAX) {
        LOG_WARN("client refused: %u are attached already", PORT_CLIENTS_MAX);
        refuse(a, p, -EBUSY);
        return;
    }
    int rc = client_port_open(&port, fd, &about);
    if (rc != 0) {
        LOG_WARN("client refused: %s",
                 rc == -EPROTO ? "not a Weft client of this version" : strerror(-rc));
        pending_drop(a, p);
        return;
    }
    pending_end(a, p);
    port->slot = slot;
    port->generation = ++a->generations[slot];
    rc = control_watch(a->control, fd, on_client_readable, a);
    if (rc == 0 && (rc = core_attach_client(a->core, port)) != 0) {
        control_unwatch(a->control, fd);
    }
    if (rc != 0) {
        LOG_ERROR("cannot attach client program=%s: %s", port->program, strerror(-rc));
        client_port_destroy(port);
        return;
    }
    a->clients[slot] = port;
    LOG_DEBUG("client attached program=%s pid=%d uid=%u", port->program, (int)port->pid,
              (unsigned)port->uid);
}

static void reap_clients(struct attach *a)
{
    for (uint32_t i = 0; i < PORT_CLIENTS_MAX; i++) {
        struct client_port *port = a->clients[i];
        if (port != NULL && atomic_load_explicit(&port->released, memory_order_acquire)) {
            core_detach_client(a->core, port);
            client_port_destroy(port);
            a->clients[i] = NULL;
        }
    }
}

/* ---- what the control thread calls ---- */

static void on_hello(int fd, void *user)
{
    struct attach *a = user;
    struct pending *p = pending_find(a, fd);
    int kind = p != NULL ? port_kind(fd) : -EAGAIN;
    if (kind == PORT_KIND_WORKER) {
        attach_worker(a, p);
    } else if (kind == PORT_KIND_CLIENT) {
        reap_clients(a); /* one that has just gone leaves its place */
        attach_client(a, p);
    } else if (kind != -EAGAIN) {
        LOG_WARN("not attached: %s",
                 kind == -EPROTO ? "neither a Weft worker nor a client" : strerror(-kind));
        pending_drop(a, p);
    }
}

static void on_connect(int listen_fd, void *user)
{
    struct attach *a = user;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    struct pending *p = pending_find(a, -1);
    if (p == NULL || control_watch(a->control, fd, on_hello, a) != 0) {
        port_refuse(fd, -EBUSY);
        return;
    }
    *p = (struct pending){.fd = fd, .since_ns = clock_now_ns()};
}

void attach_tick(struct attach *a, uint64_t now_ns)
{
    reap_worker(a);
    reap_clients(a);
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (a->pending[i].fd >= 0 && now_ns - a->pending[i].since_ns > HELLO_TIMEOUT_NS) {
            pending_drop(a, &a->pending[i]);
        }
    }
    if (port_serves(a->port)) {
        uint64_t word = atomic_load_explicit(&a->port->shm->load, memory_order_relaxed);
        if (word != a->told_word) {
            control_touch(a->control);
        }
    }
}

void attach_facts(struct attach *a, struct members_facts *facts)
{
    if (!port_serves(a->port)) {
        return;
    }
    const struct port_hello *hello = &a->port->facts;
    struct port_load load = port_load_now(a->port);
    memcpy(&a->told_word, &load, sizeof(load));
    a->room_most = load.room > a->room_most ? load.room : a->room_most;
    facts->room = load.room;
    facts->queue_us = load.queue_us;
    facts->free_vram_mib = load.free_vram_64mib * WEFT_VRAM_UNIT_MIB;
    struct port_rates rates = port_rates_now(a->port);
    facts->prefill_tps = rates.prefill_per_second;
    facts->decode_tps = rates.decode_per_second;
    facts->context_tokens = hello->context_tokens;
    memcpy(facts->backend, hello->backend, sizeof(facts->backend));
    facts->model_count = 1;
    facts->models[0].id = weft_model_id(hello->model);
    memcpy(facts->models[0].name, hello->model, sizeof(facts->models[0].name));
}

bool attach_busy(const struct attach *a)
{
    return port_serves(a->port) && port_load_now(a->port).room < a->room_most;
}

/* ---- status ---- */

static json_t *worker_status(const struct port *port)
{
    json_t *worker = json_object();
    json_object_set_new(worker, "attached", json_boolean(port_serves(port)));
    if (port_serves(port)) {
        struct port_load load = port_load_now(port);
        json_object_set_new(worker, "model", json_string(port->facts.model));
        json_object_set_new(worker, "backend", json_string(port->facts.backend));
        json_object_set_new(worker, "pid", json_integer(port->facts.pid));
        json_object_set_new(worker, "context_tokens", json_integer(port->facts.context_tokens));
        json_object_set_new(worker, "room", json_integer(load.room));
        json_object_set_new(worker, "queue_us", json_integer(load.queue_us));
        json_object_set_new(worker, "free_vram_mib",
                            json_integer(load.free_vram_64mib * WEFT_VRAM_UNIT_MIB));
    }
    return worker;
}

static json_t *client_status(const struct client_port *port)
{
    json_t *client = json_pack("{s:s, s:i, s:i}", "program", port->program, "pid", (int)port->pid,
                               "uid", (int)port->uid);
#define CLIENT_FIGURE_(name, kind, unit, text)                                                     \
    json_object_set_new(client, #name, json_integer((json_int_t)atomic_load(&port->name)));
    WEFT_METRICS_CLIENT(CLIENT_FIGURE_)
    return client;
}

void attach_status(const struct attach *a, json_t *status)
{
    json_t *clients = json_array();
    for (uint32_t i = 0; i < PORT_CLIENTS_MAX; i++) {
        if (a->clients[i] != NULL && !atomic_load(&a->clients[i]->lost)) {
            json_array_append_new(clients, client_status(a->clients[i]));
        }
    }
    json_object_set_new(status, "worker", worker_status(a->port));
    json_object_set_new(status, "clients", clients);
}

/* ---- life ---- */

/* A socket file of a weftd that is gone is replaced; one that still answers is not. */
static int listen_on(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path); /* length checked by config */
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    int rc = 0;
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0) {
        rc = -EADDRINUSE;
    } else if (errno == ECONNREFUSED) {
        unlink(path);
    }
    if (rc == 0 && (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
                    chmod(path, S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) != 0 ||
                    listen(fd, (int)PENDING_MAX) != 0)) {
        rc = -errno;
    }
    if (rc != 0) {
        close(fd);
        return rc;
    }
    return fd;
}

int attach_create(struct attach **out, const struct config *config, struct core *core)
{
    *out = NULL;
    struct attach *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return -ENOMEM;
    }
    a->config = config;
    a->core = core;
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        a->pending[i].fd = -1;
    }
    a->listen_fd = listen_on(config->sockets.port);
    if (a->listen_fd < 0) {
        int rc = a->listen_fd;
        LOG_ERROR("cannot open socket %s: %s", config->sockets.port, strerror(-rc));
        attach_destroy(a);
        return rc;
    }
    *out = a;
    return 0;
}

void attach_destroy(struct attach *a)
{
    if (a == NULL) {
        return;
    }
    if (a->listen_fd >= 0) {
        close(a->listen_fd);
        unlink(a->config->sockets.port);
    }
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (a->pending[i].fd >= 0) {
            close(a->pending[i].fd);
        }
    }
    for (uint32_t i = 0; i < PORT_CLIENTS_MAX; i++) {
        client_port_destroy(a->clients[i]);
    }
    port_destroy(a->port);
    free(a);
}

int attach_start(struct attach *a, struct control *control)
{
    a->control = control;
    return control_watch(control, a->listen_fd, on_connect, a);
}
