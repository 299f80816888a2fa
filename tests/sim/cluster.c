/* SPDX-License-Identifier: Apache-2.0 */
/* cluster.c - see cluster.h. */
#include "tests/sim/cluster.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/addr.h"

#define WALL_MS    UINT64_C(1700000000000)
#define FIRST_HOST 0x0a000001u /* 10.0.0.1 */
#define DAY_S      86400u
#define DRIFT_PPM  200u
#define CAUGHT_ROOM                                                                                \
    (sizeof(((struct cluster *)0)->caught) / sizeof(((struct cluster *)0)->caught[0]))

static struct in6_addr address_of(uint32_t node)
{
    return addr_of_v4(htonl(FIRST_HOST + node));
}

static void secret_of(const struct cluster *cluster, uint32_t node, uint8_t purpose, uint8_t *out)
{
    struct rng rng = {.state =
                          cluster->options.seed ^ (uint64_t)node << 32 ^ (uint64_t)purpose << 56};
    for (size_t i = 0; i < SWIM_KEY_BYTES; i += sizeof(uint64_t)) {
        uint64_t word = rng_next(&rng);
        memcpy(out + i, &word, sizeof(word));
    }
}

/* ---- carrying ---- */

/* Somebody on the way keeps a datagram now and then, and sends it again later. */
static void catch_and_replay(struct cluster *cluster, uint32_t from, uint32_t to,
                             const struct swim_datagram *datagram)
{
    double replayed = cluster->options.replayed;
    if (replayed == 0.0 || rng_unit(&cluster->rng) >= replayed) {
        return;
    }
    uint32_t at = rng_below(&cluster->rng, CAUGHT_ROOM);
    if (at < cluster->caught_count) {
        vnet_send(cluster->vnet, from, cluster->caught[at].to, cluster->caught[at].data,
                  cluster->caught[at].size);
    } else {
        at = cluster->caught_count++;
    }
    cluster->caught[at].to = to;
    cluster->caught[at].size = datagram->len;
    memcpy(cluster->caught[at].data, datagram->data, datagram->len);
}

static void carry(struct cluster *cluster, uint32_t node)
{
    struct swim_out *out = &cluster->out;
    struct swim *swim = cluster->nodes[node];
    uint64_t own = swim_self(swim)->record.incarnation;
    cluster->incarnation_top[node] =
        own > cluster->incarnation_top[node] ? own : cluster->incarnation_top[node];
    for (uint32_t i = 0; i < out->datagram_count; i++) {
        struct swim_datagram *datagram = &out->datagrams[i];
        uint32_t to = ntohl(addr_v4(&datagram->address)) - FIRST_HOST;
        if (rng_unit(&cluster->rng) < cluster->options.corrupted) {
            datagram->data[rng_below(&cluster->rng, datagram->len)] ^=
                (uint8_t)(1u << rng_below(&cluster->rng, 8));
        }
        vnet_send(cluster->vnet, node, to, datagram->data, datagram->len);
        catch_and_replay(cluster, node, to, datagram);
    }
    for (uint32_t i = 0; i < out->event_count; i++) {
        if (cluster->hooks.event != NULL) {
            cluster->hooks.event(cluster, node, &out->events[i], cluster->hooks.user);
        }
    }
    vnet_wake(cluster->vnet, node, swim_next_ns(swim));
}

static void on_datagram(uint32_t node, uint32_t from, const void *data, size_t size,
                        uint64_t local_ns, void *user)
{
    struct cluster *cluster = user;
    struct in6_addr address = address_of(from);
    if (cluster->nodes[node] != NULL) {
        swim_input(cluster->nodes[node], &address, CLUSTER_PORT, data, size, local_ns,
                   &cluster->out);
        carry(cluster, node);
    }
}

static void on_wake(uint32_t node, uint64_t local_ns, void *user)
{
    struct cluster *cluster = user;
    if (cluster->nodes[node] != NULL) {
        swim_tick(cluster->nodes[node], local_ns, &cluster->out);
        carry(cluster, node);
    }
}

static void on_script(uint32_t node, uint64_t value, uint64_t true_ns, void *user)
{
    struct cluster *cluster = user;
    (void)true_ns;
    if (cluster->hooks.script != NULL) {
        cluster->hooks.script(cluster, node, value, cluster->hooks.user);
    }
}

/* ---- life ---- */

static void clocks_set(struct cluster *cluster)
{
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        uint64_t offset_ns = NS_PER_S * 1000;
        int32_t drift = 0;
        if (cluster->options.odd_clocks) {
            offset_ns += rng_below(&cluster->rng, DAY_S) * NS_PER_S;
            drift = (int32_t)rng_below(&cluster->rng, 2 * DRIFT_PPM + 1) - (int32_t)DRIFT_PPM;
        }
        vnet_set_clock(cluster->vnet, i, offset_ns, drift);
    }
}

