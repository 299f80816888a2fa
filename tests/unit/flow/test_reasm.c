/* SPDX-License-Identifier: Apache-2.0 */
/* test_reasm.c - reasm.h against an oracle that keeps one flag per byte. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/reasm.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define ORACLE_BYTES 3000u

struct oracle {
    bool have[ORACLE_BYTES];
    uint8_t byte[ORACLE_BYTES];
    uint32_t cum;
};

static int oracle_insert(struct oracle *o, uint32_t offset, const uint8_t *data, uint32_t len)
{
    int fresh = 0;
    for (uint32_t i = 0; i < len; i++) {
        if (!o->have[offset + i]) {
            o->have[offset + i] = true;
            o->byte[offset + i] = data[i];
            fresh++;
        }
    }
    while (o->cum < ORACLE_BYTES && o->have[o->cum]) {
        o->cum++;
    }
    return fresh;
}

static void compare(const struct reasm *r, const struct oracle *o)
{
    ck_assert_uint_eq(r->cum, o->cum);
    struct reasm_range gap = {0, 0};
    bool gaps = reasm_gap(r, &gap);
    uint32_t next = o->cum;
    while (next < ORACLE_BYTES && !o->have[next]) {
        next++;
    }
    ck_assert_int_eq(gaps, next < ORACLE_BYTES);
    if (gaps) {
        ck_assert_uint_eq(gap.begin, o->cum);
        ck_assert_uint_eq(gap.end, next);
    }
    for (uint32_t i = r->base; i < reasm_furthest(r); i++) {
        if (o->have[i] && r->data[i - r->base] != o->byte[i]) {
            ck_abort_msg("byte %u differs", i);
        }
    }
}

/* Overlaps carry different bytes on purpose: the first must win. */
START_TEST(random_ranges_match_the_oracle)
{
    struct oracle *o = malloc(sizeof(*o));
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct rng rng = {seed};
        struct reasm r;
        reasm_init(&r);
        memset(o, 0, sizeof(*o));
        uint32_t longest = 1 + rng_below(&rng, 400);
        for (uint32_t step = 0; step < 300; step++) {
            uint8_t data[400];
            uint32_t len = rng_below(&rng, longest);
            uint32_t offset = rng_below(&rng, ORACLE_BYTES - len);
            for (uint32_t i = 0; i < len; i++) {
                data[i] = (uint8_t)rng_next(&rng);
            }
            int got = reasm_insert(&r, offset, data, len, ORACLE_BYTES);
            if (got == -ENOBUFS) {
                ck_assert_uint_eq(r.range_count, REASM_RANGES_MAX);
            } else {
                ck_assert_int_eq(got, oracle_insert(o, offset, data, len));
            }
            if (rng_below(&rng, 4) == 0 && r.cum > r.base) {
                reasm_consume(&r, r.base + rng_below(&rng, r.cum - r.base + 1));
            }
            compare(&r, o);
        }
        ck_assert_uint_le(r.capacity, 2 * ORACLE_BYTES);
        reasm_deinit(&r);
    }
    free(o);
}
END_TEST

START_TEST(memory_follows_what_came)
{
    struct reasm r;
    reasm_init(&r);
    ck_assert_int_eq(reasm_set_total(&r, 16u << 20), 0);
    ck_assert_ptr_null(r.data); /* a claim allocates nothing */
    uint8_t byte = 7;
    ck_assert_int_eq(reasm_insert(&r, (16u << 20) - 1, &byte, 1, 32768), -ERANGE);
    ck_assert_int_eq(reasm_insert(&r, 32768, &byte, 1, 32768), -ERANGE);
    ck_assert_ptr_null(r.data);
    ck_assert_int_eq(reasm_insert(&r, 32767, &byte, 1, 32768), 1);
    ck_assert_uint_eq(r.capacity, 32768);
    reasm_deinit(&r);
}
END_TEST

START_TEST(contradictions_are_refused)
{
    struct reasm r;
    uint8_t data[100] = {0};
    reasm_init(&r);
    ck_assert_int_eq(reasm_insert(&r, 50, data, 50, 1000), 50);
    ck_assert_int_eq(reasm_set_total(&r, 99), -EPROTO);
    ck_assert_int_eq(reasm_set_total(&r, 100), 0);
    ck_assert_int_eq(reasm_set_total(&r, 101), -EPROTO);
    ck_assert_int_eq(reasm_insert(&r, 60, data, 41, 1000), -EPROTO);
    ck_assert_int_eq(reasm_insert(&r, UINT32_MAX, data, 100, 1000), -ERANGE);
    ck_assert(!reasm_complete(&r));
    ck_assert_int_eq(reasm_insert(&r, 0, data, 60, 1000), 50);
    ck_assert(reasm_complete(&r));
    reasm_deinit(&r);
}
END_TEST

START_TEST(too_many_gaps_are_refused)
{
    struct reasm r;
    uint8_t byte = 1;
    reasm_init(&r);
    for (uint32_t i = 0; i < REASM_RANGES_MAX; i++) {
        ck_assert_int_eq(reasm_insert(&r, 1 + 2 * i, &byte, 1, 10000), 1);
    }
    ck_assert_int_eq(reasm_insert(&r, 9000, &byte, 1, 10000), -ENOBUFS);
    ck_assert_int_eq(reasm_insert(&r, 0, &byte, 1, 10000), 1); /* closing one is always possible */
    ck_assert_uint_eq(r.cum, 2);
    ck_assert_int_eq(reasm_insert(&r, 9000, &byte, 1, 10000), 1);
    reasm_deinit(&r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/reasm");
    TCase *t = tcase_create("reasm");
    tcase_add_test(t, random_ranges_match_the_oracle);
    tcase_add_test(t, memory_follows_what_came);
    tcase_add_test(t, contradictions_are_refused);
    tcase_add_test(t, too_many_gaps_are_refused);
    suite_add_tcase(s, t);
    return suite_main(s);
}
