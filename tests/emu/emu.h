/* SPDX-License-Identifier: Apache-2.0 */
/*
 * emu.h - runs a kernel's grid on the host: blocks one after another, the threads of a block as
 * fibers (fiber.h), with barriers, warp collectives, shared memory and atomics. The headers in
 * include/ give it the look of the CUDA toolkit, so that the very same .cu files compile with a C++
 * compiler. Only tests use it.
 *
 * What it finds: threads of a block or warp that do not meet at one barrier or collective; shared
 * memory used outside its bounds (with the address sanitizer, or behind the end otherwise not);
 * shared and device memory read before it was written (both begin as bytes of 0xff, which is not a
 * number in float and half); and, where the sources are compiled for race.c, two threads that touch
 * the same byte without a barrier between them. Blocks and threads run in an order that
 * emu_set_order() shuffles. A fault ends the launch; emu_fault() says what it was.
 *
 * What it does not do: blocks that wait for one another, dynamic parallelism, textures, a memory
 * model weaker than the host's.
 *
 * Threads: everything from one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EMU_WARP            32u
#define EMU_THREADS_MAX     1024u
#define EMU_SHARED_MAX      ((size_t)227 << 10) /* what a block may have on sm_90 */
#define EMU_SHARED_PARTS    64u
#define EMU_COLLECTIVE_MAX  48u /* bytes a lane gives to or takes from a collective */
#define EMU_FAULT_TEXT_SIZE 256u

struct emu_dim {
    unsigned x, y, z;
};

/* The thread that runs. */
struct emu_thread {
    struct emu_dim thread_idx;
    struct emu_dim block_idx;
    struct emu_dim block_dim;
    struct emu_dim grid_dim;
    unsigned index; /* in the block, x fastest */
};
extern struct emu_thread *emu_self;

typedef void (*emu_fn)(void *closure);

/* Runs closure's function once per thread. Returns 0, or -EINVAL for sizes that no device takes, or
 * -EFAULT after a fault. `name` is for messages. */
int emu_run(const char *name, struct emu_dim grid, struct emu_dim block, size_t dynamic_bytes,
            emu_fn fn, void *closure);

/* 0 = the natural order; else a seed for the order of blocks and threads. */
void emu_set_order(uint64_t seed);

/* The first fault since the last call, or NULL. Static storage until the next fault. */
const char *emu_fault(void);

/* For include/ and race.c: ends the launch. Inside a kernel this does not return. */
void emu_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Launches and barrier intervals so far, for tests of the emulator itself. */
struct emu_counts {
    uint64_t launches;
    uint64_t blocks;
    uint64_t barriers;
    uint64_t collectives;
};
extern struct emu_counts emu_counts;

/* ---- called by kernels ------------------------------------------------------------------- */

/* __syncthreads() and its reductions; `site` tells call sites apart. `how` 0: the sum of the
 * predicates, which and/or follow from. */
int emu_barrier(const char *site, int predicate);

void emu_syncwarp(const char *site, uint32_t mask);

/* All lanes of `mask` give `size` bytes; then every one sees all lanes' bytes:
 * all[lane * size]. Valid until the lane's next collective. */
const uint8_t *emu_exchange(const char *site, uint32_t mask, const void *give, size_t size);

/* Shared memory of the block: `tag` names the array; whoever comes first makes it. */
void *emu_shared(const void *tag, size_t size, size_t align);
void *emu_shared_dynamic(void);

/* Atomic because threads change only at barriers; not seen by race.c. */
uint32_t emu_atomic_add_u32(uint32_t *at, uint32_t value);
uint64_t emu_atomic_add_u64(unsigned long long *at, uint64_t value);
uint32_t emu_atomic_max_u32(uint32_t *at, uint32_t value);
uint64_t emu_atomic_max_u64(unsigned long long *at, uint64_t value);
uint32_t emu_atomic_exch_u32(uint32_t *at, uint32_t value);
uint32_t emu_atomic_cas_u32(uint32_t *at, uint32_t expected, uint32_t value);

/* ---- device memory ----------------------------------------------------------------------- */

/* Begins as 0xff. Aligned to 256 as on a device. NULL without memory. */
void *emu_alloc(size_t size);
void emu_free(void *memory);
size_t emu_allocated_bytes(void);

/* ---- race.c ------------------------------------------------------------------------------ */

/* The place of the running thread in time, for the shadow of memory. */
struct emu_when {
    uint32_t launch_first; /* interval with which this launch began */
    uint32_t block_first;  /* the same of this block */
    uint32_t interval;     /* rises at every barrier of a block and every block */
    uint32_t warp_epoch;   /* rises at every __syncwarp of this thread's warp */
    uint32_t thread;
};
extern struct emu_when emu_when;
extern bool emu_in_kernel;

/* Memory that is watched: two ranges, empty if there is nothing to watch. */
struct emu_range {
    uintptr_t begin;
    uintptr_t end;
};
extern struct emu_range emu_shared_range;
extern struct emu_range emu_device_range;

/* Do the kernels of this program report their accesses? Set before main() begins. */
extern bool emu_race_is_watched;

#ifdef __cplusplus
}
#endif
