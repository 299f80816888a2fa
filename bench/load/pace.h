/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pace.h - jobs that get `x` as each token, all at the same pace, as many as they asked for. What a
 * runtime without a model does; shared by bench/toy.c (a worker at a node's port) and answerer.c
 * (no node at all). One thread; jobs are the SDK's (weft/worker.h).
 */
#pragma once

#include <stdint.h>
#include <sys/queue.h>
#include <weft/worker.h>

struct pace_job;

/* Zero is: all tokens at once, any number of jobs together, never still. */
struct pace_plan {
    uint64_t interval_ns; /* to the first token and between two */
    uint32_t slots;       /* jobs that get tokens at a time, the others wait in line; 0 = all */
    uint64_t stall_ns;    /* no tokens for that long ... */
    uint64_t every_ns;    /* ... at the end of each such period of the clock; 0 = never */
};

struct pace {
    struct pace_plan plan;
    TAILQ_HEAD(pace_queue, pace_job) queue; /* served, rising by their next token's time */
    struct pace_queue waiting;
    uint32_t open, served;
    uint64_t job_ns; /* the latest one took that long to serve */
};

void pace_init(struct pace *p, const struct pace_plan *plan);
/* Forgets all jobs, finishes none. */
void pace_deinit(struct pace *p);
/* Takes a job; to be called from on_job. Returns 0 or WEFT_E_MESH_FULL. */
int pace_add(struct pace *p, weft_job_t *job, const weft_job_view_t *view, uint64_t now_ns);
/* From on_cancel: the job is finished by the next pace_step(). */
void pace_cancel(struct pace *p, weft_job_t *job);
/* Emits what is due. */
void pace_step(struct pace *p, uint64_t now_ns);
/* How long a new job would wait for its turn, by guess. */
uint64_t pace_wait_ns(const struct pace *p);
/* When the next pace_step() has something to do; UINT64_MAX without jobs. */
uint64_t pace_due_ns(const struct pace *p, uint64_t now_ns);
