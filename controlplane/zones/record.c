/* SPDX-License-Identifier: Apache-2.0 */
/* record.c - see record.h. */
#include "controlplane/zones/record.h"

#include <weft/wire.h>

#include "schemas/base/geo.h"
#include "schemas/base/torus.h"

static bool within_radius(const struct zone_query *q, const struct zone_record *r)
{
    if (q->radius_km == 0) {
        return true;
    }
    if (q->abstract) {
        return torus_ring_distance(q->x, r->x) + torus_ring_distance(q->y, r->y) <= q->radius_km;
    }
    struct geo_point from = geo_point_at(weft_cell_latitude(q->y), weft_cell_longitude(q->x));
    struct geo_point to = geo_point_at(weft_cell_latitude(r->y), weft_cell_longitude(r->x));
    return geo_chord2(from, to) <= geo_chord2_of_km(q->radius_km);
}

static bool has_model(const struct zone_record *r, uint32_t model)
{
    for (uint32_t i = 0; i < r->model_count; i++) {
        if (r->models[i] == model) {
            return true;
        }
    }
    return model == 0;
}

static bool in_jurisdiction(const struct zone_query *q, const struct zone_record *r)
{
    for (uint32_t i = 0; i < q->jurisdiction_count; i++) {
        if (q->jurisdictions[i] == r->jurisdiction) {
            return true;
        }
    }
    return q->jurisdiction_count == 0;
}

bool zone_query_match(const struct zone_query *q, const struct zone_record *r, uint32_t *distance)
{
    if (r->tier < q->tier_min || r->tier > q->tier_max || (q->tags & ~r->tags) != 0 ||
        r->vram_free_64mib < q->vram_64mib || !has_model(r, q->model) || !in_jurisdiction(q, r) ||
        !within_radius(q, r)) {
        return false;
    }
    *distance = torus_ring_distance(q->x, r->x) + torus_ring_distance(q->y, r->y) +
                TORUS_TIER_CELLS * torus_tier_steps(r->tier, q->tier_min, q->abstract);
    return !q->has_after || *distance > q->after_distance ||
           (*distance == q->after_distance && r->node > q->after_node);
}

bool zone_query_valid(const struct zone_query *q)
{
    for (uint32_t i = 0; i < q->jurisdiction_count && i < ZONE_JURISDICTIONS_MAX; i++) {
        if (q->jurisdictions[i] == 0) { /* nobody is in none of them */
            return false;
        }
    }
    return q->jurisdiction_count <= ZONE_JURISDICTIONS_MAX && q->k >= 1 && q->k <= ZONE_TOP_MAX &&
           q->tier_min <= q->tier_max && q->tier_max < TORUS_TIERS &&
           (q->abstract || q->y <= INT16_MAX);
}

void zone_top_init(struct zone_top *top, uint8_t k)
{
    top->k = k;
    top->count = 0;
}

static bool nearer(const struct zone_found *a, const struct zone_found *b)
{
    return a->distance != b->distance ? a->distance < b->distance : a->node < b->node;
}

bool zone_top_add(struct zone_top *top, const struct zone_found *found)
{
    bool known = false;
    for (uint32_t i = 0; i < top->count; i++) {
        if (top->all[i].node == found->node) {
            if (top->all[i].version >= found->version) {
                return false;
            }
            known = true;
            top->count--;
            for (; i < top->count; i++) {
                top->all[i] = top->all[i + 1];
            }
            break;
        }
    }
    if (top->count == top->k && !nearer(found, &top->all[top->count - 1])) {
        return false;
    }
    uint32_t at = top->count < top->k ? top->count++ : top->count - 1u;
    for (; at > 0 && nearer(found, &top->all[at - 1]); at--) {
        top->all[at] = top->all[at - 1];
    }
    top->all[at] = *found;
    return !known;
}

uint32_t zone_top_bound(const struct zone_top *top)
{
    return top->count < top->k ? UINT32_MAX : top->all[top->count - 1].distance;
}

struct zone_found zone_found_of(const struct zone_record *r, uint32_t distance, uint32_t age_ms)
{
    return (struct zone_found){
        .distance = distance,
        .node = r->node,
        .version = r->version,
        .addr = r->addr,
        .x = r->x,
        .y = r->y,
        .tier = r->tier,
        .room = r->room,
        .queue_us = r->queue_us,
        .vram_free_64mib = r->vram_free_64mib,
        .age_ms = age_ms,
    };
}

/* ---- wire ---- */

void zone_record_write(struct cursor *c, const struct zone_record *r)
{
    cursor_write_u64(c, r->version);
    cursor_write_u32(c, r->node);
    cursor_write_u32(c, r->tags);
    cursor_write(c, &r->addr, sizeof(r->addr));
    cursor_write_u16(c, r->x);
    cursor_write_u16(c, r->y);
    cursor_write_u16(c, r->jurisdiction);
    cursor_write_u8(c, r->tier);
    cursor_write_u8(c, r->model_count);
    cursor_write_u16(c, r->room);
    cursor_write_u32(c, r->queue_us);
    cursor_write_u16(c, r->vram_free_64mib);
    cursor_write_u16(c, r->vram_total_64mib);
    cursor_write(c, r->models, r->model_count * sizeof(r->models[0]));
}

