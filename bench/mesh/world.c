/* SPDX-License-Identifier: Apache-2.0 */
/* world.c - see world.h. */
#include "bench/mesh/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/zones/internal.h"

#define REFRESH_NS (5 * NS_PER_S)

struct sender {
    struct world *world;
    uint32_t node;
};

static bool send_datagram(void *user, const struct zone_contact *to, const void *data, size_t size)
{
    const struct sender *s = user;
    const struct world *w = s->world;
    if (to->node >= w->options.nodes) {
        return true;
    }
    if (w->options.deaths_known && !vnet_is_up(w->vnet, to->node)) {
        return false;
    }
    vnet_send(w->vnet, s->node, to->node, data, size);
    return true;
}

/* Ends the searches of a node that are done, and sets its next wake. */
static void settle(struct world *w, uint32_t node, uint64_t now_ns)
{
    struct zone *z = &w->zones[node];
    for (uint32_t i = 0; i < ZONE_SEARCHES_MAX; i++) {
        struct zone_search *s = z->searches[i];
        if (s == NULL || !zone_search_done(s, now_ns)) {
            continue;
        }
        struct world_search *ws =
            (struct world_search *)(void *)((char *)s - offsetof(struct world_search, search));
        zone_search_end(z, s);
        w->on_found(w, ws, now_ns);
        ws->used = false;
    }
    uint64_t next = UINT64_MAX;
    if (w->options.upkeep) {
        next = zone_next_ns(z);
    } else {
        next = zone_searches_next_ns(z);
    }
    vnet_wake(w->vnet, node, next);
    if (w->on_event != NULL) {
        w->on_event(w, node, now_ns);
    }
}

static void on_datagram(uint32_t node, uint32_t from, const void *data, size_t size,
                        uint64_t local_ns, void *user)
{
    struct world *w = user;
    struct sender sender = {w, node};
    struct zone_io io = {send_datagram, &sender};
    zone_input(&w->zones[node], data, size, &w->truth[from].addr, NULL, local_ns, &io);
    settle(w, node, local_ns);
}

static void on_wake(uint32_t node, uint64_t local_ns, void *user)
{
    struct world *w = user;
    struct sender sender = {w, node};
    struct zone_io io = {send_datagram, &sender};
    if (w->options.upkeep) {
        zone_tick(&w->zones[node], local_ns, &io);
    } else {
        zone_searches_poll(&w->zones[node], local_ns, &io);
    }
    settle(w, node, local_ns);
}

static void on_script(uint32_t node, uint64_t value, uint64_t true_ns, void *user)
{
    struct world *w = user;
    if (w->on_script != NULL) {
        w->on_script(w, node, value, true_ns);
    }
}

static int world_allocate(struct world *w)
{
    uint32_t n = w->options.nodes;
    w->places = calloc(n, sizeof(*w->places));
    w->zones = calloc(n, sizeof(*w->zones));
    w->members = calloc((size_t)n * w->options.member_max, sizeof(*w->members));
    w->duties = calloc((size_t)n * ZONE_DUTIES, sizeof(*w->duties));
    w->truth = calloc(n, sizeof(*w->truth));
    w->changed_ns = calloc(n, sizeof(*w->changed_ns));
    return w->places == NULL || w->zones == NULL || w->members == NULL || w->duties == NULL ||
                   w->truth == NULL || w->changed_ns == NULL
               ? -ENOMEM
               : 0;
}

int world_create(struct world **out, const struct world_options *options)
{
    struct world *w = calloc(1, sizeof(*w));
    *out = w;
    if (w == NULL) {
        return -ENOMEM;
    }
    w->options = *options;
    if (w->options.member_max == 0) {
        w->options.member_max = ZONE_MEMBERS_MAX;
    }
    int rc = world_allocate(w);
    if (rc < 0) {
        return rc;
    }
    population_init(&w->population, options->seed);
    for (uint32_t i = 0; i < options->nodes; i++) {
        w->truth[i] = population_machine(&w->population, i);
        w->places[i] = population_place(&w->truth[i]);
    }
    w->delay = (struct delay){.kind = DELAY_PLACES, .places = w->places, .seed = options->seed};
    if (options->matrix != NULL) {
        rc = delay_load_matrix(&w->delay, options->matrix);
        if (rc < 0) {
            return rc;
        }
    }
    struct vnet_options net = {
        .nodes = options->nodes,
        .seed = options->seed,
        .delay = &w->delay,
        .loss = options->loss,
        .jitter = options->jitter,
    };
    struct vnet_hooks hooks = {on_datagram, on_wake, on_script, w};
    rc = vnet_create(&w->vnet, &net, &hooks);
    for (uint32_t i = 0; rc == 0 && i < options->nodes; i++) {
        vnet_crash(w->vnet, i);
    }
    return rc;
}

void world_destroy(struct world *w)
{
    if (w == NULL) {
        return;
    }
    vnet_destroy(w->vnet);
    if (w->options.matrix != NULL) {
        delay_deinit(&w->delay);
    }
    free(w->tiles);
    free(w->tile_nodes);
    free(w->places);
    free(w->zones);
    free(w->members);
    free(w->duties);
    free(w->truth);
    free(w->changed_ns);
    free(w);
}

