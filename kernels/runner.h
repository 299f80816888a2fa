/* SPDX-License-Identifier: Apache-2.0 */
/*
 * runner.h - an engine on a thread of its own, so that the thread with the port answers while a
 * batch is computed. Between engine/engine.h and worker.c.
 *
 * One lock guards the engine, and its holder never computes: the runner's thread lets it go for
 * engine_run(). Submitting, cancelling and reading the load therefore take microseconds at any
 * time, and their answers are the engine's own. Events wait in a bounded queue; when that is full
 * the engine waits for who takes them. With nothing to do the thread sleeps.
 *
 * Threads: everything here but runner_visit(), runner_known() and runner_wake() belongs to one
 * thread, which must not be the runner's; those three are any other thread's. Signals should be
 * blocked when it is created, so that they go elsewhere. Errors: as engine.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/engine/engine.h"

typedef struct runner runner_t;

/* The engine must outlive the runner and belongs to it meanwhile. Returns 0, -ENOMEM, -errno. */
int runner_create(runner_t **out, engine_t *engine);

/* Stops what is running; its events are lost. NULL is fine. */
void runner_destroy(runner_t *runner);

/* As engine_submit(), engine_cancel(), engine_cancel_all(), engine_load(); times are of
 * schemas/base/clock.h. */
int runner_submit(runner_t *runner, const struct engine_request *request);
int runner_cancel(runner_t *runner, uint64_t id);
void runner_cancel_all(runner_t *runner);
void runner_load(runner_t *runner, struct engine_load *out);

/* Readable when events have come since runner_take() last found none left. Owned by the runner. */
int runner_fd(const runner_t *runner);

/* Takes the oldest events, `capacity` at most. Returns how many; fewer than `capacity` means that
 * none was left. */
size_t runner_take(runner_t *runner, struct engine_event *events, size_t capacity);

/* Has the runner's own thread call `fn` between two steps and waits for it. Streams wait meanwhile:
 * it should take a millisecond at most. Returns what `fn` does, or -ECANCELED when the runner ends.
 */
typedef int (*runner_visit_fn)(engine_t *engine, void *user);
int runner_visit(runner_t *runner, runner_visit_fn fn, void *user);

/* engine_chain_known(), at once. */
uint32_t runner_known(runner_t *runner, const uint32_t *tokens, uint32_t count);

/* Makes its descriptor readable: there is something to look at besides events. */
void runner_wake(runner_t *runner);

/* Nothing open and no event left to take. */
bool runner_is_idle(runner_t *runner);
