/* SPDX-License-Identifier: Apache-2.0 */
/* The grid: blocks in turn, threads as fibers, and the places where they meet. */
#include "tests/emu/emu.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/emu/fiber.h"
#include "tests/emu/shared.h"

enum thread_state { RUNS = 0, AT_BARRIER, AT_COLLECTIVE, ENDED };

struct thread {
    struct emu_thread self; /* first: emu_self points here */
    struct fiber *fiber;
    enum thread_state state;
    const char *site; /* where it waits */
    uint32_t warp_epoch;
};

/* One collective at a time per warp; its result stays until the next one is complete. */
struct warp {
    uint32_t mask;    /* lanes that must come; 0 = none has come yet */
    uint32_t arrived; /* lanes that have */
    const char *site;
    size_t size;
    uint32_t epoch;
    uint8_t given[EMU_WARP * EMU_COLLECTIVE_MAX];
    uint8_t result[EMU_WARP * EMU_COLLECTIVE_MAX];
};

static struct thread threads[EMU_THREADS_MAX];
static struct warp warps[EMU_THREADS_MAX / EMU_WARP];
static unsigned thread_count;
static unsigned ended_count;
static unsigned barrier_arrived;
static int barrier_sum;
static int barrier_result;
static const char *barrier_site;
static const char *kernel_name;
static emu_fn kernel_fn;
static void *kernel_closure;
static uint64_t order_state;
static char fault_text[EMU_FAULT_TEXT_SIZE];
static bool fault_pending;
static bool block_failed;

struct emu_thread *emu_self;
struct emu_counts emu_counts;
struct emu_when emu_when = {.interval = 1};
bool emu_in_kernel;

static struct thread *running(void)
{
    return (struct thread *)emu_self;
}

static void fault_set(const char *format, va_list args)
{
    block_failed = true;
    if (fault_pending)
        return;
    fault_pending = true;
    int used = snprintf(fault_text, sizeof(fault_text), "%s: ", kernel_name ? kernel_name : "host");
    if (used > 0 && (size_t)used < sizeof(fault_text))
        (void)vsnprintf(fault_text + used, sizeof(fault_text) - (size_t)used, format, args);
}

void emu_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fault_set(format, args);
    va_end(args);
    if (emu_in_kernel)
        fiber_leave(running()->fiber); /* the block is given up: nobody enters this fiber again */
}

const char *emu_fault(void)
{
    const bool had = fault_pending;
    fault_pending = false;
    return had ? fault_text : NULL;
}

void emu_set_order(uint64_t seed)
{
    order_state = seed;
}

