/* SPDX-License-Identifier: Apache-2.0 */
/* test_scan.c - the vector versions of scan.c against the plain one, and that one against sorting;
 * nearest.c against sorting. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/route/nearest.h"
#include "dataplane/route/scan.h"
#include "schemas/base/rng.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define COUNT_MAX 700u
#define ROUNDS    (SANITIZED ? 3000 : 20000)

static struct scan scan;
static uint32_t places[COUNT_MAX + SCAN_PAD];
static uint32_t tags[COUNT_MAX + SCAN_PAD];
static uint8_t tiers[COUNT_MAX + SCAN_PAD];
static uint32_t bases[COUNT_MAX + SCAN_PAD];

static struct scan_input random_input(struct rng *rng)
{
    struct scan_input in = {
        .places = places,
        .tags = tags,
        .tiers = tiers,
        .count = 1 + rng_below(rng, rng_below(rng, 3) == 0 ? COUNT_MAX : 40),
        .place = (uint32_t)rng_next(rng),
        .need_tags = rng_below(rng, 2) == 0 ? 0 : 1u << rng_below(rng, 4),
        .tier_min = rng_below(rng, 8),
        .tier_cells = rng_below(rng, 3) == 0 ? 8192 : 1638,
        .tier_ring = rng_below(rng, 2) == 0,
        .salt = rng_below(rng, SCAN_CANDIDATES_MAX),
    };
    in.tier_max = in.tier_min + rng_below(rng, 8 - in.tier_min);
    /* The padding is garbage on purpose. */
    for (uint32_t i = 0; i < COUNT_MAX + SCAN_PAD; i++) {
        places[i] = rng_below(rng, 4) != 0 ? (uint32_t)rng_next(rng) : 0x80008000u;
        tags[i] = (uint32_t)rng_next(rng);
        tiers[i] = (uint8_t)rng_below(rng, 8);
    }
    return in;
}

static long half_ring(uint32_t a, uint32_t b)
{
    long d = labs((long)(a & 0xffff) - (long)(b & 0xffff));
    return d > 32768 ? 65536 - d : d;
}

static int compare(const void *a, const void *b)
{
    const uint32_t *x = a;
    const uint32_t *y = b;
    return (*x > *y) - (*x < *y);
}

/* All keys, sorted, from the definition. */
static uint32_t expected_keys(const struct scan_input *in, uint32_t *keys)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < in->count; i++) {
        long steps = labs((long)tiers[i] - (long)in->tier_min);
        if ((tags[i] & in->need_tags) != in->need_tags || tiers[i] < in->tier_min ||
            tiers[i] > in->tier_max) {
            continue;
        }
        steps = in->tier_ring && 8 - steps < steps ? 8 - steps : steps;
        long distance = half_ring(places[i], in->place) +
                        half_ring(places[i] >> 16, in->place >> 16) + steps * in->tier_cells;
        uint32_t turn = (uint32_t)((i * UINT64_C(10125) + in->salt) % 16384);
        ck_assert_uint_eq(scan_position(in->salt, turn), i);
        keys[used++] = (uint32_t)((distance + 1) << 14) | turn;
    }
    qsort(keys, used, sizeof(*keys), compare);
    return used;
}

START_TEST(keys_come_in_order)
{
    struct rng rng = {.state = suite_seed(77)};
    uint32_t expected[COUNT_MAX];
    if (scan_isa_use((enum scan_isa)_i) != 0) {
        return; /* not on this CPU */
    }
    for (int round = 0; round < ROUNDS; round++) {
        struct scan_input in = random_input(&rng);
        uint32_t count = expected_keys(&in, expected);
        scan_start(&scan, &in);
        uint32_t at = 0;
        for (; at < scan.first_count; at++) {
            ck_assert_uint_lt(at, count);
            ck_assert_uint_eq(scan.first[at], expected[at]);
        }
        uint32_t wanted = rng_below(&rng, 4) == 0 ? count : at + rng_below(&rng, 6);
        for (; at < wanted && at < count; at++) {
            ck_assert_uint_eq(scan_next(&scan), expected[at]);
        }
        if (at == count) {
            ck_assert_uint_eq(scan_next(&scan), SCAN_NONE);
            ck_assert_uint_eq(scan_next(&scan), SCAN_NONE);
        }
    }
}
END_TEST

/* What a table keeps for nearest.c; the padding there is not garbage. */
static void fill_bases(const struct scan_input *in)
{
    for (uint32_t i = 0; i < COUNT_MAX + SCAN_PAD; i++) {
        uint32_t steps = in->tier_ring && 8u - tiers[i] < tiers[i] ? 8u - tiers[i] : tiers[i];
        bases[i] = i < in->count ? nearest_base(i, steps * in->tier_cells) : NEAREST_PAD;
    }
}

