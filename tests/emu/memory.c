/* SPDX-License-Identifier: Apache-2.0 */
/* Shared and device memory of the emulated device: poisoned first, guarded where a sanitizer can.
 * Device memory comes from one range where race.c watches, else from malloc(), whose ends the
 * address sanitizer guards. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/emu/emu.h"
#include "tests/emu/shared.h"

#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEMORY_ASAN 1
#endif
#endif
#ifdef MEMORY_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size)   ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

#define GAP          64u /* guarded bytes between arrays */
#define POISON       0xff
#define ARENA_BYTES  (EMU_SHARED_MAX + EMU_SHARED_PARTS * (GAP + 256u))
#define DEVICE_BYTES ((size_t)1 << 30)
#define DEVICE_ALIGN 256u

struct part {
    const void *tag;
    uint8_t *at;
    size_t size;
};

static _Alignas(256) uint8_t arena[ARENA_BYTES];
static struct part parts[EMU_SHARED_PARTS];
static size_t part_count;
static size_t arena_used;
static size_t counted_bytes; /* what a device would count */
static const char dynamic_tag;

struct emu_range emu_shared_range;
struct emu_range emu_device_range;
bool emu_race_is_watched;

static size_t round_up(size_t value, size_t step)
{
    return (value + step - 1) / step * step;
}

void *emu_shared(const void *tag, size_t size, size_t align)
{
    for (size_t i = 0; i < part_count; i++)
        if (parts[i].tag == tag)
            return parts[i].at;
    counted_bytes = round_up(counted_bytes, align) + size;
    if (part_count == EMU_SHARED_PARTS || counted_bytes > EMU_SHARED_MAX) {
        emu_fail("%zu bytes of shared memory in %zu arrays are more than a block has",
                 counted_bytes, part_count + 1);
        return arena;
    }
    const size_t begin = round_up(arena_used + GAP, align < 16 ? 16 : align);
    struct part *p = &parts[part_count++];
    *p = (struct part){tag, arena + begin, size};
    arena_used = begin + size;
    ASAN_UNPOISON_MEMORY_REGION(p->at, size);
    memset(p->at, POISON, size);
    return p->at;
}

void *emu_shared_dynamic(void)
{
    return emu_shared(&dynamic_tag, 0, 16);
}

void shared_begin(size_t dynamic_bytes)
{
    emu_shared_range = (struct emu_range){(uintptr_t)arena, (uintptr_t)arena + sizeof(arena)};
    part_count = 0;
    arena_used = 0;
    counted_bytes = 0;
    ASAN_POISON_MEMORY_REGION(arena, sizeof(arena));
    if (dynamic_bytes)
        (void)emu_shared(&dynamic_tag, dynamic_bytes, 16);
}

void shared_end(void)
{
    ASAN_UNPOISON_MEMORY_REGION(arena, sizeof(arena));
    emu_shared_range = (struct emu_range){0, 0};
}

/* ---- device memory ------------------------------------------------------------------------- */

/* Before every allocation; keeps it aligned. */
struct header {
    size_t size;
    uint8_t *raw;
};

static size_t allocated;
static size_t device_used; /* of the watched range; never goes back while anything is in use */
static size_t live;

size_t emu_allocated_bytes(void)
{
    return allocated;
}

static uint8_t *take_watched(size_t size)
{
    if (!emu_device_range.begin) {
        void *map = mmap(NULL, DEVICE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED)
            return NULL;
        emu_device_range = (struct emu_range){(uintptr_t)map, (uintptr_t)map + DEVICE_BYTES};
    }
    const size_t taken = round_up(size + DEVICE_ALIGN, DEVICE_ALIGN);
    if (taken > DEVICE_BYTES - device_used)
        return NULL;
    uint8_t *at = (uint8_t *)emu_device_range.begin + device_used; // NOLINT: an address kept whole
    device_used += taken;
    return at;
}

void *emu_alloc(size_t size)
{
    const bool watched = emu_race_is_watched;
    uint8_t *raw = watched ? take_watched(size + DEVICE_ALIGN) : malloc(size + 2 * DEVICE_ALIGN);
    if (!raw)
        return NULL;
    uint8_t *at = raw + DEVICE_ALIGN;
    at += (DEVICE_ALIGN - (uintptr_t)at % DEVICE_ALIGN) % DEVICE_ALIGN;
    const struct header h = {size, raw};
    memcpy(at - sizeof(h), &h, sizeof(h));
    memset(at, POISON, size);
    if (!watched) /* up to the end that malloc() gave */
        ASAN_POISON_MEMORY_REGION(at + round_up(size, 8),
                                  (size_t)(raw + size + 2 * DEVICE_ALIGN - at) - round_up(size, 8));
    allocated += size;
    live++;
    return at;
}

void emu_free(void *memory)
{
    struct header h;
    if (!memory)
        return;
    memcpy(&h, (uint8_t *)memory - sizeof(h), sizeof(h));
    memset(memory, POISON, h.size);
    allocated -= h.size;
    if (!emu_race_is_watched) {
        ASAN_UNPOISON_MEMORY_REGION(h.raw, h.size + 2 * DEVICE_ALIGN);
        free(h.raw);
    }
    if (--live == 0)
        device_used = 0;
}
