/* SPDX-License-Identifier: Apache-2.0 */
/*
 * serving.h - one model of a worker as its clients see it: takes and cancels jobs (weft/worker.h),
 * hands out tokens, says how loaded it is. While the model is not loaded jobs wait here, in the
 * order they came, for as long as their deadlines allow; library.h loads it. Between worker.c and
 * host.h, runner.h.
 *
 * A job of a session that another node has served before waits, too, while what that node knows of
 * its prompt is fetched from there, if that is predicted to take less time than prefill (moves/).
 * Whatever goes wrong with it, the job then begins here as if nobody had been asked.
 *
 * Threads: the main thread's; while the model is loading or leaving, `host` is the loader's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <weft/wire.h>
#include <weft/worker.h>

#include "kernels/host.h"
#include "kernels/runner.h"

struct parked;
struct kept;
struct mover;

/* What is known of a model from its first time on, loaded or not. */
struct serving_facts {
    char backend[WEFT_BACKEND_MAX];
    uint32_t context;
    uint32_t slots;
    uint32_t capacity; /* requests it holds, running and waiting */
    uint64_t bytes;    /* when loaded */
    struct engine_speeds speeds;
    uint64_t kept_as;    /* keep_model(); 0 = not looked at */
    uint32_t arithmetic; /* host_arithmetic() */
};

struct serving {
    const char *name;
    struct host_options options; /* sizes are fixed by the first time */
    struct serving_facts facts;
    const char *port_path; /* the node's port socket; NULL: no session moves */
    weft_worker_t *port;   /* NULL: nobody to give tokens to */
    bool draining;         /* takes no jobs */

    struct host host;
    runner_t *runner;       /* NULL: not loaded */
    struct mover *mover;    /* NULL: not loaded, or its pages cannot move */
    bool taking;            /* jobs may go to the runner */
    uint64_t wait_ns;       /* until it is loaded, as predicted */
    struct engine_load now; /* as of the last serving_load(); zero while it is not loaded */
    uint32_t open;          /* jobs in the runner */
    uint64_t used_ns;       /* when one came or ended last */

    TAILQ_HEAD(, parked) parked;
    uint32_t parked_count;
    TAILQ_HEAD(, parked) pulling; /* their pages are being fetched */
    uint32_t pulling_count;
    uint64_t pulls; /* ever: the latest one's number */
    LIST_HEAD(, kept) kept;
    char *text;        /* scratch of one token */
    bool load_changed; /* since serving_load() */
};

void serving_init(struct serving *s, const char *name, const struct host_options *options,
                  const char *port_path);
void serving_deinit(struct serving *s);

/* The host is open: facts are taken from it, and with the runner it is loaded. Returns 0 or
 * -errno. */
int serving_begin(struct serving *s);
/* The opposite, without jobs in the runner; the host is still open. What has been learned stays. */
void serving_end(struct serving *s);

/* For weft_worker_callbacks_t; `user` is the serving. */
int serving_on_job(weft_worker_t *port, weft_job_t *job, const weft_job_view_t *view, void *user);
void serving_on_cancel(weft_worker_t *port, weft_job_t *job, void *user);

/* Hands out what the runner has, gives it the jobs that wait, ends those that have waited too
 * long. */
void serving_work(struct serving *s, uint64_t now_ns);

/* The model cannot be loaded: those who wait are told. */
void serving_fail_parked(struct serving *s, int status);

/* The port goes: all jobs are forgotten, nobody is told. */
void serving_drop_all(struct serving *s);

/* When the oldest job that waits has come; 0 if none does. */
uint64_t serving_waiting_ns(const struct serving *s);

bool serving_is_idle(const struct serving *s);

weft_load_t serving_load(struct serving *s);
/* As of the last serving_load(). */
weft_worker_figures_t serving_figures(const struct serving *s);
weft_worker_facts_t serving_port_facts(const struct serving *s);
