/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim.h - a seeded discrete-event simulation of routers that place requests on workers with news
 * that is late. Pure: no clock, no I/O. The policy of Weft is the object code of route_choose();
 * the others are what it is compared with. Used by policies.c.
 *
 * The model: `routers` ingresses, `nodes` workers of one site with `slots` requests in service and
 * a first-come queue each, Poisson arrivals, each datagram takes `hop_ns`. A worker tells all
 * routers its load every `staleness_ns` (0: everyone always knows). GRANT and last reply carry the
 * worker's load too, to the one router they pass; only Weft uses it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schemas/base/hist.h"

enum sim_policy {
    SIM_RANDOM,
    SIM_ROUND_ROBIN,
    SIM_JBSQ,     /* least of the router's own, bounded; the rest waits at the router (R2P2) */
    SIM_SHORTEST, /* shortest queue, as gossiped */
    SIM_TWO,      /* two at random, the shorter of them as gossiped */
    SIM_WEFT,     /* route_choose(), its overlay, its second chance */
    SIM_POLICIES
};

enum sim_service { SIM_EXPONENTIAL, SIM_HEAVY, SIM_SERVICES };

/* Lognormal: the variance is e^(sigma^2) - 1 = 8.5 times the mean's square. */
#define SIM_HEAVY_SIGMA 1.5

struct sim_options {
    enum sim_policy policy;
    enum sim_service service;
    double load;           /* offered, of all slots: 0..1 */
    uint64_t staleness_ns; /* of gossip */
    uint64_t service_ns;   /* mean */
    uint64_t hop_ns;
    uint32_t nodes, slots, routers;
    uint32_t
        queue_max; /* requests that a worker lets wait; Weft only, the others' queues are long */
    uint32_t requests;
    uint64_t seed;
};

struct sim_result {
    struct hist us;         /* response times; the first tenth is left out */
    uint64_t refused;       /* times that a client was told to come back later */
    uint64_t second_chance; /* times that a full worker passed a request on */
};

/* Returns 0, -ENOMEM or -EINVAL. The same options give the same result. */
int sim_run(const struct sim_options *options, struct sim_result *result);

/* Does gossip matter to it? */
bool sim_policy_listens(enum sim_policy policy);
const char *sim_policy_name(enum sim_policy policy);
const char *sim_service_name(enum sim_service service);
