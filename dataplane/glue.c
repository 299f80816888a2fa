/* SPDX-License-Identifier: Apache-2.0 */
/* glue.c - see glue.h. Everything here runs on the control thread. */
#include "dataplane/glue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "controlplane/admin/admin.h"
#include "dataplane/nic/neighbour.h"
#include "dataplane/report.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

#define PENDING_MAX         8u
#define HELLO_TIMEOUT_NS    (2 * NS_PER_S)
#define NEIGHBOUR_PERIOD_NS (1 * NS_PER_S)

/* A connection that has not said hello yet. */
struct pending {
    int fd; /* -1 = free */
    uint64_t since_ns;
};

struct glue {
    const struct config *config;
    struct core *const *cores; /* config->nic.lcores of them */
    struct publish *tables;
    struct tap_hub *taps;
    struct report report;
    struct control *control;
    struct neighbours *neighbours;
    struct neighbour *hops; /* in the order of config->members */
    uint64_t hops_due_ns;
    uint16_t epoch;
    int listen_fd;
    struct pending pending[PENDING_MAX];
    struct port *port;  /* the worker attached, or the one being let go of */
    uint64_t told_word; /* load word last told to the members */
};

/* ---- tables ---- */

static struct route_node node_of(const struct glue *g, const struct member *m, uint32_t index,
                                 uint64_t now_ns)
{
    struct route_node node = {
        .id = m->id,
        .tier = (uint8_t)m->tier,
        .alive = m->alive,
        .reachable = g->hops[index].known,
        .x = weft_cell_x(m->longitude_deg),
        .y = weft_cell_y(m->latitude_deg),
        .addr = m->address,
        .tags = m->tags,
        .at = geo_point_at(m->latitude_deg, m->longitude_deg),
        .load_ns = index == g->config->self ? now_ns : m->heard_ns,
        .queue_us = m->facts.queue_us,
        .room = m->facts.room,
        .free_vram_64mib = (uint16_t)(m->facts.free_vram_mib / WEFT_VRAM_UNIT_MIB > UINT16_MAX
                                          ? UINT16_MAX
                                          : m->facts.free_vram_mib / WEFT_VRAM_UNIT_MIB),
        .rtt_us = (uint32_t)(m->srtt_ns / NS_PER_US),
        .prefill_per_second = m->facts.prefill_tps,
        .decode_per_second = m->facts.decode_tps,
    };
    memcpy(node.mac, g->hops[index].mac, sizeof(node.mac));
    for (uint32_t i = 0; i < m->facts.model_count && i < ROUTE_MODELS_PER_NODE; i++) {
        node.models[node.model_count++] = m->facts.models[i].id;
    }
    return node;
}

static void publish_members(const struct members *members, uint64_t now_ns, void *user)
{
    struct glue *g = user;
    uint32_t count = members_count(members);
    struct route_node *nodes = calloc(count, sizeof(*nodes));
    struct route_table *table = NULL;
    if (nodes == NULL) {
        LOG_ERROR("no memory for a routing table nodes=%u; keeping the old one", count);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        nodes[i] = node_of(g, members_at(members, i), i, now_ns);
    }
    int rc =
        route_table_create(&table, nodes, count, members_at(members, members_self(members))->id,
                           ++g->epoch, g->config->geometry == CONFIG_GEOMETRY_ABSTRACT);
    free(nodes);
    if (rc != 0) {
        LOG_ERROR("cannot build a routing table: %s; keeping the old one", strerror(-rc));
        return;
    }
    publish_set(g->tables, table);
    report_members(members);
}

static void refresh_hops(struct glue *g, uint64_t now_ns)
{
    bool all_known = true;
    for (uint32_t i = 0; i < g->config->member_count; i++) {
        all_known &= g->hops[i].known || i == g->config->self;
    }
    if (all_known && now_ns < g->hops_due_ns) {
        return;
    }
    g->hops_due_ns = now_ns + NEIGHBOUR_PERIOD_NS;
    int changed = neighbours_refresh(g->neighbours, g->hops, g->config->member_count);
    if (changed < 0) {
        LOG_WARN("cannot read link addresses: %s", strerror(-changed));
    } else if (changed > 0) {
        publish_members(control_members(g->control), now_ns, g);
    }
}

/* ---- workers ---- */

static void on_port_readable(int fd, void *user);
static void on_hello(int fd, void *user);

static struct pending *pending_find(struct glue *g, int fd)
{
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (g->pending[i].fd == fd) {
            return &g->pending[i];
        }
    }
    return NULL;
}

static void pending_drop(struct glue *g, struct pending *p)
{
    control_unwatch(g->control, p->fd);
    close(p->fd);
    p->fd = -1;
}

