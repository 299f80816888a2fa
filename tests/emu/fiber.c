/* SPDX-License-Identifier: Apache-2.0 */
/* Fibers: a stack each, and a switch of the registers that a call must keep. */
#include "tests/emu/fiber.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif

#ifdef FIBER_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if defined(__x86_64__)
/* Saves what the System V ABI makes a callee keep, takes the other stack, restores. */
__asm__(".text\n"
        ".type weft_fiber_switch, @function\n"
        "weft_fiber_switch:\n"
        "    pushq %rbp\n    pushq %rbx\n    pushq %r12\n"
        "    pushq %r13\n    pushq %r14\n    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n    popq %r14\n    popq %r13\n"
        "    popq %r12\n    popq %rbx\n    popq %rbp\n"
        "    ret\n"
        ".size weft_fiber_switch, .-weft_fiber_switch\n");
#define FIBER_SAVED_WORDS 6u
#define FIBER_BY_HAND     1
#elif defined(__aarch64__)
__asm__(".text\n"
        ".type weft_fiber_switch, %function\n"
        "weft_fiber_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp, #0]\n    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n   stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n   stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n     stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp, #0]\n    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n   ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n   ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n     ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size weft_fiber_switch, .-weft_fiber_switch\n");
#define FIBER_BY_HAND 1
#else
#include <ucontext.h>
#endif

struct fiber {
    uint8_t *stack; /* lowest address; a page before it faults */
    size_t map_bytes;
    fiber_fn fn;
    void *arg;
    bool ended;
#ifdef FIBER_BY_HAND
    void *sp;        /* the fiber's, while it does not run */
    void *caller_sp; /* fiber_enter()'s, while it runs */
#else
    ucontext_t here;
    ucontext_t caller;
#endif
    void *fake_stack; /* the sanitizer's, of the side that does not run */
    void *caller_fake_stack;
    const void *caller_bottom;
    size_t caller_bytes;
};

static struct fiber *starting; /* whose first entry it is */

#ifdef FIBER_BY_HAND
void weft_fiber_switch(void **save_sp, void *load_sp) __asm__("weft_fiber_switch");
#endif

static void raw_enter(struct fiber *f)
{
#ifdef FIBER_BY_HAND
    weft_fiber_switch(&f->caller_sp, f->sp);
#else
    (void)swapcontext(&f->caller, &f->here);
#endif
}

static void raw_leave(struct fiber *f)
{
#ifdef FIBER_BY_HAND
    weft_fiber_switch(&f->sp, f->caller_sp);
#else
    (void)swapcontext(&f->here, &f->caller);
#endif
}

static void arrived(struct fiber *f)
{
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, &f->caller_bottom, &f->caller_bytes);
#else
    (void)f;
#endif
}

static void fiber_main(void)
{
    struct fiber *f = starting;
    f->fake_stack = NULL;
    arrived(f);
    f->fn(f->arg);
    f->ended = true;
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(NULL, f->caller_bottom, f->caller_bytes);
#endif
    raw_leave(f);
    abort(); /* an ended fiber is never entered */
}

struct fiber *fiber_create(void)
{
    struct fiber *f = calloc(1, sizeof(*f));
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (!f)
        abort();
    f->map_bytes = FIBER_STACK_BYTES + page;
    void *map =
        mmap(NULL, f->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map, page, PROT_NONE))
        abort();
    f->stack = (uint8_t *)map + page;
    f->ended = true;
    return f;
}

void fiber_destroy(struct fiber *fiber)
{
    if (!fiber)
        return;
    munmap(fiber->stack + FIBER_STACK_BYTES - fiber->map_bytes, fiber->map_bytes);
    free(fiber);
}

void fiber_start(struct fiber *fiber, fiber_fn fn, void *arg)
{
#ifdef FIBER_ASAN
    if (!fiber->ended) /* left in the middle, with what its frames have guarded */
        __asan_unpoison_memory_region(fiber->stack, FIBER_STACK_BYTES);
#endif
    fiber->fn = fn;
    fiber->arg = arg;
    fiber->ended = false;
#if defined(__x86_64__)
    void **top = (void **)(void *)(fiber->stack + FIBER_STACK_BYTES);
    *--top = NULL; /* where fiber_main would return to; keeps its frame aligned as after a call */
    *--top = (void *)(uintptr_t)fiber_main;
    for (unsigned i = 0; i < FIBER_SAVED_WORDS; i++)
        *--top = NULL;
    fiber->sp = top;
#elif defined(__aarch64__)
    uint64_t *top = (uint64_t *)(void *)(fiber->stack + FIBER_STACK_BYTES - 160);
    for (unsigned i = 0; i < 20; i++)
        top[i] = 0;
    top[11] = (uint64_t)(uintptr_t)fiber_main;
    fiber->sp = top;
#else
    if (getcontext(&fiber->here))
        abort();
    fiber->here.uc_stack.ss_sp = fiber->stack;
    fiber->here.uc_stack.ss_size = FIBER_STACK_BYTES;
    fiber->here.uc_link = NULL;
    makecontext(&fiber->here, fiber_main, 0);
#endif
}

bool fiber_enter(struct fiber *fiber)
{
    starting = fiber;
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&fiber->caller_fake_stack, fiber->stack, FIBER_STACK_BYTES);
#endif
    raw_enter(fiber);
#ifdef FIBER_ASAN
    __sanitizer_finish_switch_fiber(fiber->caller_fake_stack, NULL, NULL);
#endif
    return !fiber->ended;
}

void fiber_leave(struct fiber *fiber)
{
#ifdef FIBER_ASAN
    __sanitizer_start_switch_fiber(&fiber->fake_stack, fiber->caller_bottom, fiber->caller_bytes);
#endif
    raw_leave(fiber);
    arrived(fiber);
}
