/* SPDX-License-Identifier: Apache-2.0 */
/* summary.c - see summary.h. */
#include "controlplane/zones/summary.h"

#include <sodium.h>
#include <string.h>

#include "schemas/base/rng.h"

#define BLOOM_BITS  (64u * ZONE_BLOOM_WORDS)
#define AGE_BYTES   2u /* at the end of the unsigned form */
#define TALLY_EXACT 32u
#define TALLY_STEPS 16u
#define TALLY_MAX   0xffu
#define POWER_MAX   15u
#define AREA_BYTES  3u
/* More than any distance on the plane. */
#define OUTSIDE_COST (1u << 17)

uint8_t zone_tally(uint32_t count)
{
    if (count < TALLY_EXACT) {
        return (uint8_t)count;
    }
    uint32_t shift = 27u - (uint32_t)__builtin_clz(count); /* count >> shift is 16..31 */
    uint32_t mantissa = (count >> shift) + ((count & ((1u << shift) - 1)) != 0);
    uint32_t code = TALLY_EXACT + (shift - 1) * TALLY_STEPS + (mantissa - TALLY_STEPS);
    return code > TALLY_MAX ? TALLY_MAX : (uint8_t)code;
}

uint32_t zone_tally_count(uint8_t tally)
{
    if (tally < TALLY_EXACT) {
        return tally;
    }
    uint32_t over = tally - TALLY_EXACT;
    return (TALLY_STEPS + over % TALLY_STEPS) << (over / TALLY_STEPS + 1);
}

static uint32_t sum(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* Of a model, 32 bits, or of a jurisdiction: jurisdiction_mark(). */
static void bloom_bits(uint64_t what, uint32_t bits[ZONE_BLOOM_HASHES])
{
    struct rng rng = {.state = what};
    uint64_t h = rng_next(&rng);
    for (uint32_t i = 0; i < ZONE_BLOOM_HASHES; i++, h >>= 16) {
        bits[i] = (uint32_t)h % BLOOM_BITS;
    }
}

static uint64_t jurisdiction_mark(uint16_t jurisdiction)
{
    return UINT64_C(1) << 32 | jurisdiction;
}

static void bloom_add(uint64_t *bloom, uint64_t what)
{
    uint32_t bits[ZONE_BLOOM_HASHES];
    bloom_bits(what, bits);
    for (uint32_t i = 0; i < ZONE_BLOOM_HASHES; i++) {
        bloom[bits[i] / 64] |= UINT64_C(1) << (bits[i] % 64);
    }
}

static bool bloom_has(const uint64_t *bloom, uint64_t what)
{
    uint32_t bits[ZONE_BLOOM_HASHES];
    bloom_bits(what, bits);
    for (uint32_t i = 0; i < ZONE_BLOOM_HASHES; i++) {
        if ((bloom[bits[i] / 64] >> (bits[i] % 64) & 1) == 0) {
            return false;
        }
    }
    return true;
}

void zone_summary_init(struct zone_summary *s, struct zone_range range)
{
    *s = (struct zone_summary){
        .range = range, .box = ZONE_BOX_EMPTY, .queue_min_us = UINT32_MAX, .ttl_s = ZONE_TTL_S};
}

void zone_summary_unknown(struct zone_summary *s, struct zone_range range)
{
    zone_summary_init(s, range);
    s->box = (struct zone_box){0, UINT16_MAX, 0, UINT16_MAX, 0, TORUS_TIERS - 1};
    s->live = 1;
    s->ttl_s = 0;
    for (uint32_t i = 0; i < TORUS_TIERS; i++) {
        s->tiers[i] = 1;
    }
    memset(s->bloom, 0xff, sizeof(s->bloom));
    s->vram_free_64mib = UINT16_MAX;
    s->vram_total_64mib = UINT16_MAX;
    s->queue_min_us = 0;
    s->tags = UINT32_MAX;
}

static uint32_t memory_class(uint16_t vram_64mib)
{
    static const uint16_t gib[ZONE_HISTOGRAM_CLASSES - 1] = {4, 8, 16, 24, 48, 80, 160};
    uint32_t i = 0;
    while (i < ZONE_HISTOGRAM_CLASSES - 1 && vram_64mib >= gib[i] * 16u) {
        i++;
    }
    return i;
}

void zone_summary_add(struct zone_summary *s, const struct zone_record *r)
{
    zone_box_add(&s->box, r->x, r->y, r->tier);
    s->live++;
    s->tiers[r->tier]++;
    for (uint32_t i = 0; i < r->model_count; i++) {
        bloom_add(s->bloom, r->models[i]);
    }
    if (r->jurisdiction != 0) {
        bloom_add(s->bloom, jurisdiction_mark(r->jurisdiction));
    }
    s->memory[memory_class(r->vram_free_64mib)]++;
    s->vram_free_64mib =
        r->vram_free_64mib > s->vram_free_64mib ? r->vram_free_64mib : s->vram_free_64mib;
    s->vram_total_64mib =
        r->vram_total_64mib > s->vram_total_64mib ? r->vram_total_64mib : s->vram_total_64mib;
    s->queue_min_us = r->queue_us < s->queue_min_us ? r->queue_us : s->queue_min_us;
    s->tags |= r->tags;
}

static uint32_t contact_cost(const struct zone_summary *s, const struct zone_contact *contact,
                             uint16_t x, uint16_t y)
{
    uint16_t at_x;
    uint16_t at_y;
    zone_area_place(contact->area, &at_x, &at_y);
    return torus_ring_distance(at_x, x) + torus_ring_distance(at_y, y) +
           (zone_area_in(contact->area, s->range) ? 0 : OUTSIDE_COST);
}

/* Takes the contact with the least `cost` out of `from` and appends it, unless it is known. */
static void contact_take(struct zone_summary *s, struct zone_contact *from, uint32_t *count,
                         const uint32_t *cost)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < *count; i++) {
        best = cost[i] < cost[best] ? i : best;
    }
    bool known = false;
    for (uint32_t i = 0; i < s->contact_count; i++) {
        known = known || s->contacts[i].node == from[best].node;
    }
    if (!known) {
        s->contacts[s->contact_count++] = from[best];
    }
    from[best] = from[--*count];
}

