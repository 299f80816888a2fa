/* SPDX-License-Identifier: Apache-2.0 */
/* vnet.c - see vnet.h. */
#include "bench/mesh/vnet.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/mesh/events.h"
#include "bench/mesh/packets.h"
#include "bench/mesh/pairs.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define INBOX_DEFAULT 256u
#define PPM           1000000

enum event_kind { EVENT_DATAGRAM, EVENT_WAKE, EVENT_SCRIPT, EVENT_THAW };

struct host {
    uint64_t frozen_until_ns; /* 0: runs */
    uint64_t wake_ns;         /* true time; UINT64_MAX: none */
    uint64_t clock_set_ns;    /* true time at which the clock was set */
    uint64_t clock_shown_ns;  /* and what it showed then */
    int32_t drift_ppm;
    uint32_t group;
    uint32_t held; /* datagrams that wait for its thaw */
    uint32_t held_first, held_last;
    float loss_out, loss_in;
    bool up;
    bool wake_held; /* fell due while it was frozen */
    struct vnet_counters counters;
};

struct vnet {
    struct vnet_options options;
    struct vnet_hooks hooks;
    uint64_t now_ns;
    uint64_t fingerprint;
    bool sound;
    struct rng rng;
    struct events events;
    struct packets packets;
    struct pairs blocked;
    struct host hosts[];
};

int vnet_create(struct vnet **out, const struct vnet_options *options,
                const struct vnet_hooks *hooks)
{
    *out = NULL;
    if (options->nodes == 0 || options->delay == NULL) {
        return -EINVAL;
    }
    struct vnet *vnet = calloc(1, sizeof(*vnet) + options->nodes * sizeof(vnet->hosts[0]));
    if (vnet == NULL) {
        return -ENOMEM;
    }
    vnet->options = *options;
    if (vnet->options.inbox_max == 0) {
        vnet->options.inbox_max = INBOX_DEFAULT;
    }
    vnet->hooks = *hooks;
    vnet->rng.state = options->seed;
    vnet->sound = true;
    packets_init(&vnet->packets);
    for (uint32_t i = 0; i < options->nodes; i++) {
        vnet->hosts[i].up = true;
        vnet->hosts[i].wake_ns = UINT64_MAX;
        vnet->hosts[i].held_first = vnet->hosts[i].held_last = PACKET_NONE;
    }
    *out = vnet;
    return 0;
}

void vnet_destroy(struct vnet *vnet)
{
    if (vnet != NULL) {
        events_deinit(&vnet->events);
        packets_deinit(&vnet->packets);
        pairs_deinit(&vnet->blocked);
        free(vnet);
    }
}

static void push(struct vnet *vnet, uint64_t at_ns, enum event_kind kind, uint32_t node,
                 uint64_t value)
{
    struct event event = {.at_ns = at_ns, .kind = kind, .node = node, .value = value};
    if (events_push(&vnet->events, &event) < 0) {
        vnet->sound = false;
    }
}

/* ---- clocks ---- */

static uint64_t local_at(const struct host *host, uint64_t true_ns)
{
    int64_t passed = (int64_t)(true_ns - host->clock_set_ns);
    int64_t gained = passed / PPM * host->drift_ppm + passed % PPM * host->drift_ppm / PPM;
    return host->clock_shown_ns + (uint64_t)(passed + gained);
}

/* The first true time at which the clock shows at least `local_ns`. */
static uint64_t true_at(const struct host *host, uint64_t local_ns)
{
    if (local_ns <= host->clock_shown_ns) {
        return host->clock_set_ns;
    }
    uint64_t shown = local_ns - host->clock_shown_ns;
    uint64_t rate = (uint64_t)(PPM + host->drift_ppm);
    uint64_t passed = shown / rate * PPM + shown % rate * PPM / rate;
    while (local_at(host, host->clock_set_ns + passed) < local_ns) {
        passed++;
    }
    return host->clock_set_ns + passed;
}

/* ---- what programs do ---- */

static bool lost(struct vnet *vnet, const struct host *from, const struct host *to)
{
    double kept =
        (1.0 - vnet->options.loss) * (1.0 - (double)from->loss_out) * (1.0 - (double)to->loss_in);
    return kept < 1.0 && rng_unit(&vnet->rng) >= kept;
}

static void copy_send(struct vnet *vnet, uint32_t from, uint32_t to, const void *data, size_t size)
{
    uint64_t takes_ns = delay_ns(vnet->options.delay, from, to);
    if (vnet->options.jitter > 0.0) {
        double part = -log(1.0 - rng_unit(&vnet->rng)) * vnet->options.jitter;
        takes_ns += (uint64_t)(part * (double)takes_ns);
    }
    uint32_t packet = packets_add(&vnet->packets, from, data, size);
    if (packet == PACKET_NONE) {
        vnet->sound = false;
        return;
    }
    push(vnet, vnet->now_ns + takes_ns, EVENT_DATAGRAM, to, packet);
}

