/* SPDX-License-Identifier: Apache-2.0 */
/*
 * race.c - finds two threads that touch the same byte of shared or device memory, one of them
 * writing, with nothing between them that orders them: a barrier for threads of one block,
 * __syncwarp() for lanes of one warp, the end of the launch for different blocks.
 *
 * The kernels are compiled with -fsanitize=thread, which makes the compiler call __tsan_read4() and
 * its kin at every access; they are linked without that sanitizer's library, and these functions
 * take its place. A cell per two bytes remembers the last writer and the last readers (so single
 * bytes written side by side would look like a race; no kernel does that). Atomics are not seen.
 * Builds with a sanitizer of their own leave this file out.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/emu/emu.h"

#define CELL            2u      /* bytes */
#define SEVERAL_IN_WARP 0x8000u /* | warp: more than one lane of this warp, at one warp epoch */
#define SEVERAL         0xffffu /* threads of more than one warp */

struct cell {
    uint32_t write_interval;
    uint32_t read_interval;
    uint16_t write_thread;
    uint16_t read_thread;
    uint16_t write_epoch;
    uint16_t read_epoch;
};

struct shadow {
    struct emu_range range;
    struct cell *cells;
};

static struct shadow shared_shadow;
static struct shadow device_shadow;
static struct cell *shadow_cell(struct shadow *s, struct emu_range range, uintptr_t at)
{
    if (s->range.begin != range.begin) {
        const size_t bytes = (range.end - range.begin) / CELL * sizeof(struct cell);
        if (s->cells)
            munmap(s->cells, (s->range.end - s->range.begin) / CELL * sizeof(struct cell));
        void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            abort();
        *s = (struct shadow){range, map};
    }
    return &s->cells[(at - range.begin) / CELL];
}

/* Was what happened at `interval` by `thread` (at its warp's `epoch`) unordered with now? */
static bool is_unordered(uint32_t interval, uint32_t thread, uint32_t epoch, bool is_shared)
{
    const struct emu_when *now = &emu_when;
    if (interval < now->launch_first)
        return false;
    if (interval < now->block_first)
        return !is_shared; /* another block of this launch */
    if (interval != now->interval)
        return false; /* a barrier lies between */
    if (thread == now->thread)
        return false;
    if (thread == SEVERAL)
        return true;
    const uint32_t warp = thread & SEVERAL_IN_WARP ? thread & 0x7fffu : thread / EMU_WARP;
    return warp != now->thread / EMU_WARP || epoch == (uint16_t)now->warp_epoch;
}

static void note_read(struct cell *c)
{
    const struct emu_when *now = &emu_when;
    const uint32_t warp = now->thread / EMU_WARP;
    uint32_t reader = now->thread;
    if (c->read_interval == now->interval && c->read_thread != now->thread) {
        const uint32_t old = c->read_thread;
        const uint32_t old_warp = old & SEVERAL_IN_WARP ? old & 0x7fffu : old / EMU_WARP;
        if (old == SEVERAL || old_warp != warp)
            reader = SEVERAL;
        else if (c->read_epoch == (uint16_t)now->warp_epoch)
            reader = SEVERAL_IN_WARP | warp;
        /* else what the warp read before its __syncwarp() lies before whatever comes now */
    }
    c->read_interval = now->interval;
    c->read_thread = (uint16_t)reader;
    c->read_epoch = (uint16_t)now->warp_epoch;
}

static void access_cell(struct cell *c, uintptr_t at, bool is_write, bool is_shared)
{
    const struct emu_when *now = &emu_when;
    const char *where = is_shared ? "shared" : "device";
    if (!is_write && c->read_interval == now->interval && c->read_thread == now->thread)
        return; /* once more */
    if (is_unordered(c->write_interval, c->write_thread, c->write_epoch, is_shared))
        emu_fail("race: thread %u of block %u,%u %s %s memory %p that another thread (%u) wrote",
                 now->thread, emu_self->block_idx.x, emu_self->block_idx.y,
                 is_write ? "writes" : "reads", where, (void *)at, c->write_thread); // NOLINT
    if (is_write && is_unordered(c->read_interval, c->read_thread, c->read_epoch, is_shared))
        emu_fail("race: thread %u of block %u,%u writes %s memory %p that another thread read",
                 now->thread, emu_self->block_idx.x, emu_self->block_idx.y, where,
                 (void *)at); // NOLINT
    if (is_write) {
        c->write_interval = now->interval;
        c->write_thread = (uint16_t)now->thread;
        c->write_epoch = (uint16_t)now->warp_epoch;
    } else {
        note_read(c);
    }
}

static void access_range(const volatile void *memory, size_t size, bool is_write)
{
    const uintptr_t at = (uintptr_t)memory;
    if (!emu_in_kernel)
        return;
    const bool is_shared = at >= emu_shared_range.begin && at < emu_shared_range.end;
    if (!is_shared && (at < emu_device_range.begin || at >= emu_device_range.end))
        return;
    struct shadow *s = is_shared ? &shared_shadow : &device_shadow;
    struct cell *cell = shadow_cell(s, is_shared ? emu_shared_range : emu_device_range, at);
    for (size_t i = 0; i < (size + at % CELL + CELL - 1) / CELL; i++)
        access_cell(cell + i, at + i * CELL, is_write, is_shared);
}

/* ---- what the compiler calls --------------------------------------------------------------- */

void __tsan_init(void);
void __tsan_init(void)
{
    emu_race_is_watched = true;
}

void __tsan_func_entry(void *pc);
void __tsan_func_entry(void *pc)
{
    (void)pc;
}

void __tsan_func_exit(void);
void __tsan_func_exit(void)
{
}

void __tsan_vptr_update(void **at, void *value);
void __tsan_vptr_update(void **at, void *value)
{
    (void)at;
    (void)value;
}

void __tsan_read_range(void *at, size_t size);
void __tsan_read_range(void *at, size_t size)
{
    access_range(at, size, false);
}

void __tsan_write_range(void *at, size_t size);
void __tsan_write_range(void *at, size_t size)
{
    access_range(at, size, true);
}

#define ACCESSES(size)                                                                             \
    void __tsan_read##size(void *at);                                                              \
    void __tsan_read##size(void *at)                                                               \
    {                                                                                              \
        access_range(at, size, false);                                                             \
    }                                                                                              \
    void __tsan_write##size(void *at);                                                             \
    void __tsan_write##size(void *at)                                                              \
    {                                                                                              \
        access_range(at, size, true);                                                              \
    }
#define UNALIGNED(size)                                                                            \
    void __tsan_unaligned_read##size(void *at);                                                    \
    void __tsan_unaligned_read##size(void *at)                                                     \
    {                                                                                              \
        access_range(at, size, false);                                                             \
    }                                                                                              \
    void __tsan_unaligned_write##size(void *at);                                                   \
    void __tsan_unaligned_write##size(void *at)                                                    \
    {                                                                                              \
        access_range(at, size, true);                                                              \
    }

ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
UNALIGNED(2)
UNALIGNED(4)
UNALIGNED(8)
UNALIGNED(16)

/* clang's copies. */
void *__tsan_memcpy(void *to, const void *from, size_t size);
void *__tsan_memcpy(void *to, const void *from, size_t size)
{
    access_range(from, size, false);
    access_range(to, size, true);
    return memcpy(to, from, size);
}

void *__tsan_memset(void *to, int value, size_t size);
void *__tsan_memset(void *to, int value, size_t size)
{
    access_range(to, size, true);
    return memset(to, value, size);
}