static void on_connect(int listen_fd, void *user)
{
    struct glue *g = user;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    struct pending *p = pending_find(g, -1);
    if (p == NULL || control_watch(g->control, fd, on_hello, g) != 0) {
        port_refuse(fd, -EBUSY);
        return;
    }
    *p = (struct pending){.fd = fd, .since_ns = clock_now_ns()};
}

static void on_hello(int fd, void *user)
{
    struct glue *g = user;
    struct pending *p = pending_find(g, fd);
    const struct config_member *self = &g->config->members[g->config->self];
    if (p == NULL) {
        return;
    }
    if (g->port != NULL) {
        LOG_WARN("worker refused: this node has one already model=%s", g->port->facts.model);
        control_unwatch(g->control, fd);
        port_refuse(fd, -EBUSY);
        p->fd = -1;
        return;
    }
    struct port_self about = {
        .node_id = (uint16_t)self->id,
        .tier = (uint8_t)self->tier,
        .node_name = self->name,
    };
    struct port *port;
    int rc = port_open(&port, fd, &about);
    if (rc == -EAGAIN) {
        return;
    }
    if (rc != 0) {
        LOG_WARN("worker refused: %s",
                 rc == -EPROTO ? "not a Weft worker of this version" : strerror(-rc));
        pending_drop(g, p);
        return;
    }
    p->fd = -1;
    control_unwatch(g->control, fd);
    if (core_attach(g->cores[0], port) != 0 ||
        control_watch(g->control, fd, on_port_readable, g) != 0) {
        LOG_ERROR("cannot attach worker model=%s", port->facts.model);
        port_destroy(port);
        return;
    }
    g->port = port;
    LOG_INFO("worker attached model=%s backend=%s pid=%u prefill_tps=%u decode_tps=%u",
             port->facts.model, port->facts.backend, port->facts.pid,
             port->facts.prefill_per_second, port->facts.decode_per_second);
    control_touch(g->control);
}

/* The socket carries nothing after the hello: readable means closed. */
static void on_port_readable(int fd, void *user)
{
    struct glue *g = user;
    control_unwatch(g->control, fd);
    LOG_WARN("worker gone model=%s pid=%u", g->port->facts.model, g->port->facts.pid);
    atomic_store_explicit(&g->port->lost, true, memory_order_release);
    core_wake(g->cores[0]);
    control_touch(g->control);
}

static bool port_serves(const struct port *port)
{
    return port != NULL && !atomic_load(&port->lost);
}

static void reap_port(struct glue *g)
{
    if (g->port != NULL && atomic_load_explicit(&g->port->released, memory_order_acquire)) {
        core_detach(g->cores[0], g->port);
        port_destroy(g->port);
        g->port = NULL;
    }
}

static void on_tick(uint64_t now_ns, void *user)
{
    struct glue *g = user;
    reap_port(g);
    tap_hub_reap(g->taps);
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (g->pending[i].fd >= 0 && now_ns - g->pending[i].since_ns > HELLO_TIMEOUT_NS) {
            pending_drop(g, &g->pending[i]);
        }
    }
    refresh_hops(g, now_ns);
    if (port_serves(g->port)) {
        uint64_t word = atomic_load_explicit(&g->port->shm->load, memory_order_relaxed);
        if (word != g->told_word) {
            control_touch(g->control);
        }
    }
}

