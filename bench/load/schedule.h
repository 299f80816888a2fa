/* SPDX-License-Identifier: Apache-2.0 */
/*
 * schedule.h - when each request of an open loop is due, drawn before the first is sent. Pure:
 * seed and plan decide everything. trace.h gives the recorded ones; drive.h sends.
 */
#pragma once

#include <stdint.h>

enum schedule_kind {
    SCHEDULE_POISSON, /* independent arrivals: exponential gaps */
    SCHEDULE_FIXED,   /* equal gaps */
    SCHEDULE_BURSTS,  /* Poisson while on, nothing while off; both last exponentially long */
    SCHEDULE_TRACE,   /* as recorded */
};

struct schedule_plan {
    enum schedule_kind kind;
    double rate; /* requests a second, mean over all time */
    double on_s; /* SCHEDULE_BURSTS: mean lengths */
    double off_s;
    uint64_t seed;
};

/* Writes `count` times in ns from the start, never falling. Not for SCHEDULE_TRACE. */
void schedule_draw(const struct schedule_plan *plan, uint64_t *due_ns, uint32_t count);
