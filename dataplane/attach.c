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
#include <weft/worker.h>

#include "dataplane/doors.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"
#include "schemas/base/socket_file.h"
#include "schemas/metrics.def"

#define PENDING_MAX      64u /* all that may attach, and their ways, at once */
#define HELLO_TIMEOUT_NS (2 * NS_PER_S)

/* A connection that has not said hello yet. */
struct pending {
    int fd; /* -1 = free */
    uint64_t since_ns;
    bool next; /* it waits for its predecessor to be let go of */
};

struct attach {
    const struct config *config;
    struct core *core;
    struct doors *doors;
    struct control *control;
    int listen_fd;
    struct pending pending[PENDING_MAX];
    struct port *workers[PORT_WORKERS_MAX]; /* by slot: attached, or being let go of */
    uint16_t room_most[PORT_WORKERS_MAX];   /* that each ever had */
    struct speeds speeds[PORT_WORKERS_MAX]; /* of each, as last told to the members */
    uint64_t told_words;                    /* sum over the load words last told to the members */
    bool draining;
    bool resting;                                  /* the same, until it is taken back */
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

/* Its predecessor has ended, but the lcore has not let go of it yet. */
static void wait_its_turn(struct attach *a, struct pending *p)
{
    control_unwatch(a->control, p->fd);
    p->next = true;
}

/* Whether that was told already or not. */
static bool has_closed(int fd)
{
    uint8_t byte;
    return recv(fd, &byte, sizeof(byte), MSG_PEEK | MSG_DONTWAIT) == 0;
}

/* ---- workers ---- */

static bool port_serves(const struct port *port)
{
    return port != NULL && !atomic_load(&port->lost);
}

static void worker_ends(struct attach *a, struct port *port)
{
    control_unwatch(a->control, port->socket_fd);
    LOG_WARN("worker gone model=%s pid=%u", port->facts.model, port->facts.pid);
    atomic_store_explicit(&port->lost, true, memory_order_release);
    core_wake(a->core);
    control_touch(a->control);
}

/* The socket carries nothing after the hello: readable means closed. */
static void on_worker_readable(int fd, void *user)
{
    struct attach *a = user;
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        if (port_serves(a->workers[i]) && a->workers[i]->socket_fd == fd) {
            worker_ends(a, a->workers[i]);
        }
    }
}

/* A slot for one more, or PORT_WORKERS_MAX. `*leaving`: one will be free in a moment, for its
 * worker has ended, whether that was noticed before or not. */
static uint32_t worker_slot(struct attach *a, bool *leaving)
{
    uint32_t slot = PORT_WORKERS_MAX;
    *leaving = false;
    for (uint32_t i = PORT_WORKERS_MAX; i-- > 0;) {
        struct port *port = a->workers[i];
        if (port_serves(port) && has_closed(port->socket_fd)) {
            worker_ends(a, port);
        }
        slot = port == NULL ? i : slot;
        *leaving = *leaving || (port != NULL && !port_serves(port));
    }
    return slot;
}

static void attach_worker(struct attach *a, struct pending *p)
{
    struct port_self about = self_of(a);
    struct port *port;
    bool leaving;
    uint32_t slot = worker_slot(a, &leaving);
    int fd = p->fd;
    if (slot == PORT_WORKERS_MAX && leaving) {
        wait_its_turn(a, p);
        return;
    }
    if (slot == PORT_WORKERS_MAX) {
        LOG_WARN("worker refused: %u are attached already", PORT_WORKERS_MAX);
        refuse(a, p, -EBUSY);
        return;
    }
    int rc = port_open(&port, fd, &about);
    if (rc != 0) {
        LOG_WARN("worker refused: %s",
                 rc == -EPROTO   ? "not a Weft worker of this version"
                 : rc == -EINVAL ? "the model's name or the backend's is no printable word"
                                 : strerror(-rc));
        pending_drop(a, p);
        return;
    }
    pending_end(a, p);
    port->slot = slot;
    atomic_store(&port->rests, a->resting);
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
    a->workers[slot] = port;
    a->room_most[slot] = 0;
    a->speeds[slot] = (struct speeds){.prefill = 0};
    LOG_INFO("worker attached model=%s backend=%s pid=%u prefill_tps=%u decode_tps=%u",
             port->facts.model, port->facts.backend, port->facts.pid,
             port->facts.prefill_per_second, port->facts.decode_per_second);
    control_touch(a->control);
}

