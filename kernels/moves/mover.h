/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mover.h - the moving of sessions to and from one loaded model: threads that fetch pages from
 * other nodes for jobs that wait (serving.c), and one that takes calls of workers which ask
 * (gives.h). Between runner.h and talk.h, door.h.
 *
 * No job waits for longer than MOVER_FIRST_NS for its first page, nor for longer in all than its
 * prompt is predicted to take to compute (MOVER_LEAST_NS at least), nor beyond its deadline.
 * Whoever says nothing for so long is not asked again for MOVER_SILENT_NS.
 *
 * Threads: all calls by one thread, which is none of its own. Errors: negative errno.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/moves/pull.h"
#include "kernels/runner.h"
#include "schemas/base/clock.h"

#define MOVER_PULLS_MAX 16u             /* under way and waiting */
#define MOVER_FIRST_NS  (3 * NS_PER_S)  /* clients take 5 s without a sign for a fault */
#define MOVER_LEAST_NS  (1 * NS_PER_S)  /* a pull has, however soon prefill would be done */
#define MOVER_SILENT_NS (30 * NS_PER_S) /* a node that said nothing is left alone */

struct mover;

struct mover_options {
    const char *socket_path; /* the node's port; must live on */
    uint32_t model;          /* weft_model_id() */
    struct pull_kind kind;
    runner_t *runner; /* must outlive the mover; is woken when a pull is over */
};

int mover_create(struct mover **out, const struct mover_options *options);
/* Ends what is under way. NULL is fine. */
void mover_destroy(struct mover *mover);

/* Are so many pages worth asking for, at this speed of prefill? */
bool mover_pays(struct mover *mover, uint32_t pages, double prefill_per_second);

/* Fetches what the node has of this prompt (tokens are copied) and is not known here. Returns 0,
 * and mover_take() will tell, or -EBUSY, -ENOMEM, -EHOSTDOWN for a node that said nothing. */
int mover_pull(struct mover *mover, uint64_t id, uint16_t node, const uint32_t *tokens,
               uint32_t count, double prefill_per_second, uint64_t deadline_ns);

struct mover_result {
    uint64_t id;
    int rc; /* 0, or why not all of it came; -ENODATA: nothing was there */
    uint16_t node;
    uint32_t pages; /* that came */
    uint64_t took_ns;
};

/* The next one that is over. */
bool mover_take(struct mover *mover, struct mover_result *out);

/* Changes while pages come. */
uint32_t mover_progress(const struct mover *mover);
