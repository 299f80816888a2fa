/* SPDX-License-Identifier: Apache-2.0 */
/* test_zone_bounds.c - paths, boxes and summaries: nothing may ever be excluded that is there. All
 * held against points drawn from a seed. */
#include <check.h>
#include <stdlib.h>

#include "bench/mesh/population.h"
#include "controlplane/zones/summary.h"
#include "controlplane/zones/view.h"
#include "schemas/base/clock.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define CASES (SANITIZED ? 3000u : 20000u)

static struct rng rng;

static void seed(void)
{
    rng.state = suite_seed(0x20e5);
}

static uint32_t point_distance(const struct zone_query *q, const struct zone_record *r)
{
    return torus_ring_distance(q->x, r->x) + torus_ring_distance(q->y, r->y) +
           TORUS_TIER_CELLS * torus_tier_steps(r->tier, q->tier_min, q->abstract);
}

/* Anywhere, on a small scale or a large one, at seams and poles too. */
static struct zone_record record_draw(uint16_t x, uint16_t y, uint32_t spread, bool abstract)
{
    struct zone_record r = {.version = 1, .node = (uint32_t)rng_next(&rng)};
    r.x = (uint16_t)(x + rng_below(&rng, spread));
    r.y = (uint16_t)(y + rng_below(&rng, spread));
    r.y = abstract ? r.y : r.y & INT16_MAX;
    r.tier = (uint8_t)rng_below(&rng, TORUS_TIERS);
    r.vram_total_64mib = (uint16_t)rng_below(&rng, 1000);
    r.vram_free_64mib = (uint16_t)rng_below(&rng, r.vram_total_64mib + 1u);
    r.tags = (uint32_t)rng_next(&rng) & (uint32_t)rng_next(&rng);
    r.jurisdiction = (uint16_t)rng_below(&rng, 30); /* 0: not given */
    r.model_count = (uint8_t)rng_below(&rng, ZONE_MODELS_MAX + 1);
    for (uint32_t i = 0; i < r.model_count; i++) {
        r.models[i] = 1 + rng_below(&rng, 40);
    }
    return r;
}

static struct zone_query query_draw(bool abstract)
{
    struct zone_query q = {.k = 1, .abstract = abstract, .fresh_ms = 1000};
    q.x = (uint16_t)rng_next(&rng);
    q.y = (uint16_t)(rng_next(&rng) & (abstract ? UINT16_MAX : INT16_MAX));
    q.tier_min = (uint8_t)rng_below(&rng, TORUS_TIERS);
    q.tier_max = (uint8_t)(q.tier_min + rng_below(&rng, TORUS_TIERS - q.tier_min));
    q.radius_km = (uint16_t)(rng_below(&rng, 2) * rng_below(&rng, 20000));
    q.vram_64mib = (uint16_t)(rng_below(&rng, 2) * rng_below(&rng, 800));
    q.tags = rng_below(&rng, 2) * (1u << rng_below(&rng, 32));
    q.model = rng_below(&rng, 2) * (1 + rng_below(&rng, 40));
    q.jurisdiction_count = (uint8_t)(rng_below(&rng, 3) == 0 ? 1 + rng_below(&rng, 4) : 0);
    for (uint32_t i = 0; i < q.jurisdiction_count; i++) {
        q.jurisdictions[i] = (uint16_t)(1 + rng_below(&rng, 30));
    }
    return q;
}

START_TEST(bounds_never_exceed)
{
    uint32_t tight = 0;
    for (uint32_t i = 0; i < CASES; i++) {
        bool abstract = rng_below(&rng, 2) == 0;
        uint32_t spread = 1u << rng_below(&rng, 16);
        uint16_t x = (uint16_t)rng_next(&rng);
        uint16_t y = (uint16_t)rng_next(&rng);
        struct zone_box box = ZONE_BOX_EMPTY;
        struct zone_record records[6];
        for (uint32_t j = 0; j < 6; j++) {
            records[j] = record_draw(x, y, spread, abstract);
            zone_box_add(&box, records[j].x, records[j].y, records[j].tier);
        }
        struct zone_query q = query_draw(abstract);
        uint32_t bound = zone_box_distance(&box, q.x, q.y, q.tier_min, q.tier_max, abstract);
        double km = abstract ? 0 : zone_box_km(&box, q.x, q.y);
        struct geo_point from = population_place(&(struct zone_record){.x = q.x, .y = q.y});
        for (uint32_t j = 0; j < 6; j++) {
            const struct zone_record *r = &records[j];
            if (r->tier >= q.tier_min && r->tier <= q.tier_max) {
                ck_assert_uint_le(bound, point_distance(&q, r));
                tight += bound == point_distance(&q, r);
            }
            if (!abstract) {
                ck_assert(km <= geo_distance_km(from, population_place(r)));
            }
        }
    }
    ck_assert_uint_gt(tight, CASES / 200); /* and it is no trivial bound */
}
END_TEST

