/* SPDX-License-Identifier: Apache-2.0 */
/* swim_sim.h - what swim_sim.c (the program) has its parts do. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sim_settings {
    uint64_t seed;
    uint32_t trials;
    uint32_t slow;
    uint64_t seconds;
    uint64_t pause_max_ms; /* of slow nodes */
    uint64_t delay_ns;     /* one way */
    double loss;
    uint64_t probe_interval_ns, suspect_min_ns, suspect_max_ns; /* 0: the defaults */
    bool verbose;
};

/* swim_figures.c: print one line. Return EXIT_SUCCESS or EXIT_FAILURE. */
int figures_detect(const struct sim_settings *settings, uint32_t nodes);
int figures_slow(const struct sim_settings *settings, uint32_t nodes);
int figures_back(const struct sim_settings *settings, uint32_t nodes);
int figures_heal(const struct sim_settings *settings, uint32_t nodes);

/* swim_life.c: one seed's life, of about `seconds`. */
struct life_result {
    uint64_t simulated_s; /* cluster-seconds */
    uint64_t fingerprint;
    uint64_t deaths; /* verdicts */
    double bytes_s_node;
    uint32_t nodes;
    char broken[200]; /* which invariant, "" = none */
};
void life_run(uint64_t seed, uint64_t seconds, bool verbose, struct life_result *result);