static void local_facts(struct members_facts *facts, void *user)
{
    struct glue *g = user;
    if (!port_serves(g->port)) {
        return;
    }
    const struct port_hello *hello = &g->port->facts;
    struct port_load load = port_load_now(g->port);
    memcpy(&g->told_word, &load, sizeof(load));
    facts->room = load.room;
    facts->queue_us = load.queue_us;
    facts->free_vram_mib = load.free_vram_64mib * WEFT_VRAM_UNIT_MIB;
    struct port_rates rates = port_rates_now(g->port);
    facts->prefill_tps = rates.prefill_per_second;
    facts->decode_tps = rates.decode_per_second;
    facts->context_tokens = hello->context_tokens;
    memcpy(facts->backend, hello->backend, sizeof(facts->backend));
    facts->model_count = 1;
    facts->models[0].id = weft_model_id(hello->model);
    memcpy(facts->models[0].name, hello->model, sizeof(facts->models[0].name));
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

static json_t *nic_status(const struct nic *nic)
{
    struct nic_facts facts = nic_facts(nic);
    json_t *status = json_pack("{s:s, s:s, s:s, s:i, s:I}", "driver", facts.driver, "wait",
                               facts.wait, "steering", facts.steering, "mtu", (int)facts.mtu,
                               "chained", (json_int_t)facts.chained);
    if (facts.whole) {
        json_object_set_new(status, "to_kernel", json_integer((json_int_t)facts.to_kernel));
        json_object_set_new(status, "from_kernel", json_integer((json_int_t)facts.from_kernel));
        json_object_set_new(status, "kernel_lost", json_integer((json_int_t)facts.lost));
    }
    return status;
}

static void add_status(json_t *status, void *user)
{
    struct glue *g = user;
    report_status(&g->report, status);
    json_object_set_new(status, "worker", worker_status(g->port));
    json_object_set_new(status, "mbufs_in_use", json_integer(nic_buffers_in_use(g->cores[0]->nic)));
    json_object_set_new(status, "nic", nic_status(g->cores[0]->nic));
    json_object_set_new(status, "table_epoch", json_integer(g->epoch));
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

/* Whose link addresses the kernel is asked for. */
static int hops_create(struct glue *g)
{
    const struct config *config = g->config;
    const char *interface = config->nic.interface;
    uint32_t vlan = config->nic.vlan;
    g->hops = calloc(config->member_count, sizeof(*g->hops));
    if (g->hops == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < config->member_count; i++) {
        g->hops[i].address = config->members[i].address;
    }
    int rc = neighbours_create(&g->neighbours, interface, vlan);
    if (rc == -ENODEV && vlan != 0) {
        LOG_ERROR("the kernel has no device for VLAN %u upon %s, whose neighbours it would know: "
                  "ip link add link %s name %s.%u type vlan id %u",
                  vlan, interface, interface, interface, vlan, vlan);
    } else if (rc < 0) {
        LOG_ERROR("cannot ask for the neighbours on %s: %s", interface, strerror(-rc));
    }
    return rc;
}

int glue_create(struct glue **out, const struct config *config, struct core *const *cores,
                struct publish *tables, struct tap_hub *taps)
{
    *out = NULL;
    struct glue *g = calloc(1, sizeof(*g));
    if (g == NULL) {
        return -ENOMEM;
    }
    g->config = config;
    g->cores = cores;
    g->tables = tables;
    g->taps = taps;
    g->report = (struct report){.cores = cores, .count = config->nic.lcores};
    g->listen_fd = -1;
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        g->pending[i].fd = -1;
    }
    int rc = hops_create(g);
    if (rc == 0) {
        rc = g->listen_fd = listen_on(config->sockets.port);
        if (rc < 0) {
            LOG_ERROR("cannot open worker socket %s: %s", config->sockets.port, strerror(-rc));
        }
    }
    if (rc < 0) {
        glue_destroy(g);
        return rc;
    }
    *out = g;
    return 0;
}

void glue_destroy(struct glue *g)
{
    if (g == NULL) {
        return;
    }
    report_stop();
    if (g->listen_fd >= 0) {
        close(g->listen_fd);
        unlink(g->config->sockets.port);
    }
    for (uint32_t i = 0; i < PENDING_MAX; i++) {
        if (g->pending[i].fd >= 0) {
            close(g->pending[i].fd);
        }
    }
    port_destroy(g->port);
    neighbours_destroy(g->neighbours);
    free(g->hops);
    free(g);
}

struct control_hooks glue_hooks(struct glue *g)
{
    return (struct control_hooks){
        .on_members = publish_members,
        .local_facts = local_facts,
        .add_status = add_status,
        .on_tick = on_tick,
        .user = g,
    };
}

/* ---- captures ---- */

static uint32_t number_of(const json_t *request, const char *key, uint32_t otherwise)
{
    const json_t *value = json_object_get(request, key);
    json_int_t number = json_integer_value(value);
    return json_is_integer(value) && number > 0 && number <= UINT32_MAX ? (uint32_t)number
                                                                        : otherwise;
}

static json_t *capture_open(const json_t *request, int *fd, void *user)
{
    struct glue *g = user;
    uint32_t snaplen = number_of(request, "snaplen", TAP_SNAPLEN_MAX);
    int rc = tap_hub_open(g->taps, snaplen, number_of(request, "slots", TAP_SLOTS));
    if (rc < 0) {
        return json_pack("{s:s}", "error",
                         rc == -EBUSY ? "another capture runs on this node" : strerror(-rc));
    }
    *fd = rc;
    LOG_INFO("capture begins snaplen=%u", snaplen);
    return json_pack("{s:b}", "ok", 1);
}

static void capture_close(void *user)
{
    struct glue *g = user;
    tap_hub_close(g->taps);
    LOG_INFO("capture ends");
}

int glue_start(struct glue *g, struct control *control)
{
    struct admin_session tap = {
        .command = "tap",
        .open = capture_open,
        .close = capture_close,
        .user = g,
    };
    g->control = control;
    int rc = report_start(&g->report);
    if (rc == 0) {
        rc = control_offer(control, &tap);
    }
    return rc != 0 ? rc : control_watch(control, g->listen_fd, on_connect, g);
}