/* A box of one cell: the bounds are the distances. */
START_TEST(bounds_of_a_cell_are_exact)
{
    for (uint32_t i = 0; i < CASES; i++) {
        struct zone_record r = record_draw((uint16_t)rng_next(&rng), 0, 32768, false);
        struct zone_query q = query_draw(false);
        struct zone_box box = ZONE_BOX_EMPTY;
        zone_box_add(&box, r.x, r.y, r.tier);
        struct geo_point from = population_place(&(struct zone_record){.x = q.x, .y = q.y});
        double km = geo_distance_km(from, population_place(&r));
        ck_assert(zone_box_km(&box, q.x, q.y) <= km);
        ck_assert(zone_box_km(&box, q.x, q.y) >= km - 0.5);
        if (r.tier >= q.tier_min && r.tier <= q.tier_max) {
            ck_assert_uint_eq(zone_box_distance(&box, q.x, q.y, q.tier_min, q.tier_max, false),
                              point_distance(&q, &r));
        }
    }
}
END_TEST

START_TEST(farthest_point_of_the_ring)
{
    ck_assert_uint_eq(torus_ring_distance(0, 32768), 32768);
    ck_assert_uint_eq(torus_ring_distance(32768, 0), 32768);
    ck_assert_uint_eq(torus_ring_distance(65535, 0), 1);
    ck_assert_uint_eq(torus_tier_steps(0, 7, false), 7);
    ck_assert_uint_eq(torus_tier_steps(0, 7, true), 1);
}
END_TEST

START_TEST(paths_are_in_range_and_cuts_balanced)
{
    uint64_t keys[300];
    for (uint32_t round = 0; round < 500; round++) {
        uint32_t count = 2 + rng_below(&rng, 299);
        uint32_t spread = 1u << rng_below(&rng, 16);
        for (uint32_t i = 0; i < count; i++) {
            struct zone_record r = record_draw(1000, 1000, spread, true);
            keys[i] = zone_key(r.x, r.y, r.tier, r.node);
            ck_assert_uint_lt(keys[i], ZONE_KEY_END);
            for (uint32_t j = i; j > 0 && keys[j - 1] > keys[j]; j--) {
                uint64_t swap = keys[j];
                keys[j] = keys[j - 1];
                keys[j - 1] = swap;
            }
        }
        uint64_t cut = zone_key_cut(keys, count);
        if (cut == 0) {
            ck_assert_uint_eq(keys[0], keys[count - 1]);
            continue;
        }
        uint32_t lower = 0;
        while (lower < count && keys[lower] < cut) {
            lower++;
        }
        ck_assert_uint_gt(lower, 0);
        ck_assert_uint_lt(lower, count);
        if (spread > 256) { /* few are equal: balance is possible */
            ck_assert_uint_ge(3 * lower, count - count % 3);
            ck_assert_uint_ge(3 * (count - lower), count - count % 3);
        }
    }
}
END_TEST

/* Machines of one place and tier can still be told apart. */
START_TEST(one_site_can_be_cut)
{
    uint64_t keys[200];
    for (uint32_t i = 0; i < 200; i++) {
        keys[i] = zone_key(5, 6, 3, i);
        for (uint32_t j = i; j > 0 && keys[j - 1] > keys[j]; j--) {
            uint64_t swap = keys[j];
            keys[j] = keys[j - 1];
            keys[j - 1] = swap;
        }
    }
    uint64_t cut = zone_key_cut(keys, 200);
    ck_assert(cut > keys[65] && cut <= keys[134]);
}
END_TEST

/* Whatever way summaries are merged and sent: a record that matches is never excluded, nor put
 * farther away than it is. */
START_TEST(summaries_exclude_nothing_that_matches)
{
    uint32_t matches = 0;
    uint32_t excluded = 0;
    for (uint32_t i = 0; i < CASES; i++) {
        struct zone_record records[12];
        struct zone_summary parts[3];
        bool abstract = rng_below(&rng, 2) == 0;
        for (uint32_t p = 0; p < 3; p++) {
            zone_summary_init(&parts[p], (struct zone_range){p * 10, p * 10 + 10});
            uint16_t x = (uint16_t)rng_next(&rng);
            for (uint32_t j = 4 * p; j < 4 * p + 4; j++) {
                records[j] = record_draw(x, x, 4000, abstract);
                zone_summary_add(&parts[p], &records[j]);
            }
        }
        zone_summary_merge(&parts[0], &parts[1], 0, 0);
        zone_summary_merge(&parts[0], &parts[2], 0, 0);
        uint8_t wire[ZONE_SUMMARY_BYTES];
        struct zone_summary s;
        struct cursor c;
        cursor_init(&c, wire, sizeof(wire));
        zone_summary_write(&c, &parts[0]);
        ck_assert_uint_eq(cursor_left(&c), 0);
        cursor_init(&c, wire, sizeof(wire));
        ck_assert(zone_summary_read(&c, &s));
        ck_assert_uint_eq(s.live, 12);
        struct zone_query q = query_draw(abstract);
        uint32_t bound = zone_summary_bound(&s, &q);
        excluded += bound == UINT32_MAX;
        for (uint32_t j = 0; j < 12; j++) {
            uint32_t distance;
            if (zone_query_match(&q, &records[j], &distance)) {
                matches++;
                ck_assert_uint_le(bound, distance);
            }
        }
    }
    ck_assert_uint_gt(matches, CASES / 20);
    ck_assert_uint_gt(excluded, CASES / 20);
}
END_TEST

