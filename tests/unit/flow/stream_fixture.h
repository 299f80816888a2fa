/* SPDX-License-Identifier: Apache-2.0 */
/* stream_fixture.h - one stream and its policy, told one thing at a time, and what it must order.
 * Used by test_stream.c and test_rival.c. */
#pragma once

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/stream.h"
#include "schemas/base/clock.h"

#define T0   NS_PER_S
#define MS   NS_PER_MS
#define NONE WEFT_NODE_NONE

struct fixture {
    struct stream_policy policy;
    struct stream s;
    struct stream_order order;
};

static const uint16_t no_alternates[2] = {NONE, NONE};

static inline void fixture_open(struct fixture *f, uint32_t paths, bool hedge, bool once)
{
    memset(f, 0, sizeof(*f));
    stream_policy_init(&f->policy, paths);
    for (uint32_t i = 0; hedge && i < STREAM_HEDGE_SAMPLES; i++) {
        hist_add(&f->policy.first_us, 50000); /* a first token takes 50 ms */
    }
    f->policy.hedge_purse = hedge ? STREAM_HEDGE_MAX : 0;
    stream_init(&f->s, &f->policy, hedge, once, T0);
}

/* The next order must be this one. */
static inline const struct stream_order *expect(struct fixture *f, enum stream_kind kind,
                                                uint32_t attempt)
{
    ck_assert(stream_next(&f->s, &f->order));
    ck_assert_int_eq(f->order.kind, kind);
    ck_assert_uint_eq(f->order.attempt, attempt);
    return &f->order;
}

static inline void expect_none(struct fixture *f)
{
    ck_assert(!stream_next(&f->s, &f->order));
}

static inline void accept(struct fixture *f, uint32_t attempt, uint16_t server, uint16_t alt1,
                          uint16_t alt2)
{
    uint16_t alternates[2] = {alt1, alt2};
    stream_accepted(&f->s, attempt, server, alternates);
}

static inline bool token(struct fixture *f, uint32_t attempt, uint32_t id, uint64_t at_ns)
{
    return stream_token(&f->s, &f->policy, attempt, id, at_ns);
}

static inline void over(struct fixture *f, uint32_t attempt, int status, uint64_t at_ns)
{
    weft_result_t result = {.status = status, .resends = 1};
    result.finish = status == 0                  ? WEFT_FINISH_STOP
                    : status == WEFT_E_CANCELLED ? WEFT_FINISH_CANCELLED
                                                 : WEFT_FINISH_FAILED;
    stream_over(&f->s, &f->policy, attempt, &result, at_ns);
}

static inline void refuse(struct fixture *f, uint32_t attempt, int status, uint32_t retry_ms,
                          uint64_t at_ns)
{
    weft_result_t result = {
        .status = status, .finish = WEFT_FINISH_REFUSED, .retry_after_ms = retry_ms};
    stream_over(&f->s, &f->policy, attempt, &result, at_ns);
}

static inline void tick(struct fixture *f, uint64_t at_ns)
{
    stream_tick(&f->s, &f->policy, at_ns);
}

/* The stream has ended so; nothing is left to do. */
static inline void expect_end(struct fixture *f, int status, int finish, uint32_t tokens)
{
    ck_assert(f->s.ended);
    ck_assert_int_eq(f->s.result.status, status);
    ck_assert_int_eq(f->s.result.finish, finish);
    ck_assert_uint_eq(f->s.result.new_tokens, tokens);
    ck_assert_uint_eq(stream_due_ns(&f->s), UINT64_MAX);
    stream_deinit(&f->s);
}