static void node_start(struct world *w, uint32_t node, uint64_t now_ns)
{
    struct zone_options options = {
        .split_above = w->options.split_above,
        .merge_below = w->options.merge_below,
        .silence_ns = w->options.upkeep ? 0 : UINT64_MAX,
        .duties = &w->duties[(size_t)node * ZONE_DUTIES],
        .duty_max = ZONE_DUTIES,
        .seed = w->options.seed * UINT64_C(0x9e3779b97f4a7c15) + node + now_ns,
    };
    vnet_restart(w->vnet, node);
    zone_init(&w->zones[node], &options, &w->truth[node],
              &w->members[(size_t)node * w->options.member_max], w->options.member_max, now_ns);
    w->changed_ns[node] = now_ns;
}

void world_found(struct world *w, uint32_t node)
{
    uint64_t now_ns = vnet_now_ns(w->vnet);
    node_start(w, node, now_ns);
    zone_found_mesh(&w->zones[node], now_ns);
    settle(w, node, now_ns);
}

void world_join(struct world *w, uint32_t node, uint32_t seed_node)
{
    uint64_t now_ns = vnet_now_ns(w->vnet);
    struct sender sender = {w, node};
    struct zone_io io = {send_datagram, &sender};
    struct zone_contact seed = zone_contact_of(&w->truth[seed_node]);
    /* A new life: its record must beat those of the last. */
    w->truth[node].version = ((w->truth[node].version >> 32) + 1) << 32;
    node_start(w, node, now_ns);
    zone_join(&w->zones[node], &seed, now_ns, &io);
    settle(w, node, now_ns);
}

void world_crash(struct world *w, uint32_t node)
{
    struct zone *z = &w->zones[node];
    for (uint32_t i = 0; i < ZONE_SEARCHES_MAX; i++) {
        struct zone_search *s = z->searches[i];
        if (s != NULL) {
            zone_search_end(z, s);
            ((struct world_search *)(void *)((char *)s - offsetof(struct world_search, search)))
                ->used = false;
        }
    }
    for (uint32_t i = 0; i < z->options.duty_max; i++) {
        z->options.duties[i].used = false;
    }
    vnet_crash(w->vnet, node);
}

/* Nodes that keep still would take their own knowledge for outdated. */
static void world_refresh(struct world *w, uint64_t now_ns)
{
    if (w->options.upkeep || now_ns - w->refreshed_ns < REFRESH_NS) {
        return;
    }
    w->refreshed_ns = now_ns;
    for (uint32_t i = 0; i < w->options.nodes; i++) {
        for (uint32_t j = 0; j < w->zones[i].view.count; j++) {
            w->zones[i].view.all[j].heard_ns = now_ns;
        }
        for (uint32_t j = 0; j < w->zones[i].member_count; j++) {
            w->zones[i].members[j].told_ns = now_ns;
        }
    }
}

void world_ask(struct world *w, uint32_t asker, const struct zone_query *query, uint64_t budget_ns,
               uint64_t user)
{
    uint32_t slot = 0;
    while (slot < WORLD_SEARCHES && w->searches[slot].used) {
        slot++;
    }
    if (slot == WORLD_SEARCHES || !vnet_is_up(w->vnet, asker)) {
        return;
    }
    struct world_search *ws = &w->searches[slot];
    uint64_t now_ns = vnet_now_ns(w->vnet);
    struct sender sender = {w, asker};
    struct zone_io io = {send_datagram, &sender};
    world_refresh(w, now_ns);
    ws->asker = asker;
    ws->started_ns = now_ns;
    ws->user = user;
    ws->used = true;
    if (zone_search_begin(&w->zones[asker], &ws->search, query, now_ns, now_ns + budget_ns, &io) <
        0) {
        ws->used = false;
        return;
    }
    settle(w, asker, now_ns);
}

void world_oracle(const struct world *w, const struct zone_query *query, uint64_t than_ns,
                  struct zone_top *top)
{
    zone_top_init(top, query->k);
    for (uint32_t i = 0; i < w->options.nodes; i++) {
        uint32_t distance;
        if (vnet_is_up(w->vnet, i) && w->zones[i].joined && w->changed_ns[i] <= than_ns &&
            zone_query_match(query, &w->zones[i].self, &distance)) {
            struct zone_found found = zone_found_of(&w->zones[i].self, distance, 0);
            zone_top_add(top, &found);
        }
    }
}

static int by_lo(const void *a, const void *b)
{
    const struct zone_range *x = a;
    const struct zone_range *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

bool world_covered(const struct world *w, uint64_t *hole)
{
    struct zone_range *claims = malloc(w->options.nodes * sizeof(*claims));
    uint32_t count = 0;
    uint64_t upto = 0;
    for (uint32_t i = 0; claims != NULL && i < w->options.nodes; i++) {
        if (vnet_is_up(w->vnet, i) && w->zones[i].joined) {
            claims[count++] = w->zones[i].claim;
        }
    }
    if (claims != NULL) {
        qsort(claims, count, sizeof(*claims), by_lo);
    }
    for (uint32_t i = 0; i < count && claims[i].lo <= upto; i++) {
        upto = claims[i].hi > upto ? claims[i].hi : upto;
    }
    free(claims);
    *hole = upto;
    return upto == ZONE_KEY_END;
}
