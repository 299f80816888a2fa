/* SPDX-License-Identifier: Apache-2.0 */
/* local_fixture.h - local clients by hand, for test_local.c and the fuzz target: ports without
 * sockets, whose client end writes into the same memory. */
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include "dataplane/local.h"
#include "tests/unit/route/fixture.h"

struct hand_client {
    struct client_port *port;
    struct ring_end in, out; /* the client's ends */
};

/* Comes as a new client; what lay in its rings' entries lies there still. */
static inline void hand_attach(struct hand_client *c, struct local *local, uint32_t slot,
                               uint32_t generation)
{
    struct client_port *port = c->port;
    struct port_client_shm *shm = port->shm;
    memset(shm, 0, offsetof(struct port_client_shm, to_client_slots));
    memset(port, 0, sizeof(*port));
    port->socket_fd = port->memfd = port->wake_node_fd = -1;
    port->slot = slot;
    port->generation = generation;
    port->shm = shm;
    port->last_left = PORT_CLIENT_SLOTS;
    ring_end_init(&port->to_client, &shm->to_client, shm->to_client_slots, PORT_CLIENT_SLOTS);
    ring_end_init(&port->to_node, &shm->to_node, shm->to_node_slots, PORT_CLIENT_SLOTS);
    ring_end_init(&c->in, &shm->to_client, shm->to_client_slots, PORT_CLIENT_SLOTS);
    ring_end_init(&c->out, &shm->to_node, shm->to_node_slots, PORT_CLIENT_SLOTS);
    local_attach(local, port);
}

static inline struct hand_client hand_client(struct local *local, uint32_t slot,
                                             uint32_t generation)
{
    struct hand_client c = {.port = calloc(1, sizeof(*c.port))};
    c.port->shm = aligned_alloc(64, sizeof(*c.port->shm));
    memset(c.port->shm, 0, sizeof(*c.port->shm));
    hand_attach(&c, local, slot, generation);
    return c;
}

static inline void hand_free(struct hand_client *c)
{
    free(c->port->shm);
    free(c->port);
    c->port = NULL;
}

static inline bool hand_send(struct hand_client *c, const void *data, uint32_t len)
{
    struct ring_slot *slot = ring_reserve(&c->out);
    if (slot == NULL) {
        return false;
    }
    memcpy(slot->data, data, len);
    slot->len = len;
    ring_commit(&c->out);
    return true;
}

/* A turn of the lcore's, but for the network and the worker. */
#define HAND_BURST 32u
struct hand_turn {
    struct route_packet packets[HAND_BURST];
    uint32_t count;
};

static struct hand_place {
    uint8_t room[64];
    struct route_frame frame;
} hand_places[HAND_BURST];

static inline void hand_buffers(struct hand_turn *turn, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        packet_attach(&turn->packets[i], (uint8_t *)&hand_places[i].frame + ROUTE_START_IPV4, 0);
    }
}

static inline void hand_turn(struct hand_turn *turn, struct local *local, struct route_core *core,
                             const struct route_table *table, uint64_t now_ns)
{
    uint32_t wanted = local_waiting(local, HAND_BURST);
    hand_buffers(turn, wanted);
    turn->count = local_take(local, core, turn->packets, wanted);
    stage_parse_local(core, turn->packets, turn->count);
    stage_classify(core, table, turn->packets, turn->count, now_ns);
    stage_select(core, table, turn->packets, turn->count, now_ns);
}