/* Several searches at once, of all sizes, each against the definition. The arrays are shared, so
 * that searches of a burst differ in place, salt, filters and how many of the candidates they see.
 */
START_TEST(eight_nearest_are_the_first_of_the_order)
{
    struct rng rng = {.state = 99};
    static struct nearest found[NEAREST_BURST];
    struct nearest *searches[NEAREST_BURST];
    uint32_t expected[COUNT_MAX];
    unsigned failed = 0;
    if (_i == SCAN_SCALAR || scan_isa_use((enum scan_isa)_i) != 0) {
        return; /* there is no such version, or not on this CPU */
    }
    for (int round = 0; round < 150; round++) {
        struct scan_input in = random_input(&rng);
        uint32_t burst = 1 + rng_below(&rng, NEAREST_BURST);
        fill_bases(&in);
        for (uint32_t k = 0; k < burst; k++) {
            in.place = (uint32_t)rng_next(&rng);
            in.salt = rng_below(&rng, SCAN_CANDIDATES_MAX);
            bool plain = rng_below(&rng, 2) == 0;
            in.need_tags = plain ? 0 : 1u << rng_below(&rng, 4);
            in.tier_min = plain ? 0 : rng_below(&rng, 8);
            in.tier_max = plain ? 7 : in.tier_min + rng_below(&rng, 8 - in.tier_min);
            found[k] = (struct nearest){.in = in, .bases = bases};
            searches[k] = &found[k];
        }
        nearest_find(searches, burst, &scan);
        for (uint32_t k = 0; k < burst; k++) {
            uint32_t count = expected_keys(&found[k].in, expected);
            failed += !found[k].ok;
            for (uint32_t i = 0; found[k].ok && i < NEAREST_COUNT; i++) {
                ck_assert_uint_eq(found[k].keys[i], i < count ? expected[i] : SCAN_NONE);
                ck_assert_uint_eq(found[k].positions[i],
                                  i < count ? scan_position(found[k].in.salt, expected[i]) : 0);
            }
        }
    }
    ck_assert_uint_lt(failed, 150 * NEAREST_BURST / 100);
}
END_TEST

START_TEST(a_new_salt_gives_another_order)
{
    struct rng rng = {.state = 5};
    if (_i == SCAN_SCALAR || scan_isa_use((enum scan_isa)_i) != 0) {
        return;
    }
    for (int round = 0; round < 2000; round++) {
        uint32_t keys[NEAREST_COUNT], expected[NEAREST_COUNT];
        uint32_t salt = rng_below(&rng, SCAN_CANDIDATES_MAX);
        uint32_t count = rng_below(&rng, NEAREST_COUNT + 1);
        struct nearest out;
        for (uint32_t i = 0; i < NEAREST_COUNT; i++) {
            uint32_t distance = 1 + rng_below(&rng, 3), position = 100 * i + rng_below(&rng, 100);
            keys[i] = i < count ? distance << 14 | scan_mixed(0, position) : SCAN_NONE;
            expected[i] = i < count ? distance << 14 | scan_mixed(salt, position) : SCAN_NONE;
        }
        qsort(keys, count, sizeof(keys[0]), compare);
        qsort(expected, count, sizeof(expected[0]), compare);
        nearest_resalt(keys, salt, &out);
        for (uint32_t i = 0; i < NEAREST_COUNT; i++) {
            ck_assert_uint_eq(out.keys[i], expected[i]);
            ck_assert_uint_eq(out.positions[i], i < count ? scan_position(salt, expected[i]) : 0);
        }
    }
}
END_TEST

START_TEST(versions_have_names)
{
    ck_assert_str_eq(scan_isa_name(SCAN_SCALAR), "plain C");
    ck_assert_str_eq(scan_isa_name(SCAN_ISAS), "?");
    ck_assert_int_lt(scan_isa_use(SCAN_ISAS), 0);
    ck_assert_int_eq(scan_isa_use(SCAN_SCALAR), 0);
    ck_assert_uint_eq(scan_isa(), SCAN_SCALAR);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("scan");
    TCase *tc = tcase_create("scan");
    tcase_add_loop_test(tc, keys_come_in_order, 0, SCAN_ISAS);
    tcase_add_loop_test(tc, eight_nearest_are_the_first_of_the_order, 0, SCAN_ISAS);
    tcase_add_loop_test(tc, a_new_salt_gives_another_order, 0, SCAN_ISAS);
    tcase_add_test(tc, versions_have_names);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
