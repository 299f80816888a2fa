/* SPDX-License-Identifier: Apache-2.0 */
/* cpu.h - the one instruction of a polite busy loop. */
#pragma once

static inline void cpu_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