void vnet_send(struct vnet *vnet, uint32_t from, uint32_t to, const void *data, size_t size)
{
    struct host *sender = &vnet->hosts[from];
    sender->counters.sent++;
    sender->counters.sent_bytes += size + VNET_OVERHEAD;
    if (to >= vnet->options.nodes || size > VNET_DATAGRAM_MAX || !sender->up) {
        return;
    }
    struct host *receiver = &vnet->hosts[to];
    if (sender->group != receiver->group || pairs_has(&vnet->blocked, from, to) ||
        lost(vnet, sender, receiver)) {
        return;
    }
    copy_send(vnet, from, to, data, size);
    if (vnet->options.duplicate > 0.0 && rng_unit(&vnet->rng) < vnet->options.duplicate) {
        copy_send(vnet, from, to, data, size);
    }
}

void vnet_wake(struct vnet *vnet, uint32_t node, uint64_t local_ns)
{
    struct host *host = &vnet->hosts[node];
    uint64_t at_ns = UINT64_MAX;
    if (local_ns != UINT64_MAX) {
        at_ns = true_at(host, local_ns);
        at_ns = at_ns > vnet->now_ns ? at_ns : vnet->now_ns;
    }
    if (at_ns == host->wake_ns) {
        return;
    }
    host->wake_ns = at_ns;
    host->wake_held = false;
    if (at_ns != UINT64_MAX) {
        push(vnet, at_ns, EVENT_WAKE, node, 0);
    }
}

/* ---- what happens to them ---- */

void vnet_set_loss(struct vnet *vnet, double loss)
{
    vnet->options.loss = loss;
}

void vnet_set_node_loss(struct vnet *vnet, uint32_t node, double out, double in)
{
    vnet->hosts[node].loss_out = (float)out;
    vnet->hosts[node].loss_in = (float)in;
}

int vnet_block(struct vnet *vnet, uint32_t from, uint32_t to, bool blocked)
{
    if (!blocked) {
        pairs_remove(&vnet->blocked, from, to);
        return 0;
    }
    return pairs_add(&vnet->blocked, from, to);
}

void vnet_set_group(struct vnet *vnet, uint32_t node, uint32_t group)
{
    vnet->hosts[node].group = group;
}

void vnet_freeze(struct vnet *vnet, uint32_t node, uint64_t duration_ns)
{
    struct host *host = &vnet->hosts[node];
    uint64_t until_ns = vnet->now_ns + duration_ns;
    if (host->up && until_ns > host->frozen_until_ns) {
        host->frozen_until_ns = until_ns;
        push(vnet, until_ns, EVENT_THAW, node, 0);
    }
}

void vnet_set_clock(struct vnet *vnet, uint32_t node, uint64_t offset_ns, int32_t drift_ppm)
{
    struct host *host = &vnet->hosts[node];
    host->clock_set_ns = vnet->now_ns;
    host->clock_shown_ns = offset_ns;
    host->drift_ppm = drift_ppm;
}

static uint32_t held_take(struct vnet *vnet, struct host *host)
{
    uint32_t packet = host->held_first;
    host->held_first = packets_next(&vnet->packets, packet);
    if (host->held_first == PACKET_NONE) {
        host->held_last = PACKET_NONE;
    }
    host->held--;
    return packet;
}

void vnet_crash(struct vnet *vnet, uint32_t node)
{
    struct host *host = &vnet->hosts[node];
    while (host->held > 0) {
        packets_release(&vnet->packets, held_take(vnet, host));
    }
    host->up = false;
    host->frozen_until_ns = 0;
    host->wake_ns = UINT64_MAX;
    host->wake_held = false;
}

void vnet_restart(struct vnet *vnet, uint32_t node)
{
    vnet->hosts[node].up = true;
}

void vnet_at(struct vnet *vnet, uint64_t true_ns, uint32_t node, uint64_t value)
{
    push(vnet, true_ns > vnet->now_ns ? true_ns : vnet->now_ns, EVENT_SCRIPT, node, value);
}

/* ---- running ---- */

static void packet_deliver(struct vnet *vnet, uint32_t node, uint32_t packet)
{
    struct host *host = &vnet->hosts[node];
    uint32_t from;
    size_t size;
    const void *data = packets_at(&vnet->packets, packet, &from, &size);
    host->counters.received++;
    if (vnet->hooks.datagram != NULL) {
        vnet->hooks.datagram(node, from, data, size, local_at(host, vnet->now_ns),
                             vnet->hooks.user);
    }
    packets_release(&vnet->packets, packet);
}

