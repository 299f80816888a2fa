/* SPDX-License-Identifier: Apache-2.0 */
/* control.c - see control.h. */
#include "controlplane/control.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "controlplane/admin/admin.h"
#include "controlplane/loop/loop.h"
#include "controlplane/loop/udp.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"
#include "schemas/tags.def"

/* Batches taken per wake: the loop's other users get their turn under a flood. */
#define RECEIVE_ROUNDS 8

WEFT_ASSERT(UDP_PAYLOAD_MAX == MEMBERS_BEACON_MAX, "a beacon is one datagram");
WEFT_ASSERT(UDP_PAYLOAD_ROOM > MEMBERS_BEACON_MAX, "longer datagrams are seen as such");

struct control {
    const struct config *config;
    struct control_hooks hooks;
    struct loop *loop;
    struct members *members;
    struct admin *admin;
    int fd; /* control port */
    int beacon_timer;
    int publish_timer;
    int touch_timer;
    int tick_timer;
    uint64_t started_ns;
    uint64_t published_version;
    uint64_t published_ns;
    uint64_t touched_ns;
    bool publish_armed;
    bool touch_armed;
    uint64_t send_failures;
    struct udp_datagram batch[UDP_BATCH]; /* received, or being sent */
};

/* ---- members ---- */

/* Publishes if anything changed, now or when the last time is long enough ago. */
static void members_publish(struct control *control, uint64_t now_ns)
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
    members_publish(control, now_ns);
}

static void local_facts_take(struct control *control)
{
    struct members_facts facts;
    if (control->hooks.local_facts != NULL) {
        memset(&facts, 0, sizeof(facts));
        control->hooks.local_facts(&facts, control->hooks.user);
        members_set_local(control->members, &facts);
    }
}

static void beacons_send(struct control *control, uint64_t now_ns)
{
    struct members_out out[UDP_BATCH];
    unsigned count;
    local_facts_take(control);
    do {
        for (unsigned i = 0; i < UDP_BATCH; i++) {
            out[i].data = control->batch[i].data;
        }
        count = members_tick(control->members, out, UDP_BATCH, now_ns);
        for (unsigned i = 0; i < count; i++) {
            control->batch[i].address = out[i].address;
            control->batch[i].port = out[i].port;
            control->batch[i].len = out[i].len;
        }
        unsigned sent = (unsigned)udp_send(control->fd, control->batch, count);
        control->send_failures += count - sent;
    } while (count == UDP_BATCH);
    members_publish(control, now_ns);
    uint64_t next_ns = members_next_ns(control->members);
    if (next_ns != UINT64_MAX) {
        loop_timer_arm(control->loop, control->beacon_timer, next_ns, 0);
    }
}

static void beacons_due(uint64_t now_ns, void *user)
{
    beacons_send(user, now_ns);
}

static void touch_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    control->touch_armed = false;
    control->touched_ns = now_ns;
    members_touch(control->members, now_ns);
    beacons_send(control, now_ns);
}

static void datagrams_receive(int fd, void *user)
{
    struct control *control = user;
    uint64_t now_ns = clock_now_ns();
    for (unsigned round = 0; round < RECEIVE_ROUNDS; round++) {
        int count = udp_receive(fd, control->batch, UDP_BATCH);
        for (int i = 0; i < count; i++) {
            const struct udp_datagram *datagram = &control->batch[i];
            members_receive(control->members, datagram->data, datagram->len, &datagram->address,
                            datagram->port, now_ns);
        }
        if (count < (int)UDP_BATCH) {
            break;
        }
    }
    members_publish(control, now_ns);
}

static void tick_due(uint64_t now_ns, void *user)
{
    struct control *control = user;
    /* A node alone sends no beacons; its own facts are still taken. */
    local_facts_take(control);
    if (control->hooks.on_tick != NULL) {
        control->hooks.on_tick(now_ns, control->hooks.user);
    }
    members_publish(control, now_ns);
}

/* ---- status ---- */

