/* SPDX-License-Identifier: Apache-2.0 */
/*
 * swim_life.c - one seed's life of a mesh: faults drawn by the seed (swarm testing: each seed draws
 * which kinds there are), then quiet, over and over, with invariants checked at every event and
 * every second.
 *
 * At every event of every node
 *   - who was dead in an incarnation never lives again in that one or an earlier one;
 *   - a record is one its owner has made: its session, its address, an incarnation it reached;
 *   - nobody is known but the nodes there are.
 * Every second
 *   - of two nodes that could talk to each other and to a seed and were left alone for BOUND_NS,
 *     neither holds the other dead;
 *   - whoever crashed BOUND_NS ago is held alive by nobody who was left alone since.
 * After each quiet time
 *   - everybody holds exactly the running nodes alive, and all know the same.
 * At the end: bytes per second and node within BYTES_MAX.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/cluster.h"
#include "tests/sim/swim_sim.h"

#define NODES_MAX     24u
#define BOUND_NS      (45 * NS_PER_S)
#define QUIET_NS      (60 * NS_PER_S)
#define GHOST_NS      (15 * NS_PER_S)
#define BYTES_MAX     30000.0
#define CHECK_EACH_NS NS_PER_S

enum fault {
    FAULT_CRASH,
    FAULT_START,
    FAULT_FREEZE,
    FAULT_PART,
    FAULT_JOIN,
    FAULT_BLOCK,
    FAULT_LOSS,
    FAULT_NODE_LOSS,
    FAULT_LEAVE,
    FAULT_FACTS,
    FAULTS
};

struct life {
    struct cluster *cluster;
    struct rng rng;
    bool verbose;
    bool odd[FAULTS]; /* which kinds this seed has */
    uint64_t deaths;
    uint64_t dead_incarnation[NODES_MAX][NODES_MAX]; /* [observer][node], 0 = none */
    uint64_t alive_ns[NODES_MAX][NODES_MAX];         /* when it last came (back) to life there */
    uint64_t disturbed_ns[NODES_MAX];                /* when something last happened to it */
    uint64_t global_ns;                              /* or to all */
    bool blocks, lossy;
    char broken[200];
};

static void __attribute__((format(printf, 2, 3))) breaks(struct life *life, const char *format, ...)
{
    va_list args;
    if (life->broken[0] == '\0') {
        int used = snprintf(life->broken, sizeof(life->broken),
                            "at %.3f s: ", (double)vnet_now_ns(life->cluster->vnet) / 1e9);
        va_start(args, format);
        vsnprintf(life->broken + used, sizeof(life->broken) - (size_t)used, format, args);
        va_end(args);
    }
}

/* ---- invariants ---- */

static void life_event(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                       void *user)
{
    struct life *life = user;
    uint32_t about = cluster_node_of(cluster, event->uid);
    const struct swim_member *member = swim_find(cluster->nodes[node], event->uid);
    if (about == UINT32_MAX || member == NULL) {
        breaks(life, "node %u knows a stranger", node);
        return;
    }
    if (life->verbose) {
        static const char *const names[] = {"alive",   "suspect", "dead", "left",
                                            "updated", "state",   "clash"};
        printf("%10.3f  n%u: n%u %s %llu\n", (double)vnet_now_ns(cluster->vnet) / 1e9, node, about,
               names[event->type], (unsigned long long)event->incarnation);
    }
    if (member->record.incarnation > cluster->incarnation_top[about] ||
        member->record.id != about) {
        breaks(life, "node %u holds a record that node %u has not made", node, about);
    }
    if (event->type == SWIM_EVENT_CLASH) {
        breaks(life, "node %u sees two claim the id of node %u", node, about);
    }
    if (event->type == SWIM_EVENT_ALIVE) {
        life->alive_ns[node][about] = vnet_now_ns(cluster->vnet);
    }
    uint64_t *dead = &life->dead_incarnation[node][about];
    if (event->type == SWIM_EVENT_DEAD) {
        *dead = event->incarnation;
        life->deaths++;
    } else if (event->type <= SWIM_EVENT_SUSPECT && event->incarnation <= *dead) {
        breaks(life, "node %u revived node %u in incarnation %llu", node, about,
               (unsigned long long)event->incarnation);
    }
}