/* Nearest, lowest, highest of a list. */
static void contacts_choose(struct zone_summary *s, struct zone_contact *from, uint32_t count,
                            uint16_t x, uint16_t y)
{
    uint32_t cost[2 * ZONE_CONTACTS];
    s->contact_count = 0;
    for (uint32_t turn = 0; count > 0 && s->contact_count < ZONE_CONTACTS; turn++) {
        for (uint32_t i = 0; i < count; i++) {
            bool outside = !zone_area_in(from[i].area, s->range);
            cost[i] = turn == 0   ? contact_cost(s, &from[i], x, y)
                      : turn == 1 ? from[i].area + (outside ? UINT32_MAX / 2 : 0)
                                  : UINT32_MAX / 2 - from[i].area + (outside ? UINT32_MAX / 2 : 0);
        }
        contact_take(s, from, &count, cost);
    }
}

void zone_summary_merge(struct zone_summary *s, const struct zone_summary *o, uint16_t x,
                        uint16_t y)
{
    s->range.lo = o->range.lo < s->range.lo ? o->range.lo : s->range.lo;
    s->range.hi = o->range.hi > s->range.hi ? o->range.hi : s->range.hi;
    s->epoch = o->epoch > s->epoch ? o->epoch : s->epoch;
    s->version = o->version > s->version ? o->version : s->version;
    zone_box_unite(&s->box, &o->box);
    s->live = sum(s->live, o->live);
    for (uint32_t i = 0; i < TORUS_TIERS; i++) {
        s->tiers[i] = sum(s->tiers[i], o->tiers[i]);
    }
    for (uint32_t i = 0; i < ZONE_HISTOGRAM_CLASSES; i++) {
        s->memory[i] = sum(s->memory[i], o->memory[i]);
    }
    for (uint32_t i = 0; i < ZONE_BLOOM_WORDS; i++) {
        s->bloom[i] |= o->bloom[i];
    }
    s->vram_free_64mib =
        o->vram_free_64mib > s->vram_free_64mib ? o->vram_free_64mib : s->vram_free_64mib;
    s->vram_total_64mib =
        o->vram_total_64mib > s->vram_total_64mib ? o->vram_total_64mib : s->vram_total_64mib;
    s->queue_min_us = o->queue_min_us < s->queue_min_us ? o->queue_min_us : s->queue_min_us;
    s->tags |= o->tags;
    s->age_ms = o->age_ms > s->age_ms ? o->age_ms : s->age_ms;
    s->ttl_s = o->ttl_s < s->ttl_s ? o->ttl_s : s->ttl_s;
    struct zone_contact all[2 * ZONE_CONTACTS];
    memcpy(all, s->contacts, s->contact_count * sizeof(all[0]));
    memcpy(all + s->contact_count, o->contacts, o->contact_count * sizeof(all[0]));
    contacts_choose(s, all, (uint32_t)s->contact_count + o->contact_count, x, y);
}

