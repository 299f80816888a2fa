/* SPDX-License-Identifier: Apache-2.0 */
/*
 * figures.h - what every bench says about its numbers: quantiles of samples, and the machine that
 * they were taken on. A figure without its machine is worth nothing.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

/* Samples of one quantity. Once full, a new one replaces an old one at random (Vitter's reservoir),
 * so that the quantiles stay those of all samples. Heap; zero-filled is empty. */
struct series {
    double *values;
    uint32_t capacity;
    uint64_t seen;
    uint64_t lot; /* state of the reservoir's generator */
};

/* Returns 0 or -ENOMEM. */
int series_init(struct series *series, uint32_t capacity);
void series_deinit(struct series *series);
void series_add(struct series *series, double value);

/* Sorts; the value that a fraction `q` (0..1) of the samples does not exceed. 0 if there are none.
 */
double series_quantile(struct series *series, double q);

/* {"median":..., "p99":..., "samples":...}; a new reference. */
json_t *series_json(struct series *series);

/* Processor, cores, kernel, virtual or not; a new reference. */
json_t *machine_json(void);
/* The same in one line. */
void machine_print(void);

/* A number from `min` to `max`, or -1 if the text is not one. */
double figures_number(const char *text, double min, double max);

/* The monotonic clock. (schemas/base/clock.h and DPDK's headers define the same names.) */
uint64_t figures_now_ns(void);
