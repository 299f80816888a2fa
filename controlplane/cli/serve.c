/* SPDX-License-Identifier: Apache-2.0 */
/* serve.c - see serve.h. */
#include "controlplane/cli/serve.h"

#include <stdio.h>
#include <string.h>

void keeper_init(struct keeper *k, uint64_t now_ns)
{
    *k = (struct keeper){.due_ns = now_ns};
}

bool keeper_due(const struct keeper *k, uint64_t now_ns)
{
    return !k->running && now_ns >= k->due_ns;
}

void keeper_started(struct keeper *k, uint64_t now_ns)
{
    k->running = true;
    k->from_ns = now_ns;
}

static uint64_t pause_ns(uint32_t fails)
{
    uint32_t doublings = fails - 1 < 16 ? fails - 1 : 16;
    uint64_t pause = KEEPER_FIRST_NS << doublings;
    return pause < KEEPER_MOST_NS ? pause : KEEPER_MOST_NS;
}

bool keeper_ended(struct keeper *k, bool usage, uint64_t now_ns)
{
    uint64_t ran_ns = now_ns - k->from_ns;
    k->running = false;
    k->sound = k->sound || ran_ns >= KEEPER_SOUND_NS;
    k->fails = ran_ns >= KEEPER_WELL_NS ? 1 : k->fails + 1;
    k->due_ns = now_ns + pause_ns(k->fails);
    return !usage && (k->sound || k->fails < KEEPER_FAILS);
}

size_t serve_config_write(const struct serve_node *node, char *out, size_t size)
{
    int len = snprintf(out, size,
                       "# Written by `weft serve`: a node for this machine's own clients.\n"
                       "node: local\n"
                       "geometry: geo\n"
                       "data_port: %u\n"
                       "nic: {driver: none, interface: lo, hugepages: \"off\"}\n"
                       "sockets: {admin: \"%s/admin.sock\", port: \"%s/port.sock\"}\n"
                       "members:\n"
                       "  - {name: local, id: 1, address: \"127.0.0.1\", latitude: %.6f, "
                       "longitude: %.6f, tier: %u}\n",
                       node->data_port, node->folder, node->folder, node->latitude_deg,
                       node->longitude_deg, node->tier);
    return len > 0 && (size_t)len < size ? (size_t)len : 0;
}