void zone_summary_clip(struct zone_summary *s, struct zone_range range, uint16_t x, uint16_t y)
{
    struct zone_contact all[ZONE_CONTACTS];
    uint32_t count = s->contact_count;
    memcpy(all, s->contacts, sizeof(all));
    s->range = zone_range_common(s->range, range);
    contacts_choose(s, all, count, x, y);
}

static bool tiers_exclude(const struct zone_summary *s, const struct zone_query *q)
{
    for (uint32_t tier = q->tier_min; tier <= q->tier_max; tier++) {
        if (s->tiers[tier] != 0) {
            return false;
        }
    }
    return true;
}

static bool jurisdiction_excludes(const struct zone_summary *s, const struct zone_query *q)
{
    for (uint32_t i = 0; i < q->jurisdiction_count; i++) {
        if (bloom_has(s->bloom, jurisdiction_mark(q->jurisdictions[i]))) {
            return false;
        }
    }
    return q->jurisdiction_count != 0;
}

static bool radius_excludes(const struct zone_summary *s, const struct zone_query *q)
{
    if (q->radius_km == 0) {
        return false;
    }
    if (q->abstract) {
        return zone_box_distance(&s->box, q->x, q->y, s->box.z_lo, s->box.z_lo, true) >
               q->radius_km;
    }
    return zone_box_km(&s->box, q->x, q->y) > q->radius_km;
}

uint32_t zone_summary_bound(const struct zone_summary *s, const struct zone_query *q)
{
    if (s->age_ms >= s->ttl_s * 1000u) { /* too old to exclude anything */
        return 0;
    }
    if (s->live == 0 || zone_box_is_empty(&s->box) || (q->tags & ~s->tags) != 0 ||
        tiers_exclude(s, q) || q->vram_64mib > s->vram_total_64mib ||
        (s->age_ms <= q->fresh_ms && q->vram_64mib > s->vram_free_64mib) ||
        (q->model != 0 && !bloom_has(s->bloom, q->model)) || jurisdiction_excludes(s, q) ||
        radius_excludes(s, q)) {
        return UINT32_MAX;
    }
    return zone_box_distance(&s->box, q->x, q->y, q->tier_min, q->tier_max, q->abstract);
}

/* ---- wire ---- */

#define PATH_BYTES 7u /* 51 bits, and ZONE_KEY_END */

static void path_write(struct cursor *c, uint64_t path)
{
    cursor_write(c, &path, PATH_BYTES);
}

static uint64_t path_read(struct cursor *c)
{
    uint64_t path = 0;
    const void *at = cursor_take(c, PATH_BYTES);
    if (at != NULL) {
        memcpy(&path, at, PATH_BYTES);
    }
    return path;
}

/* Powers of two in four bits, rounded up; 0 for none. */
static uint32_t power_code(uint32_t count)
{
    uint32_t code = count <= 1 ? count : 33u - (uint32_t)__builtin_clz(count - 1);
    return code > POWER_MAX ? POWER_MAX : code;
}

static uint32_t power_count(uint32_t code)
{
    return code == 0 ? 0 : 1u << (code - 1);
}

void zone_summary_write(struct cursor *c, const struct zone_summary *s)
{
    path_write(c, s->range.lo);
    path_write(c, s->range.hi);
    cursor_write_u32(c, s->epoch);
    cursor_write_u16(c, s->version);
    cursor_write_u16(c, s->box.x_lo);
    cursor_write_u16(c, s->box.x_hi);
    cursor_write_u16(c, s->box.y_lo);
    cursor_write_u16(c, s->box.y_hi);
    cursor_write_u8(c, (uint8_t)((s->box.z_lo & 15u) << 4 | (s->box.z_hi & 15u)));
    cursor_write_u32(c, s->live);
    for (uint32_t i = 0; i < TORUS_TIERS; i++) {
        cursor_write_u8(c, zone_tally(s->tiers[i]));
    }
    for (uint32_t i = 0; i < ZONE_HISTOGRAM_CLASSES; i += 2) {
        cursor_write_u8(c, (uint8_t)(power_code(s->memory[i]) | power_code(s->memory[i + 1]) << 4));
    }
    cursor_write(c, s->bloom, sizeof(s->bloom));
    cursor_write_u16(c, s->vram_free_64mib);
    cursor_write_u16(c, s->vram_total_64mib);
    cursor_write_u32(c, s->queue_min_us);
    cursor_write_u32(c, s->tags);
    for (uint32_t i = 0; i < ZONE_CONTACTS; i++) {
        static const struct zone_contact none = {.node = 0};
        const struct zone_contact *contact = i < s->contact_count ? &s->contacts[i] : &none;
        cursor_write_u32(c, contact->node);
        cursor_write(c, &contact->area, AREA_BYTES);
        cursor_write(c, &contact->addr, sizeof(contact->addr));
    }
    cursor_write_u16(c, (uint16_t)(s->age_ms < ZONE_AGE_MAX_MS ? s->age_ms : ZONE_AGE_MAX_MS));
}

