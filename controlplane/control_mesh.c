/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_mesh.c - the two ways to the members: beacons between those that the configuration lists,
 * and gossip. Carries datagrams and the time between the socket and either. See control_impl.h.
 */
#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <time.h>

#include "controlplane/control_impl.h"
#include "controlplane/keys/keys.h"
#include "schemas/base/addr.h"
#include "schemas/base/log.h"

/* Batches taken per wake: the loop's other users get their turn under a flood. */
#define RECEIVE_ROUNDS 8
/* Ticks in a row before the loop's others get their turn. */
#define TICK_ROUNDS 8

WEFT_ASSERT(UDP_PAYLOAD_MAX == MEMBERS_BEACON_MAX, "a beacon is one datagram");
WEFT_ASSERT(UDP_PAYLOAD_ROOM > MEMBERS_BEACON_MAX, "longer datagrams are seen as such");
WEFT_ASSERT(UDP_PAYLOAD_MAX == SWIM_DATAGRAM_MAX, "so is what gossip sends");
WEFT_ASSERT(SWIM_OUT_DATAGRAMS <= UDP_BATCH, "all that one call writes is one batch");
WEFT_ASSERT(KEYS_BYTES == SWIM_KEY_BYTES && KEYS_MESH_MAX == GOSSIP_KEYS_MAX, "keys are keys");

/* ---- keys ---- */

static void open_mesh_warn(const char *path)
{
    LOG_WARN(
        "gossip is not secret: no mesh key at %s, and --insecure is given; anybody who can reach "
        "this node can join, read and forge",
        path);
}

int control_prepare(struct config *config, struct keys *keys, bool open_mesh)
{
    char why[KEYS_WHY_MAX] = "";
    memset(keys, 0, sizeof(*keys));
    if (!config->gossip) {
        return 0;
    }
    int rc = keys_identity_load(keys->identity, config->identity, why);
    if (rc < 0) {
        LOG_ERROR("no identity: %s", why);
        return rc;
    }
    rc = keys_mesh_load(keys, config->mesh_key, why);
    if (rc == -ENOENT && open_mesh) {
        open_mesh_warn(config->mesh_key);
        keys_mesh_open(keys);
        rc = 0;
    } else if (rc < 0) {
        LOG_ERROR("no mesh key: %s%s", why,
                  rc == -ENOENT
                      ? " hint=\"make one with `weft mesh-key FILE`, copy it to all members; "
                        "weftd --insecure does without\""
                      : "");
        return rc;
    }
    struct config_member *self = &config->members[config->self];
    if (self->id == WEFT_NODE_NONE) {
        self->id = gossip_id_of(keys->identity, 0);
    }
    return 0;
}

/* ---- life ---- */

static uint64_t wall_ns(void)
{
    struct timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    return (uint64_t)wall.tv_sec * NS_PER_S + (uint64_t)wall.tv_nsec;
}

static int gossip_begin(struct control *control, const struct keys *keys)
{
    const struct config *config = control->config;
    struct gossip_options options = {
        .config = config,
        .mesh_key_count = keys->mesh_count,
        .incarnation_ms = wall_ns() / NS_PER_MS,
        .id_derived = config->members[config->self].id == gossip_id_of(keys->identity, 0),
    };
    randombytes_buf(options.entropy, sizeof(options.entropy));
    memcpy(options.sign_seed, keys->identity, sizeof(options.sign_seed));
    memcpy(options.mesh_keys, keys->mesh, sizeof(options.mesh_keys));
    int rc = gossip_create(&control->gossip, &options, control->started_ns);
    sodium_memzero(&options, sizeof(options));
    if (rc == 0) {
        control->members = gossip_members(control->gossip);
    } else {
        LOG_ERROR("gossip cannot begin: %s", strerror(-rc));
    }
    return rc;
}

int mesh_create(struct control *control, const struct keys *keys)
{
    if (control->config->gossip) {
        int rc = gossip_begin(control, keys);
        return rc == 0 ? letters_create(control, keys) : rc;
    }
    return members_create(&control->members, control->config, wall_ns(), control->started_ns);
}

void mesh_destroy(struct control *control)
{
    if (control->gossip != NULL) {
        letters_destroy(control);
        gossip_destroy(control->gossip);
    } else {
        members_destroy(control->members);
    }
}

void mesh_facts_take(struct control *control, bool urgent, uint64_t now_ns)
{
    struct members_facts facts;
    if (control->hooks.local_facts == NULL) {
        return;
    }
    memset(&facts, 0, sizeof(facts));
    control->hooks.local_facts(&facts, control->hooks.user);
    if (control->gossip != NULL) {
        gossip_set_local(control->gossip, &facts);
    } else {
        members_set_local(control->members, &facts);
        if (urgent) {
            members_touch(control->members, now_ns);
        }
    }
}

void mesh_reload(struct control *control)
{
    struct keys keys;
    char why[KEYS_WHY_MAX] = "";
    memset(&keys, 0, sizeof(keys));
    if (control->gossip == NULL) {
        return;
    }
    int rc = keys_mesh_load(&keys, control->config->mesh_key, why);
    if (rc == 0) {
        rc = gossip_set_keys(control->gossip, keys.mesh, keys.mesh_count);
    }
    if (rc == 0) {
        letters_set_keys(&control->letters, (const uint8_t(*)[SWIM_KEY_BYTES])keys.mesh,
                         keys.mesh_count);
        LOG_INFO("mesh keys read again keys=%u", keys.mesh_count);
    } else {
        LOG_ERROR("the mesh keys stay as they are: %s",
                  why[0] != '\0' ? why : "too many others at once; change one after the other");
    }
    keys_wipe(&keys);
    control_policy_load(control);
}

