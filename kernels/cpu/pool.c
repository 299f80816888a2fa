/* SPDX-License-Identifier: Apache-2.0 */
/* Fork and join on two counters: `generation` rises when there is work, `pending` falls to zero
 * when it is done. Both are futexes. */
#include "kernels/cpu/pool.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "schemas/base/slice.h"

/* Pauses before sleeping: some microseconds, about what waking a thread costs. */
#define POOL_SPINS 400u

struct pool_thread {
    struct pool *pool;
    pthread_t thread;
    uint32_t index;
};

struct pool {
    uint32_t count;
    uint32_t started; /* entries of `threads` that run */
    pool_fn fn;
    void *arg;
    bool stop;
    _Alignas(64) _Atomic uint32_t generation;
    _Atomic uint32_t sleepers;
    _Alignas(64) _Atomic uint32_t pending;
    struct pool_thread threads[];
};

static void futex_wait(_Atomic uint32_t *word, uint32_t value)
{
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void cpu_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static uint32_t next_generation(struct pool *pool, uint32_t seen)
{
    for (uint32_t i = 0; i < POOL_SPINS; i++) {
        uint32_t now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen)
            return now;
        cpu_pause();
    }
    for (;;) {
        /* Sequentially consistent on both sides: either pool_run() sees the sleeper, or the wait
         * sees the new generation. */
        atomic_fetch_add(&pool->sleepers, 1);
        futex_wait(&pool->generation, seen);
        atomic_fetch_sub(&pool->sleepers, 1);
        uint32_t now = atomic_load(&pool->generation);
        if (now != seen)
            return now;
    }
}

static void *thread_main(void *arg)
{
    struct pool_thread *self = arg;
    struct pool *pool = self->pool;
    uint32_t seen = 0;
    slice_usual();
    for (;;) {
        seen = next_generation(pool, seen);
        if (pool->stop)
            return NULL;
        pool->fn(pool->arg, self->index, pool->count);
        if (atomic_fetch_sub_explicit(&pool->pending, 1, memory_order_acq_rel) == 1)
            futex_wake(&pool->pending);
    }
}

static void pool_wake(struct pool *pool)
{
    atomic_fetch_add(&pool->generation, 1);
    if (atomic_load(&pool->sleepers))
        futex_wake(&pool->generation);
}

int pool_create(struct pool **out, uint32_t threads)
{
    *out = NULL;
    if (threads == 0 || threads > POOL_THREADS_MAX)
        return -EINVAL;
    size_t size = sizeof(struct pool) + (size_t)threads * sizeof(struct pool_thread);
    struct pool *pool = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!pool)
        return -ENOMEM;
    *pool = (struct pool){.count = threads};
    for (uint32_t i = 0; i + 1 < threads; i++) {
        struct pool_thread *thread = &pool->threads[i];
        thread->pool = pool;
        thread->index = i + 1;
        int rc = pthread_create(&thread->thread, NULL, thread_main, thread);
        if (rc) {
            pool_destroy(pool);
            return -rc;
        }
        pool->started++;
    }
    *out = pool;
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    pool_wake(pool);
    for (uint32_t i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i].thread, NULL);
    free(pool);
}

uint32_t pool_threads(const struct pool *pool)
{
    return pool->count;
}

void pool_run(struct pool *pool, pool_fn fn, void *arg)
{
    if (pool->count == 1) {
        fn(arg, 0, 1);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    atomic_store_explicit(&pool->pending, pool->count - 1, memory_order_relaxed);
    pool_wake(pool);
    fn(arg, 0, pool->count);
    for (uint32_t i = 0; i < POOL_SPINS; i++) {
        if (atomic_load_explicit(&pool->pending, memory_order_acquire) == 0)
            return;
        cpu_pause();
    }
    uint32_t left;
    while ((left = atomic_load_explicit(&pool->pending, memory_order_acquire)) != 0)
        futex_wait(&pool->pending, left);
}