static void contacts_read(struct cursor *c, struct zone_summary *s)
{
    static const struct in6_addr nowhere = IN6ADDR_ANY_INIT;
    for (uint32_t i = 0; i < ZONE_CONTACTS; i++) {
        struct zone_contact contact;
        contact.node = cursor_read_u32(c);
        contact.area = 0;
        cursor_read(c, &contact.area, AREA_BYTES);
        cursor_read(c, &contact.addr, sizeof(contact.addr));
        if (memcmp(&contact.addr, &nowhere, sizeof(nowhere)) != 0) {
            s->contacts[s->contact_count++] = contact;
        }
    }
}

bool zone_summary_read(struct cursor *c, struct zone_summary *s)
{
    *s = (struct zone_summary){.range = {0, 0}};
    s->range.lo = path_read(c);
    s->range.hi = path_read(c);
    s->epoch = cursor_read_u32(c);
    s->version = cursor_read_u16(c);
    s->box.x_lo = cursor_read_u16(c);
    s->box.x_hi = cursor_read_u16(c);
    s->box.y_lo = cursor_read_u16(c);
    s->box.y_hi = cursor_read_u16(c);
    uint8_t z = cursor_read_u8(c);
    s->box.z_lo = z >> 4;
    s->box.z_hi = z & 15;
    s->live = cursor_read_u32(c);
    for (uint32_t i = 0; i < TORUS_TIERS; i++) {
        s->tiers[i] = zone_tally_count(cursor_read_u8(c));
    }
    for (uint32_t i = 0; i < ZONE_HISTOGRAM_CLASSES; i += 2) {
        uint8_t two = cursor_read_u8(c);
        s->memory[i] = power_count(two & 15);
        s->memory[i + 1] = power_count(two >> 4);
    }
    cursor_read(c, s->bloom, sizeof(s->bloom));
    s->vram_free_64mib = cursor_read_u16(c);
    s->vram_total_64mib = cursor_read_u16(c);
    s->queue_min_us = cursor_read_u32(c);
    s->tags = cursor_read_u32(c);
    s->ttl_s = ZONE_TTL_S;
    contacts_read(c, s);
    s->age_ms = cursor_read_u16(c);
    if (zone_box_is_empty(&s->box)) { /* four bits have cut its mark */
        s->box = ZONE_BOX_EMPTY;
    }
    bool box_valid =
        s->box.x_lo <= s->box.x_hi && s->box.y_lo <= s->box.y_hi && s->box.z_hi < TORUS_TIERS;
    /* Nobody is nowhere: else a box that is none would be united with others, and passed on. */
    bool box_fits = s->live != 0 ? box_valid : zone_box_is_empty(&s->box);
    c->failed = c->failed || !zone_range_valid(s->range) || !box_fits;
    return !c->failed;
}

_Static_assert(crypto_sign_BYTES == ZONE_SIGNATURE_BYTES, "an Ed25519 signature");

void zone_summary_sign(uint8_t *out, const struct zone_summary *s, const uint8_t *secret)
{
    struct cursor c;
    cursor_init(&c, out, ZONE_SUMMARY_BYTES);
    zone_summary_write(&c, s);
    crypto_sign_detached(out + ZONE_SUMMARY_BYTES, NULL, out, ZONE_SUMMARY_BYTES - AGE_BYTES,
                         secret);
}

bool zone_summary_verify(const uint8_t *in, const uint8_t *public_key)
{
    return crypto_sign_verify_detached(in + ZONE_SUMMARY_BYTES, in, ZONE_SUMMARY_BYTES - AGE_BYTES,
                                       public_key) == 0;
}