static json_t *tags_json(uint32_t tags)
{
    json_t *list = json_array();
#define TAG_APPEND_(name, bit, text)                                                               \
    if ((tags & (UINT32_C(1) << (bit))) != 0) {                                                    \
        json_array_append_new(list, json_string(#name));                                           \
    }
    WEFT_TAGS(TAG_APPEND_)
#undef TAG_APPEND_
    return list;
}

static json_t *member_json(const struct member *member, uint64_t now_ns)
{
    const struct members_facts *facts = &member->facts;
    char address[ADDR_TEXT_MAX];
    addr_format(&member->address, address);
    json_t *models = json_array();
    for (uint32_t i = 0; i < facts->model_count; i++) {
        json_array_append_new(models, json_string(facts->models[i].name));
    }
    json_t *json = json_pack(
        "{s:s, s:i, s:s, s:i, s:o, s:s, s:b, s:o, s:s, s:i, s:I, s:I, s:I, s:I, s:I}", "name",
        member->name, "id", (int)member->id, "address", address, "tier", (int)member->tier, "tags",
        tags_json(member->tags), "jurisdiction", member->jurisdiction, "alive", (int)member->alive,
        "models", models, "backend", facts->backend, "room", (int)facts->room, "queue_us",
        (json_int_t)facts->queue_us, "free_vram_mib", (json_int_t)facts->free_vram_mib,
        "prefill_tps", (json_int_t)facts->prefill_tps, "decode_tps", (json_int_t)facts->decode_tps,
        "context_tokens", (json_int_t)facts->context_tokens);
    if (!IN6_IS_ADDR_UNSPECIFIED(&member->client_address)) {
        json_object_set_new(json, "client_address",
                            json_string(addr_format(&member->client_address, address)));
    }
    json_object_set_new(json, "latitude_deg", json_real(member->latitude_deg));
    json_object_set_new(json, "longitude_deg", json_real(member->longitude_deg));
    /* Not measured is null, not 0: nobody is 0 us away. */
    json_object_set_new(json, "rtt_us",
                        member->srtt_ns != 0 ? json_real((double)member->srtt_ns / 1e3)
                                             : json_null());
    json_object_set_new(json, "rttvar_us",
                        member->srtt_ns != 0 ? json_real((double)member->rttvar_ns / 1e3)
                                             : json_null());
    json_object_set_new(json, "heard_ms_ago",
                        member->heard_ns != 0
                            ? json_integer((json_int_t)((now_ns - member->heard_ns) / NS_PER_MS))
                            : json_null());
    return json;
}

static json_t *status_json(struct control *control)
{
    uint64_t now_ns = clock_now_ns();
    const struct members *members = control->members;
    const struct members_counters *counters = members_counters(members);
    json_t *list = json_array();
    for (uint32_t i = 0; i < members_count(members); i++) {
        json_array_append_new(list, member_json(members_at(members, i), now_ns));
    }
    json_t *counts = json_object();
#define COUNTER_ADD_(name, text)                                                                   \
    json_object_set_new(counts, #name, json_integer((json_int_t)counters->name));
    MEMBERS_COUNTERS(COUNTER_ADD_)
#undef COUNTER_ADD_
    json_object_set_new(counts, "send_failures", json_integer((json_int_t)control->send_failures));
    json_t *status =
        json_pack("{s:s, s:i, s:s, s:f, s:I, s:o, s:o}", "node", control->config->node, "id",
                  (int)members_at(members, members_self(members))->id, "version", WEFT_RELEASE,
                  "uptime_s", (double)(now_ns - control->started_ns) / 1e9, "members_version",
                  (json_int_t)members_version(members), "members", list, "counters", counts);
    if (status != NULL && control->hooks.add_status != NULL) {
        control->hooks.add_status(status, control->hooks.user);
    }
    return status;
}

static json_t *admin_answer(const char *command, void *user)
{
    return strcmp(command, "status") == 0 ? status_json(user) : NULL;
}

/* ---- life ---- */

static int timers_create(struct control *control)
{
    control->beacon_timer = loop_timer_add(control->loop, beacons_due, control);
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
    int rc = udp_open(&control->fd, address, &port);
    if (rc < 0) {
        char text[ADDR_TEXT_MAX];
        LOG_ERROR("control port cannot be opened address=%s port=%u error=\"%s\"%s",
                  addr_format(address, text), port, strerror(-rc),
                  rc == -EADDRNOTAVAIL ? " hint=\"give an interface of this machine that address\""
                                       : "");
        return rc;
    }
    return loop_watch(control->loop, control->fd, POLLIN, datagrams_receive, control);
}

int control_create(struct control **out, const struct config *config,
                   const struct control_hooks *hooks)
{
    struct timespec wall;
    *out = NULL;
    struct control *control = calloc(1, sizeof(*control));
    if (control == NULL) {
        return -ENOMEM;
    }
    clock_gettime(CLOCK_REALTIME, &wall);
    uint64_t incarnation = (uint64_t)wall.tv_sec * NS_PER_S + (uint64_t)wall.tv_nsec;
    control->config = config;
    control->hooks = *hooks;
    control->fd = -1;
    control->started_ns = clock_now_ns();
    int rc = members_create(&control->members, config, incarnation, control->started_ns);
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
        rc = admin_create(&control->admin, control->loop, config->sockets.admin, admin_answer,
                          control);
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
    beacons_send(control, now_ns);
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
    if (control->fd >= 0) {
        close(control->fd);
    }
    members_destroy(control->members);
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
