/* SPDX-License-Identifier: Apache-2.0 */
/*
 * telemetry.h - the node's figures on DPDK's telemetry socket, for dpdk-telemetry.py and monitoring
 * agents that speak it: EAL's runtime folder, file dpdk_telemetry.v2.
 *
 *   /weft/counters           of all lcores together (metrics.def)
 *   /weft/drops              by reason (drops.def)
 *   /weft/stages             <stage>/p50_ns, /p99_ns, /samples
 *   /weft/lcores             numbers; /weft/lcore,N: one of them
 *   /weft/members            names; /weft/member,NAME: one of them
 *
 * Threads: the hooks are called by a thread of EAL's and may read only what is atomic; members are
 * copied in by telemetry_members(). Everything else by one thread, between nic_create() and
 * nic_destroy().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TELEMETRY_NAME_MAX 32u

typedef void (*telemetry_emit)(void *out, const char *name, uint64_t value);

struct telemetry_stage {
    const char *name;
    uint64_t p50_ns;
    uint64_t p99_ns;
    uint64_t samples;
};
typedef void (*telemetry_stage_emit)(void *out, const struct telemetry_stage *stage);

/* Each calls `emit` with `out` once per figure. None may be NULL. */
struct telemetry_hooks {
    uint32_t lcores;
    void (*counters)(telemetry_emit emit, void *out, void *user);
    void (*drops)(telemetry_emit emit, void *out, void *user);
    void (*lcore)(uint32_t lcore, telemetry_emit emit, void *out, void *user);
    void (*stages)(telemetry_stage_emit emit, void *out, void *user);
    void *user;
};

struct telemetry_member {
    char name[TELEMETRY_NAME_MAX];
    uint32_t id;
    uint32_t tier;
    bool alive;
    uint32_t rtt_us;
    uint32_t room;
    uint32_t queue_us;
};

/* Registers the commands; `hooks` is copied. A second start replaces the first. Returns 0 or
 * -errno. */
int telemetry_start(const struct telemetry_hooks *hooks);

/* The hooks are not called any more once it returns; the commands then answer nothing. */
void telemetry_stop(void);

/* The members as they are now, copied. Without memory the list is empty. */
void telemetry_members(const struct telemetry_member *members, uint32_t count);
