/* SPDX-License-Identifier: Apache-2.0 */
/* tiling.c - world_tile(): all nodes of a world into zones at once, with the views that upkeep
 * would have given them; see world.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/mesh/world.h"

#define FASTEST_OF 3u

struct node_key {
    uint64_t key;
    uint32_t node;
};

struct tiling {
    struct world *w;
    struct node_key *keys;
    struct world_zone *tiles;
    uint32_t tile_count;
    uint64_t *plain; /* the keys alone */
    struct rng rng;
};

static int by_key(const void *a, const void *b)
{
    const struct node_key *x = a;
    const struct node_key *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key)
                            : (x->node > y->node) - (x->node < y->node);
}

static void cut(struct tiling *t, struct zone_range range, uint32_t first, uint32_t count,
                uint32_t above)
{
    uint64_t at = count > above ? zone_key_cut(t->plain + first, count) : 0;
    if (at == 0) {
        struct world_zone *tile = &t->tiles[t->tile_count++];
        *tile = (struct world_zone){.range = range, .first = first, .count = count};
        zone_summary_init(&tile->is, range);
        tile->is.epoch = 1;
        for (uint32_t i = 0; i < count; i++) {
            zone_summary_add(&tile->is, &t->w->truth[t->keys[first + i].node]);
        }
        return;
    }
    uint32_t lower = 0;
    while (t->plain[first + lower] < at) {
        lower++;
    }
    cut(t, (struct zone_range){range.lo, at}, first, lower, above);
    cut(t, (struct zone_range){at, range.hi}, first + lower, count - lower, above);
}

struct near {
    uint32_t distance;
    uint32_t tile;
};

static int by_distance(const void *a, const void *b)
{
    const struct near *x = a;
    const struct near *y = b;
    return x->distance != y->distance ? (x->distance > y->distance) - (x->distance < y->distance)
                                      : (x->tile > y->tile) - (x->tile < y->tile);
}

/* The fastest of a few members, drawn: so good a node's upkeep gets to be after a minute (upkeep.c,
 * contacts_keep()). It has been measured. */
static uint32_t fastest_draw(struct tiling *t, struct zone *z, const struct world_zone *tile)
{
    uint32_t best = 0;
    uint64_t best_ns = UINT64_MAX;
    for (uint32_t i = 0; i < FASTEST_OF; i++) {
        uint32_t node = t->keys[tile->first + rng_below(&t->rng, tile->count)].node;
        uint64_t rtt_ns =
            delay_ns(&t->w->delay, z->self.node, node) + delay_ns(&t->w->delay, node, z->self.node);
        if (rtt_ns < best_ns) {
            best = node;
            best_ns = rtt_ns;
        }
    }
    zone_peers_heard(&z->peers, best, (uint32_t)(best_ns / NS_PER_US));
    return best;
}

/* Three members of the tiles from..to, drawn: one of the tile that is nearest to the viewer, one of
 * the first, one of the last, as merging leaves them (summary.h). */
static void contacts_draw(struct tiling *t, const uint32_t *distance, uint32_t from, uint32_t to,
                          struct zone *z, struct zone_summary *s)
{
    uint32_t nearest = from;
    for (uint32_t i = from; i <= to; i++) {
        nearest = distance[i] < distance[nearest] ? i : nearest;
    }
    const uint32_t tiles[ZONE_CONTACTS] = {nearest, from, to};
    s->contact_count = 0;
    for (uint32_t tries = 0; s->contact_count < ZONE_CONTACTS && tries < 16; tries++) {
        const struct world_zone *tile = &t->tiles[tiles[tries % ZONE_CONTACTS]];
        uint32_t node = tries == 0 ? fastest_draw(t, z, tile)
                                   : t->keys[tile->first + rng_below(&t->rng, tile->count)].node;
        bool known = false;
        for (uint32_t i = 0; i < s->contact_count; i++) {
            known = known || s->contacts[i].node == node;
        }
        if (!known) {
            s->contacts[s->contact_count++] = zone_contact_of(&t->w->truth[node]);
        }
    }
}

/* The shape of the view from tile `home`: runs of tiles in order of path that stay within the limit
 * of view.h. `run_end[i]` is the last tile of the run that begins at i. */
