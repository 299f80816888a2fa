/* SPDX-License-Identifier: Apache-2.0 */
/*
 * delay.h - how long a datagram takes from node to node: a constant, a measured matrix, or
 * great-circle distance times a stretch. vnet.h asks.
 *
 * Stretch: measured RTT over light in fibre there and back, at its quantiles p1, p10, p50, p90 and
 * p99 = 1.28, 1.50, 1.97, 3.39, 6.77 for pairs more than 500 km apart (213 cities, one day). A pair
 * keeps the stretch that the seed draws for it, the same both ways. Light in fibre: 204 km/ms.
 */
#pragma once

#include <stdint.h>

#include "schemas/base/geo.h"

#define DELAY_LOCAL_NS     UINT64_C(100000) /* one way between hosts of one place */
#define DELAY_FIBRE_KM_MS  204.0
#define DELAY_MATRIX_HOSTS 4096u

enum delay_kind { DELAY_CONSTANT, DELAY_MATRIX, DELAY_PLACES };

struct delay {
    enum delay_kind kind;
    uint64_t constant_ns;           /* DELAY_CONSTANT: one way */
    uint32_t hosts;                 /* DELAY_MATRIX: node n is host n modulo this */
    float *rtt_ms;                  /* DELAY_MATRIX: hosts * hosts, row after row; owned */
    const struct geo_point *places; /* DELAY_PLACES: one for each node; the caller's */
    uint64_t seed;                  /* DELAY_PLACES */
};

/* Reads a square of round-trip times in ms, as many numbers a line as there are lines; anything
 * not a number, negative or beyond 10 s is refused. Returns 0 (free it with delay_deinit()),
 * -errno of the file, -EINVAL or -ENOMEM. */
int delay_load_matrix(struct delay *delay, const char *path);

void delay_deinit(struct delay *delay);

/* One way, without jitter. */
uint64_t delay_ns(const struct delay *delay, uint32_t from, uint32_t to);