static void pairs_check(struct life *life)
{
    struct cluster *cluster = life->cluster;
    uint64_t now_ns = vnet_now_ns(cluster->vnet);
    if (!cluster_runs(cluster, 0)) {
        return; /* newcomers have nobody to turn to */
    }
    for (uint32_t a = 0; a < cluster->options.nodes; a++) {
        for (uint32_t b = 0; b < cluster->options.nodes; b++) {
            uint64_t since_ns = life->disturbed_ns[a] > life->disturbed_ns[b]
                                    ? life->disturbed_ns[a]
                                    : life->disturbed_ns[b];
            since_ns = since_ns > life->global_ns ? since_ns : life->global_ns;
            since_ns = since_ns > life->disturbed_ns[0] ? since_ns : life->disturbed_ns[0];
            if (a == b || !cluster_runs(cluster, a) || now_ns < since_ns + BOUND_NS ||
                life->blocks || life->lossy) {
                continue;
            }
            enum swim_status view = cluster_view(cluster, a, b);
            bool found = vnet_reaches(cluster->vnet, a, 0) || a == 0;
            if (found && vnet_reaches(cluster->vnet, a, b) && view == SWIM_DEAD) {
                breaks(life, "node %u holds node %u dead, which it reaches", a, b);
            }
            /* Its last words may come much later, kept back on the way. */
            bool long_since = now_ns >= life->alive_ns[a][b] + GHOST_NS;
            if (long_since && !vnet_reaches(cluster->vnet, a, b) && view <= SWIM_SUSPECT) {
                breaks(life, "node %u holds node %u alive, which it does not reach", a, b);
            }
        }
    }
}

static void life_script(struct cluster *cluster, uint32_t node, uint64_t value, void *user)
{
    struct life *life = user;
    (void)node;
    (void)value;
    pairs_check(life);
    vnet_at(cluster->vnet, vnet_now_ns(cluster->vnet) + CHECK_EACH_NS, 0, 0);
}

/* ---- faults ---- */

static void crash(struct life *life, uint32_t node)
{
    cluster_crash(life->cluster, node);
    memset(life->dead_incarnation[node], 0, sizeof(life->dead_incarnation[node]));
}

static void fault_node(struct life *life, enum fault fault, uint32_t node)
{
    struct cluster *cluster = life->cluster;
    bool runs = cluster_runs(cluster, node);
    life->disturbed_ns[node] = vnet_now_ns(cluster->vnet);
    if (fault == FAULT_CRASH && runs) {
        crash(life, node);
    } else if (fault == FAULT_START && !runs) {
        cluster_start(cluster, node);
    } else if (fault == FAULT_FREEZE && runs) {
        uint64_t pause_ns = (100 + rng_below(&life->rng, 20000)) * NS_PER_MS;
        vnet_freeze(cluster->vnet, node, pause_ns);
        life->disturbed_ns[node] += pause_ns;
    } else if (fault == FAULT_LEAVE && runs && !vnet_is_frozen(cluster->vnet, node)) {
        cluster_leave(cluster, node);
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + NS_PER_S);
        crash(life, node);
    } else if (fault == FAULT_FACTS && runs) {
        struct swim_record facts = swim_self(cluster->nodes[node])->record;
        facts.tier = (uint8_t)rng_below(&life->rng, 8);
        swim_set_self(cluster->nodes[node], &facts);
        uint64_t state = rng_next(&life->rng);
        swim_set_state(cluster->nodes[node], &state, sizeof(state));
    }
}

static void fault_all(struct life *life, enum fault fault)
{
    struct cluster *cluster = life->cluster;
    struct vnet *vnet = cluster->vnet;
    uint32_t nodes = cluster->options.nodes;
    life->global_ns = vnet_now_ns(vnet);
    if (fault == FAULT_PART) {
        for (uint32_t i = 0; i < nodes; i++) {
            vnet_set_group(vnet, i, rng_below(&life->rng, 2));
        }
    } else if (fault == FAULT_JOIN) {
        for (uint32_t i = 0; i < nodes; i++) {
            vnet_set_group(vnet, i, 0);
        }
    } else if (fault == FAULT_BLOCK) {
        life->blocks = true;
        vnet_block(vnet, rng_below(&life->rng, nodes), rng_below(&life->rng, nodes), true);
    } else if (fault == FAULT_LOSS) {
        vnet_set_loss(vnet, rng_unit(&life->rng) * 0.4);
        life->lossy = true;
    } else {
        vnet_set_node_loss(vnet, rng_below(&life->rng, nodes), rng_unit(&life->rng) * 0.6,
                           rng_unit(&life->rng) * 0.6);
        life->lossy = true;
    }
}

static void fault_one(struct life *life)
{
    uint32_t node = rng_below(&life->rng, life->cluster->options.nodes);
    enum fault fault = rng_below(&life->rng, FAULTS);
    if (!life->odd[fault]) {
        return;
    }
    if (life->verbose) {
        static const char *const names[] = {"crash", "start", "freeze",    "part",  "join",
                                            "block", "loss",  "node loss", "leave", "facts"};
        printf("%10.3f  %s n%u\n", (double)vnet_now_ns(life->cluster->vnet) / 1e9, names[fault],
               node);
    }
    if (fault >= FAULT_PART && fault <= FAULT_NODE_LOSS) {
        fault_all(life, fault);
    } else {
        fault_node(life, fault, node);
    }
}