static void shape(const struct tiling *t, uint32_t home, struct near *order, uint32_t *distance,
                  uint32_t *limit, uint32_t *run_end)
{
    const struct zone_record *from = &t->w->truth[t->keys[t->tiles[home].first].node];
    uint32_t zone_max = t->w->options.split_above;
    for (uint32_t i = 0; i < t->tile_count; i++) {
        const struct zone_box *b = &t->tiles[i].is.box;
        uint8_t z = from->tier < b->z_lo ? b->z_lo : from->tier > b->z_hi ? b->z_hi : from->tier;
        distance[i] = zone_box_distance(b, from->x, from->y, z, z, false) +
                      TORUS_TIER_CELLS * torus_tier_steps(z, from->tier, false);
        order[i] = (struct near){i == home ? 0 : distance[i] + 1, i};
    }
    qsort(order, t->tile_count, sizeof(*order), by_distance);
    uint64_t rank = 0;
    for (uint32_t i = 0; i < t->tile_count; i++) {
        uint64_t l = rank / ZONE_VIEW_GRAIN;
        limit[order[i].tile] = l > zone_max ? (uint32_t)l : zone_max;
        rank += t->tiles[order[i].tile].count;
    }
    for (uint32_t i = 0; i < t->tile_count;) {
        uint32_t end = i;
        uint64_t live = t->tiles[i].count;
        uint32_t least = limit[i];
        while (i != home && end + 1 < t->tile_count && end + 1 != home) {
            uint32_t next = limit[end + 1] < least ? limit[end + 1] : least;
            if (live + t->tiles[end + 1].count > next) {
                break;
            }
            least = next;
            live += t->tiles[++end].count;
        }
        run_end[i] = end;
        i = end + 1;
    }
}

static void node_fill(struct tiling *t, uint32_t node, uint32_t home, const uint32_t *distance,
                      const uint32_t *run_end, const struct zone_summary *runs)
{
    const struct world_zone *tile = &t->tiles[home];
    struct zone *z = &t->w->zones[node];
    z->joined = true;
    z->claim = tile->range;
    z->synced = tile->range;
    z->epoch = 1;
    for (uint32_t i = 0; i < tile->count; i++) {
        uint32_t other = t->keys[tile->first + i].node;
        if (other != node && z->member_count < z->member_max) {
            z->members[z->member_count++] = (struct zone_member){
                .record = t->w->truth[other], .key = t->keys[tile->first + i].key};
        }
    }
    z->own = tile->is;
    z->own.contacts[0] = zone_contact_of(&z->self);
    z->own.contact_count = 1;
    for (uint32_t i = 0; i < t->tile_count; i = run_end[i] + 1) {
        if (i == home || z->view.count == ZONE_VIEW_MAX) {
            continue;
        }
        struct zone_entry *e = &z->view.all[z->view.count++];
        *e = (struct zone_entry){.is = runs[i], .single = run_end[i] == i};
        contacts_draw(t, distance, i, run_end[i], z, &e->is);
    }
}

static int views_fill(struct tiling *t)
{
    uint32_t n = t->tile_count;
    struct near *order = malloc(n * sizeof(*order));
    uint32_t *numbers = malloc(3 * (size_t)n * sizeof(*numbers));
    struct zone_summary *runs = malloc(n * sizeof(*runs));
    int rc = order == NULL || numbers == NULL || runs == NULL ? -ENOMEM : 0;
    for (uint32_t home = 0; rc == 0 && home < n; home++) {
        uint32_t *distance = numbers;
        uint32_t *limit = numbers + n;
        uint32_t *run_end = numbers + 2 * (size_t)n;
        shape(t, home, order, distance, limit, run_end);
        for (uint32_t i = 0; i < n; i = run_end[i] + 1) {
            runs[i] = t->tiles[i].is;
            for (uint32_t j = i + 1; j <= run_end[i]; j++) {
                zone_summary_merge(&runs[i], &t->tiles[j].is, 0, 0);
            }
        }
        for (uint32_t i = 0; i < t->tiles[home].count; i++) {
            node_fill(t, t->keys[t->tiles[home].first + i].node, home, distance, run_end, runs);
        }
    }
    free(order);
    free(numbers);
    free(runs);
    return rc;
}

int world_tile(struct world *w)
{
    uint32_t n = w->options.nodes;
    struct tiling t = {.w = w, .rng = {.state = w->options.seed ^ 0x711e}};
    if (w->options.split_above == 0) {
        w->options.split_above = ZONE_SPLIT_ABOVE;
    }
    t.keys = malloc(n * sizeof(*t.keys));
    t.plain = malloc(n * sizeof(*t.plain));
    t.tiles = malloc(n * sizeof(*t.tiles));
    w->tiles = t.tiles;
    w->tile_nodes = malloc(n * sizeof(*w->tile_nodes));
    int rc =
        t.keys == NULL || t.plain == NULL || t.tiles == NULL || w->tile_nodes == NULL ? -ENOMEM : 0;
    if (rc == 0) {
        for (uint32_t i = 0; i < n; i++) {
            world_found(w, i);
            t.keys[i] = (struct node_key){w->zones[i].key, i};
        }
        qsort(t.keys, n, sizeof(*t.keys), by_key);
        for (uint32_t i = 0; i < n; i++) {
            t.plain[i] = t.keys[i].key;
            w->tile_nodes[i] = t.keys[i].node;
        }
        cut(&t, ZONE_RANGE_ALL, 0, n, w->options.split_above);
        rc = views_fill(&t);
    }
    free(t.keys);
    free(t.plain);
    w->tile_count = t.tile_count;
    return rc < 0 ? rc : (int)t.tile_count;
}
