/* SPDX-License-Identifier: Apache-2.0 */
/*
 * prefix_sim.h - a recorded trace of prompts that begin alike, placed by routers that hear of the
 * workers' caches late. Pure: no clock, no I/O. What Weft does is the packet path's own code
 * (route_choose(), prefixes_steer()); the others are what it is compared with. Used by prefixes.c.
 *
 * The model: workers of one site, each computes one prompt after another, as much of it as its
 * cache does not know, `prefill_tps` tokens a second, and gives answers beside that, `decode_tps`
 * tokens a second each. A cache knows the blocks that were computed last. Requests come to the
 * routers in turn. A router hears a worker's wait when it accepts a request and while it answers
 * one of that router's, one hop late; everybody hears it, and what SERVE_PREFIXES prompts taken
 * last began with, every `gossip_ns`.
 */
#pragma once

#include <stdint.h>

#include "bench/load/trace.h"
#include "schemas/base/hist.h"

enum prefix_policy {
    PREFIX_TURNS,   /* round robin */
    PREFIX_UNTOLD,  /* Weft with requests that do not tell how their prompt begins */
    PREFIX_LONGEST, /* always who has the most of it, whatever its wait */
    PREFIX_WEFT,
    PREFIX_POLICIES
};

struct prefix_options {
    enum prefix_policy policy;
    uint32_t workers, routers;
    uint32_t prefill_tps, decode_tps;
    uint32_t cache_blocks; /* of a worker; 0 = all */
    double speed;          /* of the trace: 2 = twice as fast */
    uint64_t gossip_ns, hop_ns;
};

#define PREFIX_WORKERS_MAX 256u
#define PREFIX_ROUTERS_MAX 64u

struct prefix_result {
    struct hist first_us; /* until the first token */
    uint64_t tokens;      /* of prompts */
    uint64_t known;       /* of them, in the worker's cache */
    uint64_t ceiling;     /* of them, seen before by anybody */
    double requests_most; /* at one worker, against the mean */
    double work_most;     /* tokens computed, the same */
    double busy;          /* share of the time that workers computed prompts */
};

/* Returns 0, -ENOMEM or -EINVAL (no worker, ..., no blocks in the trace). */
int prefix_sim_run(const struct prefix_options *options, const struct trace *trace,
                   struct prefix_result *result);

const char *prefix_policy_name(enum prefix_policy policy);