/* splitmix64 */
static uint64_t order_next(void)
{
    uint64_t z = (order_state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* A start and a stride without a common divisor visit each of `count` things once. */
struct order {
    uint64_t at;
    uint64_t stride;
    uint64_t count;
};

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static struct order order_make(uint64_t count)
{
    struct order o = {0, 1, count};
    if (order_state == 0 || count < 2)
        return o;
    o.at = order_next() % count;
    o.stride = 1 + order_next() % (count - 1);
    while (common_divisor(o.stride, count) != 1)
        o.stride = o.stride % (count - 1) + 1;
    return o;
}

static uint64_t order_step(struct order *o)
{
    const uint64_t at = o->at;
    o->at = (o->at + o->stride) % o->count;
    return at;
}

/* ---- meeting ------------------------------------------------------------------------------- */

static void wait_as(enum thread_state state, const char *site)
{
    struct thread *t = running();
    t->state = state;
    t->site = site;
    fiber_leave(t->fiber);
}

static void release(enum thread_state state, unsigned begin, unsigned end)
{
    for (unsigned i = begin; i < end; i++)
        if (threads[i].state == state)
            threads[i].state = RUNS;
}

/* A template's text may exist more than once. */
static bool is_same_site(const char *a, const char *b)
{
    return a == b || strcmp(a, b) == 0;
}

int emu_barrier(const char *site, int predicate)
{
    if (barrier_arrived && !is_same_site(barrier_site, site))
        emu_fail("thread %u waits at %s while others wait at %s", emu_self->index, site,
                 barrier_site);
    barrier_site = site;
    barrier_sum += predicate != 0;
    if (++barrier_arrived == thread_count) {
        barrier_result = barrier_sum;
        barrier_sum = 0;
        barrier_arrived = 0;
        emu_counts.barriers++;
        emu_when.interval++;
        release(AT_BARRIER, 0, thread_count);
    } else {
        wait_as(AT_BARRIER, site);
    }
    return barrier_result;
}

const uint8_t *emu_exchange(const char *site, uint32_t mask, const void *give, size_t size)
{
    const unsigned lane = emu_self->index % EMU_WARP;
    const unsigned first = emu_self->index - lane;
    struct warp *w = &warps[first / EMU_WARP];
    if (size > EMU_COLLECTIVE_MAX || !(mask >> lane & 1))
        emu_fail("%s: thread %u is not in the mask 0x%08x", site, emu_self->index, mask);
    if (w->arrived && (w->mask != mask || w->size != size || !is_same_site(w->site, site)))
        emu_fail("thread %u is at %s (mask 0x%08x) while its warp is at %s (mask 0x%08x)",
                 emu_self->index, site, mask, w->site, w->mask);
    w->mask = mask;
    w->size = size;
    w->site = site;
    w->arrived |= UINT32_C(1) << lane;
    memcpy(w->given + lane * size, give, size);
    if (w->arrived == mask) {
        w->arrived = 0;
        emu_counts.collectives++;
        memcpy(w->result, w->given, EMU_WARP * size);
        const unsigned last = first + EMU_WARP < thread_count ? first + EMU_WARP : thread_count;
        release(AT_COLLECTIVE, first, last);
    } else {
        wait_as(AT_COLLECTIVE, site);
    }
    return w->result;
}

void emu_syncwarp(const char *site, uint32_t mask)
{
    const uint8_t nothing = 0;
    (void)emu_exchange(site, mask, &nothing, sizeof(nothing));
    running()->warp_epoch++;
    emu_when.warp_epoch = running()->warp_epoch;
}

/* ---- blocks -------------------------------------------------------------------------------- */

static void thread_main(void *arg)
{
    (void)arg;
    kernel_fn(kernel_closure);
    running()->state = ENDED;
    ended_count++;
}

static void fail_stuck(void)
{
    unsigned at_barrier = 0;
    const struct thread *example = NULL;
    for (unsigned i = 0; i < thread_count; i++) {
        at_barrier += threads[i].state == AT_BARRIER;
        if (threads[i].state != ENDED && !example)
            example = &threads[i];
    }
    emu_fail("of %u threads %u have ended and %u wait at a barrier: they do not meet; thread %u "
             "waits at %s",
             thread_count, ended_count, at_barrier, example ? example->self.index : 0,
             example ? example->site : "?");
}

static void start_thread(unsigned i, struct emu_dim grid, struct emu_dim block, struct emu_dim at)
{
    struct thread *t = &threads[i];
    if (!t->fiber)
        t->fiber = fiber_create();
    t->self = (struct emu_thread){
        .thread_idx = {i % block.x, i / block.x % block.y, i / (block.x * block.y)},
        .block_idx = at,
        .block_dim = block,
        .grid_dim = grid,
        .index = i,
    };
    t->state = RUNS;
    t->warp_epoch = 0;
    fiber_start(t->fiber, thread_main, NULL);
}

/* Enters every thread that can go on. Returns how many there were. */
static unsigned run_round(void)
{
    struct order order = order_make(thread_count);
    unsigned went_on = 0;
    for (unsigned n = 0; n < thread_count && !block_failed; n++) {
        struct thread *t = &threads[order_step(&order)];
        if (t->state != RUNS)
            continue;
        went_on++;
        emu_self = &t->self;
        emu_when.thread = t->self.index;
        emu_when.warp_epoch = t->warp_epoch;
        emu_in_kernel = true;
        (void)fiber_enter(t->fiber);
        emu_in_kernel = false;
    }
    return went_on;
}

static void run_block(struct emu_dim grid, struct emu_dim block, struct emu_dim at, size_t dynamic)
{
    emu_counts.blocks++;
    emu_when.block_first = ++emu_when.interval;
    ended_count = 0;
    barrier_arrived = 0;
    barrier_sum = 0;
    for (unsigned i = 0; i < thread_count; i += EMU_WARP)
        warps[i / EMU_WARP].arrived = 0;
    shared_begin(dynamic);
    for (unsigned i = 0; i < thread_count; i++)
        start_thread(i, grid, block, at);
    while (!block_failed && ended_count < thread_count)
        if (run_round() == 0 && !block_failed)
            fail_stuck();
    shared_end();
}

static bool sizes_are_possible(struct emu_dim grid, struct emu_dim block, size_t dynamic)
{
    return grid.x && grid.y && grid.z && grid.x < UINT32_C(1) << 31 && grid.y <= 65535 &&
           grid.z <= 65535 && block.x && block.y && block.z && block.x <= EMU_THREADS_MAX &&
           block.y <= EMU_THREADS_MAX && block.z <= 64 &&
           block.x * block.y * block.z <= EMU_THREADS_MAX && dynamic <= EMU_SHARED_MAX;
}

int emu_run(const char *name, struct emu_dim grid, struct emu_dim block, size_t dynamic_bytes,
            emu_fn fn, void *closure)
{
    kernel_name = name;
    if (!sizes_are_possible(grid, block, dynamic_bytes)) {
        emu_fail("a grid of %u x %u x %u blocks of %u x %u x %u threads with %zu bytes of shared "
                 "memory cannot be launched",
                 grid.x, grid.y, grid.z, block.x, block.y, block.z, dynamic_bytes);
        return -EINVAL;
    }
    emu_counts.launches++;
    emu_when.launch_first = ++emu_when.interval;
    kernel_fn = fn;
    kernel_closure = closure;
    thread_count = block.x * block.y * block.z;
    block_failed = false;
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    struct order order = order_make(blocks);
    for (uint64_t n = 0; n < blocks && !block_failed; n++) {
        const uint64_t b = order_step(&order);
        const struct emu_dim at = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                                   (unsigned)(b / grid.x / grid.y)};
        run_block(grid, block, at, dynamic_bytes);
    }
    kernel_name = NULL;
    return block_failed ? -EFAULT : 0;
}

/* ---- atomics ------------------------------------------------------------------------------- */

uint32_t emu_atomic_add_u32(uint32_t *at, uint32_t value)
{
    const uint32_t old = *at;
    *at = old + value;
    return old;
}

uint64_t emu_atomic_add_u64(unsigned long long *at, uint64_t value)
{
    const uint64_t old = *at;
    *at = old + value;
    return old;
}

uint32_t emu_atomic_max_u32(uint32_t *at, uint32_t value)
{
    const uint32_t old = *at;
    *at = old > value ? old : value;
    return old;
}

uint64_t emu_atomic_max_u64(unsigned long long *at, uint64_t value)
{
    const uint64_t old = *at;
    *at = old > value ? old : value;
    return old;
}

uint32_t emu_atomic_exch_u32(uint32_t *at, uint32_t value)
{
    const uint32_t old = *at;
    *at = value;
    return old;
}

uint32_t emu_atomic_cas_u32(uint32_t *at, uint32_t expected, uint32_t value)
{
    const uint32_t old = *at;
    if (old == expected)
        *at = value;
    return old;
}
