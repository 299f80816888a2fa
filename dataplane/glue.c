/* SPDX-License-Identifier: Apache-2.0 */
/* glue.c - see glue.h. Everything here runs on the control thread. */
#include "dataplane/glue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/admin/admin.h"
#include "dataplane/attach.h"
#include "dataplane/doors.h"
#include "dataplane/paths.h"
#include "dataplane/report.h"
#include "schemas/base/clock.h"
#include "schemas/base/log.h"

/* How much longer a member is taken to need while it does not answer somebody. */
#define SUSPECT_QUEUE_US 1000000u
#define QUEUE_MAX_US     3600000000u /* an hour: there is room for more above */
#define YOUNG_NS         (1500 * NS_PER_MS)

struct glue {
    const struct config *config;
    struct core *const *cores; /* config->nic.lcores of them */
    struct publish *tables;
    struct tap_hub *taps;
    struct report report;
    struct control *control;
    struct paths *paths;
    uint16_t epoch;
    uint64_t started_ns; /* first look at the members */
    uint64_t learned_ns; /* what members told until then has been passed on */
    bool published;      /* a table */
    bool draining;       /* takes no new requests any more */
    struct attach *attach;
    struct doors *doors;
};

/* ---- tables ---- */

static uint32_t queue_of(const struct members_facts *facts)
{
    bool drains = WEFT_DRAINS(facts->room, facts->queue_us);
    return drains || facts->queue_us < QUEUE_MAX_US ? facts->queue_us : QUEUE_MAX_US;
}

static struct route_node node_of(const struct glue *g, const struct members *members,
                                 uint32_t index, uint64_t now_ns)
{
    const struct member *m = members_at(members, index);
    /* Gets nothing new, but what is under way there goes on: it stops when that has ended. */
    bool leaving = member_state_of(members, m) == MEMBER_LEFT;
    struct route_node node = {
        .id = m->id,
        .tier = (uint8_t)m->tier,
        .alive = m->alive || leaving,
        .leaving = leaving,
        .x = weft_cell_x(m->longitude_deg),
        .y = weft_cell_y(m->latitude_deg),
        .addr = m->address,
        .tags = (m->tags & ~WEFT_TAGS_JURISDICTION) | weft_jurisdiction_mask(m->jurisdiction),
        .at = geo_point_at(m->latitude_deg, m->longitude_deg),
        .load_ns = m->id == members_at(members, members_self(members))->id ? now_ns : m->heard_ns,
        .queue_us = queue_of(&m->facts),
        .room = m->facts.room,
        .free_vram_64mib = (uint16_t)(m->facts.free_vram_mib / WEFT_VRAM_UNIT_MIB > UINT16_MAX
                                          ? UINT16_MAX
                                          : m->facts.free_vram_mib / WEFT_VRAM_UNIT_MIB),
        .rtt_us = (uint32_t)(m->srtt_ns / NS_PER_US),
        .prefill_per_second = m->facts.prefill_tps,
        .decode_per_second = m->facts.decode_tps,
        .keeps_prompts = (m->facts.flags & MEMBERS_FACT_REUSE) != 0,
    };
    if (member_state_of(members, m) == MEMBER_SUSPECT) {
        node.suspect = true;
        /* Whoever else can do it goes before; if nobody can, it is tried all the same. */
        node.queue_us += node.queue_us < QUEUE_MAX_US ? SUSPECT_QUEUE_US : 0;
        node.load_ns = m->changed_ns > node.load_ns ? m->changed_ns : node.load_ns;
    }
    node.reachable = paths_hop(g->paths, index, node.mac);
    for (uint32_t i = 0; i < m->facts.model_count && i < ROUTE_MODELS_PER_NODE && !m->barred; i++) {
        const struct members_model *model = &m->facts.models[i];
        node.arithmetics[node.model_count] = model->arithmetic;
        node.paces[node.model_count] = (struct route_pace){
            .prefill_ns = route_pace_ns(speeds_value(model->speeds.prefill)),
            .decode_ns = route_pace_ns(speeds_stream(&model->speeds)),
        };
        node.models[node.model_count++] = model->id;
    }
    return node;
}

