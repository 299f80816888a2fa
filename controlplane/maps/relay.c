/* SPDX-License-Identifier: Apache-2.0 */
/* relay.c - see relay.h. */
#include "controlplane/maps/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int relay_init(struct relay_map *map, uint32_t legs_max, uint64_t seed)
{
    memset(map, 0, sizeof(*map));
    int rc = slots_init(&map->slots, legs_max, seed);
    if (rc != 0) {
        return rc;
    }
    map->legs = calloc(legs_max, sizeof(*map->legs));
    if (map->legs == NULL) {
        slots_deinit(&map->slots);
        return -ENOMEM;
    }
    return 0;
}

void relay_deinit(struct relay_map *map)
{
    slots_deinit(&map->slots);
    free(map->legs);
    memset(map, 0, sizeof(*map));
}

static uint64_t key_of(uint32_t from, uint32_t to)
{
    return (uint64_t)from << 32 | to;
}

bool relay_learn(struct relay_map *map, uint32_t from, uint32_t to, uint64_t rtt_ns,
                 uint64_t p95_ns, uint64_t age_ns, uint64_t now_ns)
{
    if (from == to || rtt_ns == 0 || rtt_ns > RELAY_RTT_MAX_NS || p95_ns > RELAY_RTT_MAX_NS ||
        p95_ns < rtt_ns / 4 || age_ns > RELAY_FRESH_NS) {
        return false;
    }
    uint64_t measured_ns = now_ns > age_ns ? now_ns - age_ns : 0;
    bool fresh;
    uint32_t slot = slots_take(&map->slots, key_of(from, to), &fresh);
    struct relay_leg *leg = &map->legs[slot];
    if (!fresh && leg->measured_ns > measured_ns) {
        return false;
    }
    *leg = (struct relay_leg){rtt_ns, p95_ns, measured_ns};
    return true;
}

const struct relay_leg *relay_leg(const struct relay_map *map, uint32_t from, uint32_t to,
                                  uint64_t now_ns)
{
    uint32_t slot = slots_find(&map->slots, key_of(from, to));
    if (slot == SLOTS_NONE || map->legs[slot].measured_ns + RELAY_FRESH_NS < now_ns) {
        return NULL;
    }
    return &map->legs[slot];
}

/* ---- choice ---- */

static struct relay_leg whole_way(const struct relay_way *way)
{
    return (struct relay_leg){.rtt_ns = way->first.rtt_ns + way->second.rtt_ns + RELAY_HOP_NS,
                              .p95_ns = way->first.p95_ns + way->second.p95_ns + RELAY_HOP_NS};
}

static uint64_t least_gain(uint64_t direct_ns)
{
    uint64_t part_ns = direct_ns / RELAY_GAIN_PART;
    return part_ns > RELAY_GAIN_MIN_NS ? part_ns : RELAY_GAIN_MIN_NS;
}

/* Does the way save `halves` halves of the least gain, on average and at p95? */
static bool saves(const struct relay_leg *direct, const struct relay_leg *way, uint64_t halves)
{
    return way->rtt_ns + least_gain(direct->rtt_ns) * halves / 2 <= direct->rtt_ns &&
           way->p95_ns + least_gain(direct->p95_ns) * halves / 2 <= direct->p95_ns;
}

uint32_t relay_choose(const struct relay_leg *direct, const struct relay_way *ways, uint32_t count,
                      uint32_t current)
{
    struct relay_leg kept = {0};
    bool keep = false;
    for (uint32_t i = 0; i < count && !keep; i++) {
        kept = whole_way(&ways[i]);
        keep = ways[i].node == current && (direct == NULL || saves(direct, &kept, 1));
    }
    uint32_t best = keep ? current : RELAY_NONE;
    uint64_t best_ns = UINT64_MAX;
    for (uint32_t i = 0; i < count; i++) {
        struct relay_leg way = whole_way(&ways[i]);
        bool pays = direct == NULL || saves(direct, &way, 2);
        bool beats = !keep || saves(&kept, &way, 1);
        if (!pays || !beats) {
            continue;
        }
        if (way.rtt_ns < best_ns || (way.rtt_ns == best_ns && ways[i].node < best)) {
            best = ways[i].node;
            best_ns = way.rtt_ns;
        }
    }
    return best;
}
