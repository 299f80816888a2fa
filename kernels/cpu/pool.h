/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pool.h - a few threads that do one thing together, many times a token. Used by this backend only.
 *
 * pool_run() calls a function once per thread, the caller's thread included, and returns when all
 * are done. Idle threads wait a few microseconds for the next call, then sleep on a futex: an idle
 * backend costs nothing. No thread is pinned. With one thread there is no pool at all.
 *
 * Threads: one caller at a time. Errors: negative errno.
 */
#pragma once

#include <stdint.h>

#define POOL_THREADS_MAX 256u

struct pool;

typedef void (*pool_fn)(void *arg, uint32_t index, uint32_t count);

/* `threads` counts the caller's; 1..POOL_THREADS_MAX. Heap; pool_destroy(). */
int pool_create(struct pool **out, uint32_t threads);

/* NULL is fine. Not from inside pool_run(). */
void pool_destroy(struct pool *pool);

uint32_t pool_threads(const struct pool *pool);

/* fn(arg, index, count) for every index below count = pool_threads(). What the caller wrote before
 * is visible to all; what they wrote is visible to the caller afterwards. */
void pool_run(struct pool *pool, pool_fn fn, void *arg);
