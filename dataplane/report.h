/* SPDX-License-Identifier: Apache-2.0 */
/*
 * report.h - the packet path's figures for those who ask: as JSON for the status answer (glue.c)
 * and on DPDK's telemetry socket (nic/telemetry.h). Reads what the lcores write, never more than
 * atomics.
 */
#pragma once

#include <jansson.h>

#include "controlplane/maps/members.h"
#include "dataplane/core.h"

struct report {
    struct core *const *cores;
    uint32_t count;
};

/* Adds counters, drops, lcores and stages to the status answer. */
void report_status(const struct report *report, json_t *status);

/* Puts the figures on the telemetry socket; `report` must stay. Returns 0 or -errno. */
int report_start(const struct report *report);
void report_stop(void);

/* The members as they are now, for telemetry. */
void report_members(const struct members *members);
