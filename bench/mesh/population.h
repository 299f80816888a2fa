/* SPDX-License-Identifier: Apache-2.0 */
/*
 * population.h - who is in a simulated mesh and what is asked of it, all from a seed: machines in
 * cities whose sizes follow Zipf's law, tiers and memory, models by popularity, tags by longitude;
 * queries from a machine's own place (local), from anywhere (global), or half and half (mixed).
 */
#pragma once

#include <stdint.h>

#include "controlplane/zones/record.h"
#include "schemas/base/geo.h"
#include "schemas/base/rng.h"

#define POPULATION_CITIES 213u
#define POPULATION_MODELS 64u

enum population_workload {
    POPULATION_LOCAL,
    POPULATION_MIXED,
    POPULATION_GLOBAL,
    POPULATION_WORKLOADS
};
extern const char *const population_workload_names[POPULATION_WORKLOADS];

struct population {
    struct rng rng;
    double lat[POPULATION_CITIES], lon[POPULATION_CITIES];
    double city_upto[POPULATION_CITIES];  /* cumulative share of machines */
    double model_upto[POPULATION_MODELS]; /* cumulative popularity */
    uint32_t models[POPULATION_MODELS];
};

void population_init(struct population *population, uint64_t seed);

/* Draws machine `node`. */
struct zone_record population_machine(struct population *population, uint32_t node);
/* What changes from second to second. */
void population_load(struct population *population, struct zone_record *record);
/* A query of a workload asked by `asker`; `filters`: also radius, tags, tiers and memory. */
struct zone_query population_query(struct population *population, const struct zone_record *asker,
                                   enum population_workload workload, bool filters);
/* Where a machine is. */
struct geo_point population_place(const struct zone_record *record);
