/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/model/sampler.c. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/model/philox.h"
#include "kernels/model/sampler.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define COUNT 1000u
#define DRAWS 4000u

static float logits[COUNT];
static struct sampler_candidate scratch[COUNT];

static void setup(void)
{
    uint64_t rng = 3;
    for (size_t i = 0; i < COUNT; i++)
        logits[i] = tiny_random_float(&rng) * 5.0f;
}

/* Known answers published with Random123 (kat_vectors, philox4x32 with 10 rounds). */
START_TEST(test_philox)
{
    static const struct {
        uint32_t counter[4];
        uint32_t key[2];
        uint32_t out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint32_t out[4];
        philox(known[i].counter, known[i].key, out);
        ck_assert_mem_eq(out, known[i].out, sizeof(out));
    }
}
END_TEST

START_TEST(test_uniform)
{
    double sum = 0;
    for (uint64_t p = 0; p < DRAWS; p++) {
        const double u = philox_uniform(11, p);
        ck_assert(u >= 0.0 && u < 1.0);
        sum += u;
    }
    ck_assert_double_eq_tol(sum / DRAWS, 0.5, 0.03);
    ck_assert_double_ne(philox_uniform(11, 5), philox_uniform(12, 5));
    ck_assert_double_ne(philox_uniform(UINT64_C(1) << 40, 5), philox_uniform(0, 5));
}
END_TEST

START_TEST(test_greedy)
{
    const struct sampler_params params = {.temperature = 0.0f, .seed = 1};
    logits[17] = 9.0f;
    logits[18] = 9.0f;
    ck_assert_uint_eq(sampler_pick(&params, 0, logits, COUNT, NULL), 17);
    logits[3] = NAN;
    logits[4] = INFINITY;
    ck_assert_uint_eq(sampler_pick(&params, 0, logits, COUNT, NULL), 4);
}
END_TEST

START_TEST(test_not_numbers)
{
    struct sampler_params params = {.temperature = 1.0f, .top_p = 0.9f, .top_k = 40, .seed = 1};
    for (size_t i = 0; i < COUNT; i++)
        logits[i] = i % 3 ? NAN : -INFINITY;
    ck_assert_uint_eq(sampler_pick(&params, 0, logits, COUNT, scratch), UINT32_MAX);
    logits[500] = -3.0f;
    logits[501] = INFINITY;
    for (uint64_t p = 0; p < 100; p++)
        ck_assert_uint_eq(sampler_pick(&params, p, logits, COUNT, scratch), 501);
    logits[501] = NAN;
    params.temperature = NAN;
    ck_assert_uint_eq(sampler_pick(&params, 0, logits, COUNT, scratch), 500);
    params = (struct sampler_params){.temperature = 1e-30f, .top_p = NAN, .min_p = NAN};
    ck_assert_uint_eq(sampler_pick(&params, 0, logits, COUNT, scratch), 500);
}
END_TEST

/* The same seed and position give the same token whatever was drawn before. */
START_TEST(test_resumable)
{
    const struct sampler_params params = {.temperature = 0.9f, .top_p = 0.95f, .seed = 99};
    uint32_t first[64];
    for (uint64_t p = 0; p < 64; p++)
        first[p] = sampler_pick(&params, p, logits, COUNT, scratch);
    for (uint64_t p = 64; p-- > 0;)
        ck_assert_uint_eq(sampler_pick(&params, p, logits, COUNT, scratch), first[p]);
    struct sampler_params other = params;
    other.seed = 100;
    size_t same = 0;
    for (uint64_t p = 0; p < 64; p++)
        same += sampler_pick(&other, p, logits, COUNT, scratch) == first[p];
    ck_assert_uint_lt(same, 16);
}
END_TEST

/* The k-th best logit, by counting. */
static size_t rank_of(uint32_t id)
{
    size_t better = 0;
    for (size_t i = 0; i < COUNT; i++)
        better += logits[i] > logits[id] || (logits[i] == logits[id] && i < id);
    return better;
}

START_TEST(test_top_k)
{
    const struct sampler_params params = {.temperature = 5.0f, .top_k = 7, .seed = 5};
    unsigned seen = 0;
    for (uint64_t p = 0; p < DRAWS; p++) {
        const size_t rank = rank_of(sampler_pick(&params, p, logits, COUNT, scratch));
        ck_assert_uint_lt(rank, 7);
        seen |= 1u << rank;
    }
    ck_assert_uint_eq(seen, 0x7f);
}
END_TEST

START_TEST(test_top_p)
{
    const struct sampler_params params = {.temperature = 1.0f, .top_p = 0.5f, .seed = 5};
    double total = 0;
    for (size_t i = 0; i < COUNT; i++)
        total += exp((double)logits[i]);
    for (uint64_t p = 0; p < 500; p++) {
        const uint32_t id = sampler_pick(&params, p, logits, COUNT, scratch);
        double above = 0; /* mass of everything better: must not have reached top_p yet */
        for (size_t i = 0; i < COUNT; i++)
            above += rank_of((uint32_t)i) < rank_of(id) ? exp((double)logits[i]) : 0;
        ck_assert_double_lt(above, 0.5 * total * 1.0001);
    }
}
END_TEST

START_TEST(test_top_k_then_p)
{
    /* Weights 8 4 2 1 ...: of the best three (14), 0.6 is 8.4, which the first two reach. */
    const struct sampler_params params = {
        .temperature = 1.0f, .top_k = 3, .top_p = 0.6f, .seed = 5};
    unsigned seen = 0;
    for (size_t i = 0; i < COUNT; i++)
        logits[i] = -20.0f;
    for (size_t i = 0; i < 6; i++)
        logits[100 + i] = (float)log(8.0 / (double)(1u << i));
    for (uint64_t p = 0; p < DRAWS; p++)
        seen |= 1u << (sampler_pick(&params, p, logits, COUNT, scratch) - 100);
    ck_assert_uint_eq(seen, 3);
}
END_TEST

