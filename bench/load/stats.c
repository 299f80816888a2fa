/* SPDX-License-Identifier: Apache-2.0 */
/* stats.c - see stats.h. */
#include "bench/load/stats.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"

#define ROUNDS     400u
#define WORK_MAX   (UINT64_C(100) << 20) /* draws in all; fewer rounds beyond */
#define ROUNDS_MIN 50u
#define BATCH      5u /* MSER-5 */
#define GAPS_MIN   8u
#define KPSS_MIN   16u

int stats_compare(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;
    return (*x > *y) - (*x < *y);
}

/* Index of the quantile among `count` (not 0) sorted samples. */
static uint32_t rank_of(uint32_t count, double q)
{
    /* The nearest double of q may be a little high: 0.999 of 1,000 is the 999th. */
    double at = ceil(q * (double)count * (1.0 - 1e-12)) - 1.0;
    return at <= 0 ? 0 : at >= (double)count ? count - 1 : (uint32_t)at;
}

double stats_quantile(const double *sorted, uint32_t count, double q)
{
    return count == 0 ? 0 : sorted[rank_of(count, q)];
}

bool stats_enough(uint32_t count, double q)
{
    return (double)count * (1.0 - q) >= STATS_TAIL_SAMPLES * (1.0 - 1e-9);
}

/* ---- bootstrap ---- */

struct boot {
    uint32_t count;
    uint32_t *place; /* of each sample, in order of time, among the sorted ones */
    uint32_t *drawn; /* how often each sorted one was */
    double *sorted;
    double *results; /* [quantile][round] */
};

struct placed {
    double value;
    uint32_t at;
};

static int compare_placed(const void *a, const void *b)
{
    const struct placed *x = a;
    const struct placed *y = b;
    return (x->value > y->value) - (x->value < y->value);
}

static void boot_deinit(struct boot *b)
{
    free(b->place);
    free(b->drawn);
    free(b->sorted);
    free(b->results);
}

static int boot_init(struct boot *b, const double *values, uint32_t count, size_t results)
{
    struct placed *placed = malloc(count * sizeof(*placed));
    *b = (struct boot){.count = count,
                       .place = malloc(count * sizeof(uint32_t)),
                       .drawn = malloc(count * sizeof(uint32_t)),
                       .sorted = malloc(count * sizeof(double)),
                       .results = malloc(results * sizeof(double))};
    if (placed == NULL || b->place == NULL || b->drawn == NULL || b->sorted == NULL ||
        b->results == NULL) {
        free(placed);
        boot_deinit(b);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < count; i++) {
        placed[i] = (struct placed){values[i], i};
    }
    qsort(placed, count, sizeof(*placed), compare_placed);
    for (uint32_t i = 0; i < count; i++) {
        b->sorted[i] = placed[i].value;
        b->place[placed[i].at] = i;
    }
    free(placed);
    return 0;
}

/* One resample: as many as there are, in blocks that go round. */
static void boot_draw(struct boot *b, struct rng *rng, uint32_t block)
{
    memset(b->drawn, 0, b->count * sizeof(*b->drawn));
    for (uint32_t done = 0; done < b->count;) {
        uint32_t at = rng_below(rng, b->count);
        for (uint32_t i = 0; i < block && done < b->count; i++, done++) {
            b->drawn[b->place[at]]++;
            at = at + 1 == b->count ? 0 : at + 1;
        }
    }
}

static double boot_quantile(const struct boot *b, double q)
{
    uint32_t need = rank_of(b->count, q) + 1;
    uint32_t seen = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        seen += b->drawn[i];
        if (seen >= need) {
            return b->sorted[i];
        }
    }
    return b->sorted[b->count - 1];
}

