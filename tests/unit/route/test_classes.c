/* SPDX-License-Identifier: Apache-2.0 */
/* test_classes.c - tag classes against what they mean: the nodes of a class are those that a
 * request of that class is for, whatever the masks. */
#include <check.h>
#include <stdlib.h>

#include "dataplane/route/classes.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define NODES  64u
#define TABLES 3000

static bool has(uint32_t mask, uint32_t tags)
{
    return (mask & tags) == tags;
}

static bool anybody_has(const uint32_t *masks, uint32_t count, uint32_t tags)
{
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        any |= has(masks[i], tags);
    }
    return any;
}

/* Any request that has a class is for the nodes of that class and no others; where all classes have
 * found place, only requests that nobody can take have none. */
static void check_request(const struct route_classes *classes, const uint32_t *masks,
                          uint32_t count, uint32_t tags)
{
    uint32_t class = route_class_of(classes, tags);
    if (class == ROUTE_CLASS_NONE) {
        ck_assert(classes->cut || !anybody_has(masks, count, tags));
        return;
    }
    ck_assert_uint_lt(class, classes->count);
    uint32_t wrong = 0;
    for (uint32_t i = 0; i < count; i++) {
        wrong += has(masks[i], tags) != has(masks[i], classes->masks[class]);
    }
    ck_assert_uint_eq(wrong, 0);
}

START_TEST(a_class_is_its_nodes)
{
    struct rng rng = {.state = 99};
    unsigned cut = 0, whole = 0;
    for (int t = 0; t < TABLES; t++) {
        uint32_t masks[NODES];
        struct route_classes classes;
        uint32_t bits = 1 + rng_below(&rng, 9);
        uint32_t count = rng_below(&rng, NODES + 1);
        uint32_t different = 1 + rng_below(&rng, 12);
        for (uint32_t i = 0; i < count; i++) {
            masks[i] = i < different ? (uint32_t)rng_next(&rng) & ((1u << bits) - 1)
                                     : masks[rng_below(&rng, different)];
        }
        route_classes_find(&classes, masks, count);
        ck_assert_uint_ge(classes.count, 1);
        ck_assert_uint_le(classes.count, ROUTE_CLASSES_MAX);
        ck_assert_uint_eq(classes.masks[0], 0);
        cut += classes.cut;
        whole += !classes.cut && classes.count > 3;
        for (uint32_t tags = 0; tags < 2u << bits; tags++) {
            check_request(&classes, masks, count, tags);
        }
        for (uint32_t i = 1; i < classes.count; i++) {
            ck_assert_uint_eq(route_class_of(&classes, classes.masks[i]), i);
            ck_assert(anybody_has(masks, count, classes.masks[i]));
        }
    }
    ck_assert_uint_gt(cut, TABLES / 20);
    ck_assert_uint_gt(whole, TABLES / 5);
}
END_TEST

/* What most nodes have comes first where there is not room for all. */
START_TEST(the_common_ones_are_kept)
{
    uint32_t masks[NODES];
    struct route_classes classes;
    for (uint32_t i = 0; i < NODES; i++) {
        masks[i] = 1u << 31 | 1u << (i % 20); /* 20 different ones with one tag in common */
    }
    masks[0] |= 1u << 25;
    route_classes_find(&classes, masks, NODES);
    ck_assert(classes.cut);
    ck_assert_uint_eq(classes.count, ROUTE_CLASSES_MAX);
    ck_assert_uint_eq(classes.masks[route_class_of(&classes, 1u << 31)], 1u << 31);
    ck_assert_uint_eq(route_class_of(&classes, 1u << 25), ROUTE_CLASS_NONE);
}
END_TEST

START_TEST(more_than_can_be_looked_at)
{
    uint32_t masks[5000];
    struct route_classes classes;
    struct rng rng = {.state = 1};
    for (uint32_t i = 0; i < 5000; i++) {
        masks[i] = (uint32_t)rng_next(&rng);
    }
    route_classes_find(&classes, masks, 5000);
    ck_assert(classes.cut);
    for (int i = 0; i < 10000; i++) {
        check_request(&classes, masks, 5000, 1u << rng_below(&rng, 32) | 1u << rng_below(&rng, 32));
    }
    route_classes_find(&classes, masks, 0);
    ck_assert_uint_eq(classes.count, 1);
    ck_assert_uint_eq(route_class_of(&classes, 0), 0);
    ck_assert_uint_eq(route_class_of(&classes, 1), ROUTE_CLASS_NONE);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("classes");
    TCase *tc = tcase_create("classes");
    tcase_add_test(tc, a_class_is_its_nodes);
    tcase_add_test(tc, the_common_ones_are_kept);
    tcase_add_test(tc, more_than_can_be_looked_at);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