static void datagram_due(struct vnet *vnet, uint32_t node, uint32_t packet)
{
    struct host *host = &vnet->hosts[node];
    if (host->up && host->frozen_until_ns == 0) {
        packet_deliver(vnet, node, packet);
    } else if (host->up && host->held < vnet->options.inbox_max) {
        if (host->held++ == 0) {
            host->held_first = packet;
        } else {
            packets_link(&vnet->packets, host->held_last, packet);
        }
        host->held_last = packet;
    } else {
        packets_release(&vnet->packets, packet);
    }
}

static void wake_due(struct vnet *vnet, uint32_t node, uint64_t at_ns)
{
    struct host *host = &vnet->hosts[node];
    if (!host->up || host->wake_ns != at_ns) {
        return; /* replaced */
    }
    if (host->frozen_until_ns != 0) {
        host->wake_held = true;
        return;
    }
    host->wake_ns = UINT64_MAX;
    if (vnet->hooks.wake != NULL) {
        vnet->hooks.wake(node, local_at(host, vnet->now_ns), vnet->hooks.user);
    }
}

static void wake_held(struct vnet *vnet, uint32_t node)
{
    struct host *host = &vnet->hosts[node];
    if (host->wake_held) {
        host->wake_held = false;
        wake_due(vnet, node, host->wake_ns);
    }
}

static void thaw_due(struct vnet *vnet, uint32_t node)
{
    struct host *host = &vnet->hosts[node];
    if (!host->up || host->frozen_until_ns == 0 || host->frozen_until_ns > vnet->now_ns) {
        return; /* crashed meanwhile, or frozen for longer */
    }
    host->frozen_until_ns = 0;
    if ((rng_next(&vnet->rng) & 1) != 0) {
        wake_held(vnet, node);
    }
    while (host->held > 0 && host->up && host->frozen_until_ns == 0) {
        packet_deliver(vnet, node, held_take(vnet, host));
    }
    wake_held(vnet, node);
}

/* One splitmix64 step over what has been before and this event. */
static void fingerprint_add(struct vnet *vnet, const struct event *event)
{
    struct rng rng = {.state = vnet->fingerprint ^ event->at_ns ^
                               ((uint64_t)event->node << 40 | (uint64_t)event->kind << 32)};
    vnet->fingerprint = rng_next(&rng);
}

bool vnet_step(struct vnet *vnet)
{
    if (events_peek(&vnet->events) == NULL) {
        return false;
    }
    struct event event = events_pop(&vnet->events);
    vnet->now_ns = event.at_ns;
    fingerprint_add(vnet, &event);
    switch ((enum event_kind)event.kind) {
    case EVENT_DATAGRAM:
        datagram_due(vnet, event.node, (uint32_t)event.value);
        break;
    case EVENT_WAKE:
        wake_due(vnet, event.node, event.at_ns);
        break;
    case EVENT_THAW:
        thaw_due(vnet, event.node);
        break;
    case EVENT_SCRIPT:
        if (vnet->hooks.script != NULL) {
            vnet->hooks.script(event.node, event.value, vnet->now_ns, vnet->hooks.user);
        }
        break;
    }
    return true;
}

void vnet_run(struct vnet *vnet, uint64_t until_ns)
{
    const struct event *next;
    while ((next = events_peek(&vnet->events)) != NULL && next->at_ns <= until_ns) {
        vnet_step(vnet);
    }
    vnet->now_ns = until_ns > vnet->now_ns ? until_ns : vnet->now_ns;
}

/* ---- reading ---- */

uint64_t vnet_now_ns(const struct vnet *vnet)
{
    return vnet->now_ns;
}

uint64_t vnet_local_ns(const struct vnet *vnet, uint32_t node)
{
    return local_at(&vnet->hosts[node], vnet->now_ns);
}

bool vnet_is_up(const struct vnet *vnet, uint32_t node)
{
    return vnet->hosts[node].up;
}

bool vnet_is_frozen(const struct vnet *vnet, uint32_t node)
{
    return vnet->hosts[node].frozen_until_ns != 0;
}

bool vnet_reaches(const struct vnet *vnet, uint32_t from, uint32_t to)
{
    const struct host *a = &vnet->hosts[from];
    const struct host *b = &vnet->hosts[to];
    return a->up && b->up && a->frozen_until_ns == 0 && b->frozen_until_ns == 0 &&
           a->group == b->group && !pairs_has(&vnet->blocked, from, to);
}

const struct vnet_counters *vnet_counters(const struct vnet *vnet, uint32_t node)
{
    return &vnet->hosts[node].counters;
}

uint64_t vnet_fingerprint(const struct vnet *vnet)
{
    return vnet->fingerprint;
}

bool vnet_is_sound(const struct vnet *vnet)
{
    return vnet->sound;
}