/* ---- sending ---- */

static void batch_send(struct control *control, unsigned count)
{
    unsigned sent = (unsigned)udp_send(control->fd, control->going, count);
    control->send_failures += count - sent;
}

static uint64_t beacons_send(struct control *control, uint64_t now_ns)
{
    struct members_out out[UDP_BATCH];
    unsigned count;
    do {
        for (unsigned i = 0; i < UDP_BATCH; i++) {
            out[i].data = control->going[i].data;
        }
        count = members_tick(control->members, out, UDP_BATCH, now_ns);
        for (unsigned i = 0; i < count; i++) {
            control->going[i].address = out[i].address;
            control->going[i].port = out[i].port;
            control->going[i].len = out[i].len;
        }
        batch_send(control, count);
    } while (count == UDP_BATCH);
    return members_next_ns(control->members);
}

static void out_send(struct control *control)
{
    const struct swim_out *out = &control->out;
    for (uint32_t i = 0; i < out->datagram_count; i++) {
        const struct swim_datagram *datagram = &out->datagrams[i];
        control->going[i].address = datagram->address;
        control->going[i].port = datagram->port;
        control->going[i].len = datagram->len;
        memcpy(control->going[i].data, datagram->data, datagram->len);
    }
    if (out->datagram_count > 0) {
        batch_send(control, out->datagram_count);
    }
}

static uint64_t gossip_send(struct control *control, uint64_t now_ns)
{
    for (int round = 0; round < TICK_ROUNDS && gossip_next_ns(control->gossip) <= now_ns; round++) {
        gossip_tick(control->gossip, now_ns, &control->out);
        out_send(control);
    }
    uint64_t letters_ns = letters_tick(control, now_ns);
    uint64_t next_ns = gossip_next_ns(control->gossip);
    return letters_ns < next_ns ? letters_ns : next_ns;
}

void mesh_send(struct control *control, uint64_t now_ns)
{
    uint64_t next_ns =
        control->gossip != NULL ? gossip_send(control, now_ns) : beacons_send(control, now_ns);
    control_publish(control, now_ns);
    if (next_ns != UINT64_MAX) {
        /* A timer at 0 is none. */
        loop_timer_arm(control->loop, control->send_timer, next_ns > 0 ? next_ns : 1, 0);
    }
}

static json_t *refusal(const char *code, const char *text)
{
    return json_pack("{s:s, s:s}", "error", text, "code", code);
}

json_t *mesh_join(struct control *control, const json_t *request)
{
    const char *text = json_string_value(json_object_get(request, "address"));
    char address[ADDR_TEXT_MAX];
    struct config_seed seed;
    if (text == NULL || !config_seed_read(text, &seed)) {
        return refusal("invalid", "address must be a node's IP address, its port may follow");
    }
    if (control->gossip == NULL) {
        return refusal("static", "this node's members are those of its file");
    }
    if (addr_is_v4(&seed.address) !=
        addr_is_v4(&control->config->members[control->config->self].address)) {
        return refusal("family", "this node's mesh has addresses of the other family");
    }
    seed.port = seed.port != 0 ? seed.port : config_control_port(control->config);
    int rc = gossip_join(control->gossip, &seed, &control->out);
    if (rc == -ENOSPC) {
        return refusal("full", "no room for another address");
    }
    if (rc == 0) {
        out_send(control);
        LOG_INFO("called address=%s port=%u", addr_format(&seed.address, address), seed.port);
    }
    return json_pack("{s:s, s:s, s:i}", "join", rc == 0 ? "called" : "member", "address",
                     addr_format(&seed.address, address), "port", (int)seed.port);
}

void control_ask(struct control *control, uint16_t node_id)
{
    uint64_t now_ns = clock_now_ns();
    if (control->gossip != NULL) {
        gossip_ask(control->gossip, node_id, now_ns, &control->out);
        out_send(control);
        mesh_send(control, now_ns);
    }
}

bool mesh_leave(struct control *control, uint64_t now_ns)
{
    if (control->gossip == NULL || swim_live_count(gossip_swim(control->gossip)) <= 1) {
        return false;
    }
    gossip_leave(control->gossip, now_ns, &control->out);
    out_send(control);
    mesh_send(control, now_ns);
    return true;
}

/* ---- receiving ---- */

static void datagram_take(struct control *control, const struct udp_datagram *datagram,
                          uint64_t now_ns)
{
    if (control->gossip == NULL) {
        members_receive(control->members, datagram->data, datagram->len, &datagram->address,
                        datagram->port, now_ns);
        return;
    }
    if (letter_is(datagram->data, datagram->len)) {
        letters_receive(control, datagram->data, datagram->len, now_ns);
        return;
    }
    gossip_input(control->gossip, &datagram->address, datagram->port, datagram->data, datagram->len,
                 now_ns, &control->out);
    out_send(control);
}

void mesh_receive(struct control *control, uint64_t now_ns)
{
    for (unsigned round = 0; round < RECEIVE_ROUNDS; round++) {
        int count = udp_receive(control->fd, control->batch, UDP_BATCH);
        for (int i = 0; i < count; i++) {
            datagram_take(control, &control->batch[i], now_ns);
        }
        if (count < (int)UDP_BATCH) {
            break;
        }
    }
    if (control->gossip != NULL) {
        mesh_send(control, now_ns); /* what came may have made something due */
    } else {
        control_publish(control, now_ns);
    }
}
