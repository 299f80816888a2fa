/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.h - what can be said about samples, and how surely. Pure: arrays in, numbers out; equal
 * seeds give equal intervals. INFINITY is a sample like any other: what was lost. Used by account.c
 * and bench/compare.c.
 *
 * Sources: nearest-rank quantiles (Hyndman and Fan 1996, definition 1); circular block bootstrap
 * (Politis and Romano 1992); Anderson-Darling for the exponential with unknown mean (Stephens
 * 1974); KPSS (Kwiatkowski, Phillips, Schmidt and Shin 1992); MSER-5 (White 1997).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Beyond these the hypothesis is rejected: one good run in a hundred is, too. */
#define STATS_AD_LIMIT   1.959 /* times (1 + 0.6 / n) is in the figure */
#define STATS_KPSS_LIMIT 0.739
/* The fewest samples that say something of a quantile q: this many over 1 - q. */
#define STATS_TAIL_SAMPLES 100.0

struct stats_interval {
    double low, high;
};

int stats_compare(const void *a, const void *b); /* of doubles, for qsort */

/* Of `sorted` samples the least that a fraction `q` (0..1) of them does not exceed; 0 if none. */
double stats_quantile(const double *sorted, uint32_t count, double q);
/* Are there STATS_TAIL_SAMPLES / (1 - q)? */
bool stats_enough(uint32_t count, double q);

/*
 * 95 % intervals of quantiles. `values` in the order of time: blocks of neighbours are drawn
 * together, n^(1/3) long, so that what neighbours have in common is not taken for certainty.
 * Returns 0 or -ENOMEM.
 */
int stats_bootstrap(const double *values, uint32_t count, const double *q, uint32_t quantiles,
                    uint64_t seed, struct stats_interval *out);

/* Anderson-Darling's A2 (1 + 0.6 / n) of gaps against the exponential of their mean; sorts them.
 * 0 below 8 gaps. */
double stats_exponential(double *gaps, uint32_t count);

/* The KPSS statistic about a level: large if a series has a trend or a step. 0 below 16. */
double stats_kpss(const double *values, uint32_t count);

/* How many samples at the beginning MSER-5 would leave out: those without which the mean of the
 * rest is known best. At most half of them, which means: never became steady. */
uint32_t stats_warmup(const double *values, uint32_t count);

/* Slope of y over x by least squares; 0 if x does not vary. */
double stats_slope(const double *x, const double *y, uint32_t count);