bool zone_record_read(struct cursor *c, struct zone_record *r)
{
    r->version = cursor_read_u64(c);
    r->node = cursor_read_u32(c);
    r->tags = cursor_read_u32(c);
    cursor_read(c, &r->addr, sizeof(r->addr));
    r->x = cursor_read_u16(c);
    r->y = cursor_read_u16(c);
    r->jurisdiction = cursor_read_u16(c);
    r->tier = cursor_read_u8(c);
    r->model_count = cursor_read_u8(c);
    r->room = cursor_read_u16(c);
    r->queue_us = cursor_read_u32(c);
    r->vram_free_64mib = cursor_read_u16(c);
    r->vram_total_64mib = cursor_read_u16(c);
    if (r->model_count > ZONE_MODELS_MAX || r->tier >= TORUS_TIERS ||
        r->vram_free_64mib > r->vram_total_64mib) {
        c->failed = true;
        r->model_count = 0;
    }
    memset(r->models, 0, sizeof(r->models));
    cursor_read(c, r->models, r->model_count * sizeof(r->models[0]));
    return !c->failed;
}

void zone_query_write(struct cursor *c, const struct zone_query *q)
{
    cursor_write_u32(c, q->model);
    cursor_write_u32(c, q->tags);
    cursor_write_u16(c, q->x);
    cursor_write_u16(c, q->y);
    cursor_write_u8(c, q->tier_min);
    cursor_write_u8(c, q->tier_max);
    cursor_write_u16(c, q->radius_km);
    cursor_write_u16(c, q->vram_64mib);
    cursor_write_u8(c, q->k);
    cursor_write_u8(c, q->jurisdiction_count);
    for (uint32_t i = 0; i < q->jurisdiction_count; i++) {
        cursor_write_u16(c, q->jurisdictions[i]);
    }
    cursor_write_u8(c, q->abstract);
    cursor_write_u32(c, q->fresh_ms);
    cursor_write_u8(c, q->has_after);
    cursor_write_u32(c, q->after_distance);
    cursor_write_u32(c, q->after_node);
}

bool zone_query_read(struct cursor *c, struct zone_query *q)
{
    q->model = cursor_read_u32(c);
    q->tags = cursor_read_u32(c);
    q->x = cursor_read_u16(c);
    q->y = cursor_read_u16(c);
    q->tier_min = cursor_read_u8(c);
    q->tier_max = cursor_read_u8(c);
    q->radius_km = cursor_read_u16(c);
    q->vram_64mib = cursor_read_u16(c);
    q->k = cursor_read_u8(c);
    q->jurisdiction_count = cursor_read_u8(c);
    memset(q->jurisdictions, 0, sizeof(q->jurisdictions));
    for (uint32_t i = 0; i < q->jurisdiction_count && i < ZONE_JURISDICTIONS_MAX; i++) {
        q->jurisdictions[i] = cursor_read_u16(c);
    }
    uint8_t abstract = cursor_read_u8(c);
    q->abstract = abstract != 0;
    q->fresh_ms = cursor_read_u32(c);
    uint8_t has_after = cursor_read_u8(c);
    q->has_after = has_after != 0;
    q->after_distance = cursor_read_u32(c);
    q->after_node = cursor_read_u32(c);
    c->failed = c->failed || abstract > 1 || has_after > 1 || !zone_query_valid(q);
    return !c->failed;
}

void zone_found_write(struct cursor *c, const struct zone_found *f)
{
    cursor_write_u32(c, f->distance);
    cursor_write_u32(c, f->node);
    cursor_write_u64(c, f->version);
    cursor_write(c, &f->addr, sizeof(f->addr));
    cursor_write_u16(c, f->x);
    cursor_write_u16(c, f->y);
    cursor_write_u8(c, f->tier);
    cursor_write_u16(c, f->room);
    cursor_write_u32(c, f->queue_us);
    cursor_write_u16(c, f->vram_free_64mib);
    cursor_write_u32(c, f->age_ms);
}

bool zone_found_read(struct cursor *c, struct zone_found *f)
{
    f->distance = cursor_read_u32(c);
    f->node = cursor_read_u32(c);
    f->version = cursor_read_u64(c);
    cursor_read(c, &f->addr, sizeof(f->addr));
    f->x = cursor_read_u16(c);
    f->y = cursor_read_u16(c);
    f->tier = cursor_read_u8(c);
    f->room = cursor_read_u16(c);
    f->queue_us = cursor_read_u32(c);
    f->vram_free_64mib = cursor_read_u16(c);
    f->age_ms = cursor_read_u32(c);
    c->failed = c->failed || f->tier >= TORUS_TIERS || f->distance > 2 * TORUS_DIAMETER;
    return !c->failed;
}
