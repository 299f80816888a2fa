/* SPDX-License-Identifier: Apache-2.0 */
/* See apart.h. */
#include "apart.h"

#include <math.h>

/* Logarithm of the sum of exponentials, by the largest. */
static double log_sum(const float *x, size_t count, size_t *best)
{
    double sum = 0.0;
    *best = 0;
    for (size_t i = 1; i < count; i++)
        *best = x[i] > x[*best] ? i : *best;
    for (size_t i = 0; i < count; i++)
        sum += exp((double)x[i] - (double)x[*best]);
    return (double)x[*best] + log(sum);
}

void apart_add(struct apart *a, const float *wanted, const float *got, size_t vocab)
{
    size_t best;
    size_t other;
    const double all = log_sum(wanted, vocab, &best);
    const double other_all = log_sum(got, vocab, &other);
    double mean = 0.0;
    double kl = 0.0;
    for (size_t i = 0; i < vocab; i++)
        mean += (double)wanted[i] / (double)vocab;
    for (size_t i = 0; i < vocab; i++) {
        const double apart = fabs((double)wanted[i] - (double)got[i]);
        const double p = (double)wanted[i] - all;
        kl += exp(p) * (p - ((double)got[i] - other_all));
        a->max_abs = apart <= a->max_abs ? a->max_abs : isnan(apart) ? INFINITY : apart;
        a->squares += ((double)wanted[i] - mean) * ((double)wanted[i] - mean);
    }
    kl = isnan(kl) ? INFINITY : fmax(kl, 0.0); /* rounding */
    a->kl_sum += kl;
    a->kl_max = fmax(a->kl_max, kl);
    a->same += best == other;
    a->positions++;
    a->logits += vocab;
}

double apart_kl(const struct apart *a)
{
    return a->kl_sum / (double)a->positions;
}

double apart_spread(const struct apart *a)
{
    return sqrt(a->squares / (double)a->logits);
}