static void reap_workers(struct attach *a)
{
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        struct port *port = a->workers[i];
        if (port != NULL && atomic_load_explicit(&port->released, memory_order_acquire)) {
            core_detach(a->core, port);
            port_destroy(port);
            a->workers[i] = NULL;
        }
    }
}

/* Those who serve. Returns how many. */
static uint32_t serving(const struct attach *a, struct port *ports[PORT_WORKERS_MAX])
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        if (port_serves(a->workers[i])) {
            ports[count++] = a->workers[i];
        }
    }
    return count;
}

/* ---- clients ---- */

static void client_ends(struct attach *a, struct client_port *port)
{
    control_unwatch(a->control, port->socket_fd);
    LOG_DEBUG("client gone program=%s pid=%d", port->program, (int)port->pid);
    atomic_store_explicit(&port->lost, true, memory_order_release);
    core_wake(a->core);
}

static bool client_is_there(const struct client_port *port)
{
    return port != NULL && !atomic_load(&port->lost);
}

/* A client never writes to its socket after the hello: readable means closed. */
static void on_client_readable(int fd, void *user)
{
    struct attach *a = user;
    for (uint32_t i = 0; i < PORT_CLIENTS_MAX; i++) {
        if (client_is_there(a->clients[i]) && a->clients[i]->socket_fd == fd) {
            client_ends(a, a->clients[i]);
        }
    }
}

/* As worker_slot(). */
static uint32_t client_slot(struct attach *a, bool *leaving)
{
    uint32_t slot = PORT_CLIENTS_MAX;
    *leaving = false;
    for (uint32_t i = PORT_CLIENTS_MAX; i-- > 0;) {
        struct client_port *port = a->clients[i];
        if (client_is_there(port) && has_closed(port->socket_fd)) {
            client_ends(a, port);
        }
        slot = port == NULL ? i : slot;
        *leaving = *leaving || (port != NULL && !client_is_there(port));
    }
    return slot;
}

static void attach_client(struct attach *a, struct pending *p)
{
    struct port_self about = self_of(a);
    struct client_port *port;
    bool leaving;
    uint32_t slot = client_slot(a, &leaving);
    int fd = p->fd;
    if (slot == PORT_CLIENTS_MAX && leaving) {
        wait_its_turn(a, p);
        return;
    }
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

static void hello_take(struct attach *a, struct pending *p)
{
    int fd = p->fd;
    int kind = port_kind(fd);
    if (kind == PORT_KIND_WORKER) {
        attach_worker(a, p);
    } else if (kind == PORT_KIND_CLIENT) {
        attach_client(a, p);
    } else if (kind == PORT_KIND_WAY) {
        pending_end(a, p);
        doors_take(a->doors, fd);
    } else if (kind != -EAGAIN) {
        LOG_WARN("not attached: %s",
                 kind == -EPROTO ? "neither a Weft worker nor a client" : strerror(-kind));
        pending_drop(a, p);
    }
}

/* Who has ended leaves a place to who waits for it. */
static void reap(struct attach *a)
{
    reap_workers(a);
    reap_clients(a);
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (a->pending[i].fd >= 0 && a->pending[i].next) {
            hello_take(a, &a->pending[i]);
        }
    }
}

static void on_hello(int fd, void *user)
{
    struct attach *a = user;
    reap(a);
    struct pending *p = pending_find(a, fd);
    if (p != NULL) {
        hello_take(a, p);
    }
}

static void on_connect(int listen_fd, void *user)
{
    struct attach *a = user;
    int fd = control_accept(a->control, listen_fd);
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

/* Changes with the load of any worker, and with what it tells of its prompts. */
static uint64_t load_words(const struct attach *a)
{
    struct port *ports[PORT_WORKERS_MAX];
    uint32_t count = serving(a, ports);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        sum += atomic_load_explicit(&ports[i]->shm->load, memory_order_relaxed) * (2 * i + 1);
        sum += atomic_load_explicit(&ports[i]->shm->prefixes.count, memory_order_relaxed) << 32;
    }
    return sum;
}

void attach_tick(struct attach *a, uint64_t now_ns)
{
    reap(a);
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (a->pending[i].fd >= 0 && now_ns - a->pending[i].since_ns > HELLO_TIMEOUT_NS) {
            pending_drop(a, &a->pending[i]);
        }
    }
    if (load_words(a) != a->told_words) {
        control_touch(a->control);
    }
}

