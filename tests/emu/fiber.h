/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fiber.h - stacks that are switched by hand: the threads of an emulated block. Used by emu.c.
 *
 * A fiber runs until it calls fiber_leave() or its function returns; fiber_enter() goes on with it.
 * x86-64 and AArch64 switch registers themselves, which takes nanoseconds; others use ucontext. The
 * address sanitizer is told of every switch. Stacks end at a page that faults.
 *
 * Threads: all fibers belong to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define FIBER_STACK_BYTES ((size_t)96 << 10)

struct fiber;

typedef void (*fiber_fn)(void *arg);

/* Heap, with a stack of its own that is used again after every fiber_start(). Aborts without
 * memory. */
struct fiber *fiber_create(void);
void fiber_destroy(struct fiber *fiber);

/* The next fiber_enter() begins fn(arg), whatever the fiber did before. */
void fiber_start(struct fiber *fiber, fiber_fn fn, void *arg);

/* Runs the fiber until it leaves or ends. Returns false if it has ended. */
bool fiber_enter(struct fiber *fiber);

/* Back to fiber_enter(). To be called by the fiber that runs. */
void fiber_leave(struct fiber *fiber);