START_TEST(test_min_p)
{
    const struct sampler_params params = {.temperature = 1.0f, .min_p = 0.2f, .seed = 5};
    float best = -INFINITY;
    for (size_t i = 0; i < COUNT; i++)
        best = logits[i] > best ? logits[i] : best;
    for (uint64_t p = 0; p < DRAWS; p++) {
        const uint32_t id = sampler_pick(&params, p, logits, COUNT, scratch);
        ck_assert(exp((double)(logits[id] - best)) >= 0.1999);
    }
}
END_TEST

/* Chi-squared over eight outcomes: 7 degrees of freedom, 24.3 is the 0.999 quantile. */
START_TEST(test_distribution)
{
    const struct sampler_params plain = {.temperature = 0.7f, .seed = 21};
    const struct sampler_params cut = {.temperature = 0.7f, .top_k = 8, .seed = 22};
    double p[8];
    for (int which = 0; which < 2; which++) {
        double counts[8] = {0};
        double total = 0;
        double chi = 0;
        for (size_t i = 0; i < 8; i++)
            total += p[i] = exp((double)logits[i] / 5.0 / 0.7);
        float few[8];
        for (size_t i = 0; i < 8; i++)
            few[i] = logits[i] / 5.0f;
        for (uint64_t n = 0; n < DRAWS; n++)
            counts[sampler_pick(which ? &cut : &plain, n, few, 8, scratch)] += 1;
        for (size_t i = 0; i < 8; i++) {
            const double expected = DRAWS * p[i] / total;
            chi += (counts[i] - expected) * (counts[i] - expected) / expected;
        }
        ck_assert_double_lt(chi, 24.3);
    }
}
END_TEST

/* Each rule by itself, written out; and order: repetition before what is taken off. */
START_TEST(test_penalties)
{
    static uint32_t seen[(COUNT + 31) / 32];
    const uint32_t history[] = {5, 7, 5, 999, 5, COUNT + 4, UINT32_MAX};
    const struct sampler_params kinds[] = {
        {.repetition = 1.5f},
        {.presence = 0.7f},
        {.frequency = 0.25f},
        {.repetition = 2.0f, .presence = -0.5f, .frequency = 0.125f},
    };
    static const struct sampler_params off = {.repetition = 1.0f};
    ck_assert(!sampler_has_penalties(&off));
    for (size_t k = 0; k < 4; k++) {
        float got[COUNT];
        memcpy(got, logits, sizeof(got));
        got[5] = 2.0f;
        got[7] = -2.0f;
        ck_assert(sampler_has_penalties(&kinds[k]));
        sampler_penalise(&kinds[k], history, 7, got, COUNT, seen);
        for (uint32_t i = 0; i < COUNT; i++) {
            const float times = i == 5 ? 3.0f : i == 7 || i == 999 ? 1.0f : 0.0f;
            const float was = i == 5 ? 2.0f : i == 7 ? -2.0f : logits[i];
            const float factor = kinds[k].repetition > 0 && times > 0 ? kinds[k].repetition : 1.0f;
            float wanted = was > 0 ? was / factor : was * factor;
            wanted -= times > 0 ? kinds[k].presence : 0.0f;
            wanted -= times * kinds[k].frequency;
            ck_assert_float_eq_tol(got[i], wanted, 1e-6f);
        }
    }
    for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
        ck_assert_uint_eq(seen[i], 0);
}
END_TEST

START_TEST(test_probabilities)
{
    struct sampler_candidate best[20];
    double sum = 0;
    double total = 0;
    for (size_t i = 0; i < COUNT; i++)
        sum += exp((double)logits[i]);
    const struct sampler_scale scale = sampler_scale_of(logits, COUNT);
    for (uint32_t i = 0; i < COUNT; i++) {
        const double got = sampler_log_probability(&scale, logits[i]);
        ck_assert_double_eq_tol(got, (double)logits[i] - log(sum), 1e-6);
        total += exp(got);
    }
    ck_assert_double_eq_tol(total, 1.0, 1e-6);
    float odd[4] = {1.0f, NAN, -INFINITY, 1.0f};
    const struct sampler_scale two = sampler_scale_of(odd, 4);
    ck_assert_double_eq_tol(sampler_log_probability(&two, odd[3]), -log(2), 1e-9);
    ck_assert(isinf(sampler_log_probability(&two, odd[1])) &&
              isinf(sampler_log_probability(&two, odd[2])));
    ck_assert_uint_eq(sampler_likeliest(odd, 4, best, 20), 2);
    ck_assert(best[0].id == 0 && best[1].id == 3);
    ck_assert_uint_eq(sampler_likeliest(logits, COUNT, best, 20), 20);
    for (size_t i = 0; i < 20; i++) {
        size_t above = 0;
        for (size_t j = 0; j < COUNT; j++)
            above += logits[j] > best[i].weight;
        ck_assert_uint_eq(above, i);
    }
    ck_assert_uint_eq(sampler_likeliest(logits, COUNT, best, 0), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, test_philox);
    tcase_add_test(tcase, test_uniform);
    tcase_add_test(tcase, test_greedy);
    tcase_add_test(tcase, test_not_numbers);
    tcase_add_test(tcase, test_resumable);
    tcase_add_test(tcase, test_top_k);
    tcase_add_test(tcase, test_top_p);
    tcase_add_test(tcase, test_top_k_then_p);
    tcase_add_test(tcase, test_min_p);
    tcase_add_test(tcase, test_distribution);
    tcase_add_test(tcase, test_penalties);
    tcase_add_test(tcase, test_probabilities);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