static void repair_all(struct life *life, double loss)
{
    struct cluster *cluster = life->cluster;
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        vnet_set_group(cluster->vnet, i, 0);
        vnet_set_node_loss(cluster->vnet, i, 0.0, 0.0);
        for (uint32_t j = 0; j < cluster->options.nodes; j++) {
            vnet_block(cluster->vnet, i, j, false);
        }
    }
    vnet_set_loss(cluster->vnet, loss);
    life->blocks = life->lossy = false;
    life->global_ns = vnet_now_ns(cluster->vnet);
}

/* ---- a life ---- */

static void settings_draw(struct life *life, struct cluster_options *options, struct delay *delay)
{
    struct rng *rng = &life->rng;
    delay->kind = DELAY_CONSTANT;
    delay->constant_ns = (uint64_t)(100 + rng_below(rng, 1u << (4 + rng_below(rng, 14)))) *
                         NS_PER_US; /* to 131 ms */
    options->nodes = 2 + rng_below(rng, NODES_MAX - 1);
    options->delay = delay;
    options->jitter = rng_below(rng, 2) * rng_unit(rng) * 0.5;
    options->duplicate = rng_below(rng, 2) * rng_unit(rng) * 0.05;
    options->loss = rng_below(rng, 2) * rng_unit(rng) * 0.02;
    options->odd_clocks = rng_below(rng, 2) == 0;
    options->corrupted = rng_below(rng, 2) * rng_unit(rng) * 0.02;
    options->replayed = rng_below(rng, 2) * rng_unit(rng) * 0.05;
    options->state_bytes = 16;
    for (unsigned i = 0; i < FAULTS; i++) {
        life->odd[i] = rng_below(rng, 3) != 0;
    }
    life->odd[FAULT_START] = true;
}

/* Faults for a while, then all is repaired, left alone, and has to agree. */
static void cycle(struct life *life, double loss)
{
    struct cluster *cluster = life->cluster;
    struct rng *rng = &life->rng;
    uint64_t end_ns = vnet_now_ns(cluster->vnet) + (30 + rng_below(rng, 90)) * NS_PER_S;
    uint32_t pace_ms = 200u << rng_below(rng, 7);
    while (vnet_now_ns(cluster->vnet) < end_ns && life->broken[0] == '\0') {
        fault_one(life);
        vnet_run(cluster->vnet,
                 vnet_now_ns(cluster->vnet) + rng_below(rng, 2 * pace_ms) * NS_PER_MS);
    }
    repair_all(life, loss);
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        if (!cluster_runs(cluster, i) && (i == 0 || rng_below(rng, 2) == 0)) {
            fault_node(life, FAULT_START, i);
        }
    }
    vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 20 * NS_PER_S + QUIET_NS);
    for (unsigned i = 0; i < 10 && !cluster_agrees(cluster); i++) {
        /* With loss somebody may be under suspicion at this very moment. */
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + NS_PER_S);
    }
    if (!cluster_agrees(cluster)) {
        breaks(life, "no agreement %.0f s after the last fault",
               (double)(vnet_now_ns(cluster->vnet) - life->global_ns) / 1e9);
    }
}

void life_run(uint64_t seed, uint64_t seconds, bool verbose, struct life_result *result)
{
    struct delay delay = {0};
    struct cluster_options options = {.seed = seed};
    struct life *life = calloc(1, sizeof(*life));
    memset(result, 0, sizeof(*result));
    if (life == NULL) {
        strcpy(result->broken, "out of memory");
        return;
    }
    life->rng.state = seed * UINT64_C(0x9e3779b97f4a7c15);
    life->verbose = verbose;
    struct cluster_hooks hooks = {.event = life_event, .script = life_script, .user = life};
    settings_draw(life, &options, &delay);
    if (cluster_create(&life->cluster, &options, &hooks) < 0) {
        strcpy(result->broken, "out of memory");
        free(life);
        return;
    }
    struct cluster *cluster = life->cluster;
    for (uint32_t i = 0; i < options.nodes; i++) {
        cluster_start(cluster, i);
    }
    vnet_at(cluster->vnet, CHECK_EACH_NS, 0, 0);
    vnet_run(cluster->vnet, 20 * NS_PER_S);
    while (vnet_now_ns(cluster->vnet) < seconds * NS_PER_S && life->broken[0] == '\0') {
        cycle(life, options.loss);
    }
    result->simulated_s = vnet_now_ns(cluster->vnet) / NS_PER_S;
    result->nodes = options.nodes;
    result->deaths = life->deaths;
    result->fingerprint = vnet_fingerprint(cluster->vnet);
    result->bytes_s_node = (double)cluster_bytes(cluster) / options.nodes /
                           (double)(result->simulated_s > 0 ? result->simulated_s : 1);
    if (result->bytes_s_node > BYTES_MAX) {
        breaks(life, "%.0f B/s/node", result->bytes_s_node);
    }
    if (!vnet_is_sound(cluster->vnet)) {
        breaks(life, "out of memory");
    }
    memcpy(result->broken, life->broken, sizeof(result->broken));
    cluster_destroy(cluster);
    free(life);
}
