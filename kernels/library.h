/* SPDX-License-Identifier: Apache-2.0 */
/*
 * library.h - all models of a worker: shelf.h decides which of them are loaded, a loader thread
 * opens and closes them, serving.h serves each. The main thread never waits for either.
 *
 * Every model is loaded once at the start: that is how its facts are known, and that its file is
 * sound. What is loaded twice has the same sizes again, and
 * with a `kv_dir` the beginnings of prompts that it knew (keep.h).
 *
 * Threads: the main thread's.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/serving.h"
#include "kernels/shelf.h"

/* What the loader does, and what came of it. */
struct library_task {
    struct serving *serving; /* NULL: nothing to do */
    uint32_t index;
    bool is_load;
    const char *kv_dir; /* struct library */
    int rc;
    uint64_t took_ns;
    char why[256];
};

struct library {
    uint32_t count;
    struct serving servings[SHELF_MODELS_MAX];
    const char *kv_dir; /* where caches of models are kept that are not loaded; NULL: nowhere */
    struct shelf shelf;
    struct library_task task;
    pthread_t thread;
    int done_fd; /* readable when the task is done */
};

/* `names` and what `options` point to must live on. With more than one model, all of them together
 * may take `budget_bytes`; 0 = three quarters of what is free there. `port_path`: the node's port,
 * for sessions that move (serving.h), or NULL. Says on standard error what is
 * wrong. Returns 0 or -errno; library_close() in either case. */
int library_open(struct library *library, uint32_t count, const char *const *names,
                 const struct host_options *options, uint64_t budget_bytes, const char *kv_dir,
                 const char *port_path);
void library_close(struct library *library);

/* Goes on with everything: tokens, loading, unloading. */
void library_work(struct library *library);

/* Milliseconds until library_work() must be called even if nothing comes; -1 = never. */
int library_timeout_ms(const struct library *library);

bool library_is_idle(const struct library *library);
