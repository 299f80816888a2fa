/* SPDX-License-Identifier: Apache-2.0 */
/* breaker.c - see breaker.h. */
#include "kernels/upstream/breaker.h"

#define DOUBLINGS_MAX 6u /* 64 s, beyond BREAKER_LAST_NS */
#define JITTER_SHARE  5u /* a pause is up to this part of it longer */

void breaker_init(struct breaker *breaker, uint64_t seed)
{
    *breaker = (struct breaker){.state = BREAKER_OPEN, .rng = {seed}};
}

bool breaker_allows(const struct breaker *breaker, uint64_t now_ns)
{
    return breaker->state == BREAKER_CLOSED && now_ns >= breaker->hold_ns;
}

bool breaker_probe(struct breaker *breaker, uint64_t now_ns)
{
    if (breaker->state != BREAKER_OPEN || now_ns < breaker->until_ns || now_ns < breaker->hold_ns)
        return false;
    breaker->state = BREAKER_HALF_OPEN;
    return true;
}

void breaker_alive(struct breaker *breaker)
{
    if (breaker->state != BREAKER_HALF_OPEN)
        return;
    breaker->state = BREAKER_CLOSED;
    breaker->failures = breaker->opened ? BREAKER_FAILURES - 1 : 0;
}

void breaker_success(struct breaker *breaker)
{
    if (breaker->state != BREAKER_CLOSED)
        return; /* begun before it opened: the probe decides */
    breaker->failures = 0;
    breaker->opened = 0;
}

static void open_now(struct breaker *breaker, uint64_t now_ns)
{
    const uint32_t doublings = breaker->opened < DOUBLINGS_MAX ? breaker->opened : DOUBLINGS_MAX;
    uint64_t pause_ns = BREAKER_FIRST_NS << doublings;
    pause_ns = pause_ns < BREAKER_LAST_NS ? pause_ns : BREAKER_LAST_NS;
    pause_ns +=
        rng_below(&breaker->rng, (uint32_t)(pause_ns / NS_PER_US / JITTER_SHARE)) * NS_PER_US;
    breaker->state = BREAKER_OPEN;
    breaker->until_ns = now_ns + pause_ns;
    breaker->failures = 0;
    breaker->opened++;
}

void breaker_failure(struct breaker *breaker, bool gone, uint64_t now_ns)
{
    if (breaker->state == BREAKER_OPEN)
        return; /* one of several that were under way */
    breaker->failures++;
    if (breaker->state == BREAKER_HALF_OPEN || gone || breaker->failures >= BREAKER_FAILURES)
        open_now(breaker, now_ns);
}

void breaker_hold(struct breaker *breaker, uint64_t pause_ns, uint64_t now_ns)
{
    pause_ns = pause_ns < BREAKER_HOLD_NS ? pause_ns : BREAKER_HOLD_NS;
    if (now_ns + pause_ns > breaker->hold_ns)
        breaker->hold_ns = now_ns + pause_ns;
}

uint64_t breaker_due_ns(const struct breaker *breaker, uint64_t now_ns)
{
    uint64_t due_ns = breaker->state == BREAKER_OPEN ? breaker->until_ns : 0;
    if (breaker->state == BREAKER_HALF_OPEN)
        return UINT64_MAX; /* the probe's end */
    due_ns = due_ns > breaker->hold_ns ? due_ns : breaker->hold_ns;
    return breaker->state == BREAKER_CLOSED && due_ns <= now_ns ? UINT64_MAX : due_ns;
}

const char *breaker_name(enum breaker_state state)
{
    static const char *const names[] = {
        [BREAKER_CLOSED] = "closed", [BREAKER_OPEN] = "open", [BREAKER_HALF_OPEN] = "half-open"};
    return names[state];
}