START_TEST(old_evidence_excludes_nothing)
{
    struct zone_record r = record_draw(0, 0, 10, false);
    struct zone_summary s;
    struct zone_query q = {.k = 1, .tier_max = 7, .model = 999999, .fresh_ms = 5000};
    zone_summary_init(&s, ZONE_RANGE_ALL);
    zone_summary_add(&s, &r);
    ck_assert_uint_eq(zone_summary_bound(&s, &q), UINT32_MAX);
    s.age_ms = ZONE_TTL_S * 1000;
    ck_assert_uint_eq(zone_summary_bound(&s, &q), 0);
    /* Free memory is believed for as long as the query says; what is built in, longer. */
    q.model = 0;
    s.vram_free_64mib = 10;
    s.vram_total_64mib = 20;
    q.vram_64mib = 15;
    s.age_ms = 6000;
    ck_assert_uint_ne(zone_summary_bound(&s, &q), UINT32_MAX);
    s.age_ms = 4000;
    ck_assert_uint_eq(zone_summary_bound(&s, &q), UINT32_MAX);
    q.vram_64mib = 21;
    s.age_ms = 6000;
    ck_assert_uint_eq(zone_summary_bound(&s, &q), UINT32_MAX);
}
END_TEST

START_TEST(tallies_round_up)
{
    for (uint32_t i = 0; i < 500000; i += 1 + i / 100) {
        uint32_t told = zone_tally_count(zone_tally(i));
        ck_assert_uint_ge(told, i);
        ck_assert_uint_le(told, i + i / 16 + 1);
    }
}
END_TEST

/* ---- the view ---- */

static void view_check(const struct zone_view *view)
{
    for (uint32_t i = 0; i < view->count; i++) {
        ck_assert(zone_range_valid(view->all[i].is.range));
        ck_assert(i == 0 || view->all[i - 1].is.range.hi <= view->all[i].is.range.lo);
    }
}

/* Random replacements: the view stays in order, the pieces tile what was asked for, and what covers
 * a path never excludes the record that was put there last. */
START_TEST(view_tiles_at_all_times)
{
    static struct zone_view view;
    static struct zone_summary out[ZONE_VIEW_MAX];
    for (uint32_t round = 0; round < CASES; round++) {
        struct zone_summary pieces[4];
        uint64_t lo = rng_below(&rng, 1000);
        uint64_t hi = lo + 1 + rng_below(&rng, 100);
        uint32_t count = 1 + rng_below(&rng, 4);
        struct zone_record r = record_draw(0, 0, 60000, false);
        for (uint32_t i = 0; i < count; i++) {
            zone_summary_init(&pieces[i], (struct zone_range){lo + (hi - lo) * i / count,
                                                              lo + (hi - lo) * (i + 1) / count});
            zone_summary_add(&pieces[i], &r);
        }
        zone_view_replace(&view, (struct zone_range){lo, hi}, pieces, count, round * NS_PER_MS, 0,
                          0);
        view_check(&view);
        const struct zone_entry *e = zone_view_find(&view, lo);
        ck_assert_ptr_nonnull(e);
        struct zone_query q = {.k = 1, .tier_max = 7, .model = r.model_count ? r.models[0] : 0};
        ck_assert_uint_ne(zone_summary_bound(&e->is, &q), UINT32_MAX);
        struct zone_range asked = {rng_below(&rng, 500), 500 + rng_below(&rng, 700) + 1};
        uint32_t excluded;
        uint32_t room = 1 + rng_below(&rng, 6);
        uint32_t got = zone_view_pieces(&view, NULL, asked, NULL, UINT32_MAX, out, room, 0, 0,
                                        round * NS_PER_MS, &excluded);
        ck_assert(got >= 1 && got <= room);
        ck_assert_uint_eq(out[0].range.lo, asked.lo);
        ck_assert_uint_eq(out[got - 1].range.hi, asked.hi);
        for (uint32_t i = 1; i < got; i++) {
            ck_assert_uint_eq(out[i].range.lo, out[i - 1].range.hi);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zone_bounds");
    TCase *tcase = tcase_create("zone_bounds");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, seed, NULL);
    tcase_add_test(tcase, bounds_never_exceed);
    tcase_add_test(tcase, bounds_of_a_cell_are_exact);
    tcase_add_test(tcase, farthest_point_of_the_ring);
    tcase_add_test(tcase, paths_are_in_range_and_cuts_balanced);
    tcase_add_test(tcase, one_site_can_be_cut);
    tcase_add_test(tcase, summaries_exclude_nothing_that_matches);
    tcase_add_test(tcase, old_evidence_excludes_nothing);
    tcase_add_test(tcase, tallies_round_up);
    tcase_add_test(tcase, view_tiles_at_all_times);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