/* ---- what the mesh is told ---- */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint8_t byte_of(uint32_t count)
{
    return (uint8_t)least(count, UINT8_MAX);
}

/* How fast this worker is, brought up to date. What it has is what its room says: the figures of
 * what runs are of another moment, and would be told beside each new load. */
static const struct speeds *speeds_now(struct attach *a, const struct port *port)
{
    struct speeds *told = &a->speeds[port->slot];
    struct port_rates rates = port_rates_now(port);
    struct port_figures figures = port_figures_now(port);
    const uint32_t decode[SPEEDS_BATCHES] = {rates.decode_per_second, figures.decode_tps_2,
                                             figures.decode_tps_4, figures.decode_tps_8};
    uint16_t room = port_room_told(port);
    uint16_t *most = &a->room_most[port->slot];
    *most = room > *most ? room : *most;
    told->prefill = speeds_code(rates.prefill_per_second, told->prefill);
    for (uint32_t i = 0; i < SPEEDS_BATCHES; i++) {
        told->decode[i] = speeds_code(decode[i], told->decode[i]);
    }
    told->memory = speeds_code(figures.memory_mib, told->memory);
    told->slots = byte_of(figures.slots);
    told->running = byte_of(*most - room);
    return told;
}

/* Of the node the slower speeds of several models and the shorter context, so that no prediction is
 * too good where nothing is known of a model. */
static void facts_add(struct members_facts *facts, const struct port *port,
                      const struct speeds *speeds)
{
    const struct port_hello *hello = &port->facts;
    struct port_rates rates = port_rates_now(port);
    bool first = facts->model_count == 0;
    for (uint32_t i = 0; i < facts->model_count; i++) {
        if (facts->models[i].id == port->model) { /* a second worker, taken to be like the first */
            struct speeds *first_of = &facts->models[i].speeds;
            if (speeds->running < first_of->running) { /* it would get the next request */
                first_of->slots = speeds->slots;
                first_of->running = speeds->running;
            }
            return;
        }
    }
    if (facts->model_count == MEMBERS_MODELS_MAX) {
        return;
    }
    struct members_model *model = &facts->models[facts->model_count++];
    model->id = port->model;
    model->arithmetic = hello->arithmetic;
    model->speeds = *speeds;
    memcpy(model->name, hello->model, sizeof(model->name));
    if (first) {
        facts->prefill_tps = rates.prefill_per_second;
        facts->decode_tps = rates.decode_per_second;
        facts->context_tokens = hello->context_tokens;
        memcpy(facts->backend, hello->backend, sizeof(facts->backend));
        return;
    }
    facts->prefill_tps = least(facts->prefill_tps, rates.prefill_per_second);
    facts->decode_tps = least(facts->decode_tps, rates.decode_per_second);
    facts->context_tokens = least(facts->context_tokens, hello->context_tokens);
    if (strncmp(facts->backend, hello->backend, sizeof(facts->backend)) != 0) {
        memset(facts->backend, 0, sizeof(facts->backend));
        memcpy(facts->backend, "mixed", 5);
    }
}

/* The newest of each worker in turn. */
static void facts_add_prefixes(struct members_facts *facts, struct port *const *ports,
                               uint32_t count)
{
    uint64_t told[PORT_WORKERS_MAX][PORT_PREFIXES] = {{0}};
    uint32_t used = 0;
    for (uint32_t i = 0; i < count; i++) {
        (void)port_prefixes_now(ports[i], told[i], PORT_PREFIXES);
    }
    for (uint32_t n = 0; n < PORT_PREFIXES; n++) {
        for (uint32_t i = 0; i < count && used < MEMBERS_PREFIXES; i++) {
            if (told[i][n] != 0) {
                facts->prefixes[used++] = told[i][n];
            }
        }
    }
}