/* A node that has just started has not heard yet what the others can do: "no node has that model"
 * would be a lie. It says nothing until all those that it knows of have told, for YOUNG_NS at most;
 * clients repeat their requests. */
static bool is_young(struct glue *g, const struct members *members, uint64_t now_ns)
{
    uint32_t count = members_count(members);
    bool alone = g->config->seed_count == 0 && count == 1;
    bool unheard = count == 1;
    g->started_ns = g->started_ns != 0 ? g->started_ns : now_ns;
    for (uint32_t i = 0; i < count; i++) {
        bool counts = i != members_self(members) &&
                      member_state_of(members, members_at(members, i)) != MEMBER_LEFT;
        unheard = unheard || (counts && members_at(members, i)->heard_ns == 0);
    }
    return !alone && unheard && now_ns - g->started_ns < YOUNG_NS;
}

/* How prompts begin that members have lately told they took: for the cores' choices. */
static void pass_on_prefixes(struct glue *g, const struct members *members, uint64_t now_ns)
{
    for (uint32_t i = 0; i < members_count(members); i++) {
        const struct member *m = members_at(members, i);
        if (i != members_self(members) && m->heard_ns < g->learned_ns) {
            continue;
        }
        for (uint32_t n = 0; n < MEMBERS_PREFIXES && m->facts.prefixes[n] != 0; n++) {
            for (uint32_t core = 0; core < g->config->nic.lcores; core++) {
                prefixes_learn(g->cores[core]->route->prefixes, m->facts.prefixes[n], m->id,
                               now_ns);
            }
        }
    }
    g->learned_ns = now_ns;
}

static void publish_members(const struct members *members, uint64_t now_ns, void *user)
{
    struct glue *g = user;
    uint32_t count = members_count(members);
    if (!g->published && is_young(g, members, now_ns)) {
        return;
    }
    struct route_node *nodes = calloc(count, sizeof(*nodes));
    struct route_table *table = NULL;
    if (nodes == NULL || paths_follow(g->paths, members) != 0) {
        LOG_ERROR("no memory for a routing table nodes=%u; keeping the old one", count);
        free(nodes);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        nodes[i] = node_of(g, members, i, now_ns);
    }
    int rc =
        route_table_create(&table, nodes, count, members_at(members, members_self(members))->id,
                           ++g->epoch, g->config->geometry == CONFIG_GEOMETRY_ABSTRACT);
    free(nodes);
    if (rc != 0) {
        LOG_ERROR("cannot build a routing table: %s; keeping the old one", strerror(-rc));
        return;
    }
    table->closing = g->draining;
    publish_set(g->tables, table);
    pass_on_prefixes(g, members, now_ns);
    g->published = true;
    report_members(members);
}

static void on_paths(uint64_t now_ns, void *user)
{
    struct glue *g = user;
    publish_members(control_members(g->control), now_ns, g);
}

/* Nodes that do not answer a request need not wait for their turn to be asked whether they live. */
static void ask_for_missed(struct glue *g)
{
    for (uint32_t i = 0; i < g->config->nic.lcores; i++) {
        uint16_t id = atomic_exchange_explicit(&g->cores[i]->route->missed, WEFT_NODE_NONE,
                                               memory_order_relaxed);
        if (id != WEFT_NODE_NONE) {
            control_ask(g->control, id);
        }
    }
}

static void on_tick(uint64_t now_ns, void *user)
{
    struct glue *g = user;
    attach_tick(g->attach, now_ns);
    tap_hub_reap(g->taps);
    paths_tick(g->paths, now_ns);
    ask_for_missed(g);
    if (!g->published) {
        publish_members(control_members(g->control), now_ns, g);
    }
}

static void local_facts(struct members_facts *facts, void *user)
{
    struct glue *g = user;
    attach_facts(g->attach, facts);
}

/* New requests are answered with DRAINING from now on, and nobody is to send any. */
static void drain(uint64_t now_ns, void *user)
{
    struct glue *g = user;
    g->draining = true;
    attach_drain(g->attach);
    publish_members(control_members(g->control), now_ns, g);
    control_touch(g->control);
}

