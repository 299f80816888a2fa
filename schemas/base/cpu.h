/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.h - the one instruction of a polite busy loop, and how many processors there are for us. */
#pragma once

#include <sched.h>
#include <stdint.h>
#include <unistd.h>

/* Processors that the calling thread may run on, by a cpuset or taskset fewer than the machine has;
 * at least 1. */
static inline uint32_t cpu_permitted(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        return (uint32_t)CPU_COUNT(&set);
    /* A machine with more than cpu_set_t has room for. */
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 1 ? (uint32_t)online : 1;
}

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