int cluster_create(struct cluster **out, const struct cluster_options *options,
                   const struct cluster_hooks *hooks)
{
    struct cluster *cluster = calloc(1, sizeof(*cluster));
    *out = NULL;
    if (cluster == NULL) {
        return -ENOMEM;
    }
    struct vnet_options network = {
        .nodes = options->nodes,
        .seed = options->seed,
        .delay = options->delay,
        .jitter = options->jitter,
        .loss = options->loss,
        .duplicate = options->duplicate,
    };
    struct vnet_hooks vnet_hooks = {
        .datagram = on_datagram, .wake = on_wake, .script = on_script, .user = cluster};
    cluster->options = *options;
    cluster->hooks = *hooks;
    cluster->rng.state = ~options->seed;
    cluster->nodes = calloc(options->nodes, sizeof(cluster->nodes[0]));
    cluster->uids = calloc(options->nodes, sizeof(cluster->uids[0]));
    cluster->wall_skew_ms = calloc(options->nodes, sizeof(cluster->wall_skew_ms[0]));
    cluster->incarnation_top = calloc(options->nodes, sizeof(cluster->incarnation_top[0]));
    int rc = vnet_create(&cluster->vnet, &network, &vnet_hooks);
    if (rc < 0 || cluster->nodes == NULL || cluster->uids == NULL ||
        cluster->wall_skew_ms == NULL || cluster->incarnation_top == NULL) {
        cluster_destroy(cluster);
        return rc < 0 ? rc : -ENOMEM;
    }
    clocks_set(cluster);
    *out = cluster;
    return 0;
}

void cluster_destroy(struct cluster *cluster)
{
    if (cluster == NULL) {
        return;
    }
    for (uint32_t i = 0; cluster->nodes != NULL && i < cluster->options.nodes; i++) {
        swim_destroy(cluster->nodes[i]);
    }
    vnet_destroy(cluster->vnet);
    free(cluster->nodes);
    free(cluster->uids);
    free(cluster->wall_skew_ms);
    free(cluster->incarnation_top);
    free(cluster);
}

void cluster_start(struct cluster *cluster, uint32_t node)
{
    struct swim_seed seeds[CLUSTER_SEEDS];
    struct swim_options options = {
        .members_max = cluster->options.nodes,
        .state_max = cluster->options.state_bytes,
        .seeds = seeds,
        .probe_interval_ns = cluster->options.probe_interval_ns,
        .suspect_min_ns = cluster->options.suspect_min_ns,
        .suspect_max_ns = cluster->options.suspect_max_ns,
    };
    struct swim_record *self = &options.self;
    for (uint32_t i = 0; i < CLUSTER_SEEDS && i < cluster->options.nodes; i++) {
        seeds[options.seed_count++] =
            (struct swim_seed){.address = address_of(i), .port = CLUSTER_PORT};
    }
    secret_of(cluster, node, 1, options.sign_seed);
    secret_of(cluster, 0, 2, options.mesh_key);
    secret_of(cluster, (uint32_t)rng_next(&cluster->rng), 3, options.entropy);
    if (cluster->options.odd_clocks) {
        cluster->wall_skew_ms[node] =
            (int64_t)rng_below(&cluster->rng, 2000000) - 1000000; /* also backwards */
    }
    uint64_t wall_ms = WALL_MS + vnet_now_ns(cluster->vnet) / NS_PER_MS;
    self->incarnation = wall_ms + (uint64_t)cluster->wall_skew_ms[node];
    self->address = address_of(node);
    self->port = CLUSTER_PORT;
    self->id = (uint16_t)node;
    snprintf(self->name, sizeof(self->name), "n%u", node);
    vnet_restart(cluster->vnet, node);
    if (swim_create(&cluster->nodes[node], &options, vnet_local_ns(cluster->vnet, node)) < 0) {
        fprintf(stderr, "node %u cannot be made\n", node);
        abort();
    }
    cluster->uids[node] = swim_self(cluster->nodes[node])->uid;
    cluster->out.datagram_count = cluster->out.event_count = 0;
    carry(cluster, node);
}

void cluster_crash(struct cluster *cluster, uint32_t node)
{
    vnet_crash(cluster->vnet, node);
    swim_destroy(cluster->nodes[node]);
    cluster->nodes[node] = NULL;
}

void cluster_leave(struct cluster *cluster, uint32_t node)
{
    swim_leave(cluster->nodes[node], vnet_local_ns(cluster->vnet, node), &cluster->out);
    carry(cluster, node);
}

/* ---- reading ---- */

uint32_t cluster_node_of(const struct cluster *cluster, uint64_t uid)
{
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        if (cluster->uids[i] == uid) {
            return i;
        }
    }
    return UINT32_MAX;
}

enum swim_status cluster_view(const struct cluster *cluster, uint32_t observer, uint32_t node)
{
    const struct swim_member *member = swim_find(cluster->nodes[observer], cluster->uids[node]);
    return member != NULL ? member->status : SWIM_LEFT;
}

bool cluster_agrees(const struct cluster *cluster)
{
    uint32_t running = 0;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        if (cluster->nodes[i] != NULL) {
            sum = swim_sum(cluster->nodes[i]);
            running++;
        }
    }
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        if (cluster->nodes[i] != NULL &&
            (swim_live_count(cluster->nodes[i]) != running || swim_sum(cluster->nodes[i]) != sum)) {
            return false;
        }
    }
    return true;
}

uint64_t cluster_bytes(const struct cluster *cluster)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        bytes += vnet_counters(cluster->vnet, i)->sent_bytes;
    }
    return bytes;
}
