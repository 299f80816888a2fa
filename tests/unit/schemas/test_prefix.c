/* SPDX-License-Identifier: Apache-2.0 */
/* test_prefix.c - schemas/base/prefix.c: prompts have in common what they begin with, and no more;
 * bits and lengths agree. */
#include "schemas/base/prefix.h"

#include <check.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define MODEL    77u
#define TEXT_MAX 200000u
#define PAIRS    3000

static const uint32_t lengths[PREFIX_LEVELS + 1] = {0, 512, 1024, 2048, 4096, 8192, 32768, 131072};

static uint32_t levels_within(uint32_t size)
{
    uint32_t levels = 0;
    while (levels < PREFIX_LEVELS && lengths[levels + 1] <= size) {
        levels++;
    }
    return levels;
}

static void fill(struct rng *rng, uint8_t *bytes, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)rng_next(rng);
    }
}

/* Sizes of all magnitudes. */
static uint32_t some_size(struct rng *rng)
{
    return rng_below(rng, TEXT_MAX >> rng_below(rng, 10));
}

START_TEST(lengths_and_bits)
{
    static uint8_t text[TEXT_MAX];
    struct rng rng = {.state = suite_seed(1)};
    fill(&rng, text, sizeof(text));
    ck_assert_uint_eq(prefix_bytes(0), 0);
    for (uint32_t level = 1; level <= PREFIX_LEVELS; level++) {
        uint64_t prefix = prefix_of(MODEL, text, lengths[level]);
        ck_assert_uint_eq(prefix_bytes(level), lengths[level]);
        ck_assert_uint_eq(prefix_levels(prefix), level);
        ck_assert_uint_eq(prefix & ~prefix_mask(level), 0);
        ck_assert_uint_eq(prefix_of(MODEL, text, lengths[level] - 1),
                          prefix & prefix_mask(level - 1));
    }
    ck_assert_uint_eq(prefix_of(MODEL, text, sizeof(text)),
                      prefix_of(MODEL, text, lengths[PREFIX_LEVELS]));
}
END_TEST

/* A prompt never ends before its time: no byte of a hash is 0, whatever it is of. */
START_TEST(no_level_is_lost)
{
    static uint8_t text[TEXT_MAX];
    struct rng rng = {.state = suite_seed(2)};
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t size = rng_below(&rng, 5000);
        memcpy(text, &i, sizeof(i));
        ck_assert_uint_eq(prefix_levels(prefix_of(MODEL, text, size)), levels_within(size));
    }
}
END_TEST

START_TEST(common_is_what_they_begin_with)
{
    static uint8_t a[TEXT_MAX], b[TEXT_MAX];
    struct rng rng = {.state = suite_seed(3)};
    uint32_t chance = 0;
    for (int i = 0; i < PAIRS; i++) {
        uint32_t shared = some_size(&rng), size_a = some_size(&rng), size_b = some_size(&rng);
        fill(&rng, a, size_a);
        fill(&rng, b, size_b);
        uint32_t least = size_a < size_b ? size_a : size_b;
        shared = shared < least ? shared : least;
        memcpy(b, a, shared);
        uint32_t common = prefix_common(prefix_of(MODEL, a, size_a), prefix_of(MODEL, b, size_b));
        ck_assert_uint_ge(common, levels_within(shared));
        chance += common - levels_within(shared);
        /* Another model has computed nothing of it. */
        chance += prefix_common(prefix_of(MODEL, a, size_a), prefix_of(MODEL + 1, b, size_b));
    }
    ck_assert_uint_le(chance, PAIRS / 100); /* one in 256 where the length before is shared */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prefix");
    TCase *tcase = tcase_create("prefix");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, lengths_and_bits);
    tcase_add_test(tcase, no_level_is_lost);
    tcase_add_test(tcase, common_is_what_they_begin_with);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
