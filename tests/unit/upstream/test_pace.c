/* SPDX-License-Identifier: Apache-2.0 */
/* What is learned of servers whose true figures are known, with noise, and after they change. */
#include <check.h>
#include <math.h>

#include "kernels/upstream/pace.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define SEED    3u
#define ANSWERS 200u

static void run(struct pace *pace, double wait_s, double prefill, double decode, double noise)
{
    struct rng rng = {SEED};
    for (uint32_t i = 0; i < ANSWERS; i++) {
        const uint32_t prompt = 10 + rng_below(&rng, 4000);
        const uint32_t tokens = 1 + rng_below(&rng, 300);
        const double factor = 1 + noise * (rng_unit(&rng) - 0.5);
        pace_first(pace, prompt, (wait_s + prompt / prefill) * factor);
        pace_decoded(pace, tokens, tokens / decode * factor);
    }
}

static void near(double got, double wanted, double share)
{
    ck_assert_msg(fabs(got - wanted) <= share * wanted, "%g, not %g", got, wanted);
}

START_TEST(learned)
{
    struct pace pace = {0};
    ck_assert_double_eq(pace_prefill(&pace, 0), PACE_PREFILL_FIRST);
    ck_assert_double_eq(pace_decode(&pace, 0), PACE_DECODE_FIRST);
    ck_assert_double_eq(pace_wait_s(&pace, 0), 0);
    run(&pace, 0.12, 3000, 45, 0);
    near(pace_wait_s(&pace, 0), 0.12, 0.01);
    near(pace_prefill(&pace, 0), 3000, 0.01);
    near(pace_decode(&pace, 0), 45, 0.01);
    run(&pace, 0.5, 800, 10, 0.1); /* three times slower: within 20 % */
    near(pace_wait_s(&pace, 0), 0.5, 0.2);
    near(pace_prefill(&pace, 0), 800, 0.2);
    near(pace_decode(&pace, 0), 10, 0.2);
}
END_TEST

START_TEST(prompts_of_one_length)
{
    struct pace pace = {0};
    for (uint32_t i = 0; i < ANSWERS; i++)
        pace_first(&pace, 100, 0.3);
    near(pace_wait_s(&pace, 0), 0.3, 0.01); /* all of it counts as wait */
    ck_assert_double_ge(pace_prefill(&pace, 0), 1e5);
}
END_TEST

/* One slow answer is soon no reason any more to pass a server by, many are for longer; what is as
 * quick as would be taken for granted stays as it is. */
START_TEST(fades_in_silence)
{
    struct pace cold = {0}, slow = {0}, quick = {0};
    pace_first(&cold, 100, 20);
    pace_decoded(&cold, 10, 10);
    near(pace_wait_s(&cold, PACE_HALF_S), 10, 0.01);
    ck_assert_double_lt(pace_wait_s(&cold, 60), 0.01);
    near(pace_decode(&cold, 60), PACE_DECODE_FIRST, 0.01);
    run(&slow, 20, 200, 5, 0);
    near(pace_wait_s(&slow, PACE_HALF_S), 20, 0.05);
    near(pace_prefill(&slow, PACE_HALF_S), 200, 0.05);
    ck_assert_double_lt(pace_wait_s(&slow, 1200), 0.01);
    near(pace_prefill(&slow, 1200), PACE_PREFILL_FIRST, 0.01);
    run(&quick, 0, 3000, 45, 0);
    near(pace_prefill(&quick, 1200), 3000, 0.01);
    near(pace_decode(&quick, 1200), 45, 0.01);
    pace_first(&cold, 100, 20); /* slow again: that counts at once */
    near(pace_wait_s(&cold, 0), 20, 0.01);
}
END_TEST

START_TEST(nonsense)
{
    struct pace pace = {0};
    pace_first(&pace, 0, 0);
    pace_first(&pace, 100, -1);
    pace_first(&pace, 1000, NAN);
    pace_decoded(&pace, 0, 1);
    pace_decoded(&pace, 5, 0);
    ck_assert(isfinite(pace_wait_s(&pace, 0)) && pace_wait_s(&pace, 0) >= 0);
    ck_assert(isfinite(pace_prefill(&pace, 0)) && pace_prefill(&pace, 0) >= 1);
    ck_assert(isfinite(pace_decode(&pace, 0)) && pace_decode(&pace, 0) >= 1);
    /* Longer prompts that are faster: no negative speed. */
    for (uint32_t i = 0; i < ANSWERS; i++)
        pace_first(&pace, i * 10, 1.0 / (i + 1));
    ck_assert_double_ge(pace_prefill(&pace, 0), 1);
    ck_assert_double_ge(pace_wait_s(&pace, 0), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("upstream_pace");
    TCase *tests = tcase_create("pace");
    tcase_add_test(tests, learned);
    tcase_add_test(tests, prompts_of_one_length);
    tcase_add_test(tests, fades_in_silence);
    tcase_add_test(tests, nonsense);
    suite_add_tcase(suite, tests);
    return suite_main(suite);
}
