/* SPDX-License-Identifier: Apache-2.0 */
/* The breaker in virtual time: each way through its states, and over many random histories what
 * must hold whatever happens. */
#include <check.h>

#include "kernels/upstream/breaker.h"
#include "tests/unit/suite.h"

#define SEED   5u
#define ROUNDS 200000u

static struct breaker closed_one(void)
{
    struct breaker b;
    breaker_init(&b, SEED);
    ck_assert(breaker_probe(&b, 0));
    breaker_alive(&b);
    return b;
}

START_TEST(unknown_is_probed_first)
{
    struct breaker b;
    breaker_init(&b, SEED);
    ck_assert(!breaker_allows(&b, 0));
    ck_assert(breaker_probe(&b, 0));
    ck_assert(!breaker_probe(&b, 0)); /* one at a time */
    ck_assert(!breaker_allows(&b, 0));
    breaker_alive(&b);
    ck_assert(breaker_allows(&b, 0));
    ck_assert_uint_eq(breaker_due_ns(&b, 0), UINT64_MAX);
    for (uint32_t i = 1; i < BREAKER_FAILURES; i++) {
        breaker_failure(&b, false, 0); /* not on probation */
        ck_assert(breaker_allows(&b, 0));
    }
    breaker_failure(&b, false, 0);
    ck_assert(!breaker_allows(&b, 0));
}
END_TEST

START_TEST(failures_in_a_row)
{
    struct breaker b = closed_one();
    for (uint32_t i = 0; i < 10; i++) {
        for (uint32_t j = 1; j < BREAKER_FAILURES; j++)
            breaker_failure(&b, false, 0);
        breaker_success(&b);
    }
    ck_assert(breaker_allows(&b, 0));
    breaker_failure(&b, true, 0); /* gone: once will do */
    ck_assert(!breaker_allows(&b, 0));
    ck_assert(!breaker_probe(&b, BREAKER_FIRST_NS - 1));
    const uint64_t due_ns = breaker_due_ns(&b, 0);
    ck_assert(due_ns >= BREAKER_FIRST_NS && due_ns < 2 * BREAKER_FIRST_NS);
    ck_assert(breaker_probe(&b, due_ns));
}
END_TEST

START_TEST(pauses_double)
{
    struct breaker b = closed_one();
    uint64_t now_ns = 0, last_ns = 0;
    for (uint32_t i = 0; i < 12; i++) {
        breaker_failure(&b, true, now_ns);
        const uint64_t pause_ns = breaker_due_ns(&b, now_ns) - now_ns;
        ck_assert(pause_ns <= BREAKER_LAST_NS + BREAKER_LAST_NS / 5);
        ck_assert(pause_ns > last_ns || pause_ns >= BREAKER_LAST_NS);
        last_ns = pause_ns;
        now_ns += pause_ns;
        ck_assert(breaker_probe(&b, now_ns));
    }
    breaker_alive(&b);
    ck_assert(breaker_allows(&b, now_ns));
    breaker_failure(&b, false, now_ns); /* on probation: one is enough, and the pause stays long */
    ck_assert(!breaker_allows(&b, now_ns));
    ck_assert(breaker_due_ns(&b, now_ns) - now_ns >= BREAKER_LAST_NS);
    now_ns = breaker_due_ns(&b, now_ns);
    ck_assert(breaker_probe(&b, now_ns));
    breaker_alive(&b);
    breaker_success(&b); /* a real answer: all is forgotten */
    breaker_failure(&b, true, now_ns);
    ck_assert(breaker_due_ns(&b, now_ns) - now_ns < 2 * BREAKER_FIRST_NS);
}
END_TEST

START_TEST(asked_for_pauses)
{
    struct breaker b = closed_one();
    breaker_hold(&b, 3 * NS_PER_S, NS_PER_S);
    breaker_hold(&b, NS_PER_S, NS_PER_S); /* a shorter one does not shorten it */
    ck_assert(!breaker_allows(&b, 4 * NS_PER_S - 1));
    ck_assert_uint_eq(breaker_due_ns(&b, NS_PER_S), 4 * NS_PER_S);
    ck_assert(breaker_allows(&b, 4 * NS_PER_S));
    breaker_hold(&b, UINT64_MAX / 2, 0); /* a year is not waited */
    ck_assert(breaker_allows(&b, BREAKER_HOLD_NS));
    /* An open one is not probed within the pause either. */
    breaker_failure(&b, true, 0);
    ck_assert(!breaker_probe(&b, BREAKER_HOLD_NS - 1));
    ck_assert(breaker_probe(&b, BREAKER_HOLD_NS));
}
END_TEST

/* What must hold: requests go only when closed and not held, never two probes at a time, and what
 * is due comes: at breaker_due_ns() something is allowed. */
START_TEST(random_histories)
{
    struct rng rng = {SEED};
    struct breaker b;
    uint64_t now_ns = 0;
    bool probing = false;
    breaker_init(&b, SEED);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        now_ns += rng_below(&rng, 2000) * NS_PER_MS;
        switch (rng_below(&rng, 6)) {
        case 0:
            breaker_success(&b);
            break;
        case 1:
            breaker_failure(&b, rng_below(&rng, 4) == 0, now_ns);
            probing = probing && b.state == BREAKER_HALF_OPEN;
            break;
        case 2:
            breaker_hold(&b, rng_below(&rng, 5000) * NS_PER_MS, now_ns);
            break;
        case 3:
            if (probing)
                breaker_alive(&b);
            probing = false;
            break;
        default:
            if (breaker_probe(&b, now_ns)) {
                ck_assert(!probing);
                probing = true;
            }
            break;
        }
        ck_assert_int_eq(probing, b.state == BREAKER_HALF_OPEN);
        if (breaker_allows(&b, now_ns))
            ck_assert(b.state == BREAKER_CLOSED && now_ns >= b.hold_ns);
        const uint64_t due_ns = breaker_due_ns(&b, now_ns);
        if (due_ns == UINT64_MAX) {
            ck_assert(probing || breaker_allows(&b, now_ns));
        } else {
            struct breaker later = b;
            ck_assert(breaker_allows(&later, due_ns) || breaker_probe(&later, due_ns));
            ck_assert(due_ns <= now_ns + BREAKER_HOLD_NS);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_breaker");
    TCase *tests = tcase_create("breaker");
    tcase_add_test(tests, unknown_is_probed_first);
    tcase_add_test(tests, failures_in_a_row);
    tcase_add_test(tests, pauses_double);
    tcase_add_test(tests, asked_for_pauses);
    tcase_add_test(tests, random_histories);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