void attach_facts(struct attach *a, struct members_facts *facts)
{
    struct port *ports[PORT_WORKERS_MAX];
    uint32_t count = serving(a, ports);
    a->told_words = load_words(a);
    if (count == 0) {
        return;
    }
    struct port_load load = workers_load(ports, count);
    facts->room = load.room;
    facts->queue_us = load.queue_us;
    facts->free_vram_mib = load.free_vram_64mib * WEFT_VRAM_UNIT_MIB;
    facts->flags = MEMBERS_FACT_REUSE;
    if (a->draining) {
        facts->room = 0;
        facts->queue_us = WEFT_QUEUE_DRAINING;
    }
    for (uint32_t i = 0; i < count; i++) {
        facts->flags &=
            port_can(ports[i], WEFT_CAN_REUSE) ? MEMBERS_FACT_MASK : ~MEMBERS_FACT_REUSE;
        facts_add(facts, ports[i], speeds_now(a, ports[i]));
    }
    if ((facts->flags & MEMBERS_FACT_REUSE) != 0) {
        facts_add_prefixes(facts, ports, count);
    }
}

void attach_drain(struct attach *a)
{
    a->draining = true;
}

void attach_rest(struct attach *a, bool rests)
{
    a->resting = rests;
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        if (a->workers[i] != NULL) {
            atomic_store(&a->workers[i]->rests, rests);
        }
    }
    core_wake(a->core);
    control_touch(a->control);
}

bool attach_busy(const struct attach *a)
{
    struct port *ports[PORT_WORKERS_MAX];
    uint32_t count = serving(a, ports);
    bool busy = false;
    for (uint32_t i = 0; i < count; i++) {
        busy = busy || port_room_told(ports[i]) < a->room_most[ports[i]->slot];
    }
    return busy;
}

/* ---- status ---- */

static json_t *worker_status(const struct port *port)
{
    struct port_load load = port_load_now(port);
    struct port_rates rates = port_rates_now(port);
    struct port_figures figures = port_figures_now(port);
    const bool drains = WEFT_DRAINS(load.room, load.queue_us);
    json_t *worker = json_pack(
        "{s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:I}", "model", port->facts.model, "backend",
        port->facts.backend, "pid", (int)port->facts.pid, "context_tokens",
        (int)port->facts.context_tokens, "room", (int)load.room, "queue_us",
        drains ? (json_int_t)0 : (json_int_t)load.queue_us, "free_vram_mib",
        (json_int_t)(load.free_vram_64mib * WEFT_VRAM_UNIT_MIB), "prefill_tps",
        (json_int_t)rates.prefill_per_second, "decode_tps", (json_int_t)rates.decode_per_second);
#define WORKER_FIGURE_(name, kind, unit, text)                                                     \
    json_object_set_new(worker, #name, json_integer((json_int_t)figures.name));
    WEFT_METRICS_FIGURES(WORKER_FIGURE_)
#undef WORKER_FIGURE_
    json_object_set_new(worker, "draining", json_boolean(drains));
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
    json_t *workers = json_array();
    json_t *clients = json_array();
    struct port *ports[PORT_WORKERS_MAX];
    uint32_t count = serving(a, ports);
    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(workers, worker_status(ports[i]));
    }
    for (uint32_t i = 0; i < PORT_CLIENTS_MAX; i++) {
        if (a->clients[i] != NULL && !atomic_load(&a->clients[i]->lost)) {
            json_array_append_new(clients, client_status(a->clients[i]));
        }
    }
    json_object_set_new(status, "workers", workers);
    json_object_set_new(status, "clients", clients);
}

/* ---- life ---- */

static int listen_on(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path); /* length checked by config */
    int rc = socket_file_clear(&addr, SOCK_SEQPACKET);
    if (rc != 0) {
        return rc;
    }
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        chmod(path, S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) != 0 ||
        listen(fd, (int)PENDING_MAX) != 0) {
        rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

int attach_create(struct attach **out, const struct config *config, struct core *core,
                  struct doors *doors)
{
    *out = NULL;
    struct attach *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return -ENOMEM;
    }
    a->config = config;
    a->core = core;
    a->doors = doors;
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        a->pending[i].fd = -1;
    }
    a->listen_fd = listen_on(config->sockets.port);
    if (a->listen_fd < 0) {
        int rc = a->listen_fd;
        LOG_ERROR("cannot open socket %s: %s", config->sockets.port,
                  rc == -EADDRINUSE ? "another node listens there"
                  : rc == -EEXIST   ? "something that is not a socket is there"
                                    : strerror(-rc));
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
    for (uint32_t i = 0; i < PORT_WORKERS_MAX; i++) {
        port_destroy(a->workers[i]);
    }
    free(a);
}

int attach_start(struct attach *a, struct control *control)
{
    a->control = control;
    return control_watch(control, a->listen_fd, on_connect, a);
}