/* Requests at the own workers, or answers of others on their way to clients. */
static bool busy(uint64_t now_ns, void *user)
{
    const struct glue *g = user;
    bool carries = false;
    for (uint32_t i = 0; i < g->config->nic.lcores; i++) {
        carries = carries || carried_any(&g->cores[i]->route->carried, now_ns);
    }
    return carries || attach_busy(g->attach);
}

/* ---- ways ---- */

static int way_taken(uint32_t model, uint32_t arithmetic, void *user)
{
    const struct glue *g = user;
    return doors_have(g->doors, model, arithmetic);
}

static void on_way(const struct control_way *way, void *user)
{
    struct glue *g = user;
    doors_came(g->doors, way);
}

static void on_way_done(const struct control_way *way, void *user)
{
    struct glue *g = user;
    doors_done(g->doors, way);
}

/* ---- status ---- */

static json_t *nic_status(const struct nic *nic)
{
    struct nic_facts facts = nic_facts(nic);
    json_t *status =
        json_pack("{s:s, s:s, s:s, s:i, s:s, s:I, s:I}", "driver", facts.driver, "wait", facts.wait,
                  "steering", facts.steering, "mtu", (int)facts.mtu, "sums", facts.sums, "summed",
                  (json_int_t)facts.summed, "chained", (json_int_t)facts.chained);
    json_object_set_new(status, "checks", json_string(facts.checks));
    json_object_set_new(status, "missed", json_integer((json_int_t)nic_losses(nic).missed));
    json_object_set_new(status, "carrier", json_boolean(facts.carrier));
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
    attach_status(g->attach, status);
    doors_status(g->doors, status);
    json_object_set_new(status, "mbufs_in_use", json_integer(nic_buffers_in_use(g->cores[0]->nic)));
    json_t *nic = nic_status(g->cores[0]->nic);
    paths_status(g->paths, nic);
    json_object_set_new(status, "nic", nic);
    json_object_set_new(status, "table_epoch", json_integer(g->epoch));
}

/* ---- life ---- */

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
    int rc = paths_create(&g->paths, config, cores, on_paths, g);
    if (rc == 0) {
        rc = doors_create(&g->doors);
    }
    if (rc == 0) {
        rc = attach_create(&g->attach, config, cores[0], g->doors);
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
    attach_destroy(g->attach);
    doors_destroy(g->doors);
    paths_destroy(g->paths);
    free(g);
}

struct control_hooks glue_hooks(struct glue *g)
{
    return (struct control_hooks){
        .on_members = publish_members,
        .local_facts = local_facts,
        .add_status = add_status,
        .on_tick = on_tick,
        .drain = drain,
        .busy = busy,
        .way_taken = way_taken,
        .on_way = on_way,
        .on_way_done = on_way_done,
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

/* ---- maintenance ---- */

/* Nobody chooses this node until it is told otherwise; it stays a member, serves what it has, and
 * takes in requests for others. */
static json_t *drain_open(const json_t *request, int *fd, void *user)
{
    struct glue *g = user;
    (void)fd;
    bool rests = !json_is_true(json_object_get(request, "undo"));
    attach_rest(g->attach, rests);
    LOG_INFO(rests ? "draining: takes no new requests until told otherwise"
                   : "takes requests again");
    int rc = control_way_open(g->control);
    const char *sessions = rc == 0 ? "move" : rc == -ENOTSUP ? "static" : "closed";
    return json_pack("{s:b, s:s}", "draining", (int)rests, "sessions", sessions);
}

static void drain_close(void *user)
{
    (void)user;
}

int glue_start(struct glue *g, struct control *control)
{
    struct admin_session rest = {
        .command = "drain",
        .open = drain_open,
        .close = drain_close,
        .user = g,
    };
    struct admin_session tap = {
        .command = "tap",
        .open = capture_open,
        .close = capture_close,
        .user = g,
    };
    g->control = control;
    doors_start(g->doors, control);
    int rc = report_start(&g->report);
    if (rc == 0) {
        rc = control_offer(control, &tap);
    }
    rc = rc != 0 ? rc : control_offer(control, &rest);
    rc = rc != 0 ? rc : paths_start(g->paths, control);
    return rc != 0 ? rc : attach_start(g->attach, control);
}
