/* SPDX-License-Identifier: Apache-2.0 */
/*
 * breaker.h - whether a server should be asked at all. Closed: yes. After BREAKER_FAILURES failures
 * in a row, or one that says the server is not there, it opens: no request goes to it until a
 * pause is over, each pause twice the one before, with jitter. Then it is half open: one probe may
 * go. If that succeeds the breaker closes on probation, where one more failure opens it again and
 * only a real answer makes the pauses short again.
 *
 * A server that asks for a pause (429 or 503 with Retry-After) gets it without being taken for
 * broken: breaker_hold().
 *
 * Sans-I/O: the caller's clock, no allocation. Threads: none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schemas/base/clock.h"
#include "schemas/base/rng.h"

#define BREAKER_FAILURES 3u
#define BREAKER_FIRST_NS NS_PER_S
#define BREAKER_LAST_NS  (60 * NS_PER_S)
#define BREAKER_HOLD_NS  (300 * NS_PER_S) /* longest pause that a server may ask for */

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
    enum breaker_state state;
    uint32_t failures; /* in a row */
    uint32_t opened;   /* times since the last real answer: doubles the pause */
    uint64_t until_ns; /* open: when a probe may go */
    uint64_t hold_ns;  /* no request before this */
    struct rng rng;
};

/* Starts half open: whoever was never heard of is probed first. */
void breaker_init(struct breaker *breaker, uint64_t seed);

/* May a request go now? */
bool breaker_allows(const struct breaker *breaker, uint64_t now_ns);

/* Should a probe go now? Then it has begun, and its outcome is owed. */
bool breaker_probe(struct breaker *breaker, uint64_t now_ns);

/* A probe was answered. */
void breaker_alive(struct breaker *breaker);

/* A request was answered as it should be. */
void breaker_success(struct breaker *breaker);

/* A request or probe failed. `gone`: not a failure of one request, the server is not there or lets
 * nobody in. */
void breaker_failure(struct breaker *breaker, bool gone, uint64_t now_ns);

/* The server asks for a pause. */
void breaker_hold(struct breaker *breaker, uint64_t pause_ns, uint64_t now_ns);

/* When breaker_allows() or breaker_probe() may change by itself; UINT64_MAX = never. */
uint64_t breaker_due_ns(const struct breaker *breaker, uint64_t now_ns);

const char *breaker_name(enum breaker_state state);