int stats_bootstrap(const double *values, uint32_t count, const double *q, uint32_t quantiles,
                    uint64_t seed, struct stats_interval *out)
{
    struct boot b;
    struct rng rng = {.state = seed};
    memset(out, 0, quantiles * sizeof(*out));
    if (count == 0) {
        return 0;
    }
    uint64_t rounds = WORK_MAX / count;
    rounds = rounds > ROUNDS ? ROUNDS : rounds < ROUNDS_MIN ? ROUNDS_MIN : rounds;
    int rc = boot_init(&b, values, count, (size_t)rounds * quantiles);
    if (rc != 0) {
        return rc;
    }
    uint32_t block = (uint32_t)ceil(cbrt((double)count));
    for (uint32_t r = 0; r < rounds; r++) {
        boot_draw(&b, &rng, block);
        for (uint32_t k = 0; k < quantiles; k++) {
            b.results[k * rounds + r] = boot_quantile(&b, q[k]);
        }
    }
    for (uint32_t k = 0; k < quantiles; k++) {
        double *results = b.results + k * rounds;
        qsort(results, rounds, sizeof(double), stats_compare);
        out[k].low = stats_quantile(results, (uint32_t)rounds, 0.025);
        out[k].high = stats_quantile(results, (uint32_t)rounds, 0.975);
    }
    boot_deinit(&b);
    return 0;
}

/* ---- checks ---- */

double stats_exponential(double *gaps, uint32_t count)
{
    double sum = 0, total = 0;
    if (count < GAPS_MIN) {
        return 0;
    }
    qsort(gaps, count, sizeof(double), stats_compare);
    for (uint32_t i = 0; i < count; i++) {
        total += gaps[i];
    }
    const double n = count, mean = total / n;
    for (uint32_t i = 0; i < count; i++) {
        /* A gap of 0 has probability 0; clocks have it all the same. */
        double low = gaps[i] > 0 ? gaps[i] / mean : 1e-12;
        sum += (2.0 * i + 1.0) * (log(-expm1(-low)) - gaps[count - 1 - i] / mean);
    }
    return (-n - sum / n) * (1.0 + 0.6 / n);
}

double stats_kpss(const double *values, uint32_t count)
{
    if (count < KPSS_MIN) {
        return 0;
    }
    const double n = count;
    double mean = 0, partial = 0, squares = 0, variance = 0;
    for (uint32_t i = 0; i < count; i++) {
        mean += values[i] / n;
    }
    for (uint32_t i = 0; i < count; i++) {
        double e = values[i] - mean;
        partial += e;
        squares += partial * partial;
        variance += e * e;
    }
    const uint32_t lags = (uint32_t)(4.0 * pow(n / 100.0, 0.25));
    for (uint32_t lag = 1; lag <= lags && lag < count; lag++) {
        double sum = 0;
        for (uint32_t i = lag; i < count; i++) {
            sum += (values[i] - mean) * (values[i - lag] - mean);
        }
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * sum;
    }
    return variance > 0 ? squares / n / variance : 0;
}

uint32_t stats_warmup(const double *values, uint32_t count)
{
    const uint32_t batches = count / BATCH;
    double sum = 0, squares = 0, best = INFINITY;
    uint32_t best_at = 0;
    /* From the end, so that each cut costs O(1). */
    for (uint32_t left = 1; left <= batches; left++) {
        double mean = 0;
        for (uint32_t i = 0; i < BATCH; i++) {
            mean += values[(batches - left) * BATCH + i] / BATCH;
        }
        sum += mean;
        squares += mean * mean;
        if (left * 2 >= batches) {
            double error = (squares - sum * sum / left) / ((double)left * left);
            if (error <= best) {
                best = error;
                best_at = batches - left;
            }
        }
    }
    return best_at * BATCH;
}

double stats_slope(const double *x, const double *y, uint32_t count)
{
    double mean_x = 0, mean_y = 0, xy = 0, xx = 0;
    for (uint32_t i = 0; i < count; i++) {
        mean_x += x[i] / count;
        mean_y += y[i] / count;
    }
    for (uint32_t i = 0; i < count; i++) {
        xy += (x[i] - mean_x) * (y[i] - mean_y);
        xx += (x[i] - mean_x) * (x[i] - mean_x);
    }
    return xx > 0 ? xy / xx : 0;
}
