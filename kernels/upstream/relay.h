/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay.h - jobs of the node to servers and their answers back. One job has one call at a time;
 * servers are asked in the order of the configuration, the first one that has room; behind those
 * come registered ones (follow.h), which come and go: of them the one with the shortest wait.
 *
 * Until a job has text, any failure of a server sends it to the next one. Behind the first text it
 * goes on at another server only where body.h can tell that how; otherwise the job fails, the
 * client sees that, and may go on at another node (text.h). A job that no server here takes ends
 * with WEFT_E_WORKER_FAILED, which sends clients to the next candidate; one that a server refuses
 * for its own sake (no UTF-8, too long, censored) ends with that reason.
 *
 * Threads: one, the port's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <weft/worker.h>

#include "kernels/upstream/endpoint.h"
#include "kernels/upstream/text.h"

#define RELAY_SLOTS_MAX 1024u

struct relay;

struct relay_options {
    const struct endpoint_config *endpoints; /* in the order in which they are asked; copied */
    size_t endpoint_count;
    uint32_t slots;          /* jobs at a time */
    uint64_t first_ns;       /* longest wait for the first text */
    uint64_t silence_ns;     /* longest wait between two texts */
    bool local_only;         /* dial local addresses only */
    const struct text *text; /* must outlive the relay */
    uint64_t seed;
};

int relay_create(struct relay **relay, const struct relay_options *options);
/* Open jobs are dropped without a word. NULL is fine. */
void relay_destroy(struct relay *relay);

/* A registered server is there, or still there, with that load. `config` is copied; the first one
 * of an id counts unless its place has changed. Returns 0, -ENOSPC or -ENOMEM. */
int relay_put(struct relay *relay, const char *id, const struct endpoint_config *config,
              const struct endpoint_told *told);
/* Registered servers that were not put between the two are gone: what they were asked ends, nothing
 * new goes to them. */
void relay_mark(struct relay *relay);
void relay_sweep(struct relay *relay);
struct http *relay_http(struct relay *relay);

/* Takes a job; `view` must live as long as it. Returns 0 or the status to refuse it with. */
int relay_take(struct relay *relay, weft_job_t *job, const weft_job_view_t *view);
/* The client has gone: breaks the call off at once and finishes the job. */
void relay_cancel(struct relay *relay, weft_job_t *job);
/* The node has gone, and the jobs with it: nothing of theirs is touched any more. */
void relay_drop_all(struct relay *relay);

/* What has come, what is due. Then relay_timeout_ms() tells how long nothing will be. */
void relay_process(struct relay *relay);
int relay_fd(const struct relay *relay);
int relay_timeout_ms(const struct relay *relay);

bool relay_is_idle(const struct relay *relay);
/* Has every server been probed at least once? */
bool relay_is_known(const struct relay *relay);
void relay_load(const struct relay *relay, weft_load_t *load);
/* A line in the log for each server: answers, tokens, and what they cost where prices are known. */
void relay_log_account(const struct relay *relay);
