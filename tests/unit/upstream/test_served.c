/* SPDX-License-Identifier: Apache-2.0 */
/* test_served.c - served.h: models come with who registers them and go half a minute after. */
#include <check.h>
#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kernels/upstream/served.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

static struct text text;
static const struct relay_options options = {
    .slots = 2, .first_ns = NS_PER_S, .silence_ns = NS_PER_S, .text = &text, .seed = 1};
static struct served served;

static void setup(void)
{
    ck_assert_int_eq(curl_global_init(CURL_GLOBAL_DEFAULT), 0);
    served = (struct served){.options = &options};
}

static void teardown(void)
{
    served_deinit(&served);
    curl_global_cleanup();
}

static const struct served_model *find(const char *name)
{
    const struct served_model *found = NULL;
    for (size_t i = 0; i < SERVED_MAX; i++) {
        if (served.models[i].relay && strcmp(served.models[i].name, name) == 0) {
            ck_assert_ptr_null(found); /* never twice */
            found = &served.models[i];
        }
    }
    return found;
}

static void sweep(uint64_t now_ns)
{
    for (size_t i = 0; i < SERVED_MAX; i++)
        if (served_is_over(&served.models[i], now_ns))
            served_remove(&served.models[i]);
}

START_TEST(told_ones_stay)
{
    ck_assert_int_eq(served_add(&served, "told", true), 0);
    served_offer(&served, NULL, 0, NS_PER_S);
    sweep(NS_PER_S + 10 * SERVED_GONE_NS);
    ck_assert_ptr_nonnull(find("told"));
}
END_TEST

START_TEST(as_many_as_a_node_takes)
{
    char names[SERVED_MAX + 2][REGISTRY_MODEL_MAX];
    for (unsigned i = 0; i < SERVED_MAX + 2; i++)
        snprintf(names[i], sizeof(names[i]), "m%u", i);
    served_offer(&served, names, SERVED_MAX + 2, NS_PER_S);
    for (unsigned i = 0; i < SERVED_MAX + 2; i++)
        ck_assert_int_eq(find(names[i]) != NULL, i < SERVED_MAX);
    ck_assert_int_eq(served_add(&served, "more", true), -ENOSPC);
    /* The first goes: there is room for another. */
    served_offer(&served, names + 1, SERVED_MAX + 1, 2 * NS_PER_S);
    sweep(2 * NS_PER_S + SERVED_GONE_NS);
    served_offer(&served, names + 1, SERVED_MAX + 1, 3 * NS_PER_S + SERVED_GONE_NS);
    ck_assert_ptr_null(find("m0"));
    ck_assert_ptr_nonnull(find(names[SERVED_MAX]));
}
END_TEST

/* Seconds of random offers of four names: a model is there while it is offered, and for
 * SERVED_GONE_NS, no longer, after that. */
START_TEST(they_come_and_go)
{
    struct rng rng;
    uint64_t last[4] = {0};
    rng.state = suite_seed(7);
    for (uint64_t s = 100; s < 2000; s++) {
        char names[4][REGISTRY_MODEL_MAX];
        size_t count = 0;
        for (unsigned i = 0; i < 4; i++) {
            if (s / 64 % 4 != i && rng_below(&rng, 10) == 0) { /* for a minute nobody has it */
                snprintf(names[count++], REGISTRY_MODEL_MAX, "m%u", i);
                last[i] = s;
            }
        }
        served_offer(&served, names, count, s * NS_PER_S);
        sweep(s * NS_PER_S);
        for (unsigned i = 0; i < 4; i++) {
            char name[8];
            snprintf(name, sizeof(name), "m%u", i);
            /* It counts as gone from the first list without it, a second later. */
            const bool there =
                last[i] != 0 && s * NS_PER_S < (last[i] + 1) * NS_PER_S + SERVED_GONE_NS;
            ck_assert_int_eq(find(name) != NULL, there);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("served");
    TCase *tc = tcase_create("served");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, told_ones_stay);
    tcase_add_test(tc, as_many_as_a_node_takes);
    tcase_add_test(tc, they_come_and_go);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
