/* SPDX-License-Identifier: Apache-2.0 */
/*
 * drive.h - sends requests through the SDK, or by HTTP, and notes what happens to each. An open
 * loop sends when its schedule says, whatever has been answered; a closed one when an answer has
 * come. No figures here: account.h makes them of the notes.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <weft/client.h>

#include "bench/load/trace.h"
#include "schemas/base/hist.h"

#define DRIVE_REQUESTS_MAX 10000000u
#define DRIVE_NODES_MAX    64u
#define DRIVE_NODE_NONE    UINT16_MAX
#define DRIVE_GAPS_MAX     16000000u

struct drive_plan {
    weft_query_t query; /* model, limits, place; what every request has */
    const char *node;   /* as weft/client.h takes it, or http:// (http.h) */
    const char *prompt;
    uint32_t requests;
    uint32_t concurrency;      /* closed loop: open at a time ... */
    const uint64_t *due_ns;    /* ... NULL for that; else an open loop's times from the start */
    const struct trace *trace; /* NULL = all requests alike; else entry i % count is request i */
    double token_scale;        /* of the trace's lengths */
    uint64_t spin_ns;          /* so long before a request is due the thread no longer sleeps */
    bool progress;             /* lines on stderr */
    /* Not 0: no more requests are sent, and the run ends with the last that was. NULL = never. */
    const volatile sig_atomic_t *stop;
    const char *label; /* of those lines */
};

/* All times in ns from the start of the run. */
struct drive_sample {
    uint64_t due_ns;
    uint64_t sent_ns;
    uint64_t first_ns;  /* its datagram's arrival where that is known; 0 = no token came */
    uint64_t end_ns;    /* the same */
    uint64_t worker_ns; /* that the worker says it had it up to the first token; 0 = it does not */
    int32_t status;
    uint32_t tokens;
    uint16_t node; /* of drive.nodes */
    uint16_t failovers;
};

struct drive {
    struct drive_sample *samples;
    uint32_t sent, ended; /* samples are complete once both are equal: when the run is over */
    float *gaps_us;       /* between two pieces of text of one answer, in order of arrival */
    uint32_t gaps, gaps_capacity;
    char nodes[DRIVE_NODES_MAX][32];
    uint32_t node_count;
    double epoch_s;   /* when it started, seconds since 1970 */
    uint64_t took_ns; /* until the last ended */
    double cpu_s;     /* of this thread */
    struct hist
        woken_ns; /* from a datagram's arrival until this thread had it; SDK over UDP only */
};

/* Runs to the end. Heap: drive_deinit(), also after an error. Returns 0 or a negative errno or
 * status; what has been noted until then stays. */
int drive_run(struct drive *drive, const struct drive_plan *plan);
void drive_deinit(struct drive *drive);
